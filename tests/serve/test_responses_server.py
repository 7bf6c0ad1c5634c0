"""``/v1/responses`` of `serve.openai`: what clients of the Responses protocol get and may send."""

import json

import httpx
import pytest
from serving import Scripted, Serving

import rxllm
from rxllm.serve import openai
from rxllm.serve.failures import Refused
from rxllm.serve.openai_inputs import response_request
from rxllm.serve.openai_responses import ResponseEvents, WholeResponse
from rxllm.values.parts import FilePart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
ANSWER = (
    rxllm.Chunk(parts=[ReasoningPart("think")]),
    rxllm.Chunk("Hel"),
    rxllm.Chunk("lo"),
    rxllm.Chunk(parts=[ToolCallPart("a", "secret", "{}", index=0)]),
    rxllm.Chunk(parts=[ToolCallPart("b", "weather", '{"x"', index=1)]),
    rxllm.Chunk(parts=[ToolCallPart("", "", ":1}", index=1)]),
    rxllm.Chunk(finish_reason="tool_call", usage=rxllm.Usage(input_tokens=3, output_tokens=2)),
)


def events_of(*items, tools=()):
    """Return the events of a whole answer."""
    encoder = ResponseEvents("m", tools=tools)
    data = encoder.begin() + b"".join(map(encoder.encode, items)) + encoder.end()
    pairs = [frame.split("\n", 1) for frame in data.decode().split("\n\n") if frame]
    events = [json.loads(line.removeprefix("data: ")) for _, line in pairs]
    assert [event["type"] for event in events] == [name.removeprefix("event: ") for name, _ in pairs]
    assert list(range(1, len(events) + 1)) == [event["sequence_number"] for event in events]
    return events


def kinds(events):
    """Return the types of the events, without their common beginning."""
    return [event["type"].removeprefix("response.") for event in events]


def rebuilt(events):
    """Return the output that a client gathers from the events, and the output of the last event."""
    output = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            output.append(event["item"])
        elif kind == "output_item.done":
            output[event["output_index"]] = event["item"]
    return output, events[-1]["response"]["output"]


def test_arguments_may_go_on_after_a_text():
    """A server may send the arguments of two calls and a text in turns. Each call is whole at its end."""
    pieces = [("a", "weather", '{"x"', 0), ("b", "weather", '{"y"', 1), ("", "", ":1}", 0), "text", ("", "", ":2}", 1)]
    chunks = [each if isinstance(each, str) else rxllm.Chunk(parts=[ToolCallPart(*each)]) for each in pieces]
    gathered, whole = rebuilt(events_of(*chunks, tools={"weather"}))
    assert gathered == whole
    assert ['{"x":1}', '{"y":2}'] == [item["arguments"] for item in whole if item["type"] == "function_call"]
    assert [["text"]] == [[piece["text"] for piece in item["content"]] for item in whole if item["type"] == "message"]


@pytest.mark.parametrize("stream", [True, False])
def test_answer_comes_back_as_it_went(stream):
    """Text, reasoning, calls, finish reason and usage reach rxllm's own client, streamed and whole."""
    with Serving(openai({"m": Scripted(*ANSWER)})) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", api_key="k", api="responses", max_retries=0)
        answer = llm.invoke("hi", stream=stream, tools=[WEATHER])
    assert ("Hello", "think", "tool_call", "m") == (answer.text, answer.reasoning, answer.finish_reason, answer.model)
    assert [("b", "weather", '{"x":1}')] == [(call.id, call.name, call.arguments) for call in answer.tool_calls]
    assert (3, 2) == (answer.usage.input_tokens, answer.usage.output_tokens)


JPEG = FilePart("image/jpeg", b"JPEG")


