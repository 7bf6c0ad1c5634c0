"""`SQLiteStore` loses no acknowledged answer, and its file stays valid, however its writer is killed.

Two processes write to one file, and report each `put` that has returned. SIGKILL ends them at a random moment. A third
process reads the reported answers back, and checks the file.
"""

from __future__ import annotations

import asyncio
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from soaking import Soak, check_database, killed, run

from rxllm import Chunk, SQLiteStore, Usage

AT_ONCE = 8  # concurrent puts in each process


def answer(key: str) -> list[Chunk]:
    """The answer under a key."""
    return [*(Chunk(f"{key} {index} é🌍") for index in range(len(key) % 7 + 1)), Chunk(usage=Usage(output_tokens=7))]


def write(parent: Connection, path: str, name: str) -> None:
    """Puts answers until the process is killed."""

    async def put(lane: int) -> None:
        number = 0
        while True:
            key = f"{name}-{lane}-{number}"
            await store.put(key, answer(key))
            parent.send(key)
            number += 1

    async def together() -> None:
        await asyncio.gather(*map(put, range(AT_ONCE)))

    store = SQLiteStore(path)
    asyncio.run(together())


async def check(soak: Soak, path: Path, keys: list[str]) -> None:
    """Reads all answers back."""
    store = SQLiteStore(path)
    for key in keys:
        kept = await store.get(key)
        if kept is None or list(kept) != answer(key):
            soak.fault(f"{key} was acknowledged, but the file has {kept!r}")
    check_database(soak, path)


def work(soak: Soak) -> None:
    """Kills, reads, and continues with the same file."""
    acknowledged: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "answers.db"
        for number in soak.cases():
            keys, _ = killed(soak, write, path, number, seconds=0.1)
            asyncio.run(check(soak, path, keys))
            acknowledged += keys
        asyncio.run(check(soak, path, soak.random.sample(acknowledged, min(2000, len(acknowledged)))))
    soak.numbers.update(kills=2 * soak.numbers["cases"], acknowledged=len(acknowledged))


if __name__ == "__main__":
    run(work, count=100)
