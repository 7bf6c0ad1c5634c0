"""OpenAI's protocols: the requests, and the decoding of the frames of all servers that speak them."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from rxllm.errors import AuthenticationError, BadRequest, Overloaded, ProtocolError, ProviderError, RateLimited
from rxllm.misuse import MisuseError
from rxllm.providers.openai import OpenAI
from rxllm.values.chunk import Chunk, join
from rxllm.values.message import Message
from rxllm.values.parts import FilePart, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from rxllm.values.request import Request
from rxllm.values.usage import Usage

LOCAL = "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key and no address but those that a test sets."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def asked(prompt="hi", **parameters):
    """A request as the base class hands it over."""
    parameters.setdefault("model", "gpt-5-mini")
    request = Request.ask(prompt)
    return Request(prompt=request.prompt, **parameters)


def body_of(prompt="hi", *, base_url=None, api=None, **parameters):
    """The body that is sent, by the chat protocol unless the test names a model."""
    api = api or (None if "model" in parameters else "chat")
    return OpenAI("gpt-5-mini", base_url=base_url, api=api)._body(asked(prompt, **parameters))


def frame(delta=None, *, finish=None, **fields):
    """One frame of a chat."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    document = {"id": "chatcmpl-1", "model": "m-1", "object": "chat.completion.chunk", "choices": [choice], **fields}
    return json.dumps(document).encode()


class Heard:
    """The chunks of a decoder for these frames, as the base class calls it."""

    def __init__(self, *frames):
        self.decoder = OpenAI("gpt-5-mini", api="chat")._decoder(asked())
        self.chunks = []
        self.failure = None
        try:
            for data in frames:
                chunk = self.decoder.chunk(data)
                if chunk is not None:
                    self.chunks.append(chunk)
                if self.decoder.failure:
                    raise self.decoder.failure
            self.chunks += filter(None, [self.decoder.rest()])
        except ProviderError as error:
            self.failure = error
        self.message = join(self.chunks).message()

    @property
    def complete(self):
        """Whether the end was seen."""
        return self.decoder.complete


