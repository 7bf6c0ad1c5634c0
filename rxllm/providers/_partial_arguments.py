"""Arguments that arrive as values for paths: ``"Fresh"``, then ``" apple"``, for ``$.items[0].name``."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from ..errors import ProtocolError
from ._documents import list_of, object_of, text_of
from ._limits import Limits

__all__ = ["PartialArguments"]

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")
_DEPTH = 100  # steps of a path
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


class PartialArguments:
    """A growing object. Each piece has a path, and a value or the next characters of a text for this path."""

    __slots__ = ("_limits", "_pieces", "_place", "_root", "_size")

    def __init__(self, root: dict[str, Any], limits: Limits) -> None:
        self._limits = limits
        self._root = root
        self._place = ""  # the path of the incomplete text
        self._pieces: list[str] = []
        self._size = 0

    def add(self, piece: dict[str, Any]) -> None:
        """Add one piece.

        Raises:
            ProtocolError: the path is malformed, or it contradicts an earlier path, or the object grows too large.
        """
        place = text_of(piece.get("jsonPath"))
        kind = next((name for name in _VALUES if name in piece), None)
        if kind is None:
            return
        value = None if kind == "nullValue" else piece[kind]
        self._size += len(place) + (len(value) if isinstance(value, str) else 8)
        self._limits.check_size(self._size, "An argument")
        if kind == "stringValue" and self._pieces and place == self._place:
            self._pieces.append(text_of(value))
        else:
            self._end()
            self._set(place, value)
            if kind == "stringValue" and piece.get("willContinue"):
                self._place, self._pieces = place, [text_of(value)]
        if not piece.get("willContinue"):
            self._end()

    def text(self) -> str:
        """Return the object as JSON text."""
        self._end()
        return msgspec.json.encode(self._root).decode()

    def _end(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._set(self._place, "".join(pieces))

    def _set(self, place: str, value: object) -> None:
        *steps, last = _steps(place)
        target: Any = self._root
        for step, following in zip(steps, [*steps[1:], last], strict=False):
            if not _has(target, step):
                _put(target, step, [] if isinstance(following, int) else {}, place)
            target = target[step]
        _put(target, last, value, place)


def _has(target: Any, step: str | int) -> bool:
    """Return whether the target has a value at this step. `_put` refuses targets that are not lists or objects."""
    if isinstance(step, int):
        return step < len(list_of(target))
    return step in object_of(target)


def _put(target: Any, step: str | int, value: object, place: str) -> None:
    if isinstance(step, str) and isinstance(target, dict):
        target[step] = value
    elif isinstance(step, int) and isinstance(target, list) and step <= len(list_of(cast("object", target))):
        target[step : step + 1] = [value]
    else:
        raise _misplaced(place)


def _steps(place: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 1
    while at < len(place) and place.startswith("$") and len(steps) <= _DEPTH:
        step = _STEP.match(place, at)
        if step is None:
            break
        steps.append(int(step[2]) if step[2] else step[1] or step[3] or step[4] or "")
        at = step.end()
    if not steps or at < len(place) or len(steps) > _DEPTH:
        raise _misplaced(place)
    return steps


def _misplaced(place: str) -> ProtocolError:
    return ProtocolError(f"An argument of a call has a path that does not fit the others: {place!r:.100}.")
