"""Amazon Bedrock: the contract of a provider, the requests, the signatures, and the decoding of the events."""

import base64
import hashlib
import hmac
import json
import re
from urllib.parse import quote

import pytest
from contracts import ProtocolContract
from protocols import SIGNATURE, Converse, ToolCall, aws_event, split_every

import rxllm
from rxllm import (
    Bedrock,
    CachePoint,
    FilePart,
    Message,
    MisuseError,
    RawPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from rxllm.errors import AuthenticationError, Interrupted, Overloaded, ProtocolError, ProviderError, RateLimited
from rxllm.testing import FakeServer, Reply

KEY = "sk-do-not-show-this-to-anybody"
STREAM = "application/vnd.amazon.eventstream"
MAKER = "aws.bedrock"
PROTOCOL = Converse()


def create_model(server, model="m", **settings):
    """Return a model at this server, without retries."""
    url = server if isinstance(server, str) else server.url
    return Bedrock(model, **{"base_url": url, "api_key": KEY, "max_retries": 0, **settings})


def streamed(*events):
    """A reply of these events."""
    return Reply(events, content_type=STREAM)


def body_of(prompt, model="m", **parameters):
    """Return the body of the request."""
    request = rxllm.Request.ask(prompt, rxllm.Parameters(**parameters))
    return create_model("http://localhost", model)._body(request)


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
    content_type = STREAM

    def provider(self, url):
        """Return a model at this URL."""
        return create_model(url)


def test_answer_of_each_kind_of_part(server):
    """Reasoning with its signature, text and a call come in their order, streamed and whole."""
    answer = {"reasoning": ["Let me", " see"], "text": ["I", "'ll look"], "tool_call": ToolCall()}
    server.reply(streamed(*PROTOCOL.stream(**answer)), Reply.json(PROTOCOL.whole(**answer)))
    for stream in (True, False):
        message = create_model(server).invoke("hi", stream=stream)
        thought, text, call = message.parts
        assert ("Let me see", SIGNATURE, MAKER) == (thought.text, thought.signature, thought.provider)
        assert TextPart("I'll look") == text
        assert ("call_1", "get_weather", {"city": "Paris"}) == (call.id, call.name, json.loads(call.arguments))
        assert ("tool_call", "tool_use", MAKER) == (message.finish_reason, message.raw_finish_reason, message.provider)
        assert Usage(input_tokens=3, output_tokens=5) == message.usage


def test_model_id_is_one_segment_of_the_path(server):
    """Its colon and slashes are percent-encoded, and stay so on their way."""
    server.reply(streamed(*PROTOCOL.stream(["a"])), Reply.json(PROTOCOL.whole(["a"])))
    create_model(server, "anthropic.claude-v1:0").invoke("hi")
    create_model(server, "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x-v1:0").invoke("hi", stream=False)
    encoded = quote("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x-v1:0", safe="")
    assert ["/model/anthropic.claude-v1%3A0/converse-stream", f"/model/{encoded}/converse"] == [
        request.path for request in server.requests
    ]
    assert [STREAM, "application/json"] == [request.headers["accept"] for request in server.requests]


@pytest.mark.parametrize(
    ("settings", "variables", "expected"),
    [
        ({"region": "eu-west-1"}, {"AWS_REGION": "us-east-1"}, "https://bedrock-runtime.eu-west-1.amazonaws.com/"),
        (
            {},
            {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "x"},
            "https://bedrock-runtime.us-east-1.amazonaws.com/",
        ),
        ({}, {"AWS_DEFAULT_REGION": "us-west-2"}, "https://bedrock-runtime.us-west-2.amazonaws.com/"),
        ({}, {"AWS_REGION": "cn-north-1"}, "https://bedrock-runtime.cn-north-1.amazonaws.com.cn/"),
        ({}, {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://localhost:1/a/"}, "http://localhost:1/a/"),
        ({"base_url": "http://localhost:2"}, {"AWS_REGION": "us-east-1"}, "http://localhost:2/"),
    ],
)
def test_region_and_address_are_read_from_arguments_then_the_environment(monkeypatch, settings, variables, expected):
    """The arguments win."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert f"{expected}model/m/converse-stream" == Bedrock("m", **settings)._url(rxllm.Request.ask("hi"))


def test_missing_region_is_a_sentence(monkeypatch):
    """Before anything is sent."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MisuseError, match="AWS_REGION"):
        Bedrock("m", api_key="k").invoke("hi")
    with pytest.raises(MisuseError, match="us-east-1"):
        Bedrock("m", api_key="k", region="evil.example/").invoke("hi")


def event(index, **fields):
    """One frame of a block."""
    name = (
        "contentBlockDelta" if "delta" in fields else "contentBlockStart" if "start" in fields else "contentBlockStop"
    )
    return aws_event(name, {"contentBlockIndex": index, **fields})


CITATION = {"title": "Seas", "location": {"documentChar": {"documentIndex": 0, "start": 1, "end": 9}}}
SERVED = {"toolUseId": "s1", "name": "nova_code_interpreter", "type": "server_tool_use"}
RESULT = {"toolUseId": "s1", "status": "success", "type": "nova_code_interpreter_result"}
RICH = [
    aws_event("messageStart", {"role": "assistant"}),
    event(0, delta={"reasoningContent": {"redactedContent": base64.b64encode(b"red").decode()}}),
    event(0, delta={"reasoningContent": {"redactedContent": base64.b64encode(b"acted").decode()}}),
    event(0),
    event(1, start={"toolUse": SERVED}),
    event(1, delta={"toolUse": {"input": '{"code":'}}),
    event(1, delta={"toolUse": {"input": '"1+1"}'}}),
    event(1),
    event(2, start={"toolResult": RESULT}),
    event(2, delta={"toolResult": [{"json": {"stdOut": "2"}}]}),
    event(3, delta={"text": "Two"}),
    event(3, delta={"text": ", I say"}),
    event(4, delta={"text": ". Seas"}),
    event(4, delta={"citation": CITATION}),
    event(5, start={"image": {"format": "png"}}),
    event(5, delta={"image": {"source": {"bytes": "AQI="}}}),
    event(5),
    event(6, start={"toolUse": {"toolUseId": "c1", "name": "now"}}),
    event(6),
    event(7, start={"toolUse": {"toolUseId": "c2", "name": "look"}}),
    event(7, delta={"toolUse": {"input": '{"at": "sea"}'}}),
    aws_event("somethingNew", {"p": "abc"}),
    aws_event("messageStop", {"stopReason": "tool_use"}),
    aws_event(
        "metadata",
        {
            "usage": {"inputTokens": 5, "outputTokens": 7, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20},
            "trace": {"promptRouter": {"invokedModelId": "arn:of-the-model"}},
        },
    ),
]
BLOCKS = [
    {"reasoningContent": {"redactedContent": base64.b64encode(b"redacted").decode()}},
    {"toolUse": {**SERVED, "input": {"code": "1+1"}}},
    {"toolResult": {**RESULT, "content": [{"json": {"stdOut": "2"}}]}},
    {"text": "Two, I say"},
    {"citationsContent": {"content": [{"text": ". Seas"}], "citations": [CITATION]}},
    {"image": {"format": "png", "source": {"bytes": "AQI="}}},
    {"toolUse": {"toolUseId": "c1", "name": "now", "input": {}}},
    {"toolUse": {"toolUseId": "c2", "name": "look", "input": {"at": "sea"}}},
]


def test_every_kind_of_block_comes_and_goes_back(server):
    """Streamed however it is cut, and whole; the next request has the same blocks in the same order."""
    usage = {"inputTokens": 5, "outputTokens": 7, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    trace = {"promptRouter": {"invokedModelId": "arn:of-the-model"}}
    output = {"message": {"role": "assistant", "content": BLOCKS}}
    whole = {"output": output, "stopReason": "tool_use", "usage": usage, "trace": trace}
    body = b"".join(RICH)
    server.reply(streamed(*RICH), streamed(*split_every(11, body)), streamed(body), Reply.json(whole))
    answers = [create_model(server).invoke("hi", stream=stream) for stream in (True, True, True, False)]
    facts = {(m.text, m.usage, m.model, m.finish_reason) for m in answers}
    counts = Usage(input_tokens=125, output_tokens=7, cache_read_input_tokens=100, cache_creation_input_tokens=20)
    assert {("Two, I say. Seas", counts, "arn:of-the-model", "tool_call")} == facts
    for answer in answers:
        results = Message("tool", [ToolResultPart("c1", "noon"), ToolResultPart("c2", "wet")])
        tools = [rxllm.ToolSpec("now"), rxllm.ToolSpec("look")]
        assert BLOCKS == body_of([("user", "hi"), answer, results], tools=tools)["messages"][1]["content"]


def test_a_call_may_state_its_type(server):
    """Nova and Claude state ``tool_use``, which AWS does not document and does not get back."""
    call = {"toolUseId": "c1", "name": "now", "type": "tool_use"}
    end = aws_event("messageStop", {"stopReason": "tool_use"})
    content = {"message": {"role": "assistant", "content": [{"toolUse": {**call, "input": {"a": 1}}}]}}
    server.reply(
        streamed(event(0, start={"toolUse": call}), event(0, delta={"toolUse": {"input": '{"a":1}'}}), event(0), end),
        Reply.json({"output": content, "stopReason": "tool_use"}),
    )
    for stream in (True, False):
        answer = create_model(server).invoke("hi", stream=stream)
        assert [("c1", "now", '{"a":1}')] == [(each.id, each.name, each.arguments) for each in answer.tool_calls]
        results = Message("tool", [ToolResultPart("c1", "noon")])
        sent = body_of([("user", "hi"), answer, results], tools=[rxllm.ToolSpec("now")])["messages"][1]["content"]
        assert [{"toolUse": {"toolUseId": "c1", "name": "now", "input": {"a": 1}}}] == sent


def test_input_of_a_server_tool_is_an_object(server):
    """Also one that broke off, because the next request sends it back."""
    for piece, expected in (("", {}), ('{"a":', {"INVALID_JSON": '{"a":'})):
        deltas = [event(0, delta={"toolUse": {"input": piece}})]
        end = aws_event("messageStop", {"stopReason": "max_tokens"})
        server.reply(streamed(event(0, start={"toolUse": SERVED}), *deltas, event(0), end))
        (part,) = create_model(server).invoke("hi").parts
        assert expected == part.data["toolUse"]["input"]


EXCEPTIONS = [
    ("throttlingException", {}, RateLimited, True),
    ("serviceUnavailableException", {}, Overloaded, True),
    ("internalServerException", {}, ProviderError, True),
    ("validationException", {}, rxllm.BadRequest, False),
    ("modelStreamErrorException", {}, ProviderError, True),
    ("modelStreamErrorException", {"originalStatusCode": 429}, RateLimited, True),
    ("modelStreamErrorException", {"originalStatusCode": 400}, rxllm.BadRequest, False),
    ("accessDeniedException", {}, AuthenticationError, False),
]


@pytest.mark.parametrize(("name", "fields", "kind", "retryable"), EXCEPTIONS)
def test_exception_in_the_stream_raises_its_error(server, name, fields, kind, retryable):
    """By its name, with the partial answer."""
    told = aws_event(name, {"message": "Sorry", **fields}, "exception")
    server.reply(streamed(*PROTOCOL.stream(["Hel"])[:2], told))
    with pytest.raises(ProviderError, match="Sorry") as caught:
        create_model(server).invoke("hi")
    error = caught.value
    assert (kind, name, retryable, "Hel") == (type(error), error.code, error.retryable, error.partial.text)


def test_header_names_the_exception(server):
    """With or without an address behind the name."""
    headers = {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/coral/"}
    server.reply(Reply.json({"Message": "Slow down"}, status=429, headers=headers))
    with pytest.raises(RateLimited, match="Slow down") as caught:
        create_model(server).invoke("hi")
    assert "ThrottlingException" == caught.value.code


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_answer_that_the_service_broke_off_is_an_error(server, reason):
    """With the partial answer, streamed and whole."""
    events = [*PROTOCOL.stream(["Hel"])[:3], aws_event("messageStop", {"stopReason": reason})]
    whole = {"output": {"message": {"content": [{"text": "Hel"}]}}, "stopReason": reason}
    server.reply(streamed(*events), Reply.json(whole))
    for stream in True, False:
        with pytest.raises(ProviderError, match=reason) as caught:
            create_model(server).invoke("hi", stream=stream)
        assert "Hel" == caught.value.partial.text


def test_stream_without_its_end(server):
    """Cut between two frames or within one it is interrupted; after the reason only the usage is missing."""
    frames = PROTOCOL.stream(["Hel", "lo"])
    for cut in (b"".join(frames[:-2]), b"".join(frames)[: -len(frames[-1]) - 5]):
        server.reply(Reply(cut, content_type=STREAM))
        with pytest.raises(Interrupted) as caught:
            create_model(server).invoke("hi")
        assert "Hello" == caught.value.partial.text
    server.reply(streamed(*frames[:-1]))
    assert ("Hello", None) == ((answer := create_model(server).invoke("hi")).text, answer.usage)


def test_damaged_frame_ends_the_stream(server):
    """The error keeps the partial answer."""
    frames = PROTOCOL.stream(["Hel", "lo"])
    server.reply(streamed(*frames[:2], frames[2][:-1] + b"\0"))
    with pytest.raises(ProtocolError, match="checksum") as caught:
        create_model(server).invoke("hi")
    assert "Hel" == caught.value.partial.text


TOOL = rxllm.ToolSpec("now", "The time", strict=True)
TOLD = {
    "toolSpec": {"name": "now", "description": "The time", "strict": True, "inputSchema": {"json": TOOL.parameters}}
}
SCHEMA = {"type": "object", "properties": {}}
FORM = {"schema": '{"type":"object","properties":{}}', "name": "answer"}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["a"]},
            {"inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["a"]}},
        ),
        ({"tools": [TOOL]}, {"toolConfig": {"tools": [TOLD]}}),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"toolConfig": {"tools": [TOLD], "toolChoice": {"auto": {}}}}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"toolConfig": {"tools": [TOLD], "toolChoice": {"any": {}}}}),
        (
            {"tools": [TOOL], "tool_choice": "now"},
            {"toolConfig": {"tools": [TOLD], "toolChoice": {"tool": {"name": "now"}}}},
        ),
        ({"tools": [TOOL], "tool_choice": "none"}, {}),
        ({"effort": "high"}, {"outputConfig": {"effort": "high"}}),
        ({"effort": "none"}, {"additionalModelRequestFields": {"thinking": {"type": "disabled"}}}),
        ({"top_k": 3}, {"additionalModelRequestFields": {"top_k": 3}}),
        (
            {"response_format": SCHEMA},
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": FORM}}}},
        ),
        (
            {
                "max_tokens": 9,
                "extra": {"inferenceConfig": {"topP": 0.5}, "performanceConfig": {"latency": "optimized"}},
            },
            {"inferenceConfig": {"maxTokens": 9, "topP": 0.5}, "performanceConfig": {"latency": "optimized"}},
        ),
    ],
)
def test_parameters_have_the_names_of_the_api(parameters, expected):
    """Fields of `extra` join those of rxllm."""
    plain = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    assert {**plain, **expected} == body_of("hi", "eu.anthropic.claude-x-v1:0", **parameters)


