"""`SharedTurn`: the place of one request among those of other processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from ..bounds import MAX_WAIT
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from .limiter import Limiter
from .own_share import Asked, Reserved
from .pacing import is_refusal
from .participant import Participant
from .queueing import Ticket
from .redis_limits import RedisLimits

__all__ = ["SharedTurn"]


class SharedTurn:
    """A request that the limiter of this process has admitted, and that the other processes must admit, too.

    Args:
        limits: the shared limits.
        asked: what the request takes.
        max_wait: the longest wait in seconds, from its arrival in the queue; None does not limit it.
    """

    def __init__(self, limits: RedisLimits, asked: Asked, max_wait: float | None) -> None:
        self._limits = limits
        self._asked = asked
        self._max_wait = max_wait
        self._participant: Participant | None = None
        self._reserved: Reserved | None = None

    @classmethod
    def of(cls, limiter: Limiter, tokens: float) -> SharedTurn | None:
        """Return the turn of a request; None if its limiter shares nothing."""
        shared, queue = limiter._shared, limiter._queue  # pyright: ignore[reportPrivateUsage]
        if shared is None:
            return None
        places = limiter._concurrency  # pyright: ignore[reportPrivateUsage]
        return cls(shared, Asked(queue.rates, tokens, places), queue.max_wait)

    def wait(self, ticket: Ticket) -> Source[None]:
        """Emit when the request may start.

        Errors: `RateLimited` if the wait would exceed `max_wait`; or if Redis does not answer and the limits are
            strict.
        """
        most = None if self._max_wait is None else max(0.0, ticket.entered + self._max_wait - ticket.now())

        async def turn(_: Scheduler) -> AsyncIterator[None]:
            participant = self._participant = await self._limits.participant()
            self._reserved = await participant.start(self._asked, most)
            yield None

        return source(turn)

    def count(self, tokens: float) -> None:
        """Correct the tokens of the request."""
        if self._participant is not None and self._reserved is not None:
            self._participant.count(self._asked, self._reserved, tokens)

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """Let the other processes wait, too, if the server asks for it."""
        from ..wire.rates import retry_after  # imported here, because only models over HTTP need it

        seconds = retry_after(headers) if is_refusal(status) else None
        if seconds is not None and self._participant is not None:
            self._participant.close_for(min(seconds, MAX_WAIT))

    def end(self) -> None:
        """Give the place back, once the request is closed."""
        if self._participant is not None and self._reserved is not None:
            self._participant.end(self._asked, self._reserved)
            self._reserved = None
