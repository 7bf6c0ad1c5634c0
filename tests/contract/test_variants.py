"""Bodies in the same protocols as the recordings, as other servers and other versions may write them.

Each is made by hand, and decoded at once and byte by byte: nothing of it is lost, and an error is an error.
"""

from __future__ import annotations

import json

import httpx
import pytest
from protocols import sse

from rxllm import Anthropic, Gemini, Message, OpenAI
from rxllm.errors import Overloaded, ProviderError
from rxllm.testing import FakeServer, Reply

DONE = b"data: [DONE]\n\n"
PROVIDERS = {
    "chat": lambda **settings: OpenAI("m", api="chat", **settings),
    "responses": lambda **settings: OpenAI("m", api="responses", **settings),
    "messages": lambda **settings: Anthropic("m", **settings),
    "gemini": lambda **settings: Gemini("m", **settings),
}


class Bytewise(httpx.AsyncByteStream):
    """A body that arrives byte by byte."""

    def __init__(self, body):
        self.body = body

    async def __aiter__(self):
        for place in range(len(self.body)):
            yield self.body[place : place + 1]


async def answers(name, body):
    """The answer, or the error and its partial answer, at once and byte by byte."""

    def transport(request):
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Bytewise(body))

    with FakeServer(Reply(body)) as server:
        async with httpx.AsyncClient(transport=httpx.MockTransport(transport)) as client:
            for llm in (
                PROVIDERS[name](base_url=server.url, api_key="k", max_retries=0),
                PROVIDERS[name](base_url=server.url, api_key="k", max_retries=0, client=client),
            ):
                try:
                    yield await llm.ainvoke("hi"), None
                except ProviderError as error:
                    yield error.partial or Message("assistant"), error


async def heard(name, *documents, named=False, end=b""):
    """Return the facts that both ways have in common, without the empty ones."""
    body = b"".join(
        each.encode() if isinstance(each, str) else sse(each, each["type"] if named else None) for each in documents
    )
    found = [summary(message, error) async for message, error in answers(name, body + end)]
    assert found[0] == found[1]
    return found[0]


def summary(message, error):
    """The facts of an answer that are not empty."""
    calls = [(call.id, call.name, json.loads(call.arguments or "{}")) for call in message.tool_calls]
    usage = message.usage and not error and (message.usage.input_tokens, message.usage.output_tokens)
    facts = {
        "text": message.text,
        "reasoning": message.reasoning,
        "refusal": message.refusal,
        "calls": calls,
        "finish": None if error else message.finish_reason,
        "usage": usage,
        "error": error and (type(error), str(error).partition(" (")[0]),
    }
    return {name: fact for name, fact in facts.items() if fact}


