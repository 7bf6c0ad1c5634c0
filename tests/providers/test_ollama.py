"""Ollama's own protocol: the requests, the decoding of the lines, and the server's address."""

import base64
import json

import pytest

from rxllm import Anthropic, BadRequest, Interrupted, MisuseError, Ollama, ProtocolError, ProviderError
from rxllm.testing import FakeServer, Reply
from rxllm.values.message import Message
from rxllm.values.parts import FilePart, RawPart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from rxllm.values.request import Request
from rxllm.values.tools import ToolSpec
from rxllm.values.usage import Usage

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 7}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key and no address but those that a test sets."""
    for name in ("OLLAMA_API_KEY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """A local server. Each test sets its replies."""
    with FakeServer() as server:
        yield server


def body_of(prompt="hi", *, keep_alive=None, **parameters):
    """The body that is sent."""
    return Ollama("qwen3", keep_alive=keep_alive)._body(Request.ask(prompt).over(Request(prompt="", **parameters)))


def messages_of(*messages):
    """The messages that are sent for a conversation."""
    return body_of(list(messages))["messages"]


def line(done=False, **said):
    """A line of an answer."""
    known = {"model": "qwen3", "created_at": "2026-08-21T18:48:22.5Z"}
    return {**known, "message": {"role": "assistant", "content": "", **said}, **(DONE if done else {"done": False})}


def lines_of(*lines):
    """The bytes of a stream."""
    return [json.dumps(each).encode() + b"\n" for each in lines]


def asked(server, *lines):
    """The answer that these lines are, also where one document was asked for."""
    server.reply(Reply(lines_of(*lines), content_type="application/x-ndjson"))
    llm = Ollama("qwen3", base_url=server.url, max_retries=0)
    streamed = llm.invoke("hi")
    assert streamed == llm.invoke("hi", stream=False)
    return streamed


def test_pictures_of_an_answer_are_files(server):
    """Their bytes tell the media type, and they go back as the message's images."""
    picture = b"\x89PNG\r\n\x1a\n..."
    answer = asked(server, line(content="Here"), line(images=[base64.b64encode(picture).decode()]), line(done=True))
    assert (TextPart("Here"), FilePart("image/png", picture, provider="ollama")) == answer.parts
    assert base64.b64encode(picture).decode() == messages_of(answer)[0]["images"][0]
    for data in ("???", "é"):  # Python has two exceptions
        with pytest.raises(ProtocolError, match="not valid base64"):
            asked(server, line(images=[data]), line(done=True))


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_have_ollama_names():
    """Sampling goes into options, the system stays a message."""
    sampling = {"temperature": 0, "top_p": 0.5, "top_k": 7, "max_tokens": 9, "stop_sequences": "END", "seed": 1}
    extra = {"options": {"num_ctx": 4096, "top_k": 3}, "truncate": False}
    expected = {
        "model": "qwen3",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "keep_alive": "10m",
        "options": {
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 3,
            "num_predict": 9,
            "stop": ["END"],
            "seed": 1,
            "num_ctx": 4096,
        },
        "truncate": False,
    }
    assert expected == body_of([("system", "Be brief."), ("user", "Hi")], keep_alive="10m", extra=extra, **sampling)
    assert {"model": "qwen3", "messages": [{"role": "user", "content": "hi"}], "stream": True} == body_of()
    assert 0 == body_of(keep_alive=0)["keep_alive"]


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "max")]
)
def test_effort_becomes_think(effort, think):
    """The effort none switches thinking off."""
    assert think == body_of(effort=effort)["think"]


def test_response_format_becomes_format():
    """JSON of any form, or a schema."""
    assert ("json", SCHEMA) == (body_of(response_format="json")["format"], body_of(response_format=SCHEMA)["format"])


