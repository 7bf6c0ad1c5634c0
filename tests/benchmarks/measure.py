"""Measures one client with one workload in a fresh process, and prints one figure.

`run.py` starts it. To start it by hand, with a provider on port 8000::

    measure.py cpu rxllm burst-10000 1 http://127.0.0.1:8000        µs of CPU per token, one stream at a time
    measure.py first rxllm paced-2-1ms 200 http://127.0.0.1:8000    µs from the call to the first token, of 200 calls
"""

from __future__ import annotations

import asyncio
import inspect
import statistics
import sys
import time

import contestants
from provider import tokens

LONG_ENOUGH = 0.5  # seconds; a shorter measurement is repeated until then


async def cpu(read: contestants.Read, model: str, streams: int) -> float:
    """The CPU time per token in µs, user and system, of all threads, with this many concurrent streams."""
    received: list[tuple[str, list[str]]] = []

    async def one(model: str) -> None:
        pieces: list[str] = []
        received.append((model, pieces))
        reading = read(model, pieces.append)
        if inspect.isawaitable(reading):
            await reading

    await one(model if model.startswith("whole") else "burst-1000")
    end = time.perf_counter() + LONG_ENOUGH
    start = time.process_time()
    while len(received) == 1 or time.perf_counter() < end:
        await asyncio.gather(*(one(model) for _ in range(streams)))
    used = time.process_time() - start
    for asked, pieces in received:
        compare(pieces, asked)
    return used * 1e6 / sum(len(pieces) for _, pieces in received[1:])


async def first(read: contestants.Read, model: str, calls: int) -> float:
    """The time from a call to its first token in µs: the median of the calls, after a tenth of them as warm-up."""
    took: list[float] = []
    for _ in range(calls // 10 + calls):
        received: list[tuple[float, str]] = []
        start = time.perf_counter()
        await read(model, lambda piece, received=received: received.append((time.perf_counter(), piece)))
        took.append(received[0][0] - start)
        compare([piece for _, piece in received], model)
    return statistics.median(took[calls // 10 :]) * 1e6


def compare(pieces: list[str], model: str) -> None:
    """Raises for a client that loses or reorders tokens."""
    if pieces != tokens(model):
        raise AssertionError("What was read is not what was sent.")


async def main(kind: str, name: str, model: str, count: str, address: str) -> None:
    """Measures, and prints the figure. A name with "-uvloop" names the client before it, on uvloop."""
    name = name.removesuffix("-uvloop")
    read: contestants.Read = getattr(contestants, name.replace("-", "_"))(address)
    print(await {"cpu": cpu, "first": first}[kind](read, model, int(count)))


if __name__ == "__main__":
    if sys.argv[2].endswith("-uvloop"):
        import uvloop

        uvloop.run(main(*sys.argv[1:]))
    else:
        asyncio.run(main(*sys.argv[1:]))
