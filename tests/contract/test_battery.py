"""Duties of rxllm's providers, through a real local server: the contract of any provider, and their own duties.

It is longer than other files because it is one list: a provider that passes it is complete.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import traceback
import tracemalloc

import httpx
import pytest
from attrs import frozen
from contracts import ProtocolContract
from models import made
from protocols import (
    EVERY,
    PROTOCOLS,
    Chat,
    Generate,
    Messages,
    MistralChat,
    OllamaChat,
    ToolCall,
    split_every,
    sse,
    with_line_ends,
    with_pings,
)

import rxllm
from rxllm import (
    Anthropic,
    Embedded,
    OpenAI,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    Usage,
)
from rxllm.errors import (
    AuthenticationError,
    BadRequest,
    Interrupted,
    ProtocolError,
    ProviderError,
    RateLimited,
    RxllmError,
    Timeout,
)
from rxllm.misuse import MisuseError
from rxllm.testing import End, Endless, FakeServer, LLMContract, Reply, on_virtual_time
from rxllm.wire.timeouts import Timeouts

KEY = "sk-do-not-show-this-to-anybody"
ALL = [*EVERY, MistralChat()]
SPEAKING = [protocol for protocol in PROTOCOLS if protocol.speaks]
OVER_SSE = [protocol for protocol in ALL if protocol.uses_sse]


NAMELESS = ("ollama", "cohere", "converse")  # their answers have no id, or no model


def name_of(protocol):
    """Return the id of a parametrised test."""
    return protocol.name


@pytest.fixture(params=ALL, ids=name_of)
def protocol(request):
    """Each protocol in turn."""
    return request.param


@pytest.fixture
def server():
    """A local server; the test sets its replies."""
    with FakeServer() as server:
        yield server


def create_model(protocol, server, **settings):
    """Return the provider of a protocol, which sends each request to this server once."""
    url = server if isinstance(server, str) else server.url
    return made(protocol, url, **{"api_key": KEY, **settings})


def events(*steps):
    """Return a reply that streams these events."""
    return Reply(steps)


def failed(llm, prompt="hi", **parameters):
    """Return the text that arrived before the error, and the error."""
    heard = ""
    try:
        for chunk in llm.stream(prompt, **parameters):
            heard += chunk.text
    except RxllmError as error:
        return heard, error
    raise AssertionError(f"there was no error after {heard!r}")


def partial_of(error):
    """Return the text of the error's partial answer."""
    return error.partial.text if error.partial else ""


class Contract(ProtocolContract):
    """The contract of any provider."""

    finishes = ("stop", "length", "content_filter")
    key = KEY

    def provider(self, url):
        """Return a provider that uses this server."""
        return create_model(self.protocol, url)


class TestChat(Contract):
    """OpenAI's chat completions, which many other servers speak."""

    protocol = PROTOCOLS[0]


class TestCompletions(Contract):
    """OpenAI's older completions."""

    protocol = PROTOCOLS[1]


class TestMessages(Contract):
    """Anthropic's messages."""

    protocol = PROTOCOLS[2]


class TestGemini(Contract):
    """Google's protocol."""

    protocol = Generate()


class TestOllama(Contract):
    """Ollama's protocol, which has no filter of content."""

    protocol = OllamaChat()
    content_type = "application/x-ndjson"
    finishes = ("stop", "length")


class TestAnswer:
    """The content of an answer."""

    @pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
    def test_answer_has_model_id_and_raw_finish_reason(self, protocol, server, finish):
        """An answer, streamed or whole, also if empty, has the model, the id and the raw finish reason."""
        if finish not in protocol.finishes:
            return
        for text in ((), ("Hello",)):
            server.reply(Reply(protocol.stream(text, finish=finish)), Reply.json(protocol.whole(text, finish=finish)))
            llm = create_model(protocol, server)
            for stream in (True, False):
                answer = llm.invoke("hi", stream=stream)
                assert ("".join(text), Usage(input_tokens=3, output_tokens=5)) == (answer.text, answer.usage)
                assert (finish, protocol.finishes[finish]) == (answer.finish_reason, answer.raw_finish_reason)
                assert (answer.model or protocol.model, answer.id or protocol.id) == (protocol.model, protocol.id)
                assert protocol.name in NAMELESS or (answer.model and answer.id)

    @pytest.mark.parametrize("protocol", SPEAKING, ids=name_of)
    def test_reasoning_text_and_call_keep_their_order(self, protocol, server):
        """Reasoning, text and a tool call keep their order and their kind."""
        answer = {"reasoning": ["Let me", " see"], "text": ["I", "'ll look"], "tool_call": ToolCall()}
        server.reply(Reply(protocol.stream(**answer)), Reply.json(protocol.whole(**answer)))
        streamed, whole = (create_model(protocol, server).invoke("hi", stream=stream) for stream in (True, False))
        assert ("Let me see", "I'll look", "tool_call") == (streamed.reasoning, streamed.text, streamed.finish_reason)
        kinds = [ReasoningPart, TextPart, ToolCallPart]
        assert [kinds, kinds] == [[type(part) for part in message.parts] for message in (streamed, whole)]
        calls = [[(call.id, call.name, json.loads(call.arguments)) for call in m.tool_calls] for m in (streamed, whole)]
        assert [[("call_1", "get_weather", {"city": "Paris"})]] * 2 == calls
        assert [streamed.text, streamed.reasoning, streamed.usage] == [whole.text, whole.reasoning, whole.usage]

    @pytest.mark.parametrize("protocol", SPEAKING, ids=name_of)
    def test_parallel_calls_stay_apart(self, protocol, server):
        """Fragments of several calls, alternating or in turn, are joined by call."""
        server.reply(Reply(PARALLEL_CALLS[protocol.name]))
        answer = create_model(protocol, server).invoke("hi")
        expected = [("call_1", "add", '{"a":1}'), ("call_2", "now", ""), ("call_3", "add", '{"a":3}')]
        assert expected == [(call.id, call.name, call.arguments.replace("{}", "")) for call in answer.tool_calls]
        assert "tool_call" == answer.finish_reason

    def test_refusal_is_not_part_of_the_text(self, server):
        """A refusal is a part of its own, streamed or whole."""
        protocol = Chat()
        deltas = [{"role": "assistant", "content": "", "refusal": None}, {"refusal": "I "}, {"refusal": "won't"}]
        frames = [sse(protocol._chunk([protocol._choice(delta, None)])) for delta in deltas]
        whole = json.loads(protocol.whole())
        whole["choices"][0]["message"]["refusal"] = "I won't"
        server.reply(Reply([*frames, *protocol.stream()[1:]]), Reply.json(whole))
        for stream in (True, False):
            answer = create_model(protocol, server).invoke("hi", stream=stream)
            assert ("", "I won't", (RefusalPart("I won't"),)) == (answer.text, answer.refusal, answer.parts)


