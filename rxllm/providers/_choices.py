"""`Choices` selects the choices of a chat stream that belong to the answer.

rxllm requests one answer, so a frame normally has one choice. The index of the choice says little: Foundry Local and
TGI increment it with each frame, other servers always send 1 or -1. A server may also send several answers although
the request asks for one, in one frame or in alternating frames. Then the first answer counts. GitHub Copilot splits one
answer of Claude: its text and its tool call are two choices of one frame, with the same index.

There are three states:

* Only the first index has sent content.
* Another index has sent content. `Choices` holds back its choices until it can decide. If the first index returns, the
  server sends several answers, and the held choices belong to another answer. If the first index has not returned
  after `PATIENCE` choices, or at the end, the server increments or decrements the index.
* Decided: `_is_one` (all choices belong to the answer) or `_is_several` (only the choices of the first index do).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Choices"]

PATIENCE = 8  # choices


class Choice(Protocol):
    """The fields of a choice that `Choices` reads."""

    index: Any
    finish_reason: Any


C = TypeVar("C", bound=Choice)


class Choices(Generic[C]):
    """Selects the choices of one answer.

    Attributes:
        first: the index that sent content first; None before any content.
        is_plain: whether a choice with the index 0 surely belongs to the answer.
    """

    __slots__ = ("_finished", "_held", "_is_one", "_is_several", "first", "is_plain")

    def __init__(self) -> None:
        self.first: Any = None
        self.is_plain = False
        self._held: list[C] = []
        self._is_one = self._is_several = False
        self._finished = False  # the first index has sent its finish reason

    def begin(self, index: Any = 0) -> None:
        """Set the index of the first choice with content."""
        self.first = index
        self.is_plain = index == 0

    def taken(self, choices: Sequence[C | None] | None, *, speaks: bool = True) -> Sequence[C]:
        """Return the choices that belong to the answer: held choices first, then those of this frame.

        Args:
            choices: the choices of the frame.
            speaks: whether the choices have content.
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
        if not speaks and not self._held:  # the frame with the finish reason may have another index
            return present
        return self._doubted(present[0], index)

    def released(self) -> Sequence[C]:
        """Return the held choices at the end of the stream."""
        held, self._held = self._held, []
        return held

    def _one_of(self, present: Sequence[C]) -> Sequence[C]:
        if self.first is None:
            indices = [choice.index or 0 for choice in present]
            self.begin(0 if 0 in indices else indices[0])
        self._held.clear()
        self._decide(several=True)
        return [choice for choice in present if (choice.index or 0) == self.first]

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
