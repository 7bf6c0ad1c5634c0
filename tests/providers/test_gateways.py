"""Deviations of gateways and small servers from the vendors' protocols: they are read, however the stream is cut."""

import functools
import json

import pytest
from protocols import split_every, sse

from rxllm import Anthropic, OpenAI, retry
from rxllm.errors import Interrupted, Overloaded, ProtocolError, ProviderError, RateLimited
from rxllm.testing import FakeServer, Reply

DONE = sse("[DONE]")
RESPONSES = functools.partial(OpenAI, api="responses")
ENDS = ("added", "done")  # of an item
STOP = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
CALLED = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})


def said(delta, *, index=0, finish=None):
    """A frame of a chat."""
    return sse({"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def calling(identity, name, arguments, **index):
    """A frame with a fragment of a call."""
    return said({"tool_calls": [{**index, "id": identity, "function": {"name": name, "arguments": arguments}}]})


def asked(frames, size, kind=OpenAI, **parameters):
    """The answer that these frames are, in pieces of this size."""
    content_type = "application/json" if parameters.get("stream") is False else "text/event-stream"
    with FakeServer(Reply(split_every(size, b"".join(frames)), content_type=content_type)) as server:
        return kind("m", base_url=server.url, api_key="none", max_retries=0).invoke("hi", **parameters)


SIZES = pytest.mark.parametrize("size", [1, 7, 2**20])


@SIZES
@pytest.mark.parametrize(
    ("frames", "text"),
    [
        pytest.param(
            [
                *(said({"content": letter}, index=index) for index, letter in enumerate("ABC")),
                said({"content": "a"}),
                said({}, index=1, finish="length"),
                STOP,
                said({}, index=2, finish="length"),
            ],
            "Aa",
            id="several answers, of which the first is ours",
        ),
        pytest.param([said({"content": "B"}, index=1), said({"content": "A"}), STOP], "B", id="another comes first"),
        pytest.param(
            [
                *(
                    said({"content": letter}, index=index)
                    for letter, index in zip("Hello", (9, 8, 7, 4, 2), strict=True)
                ),
                said({}, index=1, finish="stop"),
            ],
            "Hello",
            id="the index counts down",
        ),
        pytest.param(
            [*(said({"content": each}, index=index) for index, each in ((3, "Hel"), (2, "lo"))), STOP],
            "Hello",
            id="the index counts down a little",
        ),
        pytest.param(
            [sse({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]})], "Hello", id="one message"
        ),
        pytest.param(
            [said({"content": "Hello"}), sse({"choices": [{"message": {"content": "Hello"}}]}), STOP],
            "Hello",
            id="a message that repeats what was said",
        ),
        pytest.param([sse({"choices": [{"text": each, "delta": {}}]}) for each in "Hi"], "Hi", id="a delta beside"),
        pytest.param([said({"content": ["Hel", "lo"]}), STOP], "Hello", id="a list of texts"),
        pytest.param(
            [sse('{"choices":[{"delta":{"content":"Hi"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}'), STOP],
            "Hi",
            id="no number",
        ),
        pytest.param(
            [sse(r'{"choices":[{"delta":{"content":"a\ud83d"}}]}'), said({"content": "b"}), STOP],
            "a\ufffdb",
            id="half a character",
        ),
        pytest.param(
            [b"event: ping\n" + sse("pong"), said({"content": "Hi"}), b"event: ping\n" + sse("pong"), STOP],
            "Hi",
            id="pings of text",
        ),
        pytest.param(
            [event[:-1] for event in (said({"content": "Hel"}), said({"content": "lo"}), STOP)],
            "Hello",
            id="no blank lines",
        ),
        pytest.param([sse("null"), said({"content": "Hi"}), sse("null"), STOP], "Hi", id="frames of null"),
    ],
)
def test_text_of_a_deviating_stream_is_read(frames, text, size):
    """It is the text of the first answer."""
    answer = asked([*frames, DONE], size)
    assert text == answer.text
    assert answer.raw_finish_reason in ("stop", None)


@SIZES
@pytest.mark.parametrize(
    ("frames", "calls"),
    [
        pytest.param(
            [calling("", "f", '{"a":1}', index=0), calling("", "g", '{"b":1}', index=0)],
            [("", "f", '{"a":1}'), ("", "g", '{"b":1}')],
            id="neither ids nor indices of their own",
        ),
        pytest.param(
            [calling("", "f", '{"a":1}'), calling("", "f", '{"a":2}')],
            [("", "f", '{"a":1}'), ("", "f", '{"a":2}')],
            id="neither ids nor indices, and one tool",
        ),
        pytest.param(
            [calling("", "f", '{"a":', index=0), calling("", "f", "1}", index=0)],
            [("", "f", '{"a":1}')],
            id="a name repeated in each fragment",
        ),
        pytest.param(
            [
                *(calling("A", "f", ""), calling("B", "g", "")),
                *(calling("A", "", '{"a":'), calling("B", "", '{"b":1}'), calling("A", "", "2}")),
            ],
            [("A", "f", '{"a":2}'), ("B", "g", '{"b":1}')],
            id="by their ids alone",
        ),
        pytest.param(
            [
                *(calling("A", "f", "", index=0), calling("B", "g", "", index=0)),
                *(calling("A", None, '{"a":', index=0), calling("B", None, '{"b":1}', index=0)),
                calling("A", None, "2}", index=0),
            ],
            [("A", "f", '{"a":2}'), ("B", "g", '{"b":1}')],
            id="by their ids, with one index",
        ),
        pytest.param(
            [
                *(calling("A", "f", "", index="0"), calling("B", "g", "", index="1")),
                *(calling(None, None, '{"a":2}', index="0"), calling(None, None, '{"b":1}', index="1")),
            ],
            [("A", "f", '{"a":2}'), ("B", "g", '{"b":1}')],
            id="indices as text",
        ),
        pytest.param(
            [calling("x", "f", '{"a":1}'), calling("x", "g", '{"a":1}'), calling("x", "g", '{"a":2}')],
            [("x", "f", '{"a":1}'), ("x", "g", '{"a":1}'), ("x", "g", '{"a":2}')],
            id="one id for all",
        ),
        pytest.param(
            [
                *(calling("A", "f", '{"a":', index=0), calling("A", "f", '"}\\', index=0)),
                *(calling("A", "f", '""}', index=0), calling("A", "f", '{"a":"}\\""}', index=0)),
                *(calling("B", "f", '{"a":1}', index=1), calling(None, None, '{"a":1}', index=1)),
            ],
            [("A", "f", '{"a":"}\\""}'), ("B", "f", '{"a":1}')],
            id="whole arguments once more at the end",
        ),
        pytest.param(
            [
                *(calling("A", "f", '{"a":"', index=0), calling(None, None, '\\"', index=1)),
                *(calling(None, None, '"}', index=1), calling("B", "f", "{}", index=1)),
            ],
            [("A", "f", '{"a":"\\""}'), ("B", "f", "{}")],
            id="another index within the arguments",
        ),
        pytest.param([calling("A", "f", "null", index=0)], [("A", "f", "")], id="null in place of arguments"),
        pytest.param(
            [said({"tool_calls": {"index": 0, "id": "A", "function": {"name": "f", "arguments": "{}"}}})],
            [("A", "f", "{}")],
            id="no list",
        ),
        pytest.param(
            [said({"function_call": {"name": None, "arguments": None}}), calling("", "", "")], [], id="empty places"
        ),
    ],
)
def test_calls_of_a_deviating_stream_are_read(frames, calls, size):
    """Each is a call of its own, and none is made up."""
    answer = asked([*frames, CALLED, DONE], size)
    assert calls == [(call.id, call.name, call.arguments) for call in answer.tool_calls]


@SIZES
@pytest.mark.parametrize(
    "frame",
    [
        sse({"message": "boom", "type": "server_error"}),
        sse({"detail": "boom"}),
        sse({"error_code": 5, "message": "boom"}),
        sse({"errors": ["boom"]}),
        sse({"code": 1113, "msg": "boom"}),
        sse({"errors": [{"message": "boom"}]}),
        sse({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "boom"}}),
        b"event: error\n" + sse({"what": "boom"}),
        b"event: error\n" + sse("boom"),
        b"event: error\n" + sse('"boom"'),
        sse({"error": {"message": "Provider returned error", "metadata": {"raw": "boom"}}}),
        sse({"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"boom"}}'}}}),
        b'{"error":{"message":"boom"}}\n\n',
        b'[{\n  "error": {\n    "code": 503,\n    "message": "boom"\n  }\n}]\n\n',
    ],
)
def test_error_in_a_deviating_form_is_raised(frame, size):
    """An end marker after it does not make half an answer whole."""
    with pytest.raises(ProviderError, match="boom") as caught:
        asked([said({"content": "Hel"}), frame, DONE], size)
    assert "Hel" == caught.value.partial.text


@SIZES
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_error_without_a_field_name_is_raised_at_the_end_of_the_stream(kind, end, size):
    """Gateways append it to the body, as the document that they would have sent alone."""
    begun = [said({"content": "Hel"})] if kind is OpenAI else CLAUDE[:3]
    with pytest.raises(ProviderError, match="boom") as caught:
        asked([*begun, b'{"error":{"message":"boom"}}' + end], size, kind)
    assert caught.value.partial.text.startswith("Hel")


@pytest.mark.parametrize(
    "document",
    [{"message": "boom"}, {"detail": "boom"}, {"errors": ["boom"]}, {"code": "E1", "msg": "boom"}, {"error": "boom"}],
    ids=str,
)
@pytest.mark.parametrize("kind", [OpenAI, RESPONSES, Anthropic])
@pytest.mark.parametrize("stream", [True, False])
def test_error_of_a_gateway_with_status_200_is_raised(document, kind, stream):
    """In a frame of a stream or as the whole answer, in every protocol of the gateway's models."""
    frames = [sse({"type": "ping"}), sse(document)] if stream else [json.dumps(document).encode()]
    with pytest.raises(ProviderError, match="boom"):
        asked(frames, 2**20, kind, stream=stream)


@pytest.mark.parametrize("document", [{"code": 0, "msg": "ok"}, {"code": 200, "msg": "ok"}, {"msg": "ok"}], ids=str)
@pytest.mark.parametrize("kind", [OpenAI, RESPONSES, Anthropic])
def test_frame_that_tells_of_success_is_no_error(document, kind):
    """It has no content either."""
    with pytest.raises(Interrupted):
        asked([sse(document)], 2**20, kind)


NO_ERROR = {"message": "", "type": "", "param": "", "code": None}
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]


@pytest.mark.parametrize("place", ["frame", "choice", "x_groq"])
@pytest.mark.parametrize("stream", [True, False])
def test_error_without_values_is_no_error_of_a_chat(place, stream):
    """A gateway sends an object of empty values with each answer."""
    message = {("delta" if stream else "message"): {"content": "Hi"}}
    choice = {"index": 0, **message, "finish_reason": "stop"}
    document = {
        "frame": {"choices": [choice], "error": NO_ERROR},
        "choice": {"choices": [{**choice, "error": NO_ERROR}]},
        "x_groq": {"choices": [choice], "x_groq": {"error": NO_ERROR}},
    }[place]
    frames = [sse(document), sse({"choices": [], "error": NO_ERROR}), DONE]
    assert "Hi" == asked(frames if stream else [json.dumps(document).encode()], 2**20, stream=stream).text


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (RESPONSES, {"status": "completed", "output": OUTPUT}),
        (Anthropic, {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}),
    ],
    ids=["responses", "messages"],
)
def test_error_without_values_is_no_error_of_a_whole_answer(kind, document):
    """The other protocols of a gateway have the same object."""
    body = json.dumps({**document, "error": NO_ERROR}).encode()
    assert "Hi" == asked([body], 2**20, kind, stream=False).text


