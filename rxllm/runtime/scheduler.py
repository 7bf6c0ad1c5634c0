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
import contextvars
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, final

from attrs import frozen
from reactivex import abc, typing
from reactivex.scheduler import VirtualTimeScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from ..events import Custom, Event, Run
from ..misuse import MisuseError
from .disposable import LockFreeSerialDisposable
from .gate import Gate
from .loops import Loop, clock_of, do_nothing, in_loop, report, running_loop
from .portal import hold, is_portal, portal

__all__ = [
    "BoundListener",
    "Scheduler",
    "Timers",
    "call",
    "clock",
    "current",
    "dispatch",
    "scheduler",
    "settled",
    "timers",
]


T = TypeVar("T")


_State = TypeVar("_State")


def not_handled(error: BaseException) -> bool:
    """Nobody waits for the stream's end."""
    return False


def _not_read(place: str, status: int, headers: Mapping[str, str]) -> None:
    """Nobody reads what a server allows."""


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
        answered: called for each answer of a server, with the server's address, such as ``https://host:8000``, the
            HTTP status, and the headers, their names in lower case.
        within: the limiters' places that this subscription is a part of.
        has_others: whether somebody above asks again, or another, when this fails; to do so here would multiply.
    """

    def __init__(self, loop: Loop, *, keeps_alive: bool = False) -> None:
        super().__init__(loop)
        self.loop = loop
        self.gate = Gate(clock_of(loop))
        self.context = contextvars.copy_context()
        self.keeps_alive = keeps_alive
        self.tasks: set[asyncio.Task[None]] = set()
        self.beside: set[asyncio.Task[None]] = set()
        shown = _current.get()
        self.run: Run | None = shown.run if shown else None
        self.listeners: tuple[BoundListener, ...] = shown.listeners if shown else ()
        if shown:
            shown.gate.lead(self.gate)
        self.outer: Scheduler | None = None
        self.blame: Callable[[BaseException], bool] = not_handled
        self.answered: Callable[[str, int, Mapping[str, str]], object] = _not_read
        self.within: tuple[object, ...] = shown.within if shown else ()
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
        other.gate, gate.clock = gate, self.gate.clock
        return other

    def apart(self, blame: Callable[[BaseException], bool]) -> Scheduler:
        """The same, with a pace and an end of its own: for what may outlive who asked for it."""
        other = self._copy()
        other.gate, other.tasks, other.blame = Gate(self.gate.clock), set(), blame
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
        other.keeps_alive = is_portal(self.loop)
        return other

    def under(self, run: Run | None, listeners: tuple[BoundListener, ...]) -> Scheduler:
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
        """When what is to come was last let go on, by `clock`; None while it has to wait."""
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
        return hold() if self.keeps_alive else do_nothing

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


class _Scheduled(LockFreeSerialDisposable, Generic[_State]):
    """What is to be done later: once, on its loop, unless somebody disposes of it before, from any thread."""

    __slots__ = ("action", "handle", "release", "scheduler", "seconds", "state")

    def __init__(
        self, scheduler: Scheduler, seconds: float, action: typing.ScheduledAction[_State], state: _State | None
    ) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.seconds = seconds
        self.action = action
        self.state = state
        self.handle: asyncio.Handle | None = None
        self.release = (
            scheduler.hold()
        )  # what is still to be done is part of a stream that a script has only subscribed to
        scheduler.call(self.arm)

    def arm(self) -> None:
        if self.is_disposed:
            return
        scheduler = self.scheduler
        if self.seconds > 0:
            self.handle = scheduler.loop.call_later(self.seconds, self.fire, context=scheduler.context)
        else:
            self.handle = scheduler.loop.call_soon(self.fire, context=scheduler.context)

    def fire(self) -> None:
        try:
            self.scheduler.guard(self.act)
        finally:
            self.release()

    def act(self) -> None:
        if not self.is_disposed:  # by another thread, whose disarm is still to come
            self.disposable = self.scheduler.invoke_action(self.action, state=self.state)

    def dispose(self) -> None:
        super().dispose()
        self.scheduler.call(self.disarm)

    def disarm(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
        self.release()


async def settled(tasks: set[asyncio.Task[None]]) -> None:
    """Returns when these have ended; of the one that waits nobody can ask that."""
    if others := tasks - {asyncio.current_task()}:
        await asyncio.wait(others)


@frozen(eq=False)
class BoundListener:
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
    scheduler = current()
    if scheduler is not None and scheduler.run is not None:
        scheduler.tell(Custom(name, data, run=scheduler.run))


def scheduler(given: abc.SchedulerBase | None = None) -> Scheduler:
    """Return the scheduler to run on: `given` if it has an event loop, else the running loop's, else the background's.

    Pass it to plain reactivex operators that count time, and they run on the loop instead of Timer threads::

        keystrokes.pipe(ops.debounce(0.2), ops.switch_map(llm)).subscribe(show, scheduler=rxllm.scheduler())

    Raises:
        MisuseError: `given` runs on virtual time, or its event loop is closed.
    """
    return scheduler_for(given)


def scheduler_for(given: abc.SchedulerBase | None) -> Scheduler:
    """As `scheduler`, for modules in which that name is a variable."""
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
    loop = running_loop() or portal()
    return Scheduler(loop, keeps_alive=is_portal(loop))


Timers = Scheduler | VirtualTimeScheduler
"""What counts time for an operator, be it the loop's or virtual."""


def timers(given: abc.SchedulerBase | None) -> Timers:
    """As `scheduler`, for operators that need no loop: virtual time stays what it is."""
    return given if isinstance(given, VirtualTimeScheduler) else scheduler_for(given)


def clock(scheduler: Timers) -> Callable[[], float]:
    """Gives the time in seconds, from any beginning."""
    return scheduler.gate.clock if isinstance(scheduler, Scheduler) else lambda: scheduler.now.timestamp()


def call(scheduler: Timers, action: Callable[[], object]) -> None:
    """Runs `action` where the stream is: on its loop; on virtual time, here."""
    scheduler.call(action) if isinstance(scheduler, Scheduler) else action()
