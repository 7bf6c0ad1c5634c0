"""Answers without their end marker, and answers in another form than the requested one."""

import json

import pytest
from models import made
from protocols import EVERY, Chat, Messages, Responses, aws_event, split_every, sse

from rxllm import Anthropic, Chunk, Gemini, Interrupted, OpenAI, Timeout, Timeouts
from rxllm.testing import End, FakeServer, Reply

EACH = pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
PINGS = [piece for _ in range(200) for piece in (b": ping\n\n", 0.05)]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """The silence after a finish reason is short."""
    monkeypatch.setattr("rxllm.providers._reader.AFTER_FINISH", 0.2)


def model(protocol, server, **settings):
    """A model that speaks it."""
    return made(protocol, server.url, **settings)


FINISHED = [each for each in EVERY if each.terminal or each.name == "generate"]


def without_end_marker(protocol):
    """The events of an answer up to its finish reason and its usage; some have no more than that."""
    events = protocol.stream(["Hel", "lo"])
    return events if protocol.name == "generate" else events[:-1]


@pytest.mark.parametrize("protocol", FINISHED, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("rest", [PINGS, [End.HANG]], ids=["pings", "silence"])
def test_answer_with_a_finish_reason_is_whole_without_its_end_marker(protocol, rest, timeout):
    """Also while the connection stays open; rxllm closes the request."""
    if protocol.name == "converse":  # its pings are frames
        rest = [aws_event("ping", {}) if piece == PINGS[0] else piece for piece in rest]
    with FakeServer(Reply([*without_end_marker(protocol), *rest])) as server:
        answer = model(protocol, server, timeout=timeout).invoke("hi")
        server.exchange(0).wait_closed()
    assert ("Hello", "stop") == (answer.text, answer.finish_reason)


def usage_frame(protocol):
    """An event with nothing but usage, as some gateways repeat it."""
    if protocol.name == "messages":
        return sse({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 5}}, event="message_delta")
    if protocol.name == "generate":
        return sse({"candidates": [], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5}})
    return sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}})


REPEATING = [each for each in FINISHED if each.name != "converse"]  # there, usage is the end marker


@pytest.mark.parametrize("protocol", REPEATING, ids=lambda protocol: protocol.name)
def test_endless_usage_after_the_finish_reason_does_not_keep_the_answer_open(protocol, monkeypatch):
    """The answer is whole after a while, although each next event comes soon."""
    monkeypatch.setattr("rxllm.providers._reader.USAGE_AFTER_FINISH", 0.2)
    repeated = [piece for _ in range(300) for piece in (usage_frame(protocol), 0.02)]
    with FakeServer(Reply([*without_end_marker(protocol), *repeated, End.HANG])) as server:
        answer = model(protocol, server, timeout=20.0).invoke("hi")
        server.exchange(0).wait_closed(2)
    assert ("Hello", "stop", 5) == (answer.text, answer.finish_reason, answer.usage.output_tokens)


def test_content_after_the_finish_reason_is_not_cut_off(monkeypatch):
    """A server that sends a finish reason with each piece may take as long as it likes."""
    monkeypatch.setattr("rxllm.providers._reader.USAGE_AFTER_FINISH", 0.4)
    event = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    with FakeServer(Reply([*(piece for _ in range(10) for piece in (sse(event), 0.06)), sse("[DONE]")])) as server:
        assert "a" * 10 == model(Chat(), server).invoke("hi").text


def chat_event(finish=None, **delta):
    """A frame of a chat."""
    return sse({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


CALLED = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]
TEXT = [chat_event(content="Hel"), 0.5, chat_event(content="lo"), chat_event("stop")]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([chat_event("stop", content=""), 0.5, *TEXT], ("", "Hello", 0, "stop")),
        ([chat_event("stop", reasoning="H"), 0.5, chat_event(reasoning="m"), *TEXT], ("Hm", "Hello", 0, "stop")),
        ([chat_event("stop"), 0.5, chat_event("tool_calls", tool_calls=CALLED)], ("", "", 1, "tool_call")),
        ([chat_event("stop"), 0.5, chat_event("length", reasoning="Hm")], ("Hm", "", 0, "length")),
    ],
    ids=["text", "reasoning before it", "call", "only reasoning"],
)
def test_chat_goes_on_after_an_early_finish_reason(events, expected):
    """A gateway sends it before the first content, while the model thinks. The next finish reason ends the answer."""
    with FakeServer(Reply([*events, End.HANG])) as server:
        answer = model(Chat(), server, timeout=None).invoke("hi")
    assert expected == (answer.reasoning, answer.text, len(answer.tool_calls), answer.finish_reason)


