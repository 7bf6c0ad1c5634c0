"""What shows a job at the command line: its progress, and how Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

from reactivex import Observable
from reactivex import operators as ops
from reactivex.subject import ReplaySubject, Subject

from ..jobs.planning import Plan
from ..jobs.result import Result
from ..runtime.scheduler import scheduler
from ..terminal import is_terminal

__all__ = ["Draining", "Progress", "room_for_many"]

T = TypeVar("T")

_REFRESH = 0.2  # seconds between two updates of the progress line
_FULL = 1000  # collections of the middle generation for one of all objects; 10 by default


class Progress:
    """Counts results, and shows them on standard error: at a terminal as one line that changes, else at the end.

    Attributes:
        planned: what is known of the rows; None if the input is a pipe.
    """

    def __init__(self, planned: Plan | None, report: Callable[[str], None]) -> None:
        self.planned = planned
        self._report = report
        self.answered = 0
        self.failed = 0
        self._began = time.monotonic()
        self._shown = 0.0
        self._live = is_terminal(sys.stderr)
        self._ended = False

    def count(self, result: Result) -> None:
        """Count a result."""
        if result.answer is None:
            self.failed += 1
        else:
            self.answered += 1
        now = time.monotonic()
        if self._live and now - self._shown >= _REFRESH:
            self._shown = now
            print(f"\r\x1b[K{self._line(now)}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Show the last state."""
        if self._ended:
            return
        self._ended = True
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._report(self._line(time.monotonic()))

    def _line(self, now: float) -> str:
        done = self.answered + self.failed
        facts = [f"{self.answered:,} answered", f"{self.failed:,} failed"]
        if self.planned is not None and self.planned.is_whole:
            before = self.planned.rows - self.planned.open
            facts += [f"{before:,} done before"] * (before > 0)
            left = self.planned.open - done
            facts.append(f"{left:,} left")
            if done and left > 0:
                minutes, seconds = divmod(round((now - self._began) * left / done), 60)
                facts.append(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} to go")
        return ", ".join(facts) + "."


class Draining:
    """Ends the rows at the first SIGINT or SIGTERM, so that the answers in flight are written. The second one raises.

    Without `waits` the first one raises.

    Attributes:
        interrupted: whether a signal came.
    """

    def __init__(self, report: Callable[[str], None], *, waits: bool) -> None:
        self.interrupted = False
        self._waits = waits
        self._report = report
        self._before: dict[int, Any] = {}
        self._signals: Subject[None] = ReplaySubject(1)
        self._scheduler = scheduler()

    def __enter__(self) -> Draining:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def until_interrupted(self, rows: Observable[T]) -> Observable[T]:
        """Return the rows up to the first signal. It does not wait for a row: a pipe may be silent."""
        return rows.pipe(ops.take_until(self._signals))

    def _interrupt(self, *_: object) -> None:
        if self.interrupted or not self._waits:
            raise KeyboardInterrupt
        self.interrupted = True
        self._scheduler.call(partial(self._signals.on_next, None))
        self._report("waiting for the answers in flight; Ctrl-C again abandons them.")


@contextlib.contextmanager
def room_for_many() -> Generator[None]:
    """Allow as many open connections as the system does, and let full collections of garbage be rare.

    Ten thousand requests are 1.5 million objects, none of which is garbage. Each full collection traverses them and
    stops the event loop for a second. Garbage that is new is still collected as often: it costs less while it is in the
    processor's cache. `tests/benchmarks/collector.py` measures other thresholds.
    """
    thresholds, descriptors = gc.get_threshold(), _raise_descriptors()
    gc.set_threshold(*thresholds[:2], _FULL)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        descriptors()


def _raise_descriptors() -> Callable[[], object]:
    """Raise the limit of open files to what the system allows, and return a function that lowers it again."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return lambda: None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS allows less than its hard limit says
        return lambda: None
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
