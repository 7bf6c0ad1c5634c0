"""Shapes: which types can be asked for, their JSON schemas, and decoding."""

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import json
import pickle
import sys
import typing
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Required, TypedDict, TypeVar

import attrs
import msgspec
import pytest
import typing_extensions

import rxllm
from rxllm.shapes.shape import shape_of

T = TypeVar("T")
STEP = {"text": "Boil", "minutes": 5}


@attrs.frozen
class Step:
    """One thing to do."""

    text: str
    minutes: int = 1


@attrs.frozen
class Recipe:
    """How to cook a dish."""

    title: str
    steps: list[Step]


@dataclasses.dataclass
class DataStep:
    """One thing to do."""

    text: str
    minutes: int = 1


class StructStep(msgspec.Struct):
    """One thing to do."""

    text: str
    minutes: int = 1


class DictStep(TypedDict):
    """One thing to do."""

    text: str
    minutes: NotRequired[int]


class TupleStep(NamedTuple):
    """One thing to do."""

    text: str
    minutes: int = 1


@dataclasses.dataclass
class Tree:
    """A recursive class."""

    name: str
    children: list["Tree"] = dataclasses.field(default_factory=list)


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


def inner(kind):
    """Return the schema of a value that is not always an object."""
    schema = shape_of(kind).schema
    assert {"type": "object", "required": ["value"], "additionalProperties": False} == {
        word: schema[word] for word in ("type", "required", "additionalProperties")
    }
    return schema["properties"]["value"]


def problems_of(kind, value):
    """Return the error of a value that does not fit."""
    with pytest.raises(rxllm.ParseError) as caught:
        shape_of(kind).decode(value)
    assert "mismatch" == caught.value.reason
    return caught.value


# ── schemas ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [Step, DataStep, StructStep, DictStep, TupleStep])
def test_every_library_of_classes_gives_the_same_closed_object(kind):
    """attrs, dataclasses, msgspec, TypedDict and NamedTuple: an object with the docstring as its description."""
    shape = shape_of(kind)
    assert not shape.wrapped
    assert kind.__name__ == shape.name
    assert {
        "type": "object",
        "properties": {"text": {"type": "string"}, "minutes": {"type": "integer"}},
        "required": ["text"],
        "additionalProperties": False,
        "description": "One thing to do.",
    } == shape.schema
    expected = STEP if kind is DictStep else kind(**STEP)
    assert expected == shape.decode(STEP)
    assert expected == shape.decode_text('{"text": "Boil", "minutes": 5}')


