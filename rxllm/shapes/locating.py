"""`Locator`: finds the JSON value in an answer that may have prose or a code fence around it."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ParseError
from .shape import Shape

__all__ = ["Locator"]

# An object begins with a brace and a key, or is empty. A brace in prose, as in {name}, begins none.
_OBJECT = re.compile(r'\{[ \t\n\r]*(["}]|$)')
_OBJECT_OR_LIST = re.compile(r'\{[ \t\n\r]*(["}]|$)|\[[ \t\n\r]*([\[{"\]\-0-9tfn]|$)')
_IN_STRING = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["{}\[\]]')


class _Candidate:
    """A part of the text that begins like a JSON value, up to the bracket that ends it.

    Attributes:
        pieces: its text.
        is_whole: whether its last bracket has come.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "is_whole", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.is_whole = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def read(self, text: str) -> int:
        """Read on, and return the number of characters that belong to the candidate."""
        position = 0
        if self._escaped and text:
            self._escaped, position = False, 1
        while match := (_IN_STRING if self._in_string else _OUTSIDE).search(text, position):
            position = match.end()
            mark = match[0]
            if mark == "\\":
                self._escaped = position == len(text)
                position += not self._escaped
            elif mark == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if mark in "{[" else -1
                if self._depth == 0:
                    self.is_whole = True
                    break
        else:
            position = len(text)
        self.pieces.append(text[:position])
        return position


class Locator:
    """Finds the value of a shape in the text of an answer.

    The first candidate is passed on while it grows. If at the end another one is the value, the answer must be taken
    back: the last candidate that fits the type is the value, because a model may quote or draft JSON before it answers.
    If none fits, the last one is the value, so that the error is about it. Without a candidate the whole text is the
    value, and an error will show it.
    """

    def __init__(self, shape: Shape[Any]) -> None:
        self._shape = shape
        self._begins = _OBJECT_OR_LIST if shape.wrapped else _OBJECT
        self._before: list[str] = []  # the text before the first candidate
        self._outside = ""  # the end of the text, which may begin a candidate
        self._candidates: list[_Candidate] = []

    def read(self, text: str) -> str:
        """Add text, and return what of it belongs to the first candidate."""
        shown: list[str] = []
        while text:
            current = self._candidates[-1] if self._candidates else None
            if current is None or current.is_whole:
                text = self._begin(text)
                continue
            size = current.read(text)
            if len(self._candidates) == 1:
                shown.append(text[:size])
            text = text[size:]
        return "".join(shown)

    def _begin(self, text: str) -> str:
        """Look for the next candidate, and return the text from its beginning on."""
        if not self._candidates:
            self._before.append(text)
        text = self._outside + text
        match = self._begins.search(text)
        if match is None:
            self._outside = ""
            return ""
        if match.end() == len(text) and not match[0][1:].strip():  # the next character decides
            self._outside = text[match.start() :]
            return ""
        self._outside = ""
        self._candidates.append(_Candidate())
        return text[match.start() :]

    def end(self) -> str | None:
        """Return the text of the value if it is not the first candidate, else None."""
        if not self._candidates:
            return "".join(self._before)
        first, *others = self._candidates
        if not others:
            return None
        chosen = next((each for each in reversed(self._candidates) if self._fits(each)), others[-1])
        return None if chosen is first else chosen.text

    @property
    def has_shown(self) -> bool:
        """Whether a part of the text was passed on."""
        return bool(self._candidates)

    def _fits(self, candidate: _Candidate) -> bool:
        try:
            self._shape.decode_text(candidate.text)
        except ParseError:
            return False
        return True
