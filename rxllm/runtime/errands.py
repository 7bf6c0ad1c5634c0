"""`Errands`: blocking calls, one after another, which outlive the stream, the task and the event loop that submit them.

The thread of the errands exists while there is work. `Errands.lock` guards the queue and whether the thread exists. The
thread is not a daemon, so the interpreter waits for it at its end. After the end of the main thread the interpreter
waits for no new thread; then a call runs at once, in the thread that submits it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from .forks import reset_in_child
from .loops import expect, in_loop
from .scheduler import Scheduler, Timers

__all__ = ["Errands"]

T = TypeVar("T")


class Errands:
    """Runs blocking calls in order. Any thread may submit them."""

    def __init__(self) -> None:
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Empty the queue in a forked child, because the parent runs its own calls."""
        self.lock = threading.Lock()
        self.jobs: deque[Callable[[], object]] = deque()
        self.is_running = False

    def put(self, job: Callable[[], object]) -> None:
        """Run a job after all earlier jobs. The job must not raise."""
        with self.lock:
            self.jobs.append(job)
            if self.is_running:
                return
            self.is_running = True
        if threading.main_thread().is_alive():
            try:
                threading.Thread(target=self._run, name="rxllm-errands", daemon=False).start()
                return
            except RuntimeError:  # too many threads, or too little memory
                pass
        self._run()

    def _run(self) -> None:
        while True:
            with self.lock:
                if not self.jobs:
                    self.is_running = False
                    return
                job = self.jobs.popleft()
            job()

    def wait(self, work: Callable[[], T]) -> T:
        """Block until the work has run, and return its result.

        Raises:
            Exception: the exception of the work.
        """
        ended = threading.Event()
        outcome: list[Any] = []

        def job() -> None:
            outcome.extend(_outcome(work))
            ended.set()

        self.put(job)
        ended.wait()
        result, error = outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def call(
        self, scheduler: Timers, work: Callable[[], T], then: Callable[[T | None, Exception | None], object]
    ) -> None:
        """Run the work, and then call `then` with its result or its exception, on the event loop of the scheduler.

        On virtual time, which has no loop, both run at once.
        """
        if not isinstance(scheduler, Scheduler):
            then(*_outcome(work))
            return
        loop = scheduler.loop
        announced = expect(loop.create_future()) if in_loop(loop) else None
        release = scheduler.hold()

        def finish(result: T | None, error: Exception | None) -> None:
            if announced is not None and not announced.done():
                announced.set_result(None)
            release()
            then(result, error)

        def job() -> None:
            outcome = _outcome(work)
            if loop.is_closed():
                release()
            else:
                scheduler.call(partial(finish, *outcome))

        self.put(job)


def _outcome(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error
