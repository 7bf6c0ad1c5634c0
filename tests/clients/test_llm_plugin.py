"""The plugin of rxllm in the library and the command `llm`, against a real local server."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest
from foreign import weather
from llms import KEY, WAYS, Command, soon, way_names
from protocols import Chat, Messages, ToolCall

import rxllm
from rxllm.adapters import llm_plugin
from rxllm.adapters.llm_plugin import names
from rxllm.adapters.llm_plugin.reading import messages_of
from rxllm.testing import End, FakeServer, Reply

llm = pytest.importorskip("llm", reason="the extra 'clients' is not installed")

from click.testing import CliRunner  # noqa: E402
from llm import parts  # noqa: E402
from llm.cli import cli  # noqa: E402

PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@pytest.fixture(params=WAYS.values(), ids=way_names)
def way(request):
    """A protocol, and rxllm's name of the provider that speaks it."""
    return request.param


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of llm's settings and logs."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    """A server whose address and keys are in the environment."""
    with FakeServer() as server:
        for name, value in {"OPENAI_BASE_URL": f"{server.url}/v1", "ANTHROPIC_BASE_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        for name in "OPENAI_API_KEY", "ANTHROPIC_API_KEY":
            monkeypatch.setenv(name, KEY)
        yield server


def run(*words):
    """Run the command in this process, and return its exit code and what it printed."""
    result = CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


# ── the command, as a process ────────────────────────────────────────────────────────────────────────────────────


def test_command_streams_and_asks_for_whole_answers(way, server, folder):
    """Text, usage and options arrive in each mode, with the keys of rxllm's environment variables."""
    protocol, provider = way

    def answer(request):
        said = {"usage": (3, 5)}
        is_streamed = request.json.get("stream")
        return Reply(protocol.stream(["Hel", "lo"], **said)) if is_streamed else Reply.json(protocol.whole(["Hello"]))

    server.reply(answer)
    command = Command(folder, server.url)
    words = ("-m", f"rxllm/{provider}:m", "-u", "-o", "temperature", "0.5", "hi")
    modes = ((command.run,), (run, "--no-stream"), (run, "--async"), (command.run, "--async", "--no-stream"))
    for run_it, *more in modes:
        assert (0, "Hello\n", "Token usage: 3 input, 5 output\n") == run_it(*more, *words)
    requests = server.requests
    assert [True, None, True, None] == [request.json.get("stream") or None for request in requests]
    assert {0.5} == {request.json["temperature"] for request in requests}
    assert {"m"} == {request.json["model"] for request in requests}
    assert all(KEY in str(request.headers) for request in requests)


def test_command_prints_each_piece_as_it_comes(server, folder):
    """The first word is there while the server waits with the second one. Ctrl-C closes the request within 50 ms."""
    server.reply(Reply([*Chat().before("wonderful", Chat().stream(["Hel", "wonderful"])), End.HANG]))
    command = Command(folder, server.url)

    def leave():
        with command.start("-m", "rxllm/openai:m", "hi") as process:
            try:
                assert b"Hel" == process.stdout.read(3)
                left = time.monotonic()
                process.send_signal(signal.SIGINT)
                seconds = server.exchange(-1).wait_closed(left)
                assert (b"", b"\nAborted!\n", 1) == (*process.communicate(timeout=60), process.returncode)
            finally:
                process.kill()
        return seconds

    assert soon(leave)
    assert server.exchange(-1).aborted


def test_command_shows_an_error_as_its_user_expects(server, folder):
    """One line with rxllm's sentence, and the exit code 1; the key is not in it."""
    refusal = Reply.json(Chat().error_body(401, f"no such key {KEY}"), status=401)
    broken = Reply([*Chat().before("wonderful", Chat().stream(["Hel", "wonderful"])), End.FIN])
    server.reply(refusal, broken)
    command = Command(folder, server.url)
    code, said, errors = command.run("-m", "rxllm/openai:m", "hi")
    assert (1, "", 1) == (code, said, errors.count("\n"))
    assert errors.startswith("Error: ")
    assert "no such key ***" in errors
    code, said, errors = command.run("-m", "rxllm/openai:m", "hi")
    assert (1, "Hel") == (code, said)
    assert errors.startswith("Error: The connection to")
    assert errors.endswith("broke in the middle of the answer: the connection closed before the end of the response.\n")


def test_first_lookup_of_a_program_finds_the_model(server, folder):
    """The plugins are loaded by the first call of get_model, and rxllm is imported when the model is asked."""
    server.reply(Reply(Chat().stream(["Hello"])))
    program = """
import asyncio, sys, llm
model = llm.get_model("rxllm/openai:m")
heavy = {"reactivex", "rxllm.llm", "rxllm.providers", "httpx"} & {*sys.modules}
print(heavy, model.prompt("hi").text(), asyncio.run(llm.get_async_model("rxllm/openai:m").prompt("hi").text()))
"""
    environment = Command(folder, server.url).environment
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ("set() Hello Hello\n", "") == (done.stdout, done.stderr)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_model_is_registered_unasked():
    """The lists of llm have only what the user has named."""
    assert [] == [model for model in llm.get_models() if model.model_id.startswith("rxllm/")]
    assert names.asked_names() == []
    with pytest.raises(llm.UnknownModelError):
        llm.get_model("rxllm/")


def test_name_is_found_wherever_it_comes_from(server, folder, monkeypatch):
    """The command line, the environment, an alias, the default, a template, the logs, and options."""
    server.reply(Reply(Chat().stream(["ok"])))
    name = "rxllm/openai:m"
    ok = (0, "ok\n", "")
    assert ok == run("-m", name, "hi")
    assert ok == run("-c", "again")
    assert 0 == run("aliases", "set", "mine", name)[0]
    assert ok == run("-m", "mine", "hi")
    assert ok == run("-q", "mine", "hi")
    assert 0 == run("-m", name, "--save", "brief", "--system", "Be brief.")[0]
    assert ok == run("-t", "brief", "hi")
    assert 0 == run("models", "options", "set", name, "temperature", "0.25")[0]
    assert 0 == run("models", "default", name)[0]
    assert ok == run("hi")
    assert 0.25 == server.requests[-1].json["temperature"]
    monkeypatch.setenv("LLM_MODEL", "rxllm/openai:other")
    assert ok == run("hi")
    assert ["m"] * 6 + ["other"] == [request.json["model"] for request in server.requests]


def test_default_model_of_a_program_is_found(server):
    """Programs ask for it without a name."""
    server.reply(Reply(Chat().stream(["ok"])))
    assert 0 == run("models", "default", "rxllm/openai:m")[0]
    assert "ok" == llm.get_model().prompt("hi").text()
    assert "rxllm: rxllm/openai:m\n" in run("models", "list")[1]


def test_lists_show_the_names_of_the_user_and_what_they_can_do():
    """An alias is in the list of models; options, keys and features are shown for a name."""
    run("aliases", "set", "mine", "rxllm/openai:m")
    assert "rxllm: rxllm/openai:m (aliases: mine)\n" in run("models", "list")[1]
    said = run("models", "list", "--options", "-m", "rxllm/anthropic:claude")[1]
    for shown in "effort: str", "image/png", "- schemas", "- tools", "- async", "key: anthropic", "ANTHROPIC_API_KEY":
        assert shown in said
    assert "temperature: float" in run("-m", "rxllm/embedded", "--options")[1]
    [listed] = json.loads(run("models", "list", "--json", "-m", "rxllm/embedded")[1])
    assert (False, False, True, []) == (
        listed["supports_tools"],
        listed["supports_schema"],
        listed["supports_async"],
        listed["attachment_types"],
    )


def test_plugin_ignores_malformed_aliases(folder):
    """They are a matter of llm itself."""
    for text in "{", "[]", '{"a": ["rxllm/embedded"]}':
        (folder / "aliases.json").write_text(text, "utf-8")
        assert [] == names.asked_names()


def test_plugin_never_breaks_the_command(monkeypatch):
    """With another version of llm, or a broken installation, the other models work, and a line says why."""

    def broken(name):
        raise ImportError("no such thing")

    monkeypatch.setattr("rxllm.adapters.llm_plugin.models.models_of", broken)
    code, said, errors = run("models", "list", "-m", "rxllm/embedded")
    assert (0, "") == (code, said)
    assert "The plugin of rxllm needs llm 0.32 or newer, and failed: ImportError('no such thing')" in errors
    assert run("models", "list")[2] == ""
    registered = []
    llm_plugin.register_models(registered.append)
    assert [] == registered


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_answer_has_everything(way, server, stream):
    """Text, reasoning, a call, usage, model and finish reason arrive in both kinds of models."""
    protocol, provider = way
    said = {"reasoning": ["Hm, ", "well"], "tool_call": [ToolCall(), ToolCall("call_2")], "usage": (3, 5)}
    whole = Reply.json(protocol.whole(["Hel", "lo"], **said))
    server.reply(Reply(protocol.stream(["Hel", "lo"], **said)) if stream else whole)
    name = f"rxllm/{provider}:m"
    plain = llm.get_model(name).prompt("hi", stream=stream, tools=[weather])
    asynchronous = llm.get_async_model(name).prompt("hi", stream=stream, tools=[weather])
    events = [*plain.stream_events()], [event async for event in asynchronous.astream_events()]
    for response, found in zip((plain, await asynchronous.to_sync_response()), events, strict=True):
        assert ("Hello", 3, 5) == (response.text(), response.input_tokens, response.output_tokens)
        texts = [event.chunk for event in found if event.type == "text"]
        assert (["Hel", "lo"] if stream else ["Hello"]) == texts
        assert [("call_1", "get_weather", {"city": "Paris"}), ("call_2", "get_weather", {"city": "Paris"})] == [
            (call.tool_call_id, call.name, call.arguments) for call in response.tool_calls()
        ]
        [message] = response.messages()
        kinds = [type(part).__name__ for part in message.parts]
        assert ["ReasoningPart", "TextPart", "ToolCallPart", "ToolCallPart"] == kinds[:4]
        assert "Hm, well" == message.parts[0].text
        assert ("model-1", "tool_call") == (response.resolved_model, response.json()["finish_reason"])


def test_tools_are_called_and_their_results_go_back(way, server):
    """The command runs a tool, and prints the answer that the model gives with its result."""
    protocol, provider = way
    call = ToolCall(name="weather")
    server.reply(Reply(protocol.stream(["Wait"], reasoning=["hm"], tool_call=call)), Reply(protocol.stream(["Rain"])))
    functions = 'def weather(city: str) -> str:\n    """The weather."""\n    return f"rain in {city}"'
    code, said, _ = run("-m", f"rxllm/{provider}:m", "--functions", functions, "How is it?")
    assert (0, "Wait Rain\n") == (code, said)
    first, second = (request.json for request in server.requests)
    assert "The weather." in str(first["tools"])
    assert "rain in Paris" in str(second["messages"])
    if protocol.name == "messages":  # the thought goes back as it came
        assert ["thinking", "text", "tool_use"] == [block["type"] for block in second["messages"][1]["content"]]
        assert second["messages"][1]["content"][0]["signature"]


def test_failed_tool_is_an_error_for_the_model(server):
    """The model learns that the tool has failed."""

    def fussy(city: str) -> str:
        raise ValueError(f"no city {city}")

    replies = [Messages().stream([], tool_call=ToolCall(name="fussy")), Messages().stream(["Sorry"])]
    server.reply(*map(Reply, replies))
    assert "Sorry" == llm.get_model("rxllm/anthropic:m").chain("hi", tools=[fussy]).text()
    [result] = server.requests[1].json["messages"][-1]["content"]
    assert ("tool_result", True) == (result["type"], result["is_error"])
    assert "no city Paris" in str(result["content"])


def test_conversation_continues_from_the_logs(server):
    """``llm -c`` sends the first answer back as it came, with its signature."""
    server.reply(Reply(Messages().stream(["Four"], reasoning=["hm"])), Reply(Messages().stream(["Five"])))
    assert (0, "Four\n") == run("-m", "rxllm/anthropic:m", "-s", "Be brief.", "2 + 2")[:2]
    assert (0, "Five\n") == run("-c", "and one")[:2]
    body = server.requests[1].json
    assert ["user", "assistant", "user"] == [message["role"] for message in body["messages"]]
    assert ["thinking", "text"] == [block["type"] for block in body["messages"][1]["content"]]
    assert body["messages"][1]["content"][0]["signature"]
    assert "Be brief." in str(body["system"])
    assert "reasoning" in run("logs", "list", "-n", "1", "--json")[1]


def test_conversation_of_another_plugin_continues():
    """Its calls may have no ids, and what its vendor alone understands is left out."""
    history = [
        llm.system("Be brief."),
        llm.user("How is it?", llm.Attachment(type="image/png", content=PICTURE)),
        llm.assistant(
            parts.ReasoningPart("hm", provider_metadata={"gemini": {"thought": "x"}}),
            parts.ToolCallPart("search", {}, "s", server_executed=True),
            parts.ToolResultPart("search", "found", "s", server_executed=True),
            parts.TextPart(""),
            parts.ToolCallPart("weather", {"city": "Rome"}),
            parts.ToolCallPart("weather", {"city": "Oslo"}),
        ),
        llm.tool_message(
            parts.ToolResultPart("weather", "sun"), parts.ToolResultPart("weather", "no", exception="KeyError: 1")
        ),
        llm.user(parts.AttachmentPart(llm.Attachment(url="http://localhost/a.pdf", type="application/pdf"))),
    ]
    calls = [
        rxllm.ToolCallPart("call_1", "weather", '{"city":"Rome"}'),
        rxllm.ToolCallPart("call_2", "weather", '{"city":"Oslo"}'),
    ]
    results = [
        rxllm.ToolResultPart("call_1", "sun", "ok", "weather"),
        rxllm.ToolResultPart("call_2", "no", "error", "weather"),
    ]
    assert [
        rxllm.Message("system", "Be brief."),
        rxllm.Message("user", [rxllm.TextPart("How is it?"), rxllm.FilePart("image/png", PICTURE)]),
        rxllm.Message("assistant", calls),
        rxllm.Message("tool", results),
        rxllm.Message("user", [rxllm.FilePart("application/pdf", url="http://localhost/a.pdf")]),
    ] == messages_of(history)


def test_answer_that_was_edited_goes_back_as_it_is(server):
    """What rxllm has kept of an answer does not count after an edit."""
    server.reply(Reply(Messages().stream(["Wait"], reasoning=["hm"])))
    model = llm.get_model("rxllm/anthropic:m")
    response = model.prompt("hi")
    [answer] = response.messages()
    next(part for part in answer.parts if hasattr(part, "text") and part.text == "Wait").text = "Stop"
    model.prompt("and?", messages=[llm.user("hi"), answer]).text()
    content = server.requests[1].json["messages"][1]["content"]
    assert "Stop" in str(content)
    assert "thinking" not in str(content)


def test_schema_is_asked_for(way, server):
    """The command prints the JSON, and the request has the schema."""
    protocol, provider = way
    server.reply(Reply(protocol.stream(['{"name": "Pip"', ', "age": 3}'])))
    code, said, _ = run("-m", f"rxllm/{provider}:m", "--schema", "name, age int", "Invent a dog")
    assert (0, {"name": "Pip", "age": 3}) == (code, json.loads(said))
    assert '"age": {"type": "integer"' in json.dumps(server.requests[0].json)


def test_attachments_are_sent(way, server, folder):
    """A file of the command line, bytes, and a second turn with the file of the first one."""
    protocol, provider = way
    server.reply(Reply(protocol.stream(["a cat"])))
    (folder / "cat.png").write_bytes(PICTURE)
    assert (0, "a cat\n") == run("-m", f"rxllm/{provider}:m", "-a", folder / "cat.png", "What is it?")[:2]
    assert (0, "a cat\n") == run("-c", "Sure?")[:2]
    for request in server.requests:
        assert "iVBORw0KGgoAAAANSUhEUg" in str(request.json["messages"][0]["content"])
    with pytest.raises(ValueError, match="image/x-unknown"):
        llm.get_model("rxllm/openai:m").prompt("?", attachments=[llm.Attachment(type="image/x-unknown", content=b"a")])


def test_unknown_media_type_is_a_sentence(server):
    """It may be unknown if a program makes the messages itself."""
    history = [llm.user(llm.Attachment(content=b"abc"))]
    with pytest.raises(llm.ModelError, match="The media type of an attachment is unknown"):
        llm.get_model("rxllm/openai:m").prompt("?", messages=history).text()
    assert [] == server.requests


def test_options_have_the_names_of_rxllm(server):
    """Each one reaches the request; a wrong value is refused before anything is sent."""
    server.reply(Reply(Chat().stream(["ok"])))
    options = {"top_p": 0.5, "max_tokens": 9, "stop_sequences": ["a", "b"], "seed": 1, "parallel_tool_calls": False}
    options |= {"tool_choice": "required", "effort": "low", "response_format": "json", "extra": {"user": "me"}}
    llm.get_model("rxllm/openai:m").prompt("hi", tools=[weather], **options).text()
    body = server.requests[0].json
    sent = [body[name] for name in ("top_p", "stop", "seed", "parallel_tool_calls", "tool_choice", "user")]
    assert [0.5, ["a", "b"], 1, False, "required", "me"] == sent
    assert ("low", {"type": "json_object"}) == (body["reasoning_effort"], body["response_format"])
    assert (0, "ok\n") == run("-m", "rxllm/openai:m", "-o", "extra", '{"user": "you"}', "hi")[:2]
    assert "you" == server.requests[1].json["user"]
    for name, value in ("temperature", "-1"), ("extra", "[1]"), ("extra", "{"), ("effort", "lots"), ("warmth", "1"):
        code, _, errors = run("-m", "rxllm/openai:m", "-o", name, value, "hi")
        assert (1, True) == (code, errors.startswith(f"Error: {name}\n"))
    assert 2 == len(server.requests)


def test_tool_in_the_form_of_the_vendor_is_sent_unchanged(server):
    """It is `llm.ServerSideTool` with a dict."""
    server.reply(Reply(Messages().stream(["ok"])))
    tool = {"type": "web_search_20250305", "name": "web_search"}
    llm.get_model("rxllm/anthropic:m").prompt("hi", tools=[llm.ServerSideTool(tool)]).text()
    assert [tool] == server.requests[0].json["tools"]


def model_for(monkeypatch, model):
    """Return a model of llm that asks this model of rxllm."""
    found = llm.get_model("rxllm/embedded")
    monkeypatch.setattr(found, "create", lambda key: model)
    return found


def test_calls_of_an_agent_are_its_own(server, monkeypatch):
    """An installed provider may return an agent: its calls and results are shown, and go back as they came."""
    replies = [Messages().stream(["Wait"], tool_call=ToolCall(name="weather")), Messages().stream(["Rain"])]
    server.reply(*map(Reply, [*replies, replies[1]]))
    model = model_for(monkeypatch, rxllm.agent(rxllm.Anthropic("m"), weather))
    response = model.prompt("How is it?")
    assert ("WaitRain", []) == (response.text(), response.tool_calls())
    [message] = response.messages()
    _, call, result, _, _ = message.parts
    assert ("weather", {"city": "Paris"}, True) == (call.name, call.arguments, call.server_executed)
    assert ("rain in Paris", call.tool_call_id) == (result.output, result.tool_call_id)
    response.reply("and now?").text()
    roles = [message["role"] for message in server.requests[2].json["messages"]]
    assert ["user", "assistant", "user", "assistant", "user"] == roles


def test_malformed_arguments_go_back_as_they_came(server, monkeypatch):
    """The tool fails, and the model learns it."""
    call = rxllm.Chunk(parts=[rxllm.ToolCallPart("c", "weather", "{city")], finish_reason="tool_call")
    asked = []

    def answer(request):
        asked.append(request)
        return rxllm.Chunk("Sorry") if len(asked) > 1 else call

    model = model_for(monkeypatch, rxllm.adapters.from_callable(answer))
    monkeypatch.setattr(type(model), "supports_tools", True)
    assert "Sorry" == model.chain("hi", tools=[weather]).text()
    _, made, result = asked[1].messages
    assert "{city" == made.tool_calls[0].arguments
    assert ("c", True) == (result.parts[0].id, result.parts[0].is_error)


def test_answer_that_begins_again_is_refused(monkeypatch):
    """Nobody can take text back that llm has printed."""

    def answer(request):
        yield "Hel"
        yield rxllm.Chunk("Bye", reset=True)

    model = model_for(monkeypatch, rxllm.adapters.from_callable(answer))
    with pytest.raises(llm.ModelError, match="began its answer again after a part of it had reached llm"):
        model.prompt("hi").text()


def test_key_comes_from_llm_or_from_the_environment(server, folder):
    """``--key``, the keys that llm keeps, and then rxllm's own environment variables."""
    server.reply(Reply(Chat().stream(["ok"])))
    run("-m", "rxllm/openai:m", "hi")
    run("keys", "set", "openai", "--value", "sk-kept-by-llm")
    run("-m", "rxllm/openai:m", "hi")
    run("-m", "rxllm/openai:m", "--key", "sk-of-this-call", "hi")
    llm.get_model("rxllm/openai:m").prompt("hi", key="sk-of-a-program").text()
    keys = [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]
    assert [KEY, "sk-kept-by-llm", "sk-of-this-call", "sk-of-a-program"] == keys


def test_missing_key_and_unknown_providers_are_sentences(server, monkeypatch):
    """The error says what to set, or which names there are."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    with pytest.raises(llm.ModelError, match="set ANTHROPIC_API_KEY") as raised:
        llm.get_model("rxllm/anthropic:m").prompt("hi").text()
    assert isinstance(raised.value.__cause__, rxllm.MisuseError)
    code, _, errors = run("-m", "rxllm/antropic:m", "hi")
    assert (1, True) == (code, "Did you mean anthropic:m?" in errors)
    with pytest.raises(llm.ModelError, match="There is no provider"):
        llm.get_model("rxllm/nobody:m").prompt("hi", tools=[weather], schema={"type": "object"}).text()


# ── errors and leaving ───────────────────────────────────────────────────────────────────────────────────────────


async def test_error_has_the_error_of_rxllm_as_its_cause(way, server):
    """A program catches llm.ModelError, and finds the status in its cause."""
    protocol, provider = way
    server.reply(Reply.json(protocol.error_body(400, "It went wrong"), status=400))
    with pytest.raises(llm.ModelError, match="It went wrong") as raised:
        llm.get_model(f"rxllm/{provider}:m").prompt("hi").text()
    assert (rxllm.BadRequest, 400) == (type(raised.value.__cause__), raised.value.__cause__.status)
    with pytest.raises(llm.ModelError, match="It went wrong"):
        await llm.get_async_model(f"rxllm/{provider}:m").prompt("hi").text()


@pytest.mark.parametrize("read", [iter, llm.Response.stream_events])
def test_leaving_a_stream_closes_the_request(way, server, read):
    """The server sees it within 50 ms."""
    protocol, provider = way
    server.reply(Reply([*protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"])), End.HANG]))

    def leave():
        pieces = read(llm.get_model(f"rxllm/{provider}:m").prompt("hi"))
        next(pieces)
        left = time.monotonic()
        pieces.close()
        return server.exchange(-1).wait_closed(left)

    assert soon(leave)
    assert server.exchange(-1).aborted


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_leaving_an_asynchronous_stream_closes_the_request(way, server, how):
    """The server sees it within 50 ms, whether the reader leaves between two pieces or while it waits for one."""
    protocol, provider = way
    server.reply(Reply([*protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"])), End.HANG]))

    async def leave():
        events = llm.get_async_model(f"rxllm/{provider}:m").prompt("hi").astream_events()
        await anext(events)
        if how == "close":
            left = time.monotonic()
            await events.aclose()
        else:
            waiting = asyncio.create_task(anext(events))
            begun = asyncio.Event()
            asyncio.get_running_loop().call_soon(begun.set)
            await begun.wait()
            left = time.monotonic()
            waiting.cancel()
            await asyncio.wait([waiting])
        return await server.exchange(-1).closed_soon(left)

    assert soon(lambda: asyncio.run(leave()))
    assert server.exchange(-1).aborted
