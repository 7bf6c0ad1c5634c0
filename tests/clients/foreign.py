"""What the tests of all adapters from other libraries ask and compare."""

import json

import pytest
from models import made
from protocols import ToolCall

import rxllm
from rxllm.testing import FakeServer, Reply

__all__ = [
    "CONVERSATION",
    "assert_like_the_provider",
    "assert_malformed_answers_raise",
    "calls_of",
    "either_way",
    "malformed",
    "weather",
]

CONVERSATION = [
    ("system", "Be brief."),
    ("user", "How is the weather?"),
    rxllm.Message("assistant", [rxllm.TextPart("Wait"), rxllm.ToolCallPart("c", "weather", '{"city":"Oslo"}')]),
    rxllm.Message("tool", [rxllm.ToolResultPart("c", "no", "error")]),
    rxllm.Message("user", [rxllm.TextPart("And here?"), rxllm.FilePart("image/png", b"\x89PNG\r\n\x1a\n")]),
]
"""A conversation with each kind of message."""


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def calls_of(answer):
    """Return the ids, the names and the values of the calls."""
    return [(call.id, call.name, json.loads(call.arguments)) for call in answer.tool_calls]


def either_way(protocol):
    """Return a function that answers each request with a greeting, in pieces if the request asks for a stream."""

    def answer(request):
        whole, stream = protocol.whole(["Hel", "lo"]), protocol.stream(["Hel", "lo"])
        return Reply(stream) if request.json.get("stream") else Reply.json(whole)

    return answer


def assert_like_the_provider(protocol, adapter, names, **said):
    """Check that the adapter's answers have the named fields, the calls and the usage of the provider's.

    Args:
        protocol: the protocol of the server.
        adapter: returns the model for an address.
        names: the fields that are compared, streamed and whole.
        said: what the answer has beside its text, two calls and usage.
    """
    said |= {"tool_call": [ToolCall(), ToolCall("call_2")], "usage": (3, 5)}
    for stream, reply in (
        (True, Reply(protocol.stream(["Hel", "lo"], **said))),
        (False, Reply.json(protocol.whole(["Hel", "lo"], **said))),
    ):
        with FakeServer(reply) as server:
            expected = made(protocol, server.url).invoke("hi", stream=stream)
            answer = adapter(server.url).invoke("hi", stream=stream)
        for name in names:
            assert getattr(expected, name) == getattr(answer, name), name
        assert calls_of(expected) == calls_of(answer)
        assert (3, 5) == (answer.usage.input_tokens, answer.usage.output_tokens)


def malformed(protocol, *, stream):
    """Return a response whose values have wrong types."""
    if not stream:
        return Reply.json({"choices": [7], "content": [7], "output": [7]})
    delta = b'{"type": "content_block_delta", "index": 0, "delta": 7}'
    frames = {"messages": b"event: content_block_delta\ndata: " + delta + b"\n\n", "responses": b"data: {no\n\n"}
    return Reply([frames.get(protocol.name, b'data: {"choices": [7]}\n\n')])


def assert_malformed_answers_raise(protocol, adapter, *, has_cause=True):
    """Check that answers that do not follow the protocol raise ProtocolError, streamed and whole.

    Args:
        protocol: the protocol of the server.
        adapter: returns the model for an address.
        has_cause: whether the cause is an exception of the other library. False if rxllm decodes the bytes itself.
    """
    for stream, reply in (
        (False, malformed(protocol, stream=False)),
        (False, Reply(b"{no", content_type="application/json")),
        (True, malformed(protocol, stream=True)),
    ):
        with FakeServer(reply) as server, pytest.raises(rxllm.ProtocolError) as caught:
            adapter(server.url).invoke("hi", stream=stream)
        assert has_cause is isinstance(caught.value.__cause__, Exception)
        assert "hi" == caught.value.request.text
