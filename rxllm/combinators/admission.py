"""`admitted`: a stream that starts when a `Limiter` admits it.

States of an admission: waiting (its ticket is in the queue), running, closing (the stream is over, but tasks of it
still run), closed. It holds its place in the limiter until it is closed: a disposed request stays open at the server
until its task has closed it. All states change on the event loop of the stream. The ticket is guarded by the queue's
lock; see `queueing`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from reactivex import Observable, abc

from ..errors import RateLimited, RxllmError
from ..misuse import MisuseError
from ..operators.answering import Asked
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.lifetime import Lifetime
from ..runtime.scheduler import Baggage, Scheduler, Timers, call, enclosing, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from ..values.request import Request
from ..wire.rates import ON_RESPONSE
from .limiter import Limiter
from .queueing import Queue, Ticket

__all__ = ["Servers", "admitted", "server_of", "twice"]

T = TypeVar("T")

_ADMISSIONS: Baggage[tuple[_Admission[Any], ...]] = Baggage(())
"""The admissions by limiters that a subscription is a part of."""


@functools.lru_cache(64)
def server_of(place: str) -> str:
    """Returns the server of a URL, as ``host:port``."""
    parts = urlsplit(place)
    return f"{parts.hostname}:{parts.port or {'https': 443, 'http': 80}.get(parts.scheme)}"


class Servers:
    """The known servers of one limited model. Each answer adds its server."""

    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = names

    def add(self, name: str) -> None:
        """Adds a server that answered."""
        if name not in self.names:
            self.names = tuple(sorted((*self.names, name)))


def admitted(
    begin: Callable[[], Observable[T]],
    limiter: Limiter,
    tokens: int,
    *,
    servers: Servers | None = None,
    request: Request | None = None,
) -> Source[T]:
    """Starts a stream when the limiter admits it.

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
    if not (carried := scheduler.carried(_ADMISSIONS)) and (outer := enclosing.get()):
        carried = outer.carried(_ADMISSIONS)
    return carried


def twice(limiter: Limiter) -> str:
    """The error text for a request that holds a place in the limiter and needs another one."""
    return (
        f"{limiter!r} limits a request and also a request within it, so the outer one would hold its place while it "
        "waits for the inner one for ever. Limit one of the two, or use a Limiter for each."
    )


class _Admission(Asked, abc.ObserverBase[T], abc.DisposableBase):
    """One request, from its ticket to its close.

    Attributes:
        counted: the tokens that the answer itself reports.
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
        self.counted = 0
        self.is_over: bool = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.subscription = LockFreeSerialDisposable()
        # Another request that leaves may start this stream. Its context must not leak into this one.
        begin = partial(scheduler.context.copy().run, self.start) if isinstance(scheduler, Scheduler) else self.start
        self.ticket = Ticket(scheduler, begin, self.refused, tokens, servers.names)
        # Keeps a script alive that has only subscribed.
        self.release = scheduler.hold() if isinstance(scheduler, Scheduler) else None

    def tell(self, error: RxllmError) -> None:
        """Sets the error's request, and adds to its text that the request waited for the limiter."""
        super().tell(error)
        sentence = f"The request was not sent, because it waited for {self.limiter!r}."
        error.args = (f"{error} {sentence}", *error.args[1:])

    def refused(self, seconds: float) -> None:
        """Errors the stream, because the limiter refused the ticket."""
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
        error.request = self.request
        self.on_error(error)

    def start(self) -> None:
        self.ended()  # it no longer waits
        scheduler = self.scheduler
        if isinstance(scheduler, Scheduler):
            outer = scheduler.carried(ON_RESPONSE)

            def answered(place: str, status: int, headers: Mapping[str, str]) -> None:
                self.servers.add(server_of(place))
                self.queue.learn(server_of(place), status, headers, self.ticket.now())
                outer(place, status, headers)

            around = scheduler.lifetime
            self.tasks = _Started(around.tasks, self.closed)
            lifetime = Lifetime(
                self.tasks, around.handler_tasks, around.on_failure, keeps_alive=around.keeps_alive
            ).handled_also_by(self.broken)
            scheduler = (
                scheduler.evolve(lifetime=lifetime)
                .with_baggage(ON_RESPONSE, answered)
                .with_baggage(_ADMISSIONS, (*_admissions(scheduler), self))
            )
        try:
            self.subscription.disposable = connect(self.source(), self, scheduler)
        except Exception as error:
            self.on_error(error)
        except BaseException:  # such as Ctrl-C, after which the loop may continue
            self.leave()
            raise
        self.let_go()

    def on_next(self, value: T) -> None:
        if isinstance(value, Chunk) and value.rest is not None and (usage := value.rest.usage) is not None:
            self.counted = (usage.input_tokens or 0) + (usage.output_tokens or 0)
            self.queue.count(self.ticket, max(self.ticket.tokens, self.counted))
        self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        self.leave()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.queue.count(self.ticket, self.counted or self.ticket.tokens)
        self.leave()
        self.observer.on_completed()

    def leave(self) -> None:
        """Marks the stream as over, and gives its place back if no task of it runs."""
        self.ended()
        self.let_go()
        self.is_over = True
        # The garbage collector may close a dead loop's generators at any point, even while this thread holds the
        # queue's lock. Then the dead loop does not run this call, and the queue drops the line of that loop itself.
        call(self.scheduler, self.closed)

    def closed(self) -> None:
        """Frees the place, once the stream is over and all of its tasks have ended."""
        if self.is_over and not self.tasks:
            self.queue.leave(self.ticket)

    def broken(self, error: BaseException) -> None:
        """Leaves after code around the request raised, or its loop ends. No other request can start on such a loop."""
        if isinstance(error, asyncio.CancelledError):
            call(self.scheduler, partial(self.queue.abandon, self.scheduler))
        self.leave()

    def let_go(self) -> None:
        if self.release is not None:
            self.release()

    def dispose(self) -> None:
        call(self.scheduler, self.close)

    def close(self) -> None:
        self.subscription.dispose()
        self.leave()
