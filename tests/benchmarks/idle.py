"""What open streams cost: memory while they wait, and CPU to open many at once.

    python tests/benchmarks/idle.py             1,000 and 9,000 streams; about three minutes
    python tests/benchmarks/idle.py 1000        1,000 streams

Each figure comes from a fresh process. The provider sends one token of each stream, and then pauses. Memory is the
growth of the process (RSS), CPU is the client's until each stream has its first token.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import contestants
import run

MODEL = "paced-2-900000ms"
CLIENTS = ("aiohttp", "floor", "rxllm")


async def measure(name: str, count: int, address: str) -> None:
    """Print the KB and the µs of CPU for each of so many streams, and how many failed."""
    read = getattr(contestants, name)(address)
    await read("burst-20", lambda _: None)
    opened = [asyncio.Event() for _ in range(count)]
    failed = 0

    async def one(event: asyncio.Event) -> None:
        nonlocal failed
        try:
            await read(MODEL, lambda _: event.set())
        except Exception:  # such as a time limit
            failed += 1
            event.set()

    gc.collect()
    memory, start = _resident(), time.process_time()
    streams = [asyncio.create_task(one(event)) for event in opened]
    for event in opened:
        await event.wait()
    used = time.process_time() - start
    gc.collect()
    size = (_resident() - memory) / count / 1024
    print(f"{size:7.1f} KB {used / count * 1e6:7.0f} µs {failed:6,} failed", flush=True)
    assert len(streams) == count  # they are alive until here
    os._exit(0)  # without waiting for the streams


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def main() -> None:
    """Measure each client in a process of its own."""
    counts = [int(word) for word in sys.argv[1:]] or [1_000, 9_000]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with run.provider() as address:
        for count in counts:
            print(f"\n{count:,} streams begun at once; for each")
            for name in CLIENTS:
                command = [sys.executable, __file__, name, str(count), address]
                print(f"  {name:8}", end="", flush=True)
                subprocess.run(command, env=run.environment(), check=True, timeout=run.PATIENCE)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        asyncio.run(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    else:
        main()
