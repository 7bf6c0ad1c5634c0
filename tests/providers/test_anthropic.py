"""Anthropic's protocol: the requests, and the decoding of the events."""

import json
from typing import ClassVar

import attrs
import pytest

from rxllm.errors import AuthenticationError, BadRequest, Overloaded, ProtocolError, ProviderError, RateLimited
from rxllm.misuse import MisuseError
from rxllm.providers.anthropic import Anthropic
from rxllm.providers.openai import OpenAI
from rxllm.values.chunk import Chunk, join
from rxllm.values.message import Message
from rxllm.values.parts import CachePoint, FilePart, RawPart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from rxllm.values.request import Request
from rxllm.values.usage import Usage


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key and no address but those that a test sets."""
    for name in ("API_KEY", "AUTH_TOKEN", "BASE_URL"):
        monkeypatch.delenv(f"ANTHROPIC_{name}", raising=False)


def asked(prompt="hi", **parameters):
    """A request as the base class hands it over."""
    return Request(prompt=Request.ask(prompt).prompt, **{"model": "claude", **parameters})


def body_of(prompt="hi", **parameters):
    """The body that is sent."""
    return Anthropic("claude")._body(asked(prompt, **parameters))


class Heard:
    """The chunks of a decoder for these events."""

    def __init__(self, *events):
        self.decoder = Anthropic("claude")._decoder(asked())
        chunks = [self.decoder.chunk(json.dumps(event).encode()) for event in events]
        self.chunks = [chunk for chunk in chunks if chunk is not None]
        self.whole = join(self.chunks)


def start(id="msg_1", **usage):
    """The event that begins a message."""
    message = {"id": id, "model": "claude-1", "content": [], "usage": usage or {"input_tokens": 5, "output_tokens": 1}}
    return {"type": "message_start", "message": message}


def block(index, *deltas, **content):
    """The events of one block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(*pieces):
    """Deltas of text."""
    return [{"type": "text_delta", "text": piece} for piece in pieces]


def json_delta(*pieces):
    """Deltas of a call's arguments."""
    return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def end(reason="end_turn", **usage):
    """The events that end a message."""
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage or {"output_tokens": 7}},
        {"type": "message_stop"},
    ]


