"""pydantic models as shapes: pydantic writes their schemas and validates."""

import decimal
import enum
import json
from typing import Annotated, Any, Literal

import attrs
import pydantic
import pytest

import rxllm
from rxllm.shapes.shape import shape_of


class Address(pydantic.BaseModel):
    """Where."""

    street: str
    number: int = 3


class Person(pydantic.BaseModel):
    """A person."""

    full: str = pydantic.Field(alias="fullName", min_length=2, description="First and last.")
    kind: Literal["person"]
    home: Address
    other: Address | None = None
    friends: list["Person"] = []
    title: str = ""


@attrs.define
class Firm:
    """A class of another library, with models."""

    staff: list[Person]
    seat: Address | None = None


@pydantic.dataclasses.dataclass
class Point:
    """A dataclass of pydantic's."""

    x: int = pydantic.Field(gt=0)


PERSON = {"fullName": "Al Bo", "kind": "person", "home": {"street": "A"}}


def test_model_writes_its_schema():
    """Closed, with aliases, constraints and descriptions, and without generated titles and defaults."""
    shape = shape_of(Person)
    assert (False, "Person") == (shape.wrapped, shape.name)
    schema = shape.schema
    assert {"type": "string", "minLength": 2, "description": "First and last."} == schema["properties"]["fullName"]
    assert {"type": "string", "enum": ["person"]} == schema["properties"]["kind"]
    assert {"type": "string"} == schema["properties"]["title"]
    assert ["fullName", "kind", "home"] == schema["required"]
    assert ["Person", "Address"] == [*schema["$defs"]]
    assert {
        "type": "object",
        "properties": {"street": {"type": "string"}, "number": {"type": "integer"}},
        "required": ["street"],
        "additionalProperties": False,
        "description": "Where.",
    } == schema["$defs"]["Address"]


def test_model_validates():
    """As pydantic does for JSON."""
    assert Person(**PERSON) == shape_of(Person).decode(PERSON)
    assert Firm([Person(**PERSON)], Address(street="B")) == shape_of(Firm).decode(
        {"staff": [PERSON], "seat": {"street": "B"}}
    )
    assert Point(3) == shape_of(Point).decode({"x": 3})


def test_null_stands_for_the_default_of_a_model_too():
    """At any depth, and only where the field can't be null."""
    plain = {
        **PERSON,
        "home": {"street": "A", "number": None},
        "other": None,
        "friends": [{**PERSON, "friends": None, "title": None}],
        "title": None,
    }
    person = shape_of(Person).decode(plain)
    assert (3, None, [], "") == (person.home.number, person.other, person.friends[0].friends, person.title)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fullName": "A"}, "String should have at least 2 characters, at $.fullName"),
        ({"home": {"street": 1}}, "Input should be a valid string, at $.home.street"),
        ({"home": {"street": "A", "zip": 1}}, "there is no field 'zip', at $.home"),
        ({"friends": [{**PERSON, "x": 1}]}, "there is no field 'x', at $.friends[0]"),
        ({"other": {"street": "A", "zip": 1}}, "there is no field 'zip', at $.other"),
    ],
)
def test_problem_of_a_model_has_its_path(changes, problem):
    """Also within a class of another library; unknown fields are refused, though pydantic would drop them."""
    with pytest.raises(rxllm.ParseError) as caught:
        shape_of(Person).decode({**PERSON, **changes})
    assert (problem,) == caught.value.problems
    with pytest.raises(rxllm.ParseError) as caught:
        shape_of(Firm).decode({"staff": [{**PERSON, **changes}]})
    assert (problem.replace("$", "$.staff[0]"),) == caught.value.problems


def test_object_that_fits_no_type_of_a_union_has_a_path():
    """The union is a field of a model."""

    class House(pydantic.BaseModel):
        holder: Person | Address

    with pytest.raises(rxllm.ParseError) as caught:
        shape_of(House).decode({"holder": {"x": 1}})
    assert ("the fields fit none of the possible types, at $.holder",) == caught.value.problems


def test_nested_value_of_a_model_may_be_a_text():
    """As in other shapes; a text stays one where a text fits."""

    class Order(pydantic.BaseModel):
        lines: list[Address]
        weights: dict[str, float] | None
        note: str

    plain = {"lines": '[{"street": "A"}]', "weights": '{"a": 0.5}', "note": "[1]"}
    for order in (shape_of(Order).decode(plain), shape_of(Order).decode_text(json.dumps(plain))):
        assert Order(lines=[Address(street="A")], weights={"a": 0.5}, note="[1]") == order