def test_conversation_with_files_and_marks():
    """Turns of one role are one; names of documents are made valid and unique; marks stand where they are put."""
    pdf, csv = FilePart("application/pdf", b"1", name="a_b/c.pdf"), FilePart("text/csv", b"2", title="a b c pdf")
    told = body_of(
        [
            Message("system", ["Be brief.", CachePoint("1h")]),
            Message(
                "user", ["Look", pdf, csv, FilePart("image/jpeg", b"3"), FilePart("video/mp4", url="s3://b/v.mp4")]
            ),
            Message("user", [FilePart("audio/x-wav", b"4"), CachePoint()]),
            Message("assistant", [TextPart(" \n"), ToolCallPart("a/b", "now", "no json")]),
            Message("tool", [ToolResultPart("a/b", [TextPart("Bad"), FilePart("image/png", b"5")], outcome="error")]),
        ],
        tools=[TOOL],
    )
    assert [{"text": "Be brief."}, {"cachePoint": {"type": "default", "ttl": "1h"}}] == told["system"]
    asked, called, result = told["messages"]
    assert [
        {"text": "Look"},
        {"document": {"format": "pdf", "source": {"bytes": "MQ=="}, "name": "a b c pdf"}},
        {"document": {"format": "csv", "source": {"bytes": "Mg=="}, "name": "a b c pdf (2)"}},
        {"image": {"format": "jpeg", "source": {"bytes": "Mw=="}}},
        {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://b/v.mp4"}}}},
        {"audio": {"format": "wav", "source": {"bytes": "NA=="}}},
        {"cachePoint": {"type": "default"}},
    ] == asked["content"]
    [call] = called["content"]
    identity = call["toolUse"]["toolUseId"]
    assert re.fullmatch("[a-zA-Z0-9_.:-]{1,64}", identity)
    assert {"toolUseId": identity, "name": "now", "input": {"INVALID_JSON": "no json"}} == call["toolUse"]
    image = {"image": {"format": "png", "source": {"bytes": "NQ=="}}}
    assert [{"toolResult": {"toolUseId": identity, "content": [{"text": "Bad"}, image], "status": "error"}}] == (
        result["content"]
    )


def test_cache_point_at_the_end_of_a_result_comes_after_it():
    """The API has none within a result."""
    answer = Message("assistant", [ToolCallPart("c1", "now", "{}")])
    told = body_of([("user", "hi"), answer, ("tool", [ToolResultPart("c1", ["a", CachePoint("1h")])])], tools=[TOOL])
    result = {"toolResult": {"toolUseId": "c1", "content": [{"text": "a"}]}}
    assert [result, {"cachePoint": {"type": "default", "ttl": "1h"}}] == told["messages"][-1]["content"]
    between = Message("tool", [ToolResultPart("c1", ["a", CachePoint(), "b"])])
    with pytest.raises(MisuseError, match="Put it at the end"):
        body_of([("user", "hi"), answer, between], tools=[TOOL])


@pytest.mark.parametrize("before", [[], [TextPart("One.")]])
def test_cache_point_never_follows_reasoning(before):
    """Claude rejects it there. It stands before the reasoning; without a block before it is left out."""
    parts = [
        *before,
        ReasoningPart("hm", "sig", provider=MAKER),
        TextPart("\n"),
        CachePoint(),
        ToolCallPart("c", "now"),
    ]
    told = body_of([Message("user", "hi"), Message("assistant", parts), ("user", "why?")], tools=[TOOL])
    kinds = [kind for block in told["messages"][1]["content"] for kind in block]
    assert [*(["text", "cachePoint"] if before else []), "reasoningContent", "toolUse"] == kinds


@pytest.mark.parametrize(("outcome", "content"), [("ok", []), ("error", [{"text": "The tool gave no details."}])])
def test_result_has_no_blank_text(outcome, content):
    """The API rejects a blank text, and Claude an error without content."""
    prompt = [*CALLED[:2], Message("tool", [ToolResultPart("c1", " \n", outcome)])]
    assert content == body_of(prompt, tools=[TOOL])["messages"][-1]["content"][0]["toolResult"]["content"]


def test_reasoning_that_broke_off_is_left_out():
    """It has no signature; whole answers of models that sign nothing keep theirs."""
    thought = ReasoningPart("Hm", provider=MAKER)
    turns = [Message("assistant", [thought, TextPart("a")], finish_reason=reason) for reason in (None, "stop")]
    whole = {"reasoningContent": {"reasoningText": {"text": "Hm"}}}
    assert [[{"text": "a"}], [whole, {"text": "a"}]] == [
        body_of([("user", "hi"), turn])["messages"][1]["content"] for turn in turns
    ]


def test_answer_of_reasoning_alone_does_not_go_back():
    """New models of Claude reject it."""
    redacted = RawPart(MAKER, {"reasoningContent": {"redactedContent": "eA=="}})
    answer = Message("assistant", [ReasoningPart("Hm", "signed", provider=MAKER), redacted])
    turns = body_of([("user", "hi"), answer, ("user", "and?")])["messages"]
    assert [("user", 2)] == [(turn["role"], len(turn["content"])) for turn in turns]


def test_reasoning_does_not_go_back_to_deepseek_r1():
    """The model rejects its own reasoning."""
    answer = Message("assistant", [ReasoningPart("Hm", provider=MAKER), TextPart("a")], finish_reason="stop")
    body = body_of([("user", "hi"), answer, ("user", "and?")], model="us.deepseek.r1-v1:0")
    assert [{"text": "a"}] == body["messages"][1]["content"]


CALLED = [
    ("user", "hi"),
    Message("assistant", [ToolCallPart("c1", "now", "{}")]),
    Message("tool", [ToolResultPart("c1", "a")]),
]


@pytest.mark.parametrize(
    ("prompt", "parameters", "sentence"),
    [
        ("hi", {"seed": 1}, "no seed"),
        ("hi", {"top_k": 1}, "no top_k"),
        ("hi", {"effort": "none"}, "cannot switch off the reasoning"),
        ("hi", {"effort": "minimal"}, "efforts"),
        ("hi", {"response_format": "json"}, "schema"),
        ("hi", {"tools": [TOOL], "parallel_tool_calls": False}, "parallel"),
        ("hi", {"tools": [{"type": "web_search_20250305", "name": "w"}]}, "another provider"),
        (CALLED, {}, "tools="),
        (CALLED, {"tools": [TOOL], "tool_choice": "none"}, "no tool_choice 'none'"),
        ([Message("user", [FilePart("image/png", url="https://x/y")])], {}, "s3://"),
        ([Message("user", [FilePart("image/png", file_id="f")])], {}, "stores no files"),
        ([Message("user", [FilePart("image/tiff", b"1")])], {}, "tiff"),
        ([Message("user", [FilePart("application/pdf", b"1")])], {}, "document only"),
        ([Message("assistant", [FilePart("audio/wav", b"1")])], {}, "audio/wav"),
        ([Message("user", [RawPart("openai", {"type": "input_image"})])], {}, "RawPart"),
        ([Message("user")], {}, "at least one message"),
    ],
)
def test_what_bedrock_cannot_do_is_refused(prompt, parameters, sentence):
    """Before anything is sent."""
    with pytest.raises(MisuseError, match=sentence):
        body_of(prompt, **parameters)


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


def signature_of(request, secret, region):
    """Return the signature that AWS would compute for a received request, by the description of version 4."""
    scheme, *fields = re.split(r",? ", request.headers["authorization"])
    told = dict(field.split("=", 1) for field in fields)
    names = told["SignedHeaders"].split(";")
    path = quote(request.path, safe="/~")
    canonical = "\n".join(
        [
            "POST",
            path,
            "",
            *(f"{name}:{request.headers[name]}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    moment = request.headers["x-amz-date"]
    scope = f"{moment[:8]}/{region}/bedrock/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    expected = hmac.new(key, f"{scheme}\n{moment}\n{scope}\n{hashed}".encode(), "sha256").hexdigest()
    return told["Signature"], expected


@pytest.fixture
def credentials(monkeypatch, tmp_path):
    """AWS credentials of the environment alone."""
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return tmp_path


@pytest.mark.parametrize("stream", [True, False])
def test_request_is_signed_with_the_credentials_of_the_environment(server, credentials, stream):
    """AWS computes the same signature from the received request; each attempt is signed."""
    reply = streamed(*PROTOCOL.stream(["a"])) if stream else Reply.json(PROTOCOL.whole(["a"]))
    server.reply(Reply.json({}, status=503), reply)
    llm = Bedrock("anthropic.claude-v1:0", base_url=server.url, max_retries=1)
    assert "a" == llm.invoke("hé", stream=stream).text
    for request in server.requests:
        sent, expected = signature_of(request, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-1")
        assert expected == sent
        assert "a-session-token" == request.headers["x-amz-security-token"]
        assert "Credential=AKIDEXAMPLE/" in request.headers["authorization"]


def test_request_is_signed_with_a_profile(server, credentials, monkeypatch):
    """The profile's credentials win over those of the environment."""
    (credentials / "credentials").write_text(
        "[work]\naws_access_key_id = AKIDWORK\naws_secret_access_key = work-secret\n", "utf-8"
    )
    server.reply(streamed(*PROTOCOL.stream(["a"])))
    Bedrock("m", base_url=server.url, max_retries=0, profile="work").invoke("hi")
    [request] = server.requests
    assert len({*signature_of(request, "work-secret", "eu-west-1")}) == 1


def test_signed_requests_show_no_secret(server, credentials):
    """The error of a server that echoes the request contains neither the token nor the signature."""
    server.reply(lambda request: Reply.json({"message": json.dumps(dict(request.headers))}, status=400))
    with pytest.raises(rxllm.BadRequest) as caught:
        Bedrock("m", base_url=server.url, max_retries=0).invoke("hi")
    shown = f"{caught.value} {caught.value.body}"
    sent = re.search("Signature=([0-9a-f]+)", server.requests[0].headers["authorization"])[1]
    assert [] == [secret for secret in (sent, "a-session-token") if secret in shown]


def test_missing_credentials_are_a_sentence(server, credentials, monkeypatch):
    """The message names the environment variables, and nothing is sent."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    for settings in {}, {"profile": "nobodys"}:
        with pytest.raises(MisuseError, match="AWS_BEARER_TOKEN_BEDROCK"):
            Bedrock("m", base_url=server.url, max_retries=0, **settings).invoke("hi")
    assert [] == server.requests


def test_missing_extra_is_named(server, credentials, monkeypatch):
    """Without botocore and without a key, the sentence names both ways out."""
    monkeypatch.setattr("rxllm.providers.bedrock.has_botocore", lambda: False)
    with pytest.raises(MisuseError, match=r"rxllm\[bedrock\]"):
        Bedrock("m", base_url=server.url, max_retries=0).invoke("hi")
    assert [] == server.requests


def test_cached_asks_for_a_name_when_credentials_sign(credentials):
    """A key has a digest; credentials have none."""
    with pytest.raises(MisuseError, match="name="):
        Bedrock("m", base_url="http://localhost").identity()
    keys = [Bedrock("m", base_url="http://localhost", api_key=key).identity() for key in ("a", "b", "b")]
    assert 2 == len({*keys})


def test_results_of_tools_come_before_the_other_content_of_a_turn():
    """Claude refuses a text before a result. A cache point stays after its result."""
    answer = Message("assistant", [ToolCallPart("c1", "now", "{}")])
    said = Message("user", [TextPart("And?"), ToolResultPart("c1", ["a", CachePoint()])])
    content = body_of([("user", "hi"), answer, said], tools=[TOOL])["messages"][-1]["content"]
    assert ["toolResult", "cachePoint", "text"] == [kind for block in content for kind in block]