PARALLEL_CALLS = {
    "chat": [
        *(
            sse({"id": "a", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
            for call in (
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}},
                {"index": 1, "id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
                {"index": 0, "function": {"arguments": '{"a"'}},
                {"index": 2, "id": "call_3", "type": "function", "function": {"name": "add", "arguments": '{"a":'}},
                {"index": 0, "function": {"arguments": ":1}"}},
                {"index": 2, "function": {"arguments": "3}"}},
            )
        ),
        sse({"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
        Chat.terminal,
    ],
    "messages": [
        sse({"type": "message_start", "message": {"id": "a", "content": []}}, event="message_start"),
        *(
            sse({"type": f"content_block_{kind}", "index": index, **data}, event=f"content_block_{kind}")
            for index, name, pieces in ((0, "add", ['{"a"', ":1}"]), (1, "now", [""]), (2, "add", ['{"a":', "3}"]))
            for kind, data in (
                ("start", {"content_block": {"type": "tool_use", "id": f"call_{index + 1}", "name": name}}),
                *(("delta", {"delta": {"type": "input_json_delta", "partial_json": piece}}) for piece in pieces),
                ("stop", {}),
            )
        ),
        sse({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, event="message_delta"),
        Messages.terminal,
    ],
    "responses": [
        *(
            sse({"type": f"response.{kind}", "output_index": index, **data}, event=f"response.{kind}")
            for kind, index, data in (
                ("output_item.added", 0, {"item": {"type": "function_call", "call_id": "call_1", "name": "add"}}),
                ("output_item.added", 1, {"item": {"type": "function_call", "call_id": "call_2", "name": "now"}}),
                ("function_call_arguments.delta", 0, {"delta": '{"a"'}),
                ("output_item.added", 2, {"item": {"type": "function_call", "call_id": "call_3", "name": "add"}}),
                ("function_call_arguments.delta", 2, {"delta": '{"a":'}),
                ("function_call_arguments.delta", 0, {"delta": ":1}"}),
                ("function_call_arguments.delta", 2, {"delta": "3}"}),
            )
        ),
        sse({"type": "response.completed", "response": {"status": "completed"}}, event="response.completed"),
    ],
}


class TestFraming:
    """The answer is the same however its bytes are framed."""

    @pytest.mark.parametrize("protocol", OVER_SSE, ids=name_of)
    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
    @pytest.mark.parametrize("size", [1, 7, 2**20])
    def test_framing_does_not_change_the_answer(self, protocol, server, end, size):
        """Cuts, line ends, pings and a byte order mark make no difference."""
        body = b"\xef\xbb\xbf" + b"".join(with_line_ends(end, with_pings(protocol.stream(["Hé", "llo 🌍"]))))
        server.reply(Reply(split_every(size, body)))
        assert "Héllo 🌍" == create_model(protocol, server).invoke("hi").text

    @pytest.mark.parametrize("protocol", PROTOCOLS[:3], ids=name_of)  # Responses begins with long events without text
    async def test_first_token_is_emitted_before_the_rest_is_parsed(self, protocol, server):
        """The first token of a large packet is emitted before its other tokens are parsed."""
        server.reply(Reply([b"".join(protocol.stream(["Hello"] * 100))]))
        heard = []
        async with create_model(protocol, server, handlers=[heard.append]).astream("hi") as stream:
            assert "Hello" == (await anext(stream)).text
        assert 20 > sum(isinstance(event, rxllm.RunChunk) for event in heard)

    def test_compressed_stream_is_read_only_if_requested(self, protocol, server):
        """A compressed answer is read if the request accepts it, and is an error otherwise."""
        body = gzip.compress(b"".join(protocol.stream(["Hello"])))
        server.reply(Reply(split_every(20, body), headers={"content-encoding": "gzip"}))
        assert "Hello" == create_model(protocol, server, headers={"Accept-Encoding": "gzip"}).invoke("hi").text
        with pytest.raises(rxllm.ProtocolError, match="accepts only plain bytes"):
            create_model(protocol, server).invoke("hi")

    @pytest.mark.parametrize("stream", [True, False])
    def test_stream_is_utf8_whatever_the_header_says(self, protocol, server, stream):
        """The SSE standard demands UTF-8, and servers mislabel it."""
        body = protocol.stream(["Hé 🌍"]) if stream else [protocol.whole(["Hé 🌍"])]
        server.reply(Reply(body, content_type="text/event-stream; charset=latin-1"))
        assert "Hé 🌍" == create_model(protocol, server).invoke("hi", stream=stream).text

    @pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
    def test_document_instead_of_a_stream_is_one_chunk(self, protocol, server, content_type):
        """A server that cannot stream answers with one document."""
        server.reply(Reply(split_every(9, b"\n" + protocol.whole(["Hel", "lo"])), content_type=content_type))
        assert ["Hello"] == [str(chunk) for chunk in create_model(protocol, server).stream("hi")]

    def test_endless_event_is_a_protocol_error(self, protocol, server):
        """An event over the limit is a ProtocolError, and memory stays bounded."""
        server.reply(events(b'data: {"choices": "', Endless(b"x" * 2**16)))
        tracemalloc.start()
        try:
            _, error = failed(create_model(protocol, server))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert ProtocolError is type(error)
        assert peak < 80 * 2**20
        assert len(error.frame) <= 1000
        server.exchange(0).wait_closed()

    @pytest.mark.parametrize("protocol", OVER_SSE, ids=name_of)
    @pytest.mark.parametrize("ping", [b"data:\n\n", b"data: \n\n", b"data:\ndata:\n\n", b"event: ping\ndata\n\n"])
    def test_event_without_data_is_ignored(self, protocol, server, ping):
        """Some gateways send such events to keep the connection open."""
        stream = protocol.stream(["Hel", "lo"])
        server.reply(Reply(b"".join(ping + event for event in stream) + ping))
        assert "Hello" == create_model(protocol, server).invoke("hi").text


class TestRequest:
    """The request as it is sent."""

    CONVERSATION = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "What's the time?"))

    @pytest.mark.parametrize("protocol", SPEAKING, ids=name_of)
    def test_request_has_the_conversation_and_the_parameters(self, protocol, server):
        """The body has messages, system, tools, limits and extra fields under the protocol's names."""
        server.reply(Reply(protocol.stream(["ok"])))
        tools = [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]
        llm = create_model(protocol, server, max_tokens=9, temperature=0, tools=tools, extra={"user": "u1"})
        stop = {} if protocol.name == "responses" else {"stop_sequences": ["END"]}
        llm.invoke(self.CONVERSATION, **stop, top_p=0.5)
        turns = [{"role": role, "content": text} for role, text in self.CONVERSATION]
        blocks = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in self.CONVERSATION[1:]]
        own = {
            "chat": {
                "messages": turns,
                "stop": ["END"],
                "stream_options": {"include_usage": True},
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
                    }
                ],
            },
            "responses": {
                "input": [self.item(role, text) for role, text in self.CONVERSATION],
                "max_output_tokens": 9,
                "store": False,
                "include": ["reasoning.encrypted_content"],
                "tools": [
                    {
                        "type": "function",
                        "name": "now",
                        "parameters": {"type": "object", "properties": {}},
                        "strict": False,
                    }
                ],
            },
            "messages": {"messages": blocks, "system": "Be brief.", "stop_sequences": ["END"], "tools": tools},
        }[protocol.name]
        expected = {
            "model": protocol.model,
            "stream": True,
            "max_tokens": 9,
            "temperature": 0,
            "top_p": 0.5,
            "user": "u1",
            **own,
        }
        if protocol.name == "responses":
            del expected["max_tokens"]
        assert expected == server.requests[0].json

    @staticmethod
    def item(role, text):
        """An item of the Responses protocol: an answer goes back in its own form."""
        if role != "assistant":
            return {"role": role, "content": text}
        return {
            "type": "message",
            "role": role,
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }

    def test_completions_takes_a_text_only(self, server):
        """The older protocol sends the text; messages are a MisuseError before anything is sent."""
        protocol = PROTOCOLS[1]
        server.reply(Reply(protocol.stream(["ok"])))
        llm = create_model(protocol, server, max_tokens=9, stop_sequences=["END"])
        llm.invoke("Once upon")
        with pytest.raises(MisuseError, match="takes a text, not messages"):
            llm.invoke([("user", "hi")])
        expected = {
            "model": protocol.model,
            "prompt": "Once upon",
            "stream": True,
            "max_tokens": 9,
            "stop": ["END"],
            "stream_options": {"include_usage": True},
        }
        assert [expected] == [request.json for request in server.requests]

    @pytest.mark.parametrize("protocol", [each for each in ALL if each.path[:4] in ("/v1/", "/v2/")], ids=name_of)
    @pytest.mark.parametrize("stream", [True, False])
    def test_request_has_the_path_and_headers_of_the_protocol(self, protocol, server, stream):
        """Path, authorisation and version are the protocol's; `accept` fits what was asked for."""
        server.reply(Reply(protocol.stream(["ok"])) if stream else Reply.json(protocol.whole(["ok"])))
        create_model(protocol, server).invoke("hi", stream=stream)
        request = server.requests[0]
        assert ("POST", protocol.path, stream) == (request.method, request.path, request.json["stream"])
        expected = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            **(
                {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
                if protocol.name == "messages"
                else {"authorization": f"Bearer {KEY}"}
            ),
        }
        assert expected == {name: request.headers.get(name) for name in expected}

    def test_given_headers_replace_the_providers(self, protocol, server):
        """A header that the user gives replaces the provider's, whatever its case."""
        server.reply(Reply(protocol.stream(["ok"])))
        own = {"Authorization": "Bearer mine", "X-Api-Key": "mine", "Anthropic-Version": "2026-10-21", "x-title": "t"}
        create_model(protocol, server, headers=own).invoke("hi")
        sent = server.requests[0].headers
        assert own == {name: sent[name.lower()] for name in own}

    def test_cookie_is_not_sent_back(self, protocol, server):
        """A cookie of one answer is not sent with the next request."""
        server.reply(Reply(protocol.stream(["ok"]), headers={"set-cookie": "session=1"}))
        llm = create_model(protocol, server)
        assert ["ok", "ok"] == [llm.invoke("hi").text for _ in range(2)]
        assert [None, None] == [request.headers.get("cookie") for request in server.requests]

    @pytest.mark.parametrize("extra", [{"n": 2}, {"best_of": 3}])
    def test_several_choices_raise_misuse(self, protocol, server, extra):
        """A stream has one answer; the error names batch."""
        with pytest.raises(MisuseError, match=r"llm\.batch\(\[prompt\] \* "):
            create_model(protocol, server, extra=extra).invoke("hi")
        assert [] == server.requests

    @pytest.mark.parametrize(("provider", "variable"), [(OpenAI, "OPENAI_API_KEY"), (Anthropic, "ANTHROPIC_API_KEY")])
    def test_missing_key_raises_misuse(self, server, monkeypatch, provider, variable):
        """The error names the variable and comes before anything is sent, even to a proxy."""
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        with pytest.raises(MisuseError, match=f"set {variable}"):
            provider("model-1").invoke("hi")
        assert [] == server.requests

    @pytest.mark.parametrize("url", ["localhost:8000", "https://", "http://localhost:port", "http://[::1"])
    def test_bad_base_url_raises_misuse(self, protocol, url):
        """The error says what a base_url looks like."""
        with pytest.raises(MisuseError, match="base_url must be like https://host/v1, not "):
            create_model(protocol, url).invoke("hi")

    @pytest.mark.parametrize("key", ["sk-é-do-not-show", "sk-do-not\nshow"])
    def test_key_that_cannot_be_a_header_raises_misuse(self, protocol, server, key):
        """The error does not repeat the key."""
        with pytest.raises(MisuseError, match="has characters that HTTP does not allow") as caught:
            create_model(protocol, server, api_key=key).invoke("hi")
        assert "do-not" not in str(caught.value)


