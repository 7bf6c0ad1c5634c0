"""`source`: a cold Observable over an async iterator; each subscription is one task.

A subscription is *open* until one of three events closes it, all on its event loop: the iterator ends (the task),
the subscriber disposes or raises (`stop`), or the loop cancels its tasks (`lost`). The first of them
sets `is_closed`. Nothing is emitted after it except the one terminal event of an iterator that has ended.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Generic, Never, cast

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.observer import AutoDetachObserver

from ..errors import Interrupted
from ..misuse import MisuseError
from .gate import HIGH_WATER
from .scheduler import Scheduler, T, scheduler_for

__all__ = ["Source", "check_observable", "connect", "source"]


class Source(Observable[T]):
    """An Observable that emits on the event loop of its scheduler, one event at a time, and that cannot be iterated."""

    def __init__(self, subscribe: abc.Subscription[T]) -> None:
        # Without the base's constructor: it makes a lock, although few operators use one.
        self._subscribe: abc.Subscription[T] = subscribe

    @functools.cached_property
    def lock(self) -> threading.RLock:  # type: ignore[override]
        """The lock that operators of reactivex take for several sources."""
        return threading.RLock()

    def __repr__(self) -> str:
        return "<Observable; to read it: .subscribe(print), or .pipe(rxllm.stream())>"

    def __iter__(self) -> Iterator[Never]:
        """Raise an error; a plain Observable would yield Observables for ever.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(
            "An Observable cannot be iterated. Write `for chunk in llm.stream(prompt)` instead of `for chunk in "
            "llm(prompt)`; for any other Observable write `for item in observable.pipe(rxllm.stream())`."
        )

    def __aiter__(self) -> AsyncIterator[Never]:
        """Raise an error.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(
            "An Observable cannot be iterated. Write `async for chunk in llm.astream(prompt)` instead of `async for "
            "chunk in llm(prompt)`; for any other write `async for item in observable.pipe(rxllm.astream())`."
        )

    def subscribe(
        self,
        on_next: abc.ObserverBase[T] | abc.OnNext[T] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        """Subscribe as in reactivex, without its trampoline, which only sources that emit during `subscribe` need.

        The trampoline is most of the cost of a subscription, and each request needs four subscriptions.
        """
        if isinstance(on_next, abc.ObserverBase) or hasattr(on_next, "on_next"):
            target = cast("abc.ObserverBase[T]", on_next)
            on_next, on_error, on_completed = target.on_next, target.on_error, target.on_completed
        observer: AutoDetachObserver[T] = AutoDetachObserver(on_next, on_error, on_completed)
        try:
            observer.subscription = self._subscribe_core(observer, scheduler)
        except Exception as error:
            if not observer.fail(error):
                raise
        return Disposable(observer.dispose)


def check_observable(source: Observable[T]) -> Observable[T]:
    """Return the Observable.

    Raises:
        MisuseError: the value is not an Observable.
    """
    if not isinstance(cast("object", source), Observable):
        raise MisuseError(
            f"An Observable was expected here, not {type(source).__name__}. llm(prompt) makes one from a prompt, "
            "rxllm.from_iter(…) from an iterable, reactivex.of(…) from values."
        )
    return source


def connect(
    source: Observable[T], observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None
) -> abc.DisposableBase:
    """Subscribe, without reactivex's guard of the Rx grammar if the source is a `Source`.

    It is for operators whose observer keeps the grammar itself and whose own subscriber has a guard. A guard costs
    0.1 µs a chunk.
    """
    if isinstance(source, Source):
        return source._subscribe(observer, scheduler)  # pyright: ignore[reportPrivateUsage]
    return check_observable(source).subscribe(observer, scheduler=scheduler)


def source(items: Callable[[Scheduler], AsyncIterator[T]], *, first_at_once: bool = True) -> Source[T]:
    """Make a cold source: each subscription calls `items` on its event loop and emits what the iterator yields.

    ::

        subscribe ──a──b──c──|     one task; between two items it waits while the gate is closed
        dispose    ──a──x          the task is cancelled, which closes the iterator at its current await

    Errors: the exceptions of `items`. An exception of the *subscriber* ends its subscription and goes to the loop's
    exception handler, since it is not a failure of the source.

    Args:
        items: called for each subscription.
        first_at_once: whether a reader gets the first item before the iterator is asked for the next one. This takes
            a turn of the event loop.
    """
    return Source(functools.partial(_Subscription, items, first_at_once))


class _Subscription(abc.DisposableBase, Generic[T]):
    """One subscription to a source: one task on the scheduler's event loop. The module describes its states.

    Attributes:
        is_closed: whether the subscription was disposed or is ending by itself. Only the loop's thread writes it.
    """

    __slots__ = ("first_at_once", "is_closed", "items", "observer", "release", "scheduler", "task")

    def __init__(
        self,
        items: Callable[[Scheduler], AsyncIterator[T]],
        first_at_once: bool,
        observer: abc.ObserverBase[T],
        requested: abc.SchedulerBase | None = None,
    ) -> None:
        self.items = items
        self.first_at_once = first_at_once
        self.observer = observer
        self.scheduler = scheduler = scheduler_for(requested)
        self.task: asyncio.Task[None] | None = None
        self.is_closed = False
        self.release = scheduler.hold()
        scheduler.call(self.start)

    def start(self) -> None:
        if self.is_closed:
            self.release()
            return
        # Each task has a context of its own. The tasks of one model's run share the run's context instead, so that a
        # variable that one task sets is seen by the next one.
        observation, context = self.scheduler.observation, self.scheduler.context
        if observation is None or not observation.shares_context:
            context = context.copy()
        # Not loop.create_task: an eager task factory would run the task here, inside the caller of subscribe.
        self.task = asyncio.Task(self.run(), loop=self.scheduler.loop, context=context)
        self.scheduler.lifetime.tasks.add(self.task)
        self.task.add_done_callback(self.ended, context=context)  # the default is a copy of the context

    async def run(self) -> None:
        failure: BaseException | None = None
        try:
            await self.pump()
        except asyncio.CancelledError:
            if self.task is None or self.task.cancelling():
                self.lost()
                raise
            failure = Interrupted(
                "The source awaited a task or future that was cancelled, so the rest of the stream is missing."
            )
        except GeneratorExit:
            raise
        except BaseException as error:  # SystemExit, too: a reader in another thread must get it
            failure = error
        if self.is_closed:
            if failure is not None:
                self.scheduler.report("A source raised while it was being closed.", failure)
            return
        self.is_closed = True  # a dispose during the terminal event must not cancel this task
        try:
            self.observer.on_completed() if failure is None else self.observer.on_error(cast("Exception", failure))
        except Exception as error:
            self.scheduler.report("A subscriber raised in on_completed or on_error, or has no on_error.", error)

    async def pump(self) -> None:
        """Emit all items, then close the iterator."""
        gate, on_next = self.scheduler.gate, self.observer.on_next
        if not gate.is_open:
            await gate.wait()
        iterator = self.items(self.scheduler)
        is_dropped = False
        try:
            count = 0 if self.first_at_once else 1
            async for item in iterator:
                if self.is_closed:  # the iterator has swallowed its cancellation
                    break
                try:
                    on_next(item)
                except Exception as error:
                    self.scheduler.report(
                        "A subscriber or an operator raised in on_next, so the source is closed.", error
                    )
                    self.stop()
                if count % HIGH_WATER == 0 or self.is_closed:
                    # A reader that waits for the first item gets it before the next read, and other tasks get their
                    # turn even if the iterator never waits. After a dispose during `on_next`, the cancellation arrives
                    # here, before the iterator is closed and not in the middle of closing it.
                    await asyncio.sleep(0)
                count += 1
                if not gate.is_open:
                    await gate.wait()
        except GeneratorExit:  # the loop is closed, so nothing can be awaited
            is_dropped = True
            raise
        finally:
            if isinstance(iterator, AsyncGenerator) and not is_dropped:
                await cast("AsyncGenerator[T, None]", iterator).aclose()

    def ended(self, task: asyncio.Task[None]) -> None:
        self.task = None  # frees the task here; the garbage collector might do so in a thread that Ctrl-C interrupts
        self.scheduler.lifetime.tasks.discard(task)
        self.release()
        if task.cancelled():
            self.lost()  # the task was cancelled before its first step
        elif (error := task.exception()) is not None:
            self.scheduler.report("A subscriber raised in on_completed or on_error.", error)

    def lost(self) -> None:
        """Note that the task was cancelled. If the subscriber did not dispose, the event loop is ending."""
        if not self.is_closed:
            self.is_closed = True
            self.scheduler.lifetime.on_failure(asyncio.CancelledError())

    def stop(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if self.task is not None:
                self.task.cancel()

    def dispose(self) -> None:
        self.scheduler.call(self.stop)
