"""Constraints of types: each is sent and checked, or refused."""

import dataclasses
import datetime as dt
import decimal
from typing import Annotated, Any, Literal

import annotated_types as at
import msgspec
import pydantic
import pytest
import typing_extensions

import rxllm
from rxllm.shapes.shape import shape_of

UTC = dt.UTC


def schema_of(kind):
    """Return the schema of a value within its wrapper."""
    return shape_of(kind).schema["properties"]["value"]


@pytest.mark.parametrize(
    ("kind", "words", "good", "bad"),
    [
        (Annotated[int, msgspec.Meta(ge=1, lt=5)], {"minimum": 1, "exclusiveMaximum": 5}, 4, 5),
        (Annotated[float, msgspec.Meta(gt=0, le=1)], {"exclusiveMinimum": 0, "maximum": 1}, 1.0, 0.0),
        (Annotated[int, msgspec.Meta(multiple_of=5)], {"multipleOf": 5}, 10, 11),
        (Annotated[str, msgspec.Meta(pattern="^a+$")], {"pattern": "^a+$"}, "aa", "b"),
        (Annotated[str, msgspec.Meta(min_length=2, max_length=3)], {"minLength": 2, "maxLength": 3}, "äö", "a"),
        (Annotated[list[int], msgspec.Meta(max_length=1)], {"maxItems": 1}, [1], [1, 2]),
        (Annotated[int, at.Ge(1)], {"minimum": 1}, 1, 0),
        (Annotated[int, at.Interval(gt=1, lt=3)], {"exclusiveMinimum": 1, "exclusiveMaximum": 3}, 2, 3),
        (Annotated[str, at.Len(1, 2)], {"minLength": 1, "maxLength": 2}, "a", ""),
        (Annotated[float, at.MultipleOf(0.5)], {"multipleOf": 0.5}, 1.5, 1.2),
        (Annotated[list[str], at.MinLen(1)], {"minItems": 1}, ["a"], []),
        (
            Annotated[int, pydantic.Field(gt=3, description="Days.")],
            {"exclusiveMinimum": 3, "description": "Days."},
            4,
            3,
        ),
        (Annotated[str, pydantic.Field(pattern="^a", max_length=2)], {"pattern": "^a", "maxLength": 2}, "ab", "abc"),
        (Annotated[str, pydantic.StringConstraints(min_length=2)], {"minLength": 2}, "ab", "a"),
        (pydantic.PositiveInt, {"exclusiveMinimum": 0}, 1, 0),
        (pydantic.StrictInt, {}, 1, True),
        (Annotated[Annotated[int, at.Ge(1)], at.Le(3)], {"minimum": 1, "maximum": 3}, 3, 4),
        (Annotated[int, "Days.", at.Ge(1)], {"description": "Days.", "minimum": 1}, 1, 0),
        (Annotated[int, "One.", "Two."], {"description": "One.\n\nTwo."}, 1, "1"),
        (Annotated[int, typing_extensions.Doc("Days.")], {"description": "Days."}, 1, "1"),
        (Annotated[int, msgspec.Meta(examples=[3])], {"examples": [3]}, 1, "1"),
        (Annotated[int, msgspec.Meta(extra_json_schema={"x-unit": "km"})], {"x-unit": "km"}, 1, "1"),
        (Annotated[float, at.Unit("km")], {"description": "in km"}, 1.0, "1"),
        (Annotated[int, list, 5], {}, 1, "1"),
    ],
    ids=str,
)
def test_constraint_becomes_a_word_of_the_schema_and_is_checked(kind, words, good, bad):
    """The constraints of msgspec, annotated_types and pydantic give the same result."""
    schema = schema_of(kind)
    assert words == {word: value for word, value in schema.items() if word not in ("type", "items")}
    assert good == shape_of(kind).decode(good)
    with pytest.raises(rxllm.ParseError):
        shape_of(kind).decode(bad)


