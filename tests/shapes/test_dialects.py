"""The dialects of JSON schema: nothing is lost, and a constraint that a provider does not enforce is described."""

import dataclasses
import datetime as dt
import decimal
from typing import Annotated, Any, Literal

import attrs
import msgspec
import pytest

from rxllm.shapes.dialects import ANTHROPIC, ANY, COHERE, GEMINI, GRAMMAR, OPENAI, STRICT
from rxllm.shapes.shape import shape_of
from rxllm.shapes.writing import Unsuited, written

DIALECTS = {
    "strict": STRICT,
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "cohere": COHERE,
    "grammar": GRAMMAR,
    "any": ANY,
}


@attrs.frozen
class Step:
    """One thing to do."""

    text: str
    minutes: Annotated[int, "How long."] = 1
    note: str | None = None


@attrs.frozen
class Plan:
    """A plan."""

    first: Step
    last: Annotated[Step, "At the end."]


@dataclasses.dataclass
class Tree:
    """A recursive class with a way out."""

    name: str
    children: list["Tree"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Chain:
    """A recursive class whose reference is required."""

    name: str
    others: list["Chain"]


@attrs.define
class Nothing:
    """No field is required."""

    a: int = 0


def value_in(kind, dialect):
    """Return the schema of a wrapped value in a dialect."""
    return written(shape_of(kind).schema, dialect)["properties"]["value"]


def test_strict_mode_requires_all_fields_and_lets_them_be_null():
    """Null stands for a field that the model leaves out; the decoder turns it into the default."""
    schema = written(shape_of(Step).schema, STRICT)
    assert ["text", "minutes", "note"] == schema["required"]
    assert {
        "text": {"type": "string"},
        "minutes": {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "How long."},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    } == schema["properties"]
    assert schema["additionalProperties"] is False
    assert Step("a", 1, None) == shape_of(Step).decode({"text": "a", "minutes": None, "note": None})


@pytest.mark.parametrize("dialect", [ANTHROPIC, GEMINI, GRAMMAR, ANY])
def test_other_dialects_keep_fields_optional(dialect):
    """Their providers know optional fields."""
    assert ["text"] == written(shape_of(Step).schema, dialect)["required"]


@pytest.mark.parametrize("dialect", [STRICT, OPENAI, GEMINI, COHERE])
def test_reference_has_no_siblings(dialect):
    """A description beside a reference moves outside."""
    last = written(shape_of(Plan).schema, dialect)["properties"]["last"]
    assert {"anyOf": [{"$ref": "#/$defs/Step"}], "description": "At the end."} == last
    assert {"$ref", "description"} == written(shape_of(Plan).schema, ANTHROPIC)["properties"]["last"].keys()


CONSTRAINED = {
    "number": (
        Annotated[int, msgspec.Meta(ge=1, multiple_of=2)],
        {"minimum": 1, "multipleOf": 2},
        "at least 1, a multiple of 2",
    ),
    "length": (
        Annotated[str, msgspec.Meta(min_length=1, max_length=3)],
        {"minLength": 1, "maxLength": 3},
        "at least 1 characters, at most 3 characters",
    ),
    "pattern": (Annotated[str, msgspec.Meta(pattern="^a$")], {"pattern": "^a$"}, "matching the regular expression ^a$"),
    "items": (
        Annotated[list[int], msgspec.Meta(min_length=2, max_length=3)],
        {"minItems": 2, "maxItems": 3},
        "at least 2 elements, at most 3 elements",
    ),
    "unique": (set[int], {"uniqueItems": True}, "without repetitions"),
    "examples": (Annotated[int, msgspec.Meta(examples=[3])], {"examples": [3]}, "for example [3]"),
    "base64": (bytes, {"contentEncoding": "base64"}, "encoded as base64"),
}
ENFORCED = {
    "strict": {"number", "pattern", "items"},
    "openai": {"number", "pattern", "items", "length"},
    "anthropic": set(),
    "gemini": {"items"},
    "cohere": {"pattern"},
    "grammar": {"pattern", "items", "length"},
    "any": {"number", "pattern", "items", "length", "unique", "examples"},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", CONSTRAINED)
def test_constraint_is_sent_as_a_word_or_in_the_description(dialect, name):
    """It is never dropped."""
    kind, words, phrase = CONSTRAINED[name]
    schema = value_in(kind, DIALECTS[dialect])
    sent = {word: value for word, value in schema.items() if word not in ("type", "items", "description")}
    described = schema.get("description", "")
    for word, value in words.items():
        assert sent.get(word) == value or word not in sent
    if name in ENFORCED[dialect]:
        assert (words, "") == (sent, described)
    else:
        for part in phrase.split(", "):
            assert part in described or any(word in sent for word in words)
    if not sent:
        assert f"({phrase})" == described


def test_format_that_a_provider_does_not_know_is_described():
    """Otherwise the request would be rejected."""
    assert {"type": "string", "format": "duration"} == value_in(dt.timedelta, OPENAI)
    assert {"type": "string", "description": "(in the format duration)"} == value_in(dt.timedelta, COHERE)
    assert {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"} == value_in(decimal.Decimal, OPENAI)


def test_grammar_takes_patterns_of_the_whole_text_only():
    """llama.cpp answers 400 to others."""
    kind = Annotated[str, msgspec.Meta(pattern="^a")]
    assert {"type": "string", "description": "(matching the regular expression ^a)"} == value_in(kind, GRAMMAR)


def test_second_pattern_goes_into_the_description():
    """A schema has one pattern."""
    twice = Annotated[Annotated[str, msgspec.Meta(pattern="^a")], msgspec.Meta(pattern="b$")]
    schema = value_in(twice, OPENAI)
    assert ("^a", "(matching the regular expression b$)") == (schema["pattern"], schema["description"])


def test_tuple_becomes_a_list_of_fixed_size():
    """Where the provider knows no schema for each place, the description tells the order."""
    pair = tuple[int, str]
    assert {
        "type": "array",
        "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "minItems": 2,
        "maxItems": 2,
        "description": "(in this order: integer, string)",
    } == value_in(pair, OPENAI)
    assert {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2} == value_in(
        tuple[float, float], OPENAI
    )
    assert ["prefixItems", "minItems", "maxItems"] == [*value_in(pair, GRAMMAR)][1:]
    assert value_in(pair, ANY)["items"] is False


@pytest.mark.parametrize(
    ("kind", "dialects", "reason"),
    [
        (dict[str, int], {"strict", "openai", "anthropic", "cohere"}, "takes no dict"),
        (list[dict[str, int]], {"strict", "openai", "anthropic", "cohere"}, "takes no dict"),
        (list[Any], {"strict", "openai", "anthropic", "gemini", "cohere"}, "no value of any type"),
        (Tree, {"anthropic", "cohere"}, "contains itself"),
        (Chain, {"anthropic", "cohere", "gemini"}, "contains itself"),
        (Nothing, {"cohere"}, "a required field in each object"),
        (list[list[list[list[list[list[list[list[list[list[int]]]]]]]]]], {"strict", "openai"}, "10 levels .* not 11"),
        (
            attrs.make_class("Wide", {f"f{n}": attrs.field(type=int, default=0) for n in range(25)}),
            {"anthropic", "cohere"},
            "24 fields with a default, not 25|a required field",
        ),
        (
            attrs.make_class("Many", {f"f{n}": attrs.field(type=int | None) for n in range(17)}),
            {"anthropic"},
            "16 unions, not 17",
        ),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_dialect_that_would_lose_data_is_not_suited(kind, dialects, reason):
    """For example, Anthropic answers an open object with an empty one. All other dialects take the type."""
    schema = shape_of(kind).schema
    for name, dialect in DIALECTS.items():
        if name in dialects:
            with pytest.raises(Unsuited, match=reason):
                written(schema, dialect)
        else:
            assert written(schema, dialect)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_neutral_schema_is_not_changed(dialect):
    """It is shared by all requests."""
    before = msgspec.json.encode(shape_of(Plan).schema)
    written(shape_of(Plan).schema, dialect)
    assert before == msgspec.json.encode(shape_of(Plan).schema)


@pytest.mark.parametrize("kind", [Step, Plan, list[Step | None], Literal["a", 1, None], tuple[int, Step]])
def test_strict_schema_keeps_the_rules_of_openai(kind):
    """OpenAI refuses none of its words, at any depth. All objects are closed, and all properties required."""

    def check(schema):
        if isinstance(schema, list):
            for item in schema:
                check(item)
        elif isinstance(schema, dict):
            assert not {"default", "oneOf", "allOf", "prefixItems", "uniqueItems", "propertyNames"} & schema.keys()
            if schema.get("type") == "object":
                assert schema["additionalProperties"] is False
                assert [*schema["properties"]] == schema["required"]
            if "$ref" in schema:
                assert ["$ref"] == [*schema]
            for item in schema.values():
                check(item)

    schema = written(shape_of(kind).schema, OPENAI)
    assert "object" == schema["type"]
    check(schema)
