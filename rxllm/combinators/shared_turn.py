"""`SharedTurn`: the place of one request among those of other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

from ..bounds import MAX_WAIT
from ..errors import RateLimited
from ..runtime.scheduler import Scheduler, Timers, daemon
from ..runtime.source import Source, source
from .limiter import Limiter
from .pacing import Rate, is_refusal
from .queueing import Counted
from .redis_limits import Booking, RedisLimits, Share

__all__ = ["SharedTurn"]


class SharedTurn:
    """A request that the limiter of this process has admitted, and that the other processes must admit, too.

    Args:
        limits: the shared limits.
        rates: the rates of the limiter.
        tokens: the estimated tokens of the request.
        max_wait: the longest wait in seconds; None does not limit it.
    """

    def __init__(
        self, limits: RedisLimits, rates: Sequence[tuple[Counted, Rate]], tokens: float, max_wait: float | None
    ) -> None:
        self._limits = limits
        self._max_wait = max_wait
        self._tokens = max(tokens, 1.0)
        self._counted = [of for of, _ in rates]
        self._shares = [
            _share(number, rate, 1.0 if of == "requests" else tokens) for number, (of, rate) in enumerate(rates)
        ]
        self._booking: Booking | None = None

    @classmethod
    def of(cls, limiter: Limiter, tokens: float) -> SharedTurn | None:
        """Return the turn of a request; None if its limiter shares nothing."""
        shared, queue = limiter._shared, limiter._queue  # pyright: ignore[reportPrivateUsage]
        return None if shared is None else cls(shared, queue.rates, tokens, queue.max_wait)

    def wait(self) -> Source[None]:
        """Emit when the request may start. A request that leaves before gives its place back.

        Errors: `RateLimited` if the wait would exceed `max_wait`.
        """

        async def turn(_: Scheduler) -> AsyncIterator[None]:
            booking = await self._limits.book(self._shares)
            starts = False
            try:
                if self._max_wait is not None and booking.wait > self._max_wait:
                    raise RateLimited(
                        f"The request was not sent: the shared limits {self._limits.name!r} are full, and it could "
                        f"start in {booking.wait:.3g} s at the earliest. Limiter(max_wait=…) allows longer waits.",
                        retry_after=booking.wait,
                        code="limiter",
                    )
                await asyncio.sleep(booking.wait)
                starts = True
                self._booking = booking
                yield None
            finally:
                if not starts and booking.is_shared:
                    await self._limits.settle(self._shares, [-1.0] * len(self._shares))

        return source(turn)

    def count(self, tokens: float, scheduler: Timers) -> None:
        """Correct the tokens of the request."""
        if self._booking is not None and self._booking.is_shared and "tokens" in self._counted:
            part = tokens / self._tokens - 1
            parts = [part if of == "tokens" else 0.0 for of in self._counted]
            _run(self._limits.settle(self._shares, parts), scheduler)

    def heard(self, status: int, headers: Mapping[str, str], scheduler: Timers) -> None:
        """Let the other processes wait, too, if the server asks for it."""
        from ..wire.rates import retry_after  # imported here, because only models over HTTP need it

        seconds = retry_after(headers) if is_refusal(status) else None
        if seconds is not None:
            _run(self._limits.close(min(seconds, MAX_WAIT)), scheduler)


def _share(number: int, rate: Rate, amount: float) -> Share:
    cost = min(amount, rate.limit) / rate.per_second
    early = max(0.0, rate.seconds / 60 - cost) if rate.burst is None else (rate.burst - 1) * cost
    return Share(str(number), cost, early)


def _run(work: Awaitable[Any], scheduler: Timers) -> None:
    """Start work without waiting for it. Its errors are ignored."""

    async def done(_: Scheduler) -> AsyncIterator[None]:
        await work
        yield None

    source(done).subscribe(on_error=lambda _: None, scheduler=daemon(scheduler))
