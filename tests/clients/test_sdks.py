"""The vendors' own SDKs and rxllm read the same bytes, and agree on text, reasoning, calls, counts and the finish."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from typing import Any

import protocols
import pytest
from attrs import frozen
from protocols import ToolCall, sse

from rxllm import LLM, Anthropic, Bedrock, Cohere, Gemini, Message, Ollama, OpenAI, ProviderError
from rxllm.testing import FakeServer, Received, Reply

if importlib.util.find_spec("mistralai") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

import sdks
from sdks import Heard

KEY = sdks.KEY


@frozen
class Peer:
    """A vendor's SDK and rxllm's provider of the same protocol.

    Attributes:
        name: the id of a parametrised test.
        protocol: the writer of answers.
        sdk: asks by the SDK.
        model: rxllm's model at a URL.
        content_type: of a stream.
    """

    name: str
    protocol: protocols.Protocol
    sdk: Callable[[str, bool], Heard]
    model: Callable[[str], LLM]
    content_type: str = "text/event-stream"

    def reply(self, stream: bool, answer: dict[str, Any]) -> Reply:
        """The answer, as a stream or whole."""
        if stream:
            return Reply(self.protocol.stream(**answer), content_type=self.content_type)
        return Reply.json(self.protocol.whole(**answer))


PEERS = (
    Peer("chat", protocols.Chat(), sdks.openai_chat, lambda url: OpenAI("m", base_url=f"{url}/v1", api_key=KEY)),
    Peer(
        "completions",
        protocols.Completions(),
        sdks.openai_completion,
        lambda url: OpenAI("m", base_url=f"{url}/v1", api_key=KEY, api="completions"),
    ),
    Peer(
        "responses",
        protocols.Responses(),
        sdks.openai_response,
        lambda url: OpenAI("m", base_url=f"{url}/v1", api_key=KEY, api="responses"),
    ),
    Peer("messages", protocols.Messages(), sdks.anthropic, lambda url: Anthropic("m", base_url=url, api_key=KEY)),
    Peer("gemini", protocols.Generate(), sdks.google, lambda url: Gemini("model-1", base_url=url, api_key=KEY)),
    Peer(
        "ollama",
        protocols.OllamaChat(),
        sdks.ollama,
        lambda url: Ollama("m", base_url=url),
        "application/x-ndjson",
    ),
    Peer("cohere", protocols.Cohere(), sdks.cohere, lambda url: Cohere("m", base_url=url, api_key=KEY)),
    Peer(
        "mistral",
        protocols.MistralChat(),
        sdks.mistral,
        lambda url: OpenAI("m", base_url=f"{url}/v1", api_key=KEY, server="mistral"),
    ),
    Peer(
        "converse",
        protocols.Converse(),
        sdks.converse,
        lambda url: Bedrock("m", base_url=url, api_key=KEY, region="eu-west-1"),
        "application/vnd.amazon.eventstream",
    ),
)

PARIS = ToolCall("call_1", "weather", ['{"city"', ': "Paris"}'])
ROME = ToolCall("call_2", "weather", ['{"city": "R', 'ome", "days": [1, 2]}'])
NOW = ToolCall("call_3", "now", ["{}"])

ANSWERS: dict[str, dict[str, Any]] = {
    "text": {"text": ["Hel", "lo", "."]},
    "one piece": {"text": ["Hello."]},
    "odd characters": {"text": ["é\u2028ß", " \U0001f600", "\n\ndata: x\r\n"]},
    "length": {"text": ["Hel"], "finish": "length"},
    "filter": {"text": ["Hel"], "finish": "content_filter"},
    "reasoning": {"reasoning": ["Let me", " think."], "text": ["Hel", "lo."]},
    "call": {"tool_call": PARIS},
    "call without arguments": {"tool_call": NOW},
    "text and call": {"text": ["I ", "look."], "tool_call": PARIS},
    "parallel calls": {"tool_call": [PARIS, ROME, NOW]},
    "all": {"reasoning": ["Let me", " think."], "text": ["I ", "look."], "tool_call": [PARIS, ROME], "usage": (70, 9)},
}


def speaks(peer: Peer, name: str) -> bool:
    """Whether the protocol can carry the answer."""
    answer = ANSWERS[name]
    needs = {kind for kind in ("reasoning", "tool_call") if kind in answer}
    if peer.name == "ollama" and name == "odd characters":  # the SDK splits its lines at U+2028
        return False
    return needs <= peer.protocol.speaks and answer.get("finish", "stop") in peer.protocol.finishes


def heard(answer: Message) -> Heard:
    """The same facts of rxllm's answer."""
    usage = answer.usage
    return Heard(
        answer.text,
        answer.reasoning,
        [(call.name, json.loads(call.arguments or "{}")) for call in answer.tool_calls],
        answer.raw_finish_reason,
        usage.input_tokens,
        usage.output_tokens,
    )