def test_tools_are_offered_unless_the_choice_is_none():
    """The protocol has no field for the choice."""
    tools = [ToolSpec("weather", "Tells it", SCHEMA)]
    function = {"name": "weather", "description": "Tells it", "parameters": SCHEMA}
    offered = [{"type": "function", "function": function}]
    assert [offered, offered] == [body_of(tools=tools, tool_choice=choice)["tools"] for choice in (None, "auto")]
    assert "tools" not in body_of(tools=tools, tool_choice="none")
    assert offered == body_of(tools=[ToolSpec("weather", "Tells it", SCHEMA, strict=False)])["tools"]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"tool_choice": "required"}, "tool_choice must be 'auto' or 'none', not 'required'"),
        ({"tool_choice": "weather"}, "not 'weather'"),
        ({"parallel_tool_calls": False, "tools": [ToolSpec("now")]}, "Leave out parallel_tool_calls"),
        ({"effort": "xhigh"}, "know the efforts none, low, medium, high, max, not 'xhigh'"),
        ({"response_format": {"type": "json_schema", "x": 1}}, "only another provider knows"),
        ({"tools": [{"type": "bash_20250124", "name": "bash", "input_schema": {}}]}, "only another provider knows"),
        ({"prompt": [Message("user", [FilePart("image/png", url="https://host/a.png")])]}, "only from its data"),
        ({"prompt": [Message("user", [FilePart("audio/wav", b"x")])]}, "accepts only images, not this audio/wav"),
        ({"prompt": [Message("user", [RawPart("openai", {})])]}, "this RawPart in a message of the role 'user'"),
        ({"prompt": [Message("user", extra={"a": 1})]}, "no field 'a'"),
        (
            {"prompt": [Message("tool", [ToolResultPart("1", [ReasoningPart("x")])])]},
            "this ReasoningPart in the result of a tool",
        ),
        ({"tools": [ToolSpec("now", strict=True)]}, "Leave strict=True out of the tool 'now'"),
        ({"extra": {"n": 2}}, "requests several answers"),
    ],
)
def test_what_ollama_cannot_do_is_refused_before_sending(server, parameters, sentence):
    """Nothing is sent."""
    prompt = parameters.pop("prompt", "hi")
    with pytest.raises(MisuseError, match=sentence):
        Ollama("qwen3", base_url=server.url).invoke(prompt, **parameters)
    assert [] == server.requests


def test_keep_alive_is_text_or_a_number():
    """Any other value raises MisuseError in the constructor."""
    with pytest.raises(MisuseError, match="keep_alive must be text such as '10m', or seconds, not True"):
        Ollama("qwen3", keep_alive=True)


