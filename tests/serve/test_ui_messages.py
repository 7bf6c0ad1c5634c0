"""`ui_messages`: the events that ``useChat`` reads. The encoder is pure, so most tests feed it chunks directly."""

import json

import httpx
import pydantic
import pytest
import reactivex
from serving import Serving
from starlette.applications import Starlette
from starlette.routing import Route

import rxllm
from rxllm.serve import data_part, ui_messages
from rxllm.serve.failures import failure_of
from rxllm.serve.ui_messages import UIEvents
from rxllm.values.parts import FilePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart

BOTH_MAJORS = {  # the events that versions 6 and 7 accept; an unknown type ends the message there
    *("start", "start-step", "finish-step", "text-start", "text-delta", "text-end", "error", "finish"),
    *("reasoning-start", "reasoning-delta", "reasoning-end", "tool-input-start", "tool-input-delta"),
    *("tool-input-available", "tool-input-error", "tool-output-available", "tool-output-error", "tool-output-denied"),
    *("tool-approval-request", "source-url", "file"),
}


def documents(data):
    """Return the JSON documents of an event stream."""
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def events_of(*items, sdk=6):
    """Return the events of a whole answer, without the ones that begin it."""
    encoder = UIEvents(sdk=sdk)
    data = encoder.begin() + b"".join(map(encoder.encode, items)) + encoder.end()
    return documents(data)


def kinds(events):
    """Return the types of the events."""
    return [event["type"] for event in events]


def chunk(*parts, **facts):
    """Return a chunk with these parts."""
    return rxllm.Chunk(parts=parts, **facts)


def test_text_is_one_block():
    """Consecutive texts are deltas of one block, which is closed at the end."""
    assert [
        "start",
        "start-step",
        "text-start",
        "text-delta",
        "text-delta",
        "text-end",
        "finish-step",
        "finish",
    ] == kinds(events_of("Hel", "lo"))


def test_reasoning_and_text_are_blocks_of_their_own():
    """A piece of another kind closes the open block; each block has its own id."""
    events = events_of(chunk(ReasoningPart("hm")), "a", chunk(ReasoningPart("ha")), "b")
    starts = [event for event in events if event["type"].endswith("-start") and "id" in event]
    assert ["reasoning-start", "text-start", "reasoning-start", "text-start"] == kinds(starts)
    assert 4 == len({event["id"] for event in starts})
    assert [event["id"] for event in starts] == [event["id"] for event in events if event["type"].endswith("-end")]


def test_tool_call_shows_its_arguments_as_they_come_and_then_whole():
    """A call has a start, deltas, and its input as JSON; its result follows, and the next piece begins a step."""
    events = events_of(
        chunk(ToolCallPart("c", "weather", '{"city"', index=0)),
        chunk(ToolCallPart("", "", ':"Rome"}', index=0)),
        chunk(ToolResultPart("c", '{"sky":"blue"}')),
        "Blue.",
    )
    assert [
        *("tool-input-start", "tool-input-delta", "tool-input-delta", "tool-input-available"),
        *("tool-output-available", "finish-step", "start-step", "text-start", "text-delta", "text-end"),
    ] == kinds(events)[2:-2]
    assert {"city": "Rome"} == events[5]["input"]
    assert {"sky": "blue"} == events[6]["output"]


def test_ids_that_a_server_repeats_stay_apart():
    """Two rounds with the same call id are two calls for the page, each with its own result."""
    round_ = [chunk(ToolCallPart("c", "f", "{}")), chunk(ToolResultPart("c", "1"))]
    events = events_of(*round_, *round_)
    called = [event["toolCallId"] for event in events if event["type"] == "tool-input-available"]
    answered = [event["toolCallId"] for event in events if event["type"] == "tool-output-available"]
    assert called == answered
    assert 2 == len(set(called))


def test_parallel_calls_are_told_apart_by_index():
    """Interleaved fragments of two calls reach their own call."""
    events = events_of(
        chunk(ToolCallPart("a", "f", '{"x":', index=0)),
        chunk(ToolCallPart("b", "g", '{"y":', index=1)),
        chunk(ToolCallPart("", "", "1}", index=0)),
        chunk(ToolCallPart("", "", "2}", index=1)),
    )
    inputs = {event["toolCallId"]: event["input"] for event in events if event["type"] == "tool-input-available"}
    assert {"a": {"x": 1}, "b": {"y": 2}} == inputs