@pytest.mark.parametrize(
    ("kind", "schema", "plain", "value"),
    [
        (str, {"type": "string"}, "a", "a"),
        (int, {"type": "integer"}, 3, 3),
        (float, {"type": "number"}, 3, 3.0),
        (bool, {"type": "boolean"}, True, True),
        (None, {"type": "null"}, None, None),
        (bytes, {"type": "string", "contentEncoding": "base64"}, "aGk=", b"hi"),
        (dt.date, {"type": "string", "format": "date"}, "2024-05-06", dt.date(2024, 5, 6)),
        (dt.time, {"type": "string", "format": "time"}, "07:08:09", dt.time(7, 8, 9)),
        (
            dt.datetime,
            {"type": "string", "format": "date-time"},
            "2024-05-06T07:08:09",
            dt.datetime(2024, 5, 6, 7, 8, 9),
        ),
        (dt.timedelta, {"type": "string", "format": "duration"}, "PT1H", dt.timedelta(hours=1)),
        (uuid.UUID, {"type": "string", "format": "uuid"}, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
        (
            decimal.Decimal,
            {"type": "string", "format": "decimal", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
            "1.50",
            decimal.Decimal("1.50"),
        ),
        (list[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),
        (list, {"type": "array", "items": {}}, [1, "a"], [1, "a"]),
        (collections.abc.Sequence[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 1], {1}),
        (frozenset[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ["a"], frozenset("a")),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [1, 2], (1, 2)),
        (tuple[()], {"type": "array", "prefixItems": [], "items": False, "minItems": 0, "maxItems": 0}, [], ()),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 2,
                "maxItems": 2,
            },
            [1, "a"],
            (1, "a"),
        ),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, "a", "a"),
        (
            Literal[1, True, None],
            {"anyOf": [{"type": "integer", "enum": [1]}, {"type": "boolean", "enum": [True]}, {"type": "null"}]},
            True,
            True,
        ),
        (Colour, {"type": "string", "enum": ["red", "blue"], "description": "A colour."}, "red", Colour.RED),
        (Level, {"type": "integer", "enum": [1, 2], "description": "An enum of numbers."}, 2, Level.HIGH),
        (Literal[Colour.RED], {"type": "string", "enum": ["red"]}, "red", Colour.RED),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, None),
        (typing.Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 3, 3),  # noqa: UP045
        (Any, {}, {"a": [1.5]}, {"a": [1.5]}),
        (NewType("Age", int), {"type": "integer"}, 3, 3),
        (typing_extensions.TypeAliasType("Ages", list[int]), {"type": "array", "items": {"type": "integer"}}, [3], [3]),
    ],
    ids=str,
)
def test_value_other_than_an_object_is_sent_under_a_key(kind, schema, plain, value):
    """Only the type decides whether there is a key. An answer without the key is decoded, too."""
    assert schema == inner(kind)
    shape = shape_of(kind)
    decoded = shape.decode(plain)
    assert (type(value), value) == (type(decoded), decoded)
    text = msgspec.json.encode(plain).decode()
    assert value == shape.decode_text(text) == shape.decode_text(f'{{"value": {text}}}')


@pytest.mark.parametrize(
    ("kind", "schema", "plain", "value"),
    [
        (dict, {"additionalProperties": {}}, {"a": 1}, {"a": 1}),
        (dict[str, int], {"additionalProperties": {"type": "integer"}}, {"value": 1}, {"value": 1}),
        (collections.abc.Mapping[str, int], {"additionalProperties": {"type": "integer"}}, {}, {}),
        (
            dict[Literal["a"], int],
            {"additionalProperties": {"type": "integer"}, "propertyNames": {"enum": ["a"]}},
            {"a": 1},
            {"a": 1},
        ),
    ],
    ids=str,
)
def test_dict_is_an_open_object(kind, schema, plain, value):
    """A dict goes without a wrapper, even if its only key is "value"."""
    shape = shape_of(kind)
    assert ({"type": "object", **schema}, False) == (shape.schema, shape.wrapped)
    assert value == shape.decode_text(msgspec.json.encode(plain).decode())


def test_class_that_is_used_twice_or_recursive_is_defined_once():
    """Definitions are for classes with several uses. The root itself is never a reference."""

    @attrs.define
    class Pair:
        left: Step
        right: Annotated[Step, "The other."]

    schema = shape_of(Pair).schema
    assert ["Step"] == [*schema["$defs"]]
    assert {"$ref": "#/$defs/Step", "description": "The other."} == schema["properties"]["right"]
    assert "$defs" not in shape_of(Recipe).schema
    tree = shape_of(Tree).schema
    assert "object" == tree["type"]
    assert {"$ref": "#/$defs/Tree"} == tree["properties"]["children"]["items"]
    assert Tree("a", [Tree("b")]) == shape_of(Tree).decode({"name": "a", "children": [{"name": "b"}]})


def test_two_classes_of_one_name_have_two_definitions():
    """A number tells them apart."""

    def made(kind):
        return attrs.make_class("Same", {"a": attrs.field(type=kind), "b": attrs.field(type=kind)})

    one, other = made(int), made(str)
    both = attrs.make_class(
        "Both", {name: attrs.field(type=kind) for name, kind in zip("wxyz", [one, one, other, other], strict=True)}
    )
    definitions = shape_of(both).schema["$defs"]
    assert ["Same", "Same_2"] == [*definitions]
    assert {"type": "string"} == definitions["Same_2"]["properties"]["a"]