class TestRequest:
    """The requests."""

    def test_a_prompt_is_asked_with_a_limit(self):
        """The protocol requires max_tokens."""
        expected = {
            "model": "claude",
            "max_tokens": 4096,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "stream": True,
        }
        assert expected == body_of()

    def test_parameters_have_the_protocols_names(self):
        """Each parameter goes by the name that the protocol has for it; extra fields win."""
        body = body_of(
            temperature=0,
            top_p=0.5,
            top_k=3,
            max_tokens=9,
            stop_sequences=("a",),
            tools=[{"name": "f", "parameters": {"type": "object", "properties": {}}}],
            tool_choice="any",
            response_format={"type": "json_schema", "schema": {}},
            stream=False,
            extra={"thinking": {"type": "disabled"}, "max_tokens": 10},
        )
        expected = {
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 3,
            "max_tokens": 10,
            "stop_sequences": ["a"],
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "any"},
            "output_config": {"format": {"type": "json_schema", "schema": {}}},
            "stream": False,
            "thinking": {"type": "disabled"},
        }
        assert expected == {name: body[name] for name in expected}

    def test_what_the_protocol_lacks_is_refused(self):
        """A seed, and several answers."""
        with pytest.raises(MisuseError, match="seed"):
            body_of(seed=1)
        with pytest.raises(MisuseError, match=r"llm\.batch"):
            body_of(extra={"n": 3})

    def test_the_system_is_kept_apart(self):
        """Messages of the system go where the protocol has them, one as text, several as blocks."""
        one = body_of([("system", "be brief"), ("user", "hi")])
        assert ("be brief", 1) == (one["system"], len(one["messages"]))
        cached = RawPart("anthropic", {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}})
        two = body_of([Message("system", ("a", cached)), Message("user", "hi")])
        assert [{"type": "text", "text": "a"}, dict(cached.data)] == two["system"]
        with pytest.raises(MisuseError, match="at least one message"):
            body_of([("system", "be brief")])

    def test_a_conversation_goes_back_as_it_came(self):
        """Signed thoughts and raw blocks are echoed in their place; results of tools are the user's."""
        search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}}
        conversation = [
            Message("user", "weather?"),
            Message(
                "assistant",
                (
                    ReasoningPart("hm", "signed", 0),
                    ReasoningPart("another vendor's"),
                    RawPart("anthropic", search),
                    RawPart("openai", {"type": "x"}),
                    TextPart("I look."),
                    ToolCallPart("c1", "weather", '{"at":"Ulm"}', 2),
                    ToolCallPart("c2", "time", "", 3),
                    ToolCallPart("c3", "time", '{"cut', 4),
                ),
            ),
            Message("tool", ToolResultPart("c1", "rain")),
            Message("tool", ToolResultPart("c2", "broken", "error")),
            Message("user", "and?"),
            Message("assistant", ""),
        ]
        expected = [
            {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "signed"},
                    search,
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"at": "Ulm"}},
                    {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
                    {"type": "tool_use", "id": "c3", "name": "time", "input": {"INVALID_JSON": '{"cut'}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "rain"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "broken", "is_error": True},
                    {"type": "text", "text": "and?"},
                ],
            },
        ]
        assert expected == body_of(conversation)["messages"]

    def test_cache_point_at_the_end_of_a_result_marks_the_result(self):
        """One between its parts marks the part before it."""
        image, hour = FilePart("image/png", b"p"), {"type": "ephemeral", "ttl": "1h"}
        results = (
            ToolResultPart("c1", ["rain", CachePoint()]),
            ToolResultPart("c2", ["rain", CachePoint("1h"), image, CachePoint()]),
        )
        mark = {"cache_control": {"type": "ephemeral"}}
        rain, seen = {"type": "text", "text": "rain"}, {"type": "base64", "media_type": "image/png", "data": "cA=="}
        content = [{**rain, "cache_control": hour}, {"type": "image", "source": seen}]
        assert [
            {"type": "tool_result", "tool_use_id": "c1", "content": "rain", **mark},
            {"type": "tool_result", "tool_use_id": "c2", "content": content, **mark},
        ] == body_of([Message("tool", results)])["messages"][0]["content"]
        with pytest.raises(MisuseError, match="caches the parts before it, but this one has none"):
            body_of([Message("tool", ToolResultPart("c1", [CachePoint(), "rain"]))])

    def test_cache_point_never_marks_thinking(self):
        """The API rejects it there. The block before has the mark; without one the mark is left out."""
        thinking = ReasoningPart("hm", "sig", provider="anthropic")
        redacted = RawPart("anthropic", {"type": "redacted_thinking", "data": "x"})
        call, blank = ToolCallPart("c1", "now", "{}"), TextPart("\n\n")
        marked = {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}}
        for before, text in ([TextPart("One.")], [marked]), ([], []):
            answer = Message("assistant", [*before, thinking, redacted, blank, CachePoint(), call])
            blocks = body_of([Message("user", "hi"), answer])["messages"][1]["content"]
            assert text == [block for block in blocks if block["type"] == "text"]
            assert [] == [block for block in blocks if "cache_control" in block and block["type"] != "text"]

    def test_files_become_images_and_documents(self):
        """A file goes as its bytes or as its address."""
        files = (
            FilePart("image/png", b"p"),
            FilePart("image/*", url="https://x/y.png"),
            FilePart("application/pdf", b"d", name="d.pdf"),
            FilePart("text/markdown", b"# T"),
        )
        expected = [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "cA=="}},
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "ZA=="},
                "title": "d.pdf",
            },
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "# T"}},
        ]
        assert expected == body_of(Message("user", files))["messages"][0]["content"]

    @pytest.mark.parametrize(
        "message",
        [
            Message("user", FilePart("audio/wav", b"a")),
            Message("user", FilePart("image/png")),
            Message("user", RawPart("openai", {"type": "x"})),
            Message("user", ToolCallPart("c", "f")),
            Message("assistant", FilePart("image/png", b"p")),
        ],
    )
    def test_what_the_protocol_cannot_say_is_refused(self, message):
        """A part that the protocol cannot carry raises MisuseError."""
        with pytest.raises(MisuseError):
            body_of(message)


class TestKey:
    """The key, the version and the address of the request."""

    def test_the_key_or_the_token(self, monkeypatch):
        """The key wins over the token, and the argument over the environment."""
        version = {"anthropic-version": "2023-06-01"}
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token")
        assert {"authorization": "Bearer token", **version} == Anthropic("x")._headers(asked())
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        assert {"x-api-key": "key", **version} == Anthropic("x")._headers(asked())
        assert {"x-api-key": "given", **version} == Anthropic("x", api_key="given")._headers(asked())

    def test_a_missing_key_is_a_sentence_with_the_variable(self):
        """A missing key is found before anything is sent, unless a header or another server makes up for it."""
        with pytest.raises(MisuseError, match="ANTHROPIC_API_KEY"):
            Anthropic("x")._headers(asked())
        for fine in (Anthropic("x", base_url="http://localhost"), Anthropic("x", headers={"X-Api-Key": "k"})):
            assert {"anthropic-version": "2023-06-01"} == fine._headers(asked())

    def test_the_address(self, monkeypatch):
        """The address may be given with its version or without."""
        assert "https://api.anthropic.com/v1/messages" == Anthropic("x")._url(asked())
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://proxy/")
        assert "http://proxy/v1/messages" == Anthropic("x")._url(asked())
        assert "http://other/v1/messages" == Anthropic("x", base_url="http://other/v1")._url(asked())


