"""One contestant, one workload, one fresh process: prints a figure. Started by `run.py`.

``measure.py cpu floor burst-10000 1 http://127.0.0.1:8000`` prints µs of CPU per token of one stream at a time,
``first`` instead of ``cpu`` the µs from the call to its first token.
"""

from __future__ import annotations

import asyncio
import inspect
import resource
import statistics
import sys
import time

import contestants
from provider import tokens

LONG_ENOUGH = 0.5  # seconds; a short workload is repeated until then
CALLS = 200


class Reader:
    """A contestant under supervision: what it read must be what was sent."""

    def __init__(self, name: str, address: str) -> None:
        self.contestant: contestants.Read = getattr(contestants, name)(address)

    async def read(self, model: str, streams: int = 1) -> None:
        """Reads so many streams at once."""
        texts: list[list[str]] = [[] for _ in range(streams)]
        reads = [self.contestant(model, text.append) for text in texts]
        await asyncio.gather(*filter(inspect.isawaitable, reads))
        if any(text != tokens(model) for text in texts):
            raise AssertionError("What was read is not what was sent.")

    async def cpu(self, model: str, streams: int) -> float:
        """µs of the process's CPU, system and all threads included, per token."""
        await self.read("burst-1000")
        rounds = 0
        end = time.perf_counter() + LONG_ENOUGH
        start = time.process_time()
        while not rounds or time.perf_counter() < end:
            await self.read(model, streams)
            rounds += 1
        return (time.process_time() - start) * 1e6 / (rounds * streams * len(tokens(model)))

    async def first(self, model: str, calls: int) -> float:
        """µs by the clock from the call to the first token, the median of many calls of a warm client."""
        arrivals: list[float] = []
        took: list[float] = []
        for _ in range(calls // 10 + calls):
            arrivals.clear()
            start = time.perf_counter()
            await self.contestant(model, lambda _: arrivals.append(time.perf_counter()))
            took.append(arrivals[0] - start)
        return statistics.median(took[calls // 10 :]) * 1e6


if __name__ == "__main__":
    kind, name, model, count, address = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    measure = getattr(Reader(name, address), kind)
    print(asyncio.run(measure(model, int(count))))