class TestRequest:
    """The requests of the chat protocol."""

    def test_a_chat_is_asked_with_messages_and_its_usage(self):
        """A streamed chat always asks for usage."""
        expected = {
            "model": "gpt-5-mini",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert expected == body_of()

    def test_whole_answer_is_requested_without_stream_options(self):
        """OpenAI refuses them there."""
        assert {"model", "messages", "stream"} == body_of(stream=False).keys()
        assert body_of(stream=False)["stream"] is False

    def test_parameters_have_the_protocols_names(self):
        """Each parameter goes by the name that the protocol has for it."""
        body = body_of(
            model="gpt-4.1",
            temperature=0,
            top_p=0.5,
            max_tokens=9,
            stop_sequences=("a", "b"),
            seed=3,
            tools=[{"type": "function"}],
            tool_choice="auto",
            response_format={"type": "json_object"},
            extra={"reasoning_effort": "low", "temperature": 1},
        )
        expected = {
            "temperature": 1,
            "top_p": 0.5,
            "max_completion_tokens": 9,
            "stop": ["a", "b"],
            "seed": 3,
            "tools": [{"type": "function"}],
            "tool_choice": "auto",
            "response_format": {"type": "json_object"},
            "reasoning_effort": "low",
        }
        assert expected == {name: body[name] for name in expected}

    def test_other_servers_get_max_tokens_and_top_k(self):
        """Only OpenAI has max_completion_tokens, and only OpenAI lacks top_k."""
        body = body_of(base_url=LOCAL, max_tokens=9, top_k=4)
        assert (9, 4, False) == (body["max_tokens"], body["top_k"], "max_completion_tokens" in body)
        with pytest.raises(MisuseError, match="top_k"):
            body_of(top_k=4)

    def test_mistral_calls_the_seed_random_seed(self):
        """Mistral refuses a field named seed."""
        assert body_of(base_url="https://api.mistral.ai/v1", seed=3)["random_seed"] == 3

    @pytest.mark.parametrize("extra", [{"n": 2}, {"best_of": 2}])
    def test_several_answers_are_refused(self, extra):
        """A stream has one answer; the sentence names batch."""
        with pytest.raises(MisuseError, match=r"requests several answers.*llm\.batch\(\[prompt\] \* 2\)"):
            body_of(extra=extra)

    def test_a_conversation_goes_back_as_it_came(self):
        """Calls and their results are sent, reasoning and other vendors' blocks are not."""
        conversation = [
            Message("system", "be brief"),
            Message("user", "weather?"),
            Message(
                "assistant",
                (
                    ReasoningPart("hm", "signed"),
                    RawPart("anthropic", {"type": "redacted_thinking"}),
                    ToolCallPart("c1", "weather", '{"at":"Ulm"}', 0),
                    ToolCallPart("c2", "time", "", 1),
                ),
            ),
            Message("tool", (ToolResultPart("c1", "rain"), ToolResultPart("c2", "noon"))),
            Message("assistant", "It rains."),
            Message("user", ("a", "b")),
        ]
        weather = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at":"Ulm"}'}}
        time = {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}}
        expected = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": None, "tool_calls": [weather, time]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "noon"},
            {"role": "assistant", "content": "It rains."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ]
        assert expected == body_of(conversation)["messages"]

    def test_files_become_the_part_of_their_kind(self):
        """Pictures go as data or URL, sounds with their format, other files with their name."""
        message = Message(
            "user",
            (
                FilePart("image/png", b"p"),
                FilePart("image/*", url="https://x/y.png"),
                FilePart("audio/mpeg", b"a"),
                FilePart("application/pdf", b"d", name="d.pdf"),
                RawPart("openai", {"type": "file", "file": {"file_id": "f"}}),
            ),
        )
        expected = [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,cA=="}},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            {"type": "input_audio", "input_audio": {"data": "YQ==", "format": "mp3"}},
            {"type": "file", "file": {"filename": "d.pdf", "file_data": "data:application/pdf;base64,ZA=="}},
            {"type": "file", "file": {"file_id": "f"}},
        ]
        assert expected == body_of(message)["messages"][0]["content"]

    @pytest.mark.parametrize(
        "message",
        [
            Message("user", FilePart("application/pdf", url="https://x/y.pdf")),
            Message("user", FilePart("audio/wav", url="https://x/y.wav")),
            Message("user", FilePart("image/png")),
            Message("user", RawPart("anthropic", {"type": "x"})),
            Message("user", ToolCallPart("c", "f")),
            Message("assistant", FilePart("image/png", b"p")),
            Message("tool", "rain"),
        ],
    )
    def test_what_the_protocol_cannot_say_is_refused(self, message):
        """A part that the protocol cannot carry raises MisuseError."""
        with pytest.raises(MisuseError):
            body_of(message)

    def test_a_refusal_goes_back_as_one(self):
        """The model's refusal stays distinct from its text."""
        content = body_of(Message("assistant", RefusalPart("no")))["messages"][0]["content"]
        assert [{"type": "refusal", "refusal": "no"}] == content


class TestCompletions:
    """The older protocol."""

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("gpt-3.5-turbo-instruct", "completions"),
            ("gpt-3.5-turbo-instruct-0914", "completions"),
            ("davinci-002", "completions"),
            ("ft:babbage-002:org::id", "completions"),
            ("ft:gpt-3.5-turbo-instruct-0914:org::id", "completions"),
            ("davinci-002x", "responses"),
            ("gpt-3x5-turbo-instruct", "responses"),
            ("gpt-3.5-turbo", "responses"),
            ("my-davinci-002x", "responses"),
        ],
    )
    def test_the_model_decides_the_protocol(self, model, path):
        """Models that know only the older protocol get that."""
        assert f"https://api.openai.com/v1/{path}" == OpenAI("x")._url(asked(model=model))

    def test_api_overrides_the_model(self):
        """A compatible server may serve any model by either protocol."""
        assert f"{LOCAL}/completions" == OpenAI("x", api="completions", base_url=LOCAL + "/")._url(asked())
        with pytest.raises(MisuseError, match="api must be"):
            OpenAI("x", api="reponses")  # type: ignore[arg-type]

    def test_the_text_is_sent_as_it_is(self):
        """The older protocol continues a text, and its limit is max_tokens."""
        body = body_of("Once", model="davinci-002", max_tokens=5)
        expected = {
            "model": "davinci-002",
            "prompt": "Once",
            "stream": True,
            "max_tokens": 5,
            "stream_options": {"include_usage": True},
        }
        assert expected == body

    def test_messages_and_tools_are_refused(self):
        """One sentence refuses each field that the older protocol cannot express."""
        with pytest.raises(MisuseError, match="takes a text, not messages"):
            body_of([("user", "hi")], model="davinci-002")
        with pytest.raises(MisuseError, match="no tools"):
            body_of(model="davinci-002", tools=[{}])

    def test_text_and_finish_are_read(self):
        """A completion's frame has its text in the choice itself."""
        frames = [
            b'{"id":"cmpl-1","model":"d","choices":[{"text":"He","index":0,"finish_reason":null}],"usage":null}',
            b'{"id":"cmpl-1","model":"d","choices":[{"text":"llo","index":0,"finish_reason":"length"}]}',
            b"[DONE]",
        ]
        expected = Message(
            "assistant", "Hello", finish_reason="length", raw_finish_reason="length", model="d", id="cmpl-1"
        )
        assert expected == Heard(*frames).message


