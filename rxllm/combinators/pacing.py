"""The arithmetic of rate limits: a `Rate` of the program, and the `ServerLimits` that a server announces.

The caller passes the time of its clock. Nothing here uses event loops, threads or requests, and nothing is locked: the
lock of the `Queue` guards all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

__all__ = ["INSTANT", "Rate", "ServerLimits", "Span"]

INSTANT = 1e-6  # seconds, the resolution of the clocks
SPANS = 240  # spans in the period of a rate; counting by spans keeps memory and time constant


class Span:
    """The requests that started within a short span of time.

    Attributes:
        first: the time of the first start.
        last: the time of the last start.
        amount: the number of requests or tokens, as far as it is known.
    """

    __slots__ = ("amount", "first", "last")

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.amount = 0.0


class Rate:
    """At most `limit` in each period of `seconds`, evenly paced.

    Two rules apply. The *window*: the amount that started in the last `seconds` never exceeds `limit`. The *pace*:
    `burst` requests may start together, and the next ones follow at the average rate.

    An amount above `limit` starts when the window is empty, so that it does not wait for ever.

    Args:
        limit: the amount in each period.
        seconds: the period.
        burst: how many requests of equal amount may start together; None means a sixtieth of the limit, at least one.
    """

    __slots__ = ("burst", "due", "limit", "per_second", "seconds", "spans", "taken")

    def __init__(self, limit: float, seconds: float, burst: int | None) -> None:
        self.limit = limit
        self.seconds = seconds
        self.burst = burst
        self.per_second = limit / seconds
        self.spans: deque[Span] = deque()
        self.taken = 0.0  # the amount of all spans
        self.due = 0.0  # the time when the average rate has caught up with all starts

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until this amount may start."""
        self._forget(now)
        cost = min(amount, self.limit) / self.per_second
        slack = max(0.0, self.seconds / 60 - cost) if self.burst is None else (self.burst - 1) * cost
        wait = max(0.0, self.due - slack - now)
        room, taken = max(self.limit - amount, 0.0), self.taken
        for span in self.spans:
            if taken <= room:
                break
            taken -= span.amount
            wait = max(wait, span.last + self.seconds - now)
        return wait

    def take(self, amount: float, now: float) -> Span:
        """Count an amount that starts now."""
        spans = self.spans
        if not spans or now - spans[-1].first > self.seconds / SPANS:
            spans.append(Span(now))
        span = spans[-1]
        span.last = max(span.last, now)
        self.due = max(self.due, now)
        self.change(span, 0.0, amount)
        return span

    def change(self, span: Span, before: float, after: float) -> None:
        """Correct a counted amount."""
        self.due += (min(after, self.limit) - min(before, self.limit)) / self.per_second
        if self.spans and span.first >= self.spans[0].first:  # else the span has left the window
            span.amount += after - before
            self.taken += after - before

    def _forget(self, now: float) -> None:
        spans = self.spans
        while spans and spans[0].last + self.seconds <= now + INSTANT:
            self.taken -= spans.popleft().amount
        if not spans:
            self.taken = 0.0


class ServerLimits:
    """The announcements of one server.

    Attributes:
        closed_until: the time until which it refuses requests.
        left: for requests and for tokens, how many it still accepts, and until when.
    """

    __slots__ = ("closed_until", "left")

    def __init__(self) -> None:
        self.closed_until = 0.0
        self.left: dict[str, tuple[float, float]] = {}

    def learn(self, status: int, headers: Mapping[str, str], now: float, believed: float) -> bool:
        """Read the headers of a response, and return whether they contain an announcement.

        ``retry-after`` counts only in a response that refuses the request. Each announcement counts for at most
        `believed` seconds.
        """
        from ..wire.rates import allowances, retry_after  # imported here, because only models over HTTP need it

        wait = retry_after(headers) if is_refusal(status) else None
        if wait is not None:
            self.closed_until = max(self.closed_until, now + min(wait, believed))
        announced = list(allowances(headers))
        for allowance in announced:
            self.left[allowance.of] = (allowance.remaining, now + min(allowance.seconds, believed))
        return wait is not None or bool(announced)

    def wait(self, tokens: float, now: float) -> float:
        """Return the seconds until the server accepts a request of this many tokens."""
        wait = max(0.0, self.closed_until - now)
        for of, amount in (("requests", 1.0), ("tokens", tokens)):
            left, until = self.left.get(of, (amount, 0.0))
            # A request that exceeds the server's whole limit is sent, and the server refuses it.
            if left < amount and until > now:
                wait = max(wait, until - now)
        return wait

    def take(self, tokens: float, sign: int) -> None:
        """Count a request of this many tokens that starts (+1), or that does not start after all (-1)."""
        for of, amount in (("requests", 1.0), ("tokens", tokens)):
            if of in self.left:
                left, until = self.left[of]
                self.left[of] = (left - sign * amount, until)

    def is_over(self, now: float) -> bool:
        """Whether all announcements have expired."""
        return self.closed_until <= now and all(until <= now for _, until in self.left.values())


def is_refusal(status: int) -> bool:
    """Whether a response with this status asks the client to wait."""
    return status == 429 or status >= 500