class TestStream:
    """Events to chunks."""

    def test_first_chunk_has_the_facts_of_message_start(self):
        """The id, the model and the input usage. A later usage replaces the repeated counts."""
        heard = Heard(start(), {"type": "ping"}, *block(0, *text("Hel", "lo"), type="text", text=""), *end())
        expected = [
            Chunk("Hel", id="msg_1", model="claude-1", usage=Usage(input_tokens=5, output_tokens=1)),
            Chunk("lo"),
            Chunk(finish_reason="stop", raw_finish_reason="end_turn", usage=Usage(input_tokens=5, output_tokens=7)),
        ]
        assert expected == heard.chunks
        assert Usage(input_tokens=5, output_tokens=7) == heard.whole.usage
        assert heard.decoder.complete

    def test_text_in_the_start_of_a_block_counts(self):
        """Some proxies send text there."""
        assert Heard(start(), *block(0, *text("lo"), type="text", text="Hel")).whole.text == "Hello"

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("pause_turn", "stop"),
            ("compaction", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_call"),
            ("refusal", "content_filter"),
            ("guardrail_intervened", "content_filter"),
            ("new_one", "other"),
        ],
    )
    def test_stop_reasons(self, raw, reason):
        """Each reason has our word, and keeps the provider's."""
        whole = Heard(start(), *end(raw)).whole
        assert (reason, raw, "msg_1") == (whole.finish_reason, whole.raw_finish_reason, whole.id)

    def test_message_start_may_have_the_whole_answer(self):
        """After code that calls a tool, the API answers so: content and stop reason, then message_stop."""
        call = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}, "caller": {"type": "direct"}}
        first = start()
        first["message"] |= {"content": [{"type": "text", "text": "Well"}, call], "stop_reason": "tool_use"}
        heard = Heard(first, {"type": "message_stop"})
        assert ("Well", "tool_call", "tool_use") == (
            heard.whole.text,
            heard.whole.finish_reason,
            heard.whole.raw_finish_reason,
        )
        assert [("toolu_1", '{"a":1}')] == [(each.id, each.arguments) for each in heard.whole.message().tool_calls]
        assert heard.decoder.complete

    def test_stop_reason_of_message_delta_wins(self):
        """That of message_start does not end the answer either."""
        first = start()
        first["message"]["stop_reason"] = "end_turn"
        heard = Heard(first, *block(0, *text("a"), type="text"))
        assert (None, False) == (heard.whole.finish_reason, heard.decoder.finished)
        assert (
            "max_tokens" == Heard(first, *block(0, *text("a"), type="text"), *end("max_tokens")).whole.raw_finish_reason
        )

    def test_failure_in_message_start_is_an_error(self):
        """A reason that means a failure of the server, without a later one."""
        first = start()
        first["message"]["stop_reason"] = "error"
        failure = Heard(first, {"type": "message_stop"}).decoder.failure
        assert isinstance(failure, ProviderError)

    def test_input_of_a_server_tool_is_an_object(self):
        """The API refuses any other input in the next request, such as one that broke off."""
        for pieces, expected in ((['{"a":', "1}"], {"a": 1}), (['{"a":'], {"INVALID_JSON": '{"a":'}), ([], {})):
            use = block(0, *json_delta(*pieces), type="server_tool_use", id="s", name="bash", input={})
            (part,) = Heard(start(), *use).whole.parts
            assert expected == part.data["input"]

    def test_only_message_stop_completes(self):
        """A stop reason is not the end."""
        assert not Heard(start(), *block(0, *text("a"), type="text"), end()[0]).decoder.complete

    def test_usage_in_detail(self):
        """A count that message_delta omits keeps its value; input_tokens includes the cached tokens."""
        usage = {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 4, "input_tokens": 5, "output_tokens": 1}
        later = {"output_tokens": 9, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 2}}
        expected = Usage(
            input_tokens=12,
            output_tokens=9,
            cache_read_input_tokens=3,
            cache_creation_input_tokens=4,
            reasoning_output_tokens=2,
        )
        heard = Heard(start(**usage), *block(0, *text("a"), type="text"), *end(**later))
        assert expected == heard.whole.usage

    def test_thinking_is_closed_by_its_signature(self):
        """Thoughts join by block; the signature goes with them, and alone where the thought is not shown."""
        deltas = [
            {"type": "thinking_delta", "thinking": "h"},
            {"type": "thinking_delta", "thinking": "m"},
            {"type": "signature_delta", "signature": "s1"},
        ]
        heard = Heard(
            start(),
            *block(0, *deltas, type="thinking", thinking="", signature=""),
            *block(1, {"type": "signature_delta", "signature": "s2"}, type="thinking", thinking=""),
        )
        assert (ReasoningPart("hm", "s1", 0), ReasoningPart("", "s2", 1)) == heard.whole.parts

    def test_calls_come_in_fragments(self):
        """Id and name come first, arguments in pieces, and no arguments are an empty object."""
        heard = Heard(
            start(),
            *block(1, *json_delta("", '{"a"', ":1}"), type="tool_use", id="c1", name="f", input={}),
            *block(2, *json_delta(""), type="tool_use", id="c2", name="g", input={}),
            *block(3, type="tool_use", id="c3", name="h", input={"b": 2}),
        )
        expected = (
            ToolCallPart("c1", "f", '{"a":1}', 1),
            ToolCallPart("c2", "g", "{}", 2),
            ToolCallPart("c3", "h", '{"b":2}', 3),
        )
        assert expected == heard.whole.tool_calls
        assert [ToolCallPart("c1", "f", "", 1), ToolCallPart(arguments='{"a"', index=1)] == [
            chunk.tool_calls[0] for chunk in heard.chunks[:2]
        ]

    @pytest.mark.parametrize(
        ("events", "data"),
        [
            (block(0, type="redacted_thinking", data="x"), {"type": "redacted_thinking", "data": "x"}),
            (
                block(0, *json_delta("", '{"q":', '"x"}'), type="server_tool_use", id="s", name="w", input={}),
                {"type": "server_tool_use", "id": "s", "name": "w", "input": {"q": "x"}},
            ),
            (
                block(0, type="web_search_tool_result", tool_use_id="s", content=[{"url": "u"}]),
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]},
            ),
            (
                block(0, {"type": "compaction_delta", "content": "short"}, type="compaction", content=None),
                {"type": "compaction", "content": "short"},
            ),
            (
                block(0, *text("a", "b"), {"type": "new_delta", "text": {"x": 1}}, type="new", text=""),
                {"type": "new", "text": {"x": 1}},
            ),
        ],
    )
    def test_other_blocks_are_kept_whole(self, events, data):
        """Blocks that the next request must have back come when they are whole, and are neither text nor calls."""
        heard = Heard(start(), *block(1, *text("a"), type="text"), *events)
        assert (TextPart("a"), RawPart("anthropic", data)) == heard.whole.parts
        assert 2 == len(heard.chunks)

    def test_a_block_without_its_stop_is_closed_by_the_end(self):
        """Some proxies forget content_block_stop."""
        events = block(0, type="redacted_thinking", data="x")[:-1]
        assert 1 == len(Heard(start(), *events, *end()).whole.parts)

    def test_the_unknown_is_ignored(self):
        """Unknown events and deltas are ignored, whatever their fields are."""
        events = [
            {"type": "new_event", "delta": "text", "index": "zero"},
            {"type": "new_event", "message": "text"},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": "x"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "text": 1}},
            {"type": "content_block_delta", "index": 0, "delta": None},
            {"type": "message_delta", "delta": None, "usage": None},
            {},
        ]
        assert [] == Heard(start(), *events).chunks

    @pytest.mark.parametrize("data", [b"{", b"[]", b'{"type":"content_block_delta","delta":1}'])
    def test_other_bytes_are_a_protocol_error(self, data):
        """A frame that is not an event raises an error that contains the frame."""
        with pytest.raises(ProtocolError) as caught:
            Heard().decoder.chunk(data)
        assert data == caught.value.frame

    def test_second_message_start_resets_the_answer(self):
        """A proxy that asks again starts a new message in the same stream."""
        heard = Heard(
            start(),
            *block(0, *text("old"), type="text"),
            *block(1, type="tool_use", id="c", name="f")[:-1],
            start(id="msg_2", input_tokens=6),
            *block(0, *text("new"), type="text"),
            *end(),
        )
        expected = Chunk(
            "new",
            id="msg_2",
            model="claude-1",
            usage=Usage(input_tokens=6, output_tokens=7),
            finish_reason="stop",
            raw_finish_reason="end_turn",
            reset=True,
        )
        assert expected == heard.whole

    def test_second_message_start_before_any_content_resets_nothing(self):
        """No content was emitted, so no reset is needed."""
        heard = Heard(start(), start(id="msg_2"), *block(0, *text("a"), type="text"))
        assert (False, "msg_2") == (heard.whole.reset, heard.whole.id)


