"""Three limits on time: `first_chunk_timeout` and `idle_timeout` on silence, `deadline` on the whole.

Each closes the stream and fails with a `Timeout`. They run on rxllm's background loop, since a script has none.
"""

import rxllm
from rxllm.testing import MarbleLLM

silent = MarbleLLM("-")  # says nothing, for ever
stalling = MarbleLLM("-Once-upon-", timespan=0.01)  # says something, and then nothing, for ever
rambling = MarbleLLM("-blah" * 1000, timespan=0.01)  # never comes to an end

for model in (
    rxllm.pipe(silent, rxllm.first_chunk_timeout(0.1), rxllm.message()),
    rxllm.pipe(stalling, rxllm.idle_timeout(0.1), rxllm.message()),
    rxllm.pipe(rambling, rxllm.deadline(0.2), rxllm.message()),
):
    try:
        print(model.invoke("Tell me a story."))
    except rxllm.Timeout as error:
        print(error)

# A limit is part of the model, so others step in when it is over.
brisk = rxllm.pipe(silent, rxllm.first_chunk_timeout(0.1))
story = rxllm.pipe(rxllm.fallback(brisk, rxllm.Embedded(seed=1, max_tokens=20)), rxllm.message())
print(story.invoke("Tell me a story about a ship."))