def test_answer_without_content_ends_at_the_limit_on_silence():
    """It is whole, because its finish reason came."""
    timeout = Timeouts(idle=0.8)
    with FakeServer(Reply([chat_event("stop"), 0.5, chat_event(reasoning="Hm"), End.HANG])) as server:
        answer = model(Chat(), server, timeout=timeout).invoke("hi")
    assert ("Hm", "", "stop") == (answer.reasoning, answer.text, answer.finish_reason)


def test_content_without_a_finish_reason_goes_on_after_one():
    """It may pause as long as before the finish reason. The next one ends the answer soon."""
    late = [chat_event(content="b"), 0.5, chat_event(content="c"), chat_event("stop")]
    with FakeServer(Reply([chat_event("stop", content="a"), *late, End.HANG])) as server:
        assert "abc" == model(Chat(), server, timeout=None).invoke("hi").text


def gemini_event(finish=None, **part):
    """A response of Gemini with one part."""
    candidate = {"content": {"role": "model", "parts": [part]}, **({"finishReason": finish} if finish else {})}
    return sse({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5}})


def test_gemini_goes_on_after_an_early_finish_reason():
    """The text comes after the thoughts, and with it the finish reason of the end."""
    early = sse({"candidates": [{"finishReason": "STOP"}]})
    thought = [gemini_event("STOP", text="Hm", thought=True), 0.5]
    text = [gemini_event(text="Hel"), 0.5, gemini_event("STOP", text="lo")]
    with FakeServer(Reply([early, 0.5, *thought, *text, End.HANG])) as server:
        answer = Gemini("m", base_url=server.url, timeout=None).invoke("hi")
    assert ("Hm", "Hello", "stop") == (answer.reasoning, answer.text, answer.finish_reason)


CODE = gemini_event("STOP", executableCode={"language": "PYTHON", "code": "print(42)"})
RESULT = gemini_event(codeExecutionResult={"outcome": "OUTCOME_OK", "output": "42"})


@pytest.mark.parametrize("code", [CODE, gemini_event("STOP", toolCall={"id": "1", "toolType": "FILE_SEARCH"})])
def test_an_answer_goes_on_while_the_server_runs_a_tool(code):
    """Gemini sends a finish reason with the code, then runs it, and the model goes on, however long that takes."""
    text = [gemini_event(text="It is"), 0.5, gemini_event("STOP", text=" 42.")]
    with FakeServer(Reply([code, 0.5, RESULT, 0.5, *text, End.HANG])) as server:
        answer = Gemini("m", base_url=server.url, timeout=20.0).invoke("hi")
    assert ("It is 42.", "stop", 5) == (answer.text, answer.finish_reason, answer.usage.output_tokens)


@pytest.mark.parametrize(("events", "is_whole"), [([CODE], True), ([CODE, RESULT], False)])
def test_an_answer_without_the_finish_reason_of_its_end_is_interrupted(events, is_whole):
    """The finish reason of the code is not that of what follows."""
    with FakeServer(Reply(events)) as server:
        llm = Gemini("m", base_url=server.url, max_retries=0)
        if is_whole:
            assert "stop" == llm.invoke("hi").finish_reason
        else:
            with pytest.raises(Interrupted):
                llm.invoke("hi")


def test_a_second_response_may_take_its_time():
    """A gateway that answers with several responses in a row pauses longer within them than after a finish reason."""
    first, second = Responses(id="one").stream(["Hel"]), Responses(id="two").stream(["lo"])
    with FakeServer(Reply([*first, 0.05, *second[:3], 0.5, *second[3:]])) as server:
        assert "Hello" == model(Responses(), server).invoke("hi").text.replace("\n", "")


@pytest.mark.parametrize("end", [b"data: [DONE]\n", b"data: [DONE]", b"data: [DONE]\r\n"])
@pytest.mark.parametrize("finished", [True, False])
def test_the_end_marker_needs_no_blank_line(end, finished):
    """With and without a finish reason before it."""
    events = Chat().stream(["Hel", "lo"])[: -1 if finished else -3]
    with FakeServer(Reply([*events, end, End.HANG])) as server:
        answer = model(Chat(), server, timeout=20.0).invoke("hi")
    assert "Hello" == answer.text