def test_text_between_the_fragments_of_a_call_leaves_the_call_whole():
    """Text and reasoning are blocks beside the open call, which has all its arguments at the end."""
    events = events_of(
        chunk(ToolCallPart("c", "weather", '{"city"', index=0)),
        "One ",
        "moment",
        chunk(ReasoningPart("hm")),
        chunk(ToolCallPart("", "", ':"Rome"}', index=0)),
    )
    assert [
        *("tool-input-start", "tool-input-delta", "text-start", "text-delta", "text-delta", "text-end"),
        *("reasoning-start", "reasoning-delta", "tool-input-delta", "reasoning-end", "tool-input-available"),
    ] == kinds(events)[2:-2]
    assert {"city": "Rome"} == events[-3]["input"]


def test_arguments_that_are_not_json_are_an_error_of_the_call():
    """Cut arguments give ``tool-input-error`` with the text as it came."""
    (error,) = [
        event for event in events_of(chunk(ToolCallPart("a", "f", '{"x'))) if event["type"] == "tool-input-error"
    ]
    assert ('{"x', "a") == (error["input"], error["toolCallId"])


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [("error", "tool-output-error"), ("denied", "tool-output-denied"), ("ok", "tool-output-available")],
)
def test_outcomes_have_their_own_events(outcome, kind):
    """The outcome of a result chooses the event."""
    events = events_of(chunk(ToolCallPart("a", "f", "{}")), chunk(ToolResultPart("a", "no", outcome)))
    assert kind in kinds(events)


def test_sources_and_files():
    """A citation with a URL is a source, once; a file is a data URL."""
    cited = TextPart("see", citations=[{"url": "https://a.example", "title": "A"}])
    events = events_of(chunk(cited), chunk(cited), chunk(FilePart("image/png", data=b"\x89PNG")))
    assert 1 == kinds(events).count("source-url")
    assert "data:image/png;base64,iVBORw==" == next(event["url"] for event in events if event["type"] == "file")


def test_data_of_the_program_is_a_part():
    """`data_part` is a part with its name; a later one with the same id replaces it in the page."""
    sunny = data_part("weather", {"sky": "blue"}, id="w", transient=True)
    events = events_of("It is ", sunny, "sunny.")
    assert {"type": "data-weather", "data": {"sky": "blue"}, "id": "w", "transient": True} in events
    assert 2 == kinds(events).count("text-start")
    with pytest.raises(rxllm.MisuseError, match="must be a word"):
        data_part("a b", 1)


def test_data_of_the_program_may_be_a_value_of_its_classes():
    """Of pydantic, too. Half of a character does not end the answer."""

    class Weather(pydantic.BaseModel):
        sky: str

    events = events_of(data_part("weather", Weather(sky="blue\ud800")), "a\ud800")
    assert {"type": "data-weather", "data": {"sky": "blue\ufffd"}} in events
    assert "a\ufffd" in [event.get("delta") for event in events]


def test_finish_has_the_reason_and_the_usage():
    """The last event has the reason in the protocol's word, and the counts as metadata."""
    usage = rxllm.Usage(input_tokens=3, output_tokens=2)
    finish = events_of("a", rxllm.Chunk(finish_reason="length", usage=usage))[-1]
    assert ("length", {"usage": {"inputTokens": 3, "outputTokens": 2}}) == (
        finish["finishReason"],
        finish["messageMetadata"],
    )


def test_version_6_gets_only_what_it_knows_and_7_can_take_text_back():
    """An answer that begins again is an error for version 6, and ``reset-step`` for version 7."""
    again = rxllm.Chunk("Ho", reset=True)
    with pytest.raises(rxllm.Interrupted):
        events_of("Hel", again)
    assert "reset-step" in kinds(events_of("Hel", again, sdk=7))
    assert "error" not in kinds(events_of(again))
    everything = events_of(
        chunk(ReasoningPart("r")), "a", *[chunk(ToolCallPart("c", "f", "{}")), chunk(ToolResultPart("c", "1"))]
    )
    assert set(kinds(everything)) <= BOTH_MAJORS
    assert None not in [value for event in everything for value in event.values()]


def test_response_has_the_protocols_header_and_an_error_event():
    """The response names the protocol; a failure in the middle is an ``error`` event without ``finish``."""

    async def page(request):
        return ui_messages(reactivex.concat(reactivex.of("Hel"), reactivex.throw(rxllm.Interrupted("cut"))))

    with Serving(Starlette(routes=[Route("/", page)])) as server:
        response = httpx.get(server.url, timeout=60)
    assert "v1" == response.headers["x-vercel-ai-ui-message-stream"]
    events = documents(response.content)
    assert failure_of(rxllm.Interrupted("cut")).message == events[-1]["errorText"]
    assert "finish" not in kinds(events)
