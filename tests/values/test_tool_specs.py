"""Tools, tool choices and response formats: each vendor's form becomes one neutral form, and each provider sends it."""

import pytest

import rxllm
from rxllm import MisuseError, Request
from rxllm.providers import _anthropic_turns as anthropic
from rxllm.providers import _openai_turns as openai
from rxllm.values.tools import ResponseSchema, ToolSpec

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = ToolSpec("weather", "Tells the weather.", SCHEMA)


def asked(**parameters):
    """A request with these parameters."""
    return Request(prompt="hi", **parameters)


@pytest.mark.parametrize(
    "spelling",
    [
        WEATHER,
        {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
        {
            "type": "function",
            "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
        },
        {"type": "function", "name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
        {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA},
        {"type": "custom", "name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA},
    ],
)
def test_tool_dict_of_any_vendor_becomes_the_same_tool_spec(spelling):
    """A definition in one vendor's form reaches each vendor in that vendor's form."""
    [tool] = asked(tools=[spelling]).tools
    assert tool == WEATHER
    function = {"name": "weather", "parameters": SCHEMA, "description": "Tells the weather."}
    assert {"type": "function", "function": function} == openai.chat_tool(tool)
    assert {
        "name": "weather",
        "input_schema": SCHEMA,
        "description": "Tells the weather.",
    } == anthropic.tool_definition(tool)


@pytest.mark.parametrize(
    ("tool", "refuses", "takes"),
    [
        ({"type": "web_search_20250305", "name": "web_search"}, None, anthropic.tool_definition),
        (
            {"name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral"}},
            openai.chat_tool,
            anthropic.tool_definition,
        ),
        ({"type": "function", "function": {"name": "f"}, "x": 1}, anthropic.tool_definition, openai.chat_tool),
        ({"functionDeclarations": []}, openai.chat_tool, None),
    ],
)
def test_tool_with_vendor_fields_is_sent_to_that_vendor_only(tool, refuses, takes):
    """The vendor's own provider sends the dict unchanged; another provider raises MisuseError."""
    [kept] = asked(tools=tool).tools
    assert kept is tool
    if takes:
        assert takes(kept) is tool
    if refuses:
        with pytest.raises(MisuseError, match="only another provider knows"):
            refuses(kept)


@pytest.mark.parametrize(
    ("choice", "neutral", "chat", "messages"),
    [
        ("auto", "auto", "auto", {"type": "auto"}),
        ({"type": "auto"}, "auto", "auto", {"type": "auto"}),
        ("none", "none", "none", {"type": "none"}),
        ("required", "required", "required", {"type": "any"}),
        ("any", "required", "required", {"type": "any"}),
        ({"type": "any"}, "required", "required", {"type": "any"}),
        (
            {"type": "function", "function": {"name": "f"}},
            "f",
            {"type": "function", "function": {"name": "f"}},
            {"type": "tool", "name": "f"},
        ),
        (
            {"type": "tool", "name": "f"},
            "f",
            {"type": "function", "function": {"name": "f"}},
            {"type": "tool", "name": "f"},
        ),
    ],
)
def test_tool_choice_is_translated_for_each_provider(choice, neutral, chat, messages):
    """A tool choice in any vendor's form becomes the form of each provider."""
    request = asked(tools=[WEATHER], tool_choice=choice)
    assert (neutral, chat, messages) == (
        request.tool_choice,
        openai.chat_choice(request.tool_choice),
        anthropic.tool_choice_of(request),
    )


def test_parallel_tool_calls_can_be_disabled():
    """OpenAI has a field of its own for this; Anthropic has a flag within the tool choice."""
    request = asked(tools=[WEATHER], parallel_tool_calls=False)
    assert {"type": "auto", "disable_parallel_tool_use": True} == anthropic.tool_choice_of(request)
    assert False is rxllm.OpenAI("m", base_url="http://x/v1")._body(request)["parallel_tool_calls"]


@pytest.mark.parametrize(
    ("form", "neutral", "chat"),
    [
        ("json", "json", {"type": "json_object"}),
        ({"type": "json_object"}, "json", {"type": "json_object"}),
        (SCHEMA, ResponseSchema(SCHEMA), {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}),
        (
            {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}},
            ResponseSchema(SCHEMA, "city", True),
            {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}},
        ),
        (
            {"type": "json_schema", "schema": SCHEMA},
            ResponseSchema(SCHEMA),
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        ),
        ({"type": "grammar", "grammar": "x"}, {"type": "grammar", "grammar": "x"}, {"type": "grammar", "grammar": "x"}),
    ],
)
def test_response_format_is_translated(form, neutral, chat):
    """A bare JSON schema is enough. A format that rxllm does not know is sent unchanged."""
    request = asked(response_format=form)
    assert (neutral, chat) == (request.response_format, openai.chat_format(request.response_format))


def test_anthropic_accepts_schema_and_its_own_efforts():
    """Anthropic has one field for both. JSON without a schema and unknown efforts raise MisuseError."""
    request = asked(response_format=SCHEMA, effort="high")
    assert {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "high"} == anthropic.output_config(request)
    with pytest.raises(MisuseError, match="by a schema only"):
        anthropic.output_config(asked(response_format="json"))
    with pytest.raises(MisuseError, match="know the efforts low, medium, high, xhigh, max, not 'minimal'"):
        anthropic.output_config(asked(effort="minimal"))
    body = rxllm.Anthropic("m", base_url="http://x")._body(asked(effort="none"))
    assert ({"type": "disabled"}, None) == (body["thinking"], body.get("output_config"))


@pytest.mark.parametrize("absent", [{}, {"properties": None}, {"properties": None, "required": None}])
def test_schema_without_properties_has_empty_ones(absent):
    """OpenAI refuses it otherwise; servers of MCP write such schemas, those in Go with null."""
    spec = ToolSpec("f", parameters={"type": "object", **absent, "additionalProperties": False})
    assert {"type": "object", "properties": {}, "additionalProperties": False} == spec.parameters
    [tool] = asked(tools=[{"name": "f", "input_schema": {"type": "object", **absent}}]).tools
    assert ToolSpec("f") == tool


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"tools": [WEATHER, {"name": "weather", "parameters": SCHEMA}]}, "Two tools have the name 'weather'"),
        ({"tools": [{"name": "none"}]}, "can't have the name 'none'"),
        ({"tools": [{"name": ""}]}, "name must be a name"),
        ({"tools": [{"type": "function", "function": {"name": None}}]}, "name must be a name"),
        ({"tools": [{"name": "f", "parameters": "x"}]}, "parameters must be a JSON schema"),
        ({"tools": [{"name": "f", "parameters": {"type": "string"}}]}, "parameters must be a JSON schema of an object"),
        ({"tools": [{"name": "f", "input_schema": {}}]}, "parameters must be a JSON schema of an object"),
        ({"tools": [{"name": "f"}]}, "The tool 'f' has no JSON schema"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "The tool 'f' has no JSON schema"),
        ({"tools": [5]}, "tools must be one or more tools, ToolSpecs or dicts"),
        ({"effort": "huge"}, "effort must be one of none, minimal, low"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls must be True, False or None"),
        ({"response_format": 5}, "response_format must be 'json' or a JSON schema"),
    ],
)
def test_invalid_parameter_raises_misuse_error(parameters, sentence):
    """The request is checked before anything is sent."""
    with pytest.raises(MisuseError, match=sentence):
        asked(**parameters)
