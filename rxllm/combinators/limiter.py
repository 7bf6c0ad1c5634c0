"""`Limiter`: how many requests may run at once, and how many may begin in a while."""

from __future__ import annotations

import os
import weakref
from typing import Any, NoReturn, Self

from ..misuse import MisuseError, shown
from .pacing import Rate
from .queueing import Counted, Queue

__all__ = ["Limiter"]

_MOST = 10**12  # of anything: beyond it clocks and counters lose their precision

_limiters: weakref.WeakSet[Limiter] = weakref.WeakSet()


class Limiter:
    """Lets requests begin in the order in which they came, as many as may. Models, loops and threads may share it.

    ::

        limiter = rxllm.Limiter(concurrency=8, requests_per_minute=500)
        llm = rxllm.limited(rxllm.OpenAI("gpt-5-mini"), limiter)

    Requests are paced: after a burst of one second's worth the next ones follow at the average rate, so that 60 a
    minute is one each second, not 60 at once and then silence. In no period do more begin than the limit says. A
    request's tokens are estimated (4 characters each, and its ``max_tokens``) and corrected when the answer counts
    them.

    It also obeys servers, each for itself: ``retry-after`` of a refusal, and the headers that say how much a server
    still takes. A request that a server would make wait for more than 60 seconds fails with `RateLimited` at once.

    Args:
        concurrency: how many requests run at once. A request that was left counts until its connection is closed.
        requests_per_minute: how many begin in a minute.
        tokens_per_minute: how many tokens, of input and output, in a minute.
        requests_per_second: how many begin in a second; 0.5 is one in two seconds.
        burst: how many may begin together before the pace holds; by default one second's worth of a limit per minute,
            and at least 1.
        max_wait: seconds that a request waits, for its turn and for a server, before it fails with `RateLimited`; 0
            rejects what cannot begin at once. None waits for its turn as long as it takes, and for a server for 60 s.

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
            raise MisuseError("burst= says how far a rate may be exceeded: give requests_per_minute= or another rate.")
        self._limits = {**whole, "requests_per_second": requests_per_second, "max_wait": max_wait}
        self._queue = Queue(concurrency, tuple(rates), max_wait)
        _limiters.add(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same limiter: copies of a model share one limit, as the server that they ask does."""
        return self

    def __reduce__(self) -> NoReturn:
        raise MisuseError(
            f"A Limiter cannot be pickled, because it counts the requests of one process: {self!r}. Make one in each "
            "process, with that process's share of the limit."
        )

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={limit}" for name, limit in self._limits.items() if limit is not None)
        return f"Limiter({given})"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _empty_queues() -> None:
    """In a forked child the parent's requests do not run, and none of them will ever leave."""
    for limiter in _limiters:
        limiter._queue.reset()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_empty_queues)
