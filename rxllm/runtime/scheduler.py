"""The engine: the one place that knows event loops, threads, gates and contexts.

Each subscription to a source is one task on one event loop (`source`). The `Scheduler` that `subscribe` passes from
operator to operator determines the loop, the pace and the context of that task.

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
from typing import Any, Generic, Protocol, TypedDict, TypeVar, cast, final

from reactivex import abc, typing
from reactivex.scheduler import VirtualTimeScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from typing_extensions import Unpack

from ..misuse import MisuseError
from .disposable import LockFreeSerialDisposable
from .gate import Gate
from .lifetime import Lifetime
from .loops import Loop, clock_of, in_loop, report, running_loop
from .portal import is_portal, portal

__all__ = [
    "Baggage", "Scheduler", "Timers", "call", "clock", "daemon", "enclosing", "scheduler", "scheduler_for", "timers",
]  # fmt: skip


T = TypeVar("T")


_State = TypeVar("_State")


class _Observation(Protocol):
    """The attribute of an observation that the engine reads."""

    @property
    def shares_context(self) -> bool:
        """Whether the tasks of the run share one context."""
        ...


class Baggage(Generic[T]):
    """The key of a value that a scheduler carries up the graph; the room that owns the value defines the key.

    Unlike a context variable, the value reaches the operators of one graph only, not the code that they call.
    """

    __slots__ = ("default",)

    def __init__(self, default: T) -> None:
        self.default = default


class _Fields(TypedDict, total=False):
    gate: Gate
    context: contextvars.Context
    observation: _Observation
    lifetime: Lifetime


@final
class Scheduler(AsyncIOScheduler):
    """A scheduler on an event loop that carries the state of one subscription up through the operators.

    A scheduler is immutable, except that the reader of a stream sets the failure handler of its lifetime. Unlike its
    base class it may be used from any thread.

    Attributes:
        loop: where everything runs.
        gate: when to pause.
        context: the subscriber's context variables.
        observation: the run and the listeners at this place of the graph; None if nothing is observed.
        lifetime: the tasks of the subscription, whether they keep the process alive, and the handler of their failures.
        baggage: the values that operators carry to the operators and sources above them.
    """

    def __init__(self, loop: Loop, *, keeps_alive: bool = False) -> None:
        super().__init__(loop)
        self.loop = loop
        self.gate = Gate(clock_of(loop))
        self.context = contextvars.copy_context()
        self.lifetime = Lifetime(set(), set(), keeps_alive=keeps_alive)
        self.baggage: Mapping[Baggage[Any], Any] = {}
        self.observation: _Observation | None = None
        if outer := enclosing.get():
            self.observation = outer.observation
            outer.gate.lead(self.gate)

    def evolve(self, **changes: Unpack[_Fields]) -> Scheduler:
        """Return a copy with other values of these attributes."""
        other = object.__new__(Scheduler)  # copy.copy takes five times as long
        fields = vars(other)
        fields.update(vars(self))
        fields.update(changes)
        return other

    def with_gate(self, gate: Gate) -> Scheduler:
        """Return a copy with a gate of its own, for the upstream of an operator that queues.

        An async handler that closes the present gate closes the new one, too.
        """
        if self.observation is not None:
            self.gate.lead(gate)
        gate.clock = self.gate.clock
        return self.evolve(gate=gate)

    def with_variable(self, variable: contextvars.ContextVar[T], value: T) -> Scheduler:
        """Return a copy in whose context the variable has this value."""
        context = self.context.copy()
        context.run(variable.set, value)
        return self.evolve(context=context)

    def with_baggage(self, key: Baggage[T], value: T) -> Scheduler:
        """Return a copy that carries this value."""
        other = self.evolve()
        other.baggage = {**self.baggage, key: value}
        return other

    def carried(self, key: Baggage[T]) -> T:
        """Return the value that this scheduler carries, or the default of the key."""
        return cast("T", self.baggage.get(key, key.default))

    def call(self, action: Callable[[], object]) -> None:
        """Run `action` on the loop: now if this code runs there, else soon. On a closed loop nothing runs."""
        if in_loop(self.loop):
            action()
            return
        release = self.hold()  # a script may end before the action runs

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
        """Return the time, by `clock`, at which the gate was last opened; None while it is closed."""
        return self.gate.opened_at if self.gate.is_open else None

    def guard(self, action: Callable[[], object]) -> None:
        """Run code of the graph that the event loop calls. The reader of the stream gets its exceptions, even exits."""
        try:
            action()
        except Exception as error:
            self.report("An operator or a subscriber raised.", error)
        except BaseException as error:
            if not self.lifetime.on_failure(error):
                raise

    def report(self, message: str, error: BaseException) -> None:
        """Report a failure of a subscriber or of an operator's code, which is not a failure of the source.

        A loop that reads the stream raises it, since the stream's end would never come. Without such a loop the event
        loop's exception handler gets it.
        """
        if not self.lifetime.on_failure(error):
            report(self.loop, message, error)

    def hold(self) -> Callable[[], None]:
        """Keep the process from ending until the returned function is called, if the lifetime keeps it alive."""
        return self.lifetime.hold()

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        """Run `action` soon, in the subscriber's context."""
        return _Scheduled(self, 0, action, state)

    def schedule_relative(
        self,
        duetime: typing.RelativeTime,
        action: typing.ScheduledAction[_State],
        state: _State | None = None,
    ) -> abc.DisposableBase:
        """Run `action` after `duetime` (seconds or timedelta), in the subscriber's context."""
        return _Scheduled(self, self.to_seconds(duetime), action, state)


