"""The observing operator: a stream that is a run, and tells who listens to it.

It is one room because a run's values and its ways to end are one state.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinMethodType, MethodType
from typing import Any, TypeVar, cast

import attrs
from attrs import frozen
from reactivex import Observable, abc

from ..events import (
    Cancelled,
    Emitted,
    Event,
    Failed,
    Finished,
    Handler,
    Heard,
    Kind,
    Listener,
    Run,
    Service,
    Started,
    ToolFinished,
    ToolStarted,
    run_chunk,
)
from ..misuse import MisuseError
from ..observation import BoundListener, Observation, observation_of, observed_by
from ..runtime.scheduler import Scheduler, scheduler_for, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.request import Request
from ._observer import ignore
from .adding_up import Fold, folded, keep_partial
from .answering import estimated

__all__ = ["Identity", "bound_listeners", "observed"]

T = TypeVar("T")

_log = logging.getLogger("rxllm")
_FOLD_AT = 1024  # values
_NEVER = 2**63  # values
_METHODS = (MethodType, BuiltinMethodType)


@frozen
class Identity:
    """What a run tells of itself before it runs."""

    name: str
    kind: Kind
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    handlers: tuple[BoundListener, ...]
    service: Service | None = None


def bound_listeners(handlers: Iterable[Listener | BoundListener]) -> tuple[BoundListener, ...]:
    """What hears for each handler: a `Handler`, any observer, or a function of events.

    Raises:
        MisuseError: a handler is none of these.
    """
    return tuple(handler if isinstance(handler, BoundListener) else _Isolated.of(handler) for handler in handlers)


@frozen(eq=False)
class _Isolated(BoundListener):
    """A handler that disturbs nobody: what it raises is logged, unless it asked to fail the run."""

    owner: object = None
    raises: bool = False

    @classmethod
    def of(cls, handler: Listener) -> BoundListener:
        heard = cast("object", getattr(handler, "on_next", handler))
        if not callable(heard):
            raise MisuseError(f"A handler is a Handler or a function of events, not {type(handler).__name__}.")
        method = handler.on_event if isinstance(handler, Handler) else heard
        if inspect.iscoroutinefunction(method):
            raise MisuseError(
                f"{getattr(method, '__qualname__', method)} is async def, and nobody would await it: a handler's "
                "function is plain; only the hooks of a CallbackHandler may be async def."
            )
        return cls(cast("Heard", heard), None, handler, isinstance(handler, Handler) and handler.raise_error)

    def notify(self, event: Event) -> None:
        try:
            self.callback(event)
        except Exception as error:
            self.failed(event, error)
            if self.raises:
                raise

    def failed(self, event: Event, error: Exception) -> None:
        """Tells whoever reads the log, if nobody else is told."""
        if not self.raises:
            sentence = "A handler failed at %s; the stream goes on. Its next failures in this run are not logged."
            _log.error(sentence, type(event).__name__, exc_info=error)


def _united(heard: tuple[BoundListener, ...], more: tuple[BoundListener, ...]) -> tuple[BoundListener, ...]:
    """Who listens to a run and to what it is part of, or was attached twice, hears it once."""
    for listener in more:
        if not any(_same(_owner(listener), _owner(other)) for other in heard):
            heard = (*heard, listener)
    return heard


def _owner(listener: BoundListener) -> object:
    return listener.owner if isinstance(listener, _Isolated) else listener


def _same(one: object, other: object) -> bool:
    """Whether both are one listener. Equal handlers may be two; a method is another object each time it is named."""
    return one is other or (isinstance(one, _METHODS) and one == other)


def observed(
    source: Observable[T],
    given: object,
    identity: Callable[[], Identity],
    handlers: tuple[BoundListener, ...],
    fold: Fold,
    *,
    whole: bool = False,
) -> Source[Any]:
    """The same stream as a run, of which its listeners hear Started, what comes, and how it ends.

    ::

        source     ---a---b---|
        observed() ---a---b---|
        listeners  S--a---b---F

    Where nobody listens, it costs nothing. Listeners are `handlers`, and those of the run that it is part of.

    Args:
        source: the stream.
        given: what it was made of.
        identity: what the run tells of itself.
        handlers: who listens to this run.
        fold: what the stream adds up to, which listeners hear in the end.
        whole: whether the subscriber gets that answer instead of the values; it is computed once for both.

    Errors: the source's, that of a handler with ``raise_error``, and with `whole` that of the fold.
    """

    def subscribe(observer: abc.ObserverBase[T], outer: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(outer)
        if not handlers and not observation_of(scheduler):
            return connect(folded(source, fold.finish) if whole else source, observer, scheduler)
        scheduler = scheduler_for(scheduler)  # handlers hear on a loop
        return _Run(observer, scheduler, identity(), given, fold, whole=whole).start(source)

    return Source(subscribe)


class _Run(abc.ObserverBase[T], abc.DisposableBase):
    """One run, between its source and its subscriber."""

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        scheduler: Scheduler,
        identity: Identity,
        given: object,
        fold: Fold,
        *,
        whole: bool,
    ) -> None:
        import uuid  # only who observes pays for it

        around = observation_of(scheduler)
        outer = around and around.run
        self.run = Run(
            uuid.uuid4().hex,
            identity.name,
            identity.kind,
            (*outer.parent_ids, outer.id) if outer else (),
            tuple(sorted({*outer.tags, *identity.tags})) if outer else identity.tags,
            {**outer.metadata, **identity.metadata} if outer else identity.metadata,
            identity.service,
        )
        self.observer = observer
        self.scheduler = observed_by(
            scheduler.evolve(lifetime=scheduler.lifetime.handled_also_by(self.broken)),
            self.run,
            _united(around.listeners if around else (), identity.handlers),
        )
        self.observation = cast("Observation", observation_of(self.scheduler))
        # Everything of a run happens on its loop, so most need not look where they are.
        here = (None, self.scheduler.loop)
        self.hears = [
            listener.callback if listener.loop in here else listener.notify for listener in self.observation.listeners
        ]
        self.emit = ignore if whole else observer.on_next
        self.outside = self.observation.call_outside
        self.failing: set[int] = set()  # listeners whose failure has been logged
        self.given = given
        self.adds_up = fold
        self.whole = whole
        self.values: list[Any] = []
        self.bound = _NEVER if fold.shorten is None else _FOLD_AT
        self.over = False
        self.upstream: abc.DisposableBase | None = None

    def start(self, source: Observable[T]) -> abc.DisposableBase:
        begun = ToolStarted if self.run.kind == "tool" else Started
        failure = self.scheduler.context.run(self.tell, begun(self.given, run=self.run))
        if failure is not None:
            self.on_error(failure)
            return self
        try:
            # Code that runs at once is part of the run, too: a `defer`, a `route`, a plain `chunks`. In a copy of the
            # context, which may by now have been entered by the loop's thread.
            self.upstream = self.scheduler.context.copy().run(connect, source, self, self.scheduler)
        except Exception as error:  # such as a missing key: who heard Started hears the end
            self.on_error(error)
        return self

    def tell(self, event: Event) -> Exception | None:
        """Tells all listeners, and gives the first failure of those that may fail the run."""
        failure: Exception | None = None
        for hear in self.hears:
            try:
                hear(event)
            except Exception as error:
                raised = self.disturbed(hear, event, error)
                failure = failure or raised
        return failure

    def disturbed(self, hear: Heard, event: Event, error: Exception) -> Exception | None:
        """Reports what a listener raised; gives it back where that fails the run."""
        listener = next(
            listener for listener, other in zip(self.observation.listeners, self.hears, strict=True) if other is hear
        )
        if not isinstance(listener, _Isolated):  # who reads the events has raised
            raise error
        if id(listener) not in self.failing:  # it may fail at each of ten thousand chunks
            self.failing.add(id(listener))
            listener.failed(event, error)
        return error if listener.raises else None

    def on_next(self, value: T) -> None:
        if self.over:
            return
        values = self.values
        values.append(value)
        if len(values) > self.bound:
            self.shorten()
        failure: Exception | None = None
        if isinstance(value, Chunk):
            event = run_chunk(value, self.run)
            for hear in self.hears:  # as `tell` does, without the call
                try:
                    hear(event)
                except Exception as error:
                    raised = self.disturbed(hear, event, error)
                    failure = failure or raised
                if self.over:  # who heard it has left, and all have been told
                    return
        elif self.run.kind != "tool":  # whose one value is told as its output
            failure = self.tell(Emitted(value, run=self.run))
        if failure is not None:
            self.on_error(failure)
        else:
            self.outside(self.emit, value)

    def on_error(self, error: Exception) -> None:
        if self.over:
            return
        self.over = True
        self.leave_upstream()
        if self.whole:
            keep_partial(error, self.values)
        if (failure := self.tell(self.failed(error))) is not None:
            _log.error("A handler failed at Failed, whose error it is not.", exc_info=failure)
        self.observation.call_outside(self.observer.on_error, error)

    def on_completed(self) -> None:
        if self.over:
            return
        try:
            total = self.adds_up.finish(self.values)
        except Exception as error:
            if self.whole:
                self.on_error(error)
                return
            total = None  # as the subscriber has got the values, the run is not failed
            if self.values:
                _log.warning(
                    "The values of %s do not add up, so that its output is None.", self.run.name, exc_info=error
                )
        self.over = True
        self.leave_upstream()
        done = ToolFinished if self.run.kind == "tool" else Finished
        failure = self.tell(done(total, run=self.run))
        self.observation.call_outside(self.end, (failure, total))

    def end(self, outcome: tuple[Exception | None, Any]) -> None:
        failure, total = outcome
        if failure is not None:
            self.observer.on_error(failure)
            return
        if self.whole:  # listeners hear the answer before others make something of it
            self.observer.on_next(total)
        self.observer.on_completed()

    def dispose(self) -> None:
        self.leave_upstream()
        self.scheduler.call(self.leave)

    def broken(self, error: BaseException) -> None:
        """Code within the run raised, of which no observer hears; or the loop ends, and with it the run."""
        if self.over or not isinstance(error, Exception):
            self.leave()
            return
        self.over = True
        self.leave_upstream()
        self.scheduler.context.copy().run(self.tell, self.failed(error))

    def leave_upstream(self) -> None:
        """The runs within end before this one does."""
        if self.upstream is not None:
            self.upstream.dispose()

    def leave(self) -> None:
        if self.over:
            return
        self.over = True
        # A copy, because whoever leaves may do so from within the run's own context, which can't be entered twice.
        cancelled = Cancelled(self.partial(), run=self.run)
        failure = self.scheduler.context.copy().run(self.tell, cancelled)
        if failure is not None:
            _log.error("A handler failed at Cancelled, when nobody could be told.", exc_info=failure)

    def failed(self, error: Exception) -> Failed:
        event = Failed(error, run=self.run)
        return event if event.partial is not None else attrs.evolve(event, partial=self.partial())

    def partial(self) -> Any:
        """What had been sent, with what it took, when no more is to come."""
        if not self.values:
            return None
        try:
            partial = self.adds_up.finish(self.values)
        except Exception:  # a fold of one's own may need all values
            return None
        if isinstance(partial, Message) and isinstance(self.given, Request):
            return estimated(partial, self.given)
        return partial

    def shorten(self) -> None:
        """Keeps few values instead of many, which the garbage collector would walk again and again.

        The longer they are, the later the next time, so that copying stays linear.
        """
        if self.adds_up.shorten is not None:
            try:
                self.values = self.adds_up.shorten(self.values)
            except MisuseError:  # they do not add up, which the end will tell
                self.bound = _NEVER
            else:
                last = self.values[-1]
                self.bound = _FOLD_AT + (len(str(last)) // 64 if isinstance(last, (str, Chunk)) else 0)
