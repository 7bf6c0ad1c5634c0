"""`retry` asks again after a failure that may pass, `fallback` asks another model: before the first chunk, unheard.

It runs on rxllm's background loop, since a script has none: `stream` reads from there.
"""

import rxllm
from rxllm.testing import MarbleLLM

TEA = {"a": "Tea ", "b": "is served."}
soon = rxllm.backoff(0.01)  # seconds, twice as long each time; usually half a second

# The busy one is asked twice, then the backup is. The reader hears only of an answer.
busy = MarbleLLM("#", error=rxllm.Overloaded("Too many guests.", status=529))
backup = MarbleLLM("-a-b-|", values=TEA, timespan=0.01)
llm = rxllm.fallback(rxllm.retry(busy, attempts=2, delay=soon), backup)
print([str(chunk) for chunk in llm.stream("Tea, please.")])
print("asked:", len(busy.requests), len(backup.requests))

# What has begun is asked for again only on request: a chunk with `reset` then takes back what came.
breaking = MarbleLLM(["-a-#", "-a-b-|"], values=TEA, timespan=0.01)
chunks = list(rxllm.retry(breaking, delay=soon, mid_stream="restart").stream("Tea, please."))
print(["forget that" if chunk.reset else str(chunk) for chunk in chunks])
print("the sum:", sum(chunks, rxllm.Chunk()))