def test_error_without_values_is_no_error_of_a_response():
    """Nor in the last event of a stream."""
    response = {"status": "completed", "output": OUTPUT, "error": NO_ERROR}
    assert "Hi" == asked([sse({"type": "response.completed", "response": response})], 2**20, RESPONSES).text


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"choices": [{"finish_reason": "content_filter: PROHIBITED_CONTENT"}]},
            ("", "content_filter", "content_filter: PROHIBITED_CONTENT"),
        ),
        (
            {"choices": [{"index": i, "message": {"content": "BA"[i == 0]}, "finish_reason": "stop"} for i in (1, 0)]},
            ("A", "stop", "stop"),
        ),
        (
            {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [float("nan")]}}]},
            ("A", None, None),
        ),
    ],
)
def test_deviating_whole_answer_is_read(document, expected):
    """It is whole, too."""
    answer = asked([json.dumps(document).encode()], 2**20, stream=False)
    assert expected == (answer.text, answer.finish_reason, answer.raw_finish_reason)


CLAUDE = [
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
CLAUDE = [f"event: {event['type']}\n".encode() + sse(event) for event in CLAUDE]


@SIZES
@pytest.mark.parametrize(
    "frames",
    [
        [*CLAUDE, DONE],
        [*CLAUDE[:-1], DONE],
        [*CLAUDE, b"event: error\n" + sse({"type": "error", "error": {"message": "late"}})],
        [b"event: ping\n" + sse("pong"), *CLAUDE],
        [frame.replace(b'"index": 0', b'"index": null') for frame in CLAUDE],
        [*CLAUDE[:4], CLAUDE[4].replace(b'"delta": {', b'"delta": {"type": null, '), CLAUDE[5]],
    ],
    ids=[
        *("DONE after the end", "DONE instead of the end", "an error after the end", "a ping of text"),
        *("no indices", "a delta without a type"),
    ],
)
def test_deviating_stream_of_messages_is_read(frames, size):
    """Frames after the end take nothing away; some gateways name the end otherwise."""
    assert "Hello" == asked(frames, size, Anthropic).text


@SIZES
def test_items_of_a_response_with_one_number_are_told_apart(size):
    """Some servers number all items alike; then an item ends where it is done."""
    frames = [sse({"type": "response.created", "response": {"id": "r"}})]
    for text in "AB":
        call = {"type": "function_call", "call_id": text, "name": "f", "arguments": "{}"}
        message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
        for item in (message, call):
            frames += [sse({"type": f"response.output_item.{when}", "output_index": 0, "item": item}) for when in ENDS]
    answer = asked([*frames, sse({"type": "response.done", "response": {"status": "completed"}})], size, RESPONSES)
    assert ("AB", "tool_call") == (answer.text, answer.finish_reason)
    assert [("A", "{}"), ("B", "{}")] == [(call.id, call.arguments) for call in answer.tool_calls]


@pytest.mark.parametrize("end", ["[done]", '"[DONE]"', "DONE", " [DONE] "])
@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_end_marker_may_be_spelt_otherwise(end, kind):
    """In lower case, as a JSON text or without brackets. Without it these answers would be cut."""
    frames = [said({"content": "Hello"})] if kind is OpenAI else CLAUDE[:-1]
    assert "Hello" == asked([*frames, sse(end)], 2**20, kind).text


@SIZES
def test_messages_without_a_stop_reason_are_interrupted(size):
    """Although [DONE] came."""
    with pytest.raises(Interrupted):
        asked([*CLAUDE[:-2], DONE], size, Anthropic)


@SIZES
def test_error_in_a_deviating_stream_of_messages_is_raised(size):
    """The name of its event says that it is an error."""
    with pytest.raises(ProviderError, match="boom"):
        asked([*CLAUDE[:3], b"event: error\n" + sse({"message": "boom"})], size, Anthropic)


def test_messages_that_fail_at_once_keep_their_usage():
    """message_start has counted the input; another attempt may still be sent."""
    failing = [CLAUDE[0], b"event: error\n" + sse({"type": "error", "error": {"type": "overloaded_error"}})]
    with FakeServer(Reply(failing), Reply(failing), Reply(CLAUDE)) as server:
        llm = Anthropic("m", base_url=server.url, api_key="none", max_retries=0)
        with pytest.raises(Overloaded) as caught:
            llm.invoke("hi")
        assert ("", 1) == (caught.value.partial.text, caught.value.partial.usage.input_tokens)
        assert "Hello" == retry(llm, attempts=2, delay=lambda attempt, error: 0).invoke("hi").text


@SIZES
def test_tokens_that_are_numbers_are_text(size):
    """Cloudflare sends a token that looks like a number, or like true, as such; a citation [1] became []."""
    pieces = ["[", 1, "] costs ", 0, ".", 5, " or ", 0.005, ", ", True, "", None]
    told = [
        said({"reasoning_content": 4}),
        said({"reasoning_content": "2"}),
        *[said({"content": each}) for each in pieces],
    ]
    answer = asked([*told, STOP, DONE], size)
    assert ("[1] costs 0.5 or 0.005, true", "42") == (answer.text, answer.reasoning)
    assert "0" == asked([said({"content": 0}), STOP, DONE], size).text
    body = json.dumps({"choices": [{"message": {"content": 6, "reasoning": 0}, "finish_reason": "stop"}]}).encode()
    answer = asked([body], size, stream=False)
    assert ("6", "0") == (answer.text, answer.reasoning)
    event = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": 7}
    ending = {"type": "response.completed", "response": {"status": "completed"}}
    assert "7" == asked([sse(event), sse(ending)], size, RESPONSES).text


@SIZES
@pytest.mark.parametrize(
    "ping",
    [b"data: : OPENROUTER PROCESSING\n\n", b"data: ping\n\n", b'data: "keep-alive"\n\n', b"data: heartbeat\n\n"],
)
def test_pings_that_a_gateway_sends_as_data_are_ignored(size, ping):
    """Before, within and after the answer. Any other word is an error."""
    frames = [said({"content": "Hello"}), STOP, DONE]
    assert "Hello" == asked([piece for frame in frames for piece in (ping, frame)], size).text
    with pytest.raises(ProtocolError, match="It begins: nonsense"):
        asked([b"data: nonsense\n\n", *frames], size)


@SIZES
@pytest.mark.parametrize("name", ["ping", "tool_status"])
@pytest.mark.parametrize(
    "news", [{"message": "Searching"}, {"status": "ERRORED", "error": {"type": "x", "msg": "no page"}}], ids=str
)
def test_news_of_a_gateway_leaves_the_answer(size, name, news):
    """Friendli tells what its own tool does, and that it failed; the model goes on."""
    event = f"event: {name}\n".encode() + sse({"tool_call_id": "c1", **news})
    assert "Hello" == asked([said({"content": "Hel"}), event, said({"content": "lo"}), STOP, event, DONE], size).text


def detail(text, kind="reasoning.text"):
    """The details of MiniMax's reasoning."""
    return [{"type": kind, "id": "r1", "format": "MiniMax-response-v1", "index": 0, kind.partition(".")[2]: text}]


@pytest.mark.parametrize("kind", ["reasoning.text", "reasoning.summary"])
@pytest.mark.parametrize("pieces", [["The user", " asks."], ["The user", "The user asks.", "The user asks."], None])
def test_reasoning_may_come_only_in_details(pieces, kind):
    """MiniMax sends it in pieces, or each time with all the text before it. It goes back once, as it came.

    Source: https://github.com/MiniMax-AI/MiniMax-M2/issues/95
    """
    if pieces:
        frames = [*(said({"reasoning_details": detail(each, kind)}) for each in pieces), said({"content": "Hi"}), STOP]
        reply = Reply(frames)
    else:
        message = {"content": "Hi", "reasoning_details": detail("The user asks.", kind)}
        reply = Reply.json({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    with FakeServer(reply, Reply([said({"content": "ok"}), STOP])) as server:
        llm = OpenAI("m", base_url=server.url, api_key="none", max_retries=0)
        answer = llm.invoke("hi", stream=bool(pieces))
        llm.invoke([("user", "hi"), answer, ("user", "more")])
    assert ("The user asks.", "Hi") == (answer.reasoning, answer.text)
    sent = server.requests[1].json["messages"][1]
    assert {"role": "assistant", "content": "Hi", "reasoning_details": detail("The user asks.", kind)} == sent


@SIZES
def test_details_of_another_server_are_not_shown(size):
    """Most servers repeat the text of the details in another field. Snowflake's text is not for the user."""
    details = [{"type": "reasoning.text", "index": 0, "text": "The user asks."}]
    answer = asked([said({"reasoning_details": details}), said({"content": "Hi"}), STOP, DONE], size)
    assert ("", "Hi") == (answer.reasoning, answer.text)


@SIZES
def test_field_name_may_come_twice(size):
    """Servers that frame their events twice send ``data: data: {…}``."""
    frames = [said({"content": "Hel"}), said({"content": "data: lo"}), STOP, DONE]
    assert "Heldata: lo" == asked([b"data: " + frame for frame in frames], size).text


def test_reasoning_of_copilot_is_read():
    """It has a name of its own there."""
    frames = [said({"reasoning_text": "Hm"}), said({"reasoning_text": "m."}), said({"content": "Tea."}), STOP, DONE]
    answer = asked(frames, 7)
    assert ("Hmm.", "Tea.") == (answer.reasoning, answer.text)


@pytest.mark.parametrize("stream", [True, False])
def test_own_word_of_the_server_behind_openrouter_tells_a_failure(stream):
    """OpenRouter says stop where Gemini says that it wrote a wrong call; then the text is a piece of this call."""
    for word, fails in [("MALFORMED_FUNCTION_CALL", True), ("STOP", False), (None, False)]:
        choice = {"delta" if stream else "message": {"content": "Hel"}, "finish_reason": "stop"}
        body = {"choices": [{**choice, "native_finish_reason": word}]}
        frames = [sse(body), DONE] if stream else [json.dumps(body).encode()]
        if fails:
            with pytest.raises(ProviderError, match=word) as caught:
                asked(frames, 7, stream=stream)
            assert "Hel" == caught.value.partial.text
        else:
            assert ("Hel", "stop") == (asked(frames, 7, stream=stream).text, "stop")


@SIZES
@pytest.mark.parametrize(
    ("frames", "text"),
    [
        pytest.param(
            [b'data: {"choices":[{"delta":{"content":"Hel"}}]}{"choices":[{"delta":{"content":"lo"}}]}\n\n', STOP],
            "Hello",
            id="two in one line",
        ),
        pytest.param(
            [b'data: {"choices":[{"delta":{"content":"A"}}]} \t{"choices":[{"delta":{"content":"A"}}]}\n\n'] * 2
            + [STOP],
            "AAAA",
            id="two equal lines",
        ),
        pytest.param(
            [b'data: {"choices":[{"delta":{"content":"a\tb"}}]}\n\n', STOP], "a\tb", id="a bare control character"
        ),
    ],
)
def test_frames_that_are_not_one_object_are_read(frames, text, size):
    """Gateways join two objects without a line end, or forget to escape a control character."""
    assert text == asked([*frames, DONE], size).text


@SIZES
@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b'data: {"choices":[{"delta":{"content":"lo"}}]}{"error":{"message":"boom"}}\n\n', "Hello"),
        (b'data: {"choices":[{"delta":{"content":"lo\ndata: {"error":{"message":"boom"}}\n\n', "Hel"),
        (b'error: {"code":500,"message":"boom","type":"server_error"}\n\n', "Hel"),
    ],
)
def test_error_after_half_a_frame_is_raised(frame, text, size):
    """A gateway appends it to the frame in which the stream broke; llama.cpp has a field of its own for it."""
    with pytest.raises(ProviderError, match="boom") as caught:
        asked([said({"content": "Hel"}), frame, DONE], size)
    assert text == caught.value.partial.text


