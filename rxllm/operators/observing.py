"""The operator behind `observe`: it makes a stream a run, and sends the run's events to listeners.

States of a run: started, then ended. The first of completion, error and disposal ends it, and sends exactly one of
Finished, Failed and Cancelled. All of this happens on the run's event loop; a dispose on another thread calls it.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import BuiltinMethodType, MethodType
from typing import Any, TypeVar, cast

import attrs
from attrs import frozen
from reactivex import Observable, abc

from ..events import (
    Cancelled,
    Emitted,
    Event,
    EventCallback,
    Failed,
    Finished,
    Handler,
    Kind,
    Listener,
    MutableRunChunk,
    Run,
    RunChunk,
    Service,
    Started,
    ToolFinished,
    ToolStarted,
)
from ..misuse import MisuseError
from ..observation import BoundListener, Observation, observation_of, observed_by
from ..runtime.scheduler import Scheduler, scheduler_for, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.request import Request
from .adding_up import TEXTS, Collected, Fold, folded, keep_partial
from .answering import estimated
from .observer import ignore

__all__ = ["Identity", "Observed", "bound_listeners", "observed"]

T = TypeVar("T")

_log = logging.getLogger("rxllm")
_now = time.time
_METHODS = (MethodType, BuiltinMethodType)


@frozen
class Identity:
    """The facts about a run that are set before it starts."""

    name: str
    kind: Kind
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    handlers: tuple[BoundListener, ...]
    service: Service | None = None


def bound_listeners(handlers: Iterable[Listener | BoundListener]) -> tuple[BoundListener, ...]:
    """Return the listeners of handlers. A handler is a `Handler`, another observer, or a function of events.

    Raises:
        MisuseError: a handler is something else.
    """
    return tuple(handler if isinstance(handler, BoundListener) else _Isolated.of(handler) for handler in handlers)


@frozen(eq=False)
class _Isolated(BoundListener):
    """A handler whose exceptions are logged and do not affect the stream, unless it has ``raise_error``."""

    owner: object = None
    raises: bool = False

    @classmethod
    def of(cls, handler: Listener) -> BoundListener:
        callback = cast("object", getattr(handler, "on_next", handler))
        if not callable(callback):
            raise MisuseError(f"A handler must be a Handler or a function of events, not {type(handler).__name__}.")
        method = handler.on_event if isinstance(handler, Handler) else callback
        if inspect.iscoroutinefunction(method):
            raise MisuseError(
                f"{getattr(method, '__qualname__', method)} is async def, but a handler's function is never awaited. "
                "Use def, or put the code into a hook of a CallbackHandler, which may be async def."
            )
        return cls(
            cast("EventCallback", callback),
            chunk_receiver=_chunk_receiver(handler) if isinstance(handler, Handler) else None,
            owner=handler,
            raises=isinstance(handler, Handler) and handler.raise_error,
        )

    def notify(self, event: Event) -> None:
        try:
            self.callback(event)
        except Exception as error:
            self.failed(event, error)
            if self.raises:
                raise

    def failed(self, event: Event, error: Exception) -> None:
        """Log the exception, unless it fails the run."""
        if not self.raises:
            sentence = (
                "A handler raised on %s. The stream continues. Further exceptions of it in this run are not logged."
            )
            _log.error(sentence, type(event).__name__, exc_info=error)


def _chunk_receiver(handler: Handler) -> Callable[[Run], Callable[[Chunk], object] | None] | None:
    """Return the method of the handler's class, unless a subclass overrides the methods for events only."""
    for kind in type(handler).__mro__:
        if "_chunk_receiver" in vars(kind):
            return handler._chunk_receiver  # pyright: ignore[reportPrivateUsage]
        if "on_event" in vars(kind) or "on_next" in vars(kind):
            break
    return None


def _united(listeners: tuple[BoundListener, ...], more: tuple[BoundListener, ...]) -> tuple[BoundListener, ...]:
    """Join listeners without duplicates: a handler attached in several places gets each event once."""
    for listener in more:
        if not any(_same(_owner(listener), _owner(other)) for other in listeners):
            listeners = (*listeners, listener)
    return listeners


def _owner(listener: BoundListener) -> object:
    return listener.owner if isinstance(listener, _Isolated) else listener


def _same(one: object, other: object) -> bool:
    """Whether both are one listener. Equal handlers may be two; a bound method is a new object at each access."""
    return one is other or (isinstance(one, _METHODS) and one == other)


