"""`GrowingJSON`: the value of a JSON document that is still arriving.

The value only grows. It shows what no later text can take back: a string grows, objects and lists grow, and a number,
a word (``true``, ``false``, ``null``) or a key appears when it is whole.
"""

from __future__ import annotations

from typing import Any, final

from .outline import Outline
from .reading import NOTHING, JSONReader

__all__ = ["NOTHING", "GrowingJSON"]

# The cost of a copy, and the credit that the text earns for it. The unit is the copy of 16 characters, which takes
# about 1 ns. Large lists and objects take longer than these figures, because they do not fit into the CPU's caches.
_OPEN, _MEMBER, _ELEMENT = 24, 20, 16  # an open object or list, each of its members, each of its elements
_CREDIT = 2**17  # paid for at the beginning, so that small values make a draft at each change
_EARNED = 64  # paid for by each character of text


@final
class GrowingJSON(JSONReader):
    """Reads a JSON document, and gives its value so far as drafts.

    A copy is made only when the text since the last one pays for it. So the total cost is linear in the length of the
    document, however large its open lists and strings become.

    Attributes:
        outline: which strings of the document may grow; None if all may.
        length: the number of characters of the open string, if it is visible.
        is_growing: whether a string is open and visible.
        paid: what the drafts so far have cost, less the credit at the beginning.
    """

    __slots__ = ("is_growing", "length", "outline", "paid")

    def __init__(self, outline: Outline | None = None) -> None:
        super().__init__()
        self.outline = outline
        self.is_growing = False
        self.length = 0
        self.paid = -_CREDIT

    def next_draft(self) -> Any:
        """Return the value so far if it has changed and the text pays for the copy, else `NOTHING`."""
        if not self.has_changed:
            return NOTHING
        cost = self.length // 16 if self.is_growing else 0
        for each in self.open:
            cost += _OPEN + len(each.value) * (_ELEMENT if each.key is None else _MEMBER)
        if self.paid + cost > self.offset * _EARNED:
            return NOTHING
        self.paid += cost
        return self.draft()

    def draft(self) -> Any:
        """Return the value so far; `NOTHING` if no part of it is visible yet.

        The draft is a copy of what is still open. It shares the closed parts, which never change, with other drafts.
        """
        self.has_changed = False
        if self.is_growing:
            self.pieces = ["".join(self.pieces)]
            self._show(self.pieces[0])
        value: Any = NOTHING
        for each in reversed(self.open):
            copy = each.value.copy()
            if value is not NOTHING:
                copy[-1 if each.key is None else each.key] = value
            value = copy
        return self.root if value is NOTHING else value

    def _begin_text(self) -> None:
        self.is_growing = self.outline is None or self._outline_here(self.outline).grows
        if self.is_growing:
            self.length = 0
            self._add("")

    def _outline_here(self, outline: Outline) -> Outline:
        """Return the outline of the value that comes now. The last elements of the outer lists are open already."""
        for each in self.open:
            is_innermost = each is self.open[-1]
            outline = outline.at(len(each.value) - (not is_innermost) if each.key is None else each.key)
        return outline

    def _grow(self, text: str) -> None:
        self.pieces.append(text)
        if self.is_growing:
            self.length += len(text)
            self.has_changed = True

    def _end_value(self, value: bool | float | str | None) -> None:
        if self.is_growing:
            self.is_growing = False
            self._show(value)
            self.state = JSONReader._separator if self.open else JSONReader._end
        else:
            super()._end_value(value)

    def _show(self, text: object) -> None:
        """Put the open string, as far as it has come, in the place of its beginning."""
        if not self.open:
            self.root = text
        else:
            innermost = self.open[-1]
            innermost.value[-1 if innermost.key is None else innermost.key] = text
