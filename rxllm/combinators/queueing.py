"""The queue of a `Limiter`: tickets of any number of event loops, and who begins next.

States of a ticket, and who changes them::

    enter ─► waiting ─► called ─► running ─► left      the queue's lock is held for each step
                │          │
                └──────────┴─► refused                 when it would wait, or has waited, for too long

Any thread may let a ticket enter or leave, and thereby call up others. A ticket begins, or hears that it is refused,
on its own event loop only. An event loop can end or stall at any moment without telling anybody. So a loop that was
asked to begin its tickets and does not within `PATIENCE` seconds loses its turn to the others, and each line of
waiting tickets sets an alarm on its own loop.

It is one room because tickets, lines and the queue are each other's state, under one lock.
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
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.loops import Loop, in_loop
from ..runtime.scheduler import Scheduler, Timers, call, clock
from .pacing import INSTANT, Rate, ServerLimits, Span

__all__ = ["Queue", "Ticket"]

PATIENCE = 1.0  # seconds that a loop may take to begin a ticket; and between two looks whether other loops have ended
SERVERS = 256  # servers whose announcements are kept; more are forgotten when their figures have passed

Counted = Literal["requests", "tokens"]


class Ticket:
    """One request's place in the queue, or among the requests that run.

    Attributes:
        home: where it begins.
        begin: begins it; dropped when the ticket leaves, with the request that it holds.
        refuse: tells it that it will not begin, and the seconds until it could.
        tokens: how many the request takes, as far as is known.
        servers: the servers that may answer it, as far as is known.
        now: its clock.
        number: its place in the order of arrival.
        entered: when it entered.
        held: since when it waits for a server alone, None while it does not.
        spans: where each rate counts it, once it is called.
        refused: the seconds until it could begin, if it is refused.
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
        """How much it takes of what a rate counts."""
        return 1.0 if of == "requests" else self.tokens


class Line:
    """The tickets of one event loop, or of one virtual time, for the same servers.

    Attributes:
        loop: None on virtual time.
        servers: who may answer them.
        waiting: in the order of arrival.
        called: those that may begin, or are refused, and that the loop has not reached yet.
        running: those that have begun.
        asked: since when the loop has been asked to go through `called` (`time.monotonic`); None while it is not.
        alarm: makes the line look again.
        rings: when the alarm rings, by the line's clock.
        wait: seconds until the first that waits may begin, as of the last look.
    """

    __slots__ = ("alarm", "asked", "called", "loop", "rings", "running", "servers", "wait", "waiting")

    def __init__(self, loop: Loop | None, servers: tuple[str, ...]) -> None:
        self.loop = loop
        self.servers = servers
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.called: deque[Ticket] = deque()
        self.running: set[Ticket] = set()
        self.asked: float | None = None
        self.alarm = LockFreeSerialDisposable()
        self.rings = inf
        self.wait = inf

    @property
    def first(self) -> Ticket:
        """The ticket that has waited longest."""
        return next(iter(self.waiting))

    def is_silent(self) -> bool:
        """Whether the loop was asked and does not answer: it is stopped, busy, or closed."""
        return self.asked is not None and time.monotonic() > self.asked + PATIENCE


