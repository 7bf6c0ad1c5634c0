"""Modes: how a shape is asked for, and what is refused before anything is sent."""

from typing import Any

import pytest

from rxllm import Message, MisuseError, Request, ToolSpec
from rxllm.shapes.dialects import ANY, STRICT
from rxllm.shapes.modes import Offer, plan_of
from rxllm.shapes.shape import shape_of
from rxllm.values.tools import ResponseSchema

OFFERS = (
    Offer("native", STRICT, strict=True),
    Offer("native", ANY, strict=False),
    Offer("tool", ANY, alone=True),
)
TOOL = ToolSpec("answer")


def planned(prompt="Hi", *, shape=int, offers=OFFERS, **parameters):
    """Return the plan of a request."""
    return plan_of(Request(prompt=prompt, shape=shape, **parameters), offers, "Model")


def test_first_offer_that_loses_nothing_is_taken():
    """Strict, then not strict, then a tool, then the prompt."""
    strict = planned()
    assert "native" == strict.mode
    form = strict.request.response_format
    assert (True, "int") == (form.strict, form.name)
    assert strict.request.shape is None
    assert strict.request.shape_mode is None
    loose = planned(shape=dict[str, int]).request.response_format
    assert (False, {"type": "object", "additionalProperties": {"type": "integer"}}) == (loose.strict, loose.schema)
    assert "tool" == planned(shape=dict[str, int], offers=(OFFERS[0], OFFERS[2])).mode
    assert "prompted" == planned(shape=dict[str, int], offers=OFFERS[:1]).mode
    assert "prompted" == planned(offers=()).mode


def test_tool_is_forced_and_alone():
    """The request forces one call of the tool."""
    plan = planned(shape_mode="tool")
    (tool,) = plan.request.tools
    assert ("tool", "answer", "answer", shape_of(int).schema) == (plan.mode, plan.tool, tool.name, tool.parameters)
    assert ("required", False) == (plan.request.tool_choice, plan.request.parallel_tool_calls)


def test_tool_stands_beside_the_tools_of_the_request():
    """The tool gets an unused name, and the model may call any tool."""
    plan = planned(shape_mode="tool", tools=[TOOL], parallel_tool_calls=True)
    assert ["answer", "answer_2"] == [tool.name for tool in plan.request.tools]
    assert ("answer_2", "required", True) == (plan.tool, plan.request.tool_choice, plan.request.parallel_tool_calls)


def test_prompted_mode_writes_the_schema_into_the_prompt():
    """Behind a text, or into the system's message, where it does not disturb the turns."""
    told = planned("Hi", shape_mode="prompted").request.prompt
    assert told.startswith(
        'Hi\n\nAnswer with one JSON object that fits this JSON schema, and with nothing else:\n{"type"'
    )
    bare = planned([("user", "Hi")], shape_mode="prompted").request.prompt
    assert [("system", True), ("user", False)] == [(turn.role, "JSON schema" in turn.text) for turn in bare]
    system, user = planned([("system", "Be kind."), ("user", "Hi")], shape_mode="prompted").request.prompt
    assert system.text.startswith("Be kind.\n\nAnswer with one JSON object")
    assert Message("user", "Hi") == user


def test_offer_on_request_is_not_chosen_by_itself():
    """The program must name its mode."""
    offers = (Offer("native", ANY, on_request=True),)
    assert "prompted" == planned(offers=offers).mode
    assert isinstance(planned(offers=offers, shape_mode="native").request.response_format, ResponseSchema)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"response_format": "json"}, "either a shape or a response_format"),
        ({"shape_mode": "tool", "offers": OFFERS[:1]}, "shape_mode='tool', which Model does not offer"),
        ({"shape_mode": "native", "offers": OFFERS[:1], "shape": dict[str, int]}, "because it takes no dict"),
        ({"shape_mode": "native", "offers": OFFERS[:1], "shape": Any}, "because it takes no value of any type"),
        ({"shape_mode": "tool", "tool_choice": "none"}, "can't have the tool_choice 'none'"),
    ],
)
def test_request_that_cannot_be_sent_is_refused(parameters, message):
    """Before anything is sent, with what to do instead."""
    with pytest.raises(MisuseError, match=message):
        planned(**parameters)