UNFRAMED = [each for each in EVERY if each.name != "converse"]  # a binary frame has no end mark
LOOSE = pytest.mark.parametrize("protocol", UNFRAMED, ids=lambda protocol: protocol.name)


@LOOSE
def test_the_last_event_needs_no_blank_line(protocol):
    """It is read when no more bytes follow."""
    *events, last = protocol.stream(["Hel", "lo"])
    with FakeServer(Reply([*events, last.rstrip(b"\r\n"), End.HANG])) as server:
        assert "Hello" == model(protocol, server, timeout=20.0).invoke("hi").text


@LOOSE
@pytest.mark.parametrize("size", [None, 7])
@pytest.mark.parametrize("end", ["", "\n"])
def test_finish_reason_needs_no_blank_line(protocol, end, size):
    """It is read after a short silence, whatever the limits on silence are."""
    events = protocol.stream(["Hello"])
    finish = FINISH.get(protocol.name, -1)
    body = b"".join(events[: len(events) + finish + 1]).rstrip(b"\r\n") + end.encode()
    pieces = [body] if size is None else split_every(size, body)
    with FakeServer(Reply([*pieces, End.HANG])) as server:
        answer = model(protocol, server, timeout=None).invoke("hi")
        server.exchange(0).wait_closed()
    assert ("Hello", "stop") == (answer.text, answer.finish_reason)


FINISH = {"chat": -3, "messages": -2, "completions": -3}  # the place of the finish reason, from the end


@LOOSE
def test_the_rest_of_an_event_may_come_late(protocol):
    """An incomplete event is not read: after a pause, the answer goes on."""
    body = b"".join(protocol.stream(["Hel", "lo"]))
    place = body.index(b'"lo"') + 2
    with FakeServer(Reply([body[:place], 0.5, body[place : place + 10], 0.5, body[place + 10 :]])) as server:
        assert "Hello" == model(protocol, server).invoke("hi").text


def test_an_event_before_its_blank_line_is_read_once():
    """The blank line after the pause is not another event, and the next event is whole."""
    first, second, *rest = Chat().stream(["Hel", "lo"])[1:]
    with FakeServer(Reply([first[:-1], 0.5, first[-1:] + second[:-2], 0.5, second[-2:], *rest])) as server:
        assert "Hello" == model(Chat(), server).invoke("hi").text


@EACH
def test_silence_before_the_finish_reason_is_a_timeout(protocol):
    """The error has the partial answer."""
    with FakeServer(Reply([*protocol.stream(["Hel", "lo"])[:2], End.HANG])) as server, pytest.raises(Timeout):
        model(protocol, server, timeout=Timeouts(first_chunk=0.3, idle=0.3)).invoke("hi")


def test_usage_may_come_late():
    """Each event after the finish reason counts as long as the silence between them is short."""
    *events, usage, done = Chat().stream(["Hello"])
    with FakeServer(Reply([*events, 0.05, b": ping\n\n", 0.05, usage, 0.05, done])) as server:
        assert 5 == model(Chat(), server).invoke("hi").usage.output_tokens


@EACH
def test_a_whole_answer_needs_no_end_of_its_body(protocol):
    """It is read after a short silence, whatever the limits on silence are."""
    body = protocol.whole(["Hello"])
    with FakeServer(Reply([body[:20], 0.3, body[20:], End.HANG])) as server:
        answer = model(protocol, server, timeout=None).invoke("hi", stream=False)
        server.exchange(0).wait_closed()
    assert "Hello" == answer.text


@EACH
@pytest.mark.parametrize("end", [End.FIN, End.RST])
def test_a_whole_answer_is_read_though_the_connection_breaks_after_it(protocol, end):
    """The document is complete."""
    with FakeServer(Reply([protocol.whole(["Hello"]), 0.05, end])) as server:
        assert "Hello" == model(protocol, server).invoke("hi", stream=False).text


