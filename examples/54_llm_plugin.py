"""The library `llm` in both directions. Its command asks rxllm's models, too: ``llm -m rxllm/embedded "Hello"``."""

import rxllm
from rxllm.adapters import from_llm

try:
    # A model of llm, by its name, with the methods and combinators of rxllm. The plugin that this name belongs to is
    # rxllm itself, because its model needs no key; "gpt-5-mini" and the names of other plugins work as well.
    model = rxllm.fallback(from_llm("rxllm/embedded", seed=3), rxllm.Embedded())
    for chunk in model.stream("Write me a song about sparkling water."):
        print(chunk, end="", flush=True)
    print()

    # A model of rxllm in a program of llm. "rxllm/openai:gpt-5-mini" is one, too.
    import llm

    response = llm.get_model("rxllm/embedded").prompt("What is tea?", seed=3, max_tokens=20)
    print(response.text(), response.usage())
except rxllm.MisuseError as error:  # llm is not installed, and the error says what to do
    print(error)