def test_messages_carry_images_thoughts_calls_and_results():
    """Ollama's own reasoning goes back, that of others and raw parts do not; each result is a message."""
    picture = base64.b64encode(b"\x89PNG").decode()
    answer = Message(
        "assistant",
        [
            ReasoningPart("Hm", provider="ollama"),
            ReasoningPart("Secret", "s", provider="anthropic"),
            RawPart("anthropic", {"type": "redacted_thinking"}),
            TextPart("Let me"),
            TextPart(" look."),
            ToolCallPart("1", "weather", '{"city":"Paris"}'),
            ToolCallPart("2", "now", "", 1),
        ],
    )
    results = [
        ToolResultPart("1", [TextPart("sunny"), FilePart("image/png", b"\x89PNG")]),
        ToolResultPart("2", "no", "error"),
    ]
    calls = [
        {"id": "1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}},
        {"id": "2", "function": {"index": 1, "name": "now", "arguments": {}}},
    ]
    assert [
        {"role": "user", "content": "What is this?", "images": [picture]},
        {"role": "assistant", "content": "Let me look.", "thinking": "Hm", "tool_calls": calls},
        {"role": "tool", "content": "sunny", "tool_call_id": "1", "tool_name": "weather", "images": [picture]},
        {"role": "tool", "content": "Error: no", "tool_call_id": "2", "tool_name": "now"},
        {"role": "user", "content": "And?"},
    ] == messages_of(
        Message("user", ["What is this?", FilePart("image/png", b"\x89PNG")]),
        answer,
        Message("user", [*results, TextPart("And?")]),
    )


# ── where the server is ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spelling", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("example", "http://example:11434"),
        ("example:56789", "http://example:56789"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 (not bound)
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("http://example", "http://example"),
        ("https://example/", "https://example"),
        ("http://0.0.0.0:1234/", "http://127.0.0.1:1234"),
        ("https://example:1234/some/path/", "https://example:1234/some/path"),
        ("example/path", "http://example:11434/path"),
        (" 'example:1' ", "http://example:1"),
        ("user:secret@example", "http://user:secret@example:11434"),
        ("ollama.com", "https://ollama.com"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(monkeypatch, spelling, url):
    """With or without a scheme, a port and a path; an address for all interfaces means this machine."""
    monkeypatch.setenv("OLLAMA_HOST", spelling)
    assert f"{url}/api/chat" == Ollama("m")._url(Request.ask("hi"))


@pytest.mark.parametrize("spelling", ["example:port", "unix:///run/ollama"])
def test_bad_ollama_host_is_refused(monkeypatch, spelling):
    """The sentence names the variable."""
    monkeypatch.setenv("OLLAMA_HOST", spelling)
    with pytest.raises(MisuseError, match="OLLAMA_HOST"):
        Ollama("m").invoke("hi")


@pytest.mark.parametrize("path", ["", "/", "/v1", "/api", "/v1/"])
def test_base_url_may_end_with_v1(server, path):
    """As for OpenAI's protocol on the same server."""
    server.reply(Reply(lines_of(line(done=True, content="ok"))))
    assert "ok" == Ollama("qwen3", base_url=server.url + path).invoke("hi").text
    assert ["/api/chat"] == [request.path for request in server.requests]


def test_the_key_is_a_bearer_token_and_only_the_cloud_needs_one(server, monkeypatch):
    """api_key wins over OLLAMA_API_KEY."""
    server.reply(Reply(lines_of(line(done=True))))
    Ollama("m", base_url=server.url).invoke("hi")
    monkeypatch.setenv("OLLAMA_API_KEY", "key-1")
    Ollama("m", base_url=server.url).invoke("hi")
    Ollama("m", base_url=server.url, api_key="key-2").invoke("hi", stream=False)
    expected = [
        (None, "application/x-ndjson"),
        ("Bearer key-1", "application/x-ndjson"),
        ("Bearer key-2", "application/json"),
    ]
    assert expected == [(each.headers.get("authorization"), each.headers["accept"]) for each in server.requests]
    monkeypatch.delenv("OLLAMA_API_KEY")
    with pytest.raises(MisuseError, match="set OLLAMA_API_KEY"):
        Ollama("m", base_url="https://ollama.com").invoke("hi")


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reasoning_calls_usage_and_finish_reason_are_read(server):
    """Calls come whole, on several lines; the finish reason is tool_call although the server says stop."""
    calls = [{"id": name, "function": {"index": 0, "name": name, "arguments": {"a": 1}}} for name in ("x", "y")]
    answer = asked(
        server,
        line(thinking="The user"),
        line(thinking=" asks."),
        line(content="Let"),
        line(content=" me"),
        line(tool_calls=calls[:1]),
        line(tool_calls=calls[1:]),
        line(done=True),
    )
    assert (
        ReasoningPart("The user asks."),
        TextPart("Let me"),
        ToolCallPart("x", "x", '{"a":1}'),
        ToolCallPart("y", "y", '{"a":1}', 1),
    ) == answer.parts
    assert Usage(input_tokens=26, output_tokens=7) == answer.usage
    assert ("tool_call", "stop", "qwen3", "ollama") == (
        answer.finish_reason,
        answer.raw_finish_reason,
        answer.model,
        answer.provider,
    )


def test_calls_without_ids_get_ids(server):
    """Older servers send none; two calls and two turns have different ids, and equal bytes equal ids."""
    call = {"function": {"name": "a", "arguments": {}}}
    first = asked(server, line(tool_calls=[call, call]), line(done=True))
    later = asked(server, {**line(tool_calls=[call]), "created_at": "2026-08-21T18:49:00Z"}, line(done=True))
    ids = [each.id for each in (*first.tool_calls, *later.tool_calls)]
    assert 3 == len(set(filter(None, ids)))


@pytest.mark.parametrize(
    ("reason", "ours"), [(None, "stop"), ("length", "length"), ("load", "other"), ("new", "other")]
)
def test_finish_reasons(server, reason, ours):
    """Older servers give none; an unknown one is not stop."""
    answer = asked(server, line(content="ok"), {**line(done=True), "done_reason": reason})
    assert (ours, reason) == (answer.finish_reason, answer.raw_finish_reason)


def test_logprobs_are_joined(server):
    """Those of all lines."""
    told = [{"token": each, "logprob": -0.5} for each in "ab"]
    lines = [{**line(content=each["token"]), "logprobs": [each]} for each in told]
    assert {"content": tuple(told)} == dict(asked(server, *lines, line(done=True)).logprobs)


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_line_ends_the_answer(server, stream):
    """Its partial has what came before; also if lines come although one document was requested."""
    server.reply(Reply(lines_of(line(content="Yes"), line(content="."), {"error": "the runner has stopped"})))
    with pytest.raises(ProviderError, match="the runner has stopped") as caught:
        Ollama("m", base_url=server.url, max_retries=0).invoke("hi", stream=stream)
    assert "Yes." == caught.value.partial.text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [1, 10_000])
def test_lines_that_break_off_are_interrupted(server, stream, size):
    """The last line is missing."""
    body = b"".join(lines_of(line(content="Yes"), line(content="."))) + b'{"model":'
    server.reply(Reply([body[at : at + size] for at in range(0, len(body), size)]))
    with pytest.raises(Interrupted) as caught:
        Ollama("m", base_url=server.url, max_retries=0).invoke("hi", stream=stream)
    assert "Yes." == caught.value.partial.text


def test_an_error_before_the_answer_has_its_status(server):
    """For a missing model, with Ollama's own words."""
    server.reply(Reply.json({"error": "model 'qwen9' not found"}, status=404))
    with pytest.raises(BadRequest, match="model 'qwen9' not found") as caught:
        Ollama("qwen9", base_url=server.url).invoke("hi")
    assert 404 == caught.value.status


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b'{"status": "Ollama is running"}', b"Ollama is running"])
def test_other_bodies_are_protocol_errors(server, stream, body):
    """An empty answer never stands for them."""
    server.reply(Reply(body))
    with pytest.raises((ProtocolError, Interrupted)):
        Ollama("m", base_url=server.url, max_retries=0).invoke("hi", stream=stream)