# ── chat ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def delta(finish=None, **fields):
    """A frame of a chat completion."""
    return {"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call(name=None, arguments=None, **fields):
    """A fragment of a call, with those fields that are not None."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**fields, "function": function}


TWO = {"calls": [("a", "f", {"x": 1}), ("b", "g", {})], "finish": "tool_call"}
ONE = {"calls": [("a", "f", {"x": 1})], "finish": "tool_call"}
OK = {"text": "x", "finish": "stop"}
CALLED = delta("tool_calls")
CHAT = {
    "parallel calls of one index": (
        [
            delta(tool_calls=[call("f", '{"x":1}', index=0, id="a")]),
            delta(tool_calls=[call("g", "{}", index=0, id="b")]),
            CALLED,
        ],
        TWO,
    ),
    "two calls of one index in a frame": (
        [delta(tool_calls=[call("f", '{"x":1}', index=0, id="a"), call("g", "{}", index=0, id="b")]), CALLED],
        TWO,
    ),
    "calls without indices": (
        [delta(tool_calls=[call("f", '{"x":1}', id="a"), call("g", "{}", id="b")]), CALLED],
        TWO,
    ),
    "arguments as an object": ([delta(tool_calls=[call("f", {"x": 1}, index=0, id="a")]), CALLED], ONE),
    "an index as text": (
        [
            delta(tool_calls=[call("f", '{"x"', index="0", id="a")]),
            delta(tool_calls=[call(None, ":1}", index="0")]),
            CALLED,
        ],
        ONE,
    ),
    "indices that begin with one": (
        [
            delta(tool_calls=[call("f", '{"x"', index=1, id="a")]),
            delta(tool_calls=[call(None, ":1}", index=1)]),
            CALLED,
        ],
        ONE,
    ),
    "empty id and name in later fragments": (
        [
            delta(tool_calls=[call("f", '{"x"', index=0, id="a")]),
            delta(tool_calls=[call("", ":1}", index=0, id="")]),
            CALLED,
        ],
        ONE,
    ),
    "a function that is null": (
        [
            delta(tool_calls=[call("f", '{"x":1}', index=0, id="a")]),
            delta(tool_calls=[{"index": 0, "function": None}]),
            CALLED,
        ],
        ONE,
    ),
    "a call that is not a list": ([delta(tool_calls=call("f", '{"x":1}', index=0, id="a")), CALLED], ONE),
    "a function_call": (
        [
            delta(function_call={"name": "f", "arguments": '{"x"'}),
            delta(function_call={"arguments": ":1}"}),
            delta("function_call"),
        ],
        {"calls": [("", "f", {"x": 1})], "finish": "tool_call"},
    ),
    "a finish reason in capitals": ([delta(content="x"), delta("STOP")], OK),
    "Anthropic's finish reason": ([delta(content="x"), delta("end_turn")], OK),
    "an unknown finish reason": ([delta(content="x"), delta("banana")], {"text": "x", "finish": "other"}),
    "reasoning as a list": (
        [delta(reasoning=[{"type": "text", "text": "Hm."}]), delta("stop", content="x")],
        {**OK, "reasoning": "Hm."},
    ),
    "reasoning as an object": (
        [delta(reasoning={"content": "Hm."}), delta("stop", content="x")],
        {**OK, "reasoning": "Hm."},
    ),
    "reasoning twice": (
        [delta(reasoning="Hm.", reasoning_content="Hm."), delta("stop", content="x")],
        {**OK, "reasoning": "Hm."},
    ),
    "content as an object": ([delta(content={"type": "text", "text": "x"}), delta("stop")], OK),
    "content as a list without types": ([delta(content=[{"text": "x"}]), delta("stop")], OK),
    "a message in place of a delta": ([{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}], OK),
    "usage with choices that are null": (
        [delta("stop", content="x"), {"choices": None, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}],
        {**OK, "usage": (3, 4)},
    ),
    "usage in the words of Responses": (
        [delta("stop", content="x"), {"choices": [], "usage": {"input_tokens": 3, "output_tokens": 4}}],
        {**OK, "usage": (3, 4)},
    ),
    "empty errors": ([{**delta("stop", content="x"), "error": None}, {"error": {}, "choices": []}], OK),
    "pings as events": (["event: ping\ndata: 1\n\n", delta("stop", content="x"), "event: done\ndata: {}\n\n"], OK),
    "an error that is text": ([delta(content="x"), {"error": "boom"}], {"text": "x", "error": (ProviderError, "boom")}),
    "an error like FastAPI's": (
        [delta(content="x"), {"detail": "boom"}],
        {"text": "x", "error": (ProviderError, "boom")},
    ),
    "an error like Anthropic's": (
        [delta(content="x"), {"type": "error", "error": {"type": "overloaded_error", "message": "boom"}}],
        {"text": "x", "error": (Overloaded, "boom")},
    ),
    "errors in a list": (
        [delta(content="x"), {"errors": [{"message": "boom"}]}],
        {"text": "x", "error": (ProviderError, "boom")},
    ),
}


@pytest.mark.parametrize("case", CHAT)
async def test_variants_of_chat(case):
    """As other servers stream OpenAI's chat completions."""
    documents, expected = CHAT[case]
    assert expected == await heard("chat", *documents, end=DONE)


# ── Responses ────────────────────────────────────────────────────────────────────────────────────────────────────

WHOLE = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
CREATED = {"type": "response.created", "response": {"id": "r", "status": "in_progress"}}


def completed(*output):
    """The last event of a response."""
    usage = {"input_tokens": 3, "output_tokens": 4}
    return {
        "type": "response.completed",
        "response": {"id": "r", "status": "completed", "output": output, "usage": usage},
    }


def item(kind, fields, **others):
    """An event of an item."""
    return {"type": f"response.output_item.{kind}", "item": fields, **others}


FUNCTION = {"type": "function_call", "id": "fc", "call_id": "a", "name": "f"}
COUNTED = {**OK, "usage": (3, 4)}
CALL = {**ONE, "usage": (3, 4)}
RESPONSES = {
    "text in the last event only": ([CREATED, completed(WHOLE)], COUNTED),
    "text in the whole item only": ([CREATED, item("done", WHOLE, output_index=0), completed()], COUNTED),
    "text in its done event only": (
        [CREATED, {"type": "response.output_text.done", "text": "x", "output_index": 0}, completed(WHOLE)],
        COUNTED,
    ),
    "text in every place": (
        [
            CREATED,
            item("added", {**WHOLE, "content": []}, output_index=0),
            {"type": "response.output_text.delta", "delta": "x", "output_index": 0},
            {"type": "response.output_text.done", "text": "x", "output_index": 0},
            item("done", WHOLE, output_index=0),
            completed(WHOLE),
        ],
        COUNTED,
    ),
    "text in every place, without indices": (
        [
            CREATED,
            item("added", {**WHOLE, "content": []}),
            {"type": "response.output_text.delta", "delta": "x", "item_id": "m"},
            {"type": "response.output_text.done", "text": "x", "item_id": "m"},
            item("done", WHOLE),
            completed(WHOLE),
        ],
        COUNTED,
    ),
    "text without an item": ([CREATED, {"type": "response.output_text.delta", "delta": "x"}, completed()], COUNTED),
    "a refusal in its done event only": (
        [CREATED, {"type": "response.refusal.done", "refusal": "No.", "output_index": 0}, completed()],
        {"refusal": "No.", "finish": "stop", "usage": (3, 4)},
    ),
    "arguments in the whole item only": (
        [CREATED, item("done", {**FUNCTION, "arguments": '{"x":1}'}, output_index=0), completed()],
        CALL,
    ),
    "arguments in their done event only": (
        [
            CREATED,
            item("added", {**FUNCTION, "arguments": ""}, output_index=0),
            {"type": "response.function_call_arguments.done", "arguments": '{"x":1}', "output_index": 0},
            completed(),
        ],
        CALL,
    ),
    "arguments in every place": (
        [
            CREATED,
            item("added", {**FUNCTION, "arguments": ""}, output_index=0),
            {"type": "response.function_call_arguments.delta", "delta": '{"x":1}', "output_index": 0},
            {"type": "response.function_call_arguments.done", "arguments": '{"x":1}', "output_index": 0},
            item("done", {**FUNCTION, "arguments": '{"x":1}'}, output_index=0),
            completed({**FUNCTION, "arguments": '{"x":1}'}),
        ],
        CALL,
    ),
    "a whole call at once, then its end": (
        [
            CREATED,
            item("added", {**FUNCTION, "arguments": '{"x":1}', "status": "completed"}, output_index=0),
            item("done", {**FUNCTION, "arguments": '{"x":1}', "status": "completed"}, output_index=0),
            completed(),
        ],
        CALL,
    ),
    "a whole call at once, without its end": (
        [
            CREATED,
            item("added", {**FUNCTION, "arguments": '{"x":1}', "status": "completed"}, output_index=0),
            completed(),
        ],
        CALL,
    ),
    "a search that begins as a call and ends as its results": (
        [
            CREATED,
            item("added", {**FUNCTION, "arguments": '{"q":1}', "status": "completed"}, output_index=0),
            item("done", {"type": "search_results", "results": []}, output_index=0),
            item("done", WHOLE, output_index=1),
            completed({"type": "search_results", "results": []}, WHOLE),
        ],
        COUNTED,
    ),
    "an unknown event": ([CREATED, {"type": "response.banana.delta", "delta": "q"}, completed(WHOLE)], COUNTED),
    "a failure that is called completed": (
        [CREATED, {"type": "response.completed", "response": {"status": "failed", "error": {"message": "boom"}}}],
        {"error": (ProviderError, "boom")},
    ),
}


@pytest.mark.parametrize("case", RESPONSES)
async def test_variants_of_responses(case):
    """Each text is heard once, wherever a server writes it."""
    documents, expected = RESPONSES[case]
    assert expected == await heard("responses", *documents, named=True)


# ── Anthropic's messages ─────────────────────────────────────────────────────────────────────────────────────────

START = {
    "type": "message_start",
    "message": {"id": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}},
}
STOP = {"type": "message_stop"}