@SIZES
def test_response_may_begin_with_the_field_of_an_error(size):
    """A text that only begins like it is no stream."""
    with pytest.raises(ProviderError, match="boom"):
        asked([b'error: {"code":500,"message":"boom"}\n\n'], size)
    with pytest.raises(ProtocolError, match="begins: error: boom"):
        asked([b"error: boom"], size)


def test_type_beside_the_text_of_an_error_tells_its_status():
    """TGI sends them like this, in the middle of a stream."""
    with pytest.raises(Overloaded) as caught:
        asked([said({"content": "Hel"}), sse({"error": "Model is overloaded", "error_type": "overloaded"})], 7)
    assert (True, "overloaded") == (caught.value.retryable, caught.value.code)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Limit 30000, Used 29000. Please try again in 2.5s. Visit https://example.com", 2.5),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 7m12.96s. Need more tokens?", 432.96),
        ("Please try again in 120ms.", 0.12),
        ("Requests have exceeded the limit. Please retry after 11 seconds.", 11),
        ("You exceeded your current quota. Please retry in 38.25s.", 38.25),
        ("Rate limit of 10 per 60s exceeded. Please wait 34 seconds before retrying.", 34),
        ("Please try again in 1 minute and 5 seconds.", 65),
        ("Please try again later.", None),
        ("Please wait before trying again. Limit 5 per 10s.", None),
    ],
)
@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_delay_in_the_message_of_an_error_counts(message, seconds, kind):
    """Vendors state it there, and often in no header. A header wins."""
    document = {"type": "error", "error": {"message": message, "type": "rate_limit_error"}}
    for headers, expected in (({}, seconds), ({"retry-after": "3"}, 3)):
        with (
            FakeServer(Reply.json(document, status=429, headers=headers)) as server,
            pytest.raises(RateLimited) as caught,
        ):
            kind("m", base_url=server.url, api_key="none", max_retries=0).invoke("hi")
        assert expected == caught.value.retry_after


