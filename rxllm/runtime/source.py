"""`source`: a cold Observable over an async iterator; each subscription is one task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Generic, Never, cast

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.observer import AutoDetachObserver

from ..errors import Interrupted
from ..misuse import MisuseError
from .gate import HIGH_WATER
from .scheduler import Scheduler, T, scheduler_for

__all__ = ["Source", "connect", "expected", "source"]


class Source(Observable[T]):
    """An Observable that is serialised on its scheduler's loop, and refuses to be iterated."""

    def __iter__(self) -> Iterator[Never]:
        """Refuses: reactivex would answer with Observables, for ever.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(
            "An Observable is no iterable: write `for chunk in llm.stream(prompt)` instead of `for chunk in "
            "llm(prompt)`; any other Observable is iterated by `for item in observable.pipe(rxllm.stream())`."
        )

    def __aiter__(self) -> AsyncIterator[Never]:
        """Refuses, too.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(
            "An Observable is no async iterable: write `async for chunk in llm.astream(prompt)` instead of `async for "
            "chunk in llm(prompt)`; any other is iterated by `async for item in observable.pipe(rxllm.astream())`."
        )

    def subscribe(
        self,
        on_next: abc.ObserverBase[T] | abc.OnNext[T] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        """As in reactivex, without its trampoline, which is for sources that emit while they are subscribed to.

        The trampoline is most of what a subscription costs, and each request passes four of them.
        """
        if isinstance(on_next, abc.ObserverBase) or hasattr(on_next, "on_next"):
            target = cast("abc.ObserverBase[T]", on_next)
            observer = AutoDetachObserver[T](target.on_next, target.on_error, target.on_completed)
        else:
            observer = AutoDetachObserver[T](on_next, on_error, on_completed)
        try:
            observer.subscription = self._subscribe_core(observer, scheduler)
        except Exception as error:
            if not observer.fail(error):
                raise
        return Disposable(observer.dispose)


def expected(source: Observable[T]) -> Observable[T]:
    """The same, if it is one.

    Raises:
        MisuseError: it is something else.
    """
    if not isinstance(cast("object", source), Observable):
        raise MisuseError(
            f"An Observable was expected here, not {type(source).__name__}. A model makes one of a prompt, "
            "rxllm.from_iter of any iterable, reactivex.of of values."
        )
    return source


def connect(
    source: Observable[T], observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None
) -> abc.DisposableBase:
    """Subscribes, where it can without reactivex's guard of the grammar.

    For operators whose observer keeps the grammar itself, and whose own subscriber has a guard: each costs 0.1 µs a
    chunk.
    """
    if isinstance(source, Source):
        return source._subscribe_core(observer, scheduler)  # pyright: ignore[reportPrivateUsage]
    return expected(source).subscribe(observer, scheduler=scheduler)


def source(items: Callable[[Scheduler], AsyncIterator[T]]) -> Source[T]:
    """A cold source: each subscription calls `items` on its loop and pumps what it yields.

    ::

        subscribe ──a──b──c──|     one task; between two items it waits while the gate is closed
        dispose    ──a──x          the task is cancelled, so `items` is closed where it stands

    Errors: what `items` raises. What the *subscriber* raises ends its subscription and goes to the loop's
    exception handler: it is no failure of the source.
    """

    def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        return _Subscription(items, observer, scheduler_for(given))

    return Source(subscribe)


class _Subscription(abc.DisposableBase, Generic[T]):
    """One subscription to a source: its task, from `start` to `ended`, on the loop of its home."""

    def __init__(
        self, items: Callable[[Scheduler], AsyncIterator[T]], observer: abc.ObserverBase[T], scheduler: Scheduler
    ) -> None:
        self.items = items
        self.observer = observer
        self.scheduler = scheduler
        self.task: asyncio.Task[None] | None = None
        self.over = False  # left, or about to end by itself
        self.release = scheduler.hold()
        scheduler.call(self.start)

    def start(self) -> None:
        if self.over:
            self.release()
            return
        # As any task, it has a context of its own; but in a model's run that is the run's, where what is set lasts.
        observation, context = self.scheduler.observation, self.scheduler.context
        if observation is None or not observation.shares_context:
            context = context.copy()
        # Not loop.create_task: an eager factory would run it here, inside of whoever subscribes.
        self.task = asyncio.Task(self.run(), loop=self.scheduler.loop, context=context)
        self.scheduler.lifetime.tasks.add(self.task)
        self.task.add_done_callback(self.ended)

    async def run(self) -> None:
        failure: BaseException | None = None
        try:
            await self.pump()
        except asyncio.CancelledError:
            if self.task is None or self.task.cancelling():
                self.lost()
                raise
            failure = Interrupted("Something that the source waited for was cancelled; the rest will not come.")
        except GeneratorExit:
            raise
        except BaseException as error:  # SystemExit, too: who waits in another thread must hear of it
            failure = error
        if self.over:
            if failure is not None:
                self.scheduler.report("A source failed while it was closed.", failure)
            return
        self.over = True  # what follows ends by itself: to leave it now must not cancel it
        try:
            self.observer.on_completed() if failure is None else self.observer.on_error(cast("Exception", failure))
        except Exception as error:
            self.scheduler.report("A subscriber raised at the end of its stream, or has no on_error.", error)

    async def pump(self) -> None:
        """Hands on all items, and closes their iterator."""
        gate, on_next = self.scheduler.gate, self.observer.on_next
        if not gate.is_open:
            await gate.wait()
        iterator = self.items(self.scheduler)
        is_dropped = False
        try:
            count = 0
            async for item in iterator:
                if self.over:  # the source has swallowed its cancellation
                    break
                try:
                    on_next(item)
                except Exception as error:
                    self.scheduler.report(
                        "A subscriber, or an operator before it, raised; the source is closed.", error
                    )
                    self.stop()
                if count % HIGH_WATER == 0 or self.over:
                    # Whoever waits for the first item gets it before anything else is read or ended, and others get
                    # their turn where a source never waits. Whoever left while hearing one is cancelled here: not in
                    # the middle of closing, and not too late.
                    await asyncio.sleep(0)
                count += 1
                if not gate.is_open:
                    await gate.wait()
        except GeneratorExit:  # the loop was closed around it, and nothing can be awaited any more
            is_dropped = True
            raise
        finally:
            if isinstance(iterator, AsyncGenerator) and not is_dropped:
                await cast("AsyncGenerator[T, None]", iterator).aclose()

    def ended(self, task: asyncio.Task[None]) -> None:
        self.task = None  # the task is freed here, not by the garbage collector in a thread that Ctrl-C may interrupt
        self.scheduler.lifetime.tasks.discard(task)
        self.release()
        if task.cancelled():
            self.lost()  # if it was never begun
        elif (error := task.exception()) is not None:
            self.scheduler.report("A subscriber raised at the end of its stream.", error)

    def lost(self) -> None:
        """It is cancelled; if nobody has left, the loop ends."""
        if not self.over:
            self.over = True
            self.scheduler.lifetime.on_failure(asyncio.CancelledError())

    def stop(self) -> None:
        if not self.over:
            self.over = True
            if self.task is not None:
                self.task.cancel()

    def dispose(self) -> None:
        self.scheduler.call(self.stop)