class Queue:
    """First come, first served, within the limits; a ticket whose server is closed lets the others pass.

    Args:
        concurrency: how many tickets may run at once.
        rates: each with what it counts.
        max_wait: seconds that a ticket waits; None bounds only the wait for a server.
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
        """Empties the queue: in a forked child no ticket of the parent ever leaves."""
        self.lock = threading.Lock()
        self.lines: dict[object, Line] = {}
        self.busy = 0  # tickets that were called or run

    def enter(self, ticket: Ticket) -> None:
        """Lets the ticket begin when its turn comes."""
        with self.lock:
            self.entered += 1
            ticket.number = self.entered
            self._line(ticket).waiting[ticket] = None
        self.admit()

    def leave(self, ticket: Ticket) -> None:
        """The ticket no longer waits, or its request has closed."""
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
        ticket.begin, ticket.refuse = _nothing, _unheard  # which hold the request
        self.admit()

    def abandon(self, scheduler: Timers) -> None:
        """Forgets the tickets that wait on a loop that ends."""
        with self.lock:
            for line in self.lines.values():
                if line.loop is not None and isinstance(scheduler, Scheduler) and line.loop is scheduler.loop:
                    self._call_back(line)
                    line.waiting.clear()

    def learn(self, server: str, status: int, headers: Mapping[str, str], now: float) -> None:
        """Reads what a server's answer announces about its limits."""
        with self.lock:
            known = self.servers.get(server)
            limits = known or ServerLimits()
            if limits.learn(status, headers, now, self.believed) and known is None:
                if len(self.servers) >= SERVERS:
                    self.servers = {name: kept for name, kept in self.servers.items() if not kept.is_over(now)}
                self.servers[server] = limits

    def count(self, ticket: Ticket, tokens: float) -> None:
        """Corrects how many tokens the ticket's request takes."""
        if tokens == ticket.tokens:
            return
        with self.lock:
            for (of, rate), span in zip(self.rates, ticket.spans, strict=False):  # none before it is called
                if of == "tokens":
                    rate.change(span, ticket.tokens, tokens)
            ticket.tokens = tokens

    def admit(self) -> None:
        """Calls up all tickets that may begin now, and asks their loops to begin them; the others look again later."""
        with self.lock:
            self._tidy()
            self._call_up()
            asked: list[tuple[Line, Timers]] = []
            for line in self.lines.values():
                self._set_alarm(line)
                if line.called and line.asked is None:  # a loop that was asked goes through all that are called
                    line.asked = time.monotonic()
                    asked.append((line, line.called[0].scheduler))
        # The loop of this thread comes last: what begins here takes its time, and may raise.
        for line, scheduler in sorted(asked, key=lambda each: each[0].loop is None or in_loop(each[0].loop)):
            call(scheduler, partial(self._begin, line))

    def _begin(self, line: Line) -> None:
        """Begins the called tickets, on their loop."""
        try:
            while (ticket := self._next(line)) is not None:
                if ticket.refused is None:
                    ticket.begin()
                else:
                    refuse, ticket.begin, ticket.refuse = ticket.refuse, _nothing, _unheard
                    refuse(ticket.refused)
        finally:
            with self.lock:
                line.asked = None
            self.admit()

    def _next(self, line: Line) -> Ticket | None:
        with self.lock:
            if not line.called:
                return None
            line.asked = time.monotonic()
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
        """Drops empty lines and those of closed loops; a silent loop's called tickets wait again."""
        for key, line in list(self.lines.items()):
            ended = line.loop is not None and line.loop.is_closed()
            if ended or line.is_silent():
                self._call_back(line)
            if ended or not (line.waiting or line.called or line.running or line.asked is not None):
                line.alarm.dispose()
                self.busy -= len(line.running)
                del self.lines[key]

    def _call_back(self, line: Line) -> None:
        while line.called:
            ticket = line.called.pop()
            line.waiting[ticket] = None
            line.waiting.move_to_end(ticket, last=False)
            self._uncall(ticket)

    def _call_up(self) -> None:
        """Calls up the tickets that may begin, in the order of arrival, and refuses those that wait too long."""
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
        """Refuses the first ticket of the line, if it waits too long."""
        ticket, wait = line.first, line.wait
        now = ticket.now()
        known = 0.0 if wait == inf else wait
        if self.max_wait is not None:
            refused = ticket.entered + self.max_wait - now < max(known, INSTANT)
        else:
            refused = ticket.held is not None and now - ticket.held + known > MAX_WAIT
        if refused:
            ticket.refused = wait
            del line.waiting[ticket]
            line.called.append(ticket)
        return refused

    def _call(self, line: Line, now: float) -> None:
        """Calls the first ticket of the line up, and counts it."""
        ticket, _ = line.waiting.popitem(last=False)
        line.called.append(ticket)
        self.busy += 1
        ticket.spans = tuple(rate.take(ticket.amount(of), now) for of, rate in self.rates)
        self._take(ticket, +1)

    def _uncall(self, ticket: Ticket) -> None:
        """The ticket that was called does not begin: it counts no longer."""
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
        """Seconds until one of the servers takes the request."""
        waits = [
            0.0 if limits is None else limits.wait(ticket.tokens, now)
            for limits in map(self.servers.get, ticket.servers)
        ]
        return min(waits, default=0.0)

    def _own_wait(self, ticket: Ticket, now: float) -> float:
        """Seconds until the program's own limits let the ticket begin; without end until another has left."""
        if self.busy >= self.concurrency:
            return inf
        return max((rate.wait(ticket.amount(of), now) for of, rate in self.rates), default=0.0)

    def _set_alarm(self, line: Line) -> None:
        """Makes the line look again: when its first ticket may begin or is to be refused, and sooner if others end."""
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
        if rings < line.rings - INSTANT:  # else the alarm rings sooner, and the line looks then
            line.rings = rings
            line.alarm.disposable = first.scheduler.schedule_relative(max(wait, INSTANT), partial(self._look, line))

    def _look(self, line: Line, _: abc.SchedulerBase, state: object = None) -> None:
        with self.lock:
            line.rings = inf
        self.admit()


def _nothing() -> None:
    """Begins nothing."""


def _unheard(seconds: float) -> None:
    """Refuses nothing."""