def test_descriptions_come_from_docstrings_and_annotations():
    """Text in Annotated describes a field; a generated docstring describes nothing."""

    @dataclasses.dataclass
    class Trip:
        days: Annotated[int, "At least one night."]
        first: Annotated[Step, "Where it begins."]

    schema = shape_of(Trip).schema
    assert "description" not in schema
    assert "At least one night." == schema["properties"]["days"]["description"]
    assert "Where it begins.\n\nOne thing to do." == schema["properties"]["first"]["description"]


def test_names_are_plain():
    """Providers take letters, digits and underscores, and at most 64 of them."""
    assert "list_Recipe" == shape_of(list[Recipe]).name
    assert "Recipe_None" == shape_of(Recipe | None).name
    assert "Literal_a_b" == shape_of(Literal["a b"]).name
    assert 64 == len(shape_of(Literal["x" * 100]).name)
    assert "shape_of(dict[str, int | None])" == repr(shape_of(dict[str, int | None]))


# ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attrs_class_is_called_so_that_converters_aliases_and_validators_run():
    """The key is the name that the constructor takes."""

    @attrs.frozen
    class Ingredient:
        _name: str = attrs.field(converter=str.strip)
        grams: int = attrs.field(default=1, validator=attrs.validators.lt(100))
        tags: frozenset[str] = attrs.field(factory=frozenset, converter=frozenset)
        made: str = attrs.field(init=False, default="here")

    shape = shape_of(Ingredient)
    assert ["name", "grams", "tags"] == [*shape.schema["properties"]]
    assert Ingredient("salt", 3, {"a"}) == shape.decode({"name": " salt ", "grams": 3, "tags": ["a"]})
    error = problems_of(Ingredient, {"name": "salt", "grams": 300})
    assert ("$", True) == (error.path, "'grams' must be < 100" in str(error))


def test_converter_with_a_type_says_what_is_asked_for():
    """A field holds what the converter returns; the answer has what the converter takes."""

    def parsed(text: str) -> complex:
        return complex(text)

    @attrs.frozen
    class Point:
        where: complex = attrs.field(converter=parsed)
        other: complex = attrs.field(converter=attrs.converters.optional(parsed), default=None)

    assert {"type": "string"} == shape_of(Point).schema["properties"]["where"]
    assert Point("1j") == shape_of(Point).decode({"where": "1j"})


@pytest.mark.parametrize("kind", [Step, DataStep, StructStep, DictStep, TupleStep])
def test_null_stands_for_the_default_of_a_field_that_cannot_be_null(kind):
    """In strict modes no field may be missing, so the model writes null for a field that it leaves out."""
    expected = {"text": "Boil"} if kind is DictStep else kind("Boil")
    assert expected == shape_of(kind).decode({"text": "Boil", "minutes": None})
    assert "$.text" == problems_of(kind, {"text": None}).path


def test_null_stays_null_where_the_type_has_it():
    """``int | None`` takes the null, whatever its default is."""

    @attrs.frozen
    class Maybe:
        days: int | None = 5

    assert Maybe(None) == shape_of(Maybe).decode({"days": None})
    assert Maybe(5) == shape_of(Maybe).decode({})


@pytest.mark.parametrize("kind", [Step, DataStep, StructStep, DictStep, TupleStep])
def test_unknown_and_missing_fields_are_refused(kind):
    """Ignoring unknown fields would drop a misspelt optional field without an error."""
    error = problems_of(kind, {"text": "Boil", "minuets": 5})
    assert ("there is no field 'minuets', at $",) == error.problems
    assert ("the field 'text' is missing, at $",) == problems_of(kind, {"minutes": 5}).problems


