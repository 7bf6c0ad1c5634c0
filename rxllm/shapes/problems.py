"""`Problems`: the places where plain data does not fit a type, collected while the data is read."""

from __future__ import annotations

import decimal
from typing import Any, Final, cast

from ..errors import ParseError

__all__ = [
    "INVALID",
    "KINDS",
    "MAX_DEPTH",
    "Problems",
    "as_array",
    "as_integer",
    "as_object",
    "kind_of",
    "shown",
    "too_deep",
    "typed",
    "unquoted",
]

MAX_DEPTH = 128  # objects and lists within each other
_MAX_PROBLEMS = 20  # in one error; a model could not use more of them
_MAX_EXACT = 2**53  # a float holds each integer up to it
_MAX_STEPS = 24  # of a path that is shown whole

INVALID: Final[Any] = object()
"""A node returns it for data that does not fit. It never reaches the caller, because there is a problem, too."""

KINDS = {
    "null": "null",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "array": "an array",
    "object": "an object",
}
"""JSON's kinds of values, with an article. An integer is also a number."""

_KIND_OF: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    str: "string",
    list: "array",
    dict: "object",
}


def kind_of(value: object) -> str:
    """Return the JSON type of a plain value. Decimals are numbers, too."""
    return _KIND_OF.get(type(value), "number")


def typed(value: object) -> tuple[type, object]:
    """Return a plain value with its type, because True equals 1."""
    return type(value), value


def shown(value: object) -> str:
    """Return a value for an error, cut to 60 characters. A Decimal stands for a number of the answer."""
    return f"{str(value) if isinstance(value, decimal.Decimal) else repr(value):.60}"


def as_integer(value: object) -> int | None:
    """Return a number that has no fraction, such as 3.0, as an integer, else None.

    JSON schema counts such a number as an integer, and some models write integers so. Large ones are no integers here,
    because a float may have lost their last digits.
    """
    if type(value) is int:
        return value
    if isinstance(value, (float, decimal.Decimal)) and -_MAX_EXACT <= value <= _MAX_EXACT and value == int(value):
        return int(value)
    return None


def unquoted(value: object, problems: Problems) -> object:
    """Return the list or the object that a text holds as JSON, else the value itself.

    Many models write a list or an object within the arguments of a tool as a JSON text. This is for places where a text
    does not fit.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    import msgspec  # imported here, as few programs ask for a shape

    try:
        inner: object = msgspec.json.Decoder(float_hook=decimal.Decimal if problems.has_decimals else None).decode(
            value
        )
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return value
    return inner


def as_array(value: object) -> list[Any] | None:
    """Return the value if it is a list, else None."""
    return cast("list[object]", value) if isinstance(value, list) else None


def as_object(value: object) -> dict[str, Any] | None:
    """Return the value if it is a dict, else None."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def too_deep() -> ParseError:
    """Return the error of a document with more than `MAX_DEPTH` levels."""
    return ParseError(f"The JSON of the answer is more than {MAX_DEPTH} levels deep.", reason="malformed")


class Problems:
    """The problems found so far.

    Attributes:
        total: the number of problems, of which the first 20 are kept.
        depth: the number of objects and lists around the value that is read now.
        has_decimals: whether the numbers of the data are Decimals, where they are not integers.
    """

    __slots__ = ("_found", "depth", "has_decimals", "total")

    def __init__(self, *, has_decimals: bool = False) -> None:
        self.has_decimals = has_decimals
        self._found: list[tuple[str, list[str | int]]] = []  # the problem and its path, innermost step first
        self.total = 0
        self.depth = 0

    def add(self, text: str) -> Any:
        """Note a problem of the value that is read now, and return INVALID."""
        self.total += 1
        if len(self._found) < _MAX_PROBLEMS:
            self._found.append((text, []))
        return INVALID

    def expected(self, what: str, value: object) -> Any:
        """Note that the value is of the wrong kind, and return INVALID."""
        return self.add(f"expected {what}, but got {KINDS[kind_of(value)]}")

    def within(self, step: str | int, before: int) -> None:
        """Note that all problems after the first `before` ones lie within a member or an element."""
        for _, steps in self._found[before:]:
            steps.append(step)

    def is_too_deep(self) -> bool:
        """Note a problem if a further object or list would be too deep, and return whether it would."""
        if self.depth < MAX_DEPTH:
            return False
        self.add(f"the value is nested more than {MAX_DEPTH} levels deep")
        return True

    def shown(self) -> list[tuple[str, str]]:
        """Return the text and the path, such as ``$.steps[2].minutes``, of each kept problem."""
        return [(text, _path(steps)) for text, steps in self._found]


def _path(steps: list[str | int]) -> str:
    """Return the path of steps from the innermost one outwards. A long path is cut in its middle."""
    texts = ["$", *map(_step, reversed(steps))]
    if len(texts) > _MAX_STEPS:
        texts[_MAX_STEPS // 2 : -_MAX_STEPS // 2] = ["…"]
    return "".join(texts)


def _step(step: str | int) -> str:
    if isinstance(step, str) and step.isidentifier():
        return f".{step}"
    return f"[{step!r:.60}]"
