"""The common part of the programs in this directory: command line, result line, servers and killed processes.

A program states its law in its docstring, and calls `run` with a function that counts and collects faults. It exits
with status 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `models` and `protocols`, which programs get from here

from models import made
from protocols import EVERY, PROTOCOLS, Protocol, ToolCall

from rxllm import LLM

__all__ = [
    "EVERY",
    "PROTOCOLS",
    "Protocol",
    "Soak",
    "ToolCall",
    "asking",
    "check_database",
    "killed",
    "run",
]

T = TypeVar("T")
SHOWN = 10  # faults to print
CONTEXT = multiprocessing.get_context("spawn")


class Soak:
    """One run: its options, its random generator, and its findings.

    Attributes:
        count: The largest number of cases.
        kind: The only kind of cases to try, if the program has kinds; None for all.
        random: The only source of randomness, so that a seed repeats a run.
        faults: The text of each fault.
        numbers: The numbers in the result line, besides the faults.
    """

    def __init__(self, count: int, seconds: float, seed: int, kind: str | None = None) -> None:
        self.count = count
        self.kind = kind
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.random = random.Random(seed)
        self.faults: list[str] = []
        self.numbers: dict[str, object] = {}

    def cases(self, existing: int = sys.maxsize) -> Iterator[int]:
        """Yields the numbers of the cases, until the count, the time or the existing cases are used up."""
        for number in range(min(self.count, existing)):
            if self.over:
                return
            self.numbers["cases"] = number + 1
            yield number

    def sample(self, cases: Iterable[T]) -> list[T]:
        """A random sample of the cases in random order, as large as the count allows."""
        kept: list[T] = []
        of = 0
        for of, case in enumerate(cases, 1):
            if len(kept) < self.count:
                kept.append(case)
            elif (place := self.random.randrange(of)) < self.count:
                kept[place] = case
        self.random.shuffle(kept)
        self.numbers["of"] = of
        return kept

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() > self.deadline

    def fault(self, sentence: str) -> None:
        """Records a fault; the first few are printed at once."""
        self.faults.append(sentence)
        if len(self.faults) <= SHOWN:
            print(f"FAULT: {sentence}", file=sys.stderr, flush=True)


def run(work: Callable[[Soak], None], count: int, seconds: float = 300, kinds: Collection[str] = ()) -> None:
    """Runs a program from the command line: prints one result line, and exits with status 1 if there is a fault.

    `kinds` has the names of the program's kinds of cases, if a run may be of one of them.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--count", type=int, default=count, help="largest number of cases")
    parser.add_argument("--seconds", type=float, default=seconds, help="approximate limit in seconds")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random generator, which repeats a run")
    if kinds:
        parser.add_argument("--kind", choices=[*kinds], help="the only kind of cases to try; all by default")
    options = parser.parse_args()
    soak = Soak(options.count, options.seconds, options.seed, getattr(options, "kind", None))
    work(soak)
    took = time.monotonic() - soak.began
    numbers = {"faults": len(soak.faults), **soak.numbers, "seed": options.seed, "seconds": round(took, 1)}
    print(Path(sys.argv[0]).stem, *(f"{name}={value}" for name, value in numbers.items()))
    sys.exit(bool(soak.faults))


def asking(protocol: Protocol, url: str, **fields: object) -> LLM:
    """The model that speaks this protocol with this server."""
    return made(protocol, url, **fields)


def killed(
    soak: Soak, work: Callable[[Connection, str, str], None], path: Path, case: int, seconds: float
) -> tuple[list[Any], float]:
    """Kills two processes within these seconds, at a random moment. Returns their reports, and the time of the kill.

    Each process runs `work` with the pipe for its reports, the path and a name of its own.
    """
    pipes, processes = [], []
    for name in ("a", "b"):
        here, there = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=work, args=[there, str(path), f"{name}{case}"])
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    reports = [pipe.recv() for pipe in pipes]  # waits until both have begun
    time.sleep(soak.random.random() * seconds)
    at = time.time()
    for process in processes:
        process.kill()
    for pipe, process in zip(pipes, processes, strict=True):
        with contextlib.suppress(EOFError, OSError):
            while True:
                reports.append(pipe.recv())
        process.join()
        pipe.close()
    return reports, at


def check_database(soak: Soak, path: Path) -> None:
    """Checks that a file of SQLite is valid."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (state,) = database.execute("PRAGMA integrity_check").fetchone()
    if state != "ok":
        soak.fault(f"the integrity check of the file failed: {state}")
