"""A child of `os.fork` can use every object of its parent: it gets the answer or a MisuseError, and never hangs.

The parent forks while its background loop reads streams, while permits of its Limiter are taken, while a thread writes
to a SQLiteStore, and while requests of `share` and `cached` are running. The child asks through one of these, and
reports the result by its exit status. The parent must continue unaffected.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from soaking import PROTOCOLS, Soak, asking, check_database, run

import rxllm
from rxllm import LLM, Chunk, Limiter, MemoryStore, MisuseError, SQLiteStore, cached, limited, pipe, retry, text
from rxllm.testing import FakeServer, Reply

PATIENCE = 15.0  # seconds
TEXTS = ("Hel", "lo ", "world")
ANSWER = "".join(TEXTS)
RIGHT, MISUSE, WRONG = 0, 3, 4


class House:
    """The objects that parent and children share."""

    def __init__(self, url: str, directory: Path) -> None:
        self.models = [asking(protocol, url) for protocol in PROTOCOLS]
        llm = self.models[0]
        self.limited = limited(llm, Limiter(concurrency=4))
        self.memory = cached(llm, MemoryStore(), name="m")
        self.file = cached(llm, SQLiteStore(directory / "answers.db"), name="m")
        self.shared = llm("hi").pipe(rxllm.share())
        self.path = directory / "busy.db"
        self.store = SQLiteStore(self.path)
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self.keep_busy, args=[ask])
            for ask in (self.by_limit, self.by_memory, self.by_store)
        ]

    def by_limit(self) -> str:
        """Asks through the limiter."""
        return self.limited.invoke("hi").text

    def by_memory(self) -> str:
        """Asks through a MemoryStore."""
        return self.memory.invoke(str(time.monotonic_ns() % 5)).text

    def by_file(self) -> str:
        """Asks through a SQLiteStore."""
        return self.file.invoke(str(time.monotonic_ns() % 5)).text

    def by_store(self) -> str:
        """Stores an answer in a file that a thread of the parent always writes, and reads it back."""

        async def store() -> str:
            key = f"{os.getpid()} {time.monotonic_ns()}"
            await self.store.put(key, [*map(Chunk, TEXTS)])
            return "".join(chunk.text for chunk in await self.store.get(key) or ())

        return asyncio.run(store())

    def by_share(self) -> str:
        """Subscribes to the shared stream."""
        with self.shared.pipe(rxllm.stream()) as stream:
            return "".join(chunk.text for chunk in stream)

    def by_loop(self) -> str:
        """Asks on a new event loop."""

        async def ask(llm: LLM) -> str:
            return (await llm.ainvoke("hi")).text

        return asyncio.run(ask(self.models[1]))

    def by_batch(self) -> str:
        """Asks three prompts at once."""
        return self.models[2].batch(["a", "b", "c"])[2].text

    def by_pipe(self) -> str:
        """Asks through a pipeline."""
        return "".join(pipe(retry(self.models[1]), text()).stream("hi"))

    def by_observer(self) -> str:
        """Asks by an observer."""
        texts: list[str] = []
        ended = threading.Event()
        self.models[0]("hi").pipe(text()).subscribe(texts.append, lambda _: ended.set(), ended.set)
        ended.wait(PATIENCE)
        return "".join(texts)

    @property
    def ways(self) -> list[Callable[[], str]]:
        """All ways to ask."""
        return [
            *(self.by_limit, self.by_memory, self.by_file, self.by_store, self.by_share),
            *(self.by_loop, self.by_batch, self.by_pipe, self.by_observer),
        ]

    def keep_busy(self, ask: Callable[[], str]) -> None:
        """Keeps requests running, so that locks and permits are taken when the parent forks."""
        while not self.stop.is_set():
            ask()


def child(ask: Callable[[], str]) -> int:
    """Runs in the child; returns its exit status."""
    try:
        answer = ask()
    except MisuseError:
        return MISUSE
    except BaseException:
        traceback.print_exc()
        return WRONG
    return RIGHT if answer == ANSWER else WRONG


def forked(soak: Soak, ask: Callable[[], str], outcomes: Counter[str]) -> None:
    """Forks one child, and waits for its end."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(child(ask))
    descriptor = os.pidfd_open(pid)
    is_over, _, _ = select.select([descriptor], [], [], PATIENCE)
    os.close(descriptor)
    if not is_over:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    outcomes[{RIGHT: "right", MISUSE: "misuse"}.get(code, "wrong")] += 1
    if code not in (RIGHT, MISUSE):
        soak.fault(f"{ask.__name__} in a child: {'it hung' if not is_over else f'exit status {code}'}")


def work(soak: Soak) -> None:
    """Forks children, and checks the children and the parent."""
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork")  # which is the point
    of_path = {protocol.path: Reply(protocol.stream(TEXTS)) for protocol in PROTOCOLS}
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory, FakeServer(lambda request: of_path[request.path]) as server:
        house = House(server.url, Path(directory))
        house.by_batch()  # imports the HTTP client: a child of a process that is importing waits for its import lock
        for thread in house.threads:
            thread.start()
        for number in soak.cases():
            forked(soak, house.ways[number % len(house.ways)], outcomes)
            if (answer := soak.random.choice(house.ways)()) != ANSWER:
                soak.fault(f"the parent got {answer!r} after a fork")
            if len(soak.faults) > len(house.ways):
                break
        house.stop.set()
        for thread in house.threads:
            thread.join()
        check_database(soak, house.path)
    soak.numbers.update(outcomes)


if __name__ == "__main__":
    run(work, count=400)
