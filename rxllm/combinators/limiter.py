"""`Limiter`: how many requests may run at once, and how many may start per second or minute."""

from __future__ import annotations

import os
import weakref
from typing import Any, NoReturn, Self

from ..misuse import MisuseError, shown
from ..public import Public
from .pacing import Rate
from .queueing import Counted, Queue
from .redis_limits import RedisLimits

__all__ = ["Limiter"]

_MOST = 10**12  # of anything: beyond it clocks and counters lose their precision

_limiters: weakref.WeakSet[Limiter] = weakref.WeakSet()


class Limiter(metaclass=Public):
    """Admits requests in the order of arrival, within its limits. Models, event loops and threads may share it.

    ::

        limiter = rxllm.Limiter(concurrency=8, requests_per_minute=500)
        llm = rxllm.limited(rxllm.OpenAI("gpt-5-mini"), limiter)

    Requests are paced: after a burst of one second's worth, they follow at the average rate. So 60 a minute means one
    each second, not 60 at once and a long pause. No period exceeds the limit. The tokens of a request are estimated
    (one for 4 characters, plus its ``max_tokens``), and corrected when the answer reports its usage.

    The limiter also follows each server: its ``retry-after`` when it refuses a request, and its rate-limit headers. A
    request fails at once with `RateLimited`, if a server asks it to wait more than 60 seconds.

    Args:
        concurrency: the largest number of running requests. A disposed request counts until its connection is closed.
        requests_per_minute: the largest number of requests that start in a minute.
        tokens_per_minute: the largest number of input and output tokens in a minute.
        requests_per_second: the largest number of requests that start in a second; 0.5 means one in two seconds.
        burst: how many requests may start together before the pace applies; by default one second's worth of a limit
            per minute, and at least 1.
        max_wait: seconds that a request waits, for its turn and for a server, before it fails with `RateLimited`. 0
            rejects a request that cannot start at once. None waits for its turn without a limit, and for a server at
            most 60 s.
        shared: `RedisLimits`, with which all processes together keep the limits.

    Raises:
        MisuseError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        requests_per_second: float | None = None,
        burst: int | None = None,
        max_wait: float | None = None,
        shared: RedisLimits | None = None,
    ) -> None:
        whole = {
            "concurrency": concurrency,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "burst": burst,
        }
        for name, limit in whole.items():
            if limit is not None and not (isinstance(limit, int) and _is_number(limit) and 1 <= limit <= _MOST):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise MisuseError(f"{name} must be a whole number from 1 to {_MOST:,}, not {shown(limit)}.")
        if requests_per_second is not None and not (
            _is_number(requests_per_second) and 1 / _MOST <= requests_per_second <= _MOST
        ):
            raise MisuseError(
                f"requests_per_second must be a number above 0, up to {_MOST:,}, not {shown(requests_per_second)}."
            )
        if max_wait is not None and not (_is_number(max_wait) and 0 <= max_wait <= _MOST):
            raise MisuseError(
                f"max_wait must be a number of seconds from 0 to {_MOST:,}, or None, not {shown(max_wait)}."
            )
        rates: list[tuple[Counted, Rate]] = []
        if requests_per_second is not None:
            count = max(1, int(requests_per_second))
            rates.append(("requests", Rate(count, count / requests_per_second, burst)))
        if requests_per_minute is not None:
            rates.append(("requests", Rate(requests_per_minute, 60.0, burst)))
        if tokens_per_minute is not None:
            rates.append(("tokens", Rate(tokens_per_minute, 60.0, burst)))
        if burst is not None and not rates:
            raise MisuseError(
                "burst= needs a rate that it applies to, but none was given. Add requests_per_minute= or another rate."
            )
        if shared is not None and not isinstance(shared, RedisLimits):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"shared must be RedisLimits(url, name), not {type(shared).__name__}.")
        if shared is not None and not rates and concurrency is None:
            raise MisuseError("shared= needs a limit to share, such as concurrency=, but none was given.")
        self._shared = shared
        self._concurrency = concurrency
        self._limits = {**whole, "requests_per_second": requests_per_second, "max_wait": max_wait}
        self._queue = Queue(concurrency, tuple(rates), max_wait)
        _limiters.add(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same limiter: copies of a model ask the same server, so they share its limit."""
        return self

    def __reduce__(self) -> NoReturn:
        raise MisuseError(
            f"A Limiter cannot be pickled, because it counts the requests of one process: {self!r}. Make one in each "
            "process, with that process's share of the limit."
        )

    def __repr__(self) -> str:
        limits = ", ".join(f"{name}={limit}" for name, limit in self._limits.items() if limit is not None)
        return f"Limiter({limits})" if self._shared is None else f"Limiter({limits}, shared={self._shared!r})"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _empty_queues() -> None:
    """Empty the queues in a forked child, where the requests of the parent never end."""
    for limiter in _limiters:
        limiter._queue.reset()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_empty_queues)
