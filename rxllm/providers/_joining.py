"""Joins the messages of one side, for the vendors whose conversations must alternate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["joined"]


def joined(turns: Iterable[dict[str, Any]], name: str = "content") -> list[dict[str, Any]]:
    """Return the turns with those of one role in a row as one, and without empty turns, which the vendors reject.

    Args:
        turns: the turns in the vendor's form.
        name: the field with the list of what a turn contains.
    """
    alternating: list[dict[str, Any]] = []
    for turn in turns:
        if turn[name] and alternating and alternating[-1]["role"] == turn["role"]:
            alternating[-1][name] += turn[name]
        elif turn[name]:
            alternating.append(turn)
    return alternating
