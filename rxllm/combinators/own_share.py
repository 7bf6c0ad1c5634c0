"""`OwnShare`: the share of one event loop, while it cannot share its limits; and what a request takes of limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from attrs import frozen

from .pacing import Rate
from .queueing import Counted

__all__ = ["Asked", "Change", "OwnShare", "Reserved", "name_of"]

Change = Callable[[float, float], None]
"""Corrects the amount that a rate counts: called with the amount before and after."""


@frozen
class Asked:
    """What a request takes.

    Attributes:
        rates: the rates of its limiter.
        tokens: its tokens, estimated.
        places: the limit of concurrency; None if there is none.
    """

    rates: Sequence[tuple[Counted, Rate]]
    tokens: float
    places: int | None

    def amount(self, of: Counted) -> float:
        """Return its amount of requests or tokens."""
        return 1.0 if of == "requests" else self.tokens


@frozen
class Reserved:
    """A reserved request.

    Attributes:
        wait: the seconds until it may start.
        changes: what corrects its amounts.
    """

    wait: float
    changes: Sequence[tuple[Counted, Change]]


class OwnShare:
    """The rates of a share, which begin where the shared ones were.

    Args:
        members: the number of event loops that share the limits.
        dues: for each rate, the time when its average has caught up with all starts.
    """

    def __init__(self, members: int, dues: Mapping[str, float]) -> None:
        self._members = members
        self._dues = dues
        self._rates: dict[str, Rate] = {}

    def has_place(self, asked: Asked, held: int) -> bool:
        """Return whether the request may have a place beside those that are held. A share has at least one."""
        return asked.places is None or held < max(1, asked.places // self._members)

    def wait(self, asked: Asked) -> float:
        """Return the seconds until the rates admit the request."""
        now = time.monotonic()
        return max((self._rate(of, whole).wait(asked.amount(of), now) for of, whole in asked.rates), default=0.0)

    def take(self, asked: Asked, wait: float) -> Reserved:
        """Reserve the request."""
        start = time.monotonic() + wait
        changes: list[tuple[Counted, Change]] = []
        for of, whole in asked.rates:
            rate = self._rate(of, whole)
            changes.append((of, partial(rate.change, rate.take(asked.amount(of), start))))
        return Reserved(wait, changes)

    def _rate(self, of: Counted, whole: Rate) -> Rate:
        name = name_of(of, whole)
        if name not in self._rates:
            burst = None if whole.burst is None else max(1, whole.burst // self._members)
            rate = self._rates[name] = Rate(whole.limit / self._members, whole.seconds, burst)
            rate.due = self._dues.get(name, 0.0)
        return self._rates[name]


def name_of(of: Counted, rate: Rate) -> str:
    """Return the name of a rate among those of its account."""
    return f"{of}/{rate.seconds:g}s"