class TestFailure:
    """Failures of answers."""

    @pytest.mark.parametrize(
        ("name", "kind", "status", "retryable"),
        [
            ("overloaded_error", Overloaded, 529, True),
            ("rate_limit_error", RateLimited, 429, True),
            ("authentication_error", AuthenticationError, 401, False),
            ("permission_error", AuthenticationError, 403, False),
            ("invalid_request_error", BadRequest, 400, False),
            ("not_found_error", BadRequest, 404, False),
            ("request_too_large", BadRequest, 413, False),
            ("billing_error", ProviderError, 402, False),
            ("api_error", ProviderError, 500, True),
            ("timeout_error", ProviderError, 504, True),
            ("new_error", ProviderError, None, False),
        ],
    )
    def test_error_events_raise_by_their_type(self, name, kind, status, retryable):
        """In a stream the HTTP status was 200: the type decides, and the answer is not complete."""
        document = {"type": "error", "error": {"type": name, "message": "m"}, "request_id": "r"}
        heard = Heard(start(), *block(0, *text("a"), type="text"))
        with pytest.raises(kind) as caught:
            heard.decoder.chunk(json.dumps(document).encode())
        error = caught.value
        assert (kind, "m", status, name, retryable) == (
            type(error),
            str(error),
            error.status,
            error.code,
            error.retryable,
        )
        assert not heard.decoder.complete

    def test_http_errors(self):
        """The status decides, and the headers say when to come back."""
        body = b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}'
        error = Anthropic("x")._error(529, body, {"retry-after": "3"})
        assert (Overloaded, 529, 3.0, True) == (type(error), error.status, error.retry_after, error.retryable)


