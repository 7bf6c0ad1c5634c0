"""A model on this machine: llama.cpp answers with a GGUF file, given as ``python 53_local_model.py FILE``."""

import sys

import rxllm

# docs/providers/local.md says where to get this file.
path = sys.argv[1] if len(sys.argv) > 1 else "SmolLM2-135M-Instruct.Q4_1.gguf"
try:
    llm = rxllm.LlamaCpp(path, context=2048, max_tokens=100)
    for chunk in llm.stream("Write me a 1 verse song about sparkling water."):
        print(chunk, end="", flush=True)
    print()
    answers = llm.batch([f"Name a {thing}." for thing in ("river", "lake", "sea")])  # all at once
    print([answer.text for answer in answers])
except rxllm.MisuseError as error:  # the package or the file is missing, and the error says what to do
    print(error)