@pytest.mark.parametrize("stream", [True, False])
def test_picture_comes_back_as_it_went(stream):
    """A picture is an item between the texts. rxllm's own client reads it, and takes it back in the next request."""
    model = Scripted("See", rxllm.Chunk(parts=[JPEG]), "it?", rxllm.Chunk(finish_reason="stop"))
    with Serving(openai({"m": model})) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", api_key="k", api="responses", max_retries=0)
        answer = llm.invoke("draw", stream=stream)
        assert ["TextPart", "FilePart", "TextPart"] == [type(part).__name__ for part in answer.parts]
        assert (JPEG.media_type, JPEG.data) == (answer.parts[1].media_type, answer.parts[1].data)
        llm.invoke([("user", "draw"), answer, ("user", "again")])
    assert [JPEG.data] == [part.data for part in model.asked[1].messages[1].parts if isinstance(part, FilePart)]


def test_picture_has_its_events_in_order():
    """A picture closes the open text; the item of the last event has its bytes and its format."""
    events = events_of("See", rxllm.Chunk(parts=[JPEG]))
    assert [
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "image_generation_call.completed", "output_item.done", "completed"),
    ] == kinds(events)[5:]
    gathered, final = rebuilt(events)
    assert gathered == final
    assert ("SlBFRw==", "jpeg", "completed") == tuple(final[1][name] for name in ("result", "output_format", "status"))
    (message,) = response_request({"input": final[1:]}).messages
    assert rxllm.Message("assistant", [JPEG]) == message


def test_address_of_a_picture_is_an_error():
    """The protocol has the bytes of a picture only."""
    with pytest.raises(Refused, match="image/png"):
        events_of(rxllm.Chunk(parts=[FilePart("image/png", url="https://a.example/a.png")]))


def test_text_has_its_events_in_order():
    """A text is an item with one piece; the same item is in the last event."""
    events = events_of("Hel", "lo")
    assert [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta", "output_text.done", "content_part.done"),
        *("output_item.done", "completed"),
    ] == kinds(events)
    assert "Hello" == events[6]["text"]
    gathered, final = rebuilt(events)
    assert gathered == final


def test_pieces_and_calls_are_items_of_their_own():
    """Reasoning, text, a refusal and parallel calls keep their order; a text and a refusal share a message."""
    parts = [
        *(ReasoningPart("think"), TextPart("a"), RefusalPart("no")),
        *(
            ToolCallPart("x", "f", "1", index=0),
            ToolCallPart("y", "g", "2", index=1),
            ToolCallPart("", "", "3", index=0),
        ),
        TextPart("b"),
    ]
    events = events_of(*(rxllm.Chunk(parts=[part]) for part in parts), tools={"f", "g"})
    gathered, final = rebuilt(events)
    assert gathered == final
    assert ["reasoning", "message", "function_call", "function_call", "message"] == [item["type"] for item in final]
    assert ["output_text", "refusal"] == [piece["type"] for piece in final[1]["content"]]
    assert ["13", "2"] == [item["arguments"] for item in final[2:4]]
    assert {"completed"} == {item["status"] for item in final}
    whole = json.loads(WholeResponse("m", tools={"f", "g"}).encode(rxllm.Message("assistant", parts[:5])))
    assert ["reasoning", "message", "function_call", "function_call"] == [item["type"] for item in whole["output"]]