def test_numbers_of_a_model_stay_numbers():
    """Whatever the type of the field; a Decimal gets all digits."""

    class Numbers(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True, extra="allow")
        anything: Any
        either: str | float
        strict: float
        many: dict[str, Any]
        whole: int
        exact: decimal.Decimal | None
        items: list[Any] = []

    text = (
        '{"anything":1.5,"either":1.5,"strict":1.5,"many":{"a":[1.5]},"whole":3.0,"exact":1.10,'
        '"items":[0.5],"extra":1.5}'
    )
    value = shape_of(Numbers).decode_text(text)
    expected = {"anything": 1.5, "either": 1.5, "strict": 1.5, "many": {"a": [1.5]}, "whole": 3, "items": [0.5]}
    assert {**expected, "exact": decimal.Decimal("1.10"), "extra": 1.5} == value.model_dump()
    assert "1.10" == str(value.exact)
    with pytest.raises(rxllm.ParseError, match="too large"):
        shape_of(Numbers).decode_text(text.replace("0.5", "1e999"))


def test_model_that_allows_extra_fields_is_open():
    """The config of the model allows unknown keys."""

    class Open(pydantic.BaseModel, extra="allow"):
        a: int

    assert shape_of(Open).schema["additionalProperties"] is True
    assert {"a": 1, "b": 2} == shape_of(Open).decode({"a": 1, "b": 2}).model_dump()


def test_root_model_and_tagged_union_of_models():
    """A model need not be an object. ``oneOf`` becomes ``anyOf``, which more providers take."""

    class Ages(pydantic.RootModel[list[int]]):
        pass

    class Cat(pydantic.BaseModel):
        kind: Literal["cat"]

    class Dog(pydantic.BaseModel):
        kind: Literal["dog"]

    class Pet(pydantic.BaseModel):
        animal: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]

    assert shape_of(Ages).wrapped
    assert Ages([1]) == shape_of(Ages).decode_text('{"value": [1]}')
    assert ["anyOf"] == [*shape_of(Pet).schema["properties"]["animal"]]
    assert Pet(animal=Dog(kind="dog")) == shape_of(Pet).decode({"animal": {"kind": "dog"}})


def test_model_without_a_json_schema_is_refused():
    """Pydantic says why."""

    class Odd(pydantic.BaseModel, arbitrary_types_allowed=True):
        a: complex
        b: type[Any]
        c: object.__class__

    class Callback(pydantic.BaseModel):
        f: Annotated[int, pydantic.PlainValidator(int)]

    with pytest.raises(rxllm.MisuseError, match="pydantic can't write the JSON schema of Odd"):
        shape_of(Odd)
    assert {} == shape_of(Callback).schema["properties"]["f"]


DIGITS = "0.12345678901234567890123"


class Kind(enum.StrEnum):
    """Tags."""

    READ = "read"
    SKIP = "skip"


class Click(pydantic.BaseModel):
    """All models of a union have the same keys."""

    type: Literal["click"]
    note: str = ""
    price: decimal.Decimal = decimal.Decimal(1)


class Hover(pydantic.BaseModel):
    """Its tag has a default."""

    type: Literal["hover"] = "hover"
    note: str = ""
    price: decimal.Decimal = decimal.Decimal(2)


class Read(pydantic.BaseModel):
    """Its tags are members of an enum."""

    type: Literal[Kind.READ, Kind.SKIP]
    note: str = ""
    price: decimal.Decimal = decimal.Decimal(3)


Tagged = Annotated[Click | Hover | Read, pydantic.Field(discriminator="type")]


def field_of(kind):
    """Return the shape of a model with one field."""
    return shape_of(pydantic.create_model("Made", it=(kind, ...)))


@pytest.mark.parametrize(
    ("kind", "around", "path"),
    [
        (Tagged, "{}", ""),
        (Click | Hover | Read, "{}", ""),
        (Tagged | None, "{}", ""),
        (dict[str, list[Tagged]], '{{"a": [{}]}}', ".a[0]"),
        (list[Click] | list[Hover] | list[Read], "[{}]", "[0]"),
        (dict[str, Click] | dict[str, Hover] | dict[str, Read] | None, '{{"a": {}}}', ".a"),
        (tuple[int, Click] | tuple[int, Hover] | tuple[int, Read], "[1, {}]", "[1]"),
    ],
    ids=["tagged", "union", "optional", "nested", "lists", "dicts", "tuples"],
)
@pytest.mark.parametrize("default", [Click(type="click"), Hover(), Read(type=Kind.SKIP)], ids=lambda each: each.type)
def test_models_of_a_union_may_have_the_same_keys(kind, around, path, default):
    """The tag tells which default a null stands for, which number is a Decimal, and which keys are unknown."""

    def decode(members):
        answer = shape.decode_text(f'{{"it": {around.format(tag[:-1] + members + "}")}}}').it
        while not isinstance(answer, pydantic.BaseModel):
            answer = next(iter(answer.values())) if isinstance(answer, dict) else answer[-1]
        return answer

    shape, tag = field_of(kind), default.model_dump_json(include={"type"})
    assert default == decode(', "note": null, "price": null')
    assert DIGITS == str(decode(f', "price": {DIGITS}').price)
    with pytest.raises(rxllm.ParseError) as caught:
        decode(', "notes": "a"')
    assert (f"there is no field 'notes', at $.it{path}",) == caught.value.problems


