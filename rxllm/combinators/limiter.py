"""`Limiter`: how many requests may run, and how many may begin in a minute.

The limiter, its tickets and the observer that holds one (`admitted`) are one room: each is half of the others' state.

A loop may end, or stand still, at any moment, and tells nobody. So whom the limiter calls up is begun by his own loop,
or, if that does not happen soon, waits again while the others pass; and each loop that waits has an alarm of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import TypeVar

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.disposable import Serial
from ..runtime.loops import Loop, in_loop
from ..runtime.scheduler import Scheduler, Timers, call, clock, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk

__all__ = ["Limiter", "Ticket", "admitted"]

T = TypeVar("T")

MINUTE = 60.0  # seconds
INSTANT = 1e-6  # seconds; what clocks can't tell apart
PATIENCE = 1.0  # seconds until a loop that does not answer is passed over, and between two looks whether others ended


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
        self._lines: dict[object, _Line] = {}  # by loop
        self._entered = 0
        self._recent: deque[_Cost] = deque()  # of what began in the last minute, where that is limited
        self._told: dict[str, tuple[int, float]] = {}  # what a server still takes, and until when that holds
        self._closed_until = 0.0

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={limit}" for name, limit in self.limits.items() if limit is not None)
        return f"Limiter({told})"

    def enter(self, ticket: Ticket) -> None:
        """Lets the ticket begin when its turn comes."""
        with self._lock:
            self._entered += 1
            ticket.number = self._entered
            self._line(ticket.home).waiting.append(ticket)
        self.admit()

    def leave(self, ticket: Ticket) -> None:
        """The ticket waits no longer, or its request is over."""
        with self._lock:
            line = self._line(ticket.home)
            if ticket in line.running:
                line.running.remove(ticket)
            elif ticket in line.called:
                line.called.remove(ticket)
                self._count(ticket, -1)
            elif ticket in line.waiting:
                line.waiting.remove(ticket)
            else:
                return
        ticket.begin = _nothing  # which holds the request
        self.admit()

    def abandon(self, home: Timers) -> None:
        """Forgets who waits on a loop that ends."""
        with self._lock:
            line = self._line(home)
            self._call_back(line)
            line.waiting.clear()

    def learn(self, headers: Mapping[str, str], now: float) -> None:
        """Hears what a server says of its own limits."""
        from ..wire.rates import allowances, retry_after

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
        """Calls up all that may begin now, and has their loops begin them; the others look again later."""
        with self._lock:
            self._tidy()
            wait = self._call_up()
            asked: list[tuple[_Line, Timers]] = []
            for line in self._lines.values():
                self._set_alarm(line, wait)
                if line.called and line.asked is None:  # a loop that is at it finds who was called since
                    line.asked = time.monotonic()
                    asked.append((line, line.called[0].home))
        # This loop comes last: what begins here takes its time, and may raise.
        for line, home in sorted(asked, key=lambda each: each[0].loop is None or in_loop(each[0].loop)):
            call(home, partial(self._begin, line))

    def _begin(self, line: _Line) -> None:
        """Begins who was called up, on their loop."""
        try:
            while (ticket := self._next(line)) is not None:
                ticket.begin()
        finally:
            with self._lock:
                line.asked = None
            self.admit()

    def _next(self, line: _Line) -> Ticket | None:
        with self._lock:
            if not line.called:
                return None
            line.asked = time.monotonic()
            ticket = line.called.popleft()
            line.running.add(ticket)
            return ticket

    def _line(self, home: Timers) -> _Line:
        loop = home.loop if isinstance(home, Scheduler) else None
        key = loop or home
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(loop)
        return line

    def _tidy(self) -> None:
        """Drops the lines of loops that have ended, and empty ones; who was called in vain gives way."""
        for key, line in list(self._lines.items()):
            ended = line.loop is not None and line.loop.is_closed()
            if ended or line.is_silent():
                self._call_back(line)
            if ended or not (line.waiting or line.called or line.running or line.asked is not None):
                line.alarm.dispose()
                del self._lines[key]

    def _call_back(self, line: _Line) -> None:
        while line.called:
            ticket = line.called.pop()
            line.waiting.appendleft(ticket)
            self._count(ticket, -1)

    def _call_up(self) -> float:
        """Calls up who may begin, in their order over all lines; returns the seconds until the next may."""
        while lines := [line for line in self._lines.values() if line.waiting and not line.is_silent()]:
            line = min(lines, key=lambda line: line.waiting[0].number)
            ticket = line.waiting[0]
            now = ticket.now()
            wait = self._wait(ticket, now)
            if wait > INSTANT:
                return wait
            line.called.append(line.waiting.popleft())
            ticket.cost.began = now
            self._count(ticket, +1)
        return inf

    def _count(self, ticket: Ticket, sign: int) -> None:
        """Counts a ticket that is called up, or no longer (-1)."""
        cost = ticket.cost
        if sign < 0:
            if cost in self._recent:
                self._recent.remove(cost)
        elif self._requests is not None or self._tokens is not None:
            self._recent.append(cost)
        for of, amount in (("requests", 1), ("tokens", cost.tokens)):
            if of in self._told:
                remaining, until = self._told[of]
                self._told[of] = (remaining - sign * amount, until)

    def _set_alarm(self, line: _Line, wait: float) -> None:
        """Has the line look again by itself: when the next may begin, and sooner whether another's loop has ended."""
        if line.loop is not None and len(self._lines) > 1:
            wait = min(wait, PATIENCE)
        if not line.waiting or wait == inf:
            if line.rings < inf:
                line.rings = inf
                line.alarm.disposable = None
            return
        first = line.waiting[0]
        rings = first.now() + wait
        if rings < line.rings - INSTANT:  # else it rings already, and then one sees
            line.rings = rings
            line.alarm.disposable = first.home.schedule_relative(wait, partial(self._look, line))

    def _look(self, line: _Line, _: abc.SchedulerBase, state: object = None) -> None:
        with self._lock:
            line.rings = inf
        self.admit()

    def _wait(self, ticket: Ticket, now: float) -> float:
        """Seconds until the ticket may begin; for ever until another has left."""
        if self._concurrency is not None:
            running = sum(len(line.called) + len(line.running) for line in self._lines.values())
            if running >= self._concurrency:
                return inf
        recent = self._recent
        while recent and recent[0].began <= now - MINUTE:
            recent.popleft()
        wait = max(0.0, self._closed_until - now)
        if self._requests is not None and len(recent) >= self._requests:
            wait = max(wait, recent[-self._requests].began + MINUTE - now)
        if self._tokens is not None:
            wait = max(wait, self._until_tokens(self._tokens - ticket.cost.tokens, now))
        for of, amount in (("requests", 1), ("tokens", ticket.cost.tokens)):
            remaining, until = self._told.get(of, (amount, 0.0))
            # A request that is larger than all that a server ever takes is the server's to refuse.
            if remaining < amount and until > now:
                wait = max(wait, until - now)
        return wait

    def _until_tokens(self, room: int, now: float) -> float:
        """Seconds until what began in the last minute has left room; one that never has goes alone."""
        taken = sum(cost.tokens for cost in self._recent)
        wait = 0.0
        for cost in self._recent:
            if taken <= max(room, 0):
                break
            taken -= cost.tokens
            wait = cost.began + MINUTE - now
        return wait