def test_struct_keeps_its_names_and_its_tag():
    """The schema and the decoder use msgspec's ``rename`` and ``tag``."""

    class Camel(msgspec.Struct, tag="camel", rename="camel"):
        foot_count: int

    schema = shape_of(Camel).schema
    assert {"type": {"type": "string", "enum": ["camel"]}, "footCount": {"type": "integer"}} == schema["properties"]
    assert Camel(4) == shape_of(Camel).decode({"type": "camel", "footCount": 4})
    assert (
        "expected 'camel' at 'type', but got 'cow', at $"
        in problems_of(Camel, {"type": "cow", "footCount": 4}).problems
    )
    assert "the field 'type' is missing, at $" in problems_of(Camel, {"footCount": 4}).problems


def test_typed_dict_knows_required_and_optional_keys():
    """``Required`` and ``NotRequired`` apply, also to inherited keys."""

    class Base(TypedDict, total=False):
        a: Required[int]
        b: str

    class More(Base):
        c: typing_extensions.ReadOnly[NotRequired[int]]
        d: int

    assert ["a", "d"] == shape_of(More).schema["required"]
    assert {"a": 1, "d": 2} == shape_of(More).decode({"a": 1, "b": None, "d": 2})


def test_generic_class_takes_its_arguments():
    """A base class with arguments gets them, too."""

    @attrs.define
    class Box(Generic[T]):
        item: T
        others: list[T]

    @attrs.define
    class Named(Box[str], Generic[T]):
        name: T | None = None

    assert {"type": "integer"} == shape_of(Box[int]).schema["properties"]["item"]
    assert {"type": "array", "items": {"type": "integer"}} == shape_of(Box[int]).schema["properties"]["others"]
    assert {} == shape_of(Box).schema["properties"]["item"]
    properties = shape_of(Named[int]).schema["properties"]
    assert {"type": "string"} == properties["item"]
    assert {"type": "integer"} in properties["name"]["anyOf"]
    assert Box(3, [4]) == shape_of(Box[int]).decode({"item": 3, "others": [4]})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with Python 3.12")
def test_recursive_alias_is_a_definition():
    """An alias may name itself."""
    namespace = {}
    exec("type Nested = list[Nested] | int", namespace)  # noqa: S102
    shape = shape_of(namespace["Nested"])
    assert ["Nested"] == [*shape.schema["$defs"]]
    assert [1, [2, []]] == shape.decode([1, [2, []]])


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "reason", "path"),
    [
        ('{"title": "Soup", "steps": [{"text": 3}]}', "mismatch", "$.steps[0].text"),
        ('{"title": "Soup", "steps": {}}', "mismatch", "$.steps"),
        ("[]", "mismatch", "$"),
        ('{"title": "Soup"', "cut", ""),
        ('{"title": "So', "cut", ""),
        ("Here it is: {}", "malformed", ""),
        ("```json\n{}\n```", "malformed", ""),
        ('{"title": "a", "steps": []}{"title": "b", "steps": []}', "malformed", ""),
        ("", "empty", ""),
        (" \n", "empty", ""),
        ("[" * 5000, "malformed", ""),
        ('"\ud800"', "malformed", ""),
    ],
)
def test_wrong_text_is_a_parse_error_with_reason_and_path(text, reason, path):
    """A ParseError says what is wrong and where, and keeps the text and the type."""
    with pytest.raises(rxllm.ParseError) as caught:
        shape_of(Recipe).decode_text(text)
    error = caught.value
    assert (reason, path, text, Recipe) == (error.reason, error.path, error.text, error.shape)


def test_error_lists_all_problems_each_with_its_path():
    """The model can mend them all at once."""
    error = problems_of(Recipe, {"title": 1, "steps": [{"text": "a", "minutes": "5"}, {"text": "b"}, 7], "x": 0})
    assert (
        "expected a string, but got an integer, at $.title",
        "expected an integer, but got a string, at $.steps[0].minutes",
        "expected an object (Step), but got an integer, at $.steps[2]",
        "there is no field 'x', at $",
    ) == error.problems
    assert "$.title" == error.path
    assert str(error).startswith("The answer does not fit Recipe: expected a string, but got an integer, at $.title; ")


