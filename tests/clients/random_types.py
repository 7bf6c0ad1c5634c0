"""Random types to ask a model for, with bounded strings and lists."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import random
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, TypedDict

import attrs
import msgspec

__all__ = ["random_type"]

_DEPTH = 3


def random_type(seed: int) -> Any:
    """Return the type of a seed: a class of some library, or a list, dict, tuple, union or plain value."""
    dice = random.Random(seed)
    return dice.choice((_class, _class, _list, _union, _tuple, _plain))(dice, 0)


def _any(dice: random.Random, depth: int) -> Any:
    makers: tuple[Callable[[random.Random, int], Any], ...] = (_plain, _plain, _plain, _optional)
    if depth < _DEPTH:
        makers += (_class, _list, _dict, _tuple, _union)
    return dice.choice(makers)(dice, depth + 1)


def _plain(dice: random.Random, depth: int) -> Any:
    low = dice.randrange(-50, 50)
    return dice.choice(
        (
            Annotated[str, msgspec.Meta(max_length=dice.randrange(1, 9))],
            Annotated[str, msgspec.Meta(pattern=f"^[a-z]{{1,{dice.randrange(1, 5)}}}$")],
            Annotated[int, msgspec.Meta(ge=low, le=low + dice.randrange(1, 500))],
            Literal["red", "green", "blue"],
            Literal[1, 2, "three", None],
            enum.Enum("Size", {"SMALL": "s", "LARGE": "l"}),
            bool,
            dt.date,
            dt.time,
            dt.datetime,
            uuid.UUID,
            decimal.Decimal,
            float,
        )
    )


def _optional(dice: random.Random, depth: int) -> Any:
    return Optional[_any(dice, depth)]  # noqa: UP045


def _list(dice: random.Random, depth: int) -> Any:
    return Annotated[list[_any(dice, depth)], msgspec.Meta(max_length=dice.randrange(1, 4))]


def _dict(dice: random.Random, depth: int) -> Any:
    return dict[str, _any(dice, depth)]


def _tuple(dice: random.Random, depth: int) -> Any:
    return tuple[_any(dice, depth), _any(dice, depth)]


def _union(dice: random.Random, depth: int) -> Any:
    others = dice.choice((bool, float, Literal["none"], list[bool]))
    return _class(dice, depth) | others


def _class(dice: random.Random, depth: int) -> Any:
    names = dice.sample(["name", "size", "items", "note", "when", "of"], dice.randrange(1, 4))
    fields = {name: _any(dice, depth) for name in names}
    name = f"Made{dice.randrange(10_000)}"
    optional = {each for each in names if dice.random() < 0.3}
    ordered = sorted(fields.items(), key=lambda field: field[0] in optional)
    match dice.randrange(4):
        case 0:
            return attrs.make_class(
                name,
                {
                    each: attrs.field(type=kind, default=None if each in optional else attrs.NOTHING)
                    for each, kind in ordered
                },
            )
        case 1:
            return dataclasses.make_dataclass(
                name, [(each, kind, None) if each in optional else (each, kind) for each, kind in ordered]
            )
        case 2:
            return msgspec.defstruct(
                name, [(each, kind, None) if each in optional else (each, kind) for each, kind in ordered]
            )
        case _:
            return TypedDict(name, fields)
