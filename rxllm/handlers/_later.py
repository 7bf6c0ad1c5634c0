"""What a handler does beside the stream: awaitables, one after another for each run."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable
from typing import Any

from ..observation import current
from ..runtime.forks import reset_in_child
from ..runtime.gate import HIGH_WATER, LOW_WATER
from ..runtime.loops import in_loop
from ..runtime.portal import is_portal
from ..runtime.scheduler import Scheduler, scheduler_for

__all__ = ["Lines", "discard"]

_log = logging.getLogger("rxllm")


class Lines:
    """A line for each run that has something to await; runs do not wait for each other."""

    def __init__(self) -> None:
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forgets all lines: in a forked child the parent's do not go on, and nobody would release its lock."""
        self.open: dict[str, _Line] = {}
        self.lock = threading.Lock()

    def put(self, run_id: str, awaitable: Awaitable[Any]) -> None:
        """Awaits it when its turn comes, on the run's loop and in its context; from any thread. Failures are logged."""
        with self.lock:
            line = self.open.get(run_id)
            is_new = line is None
            if line is None:
                scheduler = _finishing(current() or scheduler_for(None))
                line = self.open[run_id] = _Line(self, run_id, scheduler)
            line.waiting.append(awaitable)
        if is_new:
            line.start()
        elif len(line.waiting) == HIGH_WATER:
            line.scheduler.call(line.press)


def _finishing(scheduler: Scheduler) -> Scheduler:
    """Return a scheduler whose work is finished even if the script ends meanwhile."""
    return scheduler.evolve(lifetime=scheduler.lifetime.kept_alive(is_portal(scheduler.loop)))


class _Line:
    """What one run has waiting, until nothing is left: one task awaits it."""

    def __init__(self, lines: Lines, key: str, scheduler: Scheduler) -> None:
        self.lines = lines
        self.key = key
        self.waiting: deque[Awaitable[Any]] = deque()
        self.scheduler = scheduler
        self.release = scheduler.hold()

    def start(self) -> None:
        if in_loop(self.scheduler.loop):
            self.begin()
            return
        try:
            self.scheduler.loop.call_soon_threadsafe(self.begin_when_free)
        except RuntimeError:  # the loop is closed
            self.drop()
            raise

    def begin_when_free(self) -> None:
        """Waits until the thread that subscribes has left the run's context, which can't be entered twice at once."""
        try:
            self.scheduler.context.run(lambda: None)
        except RuntimeError:
            self.scheduler.loop.call_later(0.001, self.begin_when_free)
        else:
            self.begin()

    def begin(self) -> None:
        # Not by the loop's factory: an eager task would enter the context, in which this may be running, at once.
        self.task = asyncio.Task(self.run(), loop=self.scheduler.loop, context=self.scheduler.context)
        self.scheduler.lifetime.handler_tasks.add(self.task)
        self.task.add_done_callback(self.ended)

    def press(self) -> None:
        """Stops the run while too much is waiting."""
        if len(self.waiting) >= HIGH_WATER:
            self.scheduler.gate.close(by=self)

    async def run(self) -> None:
        while (awaitable := self.next()) is not None:
            if len(self.waiting) <= LOW_WATER:
                self.scheduler.gate.open(by=self)
            try:
                await awaitable
            except asyncio.CancelledError:
                if self.task.cancelling():  # the loop ends
                    raise
                _log.warning("An async hook was cancelled; the stream goes on.")
            except Exception:
                _log.exception("An async hook failed; the stream goes on.")

    def next(self) -> Awaitable[Any] | None:
        with self.lines.lock:
            if self.waiting:
                return self.waiting.popleft()
            del self.lines.open[self.key]
            return None

    def ended(self, task: asyncio.Task[None]) -> None:
        self.scheduler.lifetime.handler_tasks.discard(task)
        if task.cancelled():
            _log.warning("The event loop ended before the async hooks of a run had; the rest of them is given up.")
        self.drop()

    def drop(self) -> None:
        """Whoever still waits can't be heard any more."""
        self.release()
        self.scheduler.gate.open(by=self)
        with self.lines.lock:
            if self.lines.open.get(self.key) is self:
                del self.lines.open[self.key]
            left = [*self.waiting]
            self.waiting.clear()
        for awaitable in left:
            discard(awaitable)


def discard(awaitable: Awaitable[Any]) -> None:
    """Gives it up, without a warning that it was never awaited."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
