"""The observation of a run: its listeners, and how code inside of the run reaches them.

The scheduler of a subscription carries the observation through the graph. The engine does not look into it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast, final

from attrs import frozen

from .events import Custom, Emitted, Event, Run
from .runtime.loops import Loop, in_loop
from .runtime.scheduler import Scheduler, Timers, enclosing
from .values.chunk import Chunk

__all__ = [
    "BoundListener",
    "Observation",
    "current",
    "dispatch",
    "notify",
    "observation_of",
    "observed_by",
    "reporting_progress",
]

T = TypeVar("T")


@frozen(eq=False)
class BoundListener:
    """A listener, bound to the event loop on which it was attached.

    Attributes:
        callback: called with each event.
        loop: where the callback runs; None for the loop on which the event happens.
        chunk_receiver: returns what is called with the chunks of a run in place of the callback, or None for the
            callback. It is called once for each run, after the run's Started.
    """

    callback: Callable[[Event], object]
    loop: Loop | None = None
    chunk_receiver: Callable[[Run], Callable[[Chunk], object] | None] | None = None

    def notify(self, event: Event) -> None:
        """Call the callback: now on its own loop, else as soon as its loop has time."""
        if self.loop is None or in_loop(self.loop):
            self.callback(event)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.callback, event)


@final
class Observation:
    """The run and the listeners at one place of a graph.

    Attributes:
        run: the run that the place belongs to; None before the outermost run.
        listeners: the listeners of the run and of all runs around it.
        enclosing: the scheduler outside of the run.
        shares_context: whether the tasks of the run share one context, so that a variable that one task sets reaches
            the next.
    """

    __slots__ = ("enclosing", "listeners", "run", "shares_context")

    def __init__(self, run: Run | None, listeners: tuple[BoundListener, ...], enclosing: Scheduler) -> None:
        self.run = run
        self.listeners = listeners
        self.enclosing = enclosing
        self.shares_context = run is not None and run.kind not in ("chain", "agent")

    def call_outside(self, action: Callable[[T], object], argument: T) -> None:
        """Call code that is not part of the run, such as its subscriber, so that it does not see the run as its own."""
        token = enclosing.set(self.enclosing)
        try:
            action(argument)
        finally:
            enclosing.reset(token)

    def notify(self, event: Event) -> None:
        """Notify all listeners.

        Raises:
            Exception: the first exception of a listener that may fail the run.
        """
        failure: Exception | None = None
        for listener in self.listeners:
            try:
                listener.notify(event)
            except Exception as error:  # the other listeners still get the event
                failure = failure or error
        if failure is not None:
            raise failure


def observation_of(scheduler: Timers) -> Observation | None:
    """Return the observation that a scheduler carries; None if it carries none."""
    return cast("Observation | None", scheduler.observation) if isinstance(scheduler, Scheduler) else None


def notify(scheduler: Timers, make: Callable[[Run], Event]) -> None:
    """Send an event to the listeners of the run that a scheduler carries, if it carries one.

    Args:
        scheduler: the scheduler of the subscription.
        make: returns the event of the run.
    """
    observation = observation_of(scheduler)
    if observation is not None and observation.run is not None:
        observation.notify(make(observation.run))


def observed_by(scheduler: Scheduler, run: Run | None, listeners: tuple[BoundListener, ...]) -> Scheduler:
    """Return the scheduler for the inside of a run.

    Its context shows the run to code that gets no scheduler.
    """
    context = scheduler.context.copy()
    inside = scheduler.evolve(observation=Observation(run, listeners, scheduler), context=context)
    context.run(enclosing.set, inside)
    return inside


def current() -> Scheduler | None:
    """Return the scheduler of the run that this code belongs to; None outside of all runs."""
    return enclosing.get()


def dispatch(name: str, data: Any = None) -> None:
    """Send an event of your own, a `Custom`, to the listeners of the current run.

    Call it from a model of your own, from an operator's function or from a handler. Without listeners it has no
    effect.

    Args:
        name: the name of the event.
        data: the details, of any type.
    """
    scheduler = current()
    if scheduler is not None:
        notify(scheduler, lambda run: Custom(name, data, run=run))


@contextmanager
def reporting_progress() -> Generator[Callable[[Any], None]]:
    """Yield a function that sends a value to the listeners of the current run as an `Emitted`, from any thread.

    After the block it has no effect.
    """
    scheduler, is_over = current(), False
    observation = None if scheduler is None else observation_of(scheduler)

    def tell(value: Any) -> None:
        if not is_over and observation is not None and observation.run is not None:
            observation.notify(Emitted(value, run=observation.run))

    def report(value: Any) -> None:
        if scheduler is not None:
            scheduler.call(partial(tell, value))

    try:
        yield report
    finally:
        is_over = True
