"""What shared limits cost: the start of a request by `RedisLimits`, beside a plain command of Redis; and who gets what.

    python tests/benchmarks/shared_limits.py        needs redis-server; about 20 seconds

The requests start and end one after another on one event loop, with a place, a rate of requests and a rate of tokens.
The rates have counted requests in each second of the last minute. Then three processes ask for as much as they can get
of 100 requests a second, for five seconds.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from redis_processes import start_many
from redis_server import RedisServer
from relay_processes import Process

import rxllm
from rxllm.combinators.own_share import Asked

COUNT = 2000
MANY = 10**9
LATER = """
local state = cmsgpack.unpack(redis.call('GET', KEYS[1]))
state.behind = state.behind + 1
redis.call('SET', KEYS[1], cmsgpack.pack(state))
"""


async def measure(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Print the µs of a call: by the clock, and of CPU in this process."""
    clock, used = time.perf_counter(), time.process_time()
    for _ in range(COUNT):
        await work()
    clock, used = time.perf_counter() - clock, time.process_time() - used
    print(f"{name:24}{clock / COUNT * 1e6:6.0f} µs, {used / COUNT * 1e6:4.0f} of CPU")


async def costs(url: str) -> None:
    """Measure a plain command, and the start of a request."""
    shared = rxllm.RedisLimits(url, "costs")
    limiter = rxllm.Limiter(requests_per_minute=MANY, tokens_per_minute=MANY)
    asked = Asked(limiter._queue.rates, 10.0, MANY)
    participant = await shared.participant()
    client = participant._state._client

    async def start() -> None:
        participant.end(asked, await participant.start(asked, None))

    await measure("GET", lambda: client.get("x"))
    for _ in range(61):
        await start()
        await client.eval(LATER, 1, "rxllm:limits:{costs}")
    await client.config_resetstat()
    await measure("start and end", start)
    of_redis = (await client.info("commandstats"))["cmdstat_evalsha"]
    print(f"{'a call of the script':24}{of_redis['usec_per_call']:6.0f} µs of Redis, {of_redis['calls']:,} calls")


async def shares(url: str) -> list[int]:
    """Return how many requests each of three processes started."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(Process(start_many, url, "shares", 5.0, requests_per_second=100)) for _ in range(3)
        ]
        for process in processes:
            await process.report()
        for process in processes:
            process.connection.send("go")
        return [len(await process.report()) for process in processes]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, RedisServer(Path(directory), fsync=None) as server:
        asyncio.run(costs(server.url))
        print("of 100 a second in 5 s, three processes started", asyncio.run(shares(server.url)))
