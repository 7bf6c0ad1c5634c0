"""Answers that end without what should end them, and answers in another form than the one that was asked for."""

import json

import pytest
from protocols import PROTOCOLS, Chat, Messages

from rxllm import Anthropic, Chunk, Interrupted, OpenAI, Timeout, Timeouts
from rxllm.testing import End, FakeServer, Reply

EACH = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
PINGS = [piece for _ in range(200) for piece in (b": ping\n\n", 0.05)]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """The silence after a finish reason is short."""
    monkeypatch.setattr("rxllm.providers._reader.AFTER_FINISH", 0.2)


def model(protocol, server, **settings):
    """A model that speaks it."""
    if protocol.name == "messages":
        return Anthropic("m", base_url=server.url, max_retries=0, **settings)
    return OpenAI("m", base_url=server.url + "/v1", api=protocol.name, max_retries=0, **settings)


@pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if p.terminal], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("rest", [PINGS, [End.HANG]], ids=["pings", "silence"])
def test_an_answer_that_told_why_it_ended_is_whole_without_its_end_marker(protocol, rest, timeout):
    """Also while the connection is held open; the request is closed."""
    events = protocol.stream(["Hel", "lo"])[:-1]
    with FakeServer(Reply([*events, *rest])) as server:
        answer = model(protocol, server, timeout=timeout).invoke("hi")
        server.exchange(0).wait_closed()
    assert ("Hello", "stop", 5) == (answer.text, answer.finish_reason, answer.usage.output_tokens)


@pytest.mark.parametrize("end", [b"data: [DONE]\n", b"data: [DONE]", b"data: [DONE]\r\n"])
@pytest.mark.parametrize("finished", [True, False])
def test_the_end_marker_needs_no_blank_line(end, finished):
    """Whether or not a finish reason came before it."""
    events = Chat().stream(["Hel", "lo"])[: -1 if finished else -3]
    with FakeServer(Reply([*events, end, End.HANG])) as server:
        answer = model(Chat(), server, timeout=20.0).invoke("hi")
    assert "Hello" == answer.text


@EACH
def test_the_last_event_needs_no_blank_line(protocol):
    """It is read when nothing follows."""
    *events, last = protocol.stream(["Hel", "lo"])
    with FakeServer(Reply([*events, last.rstrip(b"\n"), End.HANG])) as server:
        assert "Hello" == model(protocol, server, timeout=20.0).invoke("hi").text


def test_the_finish_itself_needs_no_blank_line():
    """It is found when the time for the next chunk is over."""
    finish = Chat().stream(["Hello"], usage=None)[-2]
    with FakeServer(Reply([*Chat().stream(["Hello"], usage=None)[:-2], finish.rstrip(b"\n"), End.HANG])) as server:
        answer = model(Chat(), server, timeout=Timeouts(first_chunk=0.3, idle=0.3)).invoke("hi")
    assert ("Hello", "stop") == (answer.text, answer.finish_reason)


@EACH
def test_silence_before_the_finish_reason_is_a_timeout(protocol):
    """What came is its partial."""
    with FakeServer(Reply([*protocol.stream(["Hel", "lo"])[:2], End.HANG])) as server, pytest.raises(Timeout):
        model(protocol, server, timeout=Timeouts(first_chunk=0.3, idle=0.3)).invoke("hi")


def test_usage_may_come_late():
    """Each event after the finish reason is heard as long as the silence between them is short."""
    *events, usage, done = Chat().stream(["Hello"])
    with FakeServer(Reply([*events, 0.05, b": ping\n\n", 0.05, usage, 0.05, done])) as server:
        assert 5 == model(Chat(), server).invoke("hi").usage.output_tokens


def test_a_whole_answer_needs_no_end_of_its_body():
    """It is read when the time for it is over."""
    with FakeServer(Reply([Chat().whole(["Hello"]), End.HANG])) as server:
        answer = model(Chat(), server, timeout=Timeouts(first_chunk=0.3)).invoke("hi", stream=False)
    assert "Hello" == answer.text


@EACH
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_read_where_a_whole_answer_was_asked_for(protocol, size):
    """As one chunk, with all that a stream says."""
    body = b"".join(protocol.stream(["Hel", "lo"]))
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    with FakeServer(Reply(pieces)) as server:
        [chunk] = model(protocol, server).stream("hi", stream=False)
    assert ("Hello", "stop", 5) == (chunk.text, chunk.finish_reason, chunk.usage.output_tokens)


@EACH
def test_a_stream_that_breaks_is_an_error_where_a_whole_answer_was_asked_for(protocol):
    """With what came as its partial."""
    events = protocol.stream(["Hel", "lo"])
    with FakeServer(Reply([*events[:-3], End.FIN])) as server, pytest.raises(Interrupted) as caught:
        model(protocol, server).invoke("hi", stream=False)
    assert caught.value.partial.text.startswith("Hel")


@EACH
def test_a_whole_answer_is_read_where_a_stream_was_asked_for(protocol):
    """As one chunk."""
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
def test_a_character_that_is_cut_in_two_is_whole(field, ping):
    """In everything that is text, each half being the end or the beginning of a frame."""
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


def test_cut_characters_leave_the_answers_facts_as_they_are():
    """The answer and its reasoning still tell who made them, so that they can be sent back."""
    pieces = chat_frames('"reasoning_content":%s', HALVES)
    first = b'data: {"id":"c","model":"m-1","choices":[{"delta":{"reasoning_content":"\\ud83d"}}]}\n\n'
    rest = [b'data: {"choices":[{"delta":{"reasoning_content":"\\ude00"}}]}\n\n', *pieces, b"data: [DONE]\n\n"]
    with FakeServer(Reply([first, *rest]), Reply([*pieces, b"data: [DONE]\n\n"])) as server:
        answer = OpenAI("m", base_url=server.url).invoke("hi")
    assert ("c", "m-1", answer.parts[0].provider) == (answer.id, answer.model, answer.provider)
    assert answer.provider is not None


def test_two_calls_may_be_cut_at_once():
    """Each gets its own halves."""
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
def test_characters_of_anthropic_are_cut_in_two(kind, field, read):
    """The same in each of its deltas."""
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
    """Neither one that would be sent unasked, nor null."""
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
    """Once; the answer is the second request's."""
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
def test_any_other_refusal_is_the_answer(status, body, extra):
    """One that names no field, has another status, or names a field that the program asked for."""
    with FakeServer(Reply.json(body, status=status)) as server:
        with pytest.raises(Exception, match=body["error"]["message"]):
            OpenAI("m", base_url=server.url, extra=extra).invoke("hi")
        assert 1 == len(server.exchanges)


def test_a_second_refusal_is_the_answer():
    """Nobody is asked three times."""
    status, body = REFUSALS[1]
    with FakeServer(Reply.json(body, status=status)) as server:
        with pytest.raises(Exception, match="stream_options"):
            OpenAI("m", base_url=server.url).invoke("hi")
        assert 2 == len(server.exchanges)


def test_what_is_joined_for_a_whole_answer_is_a_chunk():
    """Its usage is the last total."""
    with FakeServer(Reply(Chat().stream(["Hi"], usage=(1, 2)))) as server:
        [chunk] = OpenAI("m", base_url=server.url).stream("hi", stream=False)
    assert isinstance(chunk, Chunk)
    assert 2 == chunk.usage.output_tokens
