"""`admitted`: a stream that begins when a `Limiter` lets it, and holds its place until it has closed."""

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
    """The server at an address, as ``host:port``."""
    parts = urlsplit(place)
    return f"{parts.hostname}:{parts.port or {'https': 443, 'http': 80}.get(parts.scheme)}"


class Servers:
    """The servers that one limited model asks, as far as they are known: each answer adds its own."""

    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = names

    def add(self, name: str) -> None:
        """Another server has answered."""
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
    """Begins when the limiter lets it.

    ::

        ---------a-b-|
        admitted(begin, limiter, 10)
        -----------a-b-|

    Args:
        begin: makes the stream.
        limiter: the limiter.
        tokens: how many the request takes, by an estimate.
        servers: those that it asks.
        request: what errors tell.

    Errors: `RateLimited` when it would wait for too long.
    """
    known = Servers() if servers is None else servers

    def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        admission = _Admission(observer, timers(given), begin, limiter, known, request, tokens)
        admission.queue.enter(admission.ticket)
        return admission

    return Source(subscribe)


class _Started(set["asyncio.Task[None]"]):
    """The tasks of one admitted stream, which are also those of the stream around it."""

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
    """The sentence for a request that holds a place of the limiter and asks for another."""
    return (
        f"{limiter!r} limits a request, and also another one that is a part of it: the first would hold its place "
        "while it waits for the second. Limit one of the two, or give each a Limiter of its own."
    )


class _Admission(Asked, abc.ObserverBase[T], abc.DisposableBase):
    """One request that waits for its turn, or runs.

    It gives its place back when the stream is over *and* all tasks that the stream has started have ended, since a
    request that was left is open until its task has closed it.
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
        self.counted = 0  # tokens, by the answer itself
        self.is_over: bool = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.subscription = LockFreeSerialDisposable()
        # What this stream begins must not see the context of the other request that makes room for it.
        begin = partial(scheduler.context.copy().run, self.start) if isinstance(scheduler, Scheduler) else self.start
        self.ticket = Ticket(scheduler, begin, self.refused, tokens, servers.names)
        # A script that has only subscribed stays alive while it waits, too.
        self.release = scheduler.hold() if isinstance(scheduler, Scheduler) else None

    def tell(self, error: RxllmError) -> None:
        """Tells an error of the request, and that it still waited for the limiter."""
        super().tell(error)
        sentence = f"The request was not sent: it waited for its turn in {self.limiter!r}."
        error.args = (f"{error} {sentence}", *error.args[1:])

    def refused(self, seconds: float) -> None:
        """The limiter does not let it begin."""
        ticket, limiter = self.ticket, self.limiter
        why = f"{', '.join(self.servers.names)} asks to wait" if ticket.held is not None else f"{limiter!r} is full"
        when = "." if seconds == inf else f", and it would begin in {seconds:.3g} s at the earliest."
        waited = ticket.now() - ticket.entered
        after = f" after {waited:.3g} s of waiting" if waited >= 0.01 else ""
        error = RateLimited(
            f"The request was not sent{after}: {why}{when} Limiter(max_wait=…) allows more.",
            retry_after=None if seconds == inf else seconds,
            code="limiter",
        )
        error.request = self.request
        self.on_error(error)

    def start(self) -> None:
        self.ended()  # of the waiting
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
        except BaseException:  # such as Ctrl-C, which the loop may outlive
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
        """The stream is over, or nobody waits for it any more."""
        self.ended()
        self.let_go()
        self.is_over = True
        # The garbage collector may close what a dead loop has left over anywhere, within the queue's lock, too: then
        # the loop does not run this, and the queue drops the line of the dead loop.
        call(self.scheduler, self.closed)

    def closed(self) -> None:
        """A task of the stream has ended, or the stream is over: if both, the place is free."""
        if self.is_over and not self.tasks:
            self.queue.leave(self.ticket)

    def broken(self, error: BaseException) -> None:
        """Code around the request raised; or its loop ends, on which no other request can begin."""
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
