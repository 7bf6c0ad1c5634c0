"""`Index`: numbers by the digests of texts, in 16 bytes a slot."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

__all__ = ["Index", "short_digest"]

_SMALLEST = 1024  # slots
_FULLEST = 0.85  # the share of used slots at which the table doubles: both tables then take 57 bytes for each digest


def short_digest(text: str) -> int:
    """Return 64 bits of a digest of the text; never 0, which marks a free slot."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") or 1


class Index:
    """A table from digests to numbers. A dict takes five times as many bytes.

    Two arrays of the same length hold the digests and the numbers. A digest stands in the first free slot from its own
    place on, so a search ends at the digest or at a free slot.
    """

    def __init__(self) -> None:
        self._count = 0
        self._make(_SMALLEST)

    def __len__(self) -> int:
        return self._count

    def get(self, digest: int) -> int:
        """Return the number under a digest; 0 if there is none."""
        return self._numbers[self._slot(digest)]

    def set(self, digest: int, number: int) -> None:
        """Set the number under a digest."""
        slot = self._slot(digest)
        if not self._digests[slot]:
            self._count += 1
            if self._count > _FULLEST * len(self._digests):
                self._grow()
                slot = self._slot(digest)
            self._digests[slot] = digest
        self._numbers[slot] = number

    def numbers(self) -> Iterator[int]:
        """Yield all numbers that are not 0."""
        return filter(None, self._numbers)

    def _slot(self, digest: int) -> int:
        digests, mask = self._digests, self._mask
        slot = digest & mask
        while (found := digests[slot]) and found != digest:
            slot = (slot + 1) & mask
        return slot

    def _make(self, slots: int) -> None:
        self._mask = slots - 1
        self._digests = array("Q", [0]) * slots
        self._numbers = array("Q", [0]) * slots

    def _grow(self) -> None:
        digests, numbers = self._digests, self._numbers
        self._make(2 * len(digests))
        for digest, number in zip(digests, numbers, strict=True):
            if digest:
                slot = self._slot(digest)
                self._digests[slot] = digest
                self._numbers[slot] = number
