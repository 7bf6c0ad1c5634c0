"""The schema of a tool, and the conversion of a model's arguments."""

import datetime as dt
import enum
import functools
import gc
import json
import weakref
from dataclasses import dataclass
from typing import Annotated, Literal, Optional, TypedDict

import msgspec
import pydantic
import pytest
from attrs import frozen
from typing_extensions import Doc

import rxllm
from rxllm import MisuseError, ToolSpec, tool
from rxllm.tools._signature import BadArguments, signature_of


@frozen
class Place:
    """An attrs class as a parameter."""

    city: str
    country: str = "NO"


@dataclass
class Span:
    """A dataclass as a parameter."""

    start: dt.date
    days: int = 1


class Options(TypedDict, total=False):
    """A TypedDict as a parameter."""

    wind: bool


class Unit(enum.Enum):
    """An enum as a parameter."""

    CELSIUS = "c"
    FAHRENHEIT = "f"


def forecast(  # noqa: D417  (the other parameters stay without a description)
    place: Place,
    span: Span,
    unit: Unit = Unit.CELSIUS,
    *,
    detail: Literal["low", "high"] = "low",
    options: Options | None = None,
    stations: Annotated[list[str], "names of stations"] = (),
    limit: Annotated[int, Doc("at most"), msgspec.Meta(ge=1, le=14)] = 3,
) -> str:
    """Forecast the weather.

    It uses several models.

    Args:
        place: where,
            in one place.
        span: when.
        limit: not shown, because `Annotated` wins.

    Returns:
        A text.
    """
    return f"{place.city} {span.start} {unit} {detail} {options} {stations} {limit}"


def test_schema_has_types_descriptions_and_defaults():
    """The schema is closed. Descriptions come from the docstring, and from `Annotated`, which wins."""
    spec = tool(forecast).spec
    assert ("forecast", "Forecast the weather.\n\nIt uses several models.") == (spec.name, spec.description)
    schema = spec.parameters
    assert ("object", False, ["place", "span"]) == (
        schema["type"],
        schema["additionalProperties"],
        schema["required"],
    )
    properties = schema["properties"]
    assert "where, in one place.\n\nAn attrs class as a parameter." == properties["place"]["description"]
    assert {"type": "array", "items": {"type": "string"}, "default": [], "description": "names of stations"} == (
        properties["stations"]
    )
    limit = {"type": "integer", "minimum": 1, "maximum": 14, "default": 3, "description": "at most"}
    assert limit == properties["limit"]
    assert {"type": "string", "enum": ["low", "high"], "default": "low"} == properties["detail"]
    assert ["city"] == properties["place"]["required"]
    assert not properties["options"]["anyOf"][0]["additionalProperties"]
    json.dumps(schema)


@pytest.mark.parametrize(
    ("style", "docstring"),
    [
        ("Google", "Add.\n\nArgs:\n    a: the first."),
        ("NumPy", "Add.\n\nParameters\n----------\na : int\n    the first."),
        ("Sphinx", "Add.\n\n:param a: the first."),
        ("Epydoc", "Add.\n\n@param a: the first."),
    ],
)
def test_docstrings_of_all_usual_styles_are_read(style, docstring):
    """Google, NumPy, Sphinx and Epydoc."""

    def add(a: int) -> int:
        return a

    add.__doc__ = docstring
    spec = tool(add).spec
    assert ("Add.", {"type": "integer", "description": "the first."}) == (
        spec.description,
        spec.parameters["properties"]["a"],
    )


def test_function_without_docstring_or_parameters_has_a_spec():
    """The name and the description can be given."""

    def now() -> str:
        return "now"

    closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert ToolSpec("now", "", closed) == tool(now).spec
    assert ToolSpec("clock", "Tell the time.", closed) == tool(now, name="clock", description="Tell the time.").spec


def test_methods_and_callable_objects_have_a_spec():
    """The bound ``self`` is not a parameter."""

    class Weather:
        """Forecast."""

        def __call__(self, city: str) -> str:
            return city

        def of(self, city: str) -> str:
            """Forecast one city."""
            return city

    for made in tool(Weather(), name="weather"), tool(Weather().of, name="weather"):
        assert {"city": {"type": "string"}} == made.spec.parameters["properties"]


def read(function, **arguments):
    """Convert a model's arguments."""
    return signature_of(function).read(arguments)


def test_arguments_become_the_types_of_the_parameters():
    """An argument that the model leaves out keeps the default of the function."""
    arguments = read(forecast, place={"city": "Oslo"}, span={"start": "2026-01-02"}, unit="f", options={"wind": True})
    expected = {
        "place": Place("Oslo"),
        "span": Span(dt.date(2026, 1, 2)),
        "unit": Unit.FAHRENHEIT,
        "options": {"wind": True},
    }
    assert expected == arguments
    assert "Oslo 2026-01-02 Unit.FAHRENHEIT low {'wind': True} () 3" == forecast(**arguments)


