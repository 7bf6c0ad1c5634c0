"""Waits between requests to a batch API: `patiently` sends a request again after a passing failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import ProviderError, RxllmError
from ..operators.backoff import is_retryable

__all__ = ["patiently", "pause"]

T = TypeVar("T")

POLL = (30.0, 60.0, 120.0, 300.0)  # seconds between two looks at a batch; the last one repeats
FAILURES = 20  # requests that may fail one after another


async def pause(count: int, error: Exception | None = None) -> None:
    """Wait before the next look: the longer the more looks there were, and at least as long as the vendor asks.

    Args:
        count: how many looks there were.
        error: the error of the last one.
    """
    asked = error.retry_after if isinstance(error, ProviderError) else None
    await asyncio.sleep(max(POLL[min(count, len(POLL) - 1)], asked or 0.0))


async def patiently(send: Callable[[], Awaitable[T]], batch: str = "", advice: str = "") -> T:
    """Return the response to a request, which is sent again after a passing failure.

    Args:
        send: sends the request. It may be sent any number of times.
        batch: the batch that it is about.
        advice: what to do if the vendor does not know the batch.

    Raises:
        RxllmError: the vendor refused the request, or it failed too often.
    """
    failures = 0
    while True:
        try:
            return await send()
        except RxllmError as error:
            if batch and isinstance(error, ProviderError) and error.status == 404:
                raise RxllmError(
                    f"The vendor has no batch {batch}, or no results of it any more: {error}. {advice}"
                ) from error
            failures += 1
            if not is_retryable(error) or failures > FAILURES:
                raise
            await pause(failures - 1, error)
