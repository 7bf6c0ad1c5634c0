"""Cohere: the contract of a provider, the requests, and the decoding of the events."""

import json

import pytest
from contracts import ProtocolContract
from protocols import Cohere as Protocol
from protocols import ToolCall, sse

import rxllm
from rxllm import (
    CachePoint,
    Cohere,
    FilePart,
    Message,
    MisuseError,
    RawPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
    Usage,
)
from rxllm.errors import Interrupted, ProviderError
from rxllm.testing import FakeServer, Reply

KEY = "sk-do-not-show-this-to-anybody"
PROTOCOL = Protocol()
PLAN = {"kind": "tool_plan"}


def create_model(server, **settings):
    """Return a model at this server, without retries."""
    url = server if isinstance(server, str) else server.url
    return Cohere("m", **{"base_url": url, "api_key": KEY, "max_retries": 0, **settings})


def body_of(prompt, **parameters):
    """Return the body of the request."""
    return create_model("http://localhost")._body(rxllm.Request.ask(prompt, rxllm.Parameters(**parameters)))


@pytest.fixture
def server():
    """A local server. Each test sets its replies."""
    with FakeServer() as server:
        yield server


class TestContract(ProtocolContract):
    """The contract of every provider."""

    finishes = ("stop", "length", "content_filter", "tool_call")
    key = KEY
    protocol = PROTOCOL

    def provider(self, url):
        """Return a model at this URL."""
        return create_model(url)


def event(kind, message=None, **fields):
    """One event, whose delta is of a message."""
    told = {} if message is None else {"delta": {"message": message}}
    return sse({"type": kind, **told, **fields}, event=kind)


CITATION = {"start": 0, "end": 3, "text": "Wet", "sources": [{"type": "document", "id": "d1"}], "content_index": 0}
PLANNED = [
    event("message-start", {"role": "assistant", "content": []}, id="a1"),
    event("tool-plan-delta", {"tool_plan": "I will "}),
    event("tool-plan-delta", {"tool_plan": "look."}),
    event("tool-call-start", {"tool_calls": {"id": "c1", "function": {"name": "now", "arguments": ""}}}, index=0),
    event("tool-call-end", index=0),
    event("tool-call-start", {"tool_calls": {"id": "c2", "function": {"name": "look", "arguments": ""}}}, index=1),
    event("tool-call-delta", {"tool_calls": {"function": {"arguments": '{"at":'}}}, index=1),
    event("tool-call-delta", {"tool_calls": {"function": {"arguments": '"sea"}'}}}, index=1),
    event("tool-call-end", index=1),
    sse(
        {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": {"billed_units": {"input_tokens": 7}}}}
    ),
]
CITED = [
    event("message-start", {"role": "assistant", "content": []}, id="a2"),
    event("content-start", {"content": {"type": "text", "text": ""}}, index=0),
    event("content-delta", {"content": {"text": "We"}}, index=0),
    event("content-delta", {"content": {"text": "t"}}, index=0),
    event("citation-start", {"citations": CITATION}, index=0),
    event("citation-end", index=0),
    event("content-delta", {"content": {"text": "!"}}, index=0),
    event("content-end", index=0),
    event("debug", prompt="…"),
    sse(
        {
            "type": "message-end",
            "delta": {
                "finish_reason": "COMPLETE",
                "usage": {"tokens": {"input_tokens": 9.0, "output_tokens": 4.0}, "cached_tokens": 5.0},
            },
        }
    ),
]


def test_plan_and_parallel_calls(server):
    """The plan is reasoning; a call without arguments has an empty object; billed units stand in for tokens."""
    server.reply(Reply(PLANNED))
    answer = create_model(server).invoke("hi")
    plan, *calls = answer.parts
    assert (ReasoningPart("I will look.", extra=PLAN), "cohere") == (plan, plan.provider)
    assert [ToolCallPart("c1", "now", "{}", 0), ToolCallPart("c2", "look", '{"at":"sea"}', 1)] == calls
    assert ("tool_call", "a1", "cohere", 7) == (
        answer.finish_reason, answer.id, answer.provider, answer.usage.input_tokens,
    )  # fmt: skip


def test_call_in_a_list_is_the_same(server):
    """Gateways send a list of one call, as whole answers have it."""
    call = {"id": "c1", "function": {"name": "look", "arguments": ""}}
    more = {"function": {"arguments": '{"at":"sea"}'}}
    start = event("tool-call-start", {"tool_calls": [call]}, index=0)
    server.reply(Reply([start, event("tool-call-delta", {"tool_calls": [more]}, index=0), *PLANNED[-2:]]))
    assert (ToolCallPart("c1", "look", '{"at":"sea"}', 0),) == create_model(server).invoke("hi").tool_calls


def test_citations_are_emitted_as_they_stream(server):
    """They belong to the text so far, in Cohere's form; the whole answer has the same ones."""
    message = {"content": [{"type": "text", "text": "Wet!"}], "citations": [CITATION]}
    usage = {"tokens": {"input_tokens": 9, "output_tokens": 4}, "cached_tokens": 5}
    whole = {"id": "a2", "message": message, "finish_reason": "COMPLETE", "usage": usage}
    server.reply(Reply(CITED), Reply.json(whole))
    expected = Message(
        "assistant",
        [TextPart("Wet!", [CITATION])],
        usage=Usage(input_tokens=9, output_tokens=4, cache_read_input_tokens=5),
        finish_reason="stop",
        raw_finish_reason="COMPLETE",
        id="a2",
    )
    assert [expected] * 2 == [create_model(server).invoke("hi", stream=stream) for stream in (True, False)]


def test_answer_goes_back_as_it_came(server):
    """Plan, calls, reasoning, texts and citations, each in its own field."""
    server.reply(Reply(PLANNED), Reply(CITED))
    planned, cited = create_model(server).batch(["a", "b"], max_concurrency=1)
    thinking = Message("assistant", [ReasoningPart("Hm", provider="cohere"), TextPart("Ah")])
    results = [ToolResultPart("c1", "noon"), ToolResultPart("c2", "No sea", outcome="error")]
    turns = body_of([("user", "hi"), planned, Message("tool", results), cited, ("user", "so?"), thinking])["messages"]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}},
    ]
    expected = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_plan": "I will look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: No sea"},
        {"role": "assistant", "content": "Wet!", "citations": [CITATION]},
        {"role": "user", "content": "so?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Ah"}]},
    ]
    assert expected == turns