DEEP = b"[" * 50_000
OPENINGS = {  # of frames whose innermost value the decoder reads
    "chat": [b'{"choices":[{"delta":{"content":', b'{"id":'],
    "completions": [b'{"choices":[{"text":'],
    "messages": [
        b'{"type":"content_block_delta","delta":{"text":',
        b'{"type":"content_block_start","content_block":',
        b'{"type":"error","error":',
    ],
    "responses": [b'{"type":"response.output_text.delta","delta":', b'{"type":"response.output_item.done","item":'],
    "generate": [b'{"candidates":[{"content":{"parts":['],
    "ollama": [b'{"message":{"content":', b'{"message":{"tool_calls":'],
    "converse": [b'{"delta":{"text":', b'{"start":'],
    "cohere": [b'{"type":"content-delta","delta":{"message":{"content":'],
}


@pytest.fixture
def uncollected():
    """Turn the garbage collector off: at the depth of this test a finaliser could not run."""
    gc.disable()
    yield
    gc.enable()


class TestProviderError:
    """The provider reports an error."""

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "7"}, 7.0),
            ({"Retry-After": "0.5"}, 0.5),
            ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "Mon, 01 Jan 2026 00:00:00 +99999999999999"}, None),
        ],
    )
    def test_retry_after_is_read_in_seconds(self, protocol, server, headers, seconds):
        """The more precise header wins."""
        server.reply(Reply.json(protocol.error_body(429), status=429, headers=headers))
        assert seconds == failed(create_model(protocol, server))[1].retry_after

    def test_exhausted_quota_is_not_retryable(self, protocol, server):
        """Waiting does not refill the account."""
        error = {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}
        server.reply(Reply.json({"type": "error", "error": error}, status=429))
        _, error = failed(create_model(protocol, server))
        assert (RateLimited, False, "insufficient_quota") == (type(error), error.retryable, error.code)

    @pytest.mark.parametrize("status", [500, 502])
    def test_error_that_is_not_json_keeps_its_status(self, protocol, server, status):
        """An error page of a proxy is an error of its status."""
        server.reply(Reply(b"<html>Bad Gateway</html>", status=status, content_type="text/html"))
        _, error = failed(create_model(protocol, server))
        assert (status, True, "<html>Bad Gateway</html>") == (error.status, error.retryable, error.body)

    @pytest.mark.parametrize("stream", [True, False])
    def test_error_with_status_200_is_an_error(self, protocol, server, stream):
        """A 200 with an error body raises ProviderError."""
        server.reply(Reply.json(protocol.error_body(529, "No room")))
        _, error = failed(create_model(protocol, server), stream=stream)
        assert isinstance(error, ProviderError)
        assert "No room" in str(error)

    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (b"<html>Welcome</html>", "text/html"),
            (b'{"hello": "world"}', "application/json"),
            (b"[1}", "application/json"),
            (b"no healthy upstream", "text/plain"),
            (b"upstream error: none", "text/plain"),
            (b"dated\n\n", "text/plain"),
        ],
    )
    def test_foreign_document_with_status_200_is_an_error(self, protocol, server, body, content_type):
        """The answer of another program is not an answer, streamed or whole."""
        server.reply(Reply(body, content_type=content_type, chunked=False))
        for stream in (True, False):
            _, error = failed(create_model(protocol, server), stream=stream)
            assert (ProtocolError, body.strip(), False) == (type(error), error.frame.strip(), error.retryable)
            if stream and content_type == "text/plain":
                assert body.decode().strip() in str(error)

    @pytest.mark.parametrize("size", [1, 100])
    @pytest.mark.parametrize("opening", [b"", b"\n \r\n", b"\xef\xbb\xbf\n"])
    @pytest.mark.parametrize("form", [b"%s", b"[%s]"])
    def test_error_with_status_200_is_read_in_each_form(self, protocol, server, size, opening, form):
        """An error in a list, after a byte order mark or white space is read, and is not retryable."""
        body = opening + form % protocol.error_body(400, "No such model")
        for stream in (True, False):
            server.reply(Reply(split_every(size, body), content_type="application/json"))
            _, error = failed(create_model(protocol, server, max_retries=2), stream=stream)
            assert isinstance(error, ProviderError)
            assert ("No such model", False) == (str(error), error.retryable)
        assert 2 == len(server.requests)
        server.reply(Reply(body, status=404))
        assert "No such model (HTTP 404)" == str(failed(create_model(protocol, server))[1])

    @pytest.mark.parametrize("protocol", OVER_SSE, ids=name_of)
    @pytest.mark.parametrize(
        "body", [b"", b": ping\n\n", b"\n\n", b"dat", b"data: {", b"id: 1\r", b"retry: 5\n\n", b"event: x\n\n"]
    )
    def test_empty_stream_is_interrupted(self, protocol, server, body):
        """A stream that ends before its first event was cut off, so it is retryable."""
        server.reply(Reply(body))
        _, error = failed(create_model(protocol, server))
        assert (Interrupted, True) == (type(error), error.retryable)

    def test_stream_that_ends_within_its_first_frame_is_interrupted(self, protocol, server):
        """However few bytes arrived, they do not look like an answer of another program."""
        beginning = protocol.stream(["Hello"])[0]
        for size in (1, 5, len(beginning) - 3):
            server.reply(Reply(beginning[:size]))
            _, error = failed(create_model(protocol, server))
            assert (Interrupted, True) == (type(error), error.retryable)

    def test_status_counts_if_its_body_breaks_off(self, protocol, server):
        """The status decides whether and when the request is retried."""
        server.reply(Reply([b'{"error": ', End.FIN], status=401))
        _, error = failed(create_model(protocol, server, max_retries=2))
        assert (AuthenticationError, 1) == (type(error), len(server.requests))
        server.reply(Reply([b"{", End.RST], status=429, headers={"retry-after": "100"}))
        _, error = failed(create_model(protocol, server))
        assert (RateLimited, 100.0) == (type(error), error.retry_after)

    @pytest.mark.usefixtures("uncollected")
    @pytest.mark.parametrize("name", ["error", "choices", "content", "hello"])
    @pytest.mark.parametrize(("status", "kind"), [(200, ProtocolError), (400, BadRequest), (429, RateLimited)])
    def test_deeply_nested_document_is_an_error(self, protocol, server, name, status, kind):
        """Streamed or whole it is a ProtocolError, or an error of its status."""
        server.reply(Reply.json(b'{"%s":%s' % (name.encode(), DEEP), status=status))
        for stream in (True, False):
            if protocol.name == "ollama" and stream and status == 200:
                continue  # such a document may be a line that was cut
            assert kind is type(failed(create_model(protocol, server), stream=stream)[1])

    @pytest.mark.usefixtures("uncollected")
    @pytest.mark.parametrize("opening", [b"", b'{"error":', b"its own"])
    def test_deeply_nested_frame_is_a_protocol_error(self, protocol, server, opening):
        """The chunks before it are emitted."""
        openings = OPENINGS.get(protocol.name, OPENINGS["chat"]) if opening == b"its own" else [opening]
        before = protocol.before("there", protocol.stream(["Hello", "there"]))
        for opening in openings:
            server.reply(Reply([*before, protocol.frame(opening + DEEP), End.HANG]))
            heard, error = failed(create_model(protocol, server))
            assert ("Hello", "Hello", ProtocolError) == (heard, partial_of(error), type(error))
            assert error.frame.startswith(opening + b"[[[")
            assert str(error).startswith("The server sent a ")

    def test_undecodable_bytes_are_replaced(self, protocol, server):
        """Errors and answers in another character set are read as far as possible, as in a stream."""
        server.reply(
            Reply.json(b'{"error":{"message":"no \xe9"}}', status=400),
            Reply.json(protocol.whole(["Hello"]).replace(b"Hello", b"H\xe9llo")),
        )
        _, error = failed(create_model(protocol, server))
        assert (BadRequest, "no \N{REPLACEMENT CHARACTER} (HTTP 400)") == (type(error), str(error))
        assert "H\N{REPLACEMENT CHARACTER}llo" == create_model(protocol, server).invoke("hi", stream=False).text

    def test_huge_numbers_are_ignored(self, protocol, server):
        """An error code of thousands of digits is ignored."""
        server.reply(Reply.json(b'{"error":{"message":"no","code":"%s"}}' % (b"9" * 5000)))
        _, error = failed(create_model(protocol, server))
        assert (ProviderError, "no", None) == (type(error), str(error), error.status)

    def test_frame_that_is_not_json_is_a_protocol_error(self, protocol, server):
        """The chunks before it are emitted, and the connection is closed."""
        before = protocol.before("there", protocol.stream(["Hello", "there"]))
        server.reply(Reply([*before, protocol.frame(b"{nonsense"), End.HANG]))
        heard, error = failed(create_model(protocol, server))
        assert ("Hello", "Hello", ProtocolError) == (heard, partial_of(error), type(error))
        assert b"{nonsense" == error.frame
        server.exchange(0).wait_closed()