class TestKey:
    """The key and the headers of the request."""

    def test_key_comes_from_the_argument_or_the_environment(self, monkeypatch):
        """The argument wins, and white space around a key is ignored."""
        monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
        assert {"authorization": "Bearer from-environment"} == OpenAI("x")._headers(asked())
        assert {"authorization": "Bearer given"} == OpenAI("x", api_key="given\n")._headers(asked())

    def test_a_missing_key_is_a_sentence_with_the_variable(self):
        """A missing key is found before anything is sent."""
        with pytest.raises(MisuseError, match="OPENAI_API_KEY"):
            OpenAI("x")._headers(asked())

    def test_local_server_needs_no_key(self, monkeypatch):
        """The request has no authorization."""
        assert {} == OpenAI("x", base_url=LOCAL)._headers(asked())
        monkeypatch.setenv("OPENAI_BASE_URL", LOCAL)
        assert {} == OpenAI("x")._headers(asked())

    def test_the_key_is_in_no_repr(self):
        """Keys are never shown."""
        assert "geheim" not in repr(OpenAI("x", api_key="geheim", headers={"authorization": "geheim"}))


class TestStream:
    """Frames to chunks."""

    def test_first_chunk_has_the_id_and_the_model(self):
        """A frame with only a role gives no chunk."""
        heard = Heard(
            frame({"role": "assistant", "content": ""}),
            frame({"content": "Hel"}),
            frame({"content": "lo"}),
            frame(finish="stop"),
            frame(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2}),
            b"[DONE]",
        )
        expected = [
            Chunk("Hel", id="chatcmpl-1", model="m-1"),
            Chunk("lo"),
            Chunk(finish_reason="stop", raw_finish_reason="stop"),
            Chunk(usage=Usage(input_tokens=3, output_tokens=2)),
        ]
        assert expected == heard.chunks
        assert heard.complete

    def test_identity_may_come_late(self):
        """Azure's first frame has an empty id and no choices."""
        heard = Heard(frame(id="", model="", choices=[]), frame({"content": "a"}))
        assert [Chunk("a", id="chatcmpl-1", model="m-1")] == heard.chunks

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("stop", "stop"),
            ("length", "length"),
            ("tool_calls", "tool_call"),
            ("function_call", "tool_call"),
            ("content_filter", "content_filter"),
            ("eos", "stop"),
        ],
    )
    def test_finish_reasons(self, raw, reason):
        """Each has the neutral word, and the raw one."""
        message = Heard(frame({"content": "a"}, finish=raw)).message
        assert (reason, raw) == (message.finish_reason, message.raw_finish_reason)

    @pytest.mark.parametrize(("ending", "complete"), [([], False), ([frame(finish="stop")], True), ([b"[DONE]"], True)])
    def test_a_stream_is_complete_on_done_or_a_finish_reason(self, ending, complete):
        """Snowflake sends no finish_reason, others no [DONE]; a stream with neither is cut."""
        assert complete == Heard(frame({"content": "a"}), *ending).complete

    def test_nothing_counts_after_done(self):
        """Frames after [DONE] are ignored, whatever they are."""
        heard = Heard(frame({"content": "a"}), b"[DONE]", frame({"content": "b"}), b'{"error":"x"}', b"rubbish")
        assert ("a", None, True) == (heard.message.text, heard.failure, heard.complete)

    @pytest.mark.parametrize(
        "delta",
        [
            {"reasoning": "hm", "content": ""},
            {"reasoning_content": "hm", "content": None},
            {"reasoning": "hm", "reasoning_content": "hm"},
            {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        ],
    )
    def test_reasoning_by_all_its_names_counts_once(self, delta):
        """Servers have four places for reasoning, some fill two."""
        assert (ReasoningPart("hm"),) == Heard(frame({"content": "x"}), frame(delta)).chunks[1].parts

    def test_thinking_blocks_go_back_as_they_came(self):
        """LiteLLM's proxy sends those of Anthropic beside the text, and requires them in the next request."""
        pieces = [
            *({"type": "thinking", "thinking": "a"}, {"type": "thinking", "thinking": "b", "signature": "1"}),
            *({"type": "redacted_thinking", "data": "x"}, {"type": "redacted_thinking", "data": "y"}),
            *({"type": "thinking", "thinking": "c", "signature": ""}, {"type": "thinking", "signature": "2"}),
        ]
        deltas = [{"thinking_blocks": [each], "reasoning_content": each.get("thinking")} for each in pieces]
        heard = Heard(*map(frame, deltas), frame({"content": "Hi"}, finish="stop"))
        assert "abc" == heard.message.reasoning
        message = OpenAI("m", api="chat")._body(asked([heard.message]))["messages"][0]
        assert [
            {"type": "thinking", "thinking": "ab", "signature": "1"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "redacted_thinking", "data": "y"},
            {"type": "thinking", "thinking": "c", "signature": "2"},
        ] == message["thinking_blocks"]

    def test_content_may_be_a_list(self):
        """Mistral sends text and thinking as a list, in order; unknown items are kept as they are."""
        content = [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "yes"},
            {"type": "reference", "reference_ids": [1]},
        ]
        expected = (ReasoningPart("hm"), TextPart("yes"), RawPart("openai", content[2]))
        assert expected == Heard(frame({"content": content})).message.parts

    def test_text_in_two_places_counts_once(self):
        """Together fills the choice's text and the delta's."""
        choices = [{"index": 0, "text": "a", "delta": {"content": "a"}, "finish_reason": None}]
        assert Heard(frame(choices=choices), frame(choices=choices)).message.text == "aa"

    def test_a_message_beside_the_delta_is_ignored(self):
        """Perplexity repeats all the text so far in each frame."""
        choices = [{"index": 0, "delta": {"content": "b"}, "message": {"content": "ab"}}]
        assert Heard(frame({"content": "a"}), frame(choices=choices)).message.text == "ab"

    def test_refusals_are_not_text(self):
        """A refusal is a RefusalPart; an empty one is left out."""
        message = Heard(frame({"content": "a", "refusal": ""}), frame({"refusal": "no"})).message
        assert (TextPart("a"), RefusalPart("no")) == message.parts

    def test_nulls_and_absent_fields_are_tolerated(self):
        """Null in place of an object is ignored."""
        odd = [
            {"choices": None},
            {"choices": [None]},
            {"choices": [{"delta": None}]},
            {"choices": [{}]},
            {"choices": [{"delta": {"content": None, "tool_calls": None}}], "usage": None, "error": None},
            {},
        ]
        assert [] == Heard(*(json.dumps(document).encode() for document in odd)).chunks

    @pytest.mark.parametrize("data", [b"{", b"[]x", b"1", b'{"choices":{}}', b'{"choices":[{"delta":1}]}'])
    def test_other_bytes_are_a_protocol_error(self, data):
        """Data that is not a frame raises an error that contains the data."""
        with pytest.raises(ProtocolError) as caught:
            Heard(data)
        assert data == caught.value.frame

    @pytest.mark.parametrize(
        "fields",
        [
            {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
            {"x_groq": {"id": "r", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}},
        ],
    )
    def test_usage_counts_wherever_it_comes(self, fields):
        """Usage comes beside content, on each frame, or in x_groq; the last is the total."""
        early = frame({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1})
        message = Heard(early, frame({"content": "b"}, finish="stop", **fields)).message
        assert ("ab", Usage(input_tokens=3, output_tokens=2)) == (message.text, message.usage)

    def test_usage_in_detail(self):
        """Cached and reasoning tokens are counted; missing counts are None."""
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 7},
            "completion_tokens_details": {"reasoning_tokens": 6},
        }
        expected = Usage(input_tokens=9, output_tokens=8, cache_read_input_tokens=7, reasoning_output_tokens=6)
        assert expected == Heard(frame(choices=[], usage=usage)).message.usage
        sparse = {"prompt_tokens": 9, "prompt_tokens_details": None}
        assert Usage(input_tokens=9) == Heard(frame(choices=[], usage=sparse)).message.usage


