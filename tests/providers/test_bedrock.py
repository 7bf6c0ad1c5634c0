"""Amazon Bedrock: the contract of a provider, its requests, its signatures, and what its events become."""

import json
from urllib.parse import quote

import pytest
from protocols import SIGNATURE, Converse, ToolCall

import rxllm
from rxllm import (
    Bedrock,
    MisuseError,
    TextPart,
    Usage,
)
from rxllm.testing import FakeServer, ProviderContract, Reply
from rxllm.wire.http import Timeouts

KEY = "sk-do-not-show-this-to-anybody"
STREAM = "application/vnd.amazon.eventstream"
MAKER = "aws.bedrock"
PROTOCOL = Converse()


def made(server, model="m", **settings):
    """Bedrock at this server, which it asks once."""
    url = server if isinstance(server, str) else server.url
    return Bedrock(model, **{"base_url": url, "api_key": KEY, "max_retries": 0, **settings})


def streamed(*events):
    """A reply of these events."""
    return Reply(events, content_type=STREAM)


def body_of(prompt, model="m", **parameters):
    """What would be sent."""
    request = rxllm.Request.ask(prompt, rxllm.Parameters(**parameters))
    return made("http://localhost", model)._body(request)


@pytest.fixture
def server():
    """A local server, which is told what to answer."""
    with FakeServer() as server:
        yield server


class TestContract(ProviderContract):
    """What any provider must do."""

    finishes = ("stop", "length", "content_filter", "tool_call")
    key = KEY
    content_type = STREAM

    def provider(self, url):
        """Asks there."""
        return made(url)

    def impatient(self, url, seconds):
        """Not for long."""
        return made(url, timeout=Timeouts(first_chunk=seconds, idle=seconds))

    def stream(self, text, *, usage=None, finish="stop"):
        """Binary events."""
        return PROTOCOL.stream(text, usage=usage, finish=finish)

    def whole(self, text, *, usage=None, finish="stop"):
        """The document."""
        return PROTOCOL.whole(text, usage=usage, finish=finish)

    def error_body(self, status, message):
        """A message alone."""
        return PROTOCOL.error_body(status, message)

    def error_frame(self, message):
        """An exception."""
        return PROTOCOL.error_frame(message)


def test_answer_of_each_kind_of_part(server):
    """Reasoning with its signature, text and a call come in their order, streamed and whole."""
    answer = {"reasoning": ["Let me", " see"], "text": ["I", "'ll look"], "tool_call": ToolCall()}
    server.reply(streamed(*PROTOCOL.stream(**answer)), Reply.json(PROTOCOL.whole(**answer)))
    for stream in (True, False):
        message = made(server).invoke("hi", stream=stream)
        thought, text, call = message.parts
        assert ("Let me see", SIGNATURE, MAKER) == (thought.text, thought.signature, thought.provider)
        assert TextPart("I'll look") == text
        assert ("call_1", "get_weather", {"city": "Paris"}) == (call.id, call.name, json.loads(call.arguments))
        assert ("tool_call", "tool_use", MAKER) == (message.finish_reason, message.raw_finish_reason, message.provider)
        assert Usage(input_tokens=3, output_tokens=5) == message.usage


def test_model_id_is_one_segment_of_the_path(server):
    """Its colon and slashes are percent-encoded, and stay so on their way."""
    server.reply(streamed(*PROTOCOL.stream(["a"])), Reply.json(PROTOCOL.whole(["a"])))
    made(server, "anthropic.claude-v1:0").invoke("hi")
    made(server, "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x-v1:0").invoke("hi", stream=False)
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
def test_address(monkeypatch, settings, variables, expected):
    """The region and the address are taken from the arguments, else from the environment."""
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
