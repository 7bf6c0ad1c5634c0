"""`JSONReader`: reads JSON text in pieces of any size.

The reader is a state machine. A state is the method that reads on from a position of the text; it returns the next
position, and sets the next state. The states follow each other so::

    value ─┬─► string ⇄ escape ─┬─► separator ─┬─► key ─► string ─► colon ─► value
           ├─► scalar ──────────┤              ├─► value                (in a list)
           └─► first key,       │              └─► end                  (only spaces may follow)
               first element ───┘

It reads JSON as RFC 8259 defines it, and refuses what `json.loads` accepts beyond that: ``NaN``, ``Infinity`` and lone
surrogates. It also refuses a key that comes twice in one object, because the second value would take back the first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, cast, final

from ..errors import ParseError
from .problems import MAX_DEPTH, too_deep

__all__ = ["NOTHING", "JSONReader", "Open", "State", "matcher"]


State = Callable[[Any, str, int], int]
"""A method of a reader: it takes text and a position, and returns the next position."""


def matcher(pattern: str) -> Callable[[str, int], re.Match[str]]:
    """Return the matcher of a pattern that matches everywhere."""
    return cast("Callable[[str, int], re.Match[str]]", re.compile(pattern).match)


# Each reads as far as the text goes, and may read nothing. Tokens that often follow each other are read at once.
_spaces = matcher(r"[ \t\n\r]*")
_comma = matcher(r"(?:[ \t\n\r]*(,))?[ \t\n\r]*")
_colon_and_spaces = matcher(r"(?:[ \t\n\r]*(:))?[ \t\n\r]*")
_string_run = matcher(r'[^"\\\x00-\x1f]*')  # the characters of a string that need no escape
_whole_string = matcher(r'(?:"([^"\\\x00-\x1f]*)")?')
_scalar_run = matcher(r"[-+.0-9A-Za-z]*")
_is_number = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?").fullmatch
_is_hexadecimal = re.compile(r"[0-9a-fA-F]{4}").fullmatch

_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HIGH, _LOW, _AFTER_LOW = 0xD800, 0xDC00, 0xE000  # the halves of surrogate pairs
_SECOND_HALF = "the second half of a surrogate pair"
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


@final
class _Nothing:
    """The class of `NOTHING`, the missing value, because None is a value of JSON."""

    __slots__ = ()


NOTHING: Final = _Nothing()


@final
class Open:
    """An object or a list that is still open.

    Attributes:
        key: the key of the member that comes or grows now; None in a list.
    """

    __slots__ = ("key", "value")

    def __init__(self, value: dict[str, Any] | list[Any]) -> None:
        self.value: Any = value
        self.key: str | None = None


class JSONReader:
    """Builds the value of a JSON document that arrives piece by piece.

    Attributes:
        root: the value; `NOTHING` before it begins.
        has_changed: whether the value has changed since a subclass set this to False.
        open: the open objects and lists, the outermost first.
        offset: the number of characters before the current piece of text.
        pieces: the pieces of the open string, number or word.
        is_key: whether the open string is a key.
        digits: the digits of an open escape so far.
        high: the first half of an open surrogate pair, or 0.
    """

    __slots__ = ("digits", "has_changed", "high", "is_key", "offset", "open", "pieces", "root", "state")

    def __init__(self) -> None:
        self.state: State = JSONReader._value
        self.open: list[Open] = []
        self.root: Any = NOTHING
        self.offset = self.high = 0
        self.pieces: list[str] = []
        self.has_changed = self.is_key = False
        self.digits = ""

    def feed(self, text: str) -> None:
        """Read the next piece of the document.

        Raises:
            ParseError: the document is not valid JSON, or it is more than `MAX_DEPTH` levels deep.
        """
        position, size = 0, len(text)
        while position < size:
            position = self.state(self, text, position)
        self.offset += size

    def end(self) -> None:
        """End the document.

        Raises:
            ParseError: the document is incomplete, or it ends with an invalid number.
        """
        if self.state is JSONReader._scalar and not self.open:
            self._end_scalar("", 0)
        if self.state is not JSONReader._end:
            raise ParseError("The JSON of the answer is incomplete.", reason="cut")

    # ── states ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _value(self, text: str, position: int) -> int:
        """Read the beginning of a value."""
        character = text[position]
        if character == '"':
            return self._begin_string(text, position, is_key=False)
        if character == "{":
            return self._begin({}, JSONReader._first_key, position)
        if character == "[":
            return self._begin([], JSONReader._first_element, position)
        if character in "-0123456789tfn":
            self.state = JSONReader._scalar
            return self._scalar(text, position)
        return self._skip(text, position, "a value")

    def _first_element(self, text: str, position: int) -> int:
        """Read the beginning of a list's first element, or the end of the list."""
        return self._close(position) if text[position] == "]" else self._value(text, position)

    def _first_key(self, text: str, position: int) -> int:
        """Read the beginning of an object's first key, or the end of the object."""
        return self._close(position) if text[position] == "}" else self._key(text, position)

    def _key(self, text: str, position: int) -> int:
        """Read the beginning of a key."""
        if text[position] == '"':
            return self._begin_string(text, position, is_key=True)
        return self._skip(text, position, "a key in double quotes")

    def _colon(self, text: str, position: int) -> int:
        """Read the colon after a key."""
        colon = _colon_and_spaces(text, position)
        if colon[1] is not None:
            self.state = JSONReader._value
            return colon.end()
        return self._skip(text, position, 'a ":"')

    def _separator(self, text: str, position: int) -> int:
        """Read the comma after a value, or the end of the object or list."""
        is_list = self.open[-1].key is None
        comma = _comma(text, position)
        if comma[1] is not None:
            self.state = JSONReader._value if is_list else JSONReader._key
            return comma.end()
        if text[position] == ("]" if is_list else "}"):
            return self._close(position)
        return self._skip(text, position, 'a "," or a "]"' if is_list else 'a "," or a "}"')

    def _end(self, text: str, position: int) -> int:
        """Read the spaces after the document."""
        return self._skip(text, position, "the end")

    def _scalar(self, text: str, position: int) -> int:
        """Read on in a number or a word."""
        end = _scalar_run(text, position).end()
        self.pieces.append(text[position:end])
        if end < len(text):
            self._end_scalar(text, end)
        return end

    def _string(self, text: str, position: int) -> int:
        """Read on in a string."""
        end = _string_run(text, position).end()
        if end > position:
            self._grow(text[position:end])
        if end == len(text):
            return end
        if text[end] == '"':
            whole = "".join(self.pieces)
            self.pieces = []
            self._end_string(whole)
        elif text[end] == "\\":
            self.state = JSONReader._escape
        else:
            self._refuse(text, end, "an escape for this control character")
        return end + 1

    def _escape(self, text: str, position: int) -> int:
        """Read the character after a backslash."""
        character = text[position]
        if character == "u":
            self.digits = ""
            self.state = JSONReader._hexadecimal
        elif self.high:
            self._refuse(text, position, _SECOND_HALF)
        elif character not in _ESCAPES:
            self._refuse(text, position, "an escape of JSON after the backslash")
        else:
            self._grow(_ESCAPES[character])
            self.state = JSONReader._string
        return position + 1

    def _hexadecimal(self, text: str, position: int) -> int:
        """Read on in the four digits of an escape."""
        end = min(position + 4 - len(self.digits), len(text))
        self.digits += text[position:end]
        if len(self.digits) < 4:
            return end
        if not _is_hexadecimal(self.digits):
            self._refuse(text, end - 1, "four hexadecimal digits after \\u")
        code = int(self.digits, 16)
        if self.high:
            if not _LOW <= code < _AFTER_LOW:
                self._refuse(text, end - 1, _SECOND_HALF)
            code += 0x10000 + ((self.high - _HIGH) << 10) - _LOW
            self.high = 0
        elif _LOW <= code < _AFTER_LOW:
            self._refuse(text, end - 1, "the first half of a surrogate pair")
        elif _HIGH <= code < _LOW:
            self.high = code
            self.state = JSONReader._middle
            return end
        self._grow(chr(code))
        self.state = JSONReader._string
        return end

    def _middle(self, text: str, position: int) -> int:
        """Read the backslash between the halves of a surrogate pair."""
        if text[position] != "\\":
            self._refuse(text, position, _SECOND_HALF)
        self.state = JSONReader._escape
        return position + 1

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, value: dict[str, Any] | list[Any], state: State, position: int) -> int:
        """Open an object or a list."""
        if len(self.open) == MAX_DEPTH:
            raise too_deep()
        self._add(value)
        self.open.append(Open(value))
        self.state = state
        return position + 1

    def _close(self, position: int) -> int:
        """Close the innermost object or list."""
        self.open.pop()
        self.state = JSONReader._separator if self.open else JSONReader._end
        return position + 1

    def _begin_string(self, text: str, position: int, *, is_key: bool) -> int:
        """Open a string, and read it to its end if the text contains the end."""
        self.is_key = is_key
        whole = _whole_string(text, position)
        if whole[1] is not None:
            self._end_string(whole[1])
            return whole.end()
        self.state = JSONReader._string
        if not is_key:
            self._begin_text()
        return position + 1

    def _end_string(self, whole: str) -> None:
        if self.is_key:
            self._end_key(whole)
        else:
            self._end_value(whole)

    def _begin_text(self) -> None:
        """Note that a string begins that is a value, and not a key."""

    def _grow(self, text: str) -> None:
        """Append to the open string."""
        self.pieces.append(text)

    def _end_key(self, key: str) -> None:
        """Close a key."""
        innermost = self.open[-1]
        if key in innermost.value:
            raise ParseError(f"An object in the JSON of the answer has the key {key!r:.60} twice.", reason="malformed")
        innermost.key = key
        self.state = JSONReader._colon

    def _end_value(self, value: bool | float | str | None) -> None:
        """Close a string, or add a number or a word."""
        self._add(value)
        self.state = JSONReader._separator if self.open else JSONReader._end

    def _end_scalar(self, text: str, end: int) -> None:
        """Close a number or a word, which ends at this position."""
        scalar = "".join(self.pieces)
        self.pieces = []
        if scalar in _WORDS:
            self._end_value(_WORDS[scalar])
            return
        number = _is_number(scalar)
        if number is None:
            self._refuse(scalar + text[end:], 0, "a number or a word of JSON", end - len(scalar))
        try:
            value = float(scalar) if number.lastindex else int(scalar)
        except ValueError:  # Python limits integers to 4,300 digits
            value = math.inf
        if value in (math.inf, -math.inf):
            self._refuse(scalar, 0, "a smaller number", end - len(scalar))
        self._end_value(value)

    def _add(self, value: Any) -> None:
        """Put a value where the next one belongs."""
        self.has_changed = True
        if not self.open:
            self.root = value
            return
        innermost = self.open[-1]
        if innermost.key is None:
            innermost.value.append(value)
        else:
            innermost.value[innermost.key] = value

    def _skip(self, text: str, position: int, expected: str) -> int:
        """Skip spaces; anything else is an error."""
        end = _spaces(text, position).end()
        if end == position:
            self._refuse(text, position, expected)
        return end

    def _refuse(self, text: str, position: int, expected: str, before: int = 0) -> NoReturn:
        """Raise the error of a document that is not valid JSON. `before` counts from the current piece of text."""
        raise ParseError(
            f"The answer is not valid JSON. After {self.offset + before + position} characters it has "
            f"{text[position : position + 20]!r} instead of {expected}.",
            reason="malformed",
        )
