"""Ctrl-C at any moment of a synchronous call, alone or twice, is a KeyboardInterrupt: no hang, no other error, no leak.

A process asks without end, and one of its threads sends SIGINT to the main thread every millisecond or two, often a
second one right after. The parent sees whether it goes on; afterwards, the same models must still answer.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from soaking import PROTOCOLS, Soak, asking, run

from rxllm import LLM, pipe, text
from rxllm.testing import FakeServer, Reply, nothing_left_behind

PATIENCE = 20.0  # seconds without progress: it hangs
TEXTS = ("Hel", "lo ", "world")
RIGHT = ("".join(TEXTS), "Hel")
KINDS: tuple[Callable[[LLM], str], ...] = (
    lambda llm: "".join(chunk.text for chunk in llm.stream("hi")),
    lambda llm: next(iter(llm.stream("hi"))).text or "Hel",
    lambda llm: llm.invoke("hi").text,
    lambda llm: llm.batch(["a", "b", "c"])[1].text,
    lambda llm: "".join(pipe(llm, text()).stream("hi")),
)


class Storm:
    """The signals, and what became of them.

    Attributes:
        budget: How many more may be raised in the current call. The harness survives no more than it counts on.
        raised: How many were raised in the current call.
        unraisable: How many Python itself dropped, since they came in a finaliser.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.budget = self.raised = self.delivered = self.unraisable = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.blow)
        signal.signal(signal.SIGINT, self.handle)
        sys.unraisablehook = self.drop

    def handle(self, *_: object) -> None:
        """A signal came."""
        if self.budget > 0:
            self.budget -= 1
            self.raised += 1
            self.delivered += 1
            raise KeyboardInterrupt

    def drop(self, unraisable: Any) -> None:
        """An exception came where Python can raise none."""
        self.unraisable += 1

    def blow(self) -> None:
        """Sends them, in a thread of its own."""
        main = threading.main_thread().ident
        while not self.is_over.wait(self.random.random() * 0.002):
            signal.pthread_kill(main, signal.SIGINT)
            if self.random.random() < 0.5:
                time.sleep(self.random.random() * 0.0002)
                signal.pthread_kill(main, signal.SIGINT)

    def attempt(self, ask: Callable[[], str]) -> object:
        """The answer, or the error."""
        result: object = None
        self.raised = 0
        self.budget = self.random.choice((1, 2))
        try:
            try:
                result = ask()
                self.budget = 0
            except BaseException as error:
                result = error
                self.budget = 0
        except KeyboardInterrupt as second:
            result = second
            self.budget = 0
        return result


def child(parent: Connection, url: str, count: int, seed: int) -> None:
    """The process that is interrupted."""
    models = [asking(protocol, url) for protocol in PROTOCOLS]
    storm = Storm(seed)
    with nothing_left_behind():
        storm.thread.start()
        while storm.delivered < count:
            llm, kind = storm.random.choice(models), storm.random.choice(KINDS)
            dropped = storm.unraisable
            result = storm.attempt(lambda llm=llm, kind=kind: kind(llm))
            if isinstance(result, BaseException):
                wrong = not isinstance(result, KeyboardInterrupt)
            else:
                wrong = result not in RIGHT or (storm.raised > 0 and storm.unraisable == dropped)
            if wrong:
                parent.send(f"after {storm.raised} interrupts: {result!r}")
            parent.send(storm.delivered)
        storm.is_over.set()
        storm.thread.join()
        for llm in models:
            for kind in KINDS:
                if kind(llm) not in RIGHT:
                    parent.send("a model is broken afterwards")
    parent.send(f"unraisable={storm.unraisable}")


def work(soak: Soak) -> None:
    """Start the process and watch it."""
    of_path = {protocol.path: Reply(protocol.stream(TEXTS)) for protocol in PROTOCOLS}
    context = multiprocessing.get_context("spawn")
    with FakeServer(lambda request: of_path[request.path]) as server:
        here, there = context.Pipe()
        process = context.Process(target=child, args=[there, server.url, soak.count, soak.random.randrange(10**9)])
        process.start()
        there.close()
        soak.numbers["interrupts"] = 0
        with contextlib.suppress(EOFError):
            while not soak.over:
                if not here.poll(PATIENCE):
                    soak.fault(f"no progress for {PATIENCE} s after {soak.numbers['interrupts']} interrupts")
                    break
                match here.recv():
                    case int(delivered):
                        soak.numbers["interrupts"] = delivered
                    case str(said) if said.startswith("unraisable="):
                        soak.numbers["unraisable"] = int(said.partition("=")[2])
                    case said:
                        soak.fault(str(said))
        if process.is_alive():
            process.join(PATIENCE if not soak.faults and not soak.over else 0)
        if process.is_alive():
            process.kill()
            process.join()
        elif process.exitcode:
            soak.fault(f"the process ended with {process.exitcode}")


if __name__ == "__main__":
    run(work, count=10_000)
