"""`Limiter`: how many requests may run, and how many may begin in a minute.

The limiter, its tickets and the observer that holds one (`admitted`) are one room: each is half of the others' state.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable

from ._runtime import Scheduler, Source, Timers, call, clock, connect, timers
from .errors import MisuseError
from .messages import Chunk

__all__ = ["Limiter", "Ticket", "admitted"]

T = TypeVar("T")

MINUTE = 60.0  # seconds
INSTANT = 1e-6  # seconds; what clocks can't tell apart


class Limiter:
    """Lets requests begin in their order, as many as may. One may be shared by models, loops and threads.

    In any 60 seconds at most `requests_per_minute` begin, and their tokens are at most `tokens_per_minute`. How many
    tokens a request takes is guessed at first (4 characters each, and its ``max_tokens``), and put right when the
    answer tells. It also obeys servers: ``retry-after``, and the headers that say how much they will still take.

    Args:
        concurrency: how many may run at once.
        requests_per_minute: how many may begin in a minute.
        tokens_per_minute: how many tokens, of input and output, in a minute.

    Raises:
        MisuseError: a limit is no whole number of at least 1.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        limits = {
            "concurrency": concurrency,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }
        for name, limit in limits.items():
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise MisuseError(f"{name} must be a whole number of at least 1, not {limit!r}.")
        self.limits = limits
        self._concurrency = concurrency
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._lock = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        self._running: set[Ticket] = set()
        self._recent: deque[Ticket] = deque()  # that began in the last minute
        self._told: dict[str, tuple[int, float]] = {}  # what a server still takes, and until when that holds
        self._closed_until = 0.0
        self._admitting = self._again = False

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={limit}" for name, limit in self.limits.items() if limit is not None)
        return f"Limiter({told})"

    def enter(self, ticket: Ticket) -> None:
        """Lets the ticket begin when its turn comes."""
        with self._lock:
            self._waiting.append(ticket)
        self.admit()

    def leave(self, ticket: Ticket) -> None:
        """The ticket waits no longer, or its request is over."""
        with self._lock:
            if ticket in self._running:
                self._running.remove(ticket)
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                return
        ticket.timer.dispose()
        self.admit()

    def abandon(self, home: Timers) -> None:
        """Forgets who waits on a loop that ends."""
        loop = home.loop if isinstance(home, Scheduler) else None
        with self._lock:
            self._waiting = deque(
                other for other in self._waiting if not isinstance(other.home, Scheduler) or other.home.loop is not loop
            )

    def learn(self, headers: Mapping[str, str], now: float) -> None:
        """Hears what a server says of its own limits."""
        from .wire.rates import allowances, retry_after

        wait = retry_after(headers)
        told = list(allowances(headers))
        if wait is None and not told:
            return
        with self._lock:
            if wait is not None:
                self._closed_until = max(self._closed_until, now + wait)
            for allowance in told:
                self._told[allowance.of] = (allowance.remaining, now + allowance.seconds)

    def admit(self) -> None:
        """Lets all begin that may now; the first who may not is told when to come again."""
        with self._lock:
            self._again = True
            if self._admitting:  # who is at it looks once more; what begins may end at once, and so on
                return
            self._admitting = True
        while True:
            with self._lock:
                if not self._again:
                    self._admitting = False
                    return
                self._again = False
            while (ticket := self._next()) is not None:
                call(ticket.home, ticket.begin)

    def _look(self, _: abc.SchedulerBase, state: object = None) -> None:
        self.admit()

    def _next(self) -> Ticket | None:
        with self._lock:
            while self._waiting:
                ticket = self._waiting[0]
                if isinstance(ticket.home, Scheduler) and ticket.home.loop.is_closed():
                    self._waiting.popleft()
                    continue
                now = ticket.now()
                wait = self._wait(ticket, now)
                if wait is None:
                    return None
                if wait > INSTANT:
                    ticket.timer.disposable = ticket.home.schedule_relative(wait, self._look)
                    return None
                self._waiting.popleft()
                self._begin(ticket, now)
                return ticket
            return None

    def _begin(self, ticket: Ticket, now: float) -> None:
        ticket.began = now
        self._running.add(ticket)
        self._recent.append(ticket)
        for of, cost in (("requests", 1), ("tokens", ticket.tokens)):
            if of in self._told:
                remaining, until = self._told[of]
                self._told[of] = (remaining - cost, until)

    def _wait(self, ticket: Ticket, now: float) -> float | None:
        """Seconds until the ticket may begin; None until another has left."""
        if self._concurrency is not None and len(self._running) >= self._concurrency:
            return None
        recent = self._recent
        while recent and recent[0].began <= now - MINUTE:
            recent.popleft()
        wait = max(0.0, self._closed_until - now)
        if self._requests is not None and len(recent) >= self._requests:
            wait = max(wait, recent[-self._requests].began + MINUTE - now)
        if self._tokens is not None:
            wait = max(wait, self._until_tokens(self._tokens - ticket.tokens, now))
        for of, cost in (("requests", 1), ("tokens", ticket.tokens)):
            remaining, until = self._told.get(of, (cost, 0.0))
            # A request that is larger than all that a server ever takes is the server's to refuse.
            if remaining < cost and until > now:
                wait = max(wait, until - now)
        return wait

    def _until_tokens(self, room: int, now: float) -> float:
        """Seconds until what began in the last minute has left room; one that never has goes alone."""
        taken = sum(ticket.tokens for ticket in self._recent)
        wait = 0.0
        for ticket in self._recent:
            if taken <= max(room, 0):
                break
            taken -= ticket.tokens
            wait = ticket.began + MINUTE - now
        return wait


