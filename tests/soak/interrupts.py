"""Ctrl-C at any moment of a synchronous call, once or several times, raises KeyboardInterrupt: no hang, no leak.

One process makes calls without end, and another sends it SIGINT every one or two milliseconds, often several in a row.
(A thread could not send signals while the main thread holds the interpreter's lock.) The parent checks for progress.
Afterwards, the same models must still answer.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from soaking import PROTOCOLS, Soak, asking, run

from rxllm import LLM, pipe, text
from rxllm.testing import FakeServer, Reply, nothing_left_behind
from rxllm.testing.servers import Received

PATIENCE = 20.0  # seconds without progress that count as a hang
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
    """The signals, and their effects.

    Attributes:
        budget: The number of further interrupts in the current call. The harness handles no more than this.
        raised: The number of interrupts in the current call.
        unraisable: The number of interrupts that Python itself dropped, because they came in a finaliser.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.budget = self.raised = self.delivered = self.unraisable = 0
        signal.signal(signal.SIGINT, self.handle)
        sys.unraisablehook = self.drop

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        if self.budget > 0 and frame is not None and frame.f_code is not Storm.drop.__code__:
            self.budget -= 1
            self.raised += 1
            self.delivered += 1
            raise KeyboardInterrupt

    def drop(self, unraisable: Any) -> None:
        """Counts an exception that Python cannot raise."""
        self.unraisable += 1

    def attempt(self, ask: Callable[[], str]) -> object:
        """Calls the function. Returns its answer, or its error."""
        self.raised = 0
        interrupts = self.random.randrange(1, 4)
        return self.caught(ask, interrupts, interrupts)

    def caught(self, ask: Callable[[], str], interrupts: int, depth: int) -> object:
        """Calls the function at several levels, each of which catches what the inner one raises during its handler."""
        try:
            if depth:
                result = self.caught(ask, interrupts, depth - 1)
            else:
                self.budget = interrupts  # starts here, because now all levels are in place
                result = ask()
            self.budget = 0
        except BaseException as error:
            self.budget = 0
            return error
        return result


def blow(pid: int, seed: int) -> None:
    """Sends interrupts until it is killed."""
    source = random.Random(seed)
    while True:
        time.sleep(source.random() * 0.002)
        os.kill(pid, signal.SIGINT)
        while source.random() < 0.6:
            until = time.perf_counter() + source.random() * source.choice((0.000_02, 0.000_2))
            while time.perf_counter() < until:  # time.sleep is too coarse for this
                pass
            os.kill(pid, signal.SIGINT)


def child(parent: Connection, url: str, count: int, seed: int) -> None:
    """Makes calls, and is interrupted."""
    models = [asking(protocol, url) for protocol in PROTOCOLS]
    storm = Storm(seed)
    with nothing_left_behind():
        parent.send("ready")
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
        for llm in models:
            for kind in KINDS:
                if kind(llm) not in RIGHT:
                    parent.send("a model is broken afterwards")
    parent.send(f"unraisable={storm.unraisable}")
    parent.recv()  # waits for the last interrupt, which would kill an interpreter during its shutdown


def work(soak: Soak) -> None:
    """Starts the process, and watches it."""
    streams = {protocol.path: protocol.stream(TEXTS) for protocol in PROTOCOLS}
    source = random.Random(soak.random.random())

    def reply(request: Received) -> Reply:
        """Receives the answers at once or with pauses, so that some signals arrive while the main thread waits."""
        pause = source.choice((0, 0.001, 0.003))
        return Reply([step for event in streams[request.path] for step in (pause, event)])

    context = multiprocessing.get_context("spawn")
    with FakeServer(reply) as server:
        here, there = context.Pipe()
        seed = soak.random.randrange(10**9)
        process = context.Process(target=child, args=[there, server.url, soak.count, seed])
        process.start()
        there.close()
        here.recv()  # waits for its signal handler
        storm = context.Process(target=blow, args=[process.pid, seed])
        storm.start()
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
                        break
                    case said:
                        soak.fault(str(said))
        storm.kill()
        storm.join()
        here.send("the storm is over")
        process.join(0 if soak.faults or soak.over else PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        elif process.exitcode:
            soak.fault(f"the process ended with {process.exitcode}")


if __name__ == "__main__":
    run(work, count=10_000)
