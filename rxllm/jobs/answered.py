"""`Answered`: answers of a batch, on their way to the journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from attrs import frozen

__all__ = ["NO_NUMBER", "Answered"]

NO_NUMBER = -1
"""Stands for the number of a row in an answer that belongs to no row."""

SLICE = 100  # answers that are written at once


@frozen
class Answered:
    """Answers of a batch.

    Attributes:
        pairs: the answers, with the numbers of their rows; an error with `NO_NUMBER` stops the job.
        end: writes down that all answers of the batch are in the journal; None if more follow. It blocks.
    """

    pairs: list[tuple[int, Any]]
    end: Callable[[], None] | None = None

    async def in_slices(self) -> AsyncIterator[Answered]:
        """Yield the answers a few at a time: to write those of a large batch at once would block the event loop."""
        for start in range(0, len(self.pairs), SLICE):
            yield Answered(self.pairs[start : start + SLICE])
            await asyncio.sleep(0)
        yield Answered([], self.end)