@SIZES
@pytest.mark.parametrize("stream", [True, False])
def test_opaque_reasoning_of_copilot_goes_back(stream, size):
    """It goes back in its own field, and the text of the reasoning beside it."""
    if stream:
        frames = [
            said({"reasoning_text": "Hm."}),
            said({"content": "Tea."}),
            said({"reasoning_opaque": "xyz"}),
            STOP,
            DONE,
        ]
    else:
        message = {"reasoning_text": "Hm.", "content": "Tea.", "reasoning_opaque": "xyz"}
        frames = [json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()]
    answer = asked(frames, size, stream=stream)
    llm = OpenAI("m", base_url="http://127.0.0.1:1", api_key="none")
    _, turn, _ = llm.preview([("user", "hi"), answer, ("user", "go on")]).json["messages"]
    assert {"role": "assistant", "content": "Tea.", "reasoning_text": "Hm.", "reasoning_opaque": "xyz"} == turn


@SIZES
@pytest.mark.parametrize("stream", [True, False])
def test_summary_of_reasoning_goes_back_as_content(stream, size):
    """Databricks refuses every field for reasoning, and requires the signature of Claude's."""
    pieces = [{"text": "H", "signature": ""}, {"text": "m."}, {"text": "", "signature": "sig"}]
    blocks = [{"type": "reasoning", "summary": [{"type": "summary_text", **piece}]} for piece in pieces]
    if stream:
        frames = [*(said({"content": [block]}) for block in blocks), said({"content": "Tea."}), STOP, DONE]
    else:
        whole = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm.", "signature": "sig"}]}
        message = {"content": [whole, {"type": "text", "text": "Tea."}]}
        frames = [json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()]
    answer = asked(frames, size, stream=stream)
    assert ("Hm.", "Tea.") == (answer.reasoning, answer.text)
    llm = OpenAI("m", base_url="http://127.0.0.1:1", api_key="none")
    _, turn, _ = llm.preview([("user", "hi"), answer, ("user", "go on")]).json["messages"]
    summary = [{"type": "summary_text", "text": "Hm.", "signature": "sig"}]
    content = [{"type": "reasoning", "summary": summary}, {"type": "text", "text": "Tea."}]
    assert {"role": "assistant", "content": content} == turn