class _Line:
    """The tickets of one loop, or of one virtual time.

    Attributes:
        loop: None on virtual time.
        waiting: in their order.
        called: who may begin and count already, but are still to be begun by the loop.
        running: who have begun.
        asked: since when the loop is to begin the next, by `time.monotonic`; None while it is not.
        alarm: lets the line look again.
        rings: when it does, by the line's clock.
    """

    __slots__ = ("alarm", "asked", "called", "loop", "rings", "running", "waiting")

    def __init__(self, loop: Loop | None) -> None:
        self.loop = loop
        self.waiting: deque[Ticket] = deque()
        self.called: deque[Ticket] = deque()
        self.running: set[Ticket] = set()
        self.asked: float | None = None
        self.alarm = Serial()
        self.rings = inf

    def is_silent(self) -> bool:
        """Whether its loop was asked and does not answer: it is stopped or busy, or was closed meanwhile."""
        return self.asked is not None and time.monotonic() > self.asked + PATIENCE


class _Cost:
    """What counts in the minute after a request began: all that is kept of it.

    Attributes:
        tokens: how many it takes, as far as is known.
        began: when it began, by its own clock.
    """

    __slots__ = ("began", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.began = 0.0


class Ticket:
    """One request's place in the queue, or among those that run.

    Attributes:
        home: where it is to begin.
        begin: begins it; forgotten when the ticket has left.
        cost: what it takes.
        now: its clock.
        number: its place among all.
    """

    __slots__ = ("begin", "cost", "home", "now", "number")

    def __init__(self, home: Timers, begin: Callable[[], None], tokens: int) -> None:
        self.home = home
        self.begin = begin
        self.cost = _Cost(tokens)
        self.now = clock(home)
        self.number = 0


def _nothing() -> None:
    """Begins nothing."""


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
        source: Callable[[], Observable[T]],
        limiter: Limiter,
        tokens: int,
    ) -> None:
        self.observer = observer
        self.home = home
        self.source = source
        self.limiter = limiter
        self.told = 0  # tokens, by the answer itself
        self.subscription = Serial()
        # Who makes room for it, another's request, is not to be seen by what begins.
        begin = partial(home.context.copy().run, self.start) if isinstance(home, Scheduler) else self.start
        self.ticket = Ticket(home, begin, tokens)
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
            self.subscription.disposable = connect(self.source(), self, home)
        except Exception as error:
            self.on_error(error)
        except BaseException:  # such as Ctrl-C, which the loop may outlive
            self.leave()
            raise
        self.let_go()

    def on_next(self, value: T) -> None:
        if isinstance(value, Chunk) and value.rest is not None and (usage := value.rest.usage) is not None:
            self.told = (usage.input_tokens or 0) + (usage.output_tokens or 0)
            self.ticket.cost.tokens = max(self.ticket.cost.tokens, self.told)
        self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        self.leave()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.ticket.cost.tokens = self.told or self.ticket.cost.tokens
        self.leave()
        self.observer.on_completed()

    def leave(self) -> None:
        self.let_go()
        # What a closed loop has left over is collected anywhere, within the limiter's lock, too: its line is dropped.
        call(self.home, partial(self.limiter.leave, self.ticket))

    def broken(self, error: BaseException) -> None:
        """Code around the request raised; or its loop ends, on which nobody else shall begin."""
        if isinstance(error, asyncio.CancelledError):
            call(self.home, partial(self.limiter.abandon, self.home))
        self.leave()

    def let_go(self) -> None:
        if self.release is not None:
            self.release()

    def dispose(self) -> None:
        call(self.home, self.close)

    def close(self) -> None:
        self.subscription.dispose()
        self.leave()
