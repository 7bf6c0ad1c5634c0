"""The engine: the one place that knows loops, threads, gates and contexts.

Every subscription to a source is one task on one event loop (`source`). Which loop, how fast, in whose context:
the `Scheduler` that `subscribe` passes from operator to operator says so, and nothing else does.

::

    subscribe(scheduler=S) ──► task on S.loop, in S.context
                                 │  async for item in items:        the only pump there is
                                 │      observer.on_next(item)
                                 │      await S.gate                 a slow consumer stops the socket
    dispose() ───────────────► task.cancel() ─► the response is closed
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport]  (its exit hook, see _Portal)
import contextvars
import inspect
import os
import queue
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Generic, Never, TypeVar, cast, final

from attrs import frozen
from reactivex import Observable, abc, typing
from reactivex.disposable import Disposable
from reactivex.observer import AutoDetachObserver
from reactivex.scheduler import VirtualTimeScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from .errors import Interrupted, MisuseError
from .events import Custom, Event, Run

__all__ = [
    "HIGH",
    "LOW",
    "Calls",
    "Ear",
    "Gate",
    "Scheduler",
    "Serial",
    "Source",
    "Timers",
    "Worker",
    "call",
    "called",
    "clock",
    "connect",
    "current",
    "dispatch",
    "expected",
    "in_loop",
    "in_thread",
    "loop_local",
    "portal",
    "pull",
    "raisable",
    "report",
    "scheduler",
    "settled",
    "source",
    "timers",
]

T = TypeVar("T")
_State = TypeVar("_State")
Loop = asyncio.AbstractEventLoop


# ── back-pressure ────────────────────────────────────────────────────────────────────────────────────────────────


HIGH, LOW = 64, 16  # items that wait for a consumer: the gate closes at HIGH, and opens again at LOW


class Gate:
    """Whether more may come: a consumer closes it when it has enough, pumps wait until it opens.

    It belongs to one loop, and any number of pumps may wait at it (merged streams share their consumer's gate), of
    other loops, too.

    Attributes:
        is_open: read by pumps after each item.
        opened_at: `time.monotonic()` of the last opening; waiting at a closed gate is not idleness.
    """

    __slots__ = ("__weakref__", "_closers", "_followers", "_waiters", "is_open", "opened_at")

    def __init__(self) -> None:
        self.is_open = True
        self.opened_at = 0.0
        self._closers: set[object] = set()
        self._followers: tuple[weakref.ref[Gate], ...] = ()
        self._waiters: dict[asyncio.Future[None], None] = {}  # in their order

    def close(self, by: object = None) -> None:
        """Lets nothing more come; `by` is who has enough, beside the consumer."""
        self._closers.add(by)
        self.is_open = False
        for follower in self._led():
            follower.close(by=self)

    def open(self, by: object = None) -> None:
        """Lets everybody who waits go on, unless another has closed it, too."""
        self._closers.discard(by)
        if self.is_open or self._closers:
            return
        self.is_open = True
        self.opened_at = time.monotonic()
        waiters, self._waiters = self._waiters, {}
        for waiter in [*waiters]:
            _wake(waiter)
        for follower in self._led():
            follower.open(by=self)

    def lead(self, other: Gate) -> None:
        """Has another, of any loop, be closed whenever this one is: what a run asks for stops with the run."""
        self._followers = (*(known for known in self._followers if known() is not None), weakref.ref(other))
        if not self.is_open:
            other.close(by=self)
            if self.is_open:  # since a moment ago, by another loop, which may not have seen this one
                other.open(by=self)

    def _led(self) -> list[Gate]:
        return [gate for follower in self._followers if (gate := follower()) is not None]

    async def wait(self) -> None:
        """Returns when the gate has opened, even if another has closed it since: each who waits gets his turn."""
        if not self.is_open:
            await self.opening(asyncio.get_running_loop())

    def opening(self, loop: Loop) -> asyncio.Future[None]:
        """Done when the closed gate opens."""
        waiter: asyncio.Future[None] = loop.create_future()
        waiter.add_done_callback(lambda waiter: self._waiters.pop(waiter, None))  # also when nobody waits any more
        self._waiters[waiter] = None
        if self.is_open:  # since a moment ago, by another loop, which may not have seen this one waiting
            _wake(waiter)
        return waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    """Ends a wait, on its loop."""
    loop = waiter.get_loop()
    if not in_loop(loop):
        with suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(_wake, waiter)
    elif not waiter.done():
        waiter.set_result(None)


# ── where and how a subscription runs ────────────────────────────────────────────────────────────────────────────


def _not_taken_up(error: BaseException) -> bool:
    """Nobody waits for the stream's end."""
    return False


def _not_read(headers: Mapping[str, str]) -> None:
    """Nobody heeds what a server allows."""


@final
class Scheduler(AsyncIOScheduler):
    """A scheduler on an event loop that carries what one subscription needs on its way up through the operators.

    Unlike its base it may be used from any thread.

    Attributes:
        loop: where everything runs.
        gate: when to pause.
        context: the subscriber's context variables.
        tasks: what was started and has not ended.
        beside: what handlers do meanwhile, which may last longer than the stream.
        run: what is running here, if anybody listens to it.
        listeners: who listens.
        outer: what it was before it was inside of the run.
        blame: who hears of what no observer may: that code around the stream raised, or that the loop ends
            (then a CancelledError). It tells whether somebody took it up.
        answered: who hears of the headers of a server's answer, their names in lower case.
        has_others: whether somebody above asks again, or another, when this fails; to do so here would multiply.
    """

    def __init__(self, loop: Loop, *, keeps_alive: bool = False) -> None:
        super().__init__(loop)
        self.loop = loop
        self.gate = Gate()
        self.context = contextvars.copy_context()
        self.keeps_alive = keeps_alive
        self.tasks: set[asyncio.Task[None]] = set()
        self.beside: set[asyncio.Task[None]] = set()
        shown = _current.get()
        self.run: Run | None = shown.run if shown else None
        self.listeners: tuple[Ear, ...] = shown.listeners if shown else ()
        if shown:
            shown.gate.lead(self.gate)
        self.outer: Scheduler | None = None
        self.blame: Callable[[BaseException], bool] = _not_taken_up
        self.answered: Callable[[Mapping[str, str]], object] = _not_read
        self.has_others = False

    def _copy(self) -> Scheduler:
        other = object.__new__(Scheduler)  # copy.copy takes five times as long
        vars(other).update(vars(self))
        return other

    def heeding(self, hook: Callable[[BaseException], object]) -> Scheduler:
        """The same, where `hook`, too, hears of what no observer may."""
        other = self._copy()
        other.blame = lambda error: bool(hook(error)) | self.blame(error)
        return other

    def with_gate(self, gate: Gate) -> Scheduler:
        """The same, with a gate of its own: for the upstream of an operator that queues. Who listens holds it, too."""
        if self.listeners:
            self.gate.lead(gate)
        other = self._copy()
        other.gate = gate
        return other

    def apart(self, blame: Callable[[BaseException], bool]) -> Scheduler:
        """The same, with a pace and an end of its own: for what may outlive who asked for it."""
        other = self._copy()
        other.gate, other.tasks, other.blame = Gate(), set(), blame
        return other

    def with_others(self) -> Scheduler:
        """The same for an attempt that is not the last."""
        other = self._copy()
        other.has_others = True
        return other

    def unheld(self) -> Scheduler:
        """The same for what only watches: what it has scheduled keeps no process from ending."""
        if not self.keeps_alive:
            return self
        other = self._copy()
        other.keeps_alive = False
        return other

    def finishing(self) -> Scheduler:
        """The same for what is to be finished even if a script ends meanwhile."""
        other = self._copy()
        other.keeps_alive = _portal is not None and self.loop is _portal.loop
        return other

    def under(self, run: Run | None, listeners: tuple[Ear, ...]) -> Scheduler:
        """The same, inside of a run; its context shows it to code that is given no scheduler."""
        other = self._copy()
        other.run, other.listeners, other.outer = run, listeners, self
        other.context = self.context.copy()
        other.context.run(_current.set, other)
        return other

    def knowing(self, variable: contextvars.ContextVar[T], value: T) -> Scheduler:
        """The same, in whose context the variable has this value."""
        other = self._copy()
        other.context = self.context.copy()
        other.context.run(variable.set, value)
        return other

    def outside(self, action: Callable[[T], object], argument: T) -> None:
        """Calls what is no longer part of the run, such as its subscriber: it shall not see this run as its own."""
        token = _current.set(self.outer)
        try:
            action(argument)
        finally:
            _current.reset(token)

    def tell(self, event: Event) -> None:
        """Tells the listeners; each on the loop that it was attached on.

        Raises:
            Exception: what the first of those raised that may fail the run.
        """
        failure: Exception | None = None
        for listener in self.listeners:
            try:
                listener.hear(event)
            except Exception as error:  # the others hear of it all the same
                failure = failure or error
        if failure is not None:
            raise failure

    def call(self, action: Callable[[], object]) -> None:
        """Runs `action` on the loop: now where that is here, else soon. A loop that is closed has nothing to run."""
        if in_loop(self.loop):
            action()
            return
        release = self.hold()  # a script may end before that

        def run() -> None:
            try:
                self.guard(action)
            finally:
                release()

        try:
            self.loop.call_soon_threadsafe(run, context=self.context)
        except RuntimeError:
            release()

    def opened_at(self) -> float | None:
        """When what is to come was last let go on (`time.monotonic()`); None while it has to wait."""
        return self.gate.opened_at if self.gate.is_open else None

    def guard(self, action: Callable[[], object]) -> None:
        """Runs code of the graph that nobody has called: who waits for the stream hears what it raises, exits too."""
        try:
            action()
        except Exception as error:
            self.report("An operator, or a subscriber, raised.", error)
        except BaseException as error:
            if not self.blame(error):
                raise

    def report(self, message: str, error: BaseException) -> None:
        """Tells of a failure that is not the source's, but a subscriber's, or the code of an operator.

        A loop over the stream is told as of its end, which would never come; else the event loop's exception handler.
        """
        if not self.blame(error):
            report(self.loop, message, error)

    def hold(self) -> Callable[[], None]:
        """Keeps the process from ending until the returned function is called, where a script relies on it."""
        return _portal_instance().hold() if self.keeps_alive else _nothing

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Runs `action` soon, in the subscriber's context."""
        return _Scheduled(self, 0, action, state)

    def schedule_relative(
        self,
        duetime: typing.RelativeTime,
        action: typing.ScheduledAction[_State],
        state: _State | None = None,
    ) -> abc.DisposableBase:
        """Runs `action` after `duetime` (seconds or timedelta), in the subscriber's context."""
        return _Scheduled(self, self.to_seconds(duetime), action, state)


class Serial(abc.DisposableBase):
    """One disposable at a time, which the next replaces and disposes of: reactivex's SerialDisposable without its lock.

    Locks are most of what a disposable costs, in time and in objects for the collector of garbage to walk, and each
    stream has five of these. Any thread may dispose; both sides look after they have written, so that one of them sees
    the other, and to dispose twice does no harm.
    """

    __slots__ = ("_disposable", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._disposable: abc.DisposableBase | None = None

    @property
    def disposable(self) -> abc.DisposableBase | None:
        """The current one."""
        return self._disposable

    @disposable.setter
    def disposable(self, disposable: abc.DisposableBase | None) -> None:
        before, self._disposable = self._disposable, disposable
        if before is not None:
            before.dispose()
        if self.is_disposed:
            self.dispose()

    def dispose(self) -> None:
        """Disposes of the current one, and of all that are still to come."""
        self.is_disposed = True
        current, self._disposable = self._disposable, None
        if current is not None:
            current.dispose()


class _Scheduled(Serial, Generic[_State]):
    """What is to be done later: once, on its loop, unless somebody disposes of it before, from any thread."""

    __slots__ = ("action", "handle", "home", "release", "seconds", "state")

    def __init__(
        self, home: Scheduler, seconds: float, action: typing.ScheduledAction[_State], state: _State | None
    ) -> None:
        super().__init__()
        self.home = home
        self.seconds = seconds
        self.action = action
        self.state = state
        self.handle: asyncio.Handle | None = None
        self.release = home.hold()  # what is still to be done is part of a stream that a script has only subscribed to
        home.call(self.arm)

    def arm(self) -> None:
        if self.is_disposed:
            return
        home = self.home
        if self.seconds > 0:
            self.handle = home.loop.call_later(self.seconds, self.fire, context=home.context)
        else:
            self.handle = home.loop.call_soon(self.fire, context=home.context)

    def fire(self) -> None:
        try:
            self.home.guard(self.act)
        finally:
            self.release()

    def act(self) -> None:
        if not self.is_disposed:  # by another thread, whose disarm is still to come
            self.disposable = self.home.invoke_action(self.action, state=self.state)

    def dispose(self) -> None:
        super().dispose()
        self.home.call(self.disarm)

    def disarm(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
        self.release()


async def settled(tasks: set[asyncio.Task[None]]) -> None:
    """Returns when these have ended; of the one that waits nobody can ask that."""
    if others := tasks - {asyncio.current_task()}:
        await asyncio.wait(others)


@frozen(eq=False)
class Ear:
    """A listener, where it was attached.

    Attributes:
        heard: called with each event.
        loop: where it hears, None for wherever the event happens.
    """

    heard: Callable[[Event], object]
    loop: Loop | None = None

    def hear(self, event: Event) -> None:
        """Hears now, or as soon as its loop has time."""
        if self.loop is None or in_loop(self.loop):
            self.heard(event)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.heard, event)


# Shows the current run to code that is given no scheduler. Where there is one, the scheduler's run counts.
_current: contextvars.ContextVar[Scheduler | None] = contextvars.ContextVar("rxllm_run", default=None)


def current() -> Scheduler | None:
    """Where the run is that this code is part of, if any."""
    return _current.get()


def dispatch(name: str, data: Any = None) -> None:
    """Tells who listens to the current run of an event of the program's own, a `Custom`.

    From within a model of one's own, an operator's function or a handler. Where nobody listens, nothing happens.

    Args:
        name: what happened.
        data: what there is to tell of it.
    """
    home = current()
    if home is not None and home.run is not None:
        home.tell(Custom(name, data, run=home.run))


def in_loop(loop: Loop) -> bool:
    """Whether this code is running on `loop`."""
    return _running_loop() is loop


# The public get_running_loop raises where there is none, which takes ten times as long.
_running_loop: Callable[[], Loop | None] = asyncio._get_running_loop


def scheduler(given: abc.SchedulerBase | None = None) -> Scheduler:
    """The scheduler to run on: `given` where it has a loop, else the running loop's, else the portal's.

    Pass it to plain reactivex operators that count time, and they run on the loop instead of Timer threads::

        keystrokes.pipe(ops.debounce(0.2), ops.switch_map(llm)).subscribe(show, scheduler=rxllm.scheduler())

    Raises:
        MisuseError: `given` runs on virtual time, which no network keeps.
    """
    if isinstance(given, AsyncIOScheduler):
        loop = given._loop  # pyright: ignore[reportPrivateUsage]  (it has no public name)
        if loop.is_closed():  # nothing would ever begin there
            raise MisuseError("The event loop of this scheduler is closed; subscribe on one that runs.")
        return given if isinstance(given, Scheduler) else Scheduler(loop)
    if isinstance(given, VirtualTimeScheduler):
        raise MisuseError(
            "A virtual-time scheduler has no event loop, and this source needs one; "
            "subscribe without a scheduler, or test against a source on virtual time."
        )
    loop = _running_loop() or portal()
    return Scheduler(loop, keeps_alive=_portal is not None and loop is _portal.loop)


Timers = Scheduler | VirtualTimeScheduler
"""What counts time for an operator, be it the loop's or virtual."""


def timers(given: abc.SchedulerBase | None) -> Timers:
    """As `scheduler`, for operators that need no loop: virtual time stays what it is."""
    return given if isinstance(given, VirtualTimeScheduler) else scheduler(given)


def clock(home: Timers) -> Callable[[], float]:
    """Gives the time in seconds, from any beginning."""
    return time.monotonic if isinstance(home, Scheduler) else lambda: home.now.timestamp()


def call(home: Timers, action: Callable[[], object]) -> None:
    """Runs `action` where the stream is: on its loop; on virtual time, here."""
    home.call(action) if isinstance(home, Scheduler) else action()


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────


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
        return _Subscription(items, observer, scheduler(given))

    return Source(subscribe)


class _Subscription(abc.DisposableBase, Generic[T]):
    """One subscription to a source: its task, from `start` to `ended`, on the loop of its home."""

    def __init__(
        self, items: Callable[[Scheduler], AsyncIterator[T]], observer: abc.ObserverBase[T], home: Scheduler
    ) -> None:
        self.items = items
        self.observer = observer
        self.home = home
        self.task: asyncio.Task[None] | None = None
        self.over = False  # left, or about to end by itself
        self.release = home.hold()
        home.call(self.start)

    def start(self) -> None:
        if self.over:
            self.release()
            return
        # As any task, it has a context of its own; but in a model's run that is the run's, where what is set lasts.
        run = self.home.run
        context = self.home.context.copy() if run is None or run.kind == "chain" else self.home.context
        # Not loop.create_task: an eager factory would run it here, inside of whoever subscribes.
        self.task = asyncio.Task(self.run(), loop=self.home.loop, context=context)
        self.home.tasks.add(self.task)
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
                self.home.report("A source failed while it was closed.", failure)
            return
        self.over = True  # what follows ends by itself: to leave it now must not cancel it
        try:
            self.observer.on_completed() if failure is None else self.observer.on_error(cast("Exception", failure))
        except Exception as error:
            self.home.report("A subscriber raised at the end of its stream, or has no on_error.", error)

    async def pump(self) -> None:
        """Hands on all items, and closes their iterator."""
        gate, on_next = self.home.gate, self.observer.on_next
        if not gate.is_open:
            await gate.wait()
        iterator = self.items(self.home)
        is_dropped = False
        try:
            count = 0
            async for item in iterator:
                if self.over:  # the source has swallowed its cancellation
                    break
                try:
                    on_next(item)
                except Exception as error:
                    self.home.report("A subscriber, or an operator before it, raised; the source is closed.", error)
                    self.stop()
                if count % HIGH == 0 or self.over:
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
        self.home.tasks.discard(task)
        self.release()
        if task.cancelled():
            self.lost()  # if it was never begun
        elif (error := task.exception()) is not None:
            self.home.report("A subscriber raised at the end of its stream.", error)

    def lost(self) -> None:
        """It is cancelled; if nobody has left, the loop ends."""
        if not self.over:
            self.over = True
            self.home.blame(asyncio.CancelledError())

    def stop(self) -> None:
        if not self.over:
            self.over = True
            if self.task is not None:
                self.task.cancel()

    def dispose(self) -> None:
        self.home.call(self.stop)


def _nothing() -> None:
    """Nothing is held."""


def report(loop: Loop, message: str, error: BaseException) -> None:
    """Tells the loop's exception handler, which logs unless the program has set another."""
    loop.call_exception_handler({"message": message, "exception": error})


def raisable(error: BaseException) -> BaseException:
    """The error as an iterator or a future may raise it.

    An end of iteration would pass for the end of the stream, and a cancellation for that of who reads it.
    """
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        other = RuntimeError(f"{type(error).__name__} was raised outside of an iterator.")
        other.__cause__ = error
        return other
    if isinstance(error, asyncio.CancelledError):
        return Interrupted("The event loop of the stream ended before it did.")
    return error


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Calls(ABC):
    """Blocking calls that another thread makes, one after another; their results come back to the loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    @abstractmethod
    def put(self, job: Callable[[], None]) -> None:
        """Has the thread do `job`, which raises nothing."""

    @abstractmethod
    def close(self, last: Callable[[], object]) -> None:
        """There will be no more calls; `last` cleans up after them."""

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of `function` in the thread. Who is gone by then is not told."""
        outcome: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is None:
                outcome.set_result(cast("T", result))
            else:
                outcome.set_exception(raisable(error))

        def job() -> None:
            result, error = None, None
            try:
                result = function(*arguments)
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(settle, result, error)

        self.put(job)
        return await outcome


class Worker(Calls):
    """A daemon thread of its own for blocking calls, in a copy of the given context.

    Never a pool: nested calls would take a pool's last thread and wait for each other. What blocks can't be stopped.
    """

    def __init__(self, loop: Loop, context: contextvars.Context) -> None:
        super().__init__(loop)
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        threading.Thread(target=context.copy().run, args=(self._run,), name="rxllm-worker", daemon=True).start()

    def put(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def close(self, last: Callable[[], object]) -> None:
        self._jobs.put(last)
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


async def in_thread(home: Scheduler, function: Callable[[], T]) -> T:
    """The result of blocking `function`, run in a thread of its own."""
    worker = Worker(home.loop, home.context)
    try:
        return await worker.call(function)
    finally:
        worker.close(lambda: None)


async def called(home: Scheduler, function: Callable[..., Any], argument: object) -> AsyncIterator[Any]:
    """The result of a function of one's own: awaited if it is ``async def``, else made in a thread, as it may block."""
    if inspect.iscoroutinefunction(function):
        yield await function(argument)
    else:
        result = await in_thread(home, lambda: function(argument))
        yield await result if inspect.isawaitable(result) else result


async def pull(calls: Calls, make: Callable[[], Iterable[T]]) -> AsyncIterator[T]:
    """The items of blocking `make()`, which is advanced item by item, and closed if it is a generator, by `calls`."""
    end = cast("T", object())
    iterator: Iterator[T] | None = None

    def close() -> None:
        if isinstance(iterator, Generator):
            iterator.close()

    try:
        iterator = await calls.call(lambda: iter(make()))
        source = iterator
        while (item := await calls.call(lambda: next(source, end))) is not end:
            yield item
    finally:
        calls.close(close)


# ── the portal: a loop for code that has none ────────────────────────────────────────────────────────────────────


class _Portal:
    """An event loop in a daemon thread, so that synchronous programs share connections and need no loop."""

    def __init__(self) -> None:
        ready: queue.SimpleQueue[Loop] = queue.SimpleQueue()
        self._held = 0
        self._is_patient = True  # until Ctrl-C
        self._quiet = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="rxllm-portal", daemon=True)
        self._thread.start()
        self.loop = ready.get()
        # Not atexit: by then concurrent.futures has shut down, and a request that is still to come could not look
        # up its host. These hooks run before that, last registered first.
        with suppress(RuntimeError):  # the main thread has ended already
            threading._register_atexit(self._hear_out)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        # But at exit it closes: threads that are no daemons may read on after the main thread's end.
        atexit.register(self._finish)

    def hold(self) -> Callable[[], None]:
        """Keeps the process from ending until the returned function is called."""
        with self._quiet:
            self._held += 1

        held = True

        def release() -> None:
            nonlocal held
            with self._quiet:
                self._held -= held
                held = False
                self._quiet.notify_all()

        return release

    def _run(self, ready: queue.SimpleQueue[Loop]) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            self._stop = asyncio.Event()
            ready.put(loop)
            while not self._stop.is_set():
                try:
                    runner.run(self._wait())
                except BaseException as error:  # a subscriber's SystemExit must not take the others' loop away
                    report(loop, "A task of rxllm's event loop raised.", error)

    async def _wait(self) -> None:
        await self._stop.wait()

    def _hear_out(self) -> None:
        """At the end of the main thread: waits for whoever has only subscribed. In a forked child that is nobody."""
        if self is _portal and self._is_patient:
            try:
                with self._quiet:
                    self._quiet.wait_for(lambda: not self._held)
            except KeyboardInterrupt:  # all requests are closed
                self._is_patient = False

    def _finish(self) -> None:
        """At the end of all threads but the daemons: closes the loop, which cancels what is left."""
        self._hear_out()  # those threads may have subscribed since
        if self is _portal:
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=2)


_portal: _Portal | None = None
_portal_lock = threading.Lock()


def _portal_instance() -> _Portal:
    global _portal
    with _portal_lock:
        if _portal is None:
            _portal = _Portal()
        return _portal


def portal() -> Loop:
    """The process-wide background loop, started when it is first needed."""
    return _portal_instance().loop


def _forget_portal() -> None:
    """A forked child has the parent's portal without its thread: it needs one of its own."""
    global _portal, _portal_lock
    _portal, _portal_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_portal)


# ── one object a loop ────────────────────────────────────────────────────────────────────────────────────────────

_loop_local: dict[tuple[Loop, object], Any] = {}


async def loop_local(key: object, make: Callable[[], T], close: Callable[[T], Any]) -> T:
    """What `make` returns, made once for the running loop and each `key`, and closed with the loop.

    An async generator that is parked on the loop does the closing: `shutdown_asyncgens`, which every runner calls,
    finalises it.
    """
    loop = asyncio.get_running_loop()
    if (loop, key) in _loop_local:
        return cast("T", _loop_local[loop, key][0])
    value = make()

    async def keep() -> AsyncIterator[None]:
        try:
            yield
        finally:
            _loop_local.pop((loop, key), None)
            await close(value)

    keeper = keep()
    for known in list(_loop_local):  # a copy, since other threads' loops come and go
        if known[0].is_closed():
            _loop_local.pop(known, None)
    _loop_local[loop, key] = value, keeper
    await anext(keeper)
    return value
