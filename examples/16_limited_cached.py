"""`limited` lets requests wait for their turn, `cached` asks the same question only once.

The limiter is within the cache, so that cached answers do not wait. It runs on rxllm's background loop, since a
script has none: `batch` and `invoke` wait for it.
"""

import asyncio

import rxllm

stove: list[str] = []
diary: list[int] = []


class Kitchen(rxllm.LLM):
    """Cooks, and writes down how many dishes are on the stove."""

    async def complete(self, request: rxllm.Request) -> str:
        """The dish, after a while."""
        stove.append(request.text)
        diary.append(len(stove))
        await asyncio.sleep(0.02)
        stove.remove(request.text)
        return request.text.upper()


limiter = rxllm.Limiter(concurrency=2)  # also requests_per_minute=, tokens_per_minute=; models may share it
llm = rxllm.cached(rxllm.limited(Kitchen(), limiter), rxllm.MemoryStore())
print([str(answer) for answer in llm.batch(["soup", "cake", "rice", "cake"])], llm.invoke("rice"))
print(len(diary), "were cooked, at most", max(diary), "at once")