class TestWhole:
    """Answers at once."""

    def test_a_whole_answer_is_the_streamed_one(self):
        """The same answer, streamed or not, is the same message."""
        content = [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "server_tool_use", "id": "s", "name": "w", "input": {"q": "x"}},
            {"type": "text", "text": "Hello", "citations": None},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
        ]
        usage = {"input_tokens": 5, "output_tokens": 7}
        document = {"id": "msg_1", "model": "claude-1", "type": "message", "content": content}
        body = json.dumps({**document, "stop_reason": "tool_use", "usage": usage}).encode()
        thinking = [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "s"}]
        streamed = Heard(
            start(),
            *block(0, *thinking, type="thinking", thinking="", signature=""),
            *block(1, *json_delta('{"q": "x"}'), type="server_tool_use", id="s", name="w", input={}),
            *block(2, *text("Hel", "lo"), type="text", text=""),
            *block(3, *json_delta('{"a":', "1}"), type="tool_use", id="c", name="f", input={}),
            *end("tool_use"),
        )
        assert streamed.whole.message() == Anthropic("x")._whole(body, asked()).message()

    def test_an_error_with_status_200_raises(self):
        """An error document raises an error, whatever the status."""
        with pytest.raises(Overloaded):
            Anthropic("x")._whole(b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}', asked())

    @pytest.mark.parametrize("content", ["[null]", '["a"]', "[{}]", '[{"type":"text","text":"a"},5]', '[{"type":5}]'])
    def test_block_without_a_type_is_a_protocol_error(self, content):
        """It is not left out in silence."""
        body = b'{"type":"message","content":%s,"stop_reason":"end_turn"}' % content.encode()
        with pytest.raises(ProtocolError, match="not a message: its content has a block without a type") as caught:
            Anthropic("x")._whole(body, asked())
        assert body == caught.value.frame

    def test_silence_is_an_answer(self):
        """A message without blocks is one."""
        body = b'{"content":[],"stop_reason":"end_turn"}'
        expected = Chunk(finish_reason="stop", raw_finish_reason="end_turn")
        assert expected == Anthropic("x")._whole(body, asked())

    @pytest.mark.parametrize("stop", ["", ',"stop_reason":null'])
    def test_a_whole_answer_needs_no_stop_reason(self, stop):
        """A complete document is a whole answer."""
        body = b'{"content":[{"type":"text","text":"a"}]%s}' % stop.encode()
        assert Chunk("a") == Anthropic("x")._whole(body, asked())

    def test_arguments_that_cannot_be_read_go_back_as_text(self):
        """Those that are nested too deeply, too."""
        deep = '{"a":' * 100_000
        body = Anthropic("x")._body(asked([("user", "x"), Message("assistant", ToolCallPart("c", "f", deep))]))
        assert {"INVALID_JSON": deep} == body["messages"][1]["content"][0]["input"]

    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"event: ping"])
    def test_other_bodies_are_protocol_errors(self, body):
        """A body that is not an answer raises an error instead of giving an empty answer."""
        with pytest.raises(ProtocolError):
            Anthropic("x")._whole(body, asked())


def cited(place):
    """A citation, and the delta that brings it."""
    citation = {"type": "char_location", "cited_text": f"from {place}", "document_index": 0, "start_char_index": place}
    return citation, {"type": "citations_delta", "citation": citation}