@EACH
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_read_where_a_whole_answer_was_asked_for(protocol, size):
    """The answer is one chunk with all facts of the stream."""
    body = b"".join(protocol.stream(["Hel", "lo"]))
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    with FakeServer(Reply(pieces)) as server:
        [chunk] = model(protocol, server).stream("hi", stream=False)
    assert ("Hello", "stop", 5) == (chunk.text, chunk.finish_reason, chunk.usage.output_tokens)


@pytest.mark.parametrize(
    "protocol", [each for each in EVERY if each.name != "ollama"], ids=lambda protocol: protocol.name
)  # Ollama's lines could be the beginning of a document, so nothing is read before the end
def test_a_stream_that_breaks_is_an_error_where_a_whole_answer_was_asked_for(protocol):
    """The error has the partial answer."""
    events = protocol.stream(["Hel", "lo"])
    last = max(place for place, event in enumerate(events) if b'"lo"' in event)
    with FakeServer(Reply([*events[: last + 1], End.FIN])) as server, pytest.raises(Interrupted) as caught:
        model(protocol, server).invoke("hi", stream=False)
    assert "Hello" == caught.value.partial.text


@EACH
def test_a_whole_answer_is_read_where_a_stream_was_asked_for(protocol):
    """It is one chunk."""
    with FakeServer(Reply.json(protocol.whole(["Hel", "lo"]))) as server:
        [chunk] = model(protocol, server).stream("hi")
    assert "Hello" == chunk.text


# ── half characters ──────────────────────────────────────────────────────────────────────────────────────────────

CUT = "a😀b🎉"
HALVES = [json.dumps(piece) for piece in ("a\ud83d", "\ude00b\ud83c", "\udf89")]


def chat_frames(field, pieces):
    """Frames whose deltas have one field."""
    return [b'data: {"choices":[{"delta":{%s}}]}\n\n' % (field % piece).encode() for piece in pieces]


FIELDS = {
    "text": '"content":%s',
    "reasoning": '"reasoning_content":%s',
    "refusal": '"refusal":%s',
    "arguments": '"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":%s}}]',
}


def said(message):
    """All that it says, whatever it is."""
    return message.text + message.reasoning + message.refusal + "".join(call.arguments for call in message.tool_calls)


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("ping", [b"", b": ping\n\n"])
def test_split_character_is_joined(field, ping):
    """In every kind of text; each half ends or begins a frame."""
    frames = [piece for frame in chat_frames(field, HALVES) for piece in (frame, ping)]
    with FakeServer(Reply([b"".join(frames), b"data: [DONE]\n\n"])) as server:
        assert CUT == said(OpenAI("m", base_url=server.url).invoke("hi"))


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a\ud83d"], "a\ufffd"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["a", "\ude00b"], "a\ufffdb"),
        (["a\ud83d", "\ud83d\ude00"], "a\ufffd😀"),
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d\ud83d", "\ude00"], "a\ufffd😀"),
    ],
)
def test_half_a_character_without_the_other_is_replaced(field, pieces, text):
    """By U+FFFD, in its place; nothing else changes."""
    frames = chat_frames(field, map(json.dumps, pieces))
    with FakeServer(Reply([*frames, b"data: [DONE]\n\n"])) as server:
        assert text == said(OpenAI("m", base_url=server.url).invoke("hi"))


def test_split_characters_leave_the_facts_of_the_answer():
    """The answer and its reasoning keep their provider, so that they can go back."""
    pieces = chat_frames('"reasoning_content":%s', HALVES)
    first = b'data: {"id":"c","model":"m-1","choices":[{"delta":{"reasoning_content":"\\ud83d"}}]}\n\n'
    rest = [b'data: {"choices":[{"delta":{"reasoning_content":"\\ude00"}}]}\n\n', *pieces, b"data: [DONE]\n\n"]
    with FakeServer(Reply([first, *rest]), Reply([*pieces, b"data: [DONE]\n\n"])) as server:
        answer = OpenAI("m", base_url=server.url).invoke("hi")
    assert ("c", "m-1", answer.parts[0].provider) == (answer.id, answer.model, answer.provider)
    assert answer.provider is not None