CASES = [(peer, name) for peer in PEERS for name in ANSWERS if speaks(peer, name)]


@pytest.mark.parametrize(("peer", "name"), CASES, ids=lambda each: each if isinstance(each, str) else each.name)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_sdk_and_rxllm_agree(peer, name, stream):
    """One server answers both with the same bytes."""
    with FakeServer(peer.reply(stream, ANSWERS[name])) as server:
        theirs = peer.sdk(server.url, stream)
        ours = peer.model(server.url).invoke("hi", stream=stream)
    assert theirs == heard(ours)
    assert theirs.text == "".join(ANSWERS[name].get("text", ()))
    assert theirs.reasoning == "".join(ANSWERS[name].get("reasoning", ()))
    calls = ANSWERS[name].get("tool_call", ())
    calls = [calls] if isinstance(calls, ToolCall) else calls
    assert theirs.calls == [(call.name, json.loads(call.arguments)) for call in calls]
    assert (theirs.input_tokens, theirs.output_tokens) == ANSWERS[name].get("usage", (3, 5))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_both_ask_at_the_same_place(peer, stream):
    """The method, the path and the key's header are the SDK's."""
    with FakeServer(peer.reply(stream, ANSWERS["text"])) as server:
        peer.sdk(server.url, stream)
        peer.model(server.url).invoke("hi", stream=stream, max_tokens=99)
        theirs, ours = server.requests
    assert where(theirs) == where(ours)


REFUSALS = (400, 401, 403, 404)  # what no SDK repeats


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("status", REFUSALS)
def test_both_report_the_same_refusal(peer, status):
    """Both raise, with the status and the server's sentence."""
    body = peer.protocol.error_body(status, "No, for a reason.")
    with FakeServer(Reply.json(body, status=status)) as server:
        with pytest.raises(Exception, match="No, for a reason") as theirs:
            peer.sdk(server.url, False)
        with pytest.raises(ProviderError, match="No, for a reason") as ours:
            peer.model(server.url).invoke("hi", stream=False)
    assert status == ours.value.status == status_of(theirs.value)