class TestCitations:
    """Citations arrive with their text, and go back with it."""

    BLOCKS: ClassVar = [
        {"type": "text", "text": "Grass is "},
        {"type": "text", "text": "green", "citations": [cited(1)[0], cited(2)[0]]},
        {"type": "text", "text": ", sky is "},
        {"type": "text", "text": "blue", "citations": [cited(3)[0]]},
    ]
    EXPECTED = (
        TextPart("Grass is "),
        TextPart("green", [cited(1)[0], cited(2)[0]], 1),
        TextPart(", sky is ", (), 2),
        TextPart("blue", [cited(3)[0]], 3),
    )

    @pytest.mark.parametrize("citations_first", [True, False])
    @pytest.mark.parametrize("in_start", [True, False])
    def test_a_stream_keeps_blocks_apart(self, citations_first, in_start):
        """Each text has its own citations, in whatever order they come."""
        events = []
        for index, told in enumerate(self.BLOCKS):
            citations = [{"type": "citations_delta", "citation": each} for each in told.get("citations", ())]
            opening = told["text"][:2] if in_start and not citations_first else ""
            pieces = text(*told["text"][len(opening) :])
            deltas = [*citations, *pieces] if citations_first else [*pieces, *citations]
            events += block(index, *deltas, type="text", text=opening, citations=[])
        heard = Heard(start(), *events, *end())
        assert self.EXPECTED == heard.whole.parts
        assert "Grass is green, sky is blue" == "".join(chunk.text for chunk in heard.chunks)

    def test_whole_answer_keeps_blocks_apart(self):
        """As the stream of it does."""
        body = json.dumps({"content": self.BLOCKS, "stop_reason": "end_turn"}).encode()
        assert self.EXPECTED == Anthropic("claude")._whole(body, asked()).parts

    def test_cited_texts_go_back_as_they_came(self):
        """Block by block; a user's text has no citations, and those of other vendors stay out."""
        answer = Message("assistant", self.EXPECTED)
        foreign = TextPart("x", [{"type": "url_citation", "url": "u"}])
        sent = body_of(
            [("user", "a"), answer, Message("user", [TextPart("b", [cited(1)[0]])]), Message("assistant", foreign)]
        )
        plain = [{"type": "text", "text": "b"}], [{"type": "text", "text": "x"}]
        assert [self.BLOCKS, *plain] == [turn["content"] for turn in sent["messages"][1:]]

    def test_plain_text_is_joined_as_before(self):
        """One block is one text without an index."""
        heard = Heard(start(), *block(0, *text("a", "b", "c"), type="text", text=""), *end())
        assert [Chunk("b"), Chunk("c")] == heard.chunks[1:3]
        assert (TextPart("abc"),) == heard.whole.parts


@pytest.mark.parametrize("white", [" ", "\n\n", "\t \u2003"])
def test_a_text_of_white_space_before_a_call_is_left_out(white):
    """The API refuses it, though its models send it. A user who sends nothing else gets an error before the request."""
    answer = Message("assistant", [TextPart(white), ToolCallPart("c", "f", "{}")])
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    assert [call] == body_of([("user", "a"), answer, Message("tool", ToolResultPart("c", "1"))])["messages"][1][
        "content"
    ]
    with pytest.raises(MisuseError, match="at least one message with content"):
        body_of([("user", white)])


def test_numbers_are_ids():
    """Of calls and of answers."""
    heard = Heard(start(id=12), *block(0, type="tool_use", id=7, name="f", input={}), *end("tool_use"))
    assert ("12", "7") == (heard.whole.id, heard.whole.tool_calls[0].id)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [({"type": "enabled", "budget_tokens": 8000}, 12096), ({"type": "adaptive"}, 4096), (None, 4096)],
)
def test_default_limit_leaves_room_for_the_budget_of_thinking(thinking, expected):
    """The API rejects a limit that is not above the budget."""
    extra = {"thinking": thinking} if thinking else {}
    assert expected == body_of(extra=extra)["max_tokens"]
    assert 9000 == body_of(extra=extra, max_tokens=9000)["max_tokens"]


def searched(name="server_tool_use"):
    """An answer that broke off while Anthropic's own tool ran."""
    call = RawPart("anthropic", {"type": name, "id": "s", "name": "web_search", "input": {}})
    return Message("assistant", [TextPart("I look."), call])


@pytest.mark.parametrize("name", ["server_tool_use", "mcp_tool_use"])
def test_own_call_that_broke_off_does_not_go_back(name):
    """The API rejects a call of its own tools without its result; without other content, the answer is left out."""
    broken = searched(name)
    body = body_of([HI, broken, ("user", "Go on.")])
    assert [{"type": "text", "text": "I look."}] == body["messages"][1]["content"]
    alone = body_of([HI, Message("assistant", broken.parts[1]), ("user", "Go on.")])["messages"]
    assert [("user", 2)] == [(turn["role"], len(turn["content"])) for turn in alone]


