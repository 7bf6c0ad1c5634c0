"""`Room`: the room for the batches of a job in the vendor's queue, which vendors limit by requests or by tokens."""

from __future__ import annotations

import asyncio

from ..errors import ProviderError, RxllmError
from .parts import Part
from .patience import pause

__all__ = ["Room"]

REFUSALS = 20  # refusals of rows that are sent alone, at most


class Room:
    """Which batches of a job are at the vendor. The event loop of the job calls all methods.

    Attributes:
        running: the number of batches at the vendor, or about to be.
        most: the number of rows for which the queue has room, if it had none for more; else None.
    """

    def __init__(self) -> None:
        self.running = 0
        self.most: int | None = None
        self._freed = asyncio.Event()  # set when a batch ends, and replaced

    def enter(self) -> None:
        """Note that a batch is about to be created: others may be refused because of it."""
        self.running += 1

    def leave(self, *, has_room: bool) -> None:
        """Note that a batch is not at the vendor any more. Without room, others wait on, unless none is left."""
        self.running -= 1
        if has_room or not self.running:
            self._freed.set()
            self._freed = asyncio.Event()

    async def wait(self, part: Part, error: RxllmError, *, is_alone: bool) -> None:
        """Wait until the queue may have room for a part that the vendor has refused.

        Args:
            part: the part.
            error: the vendor's error.
            is_alone: whether no other batch of the job was at the vendor. Then the part may be too large for the queue.

        Raises:
            RxllmError: the queue had no room for it alone, too often.
        """
        is_timed = isinstance(error, ProviderError) and error.retry_after is not None
        if is_alone and not self.running:
            if part.refusals > REFUSALS:
                raise error
            if not is_timed:
                self.most = max(1, len(part.rows) // 2)
        if is_timed or not self.running:
            await pause(part.refusals, error)
        else:
            await self._freed.wait()
