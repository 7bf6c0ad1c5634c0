"""Shapes agree with msgspec on random types and random data."""

import dataclasses
import datetime as dt
import uuid
from typing import Literal, Optional, TypedDict

import attrs
import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rxllm
from rxllm.shapes.shape import shape_of

NAMES = st.sampled_from(["a", "b", "c", "name", "value"])
SCALARS = st.sampled_from([int, float, str, bool, dt.date, uuid.UUID, bytes, Literal["x", "y"], Literal[1, 2]])


def made(library, fields):
    """Make a class with these fields. Fields with a default come last."""
    ordered = sorted(fields.items(), key=lambda item: item[1][1])
    if library == "dataclass":
        default = dataclasses.field(default_factory=list)
        return dataclasses.make_dataclass(
            "Made", [(name, kind, default) if optional else (name, kind) for name, (kind, optional) in ordered]
        )
    if library == "attrs":
        given = {
            name: attrs.field(type=kind, default=attrs.Factory(list) if optional else attrs.NOTHING)
            for name, (kind, optional) in ordered
        }
        return attrs.make_class("Made", given)
    if library == "struct":
        return msgspec.defstruct(
            "Made",
            [
                (name, kind, msgspec.field(default_factory=list)) if optional else (name, kind)
                for name, (kind, optional) in ordered
            ],
            forbid_unknown_fields=True,
        )
    return TypedDict("Made", {name: kind for name, (kind, _) in ordered})


def classes(kinds):
    """Return a strategy for classes whose fields have these types."""
    fields = st.dictionaries(NAMES, st.tuples(kinds, st.just(False)), min_size=1, max_size=3)
    libraries = st.sampled_from(["dataclass", "attrs", "struct", "typed_dict"])
    return st.builds(made, libraries, fields)


TYPES = st.recursive(
    SCALARS,
    lambda kinds: st.one_of(
        kinds.map(lambda kind: list[kind]),
        kinds.map(lambda kind: dict[str, kind]),
        kinds.map(lambda kind: Optional[kind]),  # noqa: UP045
        st.tuples(kinds, kinds).map(lambda two: tuple[two]),
        classes(kinds),
    ),
    max_leaves=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.just(0.5) | st.sampled_from(["x", "2024-05-06", "aGk=", "\\"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(NAMES, values, max_size=3),
    max_leaves=8,
)


def plain(value):
    """Return the value as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(value))


def fitting(kind):
    """Return a strategy for plain data that fits the type."""
    return st.from_type(kind).map(plain)


def outcome(decode, value):
    """Return the decoded value, or "does not fit"."""
    try:
        return decode(value)
    except (msgspec.ValidationError, rxllm.ParseError):
        return "does not fit"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_decode_agrees_with_msgspec(data):
    """The only exception are unknown keys, which msgspec ignores outside of Structs."""
    kind = data.draw(TYPES)
    value = data.draw(JSON | fitting(kind))
    decoded = outcome(shape_of(kind).decode, value)
    expected = outcome(lambda plain: msgspec.convert(plain, kind), value)
    if expected != decoded:
        assert "does not fit" == decoded
        assert "there is no field" in str(error_of(kind, value))
        return
    text = msgspec.json.encode({"value": value} if shape_of(kind).wrapped else value).decode()
    assert expected == outcome(shape_of(kind).decode_text, text)


def error_of(kind, value):
    """Return the error of data that does not fit."""
    try:
        shape_of(kind).decode(value)
    except rxllm.ParseError as error:
        return error


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_values_of_a_type_survive_the_way_there_and_back(data):
    """Encoding by msgspec and decoding by the shape gives an equal value."""
    kind = data.draw(TYPES)
    value = data.draw(st.from_type(kind))
    assume(value == outcome(lambda text: msgspec.json.decode(text, type=kind), msgspec.json.encode(value)))  # no NaN
    assert value == shape_of(kind).decode(plain(value))