BROKE = "It broke"
OPENAI_ERROR = {"message": BROKE, "type": "server_error", "param": None, "code": None}
BARE_ERROR = {"error": {"code": 503, "message": BROKE, "status": "UNAVAILABLE"}}
ERRORS: dict[str, dict[str, bytes]] = {  # frames in the middle of a stream that both take for an error
    "chat": {
        "as text": sse({"error": BROKE}),
        "named": sse({"error": OPENAI_ERROR}, event="error"),
        "named, flat": sse(OPENAI_ERROR, event="error"),
        "with a choice": sse({"error": OPENAI_ERROR, "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}),
        "message": sse({"message": BROKE}),
    },
    "responses": {"nested": sse({"type": "error", "error": OPENAI_ERROR}, event="error")},
    "gemini": {"without a frame": json.dumps(BARE_ERROR, indent=2).encode() + b"\n\n"},
    "ollama": {"last line": json.dumps({"model": "m", "error": BROKE, "done": True}).encode() + b"\n"},
    "converse": {
        "throttling": protocols.aws_event("throttlingException", {"message": BROKE}, "exception"),
        "error": protocols.aws_frame(
            {":message-type": "error", ":error-code": "InternalError", ":error-message": BROKE}, b""
        ),
    },
}
OVERLOOKED: dict[str, dict[str, bytes]] = {  # frames that only rxllm takes for an error
    "responses": {"usual": protocols.Responses().error_frame(BROKE)},  # the SDK leaves it to the program
    "messages": {"without a name": sse({"type": "error", "error": {"type": "api_error", "message": BROKE}})},
    "cohere": {"of a gateway": sse({"error": OPENAI_ERROR})},
}
NO_ERRORS = {"null": {"error": None}, "empty": {"error": {}}}
USUAL = {peer.name: {"usual": peer.protocol.error_frame(BROKE)} for peer in PEERS if peer.name != "responses"}


def frames_of(*tables: dict[str, dict[str, bytes]]) -> list[Any]:
    """Each frame with its peer, as the parameters of a test."""
    peers = {peer.name: peer for peer in PEERS}
    return [
        pytest.param(peers[name], frame, id=f"{name}-{kind}")
        for table in tables
        for name, frames in table.items()
        for kind, frame in frames.items()
    ]


def failing(peer: Peer, frame: bytes) -> FakeServer:
    """A server that sends the frame in the middle of an answer, which goes on."""
    events = peer.protocol.stream(text=["Hel", "lo"])
    half = len(events) // 2
    return FakeServer(Reply([*events[:half], frame, *events[half:]], content_type=peer.content_type))


@pytest.mark.parametrize(("peer", "frame"), frames_of(USUAL, ERRORS))
def test_both_take_an_error_in_the_middle_of_a_stream_for_one(peer, frame):
    """The answer is never taken for a whole one. Some SDKs stumble over it instead of reporting it."""
    with failing(peer, frame) as server:
        with pytest.raises(Exception, match=r".") as theirs:
            peer.sdk(server.url, True)
        with pytest.raises(ProviderError, match=BROKE) as ours:
            peer.model(server.url).invoke("hi")
    assert not isinstance(theirs.value, AssertionError)
    assert ours.value.partial is None or "Hello".startswith(ours.value.partial.text)


@pytest.mark.parametrize(("peer", "frame"), frames_of(OVERLOOKED))
def test_rxllm_reports_errors_that_an_sdk_overlooks(peer, frame):
    """The SDK goes on as if the answer were whole."""
    with failing(peer, frame) as server:
        assert "Hello" == peer.sdk(server.url, True).text
        with pytest.raises(ProviderError, match=BROKE):
            peer.model(server.url).invoke("hi")


@pytest.mark.parametrize("field", NO_ERRORS.values(), ids=NO_ERRORS)
def test_error_field_without_an_error_is_none_for_both(field):
    """Some servers write it into each chunk."""
    chat = PEERS[0]
    with failing(chat, sse({"choices": [], "object": "chat.completion.chunk", **field})) as server:
        assert "Hello" == chat.sdk(server.url, True).text == chat.model(server.url).invoke("hi").text


def status_of(error: Any) -> int:
    """The HTTP status that an SDK's error carries."""
    if hasattr(error, "response") and isinstance(error.response, dict):  # botocore
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    return error.status_code if hasattr(error, "status_code") else error.code


def where(request: Received) -> tuple[object, ...]:
    """The method, the path, the query and the key."""
    path = request.path.replace("/v1beta/", "/v1/")  # google-genai has moved to v1, the documentation has not
    headers = request.headers
    key = headers.get("authorization") or headers.get("x-goog-api-key") or f"Bearer {headers.get('x-api-key')}"
    if "AWS4-HMAC-SHA256" in key:  # botocore signs, rxllm sends the token here
        key = f"Bearer {KEY}"
    return request.method, path, request.query, None if path == "/api/chat" else key
