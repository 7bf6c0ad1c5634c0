"""A child of `os.fork` can use every object of its parent: it gets the right answer or a MisuseError, and never hangs.

The parent forks while its background loop is reading streams, while permits of its Limiter are taken, and while a
`share` and a `cached` are under way. The child asks through one of these, and tells how it went by its exit status. The
parent must go on as if nothing had happened.
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

from soaking import PROTOCOLS, Soak, asking, run

import rxllm
from rxllm import LLM, Limiter, MemoryStore, MisuseError, SQLiteStore, cached, limited, pipe, retry, text
from rxllm.testing import FakeServer, Reply

PATIENCE = 15.0  # seconds
TEXTS = ("Hel", "lo ", "world")
ANSWER = "".join(TEXTS)
RIGHT, MISUSE, WRONG = 0, 3, 4


class House:
    """What parent and children share."""

    def __init__(self, url: str, directory: Path) -> None:
        self.models = [asking(protocol, url) for protocol in PROTOCOLS]
        llm = self.models[0]
        self.limited = limited(llm, Limiter(concurrency=4))
        self.memory = cached(llm, MemoryStore(), name="m")
        self.file = cached(llm, SQLiteStore(directory / "answers.db"), name="m")
        self.shared = llm("hi").pipe(rxllm.share())
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.keep_busy, args=[ask]) for ask in (self.by_limit, self.by_memory)]

    def by_limit(self) -> str:
        """Through the limiter."""
        return self.limited.invoke("hi").text

    def by_memory(self) -> str:
        """Out of memory, or into it."""
        return self.memory.invoke(str(time.monotonic_ns() % 5)).text

    def by_file(self) -> str:
        """Out of the file, or into it."""
        return self.file.invoke(str(time.monotonic_ns() % 5)).text

    def by_share(self) -> str:
        """Together with whoever asks at the same time."""
        with self.shared.pipe(rxllm.stream()) as stream:
            return "".join(chunk.text for chunk in stream)

    def by_loop(self) -> str:
        """On an event loop of its own."""

        async def ask(llm: LLM) -> str:
            return (await llm.ainvoke("hi")).text

        return asyncio.run(ask(self.models[1]))

    def by_batch(self) -> str:
        """Three at once."""
        return self.models[2].batch(["a", "b", "c"])[2].text

    def by_pipe(self) -> str:
        """Through a pipeline."""
        return "".join(pipe(retry(self.models[1]), text()).stream("hi"))

    def by_observer(self) -> str:
        """By an observer."""
        texts: list[str] = []
        ended = threading.Event()
        self.models[0]("hi").pipe(text()).subscribe(texts.append, lambda _: ended.set(), ended.set)
        ended.wait(PATIENCE)
        return "".join(texts)

    @property
    def ways(self) -> list[Callable[[], str]]:
        """All ways to ask."""
        return [
            *(self.by_limit, self.by_memory, self.by_file, self.by_share),
            *(self.by_loop, self.by_batch, self.by_pipe, self.by_observer),
        ]

    def keep_busy(self, ask: Callable[[], str]) -> None:
        """So that locks and permits are taken when the parent forks."""
        while not self.stop.is_set():
            ask()


def child(ask: Callable[[], str]) -> int:
    """What the child does; its exit status."""
    try:
        answer = ask()
    except MisuseError:
        return MISUSE
    except BaseException:
        traceback.print_exc()
        return WRONG
    return RIGHT if answer == ANSWER else WRONG


def forked(soak: Soak, ask: Callable[[], str], outcomes: Counter[str]) -> None:
    """One child, from its birth to its end."""
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
    """Fork, and look at both."""
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
    soak.numbers.update(outcomes)


if __name__ == "__main__":
    run(work, count=400)