def test_own_call_that_goes_on_goes_back():
    """In the last answer, beside the results of the program's tools, and with its own result."""
    result = RawPart("anthropic", {"type": "web_search_tool_result", "tool_use_id": "s", "content": []})
    both = Message("assistant", [*searched().parts, ToolCallPart("1", "f", "{}")])
    for rest in (
        [searched()],
        [both, Message("tool", ToolResultPart("1", "a"))],
        [both, Message("tool", ToolResultPart("1", "a")), Message("assistant", result), ("user", "Go on.")],
        [Message("assistant", [*searched().parts, result]), ("user", "Go on.")],
    ):
        assert "server_tool_use" == body_of([HI, *rest])["messages"][1]["content"][1]["type"]


def test_answer_does_not_end_with_thinking():
    """The API rejects an answer that broke off before its text; other servers take it."""
    thought, raw = ReasoningPart("hm", "signed", 0), RawPart("anthropic", {"type": "redacted_thinking", "data": "x"})
    body = body_of([HI, Message("assistant", [thought, raw]), ("user", "Go on.")])
    assert ["user"] == [turn["role"] for turn in body["messages"]]
    body = body_of([HI, Message("assistant", [thought, TextPart("a"), thought]), ("user", "Go on.")])
    assert ["thinking", "text"] == [each["type"] for each in body["messages"][1]["content"]]
    other = Anthropic("m", base_url="https://api.deepseek.com/anthropic")
    body = other._body(asked([HI, Message("assistant", [thought]), ("user", "Go on.")]))
    assert "thinking" == body["messages"][1]["content"][0]["type"]


@pytest.mark.parametrize("content", ["", " \n", [], [TextPart(" "), CachePoint()]])
def test_failed_result_has_content(content):
    """The API rejects an error without content."""
    answer = Message("assistant", [ToolCallPart("1", "f", "{}")])
    body = body_of([HI, answer, Message("tool", [ToolResultPart("1", content, "error")])])
    assert "The tool gave no details." == body["messages"][-1]["content"][0]["content"]


def test_results_of_tools_come_before_the_other_content_of_a_turn():
    """The API refuses a text before a result."""
    answer = Message("assistant", [ToolCallPart("a", "f", "{}"), ToolCallPart("b", "f", "{}", 1)])
    said = [TextPart("And?"), ToolResultPart("a", "1"), CachePoint(), ToolResultPart("b", "2")]
    sent = body_of([("user", "hi"), answer, Message("user", said), ("user", "Now?")])["messages"][2]["content"]
    assert [("tool_result", "1"), ("tool_result", "2"), ("text", "And?"), ("text", "Now?")] == [
        (block["type"], block.get("content", block.get("text"))) for block in sent
    ]
    assert "cache_control" in sent[0]


@pytest.mark.parametrize("stream", [True, False])
def test_caller_of_a_call_goes_back(stream):
    """A call by the code that the model wrote names its caller. No other provider gets it."""
    caller = {"type": "code_execution_20250825", "tool_id": "s"}
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {}, "caller": caller}
    whole = json.dumps({"content": [call], "stop_reason": "tool_use"}).encode()
    heard = (
        Heard(start(), *block(0, **call), *end("tool_use")).whole if stream else Anthropic("m")._whole(whole, asked())
    )
    for answer in (heard.message(), {"role": "assistant", "content": [call]}):
        prompt = [("user", "hi"), answer, Message("tool", ToolResultPart("c", "1"))]
        assert [call] == body_of(prompt)["messages"][1]["content"]
        assert "caller" not in str(OpenAI("m", api="chat")._body(asked(prompt)))


def test_pieces_of_a_compaction_are_joined():
    """Its encrypted form arrives whole each time."""
    first = {"type": "compaction_delta", "content": "a", "encrypted_content": "1"}
    second = {"type": "compaction_delta", "content": "b", "encrypted_content": "2"}
    heard = Heard(start(), *block(0, first, second, type="compaction", content=None), *end())
    assert (
        RawPart("anthropic", {"type": "compaction", "content": "ab", "encrypted_content": "2"}),
    ) == heard.whole.parts


HI = ("user", "hi")
CONTAINER = {"id": "container_1", "expires_at": "2026-11-30T12:00:00Z"}
WAITING = [
    start(),
    *block(0, type="server_tool_use", id="srvtoolu_1", name="code_execution", input={"code": "get()"}),
    *block(1, type="tool_use", id="toolu_1", name="get", input={}, caller={"type": "code_execution_20250825"}),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "container": CONTAINER}, "usage": {}},
    {"type": "message_stop"},
]


def waiting(*, stream):
    """An answer whose code waits for a tool of the program."""
    if stream:
        return Heard(*WAITING).whole.message()
    content = [event["content_block"] for event in WAITING if "content_block" in event]
    document = {"id": "m", "content": content, "stop_reason": "tool_use", "container": CONTAINER}
    return Anthropic("claude")._whole(json.dumps(document).encode(), asked()).message()


