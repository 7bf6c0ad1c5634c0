"""Readable names for the values of parametrised tests, which pytest would only number: ``delta0``, ``<lambda>3``.

The names are the same in each process, as pytest-xdist needs them: addresses are left out, sets are sorted.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

__all__ = ["name_of"]

LONGEST = 60  # characters


class _Names(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 40, LONGEST
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 4

    def repr_bytes(self, value: bytes, level: int) -> str:
        """Show the beginning."""
        return repr(value) if len(value) <= self.maxstring else f"{value[: self.maxstring]!r}..."

    def repr_instance(self, value: object, level: int) -> str:
        """Show the value as it shows itself, without what differs between two processes."""
        text = re.sub(r" at 0x[0-9a-f]+|'[0-9a-f]{8,}'", "", repr(value))
        return _short(type(value).__name__ if "frozenset(" in text else text)


_names = _Names()


def name_of(value: object) -> str | None:
    """Return a name for a value; None for a value that pytest names well itself."""
    if isinstance(value, (str, bytes)):
        return None if len(value) <= LONGEST else _short(str(value[:LONGEST]))
    if value is None or isinstance(value, (bool, int, float, complex, type, re.Pattern)):
        return None
    code = getattr(value, "__code__", None)
    if code is not None and code.co_name == "<lambda>":
        return ".".join(_called(code)) or None
    if callable(value) and hasattr(value, "__name__"):
        return None
    try:
        return _short(_names.repr(value))
    except Exception:  # of a value that must not be shown
        return None


def _called(code: Any) -> list[str]:
    """The names that a lambda uses, in order."""
    inner = (each for each in code.co_consts if hasattr(each, "co_names"))
    return [*code.co_names, *code.co_freevars, *(name for each in inner for name in _called(each))]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
