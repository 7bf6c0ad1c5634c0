"""JSON objects of arguments that arrive in fragments: whether their text is whole, and how their values grow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ._documents import list_of, object_of

__all__ = ["Shape", "grown"]

_MARKS = r'(?s)\\.?|["{}\[\]]'  # the escapes, quotes and brackets of JSON; the last escape may be cut


class Shape:
    """Tells whether JSON text that arrives in pieces is a whole object with a field. It reads each piece once."""

    __slots__ = ("_cut", "_depth", "_has_field", "_in_string", "_read")

    def __init__(self) -> None:
        self._read = self._depth = 0
        self._in_string = self._has_field = False
        self._cut = ""  # the backslash of an escape whose character has not arrived

    def is_whole(self, pieces: Sequence[str]) -> bool:
        """Return whether all pieces are a whole object with a field."""
        return not self.is_open(pieces) and self._has_field

    def is_open(self, pieces: Sequence[str]) -> bool:
        """Return whether an object is open at the end of all pieces."""
        text = "".join((self._cut, *pieces[self._read :]))
        self._read, self._cut = len(pieces), ""
        for mark in re.findall(_MARKS, text):
            if mark == '"':
                self._in_string = not self._in_string
                self._has_field = True
            elif mark == "\\":
                self._cut = mark
            elif len(mark) == 1 and not self._in_string:
                self._depth += 1 if mark in "{[" else -1
        return self._depth != 0 or self._in_string


def grown(before: object, after: object) -> Any:
    """Return a value with its later fragment. Objects are merged; a text or a list is the next piece, or all so far."""
    if isinstance(before, str) and isinstance(after, str):
        return after if after.startswith(before) else before + after
    items, more = list_of(before), list_of(after)
    if items and more:
        return more if more[: len(items)] == items else items + more
    fields, later = object_of(before), object_of(after)
    if fields and later:
        return {**fields, **{name: grown(fields.get(name), value) for name, value in later.items()}}
    return before if before is not None and after in ([], {}) else after