def test_number_of_a_problem_is_shown_as_it_came():
    """With its fraction and without the name of a class."""
    with pytest.raises(rxllm.ParseError, match=r"expected a multiple of 0.5, but got 0\.30, at \$\.$"):
        shape_of(Annotated[float, msgspec.Meta(multiple_of=0.5)]).decode_text("0.30")
    with pytest.raises(rxllm.ParseError, match=r"expected one of 1 and 2, but got 1\.5, at \$\.$"):
        shape_of(Level).decode_text("1.5")


def test_many_problems_are_counted():
    """Only the first ones are named."""
    error = problems_of(list[int], ["x"] * 1000)
    assert (21, "and 980 more") == (len(error.problems), error.problems[-1])


def test_deep_answer_is_a_parse_error():
    """Neither a recursive class nor the JSON reader may end in a RecursionError."""
    value = {"name": "leaf"}
    for _ in range(60):
        value = {"name": "n", "children": [value]}
    assert shape_of(Tree).decode(value)
    for _ in range(10):
        value = {"name": "n", "children": [value]}
    error = problems_of(Tree, value)
    assert "nested more than 128 levels deep" in str(error)
    assert 300 > len(error.path)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (int, 1.5),
        (int, 2.0**53 * 2),
        (int, "1"),
        (int, True),
        (bool, 1),
        (str, 1),
        (float, "1"),
        (dt.date, "2024-13-01"),
        (uuid.UUID, "x"),
        (decimal.Decimal, "x"),
        (bytes, "%"),
        (Colour, "green"),
        (Literal[1], True),
        (tuple[int, str], [1]),
        (set[int], {}),
        (int | str, 1.5),
        (dict[Literal["a"], int], {"b": 1}),
    ],
    ids=str,
)
def test_values_are_not_coerced(kind, plain):
    """A number does not decode as text, True not as 1, and 1.5 not as an int, as in msgspec's strict mode."""
    problems_of(kind, plain)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "3.0", 3),
        (int, "3e2", 300),
        (int | None, "-3.0", -3),
        (int | str, "3.0", 3),
        (int | float, "3.0", 3.0),
        (Annotated[int, msgspec.Meta(le=3)], "3.0", 3),
        (Literal[3, "a"], "3.0", 3),
        (Level, "2.0", Level.HIGH),
        (float, "3.0", 3.0),
        (Any, "3.0", 3.0),
    ],
    ids=str,
)
def test_integer_may_be_written_as_a_number_without_a_fraction(kind, text, value):
    """JSON schema counts 3.0 as an integer, and Grok and Qwen write so. A float that fits remains a float."""
    for found in (shape_of(kind).decode_text(text), shape_of(kind).decode(json.loads(text))):
        assert (type(value), value) == (type(found), found)
    with pytest.raises(rxllm.ParseError):
        shape_of(int).decode_text("1e999999999")


@pytest.mark.parametrize(
    ("kind", "plain", "value"),
    [
        (list[int], "[1]", [1]),
        (list[str] | None, ' ["a"]', ["a"]),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (dict[str, float], '{"a": 0.5}', {"a": 0.5}),
        (list[list[int]], ["[1]", [2]], [[1], [2]]),
        (Step, '{"text": "a", "minutes": 1}', Step("a", 1)),
        (Recipe, {"title": "[1]", "steps": '[{"text": "a", "minutes": 1}]'}, Recipe("[1]", [Step("a", 1)])),
        (str, "[1]", "[1]"),
        (str | list[int], "[1]", "[1]"),
        (Any, "[1]", "[1]"),
    ],
    ids=str,
)
def test_list_or_object_may_be_written_as_a_text(kind, plain, value):
    """Many models write nested values so. A text stays one where a text fits."""
    assert value == shape_of(kind).decode(plain)
    assert value == shape_of(kind).decode_text(json.dumps(plain))


@pytest.mark.parametrize("plain", ["[1", "x", '"[1]"', "{}", ""])
def test_text_that_holds_no_list_is_refused(plain):
    """The problem names the text."""
    assert "but got" in str(problems_of(list[int], plain))


