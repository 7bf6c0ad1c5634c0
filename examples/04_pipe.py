"""`pipe` composes functions, models and operators; what comes out is used as a model is.

Each stage is called with what the one before returned: a list of messages, the chunks, their text, the shouted text.
"""

from reactivex import operators as ops

import rxllm


def ask_for_song(topic: str) -> list[rxllm.Message]:
    return [
        rxllm.Message("system", "You are a poet."),
        rxllm.Message("user", f"Write me a song about {topic}."),
    ]


poet = rxllm.pipe(ask_for_song, rxllm.Embedded(), rxllm.text(), ops.map(str.upper))

for piece in poet.stream("the sea", seed=3):
    print(piece, end="", flush=True)
print()

songs = poet.batch(["rain", "tea"], max_tokens=5)
print(songs)  # a pipeline's answer is its last value: put rxllm.message() at its end for the whole