def end(reason="end_turn"):
    """The event with the stop reason."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4}}


def begun(index, **block):
    """The first event of a block."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def grown(index, **piece):
    """A piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": piece}


TEXT = [begun(0, type="text", text=""), grown(0, type="text_delta", text="x")]
TOOL = begun(1, type="tool_use", id="a", name="f", input={})
MESSAGES = {
    "text in the first event of a block": ([START, begun(0, type="text", text="x"), end(), STOP], COUNTED),
    "a block without its first event": ([START, grown(0, type="text_delta", text="x"), end(), STOP], COUNTED),
    "an unknown event, block and delta": (
        [START, {"type": "banana"}, begun(1, type="banana"), *TEXT, grown(0, type="banana", text="q"), end(), STOP],
        COUNTED,
    ),
    "the input in the first event of a block": (
        [START, begun(0, type="tool_use", id="a", name="f", input={"x": 1}), end("tool_use"), STOP],
        CALL,
    ),
    "blocks that take turns": (
        [
            START,
            TEXT[0],
            TOOL,
            grown(1, type="input_json_delta", partial_json='{"x":1}'),
            TEXT[1],
            end("tool_use"),
            STOP,
        ],
        {**CALL, "text": "x"},
    ),
    "a second beginning": ([START, *TEXT, START, *TEXT, end(), STOP], COUNTED),
    "usage that is null": (
        [{"type": "message_start", "message": {"usage": None}}, *TEXT, {**end(), "usage": None}, STOP],
        OK,
    ),
    "OpenAI's end marker": ([START, *TEXT, end(), STOP, DONE.decode()], COUNTED),
    "a flat error": (
        [START, *TEXT, {"type": "error", "message": "boom"}],
        {"text": "x", "error": (ProviderError, "boom")},
    ),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("case", MESSAGES)
async def test_variants_of_messages(case, named):
    """Events are known by their type, with or without their names."""
    documents, expected = MESSAGES[case]
    assert expected == await heard("messages", *documents, named=named)


# ── Gemini ───────────────────────────────────────────────────────────────────────────────────────────────────────


def content(*parts, finish=None, **others):
    """A response of generateContent."""
    finish = {"finishReason": finish} if finish else {}
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0, **finish}], **others}


COUNTS = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}
GEMINI = {
    "an end without content": ([content({"text": "x"}), {"candidates": [{"finishReason": "STOP"}]}], OK),
    "an end with content without parts": (
        [content({"text": "x"}), {"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]}],
        {"text": "x", "finish": "length"},
    ),
    "usage after the end": ([content({"text": "x"}, finish="STOP"), COUNTS], COUNTED),
    "a call without arguments": (
        [content({"functionCall": {"id": "a", "name": "f"}}, finish="STOP")],
        {"calls": [("a", "f", {})], "finish": "tool_call"},
    ),
    "an error in a list": (
        [
            content({"text": "x"}),
            'data: [{"error": {"code": 503, "message": "boom", "status": "UNAVAILABLE"}}]\r\n\r\n',
        ],
        {"text": "x", "error": (Overloaded, "boom")},
    ),
}


@pytest.mark.parametrize("case", GEMINI)
async def test_variants_of_gemini(case):
    """As older and newer versions of the API stream."""
    documents, expected = GEMINI[case]
    assert expected == await heard("gemini", *documents)
