"""An agent whose answer has a shape: the shape holds for the last round only."""

import json

import pytest
from attrs import frozen
from combinators.scripted import Scripted, call, collect, roles, shown

import rxllm
from rxllm import Chunk, ReasoningPart, TextPart, ToolSpec, Usage, agent, tool
from rxllm.shapes.dialects import ANY
from rxllm.shapes.modes import Offer


@frozen
class Report:
    """A shape."""

    city: str
    degrees: int


OSLO = '{"city":"Oslo","degrees":7}'


@tool
async def weather(city: str) -> str:
    """Forecast the weather."""
    return f"7 degrees in {city}"


class Native(Scripted):
    """A model with a field for a JSON schema."""

    def _offers(self, request):
        return (Offer("native", ANY, strict=True),)


class Forced(Scripted):
    """A model that can be forced to call a tool."""

    def _offers(self, request):
        return (Offer("tool", ANY),)


def calling(*before):
    """A round with a call."""
    return [*before, call("weather", '{"city":"Oslo"}', finish_reason="tool_call")]


@pytest.mark.parametrize(
    "model",
    [
        Native([calling("Let me ", "see."), [OSLO[:9], OSLO[9:]]]),
        Native([calling(*OSLO), [*OSLO]]),
        Native([calling(Chunk(parts=[TextPart("Hm."), ReasoningPart("think")])), [OSLO]]),
        Native([calling(), ["\n ", OSLO, Chunk(finish_reason="stop")]]),
        Forced(
            [
                calling("Let me see."),
                ["Now ", call("answer", OSLO[:9]), Chunk(parts=[rxllm.ToolCallPart(arguments=OSLO[9:])])],
            ]
        ),
        Scripted([calling("Let me see. {"), ["Here it is:\n```json\n", OSLO, "\n```"]]),
    ],
    ids=["prose", "json", "mixed", "blank", "tool", "prompted"],
)
@pytest.mark.parametrize("stream", [None, False])
async def test_shape_holds_for_the_last_round(model, stream):
    """In each mode, whatever the model writes before its calls, `parse` and `drafts` read the last answer."""
    model = type(model)(model.answers)
    made = agent(model, weather).bind(shape=Report, stream=stream)
    assert Report("Oslo", 7) == await rxllm.pipe(made, rxllm.parse(Report)).ainvoke("hi")
    model = type(model)(model.answers)
    drafts = [d async for d in rxllm.pipe(agent(model, weather).bind(shape=Report), rxllm.drafts(Report)).astream("hi")]
    assert json.loads(OSLO) == drafts[-1]
    assert 2 == len(model.requests)


async def test_text_before_a_call_is_reasoning():
    """So the text of the whole answer is its JSON. The answer without a shape keeps the text."""
    made = [calling("Let me ", "see."), [OSLO]]
    chunks, _ = await collect(agent(Native(made), weather).bind(shape=Report)("hi"))
    assert ['(Let me see.) weather{"city":"Oslo"}', "=7 degrees in Oslo", OSLO] == [shown(chunk) for chunk in chunks]
    assert OSLO == rxllm.join(chunks).text
    assert "Let me see." + OSLO == (await agent(Native(made), weather).ainvoke("hi")).text


async def test_answer_that_does_not_fit_is_text():
    """It is held back until the round ends, because it might be followed by a call."""
    made = agent(Native([calling(), ["It is ", "7.", Chunk(finish_reason="stop")]]), weather).bind(shape=Report)
    chunks, _ = await collect(made("hi"))
    assert ["It is 7."] == [chunk.text for chunk in chunks if chunk.text]
    with pytest.raises(rxllm.ParseError) as caught:
        await rxllm.pipe(made, rxllm.parse(Report)).ainvoke("hi")
    assert ("malformed", "It is 7.") == (caught.value.reason, caught.value.text)


@pytest.mark.parametrize("before", [["It is "], [*OSLO[:9]], ["It ", call("weather", '{"city":"Rome"}')]])
async def test_text_of_a_chunk_that_discards_the_answer_is_kept(before):
    """The text is held back as that of any other chunk."""
    model = Native([[*before, Chunk("Sorry: ", reset=True), "7."]])
    made = agent(model, weather).bind(shape=Report)
    with pytest.raises(rxllm.ParseError) as caught:
        await rxllm.pipe(made, rxllm.parse(Report)).ainvoke("hi")
    assert "Sorry: 7." == caught.value.text


async def test_second_attempt_runs_no_tool_again():
    """`shaped` shows the model its answer with all rounds, so that it has the results."""
    counted = []

    @tool(name="weather")
    async def count(city: str) -> str:
        counted.append(city)
        return "7 degrees"

    model = Native([[*calling(), Chunk(usage=Usage(output_tokens=3))], ['{"city":"Oslo"}'], [OSLO]])
    assert Report("Oslo", 7) == await rxllm.shaped(agent(model, count), Report).ainvoke("hi")
    assert (["Oslo"], 3) == (counted, len(model.requests))
    assert [
        ("user", "hi"),
        ("assistant", 'weather{"city":"Oslo"}'),
        ("tool", "=7 degrees"),
        ("assistant", '{"city":"Oslo"}'),
    ] == roles(model.prompts[2])[:4]
    assert "the field 'degrees' is missing" in model.prompts[2][4].text


@pytest.mark.parametrize("finish", ["stop", "tool_call"])
async def test_call_that_waits_is_not_asked_for_again(finish):
    """`shaped` raises the `ParseError`, and its partial has the pending call, or the call of the caller's tool."""
    approving = tool(weather.function, name="weather", approve=True)
    calls = [call("weather", '{"city":"Oslo"}', "a"), call("where", "{}", "w", 1, finish_reason=finish)]
    model = Native([calls, [OSLO]])
    asked = rxllm.shaped(agent(model, approving).bind(tools=[ToolSpec("where")]), Report)
    with pytest.raises(rxllm.ParseError) as caught:
        await asked.ainvoke("hi")
    partial = caught.value.partial
    assert (1, ["a"], ["a", "w"]) == (
        len(model.requests),
        [pending.call.id for pending in partial.pending],
        [made.id for made in partial.tool_calls],
    )


async def test_shape_is_asked_for_in_each_round():
    """By the way of the model: a schema, or a further tool. The agent's own tools stay."""
    model = Native([calling(), [OSLO]])
    await agent(model, weather).bind(shape=Report).ainvoke("hi")
    assert ["Report", "Report"] == [request.response_format.name for request in model.requests]
    model = Forced([calling(), [call("answer", OSLO, finish_reason="tool_call")]])
    answer = await agent(model, weather).bind(shape=Report, tool_choice="required").ainvoke("hi")
    assert [["weather", "answer"]] * 2 == [
        [each.name for each in request.tools if isinstance(each, ToolSpec)] for request in model.requests
    ]
    assert (OSLO, "stop") == (answer.text, answer.finish_reason)