class TestTransport:
    """The network fails."""

    @pytest.mark.parametrize("stream", [True, False])
    def test_empty_body_is_an_error(self, protocol, server, stream):
        """A 200 with an empty body lacks the end of a stream, and is not a document."""
        server.reply(Reply())
        assert (Interrupted if stream else ProtocolError) is type(
            failed(create_model(protocol, server), stream=stream)[1]
        )

    def test_requests_in_turn_share_a_connection(self, protocol, server):
        """After the end of a stream the rest of the body is read, so the connection can be reused."""
        server.reply(Reply(protocol.stream(["ok"])))
        for _ in range(3):
            create_model(protocol, server).invoke("hi")
        assert 1 == server.open_connections


class TestTimeouts:
    """No request waits longer than its limits."""

    @pytest.mark.parametrize("limit", ["read", "first_chunk"])
    @pytest.mark.parametrize("steps", [(), (b"",)], ids=["no headers", "headers"])
    def test_silence_before_the_first_chunk_times_out(self, protocol, server, limit, steps):
        """Before or after the headers, streamed or whole; the request is closed."""
        server.reply(events(*steps, End.HANG))
        for stream in (True, False):
            _, error = failed(create_model(protocol, server, timeout=Timeouts(**{limit: 0.05})), stream=stream)
            assert (Timeout, True, None) == (type(error), error.retryable, error.partial)
        for exchange in server.exchanges:  # on a slow machine the request may not have been sent yet
            exchange.wait_closed()

    def test_silence_in_the_middle_times_out(self, protocol, server):
        """The Timeout carries the partial answer."""
        stream = b"".join(protocol.stream(["Hello", " you"]))
        server.reply(events(stream[: stream.index(b" you")], End.HANG))
        heard, error = failed(create_model(protocol, server, timeout=Timeouts(read=0.25)))
        assert ("Hello", Timeout, "Hello") == (heard, type(error), partial_of(error))
        server.exchange(0).wait_closed()

    def test_finished_answer_does_not_time_out(self, protocol, server):
        """The body of a finished answer may end later than the idle limit."""
        server.reply(events(*protocol.stream(["Hello"]), End.HANG))
        assert "Hello" == create_model(protocol, server, timeout=Timeouts(idle=0.2)).invoke("hi").text

    @pytest.mark.parametrize(("limit", "text"), [("first_chunk", ""), ("idle", "Hello")])
    def test_pings_do_not_reset_the_limits(self, protocol, server, limit, text):
        """Keep-alive comments are not chunks, and count for neither limit."""
        before = protocol.before(" you", protocol.stream(["Hello", " you"])) if text else []
        server.reply(events(*before, *[protocol.ping(), 0.01] * 200, End.HANG))
        heard, error = failed(create_model(protocol, server, timeout=Timeouts(**{limit: 0.25}, read=0.5)))
        assert (text, Timeout) == (heard, type(error))

    def test_pings_emit_no_chunks(self, protocol, server):
        """Comments, empty lines and events of an unknown name are ignored."""
        server.reply(Reply(with_pings(with_pings(protocol.stream(["Hello"]), protocol.ping()), protocol.ping())))
        assert ["Hello"] == [chunk.text for chunk in create_model(protocol, server).stream("hi") if chunk.text]

    @on_virtual_time
    async def test_paused_reader_does_not_time_out(self, protocol, server):
        """A reader may pause for longer than the limit; nothing fails, and no chunk is lost."""
        text = [f"{number} " for number in range(5000)]
        server.reply(Reply(protocol.stream(text)))
        async with create_model(protocol, server, timeout=Timeouts(idle=30, read=30)).astream("hi") as stream:
            first = (await anext(stream)).text
            while stream._sink.gate.is_open:  # noqa: ASYNC110  (a gate has no event for that)
                await asyncio.sleep(0)
            for _ in range(3):  # the limit is checked each time
                asyncio.get_running_loop().advance(1000)
                await asyncio.sleep(0.01)
            assert "".join(text) == first + "".join([str(chunk) async for chunk in stream])


