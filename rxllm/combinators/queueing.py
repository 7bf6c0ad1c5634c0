"""The queue of a `Limiter`: it admits the tickets of any number of event loops.

States of a ticket, and what changes them::

    enter ─► waiting ─► called ─► running ─► left      the queue's lock guards each step
                │          │
                └──────────┴─► refused                 its wait is, or would be, too long

Any thread may let a ticket enter or leave, and so cause others to be called. A ticket starts, or is refused, on its own
event loop only. An event loop can end or stall at any moment without a notice. So a loop that does not start its called
tickets within `PATIENCE` seconds loses its turn, and each line of waiting tickets sets a timer on its own loop.

Tickets, lines and the queue are in one module because one lock guards them all.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Literal

from reactivex import abc

from ..bounds import BELIEVED, MAX_WAIT
from ..operators.observer import ignore
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.loops import Loop, do_nothing, in_loop
from ..runtime.scheduler import Scheduler, Timers, call, clock
from .pacing import INSTANT, Rate, ServerLimits, Span

__all__ = ["Queue", "Ticket"]

PATIENCE = 1.0  # seconds for a loop to start a ticket, and between two checks whether other loops have ended
SERVERS = 256  # servers whose announcements are kept; above this number, expired announcements are dropped

Counted = Literal["requests", "tokens"]


class Ticket:
    """The place of one request in the queue or among the running requests.

    Attributes:
        scheduler: where the request starts.
        begin: starts the request. It holds the request, so it is dropped when the ticket leaves.
        refuse: refuses the request, with the seconds until it could start.
        tokens: the request's tokens, as far as they are known.
        servers: the servers that may answer it, as far as they are known.
        now: the clock of its scheduler.
        number: its position in the order of arrival.
        entered: the time of its arrival.
        held: the time since which only a server delays it; None while something else does.
        spans: the span of each rate that counts it, once it is called.
        refused: the seconds until it could start, if it is refused.
    """

    __slots__ = (
        "begin",
        "entered",
        "held",
        "now",
        "number",
        "refuse",
        "refused",
        "scheduler",
        "servers",
        "spans",
        "tokens",
    )

    def __init__(
        self,
        scheduler: Timers,
        begin: Callable[[], None],
        refuse: Callable[[float], None],
        tokens: float,
        servers: tuple[str, ...] = (),
    ) -> None:
        self.scheduler = scheduler
        self.begin = begin
        self.refuse = refuse
        self.tokens = tokens
        self.servers = servers
        self.now = clock(scheduler)
        self.number = 0
        self.entered = self.now()
        self.held: float | None = None
        self.spans: tuple[Span, ...] = ()
        self.refused: float | None = None

    def amount(self, of: Counted) -> float:
        """Return its amount of requests or tokens."""
        return 1.0 if of == "requests" else self.tokens


class Line:
    """The tickets of one event loop, or of one virtual-time scheduler, for the same servers.

    Attributes:
        loop: the event loop; None on virtual time.
        servers: the servers that may answer the tickets.
        waiting: the waiting tickets, in the order of arrival.
        called: the tickets that may start, or are refused, and that the loop has not processed yet.
        running: the tickets that have started.
        asked_at: the `time.monotonic` at which the loop was asked to process `called`; None while it is not asked.
        alarm: the timer that checks the line again.
        rings: the time of the timer, by the line's clock.
        wait: the seconds until the first waiting ticket may start, as of the last check.
    """

    __slots__ = ("alarm", "asked_at", "called", "loop", "rings", "running", "servers", "wait", "waiting")

    def __init__(self, loop: Loop | None, servers: tuple[str, ...]) -> None:
        self.loop = loop
        self.servers = servers
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.called: deque[Ticket] = deque()
        self.running: set[Ticket] = set()
        self.asked_at: float | None = None
        self.alarm = LockFreeSerialDisposable()
        self.rings = inf
        self.wait = inf

    @property
    def first(self) -> Ticket:
        """The ticket that has waited longest."""
        return next(iter(self.waiting))

    def is_silent(self) -> bool:
        """Whether the loop was asked and does not respond, because it is stopped, busy or closed."""
        return self.asked_at is not None and time.monotonic() > self.asked_at + PATIENCE


class Queue:
    """Admits tickets in the order of arrival, within the limits. A ticket that waits for its server lets others pass.

    Args:
        concurrency: the largest number of running tickets; None disables this limit.
        rates: the rates, each with the amount that it counts.
        max_wait: the longest wait of a ticket in seconds; None limits the wait for a server only.
    """

    def __init__(
        self, concurrency: int | None, rates: tuple[tuple[Counted, Rate], ...], max_wait: float | None
    ) -> None:
        self.concurrency = inf if concurrency is None else concurrency
        self.rates = rates
        self.max_wait = max_wait
        self.believed = max(BELIEVED, max_wait or 0.0)
        self.entered = 0
        self.servers: dict[str, ServerLimits] = {}
        self.reset()

    def reset(self) -> None:
        """Empty the queue, because in a forked child no ticket of the parent ever leaves."""
        self.lock = threading.Lock()
        self.lines: dict[object, Line] = {}
        self.busy = 0  # the number of called and running tickets

    def enter(self, ticket: Ticket) -> None:
        """Add a ticket, which starts when its turn comes."""
        with self.lock:
            self.entered += 1
            ticket.number = self.entered
            self._line(ticket).waiting[ticket] = None
        self.admit()

    def leave(self, ticket: Ticket) -> None:
        """Remove a ticket that no longer waits, or whose request has closed."""
        with self.lock:
            line = self._line(ticket)
            if ticket in line.running:
                line.running.remove(ticket)
                self.busy -= 1
            elif ticket in line.called:
                line.called.remove(ticket)
                self._uncall(ticket)
            elif ticket in line.waiting:
                del line.waiting[ticket]
            else:
                return
        ticket.begin, ticket.refuse = do_nothing, ignore  # the old ones hold the request
        self.admit()

    def abandon(self, scheduler: Timers) -> None:
        """Drop the tickets that wait on a loop that ends."""
        with self.lock:
            for line in self.lines.values():
                if line.loop is not None and isinstance(scheduler, Scheduler) and line.loop is scheduler.loop:
                    self._take_back(line)
                    line.waiting.clear()

    def learn(self, server: str, status: int, headers: Mapping[str, str], now: float) -> None:
        """Read a server's announcements of its limits from the headers of a response."""
        with self.lock:
            existing = self.servers.get(server)
            limits = existing or ServerLimits()
            if limits.learn(status, headers, now, self.believed) and existing is None:
                if len(self.servers) >= SERVERS:
                    self.servers = {name: kept for name, kept in self.servers.items() if not kept.is_over(now)}
                self.servers[server] = limits

    def count(self, ticket: Ticket, tokens: float) -> None:
        """Correct the tokens of the ticket's request."""
        if tokens == ticket.tokens:
            return
        with self.lock:
            for (of, rate), span in zip(
                self.rates, ticket.spans, strict=False
            ):  # a ticket has no spans before it is called
                if of == "tokens":
                    rate.change(span, ticket.tokens, tokens)
            ticket.tokens = tokens

    def admit(self) -> None:
        """Call all tickets that may start now, and ask their loops to start them. The others get timers."""
        with self.lock:
            self._tidy()
            self._call_all()
            idle: list[tuple[Line, Timers]] = []
            for line in self.lines.values():
                self._set_alarm(line)
                if line.called and line.asked_at is None:  # a loop that was asked processes all called tickets
                    line.asked_at = time.monotonic()
                    idle.append((line, line.called[0].scheduler))
        # The loop of this thread comes last, because its tickets start right here, which takes time and may raise.
        for line, scheduler in sorted(idle, key=lambda each: each[0].loop is None or in_loop(each[0].loop)):
            call(scheduler, partial(self._begin, line))

    def _begin(self, line: Line) -> None:
        """Start or refuse the called tickets, on their loop."""
        try:
            while (ticket := self._next(line)) is not None:
                if ticket.refused is None:
                    ticket.begin()
                else:
                    refuse, ticket.begin, ticket.refuse = ticket.refuse, do_nothing, ignore
                    refuse(ticket.refused)
        finally:
            with self.lock:
                line.asked_at = None
            self.admit()

    def _next(self, line: Line) -> Ticket | None:
        with self.lock:
            if not line.called:
                return None
            line.asked_at = time.monotonic()
            ticket = line.called.popleft()
            if ticket.refused is None:
                line.running.add(ticket)
            return ticket

    def _line(self, ticket: Ticket) -> Line:
        scheduler = ticket.scheduler
        loop = scheduler.loop if isinstance(scheduler, Scheduler) else None
        key = (loop or scheduler, ticket.servers)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line(loop, ticket.servers)
        return line

    def _tidy(self) -> None:
        """Drop empty lines and lines of closed loops. The called tickets of a silent loop wait again."""
        for key, line in list(self.lines.items()):
            ended = line.loop is not None and line.loop.is_closed()
            if ended or line.is_silent():
                self._take_back(line)
            if ended or not (line.waiting or line.called or line.running or line.asked_at is not None):
                line.alarm.dispose()
                self.busy -= len(line.running)
                del self.lines[key]

    def _take_back(self, line: Line) -> None:
        while line.called:
            ticket = line.called.pop()
            line.waiting[ticket] = None
            line.waiting.move_to_end(ticket, last=False)
            self._uncall(ticket)

    def _call_all(self) -> None:
        """Call the tickets that may start, in the order of arrival, and refuse those that wait too long."""
        lines = [line for line in self.lines.values() if line.waiting and not line.is_silent()]
        while lines := [line for line in lines if line.waiting]:
            open_lines: list[Line] = []
            for line in lines:
                ticket = line.first
                now = ticket.now()
                line.wait = self._server_wait(ticket, now)
                if line.wait <= INSTANT:
                    ticket.held = None
                    open_lines.append(line)
                elif ticket.held is None:
                    ticket.held = now
            if open_lines:
                line = min(open_lines, key=lambda line: line.first.number)
                ticket = line.first
                now = ticket.now()
                wait = self._own_wait(ticket, now)
                if wait <= INSTANT:
                    self._call(line, now)
                    continue
                for line in open_lines:
                    line.wait = wait
            if not any(self._refuse(line) for line in lines):
                return

    def _refuse(self, line: Line) -> bool:
        """Refuse the first ticket of the line, if it waits too long."""
        ticket, wait = line.first, line.wait
        now = ticket.now()
        expected = 0.0 if wait == inf else wait
        if self.max_wait is not None:
            refused = ticket.entered + self.max_wait - now < max(expected, INSTANT)
        else:
            refused = ticket.held is not None and now - ticket.held + expected > MAX_WAIT
        if refused:
            ticket.refused = wait
            del line.waiting[ticket]
            line.called.append(ticket)
        return refused

    def _call(self, line: Line, now: float) -> None:
        """Call the first ticket of the line, and count it."""
        ticket, _ = line.waiting.popitem(last=False)
        line.called.append(ticket)
        self.busy += 1
        ticket.spans = tuple(rate.take(ticket.amount(of), now) for of, rate in self.rates)
        self._take(ticket, +1)

    def _uncall(self, ticket: Ticket) -> None:
        """Stop counting a called ticket that does not start."""
        if ticket.refused is not None:
            ticket.refused = None
            return
        self.busy -= 1
        for (of, rate), span in zip(self.rates, ticket.spans, strict=True):
            rate.change(span, ticket.amount(of), 0.0)
        ticket.spans = ()
        self._take(ticket, -1)

    def _take(self, ticket: Ticket, sign: int) -> None:
        if len(ticket.servers) == 1 and (limits := self.servers.get(ticket.servers[0])) is not None:
            limits.take(ticket.tokens, sign)

    def _server_wait(self, ticket: Ticket, now: float) -> float:
        """Return the seconds until one of the servers accepts the request."""
        waits = [
            0.0 if limits is None else limits.wait(ticket.tokens, now)
            for limits in map(self.servers.get, ticket.servers)
        ]
        return min(waits, default=0.0)

    def _own_wait(self, ticket: Ticket, now: float) -> float:
        """Return the seconds until the program's limits admit the ticket; infinite while all places are taken."""
        if self.busy >= self.concurrency:
            return inf
        return max((rate.wait(ticket.amount(of), now) for of, rate in self.rates), default=0.0)

    def _set_alarm(self, line: Line) -> None:
        """Set the timer of the line to the time when its first ticket may start or must be refused, or sooner."""
        if not line.waiting:
            if line.rings < inf:
                line.rings = inf
                line.alarm.disposable = None
            return
        first = line.first
        now = first.now()
        wait = line.wait
        if self.max_wait is not None:
            wait = min(wait, first.entered + self.max_wait - now)
        if line.loop is not None and len(self.lines) > 1:
            wait = min(wait, PATIENCE)
        if wait == inf:
            return
        rings = now + wait
        if rings < line.rings - INSTANT:  # else the timer fires sooner, and sets itself again
            line.rings = rings
            line.alarm.disposable = first.scheduler.schedule_relative(max(wait, INSTANT), partial(self._look, line))

    def _look(self, line: Line, _: abc.SchedulerBase, state: object = None) -> None:
        with self.lock:
            line.rings = inf
        self.admit()