class _Scheduled(LockFreeSerialDisposable, Generic[_State]):
    """An action that runs once on its loop, unless any thread disposes of it before."""

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
        self.release = scheduler.hold()  # a script that only subscribed stays alive until the action has run
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
        if not self.is_disposed:  # another thread may have disposed of it, and its disarm has not run yet
            self.disposable = self.scheduler.invoke_action(self.action, state=self.state)

    def dispose(self) -> None:
        super().dispose()
        self.scheduler.call(self.disarm)

    def disarm(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
        self.release()


# The scheduler of the current run, for code that gets no scheduler. A scheduler passed to `subscribe` wins over it.
enclosing: contextvars.ContextVar[Scheduler | None] = contextvars.ContextVar("rxllm_run", default=None)


def scheduler(requested: abc.SchedulerBase | None = None) -> Scheduler:
    """Return a scheduler on an event loop: that of `requested`, else the running loop, else the background loop.

    Pass it to plain reactivex operators that count time; they then run on the loop instead of Timer threads::

        keystrokes.pipe(ops.debounce(0.2), ops.switch_map(llm)).subscribe(show, scheduler=rxllm.scheduler())

    Raises:
        MisuseError: `requested` runs on virtual time, or its event loop is closed.
    """
    return scheduler_for(requested)


def scheduler_for(requested: abc.SchedulerBase | None) -> Scheduler:
    """As `scheduler`, for modules in which that name is a variable."""
    if isinstance(requested, (Scheduler, AsyncIOScheduler)):  # the exact type first: the ABC takes five times as long
        loop = requested._loop  # pyright: ignore[reportPrivateUsage]  (it has no public name)
        if loop.is_closed():  # a task on it would never run
            raise MisuseError("The event loop of this scheduler is closed. Subscribe on a loop that runs.")
        return requested if isinstance(requested, Scheduler) else Scheduler(loop)
    if isinstance(requested, VirtualTimeScheduler):
        raise MisuseError(
            "This source needs an event loop, and a virtual-time scheduler has none. Subscribe without a scheduler, "
            "or test with a source on virtual time."
        )
    loop = running_loop() or portal()
    return Scheduler(loop, keeps_alive=is_portal(loop))


Timers = Scheduler | VirtualTimeScheduler
"""A scheduler that counts time for an operator, on an event loop or virtually."""


def timers(requested: abc.SchedulerBase | None) -> Timers:
    """Return what `scheduler` returns, but a virtual-time scheduler unchanged, for operators that need no loop."""
    is_virtual = not isinstance(requested, Scheduler) and isinstance(requested, VirtualTimeScheduler)
    return cast("VirtualTimeScheduler", requested) if is_virtual else scheduler_for(requested)


def clock(scheduler: Timers) -> Callable[[], float]:
    """Return a clock: a function that returns the seconds since an arbitrary time."""
    return scheduler.gate.clock if isinstance(scheduler, Scheduler) else lambda: scheduler.now.timestamp()


def daemon(scheduler: Timers) -> Timers:
    """Return a scheduler for timers that only watch: they do not keep the process from ending."""
    if isinstance(scheduler, Scheduler) and scheduler.lifetime.keeps_alive:
        return scheduler.evolve(lifetime=scheduler.lifetime.kept_alive(False))
    return scheduler


def call(scheduler: Timers, action: Callable[[], object]) -> None:
    """Run `action` on the stream's event loop; on virtual time, run it here."""
    scheduler.call(action) if isinstance(scheduler, Scheduler) else action()