def observed(
    source: Observable[T],
    run_input: object,
    identity: Callable[[], Identity],
    handlers: tuple[BoundListener, ...],
    fold: Fold,
    *,
    whole: bool = False,
) -> Source[Any]:
    """Make the stream a run, whose listeners get Started, an event for each value, and the event of its end.

    ::

        source     ---a---b---|
        observed() ---a---b---|
        listeners  S--a---b---F

    Without listeners, it adds nothing to the stream. Listeners are `handlers`, and those of the enclosing run.

    Args:
        source: the stream.
        run_input: the input of the run.
        identity: the facts about the run.
        handlers: listeners of this run.
        fold: computes the output of the run from its values.
        whole: whether the subscriber gets the output instead of the values. It is computed once for both.

    Errors: those of the source, of a handler with ``raise_error``, and with `whole` of the fold.
    """

    def subscribe(observer: abc.ObserverBase[T], outer: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(outer)
        if not handlers and not observation_of(scheduler):
            return connect(folded(source, fold.finish) if whole else source, observer, scheduler)
        scheduler = scheduler_for(scheduler)  # handlers need an event loop
        return _Run(observer, scheduler, identity(), run_input, fold, whole=whole).start(source)

    return Observed(subscribe, fold)


class Observed(Source[Any]):
    """The stream of a run. `fold` computes the output of the run from its values."""

    def __init__(self, subscribe: abc.Subscription[Any], fold: Fold) -> None:
        super().__init__(subscribe)
        self.fold = fold


class _Run(abc.ObserverBase[T], abc.DisposableBase):
    """One run, between its source and its subscriber."""

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        scheduler: Scheduler,
        identity: Identity,
        run_input: object,
        fold: Fold,
        *,
        whole: bool,
    ) -> None:
        import uuid  # imported here, because only observed runs need it

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
        # A run's events happen on its loop, so listeners of that loop need no check of the thread.
        here = (None, self.scheduler.loop)
        self.callbacks = [
            listener.callback if listener.loop in here else listener.notify for listener in self.observation.listeners
        ]
        self.listeners = {id(each): it for each, it in zip(self.callbacks, self.observation.listeners, strict=True)}
        self.chunk_receivers: list[Callable[[Chunk], object]] = []  # listeners that need no events of chunks
        self.chunk_callbacks: list[EventCallback] = []
        emit = ignore if whole else observer.on_next
        # The change of the context takes half of the time that a run takes for a chunk.
        only_keeps = whole or getattr(observer, "only_keeps", False)
        self.emit = emit if only_keeps else partial(self.observation.call_outside, emit)
        self.failing: set[int] = set()  # listeners whose failure has been logged
        self.run_input = run_input
        self.adds_up = fold
        self.whole = whole
        self.collected = Collected(fold)
        self.over = False
        self.upstream: abc.DisposableBase | None = None

    def start(self, source: Observable[T]) -> abc.DisposableBase:
        begun = ToolStarted if self.run.kind == "tool" else Started
        failure = self.scheduler.context.run(self.notify_all, begun(self.run_input, run=self.run))
        if failure is not None:
            self.on_error(failure)
            return self
        self.separate_receivers()
        try:
            # Code that runs during the subscription is part of the run, too: a `defer`, a `route`, a plain `chunks`. It
            # gets a copy of the context, because the loop's thread may have entered the context by now.
            self.upstream = self.scheduler.context.copy().run(connect, source, self, self.scheduler)
        except Exception as error:  # such as a missing key: listeners that got Started need an end
            self.on_error(error)
        return self

    def separate_receivers(self) -> None:
        """Find the listeners that receive chunks without their events."""
        for listener, callback in zip(self.observation.listeners, self.callbacks, strict=True):
            receive = None if listener.chunk_receiver is None else listener.chunk_receiver(self.run)
            if receive is None:
                self.chunk_callbacks.append(callback)
            elif receive is not ignore:
                self.chunk_receivers.append(receive)
                self.listeners[id(receive)] = listener

    def notify_all(self, event: Event, callbacks: list[Any] | None = None) -> Exception | None:
        """Send the event to all listeners. Return the first exception of a listener with ``raise_error``."""
        failure: Exception | None = None
        for callback in self.callbacks if callbacks is None else callbacks:
            try:
                callback(event)
            except Exception as error:
                raised = self.handle_exception(callback, event, error)
                failure = failure or raised
        return failure

    def handle_exception(self, callback: EventCallback, event: Event, error: Exception) -> Exception | None:
        """Handle a listener's exception. Return it if the listener has ``raise_error``."""
        listener = self.listeners[id(callback)]
        if not isinstance(listener, _Isolated):  # the subscriber of events() raised
            raise error
        if id(listener) not in self.failing:  # log once: it may raise at each chunk
            self.failing.add(id(listener))
            listener.failed(event, error)
        return error if listener.raises else None

    def on_next(self, value: T) -> None:
        if self.over:
            return
        failure: Exception | None = None
        if isinstance(value, Chunk):
            text, rest = value.text, value.rest
            collected = self.collected  # inlined from its `add`, to save a call per chunk
            if rest is None and collected.joins_texts:
                texts = collected.texts
                texts.append(text)
                if len(texts) == TEXTS:
                    collected.join_texts()
            else:
                collected.add(value)
            if self.chunk_receivers:
                failure = self.notify_all(value, self.chunk_receivers)
            if self.chunk_callbacks:
                event = MutableRunChunk()  # inlined from `run_chunk` and `notify_all`
                event.text = text
                event.rest = rest
                event.run = self.run
                event.time = _now()
                event.__class__ = RunChunk
                for callback in self.chunk_callbacks:
                    try:
                        callback(event)
                    except Exception as error:
                        raised = self.handle_exception(callback, event, error)
                        failure = failure or raised
                    if self.over:  # a listener disposed the run, and all listeners got its end
                        return
        else:
            failure = self.keep(value)
        if failure is not None:
            self.on_error(failure)
        elif self.emit is not ignore:
            self.emit(value)

    def keep(self, value: T) -> Exception | None:
        """Keep a value that is not a chunk, and notify all listeners of it."""
        self.collected.add(value)
        if self.run.kind == "tool":  # the value of a tool is its output
            return None
        return self.notify_all(Emitted(value, run=self.run))

    def on_error(self, error: Exception) -> None:
        if self.over:
            return
        self.over = True
        self.leave_upstream()
        if self.whole:
            keep_partial(error, self.collected.values())
        if (failure := self.notify_all(self.failed(error))) is not None:
            _log.error("A handler raised while processing Failed.", exc_info=failure)
        self.observation.call_outside(self.observer.on_error, error)

    def on_completed(self) -> None:
        if self.over:
            return
        try:
            total = self.adds_up.finish(self.collected.values())
        except Exception as error:
            if self.whole:
                self.on_error(error)
                return
            total = None  # the subscriber got all values, so the run has not failed
            if self.collected.values():
                _log.warning(
                    "The fold of %s raised, so its Finished event has the output None.", self.run.name, exc_info=error
                )
        self.over = True
        self.leave_upstream()
        done = ToolFinished if self.run.kind == "tool" else Finished
        failure = self.notify_all(done(total, run=self.run))
        self.observation.call_outside(self.end, (failure, total))

    def end(self, outcome: tuple[Exception | None, Any]) -> None:
        failure, total = outcome
        if failure is not None:
            self.observer.on_error(failure)
            return
        if self.whole:  # the listeners got the answer first
            self.observer.on_next(total)
        self.observer.on_completed()

    def dispose(self) -> None:
        self.leave_upstream()
        self.scheduler.call(self.leave)

    def broken(self, error: BaseException) -> None:
        """End the run after an exception that reaches no observer: code around the stream raised, or the loop ends."""
        if self.over or not isinstance(error, Exception):
            self.leave()
            return
        self.over = True
        self.leave_upstream()
        self.scheduler.context.copy().run(self.notify_all, self.failed(error))

    def leave_upstream(self) -> None:
        """Dispose the source, so that inner runs end before this one."""
        if self.upstream is not None:
            self.upstream.dispose()

    def leave(self) -> None:
        if self.over:
            return
        self.over = True
        # A copy: the disposing code may run in the run's own context, which cannot be entered twice.
        cancelled = Cancelled(self.partial(), run=self.run)
        failure = self.scheduler.context.copy().run(self.notify_all, cancelled)
        if failure is not None:
            _log.error("A handler raised while processing Cancelled.", exc_info=failure)

    def failed(self, error: Exception) -> Failed:
        event = Failed(error, run=self.run)
        return event if event.partial is not None else attrs.evolve(event, partial=self.partial())

    def partial(self) -> Any:
        """The output of the values so far, with an estimated token usage."""
        values = self.collected.values()
        if not values:
            return None
        try:
            partial = self.adds_up.finish(values)
        except Exception:  # a user's fold may need all values
            return None
        if isinstance(partial, Message) and isinstance(self.run_input, Request):
            return estimated(partial, self.run_input)
        return partial
