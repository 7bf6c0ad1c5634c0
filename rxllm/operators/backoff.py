"""When to retry: `backoff`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

from attrs import field, frozen

from ..bounds import MAX_WAIT
from ..errors import ProviderError, RxllmError
from ..misuse import MisuseError

__all__ = ["USUAL_DELAY", "Delay", "backoff", "is_no_misuse", "is_retryable"]

Delay = Callable[[Exception, int], float | None]
"""Returns the seconds to wait after an error in attempt n, counted from 1; None gives up."""


def is_retryable(error: Exception) -> bool:
    """Return whether a retry may help: the error's `retryable`."""
    return isinstance(error, RxllmError) and error.retryable


def _chance() -> float:
    """Return ``random.random()``, whose own pickle would contain the state of its generator."""
    return random.random()  # noqa: S311  (a wait is not a secret)


def backoff(first: float = 0.5, most: float = 30.0, *, chance: Callable[[], float] = _chance) -> Delay:
    """Double the wait after each attempt; use the provider's ``Retry-After`` instead, if it sends one.

    Half of the wait is random, so that clients that failed together do not retry together. If the provider asks for
    more than a minute, there is no retry.

    Args:
        first: seconds to wait after the first failure.
        most: the longest wait in seconds.
        chance: returns random numbers from 0 to 1.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (there "equal jitter").
    """
    return _Backoff(first, most, chance)


@frozen
class _Backoff:
    first: float
    most: float
    chance: Callable[[], float] = field(repr=False)

    def __repr__(self) -> str:
        return f"backoff({self.first}, {self.most})"

    def __call__(self, error: Exception, attempt: int) -> float | None:
        """Return the wait after this attempt."""
        requested = error.retry_after if isinstance(error, ProviderError) else None
        if requested is None:
            return min(self.most, self.first * 2.0 ** min(attempt - 1, 64)) * (0.5 + self.chance() / 2)
        return None if requested > MAX_WAIT else requested * (1 + self.chance() / 10)


USUAL_DELAY = backoff()


def is_no_misuse(error: Exception) -> bool:
    """Whether another model may succeed. A mistake of the calling program would fail there, too, and must be seen."""
    # A source may also report an exit, such as KeyboardInterrupt, which is not an Exception.
    return isinstance(cast("object", error), Exception) and not isinstance(error, MisuseError)
