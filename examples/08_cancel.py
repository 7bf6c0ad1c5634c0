"""Leaving a stream early closes its request at once: the provider's `finally` says so."""

import asyncio
from collections.abc import AsyncIterator

import rxllm


class Counter(rxllm.LLM):
    """Counts, for a long time."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """The numbers; `finally` is where a provider would close its connection."""
        try:
            for number in range(1_000_000):
                yield f"{number} "
        finally:
            print("\nthe provider is closed")


async def main() -> None:
    async with Counter().astream("Count.") as chunks:
        async for chunk in chunks:
            print(chunk, end="")
            if chunk.text == "3 ":
                break
    print("and the program goes on")


asyncio.run(main())
