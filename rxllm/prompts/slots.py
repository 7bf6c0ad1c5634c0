"""Slots: the places for values in the texts of a template, and how a template is read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from attrs import frozen

from ..misuse import MisuseError

__all__ = ["Slot", "TString", "doubled", "segments_of"]

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FIELD = re.compile(r"([^!:]*)(?:!([^:]*))?(?::(.*))?", re.DOTALL)
_CONVERSIONS: dict[str, Callable[[object], str]] = {"r": repr, "s": str, "a": ascii}
_DOUBLE = "Write {{ and }} for braces that stand for themselves, as in JSON."


class TString(Protocol):
    """A template string of Python 3.14, such as ``t"Hello {name}"``."""

    @property
    def strings(self) -> Sequence[str]:
        """The texts around the values."""
        ...

    @property
    def interpolations(self) -> Sequence[Any]:
        """The values, each with its conversion and its format."""
        ...


@frozen
class Slot:
    """A place for a value in the text of a turn.

    Attributes:
        name: the name of the variable, or the expression in a t-string.
        conversion: ``r``, or in a t-string also ``s`` and ``a``.
        spec: the format.
        fixed: the value of an expression in a t-string; None for a variable.
    """

    name: str
    conversion: str | None = None
    spec: str = ""
    fixed: tuple[object] | None = None

    def __str__(self) -> str:
        conversion = f"!{self.conversion}" if self.conversion else ""
        return f"{{{self.name}{conversion}{':' if self.spec else ''}{self.spec}}}"

    @property
    def is_plain(self) -> bool:
        """Whether the value is used unchanged, so that it may also be a part or messages."""
        return self.conversion is None and not self.spec

    def filled(self, values: Mapping[str, object]) -> object:
        """Return the value that belongs here."""
        return values[self.name] if self.fixed is None else self.fixed[0]

    def written(self, value: object) -> str:
        """Return the value as text, as an f-string would write it."""
        if self.conversion is not None:
            value = _CONVERSIONS[self.conversion](value)
        elif value is None:
            raise MisuseError(f"The value of {self} in a template is None. Pass a text; it may be empty.")
        elif type(value) in (bytes, bytearray, memoryview):
            kind = type(value).__name__
            raise MisuseError(
                f"The value of {self} in a template is {kind}. Decode the bytes to text, or pass a FilePart."
            )
        try:
            return format(value, self.spec)
        except (TypeError, ValueError) as error:
            raise MisuseError(f"A template cannot write {type(value).__name__} as {self}: {error}.") from None


def segments_of(text: object) -> tuple[str | Slot, ...] | None:
    """Return the texts and slots of a turn; None if it is neither text nor a t-string."""
    if isinstance(text, str):
        return tuple(_read(text))
    if not (hasattr(text, "strings") and hasattr(text, "interpolations")):
        return None
    whole = cast("TString", text)
    found: list[str | Slot] = []
    for string, slot in itertools.zip_longest(whole.strings, whole.interpolations):
        found += [string] if string else []
        if slot is not None:
            found.append(Slot(slot.expression, slot.conversion, slot.format_spec, (slot.value,)))
    return tuple(found)


def _read(text: str) -> Iterator[str | Slot]:
    """Yield the texts and slots of a template."""
    literal: list[str] = []
    end = 0
    for braces in _BRACES.finditer(text):
        literal.append(text[end : braces.start()])
        end = braces.end()
        if braces[0] in ("{{", "}}"):
            literal.append(braces[0][0])
            continue
        slot = _slot(text, braces)
        if whole := "".join(literal):
            yield whole
        literal = []
        yield slot
    literal.append(text[end:])
    if whole := "".join(literal):
        yield whole


def _slot(text: str, braces: re.Match[str]) -> Slot:
    """Return the slot for the braces in a text."""
    found = braces[0]
    if braces[1] is None:
        raise MisuseError(f"A template has a single {found!r} in {_around(text, braces)!r}. {_DOUBLE}")
    name, conversion, spec = cast("re.Match[str]", _FIELD.fullmatch(braces[1])).groups()
    if not name or name.isdigit():
        raise MisuseError(f"A template has {found!r} in {_around(text, braces)!r}. Name the variable. {_DOUBLE}")
    if not name.isidentifier():
        hint = " A variable is a plain name: pass the part of a value under a name of its own." * bool(
            re.match(r"\w+[.\[]", name)
        )
        raise MisuseError(f"A template has {found!r:.60}, which is not a variable.{hint} {_DOUBLE}")
    if conversion not in (None, "r"):
        raise MisuseError(f"A template has {found!r}. Of conversions only !r is allowed.")
    return Slot(name, conversion, spec or "")


def _around(text: str, braces: re.Match[str]) -> str:
    return text[max(0, braces.start() - 15) : braces.end() + 15]


def doubled(text: str) -> str:
    """Return the text as a template writes it."""
    return text.replace("{", "{{").replace("}", "}}")
