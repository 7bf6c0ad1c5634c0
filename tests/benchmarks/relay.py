"""CPU that a chunk costs on its way to a page: directly, and through a relay with each log.

    python tests/benchmarks/relay.py       about half a minute

One process, an ASGI response without a socket. The model emits one chunk, or twenty, for each turn of the event loop.
Redis runs beside it, where redis-server is installed; its own CPU does not count. The figures are the least of some
rounds, because other programs only add to them.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the server of the tests

from redis_server import RedisServer

import rxllm
from rxllm.serve import Log, MemoryLog, RedisLog, Relay, SQLiteLog, ui_messages
from rxllm.serve.chat_app import EntryEvents
from rxllm.serve.response import StreamResponse
from rxllm.serve.ui_messages import UIEvents

CHUNKS = 20_000
ROUNDS = 5


def answer(burst: int) -> Any:
    """Chunks, of which `burst` come at once."""

    async def chunks() -> AsyncIterator[str]:
        for number in range(CHUNKS):
            yield " token"
            if number % burst == burst - 1:
                await asyncio.sleep(0)

    return rxllm.from_aiter(chunks)


async def send(response: StreamResponse[Any]) -> None:
    """Sends a response to nobody."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def take(message: Any) -> None:
        pass

    await response({"type": "http", "method": "POST"}, receive, take)


async def direct(burst: int) -> None:
    """Sends an answer without a relay."""
    await send(ui_messages(answer(burst)))


async def relayed(make: Callable[[], Log], burst: int) -> None:
    """Sends an answer through a relay."""
    relay = Relay(make())
    start = await relay.start(("a", "b"), answer(burst), UIEvents())
    await send(StreamResponse(relay.follow(("a", "b"), start), EntryEvents()))
    await relay.aclose()


async def cost(work: Callable[[], Awaitable[None]]) -> float:
    """The µs of CPU that a chunk takes: the least of some rounds."""
    times = []
    for _ in range(ROUNDS):
        before = time.process_time()
        await work()
        times.append((time.process_time() - before) / CHUNKS * 1e6)
    return min(times)


async def main() -> None:
    """Prints a table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs: dict[str, Callable[[], Log]] = {"memory": MemoryLog, "SQLite": lambda: SQLiteLog(folder / "log.sqlite")}
        if shutil.which("redis-server"):
            url = stack.enter_context(RedisServer(folder, fsync="no")).url
            logs["Redis"] = lambda: RedisLog(url)
        print("| µs of CPU a chunk | directly |", *(f"{name} |" for name in logs))
        print("|---" * (2 + len(logs)) + "|")
        for burst, name in ((1, "one at a time"), (20, "20 at once")):
            ways = [partial(direct, burst), *(partial(relayed, make, burst) for make in logs.values())]
            costs = [await cost(way) for way in ways]
            print(f"| {name} |", *(f"{figure:.1f} |" for figure in costs))


asyncio.run(main())
