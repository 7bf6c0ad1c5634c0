"""An answer has no gap and no repetition, and ends, however the process that produces it is killed.

Producers write answers into one log: a SQLite file, and a Redis where redis-server is installed. Each is killed at a
random moment; some are paused first for longer than their lease. A reader follows each answer, leaves at random moments
and comes back. The numbers count from 1. All that the producer had acknowledged are there. The end is an interruption,
or ``finish`` after the last number.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from soaking import Soak, run

# isort: split
from redis_server import RedisServer  # soaking has made its folder known
from relay_processes import COUNT, Process, numbers, opened, watching

import rxllm
from rxllm.bridges import AsyncStream
from rxllm.serve import Relay
from rxllm.serve.logs import Key, Position
from rxllm.serve.sse import Events

AT_ONCE = 20  # producers
LEASE = 1.0


def produce(parent: Connection, place: str, key: Key) -> None:
    """Produces one answer, and reports each number that the log has taken."""

    async def work() -> None:
        log = opened(place, lease=LEASE)
        append = log.append

        async def acknowledged(key: Key, epoch: int, first: int, events: list[bytes]) -> bool:
            taken = await append(key, epoch, first, events)
            if taken:
                parent.send(first + len(events) - 1)
            return taken

        log.append = acknowledged
        relay = Relay(log)
        position = await relay.start(key, rxllm.from_aiter(lambda: numbers(pause=0.02)), Events())
        parent.send(position.epoch)
        await asyncio.gather(*relay._producers.values(), return_exceptions=True)
        await relay.aclose()

    asyncio.run(work())


async def followed(relay: Relay, key: Key, start: Position, random: Random) -> tuple[list[int], str]:
    """The numbers of an answer, read with interruptions, and its end."""
    got: list[int] = []
    after = start
    while True:
        patience = random.randrange(1, 25)
        try:
            async with AsyncStream(relay.follow(key, after)) as stream:
                async for entry in stream:
                    after = entry.id
                    if entry.ending is not None:
                        return got, entry.ending
                    got.append(int(entry.data.removeprefix(b'data: "').removesuffix(b'"')))
                    patience -= 1
                    if not patience:
                        break
        except rxllm.Interrupted:
            return got, "interrupted"


async def one(soak: Soak, place: str, relay: Relay, number: int, seed: int) -> None:
    """Produces one answer, kills its producer, and checks what a reader got."""
    random, key = Random(seed), ("soak", f"{place[:5]} {number}")
    with Process(produce, place, key) as process:
        start = Position(await process.report(), 0)
        reading = asyncio.create_task(followed(relay, key, start, random))
        await asyncio.sleep(random.random() * 0.02 * COUNT * 1.2)
        if random.random() < 0.3:
            process.send(signal.SIGSTOP)
            await asyncio.sleep(LEASE * 1.5 * random.random())
            process.send(signal.SIGCONT)
            await asyncio.sleep(0.1 * random.random())
        process.send(signal.SIGKILL)
        acknowledged = 0
        with suppress(EOFError, OSError):
            while True:
                acknowledged = await process.report()
        got, end = await reading
    if got != [*range(1, len(got) + 1)]:
        soak.fault(f"{key}: the reader got {got}")
    if len(got) < min(acknowledged, COUNT):
        soak.fault(f"{key}: the log had taken {acknowledged} numbers, the reader got {len(got)}")
    if end not in ("finish", "interrupted") or (end == "finish" and len(got) < COUNT):
        soak.fault(f"{key}: {len(got)} numbers ended with {end}")
    soak.numbers[end] = int(str(soak.numbers.get(end, 0))) + 1


async def batches(soak: Soak, places: list[str]) -> None:
    """Batches of producers, until the count or the time is used up."""
    relays = {place: watching(place) for place in places}
    cases = iter(soak.cases())
    while batch := [number for number, _ in zip(cases, range(AT_ONCE), strict=False)]:
        pairs = [(place, number) for place in places for number in batch]
        seeds = [soak.random.randrange(2**32) for _ in pairs]
        await asyncio.gather(
            *(one(soak, place, relays[place], number, seed) for (place, number), seed in zip(pairs, seeds, strict=True))
        )
    for relay in relays.values():
        await relay.aclose()


def work(soak: Soak) -> None:
    """Starts the logs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [str(folder / "log.sqlite")]
        if shutil.which("redis-server"):
            places.append(stack.enter_context(RedisServer(folder)).url)
        asyncio.run(batches(soak, places))


if __name__ == "__main__":
    run(work, count=400)