def test_what_another_vendor_made_is_left_out():
    """Its reasoning, its raw parts and its citations; text and calls stay."""
    parts = [
        ReasoningPart("secret", signature="s", provider="anthropic"),
        RawPart("openai", {"type": "web_search_call"}),
        TextPart("Wet", [{"type": "char_location"}], provider="anthropic"),
        ToolCallPart("toolu_1", "now", "{}"),
    ]
    [turn] = body_of([Message("assistant", parts)])["messages"]
    call = {"id": "toolu_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    assert {"role": "assistant", "content": "Wet", "tool_calls": [call]} == turn


def test_files_and_documents():
    """Pictures of the user are URLs; text files in a result are documents; a CachePoint is left out."""
    image = FilePart("image/png", b"\x01", detail="low")
    far = FilePart("image/png", url="https://example.org/a.png")
    report = FilePart("text/plain", "Wet é".encode(), name="r1", title="Report")
    told = body_of(
        [
            Message("user", ["Look", image, far, CachePoint()]),
            Message("tool", [ToolResultPart("c1", [TextPart("see"), report], outcome="denied")]),
        ]
    )
    document = {"data": {"title": "Report", "text": "Wet é"}, "id": "r1"}
    expected = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQ==", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [
                {"type": "text", "text": "Denied:"},
                {"type": "text", "text": "see"},
                {"type": "document", "document": document},
            ],
        },
    ]
    assert expected == told["messages"]


TOOL = {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}
OTHER = ToolSpec("look", strict=True)
BARE = {"name": "look", "parameters": {"type": "object", "properties": {}}}
TOLD = {"type": "function", "function": TOOL}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"top_p": 0.5, "top_k": 3, "seed": 1, "stop_sequences": "a"},
            {"p": 0.5, "k": 3, "seed": 1, "stop_sequences": ["a"]},
        ),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [TOLD]}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [TOLD], "tool_choice": "REQUIRED"}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tools": [TOLD], "tool_choice": "NONE"}),
        ({"tools": [TOOL, OTHER], "tool_choice": "now"}, {"tools": [TOLD], "tool_choice": "REQUIRED"}),
        ({"tools": [OTHER]}, {"tools": [{"type": "function", "function": BARE}], "strict_tools": True}),
        ({"response_format": "json"}, {"response_format": {"type": "json_object"}}),
        (
            {"response_format": {"type": "object"}},
            {"response_format": {"type": "json_object", "json_schema": {"type": "object"}}},
        ),
        ({"effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"extra": {"safety_mode": "OFF"}}, {"safety_mode": "OFF"}),
    ],
)
def test_parameters_have_coheres_names(parameters, expected):
    """Each goes by the name that the API has for it."""
    plain = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    assert {**plain, **expected} == body_of("hi", **parameters)