def test_a_document_on_several_lines_is_a_whole_answer(server):
    """As a gateway may print it."""
    server.reply(Reply.json(json.dumps(line(done=True, content="ok"), indent=2).encode()))
    assert "ok" == Ollama("m", base_url=server.url).invoke("hi", stream=False).text


# ── conversations ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_with_tools_goes_on_there_and_elsewhere(server):
    """Results name their calls; another vendor gets text, calls and results, and no reasoning."""

    def reply(request):
        sent = request.json["messages"]
        calls = [call["id"] for message in sent for call in message.get("tool_calls", ())]
        results = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
        if calls != results:
            return Reply.json({"error": "the results are not those of the calls"}, status=400)
        if calls:
            return Reply(lines_of(line(content="It is sunny."), line(done=True)))
        call = {"id": "call_1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}}
        return Reply(lines_of(line(thinking="Hm"), line(tool_calls=[call]), line(done=True)))

    server.reply(reply)
    llm = Ollama("qwen3", base_url=server.url, max_retries=0)
    first = llm.invoke("Weather?")
    history = [Message("user", "Weather?"), first, Message("tool", [ToolResultPart("call_1", "sunny")])]
    assert "It is sunny." == llm.invoke(history).text
    assert ["", "Hm"] == [server.requests[1].json["messages"][1][name] for name in ("content", "thinking")]
    sent = json.dumps(Anthropic("m", base_url=server.url)._body(Request.ask(history)))
    assert {"call_1": True, "sunny": True, "Hm": False} == {word: word in sent for word in ("call_1", "sunny", "Hm")}