class Ticket:
    """One request's place in the queue, or among those that run.

    Attributes:
        home: where it is to begin.
        begin: begins it; raises nothing.
        tokens: how many it takes, as far as is known.
        began: when it began, by its own clock.
        now: that clock.
        timer: what lets it come again.
    """

    __slots__ = ("began", "begin", "home", "now", "timer", "tokens")

    def __init__(self, home: Timers, begin: Callable[[], None], tokens: int) -> None:
        self.home = home
        self.begin = begin
        self.tokens = tokens
        self.began = 0.0
        self.now = clock(home)
        self.timer = SerialDisposable()


def admitted(begin: Callable[[], Observable[T]], limiter: Limiter, tokens: int) -> Source[T]:
    """Begins when the limiter lets it; `tokens` is what it takes by a guess.

    ::

        ---------a-b-|
        admitted(begin, limiter, 10)
        -----------a-b-|
    """

    def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        return _Admission(observer, timers(given), begin, limiter, tokens)

    return Source(subscribe)


class _Admission(abc.ObserverBase[T], abc.DisposableBase):
    def __init__(
        self,
        observer: abc.ObserverBase[T],
        home: Timers,
        begin: Callable[[], Observable[T]],
        limiter: Limiter,
        tokens: int,
    ) -> None:
        self.observer = observer
        self.home = home
        self.begin = begin
        self.limiter = limiter
        self.told = 0  # tokens, by the answer itself
        self.subscription = SingleAssignmentDisposable()
        self.ticket = Ticket(home, self.start, tokens)
        # A script that has only subscribed is kept alive while it waits, too.
        self.release = home.hold() if isinstance(home, Scheduler) else None
        limiter.enter(self.ticket)

    def start(self) -> None:
        home = self.home
        if isinstance(home, Scheduler):
            outer, learn, now = home.answered, self.limiter.learn, self.ticket.now

            def answered(headers: Mapping[str, str]) -> None:
                learn(headers, now())
                outer(headers)

            home = home.heeding(self.broken)
            home.answered = answered
        try:
            self.subscription.disposable = connect(self.begin(), self, home)
        except Exception as error:
            self.on_error(error)
        self.let_go()

    def on_next(self, value: T) -> None:
        if isinstance(value, Chunk) and value.rest is not None and (usage := value.rest.usage) is not None:
            self.told = (usage.input_tokens or 0) + (usage.output_tokens or 0)
            self.ticket.tokens = max(self.ticket.tokens, self.told)
        self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        self.leave()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.ticket.tokens = self.told or self.ticket.tokens
        self.leave()
        self.observer.on_completed()

    def leave(self) -> None:
        self.let_go()
        self.limiter.leave(self.ticket)

    def broken(self, error: BaseException) -> None:
        """Code around the request raised; or its loop ends, on which nobody else shall begin."""
        if isinstance(error, asyncio.CancelledError):
            self.limiter.abandon(self.home)
        self.leave()

    def let_go(self) -> None:
        if self.release is not None:
            self.release()

    def dispose(self) -> None:
        call(self.home, self.close)

    def close(self) -> None:
        self.subscription.dispose()
        self.leave()