@pytest.mark.parametrize(
    ("prompt", "parameters", "sentence"),
    [
        ("hi", {"effort": "high"}, "token_budget"),
        ("hi", {"parallel_tool_calls": False, "tools": [ToolSpec("now")]}, "parallel"),
        ("hi", {"tools": [TOOL], "tool_choice": "look"}, "no such tool"),
        ("hi", {"tools": [TOOL, OTHER]}, "strict"),
        ("hi", {"tools": [TOOL], "response_format": "json"}, "not both"),
        ("hi", {"tools": [{"type": "web_search_20250305", "name": "w"}]}, "another provider"),
        ([Message("user", [FilePart("audio/wav", b"1")])], {}, "audio/wav"),
        ([Message("user", [FilePart("image/png", file_id="f")])], {}, "stores no files"),
        ([Message("tool", [ToolResultPart("c", [FilePart("image/png", b"1")])])], {}, "image/png"),
        ([Message("system", [FilePart("image/png", b"1")])], {}, "system"),
        ([Message("assistant", [FilePart("audio/wav", b"1")])], {}, "audio/wav"),
        ([Message("assistant")], {}, "at least one message"),
    ],
)
def test_what_cohere_cannot_do_is_refused(prompt, parameters, sentence):
    """Before anything is sent."""
    with pytest.raises(MisuseError, match=sentence):
        body_of(prompt, **parameters)


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT"])
def test_answer_that_the_server_broke_off_is_an_error(server, reason):
    """With the partial answer, streamed and whole."""
    end = {"type": "message-end", "delta": {"finish_reason": reason, "error": "out of luck"}}
    whole = {"id": "a", "message": {"content": [{"type": "text", "text": "Hel"}]}, "finish_reason": reason}
    server.reply(Reply([*PROTOCOL.stream(["Hel"])[:3], sse(end)]), Reply.json(whole))
    for stream, said in (True, "out of luck"), (False, reason):
        with pytest.raises(ProviderError, match=said) as caught:
            create_model(server).invoke("hi", stream=stream)
        assert ("Hel", True) == (caught.value.partial.text, caught.value.retryable)


def test_stream_without_its_end_is_interrupted(server):
    """With the partial answer."""
    server.reply(Reply(PROTOCOL.stream(["Hel", "lo"])[:-1]))
    with pytest.raises(Interrupted) as caught:
        create_model(server).invoke("hi")
    assert "Hello" == caught.value.partial.text


def test_reasoning_text_and_call_are_the_same_streamed_and_whole(server):
    """Thinking has the index of its block."""
    answer = {"reasoning": ["Let me", " see"], "text": ["I", "'ll look"], "tool_call": ToolCall()}
    server.reply(Reply(PROTOCOL.stream(**answer)), Reply.json(PROTOCOL.whole(**answer)))
    streamed, whole = (create_model(server).invoke("hi", stream=stream) for stream in (True, False))
    assert streamed == whole
    assert ("Let me see", "I'll look") == (whole.reasoning, whole.text)
    assert {"city": "Paris"} == json.loads(whole.tool_calls[0].arguments)


def test_log_probabilities(server):
    """They arrive with their text; a field of `extra` requests them."""
    item = {"text": "Hi", "token_ids": [1], "logprobs": [-0.5]}
    stream = PROTOCOL.stream(["Hi"])
    stream[2] = event("content-delta", {"content": {"text": "Hi"}}, index=1, logprobs=item)
    server.reply(Reply(stream))
    assert {"content": [item]} == create_model(server).invoke("hi", extra={"logprobs": True}).logprobs


def test_missing_key_is_a_sentence_before_anything_is_sent(monkeypatch):
    """At Cohere's own address; another server may need none."""
    monkeypatch.delenv("CO_API_KEY", raising=False)
    with pytest.raises(MisuseError, match="set CO_API_KEY"):
        Cohere("command-a").preview("hi")
    assert "authorization" not in Cohere("m", base_url="http://127.0.0.1:1").preview("hi").headers