@pytest.mark.parametrize("stream", [True, False])
def test_container_goes_back_while_code_waits_for_a_tool(stream):
    """The API rejects the result of a tool that code has called, unless the request names the code's container."""
    answer = waiting(stream=stream)
    result = Message("tool", ToolResultPart("toolu_1", "1"))
    body = body_of([HI, answer, result])
    assert "container_1" == body["container"]
    assert ["server_tool_use", "tool_use"] == [each["type"] for each in body["messages"][1]["content"]]
    assert "container_1" == body_of([HI, answer, result, ("user", "And more.")])["container"]
    assert "container_1" == body_of([HI, answer])["container"]  # a paused answer goes on


def test_container_stays_away_when_no_code_waits():
    """A container may have expired by the next question."""
    answer, result = waiting(stream=True), Message("tool", ToolResultPart("toolu_1", "1"))
    assert "container" not in body_of([HI, answer, ("user", "Again.")])
    assert "container" not in body_of([HI, answer, result, Message("assistant", "1"), ("user", "Again.")])


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ("container_2", "container_2"),
        ({"skills": []}, {"id": "container_1", "skills": []}),
        ({"id": "container_2", "skills": []}, {"id": "container_2", "skills": []}),
    ],
)
def test_wanted_container_wins(wanted, sent):
    """A program may name a container, or only skills for it."""
    talk = [HI, waiting(stream=True), Message("tool", ToolResultPart("toolu_1", "1"))]
    assert sent == body_of(talk, extra={"container": wanted})["container"]


@pytest.mark.parametrize("stream", [True, False])
def test_details_of_a_refusal_are_a_raw_part(stream):
    """Claude explains a refusal beside its content, which is empty. The details do not go back."""
    details = {"type": "refusal", "category": "cyber", "explanation": "This is about malware."}
    if stream:
        delta = {"stop_reason": "refusal", "stop_details": details}
        answer = Heard(start(), {"type": "message_delta", "delta": delta}, {"type": "message_stop"}).whole.message()
    else:
        document = {"id": "m", "content": [], "stop_reason": "refusal", "stop_details": details}
        answer = Anthropic("claude")._whole(json.dumps(document).encode(), asked()).message()
    assert ([RawPart("anthropic", details)], "content_filter") == ([*answer.parts], answer.finish_reason)
    assert 1 == len(body_of([HI, answer, ("user", "Something else.")])["messages"])


THOUGHT = Message("assistant", [ReasoningPart("Hm.", provider="anthropic"), "Hi"], finish_reason="stop")


@pytest.mark.parametrize(
    ("base_url", "answer", "kinds"),
    [
        ("https://api.deepseek.com/anthropic", THOUGHT, ["thinking", "text"]),
        ("http://localhost:8080", THOUGHT, ["thinking", "text"]),
        ("http://localhost:8080", attrs.evolve(THOUGHT, interrupted=True), ["text"]),
        ("http://localhost:8080", Message("assistant", [ReasoningPart("Hm."), "Hi"]), ["text"]),
        ("https://api.anthropic.com", THOUGHT, ["text"]),
        ("https://mine.services.ai.azure.com/anthropic", THOUGHT, ["text"]),
    ],
)
def test_reasoning_without_a_signature_goes_back_to_other_vendors(base_url, answer, kinds):
    """Servers of other models may not sign, but require the reasoning of a call. Claude requires the signature."""
    body = Anthropic("m", base_url=base_url, api_key="k")._body(asked([HI, answer, ("user", "go on")]))
    assert kinds == [each["type"] for each in body["messages"][1]["content"]]


def test_name_of_a_call_has_no_special_token():
    """A server of gpt-oss writes the channel after the name."""
    call = {"type": "tool_use", "id": "t", "name": "search<|channel|>commentary", "input": {}}
    assert ["search"] == [each.name for each in Heard(start(), *block(0, **call), *end()).whole.message().tool_calls]


@pytest.mark.parametrize(("content", "text"), [("Hi.", "Hi."), ("", ""), (None, "")])
def test_content_of_a_whole_answer_may_be_a_text(content, text):
    """Some gateways send the form that the API allows in requests only."""
    document = {"id": "m", "type": "message", "content": content, "stop_reason": "end_turn"}
    answer = Anthropic("claude")._whole(json.dumps(document).encode(), asked()).message()
    assert (text, "stop") == (answer.text, answer.finish_reason)


def test_arguments_of_a_call_may_come_as_an_object():
    """A gateway sends the finished arguments in place of pieces of text."""
    delta = {"type": "input_json_delta", "partial_json": {"city": "Paris"}}
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
    ]
    (call,) = Heard(start(), *events, *end()).whole.message().tool_calls
    assert {"city": "Paris"} == json.loads(call.arguments)
