"""Live translation: each sentence is translated as soon as it is whole, while the next one is still being spoken.

`concat_map` keeps their order. It runs on the loop of who reads: `stream` reads from rxllm's own, `astream` from the
running one.
"""

import re

from reactivex import Observable
from reactivex import operators as ops

import rxllm


class PigLatin(rxllm.LLM):
    """Translates into Pig Latin."""

    async def complete(self, request: rxllm.Request) -> str:
        """The translation."""
        return re.sub(r"\b([^aeiou\W]+)(\w+)", r"\2\1ay", request.text.lower())


def translation() -> Observable[str]:
    speaker = rxllm.Embedded(seed=2, max_tokens=60)
    return speaker("Tell me about the sea.").pipe(rxllm.sentences(), ops.concat_map(PigLatin()), rxllm.text())


if __name__ == "__main__":
    for sentence in translation().pipe(rxllm.stream()):
        print(sentence)