def echo_status(protocol, key):
    """Repeat the key in the body of an error status."""
    return Reply.json(protocol.error_body(401, f"Incorrect API key provided: {key}"), status=401)


def echo_document(protocol, key):
    """Repeat the key in an error document with status 200."""
    return Reply.json(protocol.error_body(401, f"Incorrect API key provided: {key}"))


def echo_frame(protocol, key):
    """Repeat the key in an error frame."""
    return Reply([protocol.error_frame(f"Incorrect API key provided: {key}")])


def echo_page(protocol, key):
    """Repeat the key in a web page."""
    return Reply(f"<html>{key}</html>".encode(), content_type="text/html")


def echo_garbage(protocol, key):
    """Repeat the key in a frame that is not JSON."""
    return Reply(f"data: {{garbage {key}\n\n".encode())


class TestSecrets:
    """Keys are never shown."""

    @pytest.mark.parametrize("echo", [echo_status, echo_document, echo_frame, echo_page, echo_garbage])
    def test_key_in_an_echo_is_blanked(self, protocol, server, caplog, echo):
        """No repr, str, traceback, body, frame or log line has the key, streamed or whole."""
        server.reply(echo(protocol, KEY))
        llm = create_model(protocol, server)
        for stream in (True, False):
            with caplog.at_level(logging.DEBUG):
                _, error = failed(llm, stream=stream)
            facts = [getattr(error, name, None) for name in ("body", "frame", "code", "request", "partial")]
            shown = [*map(repr, [llm, error, *facts]), str(error), *traceback.format_exception(error), caplog.text]
            assert [] == [text for text in shown if KEY in text]
        assert KEY in str(server.requests[0].headers)

    @pytest.mark.parametrize("cut", [200, 1000, 64 * 1024])
    @pytest.mark.parametrize("seen", [5, 10, len(KEY) - 1])
    def test_cut_key_is_blanked(self, protocol, server, cut, seen):
        """If only the beginning of a body is shown, a key that is cut at its end is blanked too."""
        body = b"x" * (cut - seen) + KEY.encode() + b"x" * 2000
        page, garbage = Reply(body, content_type="text/html"), Reply(b"data: %s\n\n" % body)
        server.reply(Reply(body, status=400), page, garbage, Reply([b"data: %s" % body, Endless(b"x" * 2**16)]))
        for _ in range(4):
            _, error = failed(create_model(protocol, server, event_limit=2**17))
            shown = [str(error), getattr(error, "body", ""), getattr(error, "frame", b"").decode()]
            assert [] == [text[-100:] for text in shown if KEY[:4] in text]
        server.reply(Reply.json(b'{"error":{"a":"%s"}}' % body))
        assert KEY[:4] not in str(failed(create_model(protocol, server))[1])

    def test_password_of_the_address_is_blanked(self, protocol, server):
        """The password is as secret as a key, also in the form in which it was sent."""
        sent = httpx.BasicAuth("user", "do-not-tell")._auth_header
        server.reply(
            Reply.json(b'{"error":{"message":"%s is wrong, do-not-tell is wrong"}}' % sent.encode(), status=401)
        )
        _, error = failed(create_model(protocol, server.url.replace("://", "://user:do-not%2Dtell@")))
        assert "Basic *** is wrong, *** is wrong (HTTP 401)" == str(error)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("Authorization", f"Basic {KEY}"),
            ("x-api-key", KEY),
            ("api-key", KEY),
            ("x-goog-api-key", KEY),
            ("x-portkey-api-key", KEY),
            ("Cf-Access-Client-Secret", KEY),
            ("x-auth-token", KEY),
            ("Helicone-Auth", f"Bearer {KEY}"),
            ("Authorization", f"Token {KEY}"),
            ("X-Goog-Iap-JWT-Assertion", KEY),
            ("x-anything", KEY),
            ("x-anything", f"bearer {KEY}"),
            ("Cookie", f"theme=dark; session={KEY}; a=b"),
        ],
    )
    def test_secret_header_in_an_echo_is_blanked(self, protocol, server, name, value):
        """Secrets in the user's own headers are as secret as the key."""
        server.reply(echo_status(protocol, KEY))
        _, error = failed(create_model(protocol, server, api_key="another-key", headers={name: value}))
        assert "Incorrect API key provided: *** (HTTP 401)" == str(error)
        assert KEY not in error.body

    @pytest.mark.parametrize("key", ["my secret key", "ab/cd/ef1234", 'sk-"quoted"\\'])
    @pytest.mark.parametrize("form", [json.dumps, lambda text: json.dumps(text).replace("/", "\\/")])
    def test_key_of_any_characters_is_blanked(self, protocol, server, key, form):
        """The key is blanked as decoded text and as JSON writes it."""
        told = form(f"{key} is wrong")
        server.reply(
            Reply.json(b'{"error":{"message":%s,"code":"-%s"}}' % (told.encode(), form(key)[1:-1].encode()), status=401)
        )
        _, error = failed(create_model(protocol, server, api_key=key))
        assert ("*** is wrong (HTTP 401)", "-***") == (str(error), error.code)
        assert '{"error":{"message":"*** is wrong","code":"-***"}}' == error.body

    def test_whole_cookie_is_blanked(self, protocol, server):
        """All that was sent is blanked, the longest secret first."""
        cookie = "theme=dark; session=abcdef1234"
        server.reply(Reply.json(protocol.error_body(400, f"no: {cookie}, abcdef1234"), status=400))
        _, error = failed(create_model(protocol, server, headers={"cookie": cookie}))
        assert "no: ***, *** (HTTP 400)" == str(error)

    def test_short_and_ordinary_words_are_not_blanked(self, protocol, server):
        """The provider's own header values, and short values of the user, are not secret."""
        said = "application/json is no text/event-stream, 2023-06-01, eu"
        server.reply(Reply.json(protocol.error_body(400, said), status=400))
        _, error = failed(create_model(protocol, server, headers={"x-region": "eu"}))
        assert f"{said} (HTTP 400)" == str(error)

    @pytest.mark.parametrize("steps", [[End.FIN], [b"", End.RST], [End.HANG]], ids=["closed", "reset", "silent"])
    @pytest.mark.parametrize("client", [None, httpx.AsyncClient], ids=["default", "httpx"])
    def test_network_error_shows_no_secret(self, protocol, server, caplog, steps, client):
        """Neither the key nor the password of the address is in an error or a log line."""
        server.reply(Reply(steps))
        url = server.url.replace("://", "://user:do-not-tell@")
        llm = create_model(protocol, url, timeout=Timeouts(read=0.05), client=client)
        with caplog.at_level(logging.DEBUG):
            _, error = failed(llm)
        shown = [repr(llm), repr(error), *traceback.format_exception(error), caplog.text]
        assert [] == [text for text in shown if KEY in text or "do-not-tell" in text]

    def test_log_of_a_success_shows_no_secret(self, protocol, server, caplog):
        """The user name and the password of the address are sent, but not logged."""
        server.reply(Reply(protocol.stream(["ok"])))
        with caplog.at_level(logging.DEBUG):
            create_model(protocol, server.url.replace("://", "://user:do-not%2Dtell@")).invoke("hi")
        assert httpx.BasicAuth("user", "do-not-tell")._auth_header == server.requests[0].headers["authorization"]
        assert [] == [line for line in caplog.messages if KEY in line or "do-not-tell" in line]