def completed(*output):
    """The event that ends a response, with its whole output."""
    response = {"id": "r", "model": "m", "status": "completed", "output": output}
    return sse({"type": "response.completed", "response": response})


SAID = {"type": "message", "id": "i", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
CALL = {"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
DELTA = {"type": "response.output_text.delta", "delta": "Hello"}


@SIZES
@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([], id="no event before"),
        pytest.param(
            [{"type": "response.output_item.added", "output_index": 0, "item": {**SAID, "content": []}}], id="begun"
        ),
        pytest.param([{**DELTA, "output_index": 0, "item_id": "i"}], id="not ended"),
        pytest.param([{**DELTA, "output_index": 7, "item_id": "other"}], id="another number and id"),
        pytest.param([DELTA], id="without a number and an id"),
        pytest.param(
            [{**DELTA, "output_index": 0}, {"type": "response.output_item.done", "output_index": 0, "item": SAID}],
            id="without the call",
        ),
        pytest.param(
            [
                {**DELTA, "output_index": 0},
                {"type": "response.output_item.added", "output_index": 1, "item": {**CALL, "arguments": ""}},
                {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a"'},
            ],
            id="without the rest of the arguments",
        ),
    ],
)
def test_items_that_only_the_whole_output_has_are_read(frames, size):
    """Some gateways send no events for some items, or do not end them."""
    answer = asked([*map(sse, frames), completed(SAID, CALL)], size, RESPONSES)
    assert "Hello" == answer.text
    assert [("c", "f", '{"a":1}')] == [(call.id, call.name, call.arguments) for call in answer.tool_calls]
    assert "tool_call" == answer.finish_reason


def test_reasoning_of_openrouter_is_read_while_it_arrives():
    """Its event has a name of its own."""
    frames = [sse({"type": "response.reasoning.delta", "output_index": 0, "delta": piece}) for piece in ("H", "m.")]
    assert "Hm." == asked([*frames, completed()], 7, RESPONSES).reasoning


@SIZES
@pytest.mark.parametrize("stream", [True, False])
def test_annotations_beside_the_text_are_its_citations(stream, size):
    """OpenRouter puts those of some models into the choice."""
    citation = {"type": "url_citation", "url_citation": {"url": "https://example.com"}}
    choice = {"index": 0, "annotations": [citation], "finish_reason": "stop"}
    if stream:
        frames = [said({"content": "Tea."}), sse({"choices": [{**choice, "delta": {}}]}), DONE]
    else:
        frames = [json.dumps({"choices": [{**choice, "message": {"content": "Tea."}}]}).encode()]
    (part,) = asked(frames, size, stream=stream).parts
    assert ("Tea.", (citation,)) == (part.text, part.citations)
