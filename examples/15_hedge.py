"""`hedge` asks a second model when the first stays silent; who speaks first is heard, and the other is closed.

It runs on rxllm's background loop, since a script has none: `invoke` waits for it.
"""

import rxllm
from rxllm.testing import MarbleLLM


def log(event: rxllm.Event) -> None:
    if not isinstance(event, rxllm.Chunk):
        print("  " * len(event.parent_ids), event.name, type(event).__name__)


stuck = MarbleLLM("-", run_name="stuck")  # says nothing, for ever
quick = MarbleLLM("-Here-I-am|", timespan=0.01, run_name="quick")

llm = rxllm.hedge(stuck, quick, after=0.05)  # seconds; 0 is a race
print(llm.invoke("Is anybody there?", handlers=[log]))

# A first model that answers in time is the only one that is asked.
print(rxllm.hedge(quick, stuck, after=10).invoke("And now?"), len(stuck.requests))