@pytest.mark.parametrize(
    ("reason", "status", "detail"),
    [
        ("stop", "completed", None),
        ("tool_call", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
        ("other", "incomplete", {"reason": "other"}),
    ],
)
def test_finish_reasons(reason, status, detail):
    """An answer that broke off is incomplete, in the stream's last event and in its response."""
    last = events_of("a", rxllm.Chunk(finish_reason=reason))[-1]
    assert (f"response.{status}", status, detail) == (
        last["type"],
        last["response"]["status"],
        last["response"]["incomplete_details"],
    )


def test_cited_pages_are_annotations():
    """A citation with a URL is an annotation of the text."""
    cited = TextPart("see", citations=[{"url": "https://a.example", "title": "A"}])
    (item,) = events_of("I ", rxllm.Chunk(parts=[cited]))[-1]["response"]["output"]
    (annotation,) = item["content"][0]["annotations"]
    assert ("https://a.example", "A", 2, 5) == tuple(
        annotation[name] for name in ("url", "title", "start_index", "end_index")
    )


def test_conversation_reaches_the_model():
    """Instructions, turns, calls and results become messages; the items of one answer become one message."""
    request = response_request(
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "id": "rs", "summary": []},
                {"type": "item_reference", "id": "rs_1"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
                {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "rain"},
            ],
            "tools": [WEATHER],
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
            "reasoning": {"effort": "low"},
            "max_output_tokens": 7,
            "include": ["reasoning.encrypted_content"],
        }
    )
    assert [
        rxllm.Message("system", "Be brief."),
        rxllm.Message("user", "hi"),
        rxllm.Message("assistant", [TextPart("Let me see."), ToolCallPart("c", "weather", "{}")]),
        rxllm.Message("tool", [ToolResultPart("c", "rain")]),
    ] == list(request.messages)
    assert ("low", 7, "n") == (request.effort, request.max_tokens, request.response_format.name)
    assert ["weather"] == [tool.name for tool in request.tools]


@pytest.mark.parametrize(
    "fields",
    [{}, {"parameters": None, "strict": None}, {"defer_loading": False}, {"parameters": None, "output_schema": None}],
)
def test_fields_of_a_function_that_ask_for_nothing_may_be_sent(fields):
    """A client may send every field of the protocol, with null or false for those that it does not use."""
    (tool,) = response_request({"input": "hi", "tools": [{"type": "function", "name": "now", **fields}]}).tools
    assert rxllm.ToolSpec("now") == tool


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": []}, "'input'"),
        ({"input": [1]}, "object"),
        ({"input": "hi", "previous_response_id": "r"}, "keeps no responses"),
        (
            {"input": [{"type": "item_reference", "id": "msg_1"}]},
            "does not know 'msg_1'. Set store: false in the client",
        ),
        ({"input": [{"type": "item_reference"}]}, "function_call"),
        ({"input": "hi", "instructions": 1}, "instructions"),
        (
            {"input": "hi", "tools": [{**WEATHER, "defer_loading": True}]},
            "field 'defer_loading' of a tool is not served",
        ),
        ({"input": "hi", "text": "plain"}, "'text' as a JSON object"),
        ({"input": "hi", "reasoning": "low"}, "'reasoning' as a JSON object"),
        ({"input": "hi", "tools": [{"type": "mcp", "server_url": "https://a.example"}]}, "'mcp'"),
        ({"input": "hi", "tools": [{"type": "mcp", "server_url": "https://a.example", "function": {}}]}, "'mcp'"),
        (
            {"input": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
            "'container_upload'",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "stores no files"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}]},
            "https",
        ),
    ],
)
def test_what_belongs_to_the_server_is_refused(body, words):
    """Stored content, tools of the vendor, ids of the vendor's files and other addresses get a sentence."""
    with pytest.raises(rxllm.MisuseError, match=words):
        response_request(body)


def test_failures_have_a_status_or_an_error_event():
    """An early failure has its status; a late one ends the stream with an error event and without an end."""
    body = {"model": "m", "input": "hi", "stream": True}
    with Serving(openai({"m": Scripted(rxllm.RateLimited("slow", status=429))})) as server:
        assert 429 == httpx.post(f"{server.url}/v1/responses", json=body, timeout=60).status_code
    with Serving(openai({"m": Scripted("Hel", rxllm.Interrupted("cut"))})) as server:
        text = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60).text
    last = text.split("\n\n")[-2]
    assert last.startswith("event: error")
    assert "response.completed" not in text


def test_answer_that_begins_again_is_an_error():
    """The protocol cannot take text back, so a reset after text is an error."""
    with pytest.raises(rxllm.Interrupted):
        events_of("Hel", rxllm.Chunk("Ho", reset=True))
