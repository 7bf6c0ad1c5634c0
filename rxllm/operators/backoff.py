"""Whether and when to ask again: `backoff`."""

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
"""How many seconds to wait after the error of the attempt of this number, counted from 1; None gives up."""


def is_retryable(error: Exception) -> bool:
    """Whether asking again may help, as the error itself says."""
    return isinstance(error, RxllmError) and error.retryable


def _chance() -> float:
    """As ``random.random``, which would be pickled with the state of its generator."""
    return random.random()  # noqa: S311  (a wait is no secret)


def backoff(first: float = 0.5, most: float = 30.0, *, chance: Callable[[], float] = _chance) -> Delay:
    """Waits twice as long each time, and as long as the provider asks where it does.

    Half of the wait is left to chance, so that clients that failed together do not come back together. A provider
    that asks for more than a minute is not waited for.

    Args:
        first: seconds after the first failure.
        most: seconds, at most.
        chance: numbers from 0 to 1.

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
        """The wait after this attempt."""
        asked = error.retry_after if isinstance(error, ProviderError) else None
        if asked is None:
            return min(self.most, self.first * 2.0 ** min(attempt - 1, 64)) * (0.5 + self.chance() / 2)
        return None if asked > MAX_WAIT else asked * (1 + self.chance() / 10)


USUAL_DELAY = backoff()


def is_no_misuse(error: Exception) -> bool:
    """Whether another may do better: a mistake of the calling program is to be seen, not to be got round."""
    # Nor is an exit an error, though a source tells of it as one.
    return isinstance(cast("object", error), Exception) and not isinstance(error, MisuseError)
