"""Which of a chat server's choices are the answer.

A request asks for one answer, so a frame has one choice. Its index tells little: Foundry Local and TGI count it up with
each frame, others always say 1 or -1. A server may also send several answers that nobody asked for, in one frame or in
turns. Then the first answer counts.

The state is one of three:

* the first index is the only one that has spoken;
* another index spoke: its choices are held back, since the next frames tell. If the first index comes back, the server
  sends several answers, and what was held back belongs to another. If it has not come back after `PATIENCE` choices, or
  at the end, the server counts up, or down;
* decided: `_is_one` (every choice belongs to the answer) or `_is_several` (only those of the first index).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Choices"]

PATIENCE = 8  # choices


class Choice(Protocol):
    """What is read of a choice here."""

    index: Any
    finish_reason: Any


C = TypeVar("C", bound=Choice)


class Choices(Generic[C]):
    """Picks the choices of one answer.

    Attributes:
        first: the index that spoke first; None before any has.
        is_plain: whether a choice of the index 0 belongs to the answer, whatever came before.
    """

    __slots__ = ("_finished", "_held", "_is_one", "_is_several", "first", "is_plain")

    def __init__(self) -> None:
        self.first: Any = None
        self.is_plain = False
        self._held: list[C] = []
        self._is_one = self._is_several = False
        self._finished = False  # the first index told why it ended

    def begin(self, index: Any = 0) -> None:
        """The first choice that says something has this index."""
        self.first = index
        self.is_plain = index == 0

    def taken(self, choices: Sequence[C | None] | None, *, speaks: bool = True) -> Sequence[C]:
        """Those of a frame's choices that belong to the answer, after what was held back before them.

        Args:
            choices: as the frame has them.
            speaks: whether there is any content in them.
        """
        present = [choice for choice in choices or () if choice is not None]
        if len(present) > 1:
            return self._one_of(present)
        if not present or self._is_one:
            return present
        index = present[0].index or 0
        if self.first is None:
            if speaks:
                self.begin(index)
            return present
        if index == self.first:
            if self._held:
                self._held.clear()
                self._decide(several=True)
            self._finished = self._finished or bool(present[0].finish_reason)
            return present
        if self._is_several or self._finished:
            return ()
        if _falls(index, self.first) and not _falls(index, self._held[-1].index if self._held else self.first):
            self._held.clear()  # a server that counts down sends no index twice
            self._decide(several=True)
            return ()
        if not speaks and not self._held:  # what ends an answer may have an index of its own
            return present
        return self._doubted(present[0], index)

    def released(self) -> Sequence[C]:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, []
        return held

    def _one_of(self, present: Sequence[C]) -> Sequence[C]:
        if self.first is None:
            indices = [choice.index or 0 for choice in present]
            self.begin(0 if 0 in indices else indices[0])
        self._held.clear()
        self._decide(several=True)
        return [choice for choice in present if (choice.index or 0) == self.first][:1]

    def _doubted(self, choice: C, index: Any) -> Sequence[C]:
        fresh = all((held.index or 0) != index for held in self._held)
        self._held.append(choice)
        self.is_plain = False
        if len(self._held) >= PATIENCE or (choice.finish_reason and fresh and len(self._held) > 1):
            self._decide(several=False)
            return self.released()
        return ()

    def _decide(self, *, several: bool) -> None:
        self._is_several, self._is_one = several, not several
        self.is_plain = not several or self.first == 0


def _falls(index: Any, before: Any) -> bool:
    """Whether an index is smaller than one before it."""
    return isinstance(index, int) and isinstance(before, int) and index < before
