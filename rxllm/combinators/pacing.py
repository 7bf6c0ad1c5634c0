"""How much may begin when: a `Rate` that the program sets, and the `ServerLimits` that a server announces.

Both are plain arithmetic on a clock that the caller reads. They know no event loops, threads or requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

__all__ = ["INSTANT", "Rate", "ServerLimits", "Span"]

INSTANT = 1e-6  # seconds; clocks cannot tell shorter spans apart
SPANS = 240  # a rate counts in spans of this fraction of its period, so that its memory and its time are constant


class Span:
    """What began within a short span of time.

    Attributes:
        first: when the first of it began.
        last: when the last of it began.
        amount: how much it is, as far as is known.
    """

    __slots__ = ("amount", "first", "last")

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.amount = 0.0


class Rate:
    """At most `limit` in each period of `seconds`, evenly paced.

    Two rules hold at once. The *window* keeps the promise: what began in the last `seconds` never exceeds `limit`.
    The *pace* spreads it: `burst` may begin together, and the next ones follow at the average rate.

    An amount above `limit` begins when nothing else has begun in the window, so that it never waits for ever.

    Args:
        limit: the amount in each period.
        seconds: the period.
        burst: how many of equal amount may begin together; None allows a sixtieth of the limit, and at least one.
    """

    __slots__ = ("burst", "due", "limit", "per_second", "seconds", "spans", "taken")

    def __init__(self, limit: float, seconds: float, burst: int | None) -> None:
        self.limit = limit
        self.seconds = seconds
        self.burst = burst
        self.per_second = limit / seconds
        self.spans: deque[Span] = deque()
        self.taken = 0.0  # by all spans
        self.due = 0.0  # when the pace has caught up with all that began

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much may begin."""
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
        """Counts so much that begins now."""
        spans = self.spans
        if not spans or now - spans[-1].first > self.seconds / SPANS:
            spans.append(Span(now))
        span = spans[-1]
        span.last = max(span.last, now)
        self.due = max(self.due, now)
        self.change(span, 0.0, amount)
        return span

    def change(self, span: Span, before: float, after: float) -> None:
        """Corrects an amount that was counted."""
        self.due += (min(after, self.limit) - min(before, self.limit)) / self.per_second
        if self.spans and span.first >= self.spans[0].first:  # else it has left the window
            span.amount += after - before
            self.taken += after - before

    def _forget(self, now: float) -> None:
        spans = self.spans
        while spans and spans[0].last + self.seconds <= now + INSTANT:
            self.taken -= spans.popleft().amount
        if not spans:
            self.taken = 0.0


class ServerLimits:
    """What one server has announced: how long it takes nothing, and how much it still takes."""

    __slots__ = ("closed_until", "left")

    def __init__(self) -> None:
        self.closed_until = 0.0
        self.left: dict[str, tuple[float, float]] = {}  # of requests and of tokens: how many, and until when

    def learn(self, status: int, headers: Mapping[str, str], now: float, believed: float) -> bool:
        """Reads the headers of an answer; whether they said anything.

        ``retry-after`` counts only where the server refused: with an answer it closes nothing. No figure counts for
        longer than `believed` seconds.
        """
        from ..wire.rates import allowances, retry_after  # only limiters of models over HTTP pay for it

        wait = retry_after(headers) if is_refusal(status) else None
        if wait is not None:
            self.closed_until = max(self.closed_until, now + min(wait, believed))
        announced = list(allowances(headers))
        for allowance in announced:
            self.left[allowance.of] = (allowance.remaining, now + min(allowance.seconds, believed))
        return wait is not None or bool(announced)

    def wait(self, tokens: float, now: float) -> float:
        """Seconds until the server takes a request of so many tokens."""
        wait = max(0.0, self.closed_until - now)
        for of, amount in (("requests", 1.0), ("tokens", tokens)):
            left, until = self.left.get(of, (amount, 0.0))
            # A request that is larger than all that the server ever takes is the server's to refuse.
            if left < amount and until > now:
                wait = max(wait, until - now)
        return wait

    def take(self, tokens: float, sign: int) -> None:
        """Counts a request of so many tokens that begins, or that did not begin after all (-1)."""
        for of, amount in (("requests", 1.0), ("tokens", tokens)):
            if of in self.left:
                left, until = self.left[of]
                self.left[of] = (left - sign * amount, until)

    def is_over(self, now: float) -> bool:
        """Whether all that was announced has passed."""
        return self.closed_until <= now and all(until <= now for _, until in self.left.values())


def is_refusal(status: int) -> bool:
    """Whether a server that answers so asks its clients to wait."""
    return status == 429 or status >= 500
