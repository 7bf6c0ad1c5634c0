"""The time to the first chunk with and without `hedge`, when a server stalls one call in twenty.

    python tests/benchmarks/hedge.py

The server is in this process, on the loopback interface. It answers after 20 ms, and in one call of twenty after one
second. The hedge starts the second request after 60 ms.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from statistics import quantiles

import rxllm
from rxllm.testing import FakeServer, Received, Reply

CALLS, AT_ONCE = 1_000, 16
USUAL, STALL, AFTER = 0.02, 1.0, 0.06  # seconds


def frames(*deltas: str) -> list[bytes]:
    """The frames of an answer in OpenAI's chat protocol."""
    choices = [{"index": 0, "delta": {"content": delta}, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    said = [f"data: {json.dumps({'id': 'a', 'model': 'm', 'choices': [choice]})}\n\n" for choice in choices]
    return [frame.encode() for frame in [*said, "data: [DONE]\n\n"]]


async def first_chunks(llm: rxllm.LLM) -> list[float]:
    """The milliseconds to the first chunk of each call."""
    room, times = asyncio.Semaphore(AT_ONCE), list[float]()

    async def call() -> None:
        async with room:
            began = time.perf_counter()
            async with llm.astream("hi") as answer:
                await anext(answer)
                times.append((time.perf_counter() - began) * 1e3)

    await asyncio.gather(*(call() for _ in range(CALLS)))
    return times


def main() -> None:
    """Measures both, and prints the result."""
    chance, number = random.Random(1), itertools.count()

    def reply(_: Received) -> Reply:
        next(number)
        return Reply([STALL if chance.random() < 1 / 20 else USUAL, *frames("Hel", "lo")])

    with FakeServer(reply) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="none")
        print("ms to the first chunk      p50     p95     p99    requests")
        for name, model in (("alone", llm), (f"hedge(after={AFTER})", rxllm.hedge(llm, llm, after=AFTER))):
            before = len(server.exchanges)
            cut = quantiles(asyncio.run(first_chunks(model)), n=100)
            print(f"  {name:20} {cut[49]:7.0f} {cut[94]:7.0f} {cut[98]:7.0f} {len(server.exchanges) - before:11,}")


if __name__ == "__main__":
    main()
