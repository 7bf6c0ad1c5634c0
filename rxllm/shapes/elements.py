"""`ElementReader`: the elements of a list in a JSON document that is still arriving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, final

from ..errors import ParseError
from .problems import MAX_DEPTH, too_deep
from .reading import JSONReader, State, matcher
from .shape import WRAPPER

__all__ = ["ElementReader"]

# Each reads as far as the piece of text goes. The quantifiers are possessive, so that they take linear time.
_IN_QUOTES = r'(?:[^"\\]++|\\.)*+'
_quoted_run = matcher(rf'(?s){_IN_QUOTES}(?:(")|(\\?)\Z)')  # 1: the end of the string, 2: a backslash at the end
_unquoted_run = matcher(  # 1: a string that the text does not end, 2: a backslash at its end
    rf'(?s)(?:[^"{{}}\[\]]++|"{_IN_QUOTES}")*+("{_IN_QUOTES}(\\?)\Z)?'
)
_CLOSING = {"{": "}", "[": "]"}


@final
class ElementReader(JSONReader):
    """Reads a JSON document, and calls a function with the text of each element of one list when the element is whole.

    It only looks for the end of an element. The decoder of the element checks whether the text is valid.

    Attributes:
        key: the key of the list in the document, which is an object. None if the document may also be the list itself.
        take: called with the text of each element.
        level: the depth of the list while it is open, else 0.
        is_found: whether the list has begun.
        whole: the text of the latest number or word.
        waiting: pieces of text that are not read yet.
        closing: the brackets that close the open parts of the open element, the innermost last.
        is_quoted: whether the text is within a string of that element.
        is_escaped: whether the text is after a backslash in that string.
    """

    __slots__ = ("closing", "is_escaped", "is_found", "is_quoted", "key", "level", "take", "waiting", "whole")

    def __init__(self, key: str | None, take: Callable[[str], object]) -> None:
        super().__init__()
        self.key = key
        self.take = take
        self.level = 0
        self.whole = ""
        self.closing: list[str] = []
        self.waiting: list[str] = []
        self.is_found = self.is_quoted = self.is_escaped = False

    @property
    def path(self) -> str:
        """The path of the list."""
        return f"$.{self.key or WRAPPER}" if isinstance(cast("object", self.root), dict) else "$"

    def feed(self, text: str) -> None:
        """Read the next piece of the document.

        Raises:
            ParseError: the document is not valid JSON, or it is more than `MAX_DEPTH` levels deep.
        """
        if self.closing and "}" not in text and "]" not in text:  # the element cannot end here
            self.waiting.append(text)
            return
        if self.waiting:
            text = "".join(self.waiting) + text
            self.waiting = []
        super().feed(text)

    def end(self) -> None:
        """Note that no more text comes.

        Raises:
            ParseError: the document is incomplete, it ends with an invalid number, or it has no list.
        """
        super().feed("".join(self.waiting))
        super().end()
        if self.is_found:
            return
        expected = "a list" if self.key is None else f"an object with a list under the key {self.key!r}"
        found = "a value of another type"
        if self.path != "$":
            keys = ", ".join(map(repr, cast("dict[str, Any]", self.root))) or "none"
            found = f"an object with the keys {keys:.80}; items(…, key=…) names the key of the list"
        raise ParseError(f"The answer should be {expected}, but it is {found}.", reason="mismatch", path="$")

    # ── the list ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_in_list(self) -> bool:
        """Return whether an element comes now, or has just ended."""
        return self.level > 0 and self.level == len(self.open)

    def _is_the_list(self) -> bool:
        """Return whether a list that begins now is the one."""
        if not self.open:
            return self.key is None
        return len(self.open) == 1 and self.open[0].key == (self.key or WRAPPER)

    def _begin(self, value: dict[str, Any] | list[Any], state: State, position: int) -> int:
        if self._is_in_list():
            self.state = ElementReader._element
            return position
        is_the_list = isinstance(value, list) and not self.is_found and self._is_the_list()
        end = super()._begin(value, state, position)
        if is_the_list:
            self.is_found = True
            self.level = len(self.open)
        return end

    def _close(self, position: int) -> int:
        if self._is_in_list():
            self.level = 0
        return super()._close(position)

    def _begin_string(self, text: str, position: int, *, is_key: bool) -> int:
        if not self._is_in_list():
            return super()._begin_string(text, position, is_key=is_key)
        self.state = ElementReader._element
        self.is_quoted = True
        self.pieces.append('"')
        return position + 1

    def _end_scalar(self, text: str, end: int) -> None:
        self.whole = "".join(self.pieces)
        super()._end_scalar(text, end)

    def _add(self, value: Any) -> None:
        if self._is_in_list():
            self.take(self.whole)
        else:
            super()._add(value)

    # ── an element ───────────────────────────────────────────────────────────────────────────────────────────────

    def _element(self, text: str, position: int) -> int:
        """Read on in an element that is an object, a list or a string, up to its end."""
        start, size, closing = position, len(text), self.closing
        while position < size:
            if self.is_quoted:
                run = _quoted_run(text, position + self.is_escaped)
                position = run.end()
                self.is_quoted = run[1] is None
                self.is_escaped = bool(run[2])
            else:
                run = _unquoted_run(text, position)
                position = run.end()
                if run[1] is not None:
                    self.is_quoted = True
                    self.is_escaped = bool(run[2])
                elif position < size:
                    position = self._bracket(text, position)
            if not closing and not self.is_quoted:
                self.whole = "".join([*self.pieces, text[start:position]])
                self.pieces = []
                self._end_value(None)
                return position
        self.pieces.append(text[start:])
        return size

    def _bracket(self, text: str, position: int) -> int:
        """Read a bracket of the element."""
        character = text[position]
        if character in _CLOSING:
            if len(self.open) + len(self.closing) == MAX_DEPTH:
                raise too_deep()
            self.closing.append(_CLOSING[character])
        elif character != self.closing.pop():
            self._refuse(text, position, "the other closing bracket")
        return position + 1