@pytest.mark.parametrize(
    ("kind", "description", "good", "bad"),
    [
        (Annotated[decimal.Decimal, at.Ge(decimal.Decimal("0.5"))], "(at least 0.5)", "0.5", "0.4"),
        (Annotated[dt.date, at.Gt(dt.date(2024, 1, 1))], "(greater than 2024-01-01)", "2024-01-02", "2024-01-01"),
        (Annotated[bytes, msgspec.Meta(max_length=2)], "(at most 2 bytes)", "aGk=", "aGkh"),
        (
            Annotated[dt.datetime, msgspec.Meta(tz=True)],
            "(with a time zone)",
            "2024-05-06T07:08:09Z",
            "2024-05-06T07:08:09",
        ),
        (Annotated[dt.datetime, at.Timezone(...)], "(with a time zone)", "2024-05-06T07:08:09Z", "2024-05-06T07:08:09"),
        (
            Annotated[dt.datetime, at.Timezone(None), "When."],
            "When.\n\n(without a time zone)",
            "2024-05-06T07:08:09",
            "2024-05-06T07:08:09Z",
        ),
    ],
    ids=str,
)
def test_constraint_without_a_word_of_json_schema_goes_into_the_description(kind, description, good, bad):
    """The model reads it there, and the answer is checked."""
    assert description == schema_of(kind)["description"]
    assert shape_of(kind).decode(good)
    with pytest.raises(rxllm.ParseError):
        shape_of(kind).decode(bad)


def test_naive_time_is_sent_without_the_format_that_demands_a_zone():
    """The format date-time of JSON schema has one."""
    schema = schema_of(Annotated[dt.datetime, msgspec.Meta(tz=False)])
    assert "format" not in schema
    assert schema["pattern"].startswith("^[0-9]{4}-")


def test_constraint_of_a_union_is_for_the_types_that_can_have_it():
    """As in msgspec and pydantic."""
    kind = Annotated[int | str | None, at.Ge(1), at.MinLen(2)]
    assert {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "minLength": 2}, {"type": "null"}]
    } == schema_of(kind)
    assert shape_of(kind).decode(None) is None
    with pytest.raises(rxllm.ParseError, match="expected at least 2 characters, but got 'a', at \\$"):
        shape_of(kind).decode("a")


def test_constraint_of_a_dict_counts_its_members():
    """``minProperties`` is a word of the object itself."""
    shape = shape_of(Annotated[dict[str, int], msgspec.Meta(min_length=1)])
    assert (1, False) == (shape.schema["minProperties"], shape.wrapped)
    with pytest.raises(rxllm.ParseError, match="at least 1 members"):
        shape.decode({})


@pytest.mark.parametrize("kind", [float, decimal.Decimal])
@pytest.mark.parametrize(
    ("text", "step", "fits"),
    [
        ("19.99", 0.01, True),
        ("1.1", 0.1, True),
        ("0.3", decimal.Decimal("0.1"), True),
        ("1.15", 0.1, False),
        ("1e308", 0.01, True),
        ("1e308", 5e-324, True),
        ("1e-308", 1e308, False),
        ("-7.5", 2.5, True),
    ],
)
def test_multiples_are_those_of_the_decimal_digits(kind, text, step, fits):
    """The binary form of 19.99 is no multiple of that of 0.01."""
    shape = shape_of(Annotated[kind, at.MultipleOf(step)])
    if fits:
        assert kind(text) == shape.decode_text(text)
    else:
        with pytest.raises(rxllm.ParseError, match="expected a multiple of"):
            shape.decode_text(text)


@dataclasses.dataclass
class Misplaced:
    """A Field as a default is only for pydantic's own dataclasses."""

    a: int = pydantic.Field(gt=3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Annotated[int, at.Predicate(bool)], "Predicate.* can't be sent to a model"),
        (Annotated[dt.datetime, at.Timezone("UTC")], "can't be sent to a model"),
        (Annotated[int, pydantic.Field(alias="b")], r"not alias, serialization_alias, validation_alias\. Make"),
        (Annotated[int, pydantic.AfterValidator(abs)], "AfterValidator of pydantic outside of a pydantic model"),
        (Annotated[decimal.Decimal, pydantic.Field(max_digits=3)], "does not know the constraint max_digits"),
        (Annotated[bool, at.Ge(1)], "bool can't have the constraint ge=1"),
        (Annotated[str, at.Ge(1)], "str can't have the constraint ge=1"),
        (Annotated[Literal["a"], at.MinLen(1)], "choice can't have the constraint min_length"),
        (Annotated[str | None, at.Ge(1)], "No type of this union can have the constraint ge=1"),
        (Annotated[Any, at.Ge(1)], "anything can't have the constraint"),
        (Misplaced, "Misplaced.a = pydantic.Field.* has no effect in a dataclass"),
    ],
    ids=str,
)
def test_constraint_that_cannot_be_sent_is_refused(kind, message):
    """A constraint is never ignored."""
    with pytest.raises(rxllm.MisuseError, match=message):
        shape_of(kind)