def test_null_counts_as_left_out_where_the_type_has_no_none():
    """Models that must name each parameter write null. Where None is a value of the type, it stays None."""

    def f(a: int = 1, b: Optional[int] = 2, c: Annotated[str | None, "text"] = "x"):  # noqa: UP045
        return a

    assert {"b": None, "c": None} == read(f, a=None, b=None, c=None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"place": {"city": "Oslo"}}, "the field 'span' is missing"),
        (
            {"place": {"city": 5}, "span": {"start": "2026-01-02"}},
            r"expected a string, but got an integer, at \$\.place\.city",
        ),
        (
            {"place": {"city": "O"}, "span": {"start": "2026-01-02"}, "limit": 15},
            r"expected at most 14, but got 15, at \$\.limit",
        ),
        ({"place": {"city": "O"}, "span": {"start": "2026-01-02"}, "limits": 3}, r"there is no field 'limits', at \$"),
        ({"place": None, "span": {"start": "2026-01-02"}}, r"expected an object \(Place\), but got null, at \$\.place"),
    ],
)
def test_wrong_arguments_are_an_error_with_a_path(arguments, sentence):
    """A misspelt optional argument is an error, too. The text names the parameters."""
    names = r"The parameters are: place \(required\), span \(required\), unit, "
    with pytest.raises(BadArguments, match=rf"The arguments do not fit: .*{sentence}.*{names}"):
        read(forecast, **arguments)


class _Stranger:
    """A class that has no schema."""


def test_parameter_without_a_schema_is_refused_by_name():
    """The message names the function and the parameter, and says what to change."""

    def unannotated(city):
        return city

    def several(*cities: str):
        return cities

    def named(**cities: str):
        return cities

    def positional(city: str, /):
        return city

    def strange(place: _Stranger):
        return place

    def unresolved(place: "Missing"):  # noqa: F821
        return place

    def described(limit: int = pydantic.Field(default=3, description="How many.")):
        return limit

    for function, sentence in [
        (described, r"default of described's parameter limit is a Field of pydantic.*limit: Annotated\[…, Field"),
        (unannotated, "its parameter city has no type. Annotate it, as in city: str"),
        (several, r"its parameter \*cities has no JSON schema"),
        (named, r"its parameter \*\*cities has no JSON schema"),
        (positional, "its parameter city is positional-only"),
        (strange, "the type of its parameter place has no JSON schema"),
        (unresolved, "annotations of unresolved cannot be resolved: name 'Missing' is not defined"),
        (functools.partial(forecast, limit=3), r"cannot call a functools\.partial"),
        (max, "max is written in C and has no signature"),
    ]:
        made = tool(function, name="f")  # without a model the function needs no schema
        with pytest.raises(MisuseError, match=sentence):
            made.spec  # noqa: B018


def test_name_must_suit_providers():
    """A lambda needs a name."""
    with pytest.raises(MisuseError, match=r"tool with the name '<lambda>'.*Pass tool\(…, name='…'\)"):
        tool(lambda: "x").spec  # noqa: B018
    assert "x" == tool(lambda: "x", name="x").spec.name


def test_tools_can_be_bound_to_a_model():
    """A model without an agent gets the definition."""
    made = tool(forecast)
    assert (made.spec,) == rxllm.Embedded().bind(tools=[made]).parameters.tools


class Service:
    """An object whose method is a tool."""

    def find(self, words: Annotated[str, "to search for"], limit: int = 3) -> str:
        """Search."""
        return words * limit


class Callee(Service):
    """An object that is a tool."""

    __call__ = Service.find


def closure(service):
    """Return a function that keeps the object alive."""

    def find(words: str, limit: int = 3) -> str:
        """Search."""
        return service.find(words, limit)

    return find


@pytest.mark.parametrize(
    ("kind", "made"),
    [(Service, closure), (Service, lambda service: service.find), (Callee, lambda service: service)],
    ids=["closure", "method", "callable"],
)
def test_tool_keeps_nothing_alive_after_its_use(kind, made):
    """A server may make tools for each request, which close over its data."""
    service = kind()
    gone = weakref.ref(service)
    tool(made(service), name="find").read({"words": "tea"})
    del service
    gc.collect()
    assert gone() is None


def test_signature_is_read_once():
    """Also that of a method, which is another object at each access. That of its function has one parameter more."""
    service = Service()
    assert signature_of(service.find) is signature_of(Service().find)
    assert signature_of(Span) is signature_of(Span)
    assert ["words", "limit"] == [*signature_of(service.find).shape.schema["properties"]]
    with pytest.raises(MisuseError, match="its parameter self has no type"):
        signature_of(Service.find)
