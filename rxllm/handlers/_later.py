"""Runs the awaitables of async hooks beside the stream, in order for each run.

A run gets a `_HookQueue` with its first awaitable. The states of a queue:

- *starting*: the queue is registered in `HookQueues.queues`; its task does not exist yet.
- *running*: one task, on the run's event loop and in the run's context, awaits the awaitables one at a time.
- *ended*: the queue was empty, or its event loop has ended. The queue is unregistered; the run's next awaitable
  creates a new one.

Any thread may append an awaitable and start a queue. Only the event loop's thread creates the task, closes and opens
the gate, and ends the queue. `HookQueues.lock` guards `queues` and each queue's `pending`.
"""

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

__all__ = ["HookQueues", "discard"]

_log = logging.getLogger("rxllm")


class HookQueues:
    """A queue of awaitables for each run that has any; runs do not wait for each other."""

    def __init__(self) -> None:
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget all queues: a forked child has neither their event loops nor a thread that would release the lock."""
        self.queues: dict[str, _HookQueue] = {}
        self.lock = threading.Lock()

    def put(self, run_id: str, awaitable: Awaitable[Any]) -> None:
        """Queue an awaitable; the run's event loop awaits it in the run's context.

        Any thread may call this. A failure of the awaitable is logged.
        """
        with self.lock:
            queue = self.queues.get(run_id)
            is_new = queue is None
            if queue is None:
                scheduler = _kept_alive(current() or scheduler_for(None))
                queue = self.queues[run_id] = _HookQueue(self, run_id, scheduler)
            queue.pending.append(awaitable)
        if is_new:
            queue.start()
        elif len(queue.pending) == HIGH_WATER:
            queue.scheduler.call(queue.pause_when_full)


def _kept_alive(scheduler: Scheduler) -> Scheduler:
    """Return a scheduler whose work keeps the process alive, even if the script ends meanwhile."""
    return scheduler.evolve(lifetime=scheduler.lifetime.kept_alive(is_portal(scheduler.loop)))


class _HookQueue:
    """The pending awaitables of one run, and the task that awaits them."""

    def __init__(self, queues: HookQueues, key: str, scheduler: Scheduler) -> None:
        self.queues = queues
        self.key = key
        self.pending: deque[Awaitable[Any]] = deque()
        self.scheduler = scheduler
        self.release = scheduler.hold()

    def start(self) -> None:
        if in_loop(self.scheduler.loop):
            self.begin()
            return
        try:
            self.scheduler.loop.call_soon_threadsafe(self.begin_when_context_is_free)
        except RuntimeError:  # the event loop is closed
            self.drop()
            raise

    def begin_when_context_is_free(self) -> None:
        """Create the task once the subscribing thread has left the context: two threads cannot enter it at once."""
        try:
            self.scheduler.context.run(lambda: None)
        except RuntimeError:
            self.scheduler.loop.call_later(0.001, self.begin_when_context_is_free)
        else:
            self.begin()

    def begin(self) -> None:
        # asyncio.Task ignores the loop's task factory: an eager task would enter the context at once, and this
        # method may already run inside that context.
        self.task = asyncio.Task(self.run(), loop=self.scheduler.loop, context=self.scheduler.context)
        self.scheduler.lifetime.handler_tasks.add(self.task)
        self.task.add_done_callback(self.end)

    def pause_when_full(self) -> None:
        """Close the run's gate while HIGH_WATER or more awaitables are pending."""
        if len(self.pending) >= HIGH_WATER:
            self.scheduler.gate.close(by=self)

    async def run(self) -> None:
        while (awaitable := self.next()) is not None:
            if len(self.pending) <= LOW_WATER:
                self.scheduler.gate.open(by=self)
            try:
                await awaitable
            except asyncio.CancelledError:
                if self.task.cancelling():  # the event loop is shutting down
                    raise
                _log.warning("An async hook was cancelled; the stream continues.")
            except Exception:
                _log.exception("An async hook failed; the stream continues.")

    def next(self) -> Awaitable[Any] | None:
        with self.queues.lock:
            if self.pending:
                return self.pending.popleft()
            del self.queues.queues[self.key]
            return None

    def end(self, task: asyncio.Task[None]) -> None:
        self.scheduler.lifetime.handler_tasks.discard(task)
        if task.cancelled():
            _log.warning("The event loop end before a run's async hooks; the remaining hooks were dropped.")
        self.drop()

    def drop(self) -> None:
        """Unregister the queue, discard its pending awaitables and let the run continue."""
        self.release()
        self.scheduler.gate.open(by=self)
        with self.queues.lock:
            if self.queues.queues.get(self.key) is self:
                del self.queues.queues[self.key]
            dropped = [*self.pending]
            self.pending.clear()
        for awaitable in dropped:
            discard(awaitable)


def discard(awaitable: Awaitable[Any]) -> None:
    """Close an awaitable that will not be awaited, so that Python does not warn about it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
