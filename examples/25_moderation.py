"""Moderation: a second model reads along, sentence by sentence, and cuts the first one off (`take_until`).

`share` lets both read one request. It runs on the loop of who reads: `stream` reads from rxllm's own, `astream` from
the running one.
"""

from reactivex import Observable
from reactivex import operators as ops

import rxllm


class Moderator(rxllm.LLM):
    """Thinks that children should not hear of fear."""

    async def complete(self, request: rxllm.Request) -> str:
        """Its verdict."""
        return "unsafe" if "afraid" in request.text else "safe"


def moderation() -> Observable[str]:
    answer = rxllm.Embedded(seed=2)("The sea and the stones on the beach?").pipe(rxllm.share())
    verdicts = answer.pipe(rxllm.sentences(), ops.flat_map(Moderator()), rxllm.text())
    return answer.pipe(rxllm.text(), ops.take_until(verdicts.pipe(ops.filter(lambda verdict: verdict == "unsafe"))))


if __name__ == "__main__":
    for piece in moderation().pipe(rxllm.stream()):
        print(piece, end="", flush=True)
    print()
