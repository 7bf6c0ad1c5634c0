"""Unions as shapes: which types can be distinguished in an answer, and how."""

import datetime as dt
import enum
import typing
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions

import rxllm
from rxllm.shapes.nodes import SCALARS
from rxllm.shapes.shape import shape_of


@attrs.frozen
class Cat:
    """A pet."""

    name: str
    lives: int


@attrs.frozen
class Dog:
    """Another pet."""

    name: str
    breed: str = "mixed"


@attrs.frozen
class Puppy:
    """It has all fields of a dog, and no field that a dog lacks."""

    name: str


@attrs.frozen
class Circle:
    """A shape."""

    kind: Literal["circle"]
    size: float


@attrs.frozen
class Square:
    """Another shape."""

    kind: Literal["square"]
    size: float


class One(msgspec.Struct, tag=True):
    """A tagged Struct."""

    size: int


class Two(msgspec.Struct, tag=True):
    """Another."""

    size: int


class Mouse(pydantic.BaseModel):
    """A model."""

    tail: int


class Rat(pydantic.BaseModel):
    """Another model."""

    kind: Literal["rat"]
    tail: int


class Keyed(TypedDict, total=False):
    """A dict."""

    a: int


class Colour(enum.Enum):
    """A colour."""

    RED = "red"


@pytest.mark.parametrize(
    ("kind", "plain", "value"),
    [
        (int | str, 1, 1),
        (int | str, "1", "1"),
        (int | float, 1, 1),
        (float | int, 1, 1),
        (int | float, 1.0, 1.0),
        (Literal["a"] | int, "a", "a"),
        (Literal["today"] | dt.date, "today", "today"),
        (Literal["today"] | dt.date, "2024-05-06", dt.date(2024, 5, 6)),
        (str | Literal["a"], "a", "a"),
        (Colour | int, "red", Colour.RED),
        (list[int] | dict[str, int], {"a": 1}, {"a": 1}),
        (Cat | Dog, {"name": "Tom", "lives": 9}, Cat("Tom", 9)),
        (Cat | Dog, {"name": "Rex"}, Dog("Rex")),
        (Cat | Dog, {"name": "Rex", "breed": None}, Dog("Rex")),
        (Cat | Dog | None, None, None),
        (Circle | Square, {"kind": "square", "size": 1}, Square("square", 1.0)),
        (One | Two, {"type": "Two", "size": 1}, Two(1)),
        (Cat | Mouse, {"tail": 3}, Mouse(tail=3)),
        (Circle | Rat, {"kind": "rat", "tail": 3}, Rat(kind="rat", tail=3)),
        (Cat | Keyed, {"a": 1}, {"a": 1}),
        (Cat | list[Cat] | str, [{"name": "Tom", "lives": 9}], [Cat("Tom", 9)]),
    ],
    ids=str,
)
def test_union_decodes_as_the_type_that_the_value_fits(kind, plain, value):
    """By JSON's kind, by a tag, by a Literal, or by the names of the fields."""
    shape = shape_of(kind)
    assert shape.wrapped
    assert "anyOf" in shape.schema["properties"]["value"]
    decoded = shape.decode(plain)
    assert (type(value), value) == (type(decoded), decoded)


TEXTS = [
    *("true", "0", "1", "-2", "3.0", "1.10", "1e2", "1E400", "0.12345678901234567890123", str(2**70)),
    *(f'"{text}"' for text in ("", "red", "aGk=", "1", "1.50", "2024-05-06", "2024-05-06T07:08:09Z", "07:08:09")),
    *(f'"{text}"' for text in ("PT1H", uuid.UUID(int=7))),
    *("[]", "{}", "[1.10]", '"[1.10]"', '{"a": 1.10}', r'"{\"a\": 1.10}"'),
]


def outcome(kind, text):
    """Return the value of a text with its type, or None if the text does not fit."""
    try:
        value = shape_of(kind).decode_text(text)
    except rxllm.ParseError:
        return None
    return type(value), repr(value)


@pytest.mark.parametrize(
    "kind",
    [
        *(kind for kind in SCALARS if kind is not type(None)),
        *(Colour, Literal[1, "red"], list[Decimal], tuple[Decimal], dict[str, Decimal], list[Decimal | None]),
        *(Annotated[Decimal, "a price"], Annotated[Decimal, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=1)]),
        typing_extensions.TypeAliasType("Price", Decimal),
    ],
    ids=str,
)
def test_member_of_a_union_takes_what_the_type_alone_takes(kind):
    """With the same value, to the last digit. A text of a list or an object counts, too."""
    alone = {text: outcome(kind, text) for text in TEXTS}
    assert any(alone.values())
    assert alone == {text: outcome(typing.Optional[kind], text) for text in TEXTS}  # noqa: UP045


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Decimal | int, "1.5", Decimal("1.5")),
        (Decimal | int, "2", 2),
        (Decimal | float, "1.5", 1.5),
        (Decimal | float, "2", 2.0),
        (Decimal | float, '"1.5"', Decimal("1.5")),
        (Decimal | Literal[1], "1", 1),
        (Decimal | Literal[1], "2", Decimal(2)),
        (typing_extensions.TypeAliasType("Price", Decimal | None) | int, "1.5", Decimal("1.5")),
    ],
    ids=str,
)
def test_decimal_reads_the_numbers_that_no_other_type_takes(kind, text, value):
    """A Decimal is asked for as a text, so a number is first of all a value of the other types."""
    assert (type(value), value) == (type(decoded := shape_of(kind).decode_text(text)), decoded)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Dog | Puppy, "Dog and Puppy can't be told apart in an answer: both are written as an object. Give each class"),
        (Cat | dict[str, Any], "Cat and dict can't be told apart"),
        (dict[str, int] | dict[str, str], "dict and dict"),
        (list[int] | list[str], "list and list .* as an array"),
        (str | dt.date, "str and date .* as a string"),
        (dt.date | dt.datetime, "date and datetime"),
        (Colour | str, "red.* and str"),
        (list[str | dt.date], "str and date"),
        (int | Any, "int and anything"),
    ],
    ids=str,
)
def test_types_that_cannot_be_told_apart_are_refused(kind, message):
    """The answer would be decoded as one of them by chance."""
    with pytest.raises(rxllm.MisuseError, match=message):
        shape_of(kind)


@pytest.mark.parametrize(
    ("kind", "plain", "problems"),
    [
        (int | None, "x", ("expected null or an integer, but got a string, at $",)),
        (Circle | Square, {"kind": "square", "size": "x"}, ("expected a number, but got a string, at $.size",)),
        (Cat | Dog, {"name": "Tom", "lives": "x"}, ("expected an integer, but got a string, at $.lives",)),
        (Cat | Dog, {"nam": "Tom", "lives": 9}, ("the field 'name' is missing, at $", "there is no field 'nam', at $")),
        (Annotated[Decimal, msgspec.Meta(ge=0)] | None, -1.5, ("expected at least 0, but got -1.5, at $",)),
        (One | Two, {"type": "Two", "size": "x"}, ("expected an integer, but got a string, at $.size",)),
    ],
    ids=str,
)
def test_problems_are_those_of_the_closest_type(kind, plain, problems):
    """The model probably meant the closest type, so these problems help it to correct the answer."""
    with pytest.raises(rxllm.ParseError) as caught:
        shape_of(kind).decode(plain)
    assert problems == caught.value.problems
