"""A model that thinks aloud in its text: `split_reasoning` tells thoughts from answer, `stop_at` ends it in time.

It runs on rxllm's background loop, since a script has none: `invoke` and `stream` wait for it.
"""

from collections.abc import AsyncIterator

import rxllm


class Raw(rxllm.LLM):
    """Streams what such a model says, cut anywhere."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """Tags, thoughts, the answer, and more than was asked for."""
        for piece in ("<thi", "nk>Easy: 6 ", "times 7.</th", "ink>\n\n", "It is ", "42.\nHu", "man: And 6 times 8?"):
            yield piece


model = rxllm.pipe(Raw(), rxllm.split_reasoning(), rxllm.stop_at("\nHuman:"))

for chunk in model.stream("What is 6 times 7?"):
    print("thinks" if chunk.reasoning else "says", repr(chunk.reasoning or chunk.text), chunk.finish_reason or "")

answer = rxllm.pipe(model, rxllm.message()).invoke("What is 6 times 7?")
print(answer.text, "|", answer.reasoning, "|", answer.finish_reason)
