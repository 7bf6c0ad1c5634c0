"""After any number of streams of all kinds, no object, task, socket or thread remains.

Streams are read to their end, disposed, cancelled, cut, refused, retried, shared, cached and batched, on loops that
continue and on loops that end. The live objects after the first round are compared with those after the last.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from reactivex import operators as ops
from soaking import PROTOCOLS, Soak, asking, run

import rxllm
from rxllm import LLM, RxllmError, cached, fallback, first_chunk_timeout, hedge, observe, pipe, retry, text
from rxllm.testing import End, FakeServer, Reply, nothing_left_behind
from rxllm.testing.servers import Received

ROUND = 1000  # streams; each round has its own servers and its own event loop
TEXTS = ("Hel", "lo ", "wor", "ld")
DESCRIPTORS = Path("/proc/self/fd")


def sync_whole(llm: LLM) -> None:
    """Reads by ``for``."""
    for _ in llm.stream("hi"):
        pass


def sync_left(llm: LLM) -> None:
    """Breaks after the first chunk."""
    for _ in llm.stream("hi"):
        break


def sync_batch(llm: LLM) -> None:
    """Asks three prompts at once."""
    llm.batch(["a", "b", "c"], max_concurrency=2, return_exceptions=True)


def subscribed(llm: LLM) -> None:
    """Reads by an observer."""
    ended = threading.Event()
    llm("hi").subscribe(lambda _: None, lambda _: ended.set(), ended.set)
    ended.wait()


def disposed(llm: LLM) -> None:
    """Disposes at once, possibly before the request is sent."""
    came = threading.Event()
    llm("hi").subscribe(lambda _: came.set(), lambda _: came.set(), came.set).dispose()


def pipeline(llm: LLM) -> None:
    """Disposes through an operator."""
    for _ in pipe(llm, text(), rxllm.words(), ops.take(2)).stream("hi"):
        pass


async def async_whole(llm: LLM) -> None:
    """Reads by ``async for``."""
    async for _ in llm.astream("hi"):
        pass


async def async_left(llm: LLM) -> None:
    """Breaks after the first chunk, on a loop that continues."""
    async with llm.astream("hi") as stream:
        async for _ in stream:
            break


async def cancelled(llm: LLM) -> None:
    """Cancels the task at a random point."""
    task = asyncio.create_task(llm.ainvoke("hi"))
    for _ in range(random.randrange(30)):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def asked_again(llm: LLM) -> None:
    """Retries; up to three requests."""
    await retry(llm, attempts=3, delay=lambda attempt, error: 0.0).ainvoke("hi")


async def fallen_back(llm: LLM) -> None:
    """Falls back; up to two requests."""
    await fallback(llm, llm).ainvoke("hi")


async def hedged(llm: LLM) -> None:
    """Hedges; two requests at once, one of which is cancelled."""
    await hedge(llm, llm, after=0.0005).ainvoke("hi")


async def shared(llm: LLM) -> None:
    """Shares one request between three readers, two of which dispose."""
    source = llm("hi").pipe(rxllm.share())
    await asyncio.gather(*(source.pipe(ops.take(count)) for count in (1, 2, 9)))


async def kept(llm: LLM) -> None:
    """Asks twice; the second answer comes from the store."""
    store = rxllm.MemoryStore()
    for _ in range(2):
        await cached(llm, store).ainvoke("hi")


async def observed(llm: LLM) -> None:
    """Asks with a handler."""
    events: list[object] = []
    await observe(llm, events.append).ainvoke("hi")


async def events(llm: LLM) -> None:
    """Reads events as dicts."""
    async for _ in llm.astream_events("hi", version="v2"):
        pass


async def timed(llm: LLM) -> None:
    """Asks with a time limit."""
    await llm("hi").pipe(first_chunk_timeout(10), ops.reduce(lambda a, b: a + b))


SYNC: tuple[Callable[[LLM], None], ...] = (sync_whole, sync_left, sync_batch, subscribed, disposed, pipeline)
ASYNC: tuple[Callable[[LLM], Awaitable[None]], ...] = (
    *(async_whole, async_left, cancelled, asked_again, fallen_back, hedged),
    *(shared, kept, observed, events, timed),
)


def replies(source: random.Random) -> Callable[[Received], Reply]:
    """The responses of a server: most are correct, others fail in some way."""
    of_path = {protocol.path: protocol for protocol in PROTOCOLS}

    def reply(request: Received) -> Reply:
        protocol = of_path[request.path]
        pieces = protocol.stream(TEXTS)
        match source.randrange(10):
            case 0:
                return Reply.json(protocol.error_body(500), status=500)
            case 1:
                return Reply([*pieces[:3], End.FIN])
            case 2:
                return Reply([*pieces[:4], protocol.error_frame()])
            case 3:
                return Reply.json(protocol.whole(TEXTS))
            case _:
                return Reply(pieces)

    return reply


def one_round(soak: Soak, outcomes: Counter[str], size: int) -> None:
    """Reads this many streams, with a new server and a new event loop."""

    async def ask(chosen: list[tuple[Callable[[LLM], Awaitable[None]], LLM]]) -> None:
        for kind, llm in chosen:
            try:
                await kind(llm)
                outcomes["whole"] += 1
            except RxllmError as error:
                outcomes[type(error).__name__] += 1

    with FakeServer(replies(soak.random)) as server:
        models = [asking(protocol, server.url) for protocol in PROTOCOLS]
        chosen = [(soak.random.choice((*SYNC, *ASYNC)), soak.random.choice(models)) for _ in range(size)]
        for kind, llm in chosen:
            if kind in SYNC:
                try:
                    kind(llm)
                    outcomes["whole"] += 1
                except RxllmError as error:
                    outcomes[type(error).__name__] += 1
        asyncio.run(ask([each for each in chosen if each[0] in ASYNC]))


def alive() -> Counter[str]:
    """The live objects by type, and the open files and threads of the process."""
    for _ in range(3):
        gc.collect()
    found = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    found["descriptors"] = len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
    found["threads"] = threading.active_count()
    return found


def work(soak: Soak) -> None:
    """Reads streams in rounds, and compares."""
    outcomes: Counter[str] = Counter()
    size = min(ROUND, soak.count // 2)
    with nothing_left_behind():
        one_round(soak, outcomes, size)
    before = alive()
    streams = size
    while streams < soak.count and not soak.over:
        with nothing_left_behind():
            one_round(soak, outcomes, size)
        streams += size
    after = alive()
    slack = 200 + (streams - size) // 500  # for filling caches; a leak would grow with each stream
    for name, count in (after - before).items():
        if count > slack:
            soak.fault(f"{count} more of {name} after {streams - size} more streams")
    grown = sum(after.values()) - sum(before.values())
    soak.numbers.update(streams=streams, objects_grown=grown, **dict(sorted(outcomes.items())))


if __name__ == "__main__":
    run(work, count=100_000, seconds=600)
