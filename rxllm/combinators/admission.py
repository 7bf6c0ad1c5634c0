"""`admitted`: a stream that starts when a `Limiter` admits it.

States of an admission: waiting (its ticket is in the queue), running, closing (the stream is over, but tasks of it
still run), closed. It holds its place in the limiter until it is closed: a disposed request stays open at the server
until its task has closed it. All states change on the event loop of the stream. The ticket is guarded by the queue's
lock; see `queueing`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any, TypeVar, cast

from reactivex import Observable, abc

from ..errors import RateLimited, RxllmError
from ..events import Queued
from ..misuse import MisuseError
from ..observation import notify, observation_of
from ..operators.answering import PendingRequest
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.lifetime import Lifetime
from ..runtime.loops import do_nothing
from ..runtime.scheduler import Baggage, Scheduler, Timers, call, enclosing, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from ..values.request import Request
from ..wire.rates import ON_RESPONSE
from .limiter import Limiter
from .queueing import Queue, Ticket
from .servers import Servers, server_of
from .shared_turn import SharedTurn

__all__ = ["admitted", "twice"]

T = TypeVar("T")

_ADMISSIONS: Baggage[tuple[_Admission[Any], ...]] = Baggage(())
"""The admissions by limiters that a subscription is a part of."""
_around: contextvars.ContextVar[tuple[_Admission[Any], ...]] = contextvars.ContextVar("rxllm_admissions", default=())
"""The same for the code of a model: what the model asks by itself is within these admissions."""


def admitted(
    begin: Callable[[], Observable[T]],
    limiter: Limiter,
    tokens: int,
    *,
    servers: Servers | None = None,
    request: Request | None = None,
) -> Source[T]:
    """Start a stream when the limiter admits it.

    ::

        ---------a-b-|
        admitted(begin, limiter, 10)
        -----------a-b-|

    Args:
        begin: creates the stream.
        limiter: admits the stream.
        tokens: an estimate of the request's tokens.
        servers: the servers that may answer it.
        request: the request, for errors.

    Errors: those of the stream; `RateLimited` when it would wait too long.
    """
    known_servers = Servers() if servers is None else servers

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        admission = _Admission(observer, timers(requested), begin, limiter, known_servers, request, tokens)
        admission.queue.enter(admission.ticket)
        if observation_of(admission.scheduler):
            call(admission.scheduler, admission.report_wait)
        return admission

    return Source(subscribe)


class _Started(set["asyncio.Task[None]"]):
    """The tasks of one admitted stream. They also belong to the enclosing stream, so they are added to its set, too."""

    def __init__(self, around: set[asyncio.Task[None]], emptied: Callable[[], object]) -> None:
        super().__init__()
        self.around = around
        self.emptied = emptied

    def add(self, task: asyncio.Task[None], /) -> None:
        super().add(task)
        self.around.add(task)

    def discard(self, task: object, /) -> None:
        super().discard(cast("asyncio.Task[None]", task))
        self.around.discard(cast("asyncio.Task[None]", task))
        if not self:
            self.emptied()


def _admissions(scheduler: Scheduler) -> tuple[_Admission[Any], ...]:
    """Return the admissions around a subscription; a model that a run calls by itself is within those of the run."""
    carried, outer = scheduler.carried(_ADMISSIONS), enclosing.get()
    while outer is not None and not carried:
        carried = outer.carried(_ADMISSIONS)
        outer = getattr(outer.observation, "enclosing", None)
    return carried or _around.get()


def twice(limiter: Limiter) -> str:
    """The error text for a request that holds a place in the limiter and needs another one."""
    return (
        f"{limiter!r} limits a request and also a request within it, so the outer one would hold its place while it "
        "waits for the inner one for ever. Limit one of the two, or use a Limiter for each."
    )


class _Admission(PendingRequest, abc.ObserverBase[T], abc.DisposableBase):
    """One request, from its ticket to its close.

    Attributes:
        turn: its place among the requests of other processes; None if they share no limits.
        counted: the tokens that the answer itself reports.
        is_sent: whether the request no longer waits.
        is_over: whether the stream has ended or was disposed.
        tasks: the running tasks that the stream started.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        scheduler: Timers,
        source: Callable[[], Observable[T]],
        limiter: Limiter,
        servers: Servers,
        request: Request | None,
        tokens: int,
    ) -> None:
        if isinstance(scheduler, Scheduler) and limiter._limits["concurrency"] is not None:  # pyright: ignore[reportPrivateUsage]
            for outer in _admissions(scheduler):
                if outer.queue is limiter._queue and not outer.is_over:  # pyright: ignore[reportPrivateUsage]
                    raise MisuseError(twice(limiter))
        self.scheduler = scheduler
        self.request = request
        self.begun(scheduler)
        self.observer = observer
        self.source = source
        self.limiter = limiter
        self.queue: Queue = limiter._queue  # pyright: ignore[reportPrivateUsage]
        self.servers = servers
        self.turn = SharedTurn.of(limiter, tokens)
        self.counted = 0
        self.is_sent: bool = False
        self.is_over: bool = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.subscription = LockFreeSerialDisposable()
        # Another request that leaves may start this stream. Its context must not leak into this one.
        begin = partial(scheduler.context.copy().run, self.start) if isinstance(scheduler, Scheduler) else self.start
        self.ticket = Ticket(scheduler, begin, self.refused, tokens, servers.names)
        # Keeps a script alive that has only subscribed.
        self.release = scheduler.hold() if isinstance(scheduler, Scheduler) else do_nothing

    def complete(self, error: RxllmError) -> None:
        """Set the error's request, and add to its text that the request waited for the limiter."""
        super().complete(error)
        sentence = f"The request was not sent, because it waited for {self.limiter!r}."
        if sentence not in str(error):  # several requests may wait
            error.args = (f"{error} {sentence}", *error.args[1:])

    def refused(self, seconds: float) -> None:
        """End the stream, because the limiter refused the ticket."""
        ticket, limiter = self.ticket, self.limiter
        why = f"{', '.join(self.servers.names)} asks to wait" if ticket.held is not None else f"{limiter!r} is full"
        when = "." if seconds == inf else f", and it could start in {seconds:.3g} s at the earliest."
        waited = ticket.now() - ticket.entered
        after = f" after {waited:.3g} s" if waited >= 0.01 else ""
        error = RateLimited(
            f"The request was not sent{after}: {why}{when} Limiter(max_wait=…) allows longer waits.",
            retry_after=None if seconds == inf else seconds,
            code="limiter",
        )
        self.on_error(error)

    def report_wait(self) -> None:
        """Emit `Queued`, if the request has to wait."""
        if self.is_sent or self.is_over:
            return
        try:
            notify(self.scheduler, lambda run: Queued(run=run))
        except Exception as error:  # of a handler with raise_error
            self.on_error(error)

    def start(self) -> None:
        if self.turn is None:
            self.send()
        else:
            self.subscription.disposable = self.turn.wait(self.ticket).subscribe(
                lambda _: self.send(), self.on_error, scheduler=self.scheduler
            )

    def send(self) -> None:
        self.is_sent = True
        self.ended()  # it no longer waits
        scheduler = self.scheduler
        if isinstance(scheduler, Scheduler):
            outer = scheduler.carried(ON_RESPONSE)

            def answered(place: str, status: int, headers: Mapping[str, str]) -> None:
                self.servers.add(server_of(place))
                self.queue.learn(server_of(place), status, headers, self.ticket.now())
                if self.turn is not None:
                    self.turn.heard(status, headers)
                outer(place, status, headers)

            around = scheduler.lifetime
            self.tasks = _Started(around.tasks, self.closed)
            lifetime = Lifetime(
                self.tasks, around.handler_tasks, around.on_failure, keeps_alive=around.keeps_alive
            ).handled_also_by(self.broken)
            admissions = (*_admissions(scheduler), self)
            scheduler = (
                scheduler.evolve(lifetime=lifetime)
                .with_baggage(ON_RESPONSE, answered)
                .with_baggage(_ADMISSIONS, admissions)
            )
            if scheduler.observation is None:  # else `enclosing` is set
                scheduler = scheduler.with_variable(_around, admissions)
        try:
            self.subscription.disposable = connect(self.source(), self, scheduler)
        except Exception as error:
            self.on_error(error)
        except BaseException:  # such as Ctrl-C, after which the loop may continue
            self.leave()
            raise
        self.release()

    def on_next(self, value: T) -> None:
        if isinstance(value, Chunk) and value.rest is not None and (usage := value.rest.usage) is not None:
            self.counted = (usage.input_tokens or 0) + (usage.output_tokens or 0)
            self.queue.count(self.ticket, max(self.ticket.tokens, self.counted))
        if _around.get():
            self.outside(self.observer.on_next, value)
        else:
            self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        if isinstance(error, RxllmError):
            super().complete(error)  # not its own `complete`: the limiter is not the reason
        self.leave()
        self.outside(self.observer.on_error, error)

    def on_completed(self) -> None:
        self.queue.count(self.ticket, self.counted or self.ticket.tokens)
        if self.turn is not None and self.counted:
            self.turn.count(self.counted)
        self.leave()
        self.outside(self.observer.on_completed)

    def outside(self, notify: Callable[..., None], *values: Any) -> None:
        """Notify the observer, which is not the code of the model: what it asks is not within this admission."""
        within = _around.get()
        token = _around.set(within[: within.index(self)] if self in within else within)
        try:
            notify(*values)
        finally:
            _around.reset(token)

    def leave(self) -> None:
        """Mark the stream as over, and give its place back if no task of it runs."""
        self.ended()
        self.release()
        self.is_over = True
        # The garbage collector may close a dead loop's generators at any point, even while this thread holds the
        # queue's lock. Then the dead loop does not run this call, and the queue drops the line of that loop itself.
        call(self.scheduler, self.closed)

    def closed(self) -> None:
        """Free the place, once the stream is over and all of its tasks have ended."""
        if self.is_over and not self.tasks:
            self.queue.leave(self.ticket)
            if self.turn is not None:
                self.turn.end()

    def broken(self, error: BaseException) -> None:
        """Leave after code around the request raised, or its loop ends. No other request can start on such a loop."""
        if isinstance(error, asyncio.CancelledError):
            call(self.scheduler, partial(self.queue.abandon, self.scheduler))
        self.leave()

    def dispose(self) -> None:
        call(self.scheduler, self.close)

    def close(self) -> None:
        self.subscription.dispose()
        self.leave()
