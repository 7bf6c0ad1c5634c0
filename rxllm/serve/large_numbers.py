"""Numbers that a browser changes: JavaScript holds each number as a float, so it rounds a large whole number.

Ids of Discord and X are such numbers. The page gets their JSON as text, too, and sends the text back.
"""

from __future__ import annotations

import json
from typing import Any, cast

__all__ = ["has_large_number", "same_in_a_browser"]

_EXACT = 2**53  # up to this size JavaScript reads and writes every whole number as it is


def has_large_number(value: object) -> bool:
    """Return whether a value of JSON has a number that a browser may change."""
    if isinstance(value, dict):
        return any(map(has_large_number, cast("dict[str, object]", value).values()))
    if isinstance(value, list):
        return any(map(has_large_number, cast("list[object]", value)))
    return isinstance(value, (int, float)) and abs(value) > _EXACT


def same_in_a_browser(one: str, other: str) -> bool:
    """Return whether two JSON texts have the same value for a browser. Text that is not JSON has none."""
    try:
        return bool(_in_a_browser(one) == _in_a_browser(other))
    except ValueError:
        return False


def _in_a_browser(text: str) -> Any:
    return json.loads(text, parse_int=float)