class TestClient:
    """A client that the user passes in."""

    def test_client_instance_on_another_loop_raises_misuse(self, protocol, server):
        """An instance belongs to the first loop that uses it."""
        server.reply(Reply(protocol.stream(["ok"])))

        async def ask():
            return (await llm.ainvoke("hi")).text

        with asyncio.Runner() as scheduler, asyncio.Runner() as away:
            client = httpx.AsyncClient()
            llm = create_model(protocol, server, client=client)
            assert "ok" == scheduler.run(ask())
            with pytest.raises(MisuseError, match="another event loop"):
                away.run(ask())
            scheduler.run(client.aclose())

    def test_client_factory_is_called_once_for_each_loop(self, protocol, server):
        """Requests of one loop share the client that the factory makes."""
        server.reply(Reply(protocol.stream(["ok"])))
        made_clients = []

        def client():
            made_clients.append(httpx.AsyncClient(headers={"x-client": "mine"}))
            return made_clients[-1]

        async def ask():
            assert ["ok"] * 4 == [str(answer) for answer in await llm.abatch(["hi"] * 4)]

        llm = create_model(protocol, server, client=client)
        for _ in range(2):
            asyncio.run(ask())
        assert (2, {"mine"}) == (len(made_clients), {request.headers["x-client"] for request in server.requests})

    async def test_http_proxy_is_used(self, protocol, server, monkeypatch):
        """HTTP_PROXY is honoured."""
        server.reply(Reply(protocol.stream(["ok"])))
        monkeypatch.setenv("HTTP_PROXY", server.url)
        assert "ok" == (await create_model(protocol, "http://model.invalid").ainvoke("hi")).text
        assert ("model.invalid", protocol.path) == (server.requests[0].headers["host"], server.requests[0].path)


@frozen
class Parrot(rxllm.LLM):
    """A custom provider that gives whole answers only."""

    async def complete(self, request):
        """Answer with the prompt."""
        return request.text


@frozen
class BlockingParrot(rxllm.LLM):
    """A custom provider whose code blocks."""

    def complete(self, request):
        """Answer with the prompt."""
        return request.text


class TestEmbedded(LLMContract):
    """The embedded model meets the contract."""

    def create_model(self):
        """Return the provider of a protocol, which sends each request to this server once."""
        return Embedded(seed=1)


class TestParrot(LLMContract):
    """A provider with only `async def complete` meets the contract."""

    def create_model(self):
        """Return the provider of a protocol, which sends each request to this server once."""
        return Parrot()


class TestBlockingParrot(LLMContract):
    """A provider with a blocking `complete` meets the contract."""

    def create_model(self):
        """Return the provider of a protocol, which sends each request to this server once."""
        return BlockingParrot()