def calls(*fragments):
    """A frame of fragments of tool calls."""
    return frame({"tool_calls": list(fragments)})


def fragment(arguments="", *, name=None, **fields):
    """A fragment of one call."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {**fields, "function": function}


class TestToolCalls:
    """Fragments of calls to calls."""

    @pytest.mark.parametrize(
        "later",
        [
            {"index": 0},
            {"index": 0, "id": ""},
            {"index": 0, "id": None},
            {"index": 0, "id": "c1", "name": "f", "type": "function"},
            {"index": 0, "id": "other"},
            {},
        ],
    )
    def test_fragments_join(self, later):
        """The first id and name stay, whatever later fragments repeat."""
        first = fragment('{"a"', name="f", index=0, id="c1", type="function")
        heard = Heard(calls(first), calls(fragment(":1}", **later)), frame(finish="tool_calls"))
        assert (ToolCallPart("c1", "f", '{"a":1}', 0),) == heard.message.tool_calls

    def test_parallel_calls_stay_apart(self):
        """Fragments go to the call of their index."""
        message = Heard(
            calls(fragment(name="f", index=0, id="c1"), fragment(name="g", index=1, id="c2")),
            calls(fragment("{}", index=1)),
            calls(fragment('{"x":1}', index=0)),
        ).message
        assert (ToolCallPart("c1", "f", '{"x":1}', 0), ToolCallPart("c2", "g", "{}", 1)) == message.tool_calls

    @pytest.mark.parametrize("index", [{}, {"index": 0}])
    def test_a_new_id_with_a_name_is_a_new_call(self, index):
        """Mistral sends no index, Gemini the same for all."""
        message = Heard(
            calls(fragment("{}", name="f", id="c1", **index)), calls(fragment("{}", name="f", id="c2", **index))
        ).message
        assert ["c1", "c2"] == [call.id for call in message.tool_calls]

    def test_arguments_may_be_an_object(self):
        """Mistral may send arguments decoded; ours are JSON text."""
        message = Heard(calls(fragment({"a": [1]}, name="f", id="c1"), fragment({}, name="g", id="c2"))).message
        assert ['{"a":[1]}', "{}"] == [call.arguments for call in message.tool_calls]

    def test_other_kinds_of_calls(self):
        """Custom tools have an input, and function_call is the older form."""
        custom = Heard(calls({"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}))
        assert (ToolCallPart("c", "f", "x", 0),) == custom.message.tool_calls
        older = Heard(
            frame({"function_call": {"name": "f", "arguments": "{"}}), frame({"function_call": {"arguments": "}"}})
        )
        assert (ToolCallPart("", "f", "{}", 0),) == older.message.tool_calls


class TestFailure:
    """Failures of answers."""

    @pytest.mark.parametrize(
        ("document", "kind", "status", "retryable"),
        [
            ({"error": {"message": "m", "type": "rate_limit_error"}}, RateLimited, 429, True),
            ({"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}}, RateLimited, 429, True),
            ({"error": {"message": "m", "code": "insufficient_quota"}}, RateLimited, 429, False),
            ({"error": {"message": "m", "type": "overloaded_error"}}, Overloaded, 529, True),
            ({"error": {"message": "m", "type": "authentication_error"}}, AuthenticationError, 401, False),
            ({"error": {"message": "m", "code": "invalid_api_key"}}, AuthenticationError, 401, False),
            ({"error": {"message": "m", "type": "invalid_request_error"}}, BadRequest, 400, False),
            ({"error": {"message": "m", "type": "BadRequestError", "code": 400}}, BadRequest, 400, False),
            ({"error": {"message": "m", "type": "server_error", "code": None}}, ProviderError, 500, True),
            ({"error": {"message": "m", "code": 502}}, ProviderError, 502, True),
            ({"error": {"message": "m"}, "message": "other"}, ProviderError, None, False),
            ({"error": "m"}, ProviderError, None, False),
            ({"object": "error", "message": "m", "type": "NotFoundError", "code": 404}, BadRequest, 404, False),
            ([{"error": {"message": "m", "code": 429}}], RateLimited, 429, True),
            ({"error": {"message": "m", "type": "internal_error"}}, ProviderError, 500, True),
            ({"error": {"message": "m", "type": "InternalError"}}, ProviderError, 500, True),
            ({"error": {"message": "m", "status": "INTERNAL"}}, ProviderError, 500, True),
            ({"error": {"message": "m", "status": "RESOURCE_EXHAUSTED"}}, RateLimited, 429, True),
            ({"error": {"message": "m", "status": "UNAVAILABLE"}}, Overloaded, 503, True),
            ({"error": {"message": "m", "code": "slow_down"}}, Overloaded, 503, True),
            ({"error": {"message": "m", "code": "deadline_exceeded"}}, ProviderError, 504, True),
            ({"error": {"message": "m", "type": "service_tier_capacity_exceeded"}}, Overloaded, 529, True),
            ({"error": {"message": "m", "code": "credits_exhausted"}}, ProviderError, None, False),
        ],
    )
    def test_error_frames_raise_by_what_they_say(self, document, kind, status, retryable):
        """In a stream the HTTP status was 200: type and code decide."""
        heard = Heard(frame({"content": "a"}), json.dumps(document).encode(), b"[DONE]")
        error = heard.failure
        assert (kind, "m", status, retryable) == (type(error), str(error), error.status, error.retryable)
        assert not heard.complete

    @pytest.mark.parametrize("place", ["frame", "choice"])
    def test_content_beside_an_error_is_emitted_first(self, place):
        """OpenRouter sends errors in a frame with content; a finish reason before it does not make the answer whole."""
        error = {"code": 400, "message": "m"}
        choice = {"delta": {"content": "b"}, "finish_reason": "length"}
        last = {"choices": [choice], "error": error} if place == "frame" else {"choices": [{**choice, "error": error}]}
        heard = Heard(frame({"content": "a"}), json.dumps(last).encode())
        assert ("ab", "length", False) == (heard.message.text, heard.message.finish_reason, heard.complete)
        assert isinstance(heard.failure, BadRequest)

    @pytest.mark.parametrize(
        ("code", "kind", "status", "retryable"),
        [
            (1000, ProviderError, 500, True),
            (1001, ProviderError, 504, True),
            (1002, RateLimited, 429, True),
            (1004, AuthenticationError, 401, False),
            (1008, ProviderError, 402, False),
            (1026, BadRequest, 400, False),
            (9999, ProviderError, None, False),
        ],
    )
    def test_code_of_minimax_tells_the_status(self, code, kind, status, retryable):
        """MiniMax sends the HTTP status 200 and its own code."""
        document = {"choices": None, "base_resp": {"status_code": code, "status_msg": "m"}}
        error = OpenAI("x")._error(200, json.dumps(document).encode(), {})
        assert (kind, "m", status, str(code), retryable) == (
            type(error),
            str(error),
            error.status,
            error.code,
            error.retryable,
        )

    def test_message_tells_that_the_balance_is_spent(self):
        """A retry does not help, although the status is that of a rate limit."""
        body = json.dumps({"error": {"message": "Insufficient balance. Please recharge."}}).encode()
        assert not OpenAI("x")._error(429, body, {}).retryable

    def test_finish_reason_error_is_an_error(self):
        """Mistral ends a failed answer so; its content is emitted first."""
        heard = Heard(frame({"content": "a"}, finish="error"))
        assert ("a", "error", False) == (heard.message.text, heard.message.finish_reason, heard.complete)
        assert (ProviderError, True) == (type(heard.failure), heard.failure.retryable)

    @pytest.mark.parametrize(
        ("status", "code", "headers", "retryable"),
        [
            (408, "x", {}, True),
            (409, "x", {}, True),
            (429, "rate_limit_exceeded", {}, True),
            (429, "insufficient_quota", {}, False),
            (429, "insufficient_quota", {"x-should-retry": "true"}, False),
            (429, "exceeded_current_quota_error", {}, False),  # Moonshot
            (429, "1113", {}, False),  # Z.ai
            (429, "1302", {}, True),  # Z.ai: a rate limit
            (500, "x", {}, True),
            (503, "x", {"X-Should-Retry": "false"}, False),
            (400, "x", {}, False),
            (400, "x", {"x-should-retry": "true"}, True),
        ],
    )
    def test_retryable_errors(self, status, code, headers, retryable):
        """The status decides, a header of the provider overrides it, and an empty account overrides both."""
        body = json.dumps({"error": {"message": "m", "code": code}}).encode()
        error = OpenAI("x")._error(status, body, headers)
        assert (ProviderError.class_for_status(status), status, code, retryable, body.decode()) == (
            type(error),
            error.status,
            error.code,
            error.retryable,
            error.body,
        )

    @pytest.mark.parametrize(
        "body",
        [
            b"event: error\ndata: %b\n\n",
            b"\xef\xbb\xbfid:1\r\nevent:error\r\n:HTTP_STATUS/429\r\ndata:%b",
            b": ping\n\nevent: ping\ndata: {}\n\ndata: %b\n\ndata: [DONE]\n\n",
        ],
    )
    @pytest.mark.parametrize(
        "document", [{"error": {"message": "m", "code": "quota"}}, {"message": "m", "code": "quota"}]
    )
    def test_error_response_may_be_an_event_stream(self, body, document):
        """The document is the data of the event, and `body` stays as it came."""
        body %= json.dumps(document).encode()
        error = OpenAI("x")._error(429, body, {})
        assert (RateLimited, "m (HTTP 429)", "quota") == (type(error), str(error), error.code)
        assert body.decode() == error.body

    def test_spent_quota_in_an_event_stream_is_not_retryable(self):
        """The words of the document decide as they do without the event."""
        body = b'event: error\ndata: {"error":{"message":"m","code":"insufficient_quota"}}\n\n'
        assert OpenAI("x")._error(429, body, {}).retryable is False

    @pytest.mark.parametrize("body", [b"data: busy\n\n", b"data: {}\n\n", b"data: [DONE]\n\n", b"<p>data: x</p>"])
    def test_body_of_an_error_without_a_document_is_its_message(self, body):
        """An event that states no error tells no more than its bytes."""
        error = OpenAI("x")._error(503, body, {})
        assert (Overloaded, f"{body.decode().strip()} (HTTP 503)", None) == (type(error), str(error), error.code)

    def test_file_that_the_model_cannot_read_is_a_bad_request(self):
        """llama.cpp sends the status 500 for it; another attempt would fail, too."""
        body = b'{"error":{"code":500,"message":"image input is not supported - hint: \xe2","type":"server_error"}}'
        error = OpenAI("x")._error(500, body, {})
        assert (BadRequest, 500, False) == (type(error), error.status, error.retryable)

    def test_spend_limit_is_not_retryable(self):
        """It is a 429 that time does not lift."""
        body = b'{"error":{"message":"You reached your monthly spend limit.","type":"requests"}}'
        assert OpenAI("x")._error(429, body, {}).retryable is False

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "2"}, 2),
            ({"Retry-After": "1.5"}, 1.5),
            ({"retry-after": "2", "retry-after-ms": "250"}, 0.25),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "-1"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ],
    )
    def test_retry_after_is_read(self, headers, seconds):
        """retry-after-ms beats retry-after, and a date in the past is 0."""
        assert seconds == OpenAI("x")._error(429, b"", headers).retry_after

    def test_retry_after_may_be_a_date(self):
        """retry-after may be an HTTP date."""
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        assert OpenAI("x")._error(503, b"", {"retry-after": date}).retry_after == pytest.approx(60, abs=5)

    @pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b'"no"', b'{"detail":[{"loc":1}]}'])
    def test_any_body_is_an_error(self, body):
        """The message contains the beginning of a body that is not an error document."""
        assert "HTTP 502" in str(OpenAI("x")._error(502, body, {}))


class TestWhole:
    """Answers at once."""

    def test_a_whole_answer_is_one_chunk(self):
        """The same answer, streamed or not, is the same message."""
        message = {
            "role": "assistant",
            "content": "a",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
        document = {
            "id": "chatcmpl-1",
            "model": "m-1",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        }
        whole = OpenAI("x", api="chat")._whole(json.dumps(document).encode(), asked())
        usage = {"prompt_tokens": 1, "completion_tokens": 2}
        streamed = Heard(
            frame({"reasoning_content": "hm"}),
            frame({"content": "a"}),
            calls(fragment(name="f", id="c", index=0)),
            calls(fragment("{}", index=0)),
            frame(finish="tool_calls", usage=usage),
        )
        assert streamed.message == whole.message()

    def test_a_whole_completion(self):
        """The older protocol's answer has its text in the choice."""
        body = b'{"id":"c","model":"d","choices":[{"text":"a","finish_reason":"stop"}]}'
        expected = Chunk("a", id="c", model="d", finish_reason="stop", raw_finish_reason="stop")
        assert expected == OpenAI("x", api="chat")._whole(body, asked())

    def test_an_error_with_status_200_raises(self):
        """An error is one whatever its status; what came with it is its partial."""
        with pytest.raises(RateLimited):
            OpenAI("x", api="chat")._whole(b'{"error":{"message":"m","code":429}}', asked())
        body = b'{"choices":[{"message":{"content":"a"},"error":{"code":502,"message":"m"}}]}'
        with pytest.raises(ProviderError) as caught:
            OpenAI("x", api="chat")._whole(body, asked())
        assert Message("assistant", "a") == caught.value.partial

    @pytest.mark.parametrize(
        ("choices", "sentence"),
        [
            ("null", "it has no choices"),
            ("[]", "it has no choices"),
            ("[null]", "its choice has no message"),
            ("[{}]", "its choice has no message"),
            ('[{"message":null,"finish_reason":"stop"}]', "its choice has no message"),
            ('[{"text":null,"finish_reason":"stop"}]', "its choice has no message"),
            ('[{"message":5}]', "Expected `object"),
        ],
    )
    def test_answer_without_a_message_is_a_protocol_error(self, choices, sentence):
        """It is not an empty answer; the error's frame is the body."""
        body = b'{"id":"c","choices":%s,"usage":{"prompt_tokens":1}}' % choices.encode()
        with pytest.raises(ProtocolError, match=f"not a chat completion.*{sentence}") as caught:
            OpenAI("x", api="chat")._whole(body, asked())
        assert body == caught.value.frame

    @pytest.mark.parametrize("choice", ['{"message":{"content":""}}', '{"message":{}}', '{"text":""}'])
    def test_empty_message_is_a_whole_answer(self, choice):
        """A model may have nothing to say."""
        assert "" == OpenAI("x", api="chat")._whole(b'{"choices":[%s]}' % choice.encode(), asked()).text

    @pytest.mark.parametrize("finish", ["", ',"finish_reason":null', ',"finish_reason":""'])
    def test_a_whole_answer_needs_no_finish_reason(self, finish):
        """Some servers never send one, and a document that could be read is whole."""
        body = b'{"choices":[{"message":{"content":"a"}%s}]}' % finish.encode()
        assert Chunk("a") == OpenAI("x", api="chat")._whole(body, asked())

    @pytest.mark.parametrize("body", [b"", b"data: {}", b"{}", b"[]"])
    def test_other_bodies_are_protocol_errors(self, body):
        """A body that is not an answer raises an error instead of giving an empty answer."""
        with pytest.raises(ProtocolError):
            OpenAI("x", api="chat")._whole(body, asked())


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        (None, "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://mine.openai.azure.com/openai/v1", "azure.ai.openai"),
        ("https://api.x.ai/v1", "x_ai"),
        ("https://example-x.ai/v1", "openai"),
        (LOCAL, "openai"),
    ],
)
def test_events_name_the_provider(base_url, provider):
    """By the host if rxllm knows it, else by the protocol."""
    assert provider == OpenAI("m", base_url=base_url).service(Request(prompt="hi")).provider