def test_characters_of_two_calls_may_be_split_at_once():
    """Each call gets its own halves."""
    field = '"tool_calls":[{"index":%d,"id":"c%d","function":{"name":"f","arguments":"%s"}}]'
    told = [(0, "\\ud83d"), (1, "\\ud83c"), (0, "\\ude00"), (1, "\\udf89")]
    frames = [frame for index, piece in told for frame in chat_frames("%s", [field % (index, index, piece)])]
    with FakeServer(Reply([*frames, b"data: [DONE]\n\n"])) as server:
        answer = OpenAI("m", base_url=server.url).invoke("hi")
    assert ["😀", "🎉"] == [call.arguments for call in answer.tool_calls]


@pytest.mark.parametrize(
    ("kind", "field", "read"),
    [
        ("text_delta", "text", lambda answer: answer.text),
        ("thinking_delta", "thinking", lambda answer: answer.reasoning),
        ("input_json_delta", "partial_json", lambda answer: answer.tool_calls[0].arguments),
    ],
)
def test_split_character_of_anthropic_is_joined(kind, field, read):
    """In each of its deltas."""
    block = {"text_delta": {"type": "text", "text": ""}, "thinking_delta": {"type": "thinking", "thinking": ""}}.get(
        kind, {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    )
    start, _, *end = Messages().stream()
    events = [{"type": "content_block_start", "index": 0, "content_block": block}]
    deltas = [
        b'{"type":"content_block_delta","index":0,"delta":{"type":"%s","%s":%s}}' % tuple(map(str.encode, each))
        for each in ((kind, field, half) for half in HALVES)
    ]
    body = [b"data: %s\n\n" % (json.dumps(e).encode() if isinstance(e, dict) else e) for e in [*events, *deltas]]
    with FakeServer(Reply([start, *body, b'data: {"type":"content_block_stop","index":0}\n\n', *end])) as server:
        assert CUT == read(Anthropic("m", base_url=server.url).invoke("hi"))


# ── fields that a server refuses ─────────────────────────────────────────────────────────────────────────────────


def test_a_field_that_is_none_is_not_sent():
    """None removes a field that rxllm would add, and is not sent as null."""
    with FakeServer(Reply(b"data: [DONE]\n\n")) as server:
        OpenAI("m", base_url=server.url, extra={"stream_options": None, "user": None}).invoke("hi")
        Anthropic("m", base_url=server.url, extra={"metadata": None}).stream("hi").close()
        assert {"model", "messages", "stream"} == set(server.exchange(0).request.json)


REFUSALS = [
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs"}]}),
    (400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
    (400, {"error": {"message": "Bad argument", "param": "stream_options"}}),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
@pytest.mark.parametrize("retries", [0, 2])
def test_a_server_that_refuses_a_field_by_its_name_is_asked_again_without_it(status, body, retries):
    """Once; the second request gives the answer."""
    with FakeServer(Reply.json(body, status=status), Reply(Chat().stream(["Hi"]))) as server:
        answer = OpenAI("m", base_url=server.url, max_retries=retries).invoke("hi")
        sent = [server.exchange(n).request.json.get("stream_options") for n in (0, 1)]
    assert ("Hi", [{"include_usage": True}, None]) == (answer.text, sent)


@pytest.mark.parametrize(
    ("status", "body", "extra"),
    [
        (400, {"error": {"message": "Unknown model"}}, {}),
        (404, {"error": {"message": "stream_options"}}, {}),
        (422, {"error": {"message": "stream_options"}}, {"stream_options": {"include_usage": True}}),
    ],
)
def test_other_refusals_are_errors(status, body, extra):
    """One that names no field, has another status, or names a field that the program asked for."""
    with FakeServer(Reply.json(body, status=status)) as server:
        with pytest.raises(Exception, match=body["error"]["message"]):
            OpenAI("m", base_url=server.url, extra=extra).invoke("hi")
        assert 1 == len(server.exchanges)


def test_second_refusal_is_an_error():
    """At most two requests are sent."""
    status, body = REFUSALS[1]
    with FakeServer(Reply.json(body, status=status)) as server:
        with pytest.raises(Exception, match="stream_options"):
            OpenAI("m", base_url=server.url).invoke("hi")
        assert 2 == len(server.exchanges)


def test_stream_joins_to_one_chunk_for_a_whole_answer():
    """Its usage is the last total."""
    with FakeServer(Reply(Chat().stream(["Hi"], usage=(1, 2)))) as server:
        [chunk] = OpenAI("m", base_url=server.url).stream("hi", stream=False)
    assert isinstance(chunk, Chunk)
    assert 2 == chunk.usage.output_tokens