class Narrow(pydantic.BaseModel):
    """A model without a tag."""

    x: int
    note: str = "default"


class Wide(pydantic.BaseModel):
    """It takes more keys, needs more of them, and has another type at a key."""

    x: str
    note: str | None = "default"
    y: int = 0
    z: int


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (list[Wide] | list[Narrow], '[{"x": 1, "note": null}]', [Narrow(x=1)]),
        (list[Narrow] | list[Wide], '[{"x": "a", "note": null, "z": 1}]', [Wide(x="a", note=None, z=1)]),
        (list[Narrow] | list[Wide] | str, '"[1]"', "[1]"),
        (list[int] | list[decimal.Decimal], f"[{DIGITS}]", [decimal.Decimal(DIGITS)]),
        (pydantic.RootModel[decimal.Decimal] | None, DIGITS, pydantic.RootModel[decimal.Decimal](DIGITS)),
    ],
    ids=["keys", "kinds", "text", "numbers", "root"],
)
def test_type_of_a_union_that_fits_best_counts(kind, text, value):
    """Where there is no tag, the keys and the kinds of all values tell the types apart, whatever their order."""
    assert value == field_of(kind).decode_text(f'{{"it": {text}}}').it


@pytest.mark.parametrize("kind", [list[Narrow] | list[Wide], list[Wide] | list[Narrow]], ids=["narrow", "wide"])
@pytest.mark.parametrize(
    ("plain", "problem"),
    [
        ({"x": 1, "zzz": 5}, "there is no field 'zzz', at $.it[0]"),
        ({"x": "1", "note": "a", "y": 2}, "the fields fit none of the possible types, at $.it"),
    ],
)
def test_no_type_of_a_union_drops_the_keys_of_another(kind, plain, problem):
    """Pydantic would take the object as the type that needs the fewest keys, and ignore the others."""
    with pytest.raises(rxllm.ParseError) as caught:
        field_of(kind).decode({"it": [plain]})
    assert (problem,) == caught.value.problems


class Filled(pydantic.BaseModel):
    """A model that fills its own keys."""

    x: int
    y: int

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        return {"y": 2, **data}


class Other(Filled):
    """Another one of the same keys."""


@pytest.mark.parametrize("kind", [list[Filled] | list[Other], dict[str, Filled] | dict[str, Other]])
def test_model_of_a_union_may_fill_its_keys(kind):
    """Pydantic calls its validators, whichever type it takes."""
    plain = [{"x": 1}] if kind == list[Filled] | list[Other] else {"a": {"x": 1}}
    value = field_of(kind).decode({"it": plain}).it
    assert [Filled(x=1, y=2)] == [*(value.values() if isinstance(value, dict) else value)]


class Add(pydantic.BaseModel):
    """A class that contains unions of itself."""

    op: Literal["add"]
    of: list["Annotated[Add | Mul, pydantic.Field(discriminator='op')]"] = []


class Mul(pydantic.BaseModel):
    """Another with the same keys."""

    op: Literal["mul"]
    of: list[Annotated["Add | Mul", pydantic.Field(discriminator="op")]] = []


@pytest.mark.parametrize(("depth", "message"), [(40, "does not match any of the expected tags"), (200, "levels deep")])
def test_time_to_choose_is_not_exponential_in_the_depth(depth, message):
    """Each object has a wrong tag, so each may be of either type. Too deep a value is an error of the answer, too."""
    text = '{"op": "wrong", "of": [' * depth + "]}" * depth
    with pytest.raises(rxllm.ParseError, match=message):
        shape_of(Add).decode_text(f'{{"op": "add", "of": [{text}]}}')


def test_deep_unions_of_lists_are_read_to_the_last_level():
    """The trial of a type counts the levels of a value once."""

    class Leaf(pydantic.BaseModel):
        kind: Literal["leaf"]
        price: decimal.Decimal

    class Branch(pydantic.BaseModel):
        kind: Literal["branch"]
        of: "list[Branch] | list[Leaf]"

    Branch.model_rebuild(_types_namespace={"Branch": Branch, "Leaf": Leaf})
    text = '{"kind": "branch", "of": [' * 60 + f'{{"kind": "leaf", "price": {DIGITS}}}' + "]}" * 60
    node = shape_of(Branch).decode_text(text)
    while isinstance(node, Branch):
        node = node.of[0]
    assert DIGITS == str(node.price)