def test_numbers_keep_their_digits():
    """A Decimal gets all digits of a number; a float that is too large is refused rather than infinite."""
    assert decimal.Decimal("1.12345678901234567890") == shape_of(decimal.Decimal).decode_text("1.12345678901234567890")
    assert type(shape_of(float).decode_text("1.25")) is float
    assert [1.25, {"a": 0.5}] == shape_of(list[Any]).decode_text('[1.25, {"a": 0.5}]')
    assert 10**30 == shape_of(int).decode_text("1" + "0" * 30)
    for kind, text in ((float, "1e400"), (Any, "[1e400]"), (dict[str, Any], '{"a": -1e400}')):
        with pytest.raises(rxllm.ParseError, match="too large"):
            shape_of(kind).decode_text(text)


def test_wrapper_is_distinguished_from_an_object_of_the_type():
    """``{"value": …}`` is the wrapper where its content fits; else the object itself is tried."""
    kind = dict[str, int] | None
    assert {"a": 1} == shape_of(kind).decode_text('{"a": 1}')
    assert {"a": 1} == shape_of(kind).decode_text('{"value": {"a": 1}}')
    assert {"value": 3} == shape_of(kind).decode_text('{"value": 3}')
    assert {"value": 3} == shape_of(kind).decode_text('{"value": {"value": 3}}')
    assert shape_of(kind).decode_text('{"value": null}') is None


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def untyped():
    """Return a class with a field that has no type."""
    return attrs.make_class("Untyped", ["a"])


def of_a_local_class():
    """Return a class with an annotation that can't be resolved."""

    @dataclasses.dataclass
    class Outer:
        inside: "Missing"  # noqa: F821

    return Outer


def with_an_init_var():
    """Return a class with an argument that is not a field."""

    @dataclasses.dataclass
    class Outer:
        a: int
        seed: dataclasses.InitVar[int]

    return Outer


def with_a_complex_field():
    """Return a class with a field that JSON can't express."""

    @attrs.define
    class Outer:
        a: list[complex]

    return Outer


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (complex, "complex can't be the shape of an answer: JSON has no such value. Use an attrs class"),
        (len, "it is not a type"),
        (3, "it is not a type"),
        ([int], "it is not a type"),
        ({"type": "object"}, "it is not a type, and JSON schemas are for response_format="),
        (dict[int, str], "a dict with keys of the type int"),
        (Literal[b"a"], "JSON has no such value"),
        (enum.Enum("Empty", {}), "it has no members"),
        (enum.Enum("Float", {"A": 1.5}), "1.5 is neither a text nor a whole number"),
        (untyped(), "Untyped.a has no type"),
        (of_a_local_class(), "name 'Missing' is not defined.* Define that type in a module"),
        (with_an_init_var(), "seed is an InitVar"),
        (with_a_complex_field(), r"complex can't be the shape of an answer \(at Outer.a\)"),
    ],
)
def test_type_that_json_cannot_express_is_refused_when_the_shape_is_made(kind, message):
    """The error names the type, the field and what to use instead."""
    with pytest.raises(rxllm.MisuseError, match=message):
        shape_of(kind)


# ── the shape itself ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_shape_is_cached_and_pickles_by_its_type():
    """Making a shape takes much longer than looking it up."""
    assert shape_of(Recipe) is shape_of(Recipe)
    assert shape_of(shape_of(Recipe)) is shape_of(Recipe)
    assert shape_of(list[int]) == pickle.loads(pickle.dumps(shape_of(list[int])))  # noqa: S301
    assert shape_of(Annotated[int, {}]) == shape_of(int)


def test_equality_is_that_of_the_schema():
    """The same class after a change is another shape, so that a cache asks again."""
    make = functools.partial(attrs.make_class, "Made")
    one, same, other = (make({"a": attrs.field(type=kind)}) for kind in (int, int, str))
    assert shape_of(one) == shape_of(same) != shape_of(other)
    assert hash(shape_of(one)) == hash(shape_of(same))
