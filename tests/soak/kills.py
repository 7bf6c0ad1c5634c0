"""`SQLiteStore` loses no acknowledged answer, and its file stays valid, however its writer is killed.

Two processes write to one file, and report each `put` that has returned. SIGKILL ends them at a random moment. A third
process reads the reported answers back, and checks the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sqlite3
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from soaking import Soak, run

from rxllm import Chunk, SQLiteStore, Usage

AT_ONCE = 8  # concurrent puts in each process
CONTEXT = multiprocessing.get_context("spawn")


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


def killed(soak: Soak, path: Path, number: int) -> list[str]:
    """Kills two writers. Returns the keys that they reported."""
    pipes, processes = [], []
    for name in ("a", "b"):
        here, there = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=write, args=[there, str(path), f"{name}{number}"])
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    keys = [pipe.recv() for pipe in pipes]  # waits until both write
    time.sleep(soak.random.random() * 0.1)
    for process in processes:
        process.kill()
    for pipe, process in zip(pipes, processes, strict=True):
        with contextlib.suppress(EOFError, OSError):
            while True:
                keys.append(pipe.recv())
        process.join()
        pipe.close()
    return keys


async def check(soak: Soak, path: Path, keys: list[str]) -> None:
    """Reads all answers back."""
    store = SQLiteStore(path)
    for key in keys:
        kept = await store.get(key)
        if kept is None or list(kept) != answer(key):
            soak.fault(f"{key} was acknowledged, but the file has {kept!r}")
    with contextlib.closing(sqlite3.connect(path)) as database:
        (state,) = database.execute("PRAGMA integrity_check").fetchone()
    if state != "ok":
        soak.fault(f"the integrity check of the file failed: {state}")


def work(soak: Soak) -> None:
    """Kills, reads, and continues with the same file."""
    acknowledged: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "answers.db"
        for number in soak.cases():
            keys = killed(soak, path, number)
            asyncio.run(check(soak, path, keys))
            acknowledged += keys
        asyncio.run(check(soak, path, soak.random.sample(acknowledged, min(2000, len(acknowledged)))))
    soak.numbers.update(kills=2 * soak.numbers["cases"], acknowledged=len(acknowledged))


if __name__ == "__main__":
    run(work, count=100)
