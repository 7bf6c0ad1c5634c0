"""Models of the library `llm` as models of rxllm, against a real local server."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import attrs
import httpx
import pytest
from foreign import CONVERSATION, assert_like_the_provider, assert_malformed_answers_raise, either_way, weather
from llms import KEY, soon
from models import made
from protocols import Chat, Responses, ToolCall

import rxllm
from rxllm.adapters import from_llm
from rxllm.testing import End, FakeServer, LLMContract, Reply

llm = pytest.importorskip("llm", reason="the extra 'clients' is not installed")

from llm import parts  # noqa: E402
from llm.default_plugins import openai_models as vendor  # noqa: E402

PICTURE = b"\x89PNG\r\n\x1a\n"
ABLE = {"supports_tools": True, "supports_schema": True, "vision": True, "reasoning": True}
KINDS = {
    "chat": (Chat(), vendor.Chat),
    "async chat": (Chat(), vendor.AsyncChat),
    "responses": (Responses(), vendor.Responses),
    "async responses": (Responses(), vendor.AsyncResponses),
}


def model_at(url, kind=vendor.AsyncChat):
    """Return a model of llm's own plugin for OpenAI."""
    return kind("m", key=KEY, model_name="m", api_base=f"{url}/v1", **ABLE)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def way(request):
    """A protocol, and a function that returns the model of rxllm over llm."""
    protocol, kind = request.param
    return protocol, lambda url, **settings: from_llm(model_at(url, kind), **settings)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of llm's settings."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


class TestOverAsyncModel(LLMContract):
    """The contract of a model."""

    kind = vendor.AsyncChat

    @pytest.fixture
    def llm(self):
        """A model at a server that streams, or answers as a whole."""
        with FakeServer(either_way(Chat())) as server:
            yield from_llm(model_at(server.url, self.kind))


class TestOverSyncModel(TestOverAsyncModel):
    """The contract of a model."""

    kind = vendor.Chat


# ── requests and answers ─────────────────────────────────────────────────────────────────────────────────────────


def test_answer_is_that_of_the_provider(way):
    """Text, calls, usage, finish reason, model and id are the same, streamed and whole."""
    protocol, adapter = way
    assert_like_the_provider(protocol, adapter, ("text", "finish_reason", "model", "id"))


def test_stream_streams(way):
    """Each piece of text is a chunk, and a length limit is the finish reason."""
    protocol, adapter = way
    with FakeServer(Reply(protocol.stream(["Hel", "lo"]))) as server:
        assert ["Hel", "lo"] == [chunk.text for chunk in adapter(server.url).stream("hi") if chunk.text]
        if protocol.name == "chat":
            server.reply(Reply(protocol.stream(["Hel"], finish="length")))
            assert "length" == adapter(server.url).invoke("hi").finish_reason


def test_request_is_that_of_the_provider():
    """A conversation with each kind of message becomes the same turns, and parameters have their names."""
    settings = {"tools": [rxllm.tool(weather)], "temperature": 0.5, "top_p": 0.5, "seed": 7, "stop_sequences": ["."]}
    settings |= {"effort": "low"}
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        made(Chat(), server.url).invoke(CONVERSATION, **settings)
        from_llm(model_at(server.url), extra={"presence_penalty": 0.5}).invoke(CONVERSATION, max_tokens=9, **settings)
        expected, sent = (request.json for request in server.requests)
    assert [message["role"] for message in expected["messages"]] == [message["role"] for message in sent["messages"]]
    assert "Be brief." == sent["messages"][0]["content"]
    call = sent["messages"][2]["tool_calls"][0]
    assert ("c", {"city": "Oslo"}) == (call["id"], json.loads(call["function"]["arguments"]))
    assert ("c", "no") == (sent["messages"][3]["tool_call_id"], sent["messages"][3]["content"])
    assert (
        expected["messages"][4]["content"][1]["image_url"]["url"]
        == sent["messages"][4]["content"][1]["image_url"]["url"]
    )
    for name in ("temperature", "top_p", "seed", "reasoning_effort"):
        assert expected[name] == sent[name], name
    assert (".", 9, 0.5) == (sent["stop"], sent["max_tokens"], sent["presence_penalty"])
    [tool] = sent["tools"]
    assert ("weather", "The weather in a city.") == (tool["function"]["name"], tool["function"]["description"])


def test_agent_of_rxllm_runs_tools_with_it(way):
    """The result of a call goes back with its call."""
    protocol, adapter = way
    first = Reply(protocol.stream(["Wait"], tool_call=ToolCall(name="weather")))
    with FakeServer(first, Reply(protocol.stream(["It rains"]))) as server:
        assert "It rains" in rxllm.agent(adapter(server.url), weather).invoke("How is it?").text
        body = server.requests[1].json
    assert "rain in Paris" in str(body)
    assert "call_1" in str(body)


def test_reasoning_goes_back_as_it_came():
    """OpenAI's reasoning item is in the next request, unless the program has edited the answer."""
    reply = Responses().stream(["Wait"], reasoning=["hm"])
    with FakeServer(Reply(reply)) as server:
        model = from_llm(model_at(server.url, vendor.AsyncResponses))
        answer = model.invoke("hi")
        assert "hm" == answer.reasoning
        model.invoke([("user", "hi"), answer, ("user", "and?")])
        changed = [rxllm.TextPart("Stop") if isinstance(p, rxllm.TextPart) else p for p in answer.parts]
        model.invoke([("user", "hi"), attrs.evolve(answer, parts=changed), ("user", "and?")])
        _, whole, edited = ([item.get("type") for item in request.json["input"]] for request in server.requests)
    assert "reasoning" in whole
    assert "reasoning" not in edited


def test_shape_is_asked_for_and_decoded(way):
    """A structured value arrives by the schema, or by the prompt."""
    protocol, adapter = way

    @attrs.frozen
    class Answer:
        answer: int

    with FakeServer(Reply(protocol.stream(['{"answer":', " 42}"]))) as server:
        assert Answer(42) == rxllm.shaped(adapter(server.url), Answer, mode="native").invoke("?")
        assert "'answer'" in str(server.requests[0].json.get("response_format") or server.requests[0].json["text"])
        assert Answer(42) == rxllm.shaped(adapter(server.url), Answer, mode="prompted").invoke("?")


def test_usage_has_its_details():
    """Cached and reasoning tokens have rxllm's names."""
    counts = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    counts |= {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}
    answer = json.loads(Chat().whole(["hi"]))
    with FakeServer(Reply.json({**answer, "usage": counts})) as server:
        usage = from_llm(model_at(server.url)).invoke("hi", stream=False).usage
    expected = rxllm.Usage(input_tokens=9, output_tokens=5, cache_read_input_tokens=4, reasoning_output_tokens=2)
    assert expected == usage


# ── leaving, errors, loops ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["break", "dispose", "cancel"])
def test_leaving_closes_the_request(way, how):
    """The server sees it within 50 ms, whether the model is asynchronous or waits for the next piece in a thread."""
    protocol, adapter = way
    events = [*protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"])), End.HANG]

    async def leave(model, exchange):
        has_begun = asyncio.Event()

        async def read():
            async with model.astream("hi") as chunks:
                async for _ in chunks:
                    has_begun.set()
                    if how == "break":
                        break

        if how == "dispose":
            subscription = model("hi").subscribe(lambda _: has_begun.set())
            await has_begun.wait()
            left = time.monotonic()
            subscription.dispose()
        else:
            task = asyncio.create_task(read())
            await has_begun.wait()
            left = time.monotonic()
            if how == "cancel":
                task.cancel()
            await asyncio.wait([task])
        seconds = await exchange().closed_soon(left)
        assert exchange().aborted
        return seconds

    with FakeServer(Reply(events)) as server:
        model = adapter(server.url)
        assert soon(lambda: asyncio.run(leave(model, lambda: server.exchange(-1))))


def test_leaving_a_synchronous_stream_closes_the_request(way):
    """So does the end of a loop in blocking code."""
    protocol, adapter = way
    events = [*protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"])), End.HANG]

    def leave():
        stream = model.stream("hi")
        next(stream)
        left = time.monotonic()
        stream.close()
        return server.exchange(-1).wait_closed(left)

    with FakeServer(Reply(events)) as server:
        model = adapter(server.url)
        assert soon(leave)
        assert server.exchange(-1).aborted


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "BadRequest"), (401, "AuthenticationError"), (429, "RateLimited"), (503, "Overloaded")]
)
def test_error_has_the_exception_of_the_plugin_as_its_cause(way, status, kind):
    """The class, the status and the wait are those of rxllm's own providers."""
    protocol, adapter = way
    headers = {"retry-after": "7", "x-should-retry": "false"}
    reply = Reply.json(protocol.error_body(status, "It went wrong"), status=status, headers=headers)
    with FakeServer(reply) as server, pytest.raises(getattr(rxllm, kind), match="It went wrong") as raised:
        adapter(server.url).invoke("hi")
    assert (status, 7.0) == (raised.value.status, raised.value.retry_after)
    assert "openai" == type(raised.value.__cause__).__module__.partition(".")[0]


def test_key_is_never_shown(way):
    """If the server repeats it, neither the error nor its cause shows it."""
    protocol, adapter = way
    reply = Reply.json(protocol.error_body(401, f"wrong key {KEY}"), status=401)
    with FakeServer(reply) as server, pytest.raises(rxllm.AuthenticationError) as raised:
        adapter(server.url).invoke("hi")
    assert None is raised.value.__cause__
    assert KEY not in f"{raised.value} {raised.value.body} {adapter(server.url)!r}"


def test_broken_connections_and_answers_raise(way):
    """A stream that breaks off, and one that ends without an end."""
    protocol, adapter = way
    events = protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"]))
    for end in End.FIN, End.CLEAN:
        with FakeServer(Reply([*events, end])) as server:
            with pytest.raises(rxllm.Interrupted) as raised:
                adapter(server.url).invoke("hi")
            assert "Hello " == raised.value.partial.text


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_malformed_answers_raise(way):
    """Also those that make the library stumble over an exception of Python's, which is then the cause."""
    assert_malformed_answers_raise(*way)


def test_error_document_with_status_200_is_the_error_of_the_provider():
    """The library stumbles over it, but an asynchronous model keeps the document in the response."""
    document = {"error": {"message": "Too busy.", "type": "server_error", "code": "overloaded"}}
    with FakeServer(Reply.json(document)) as server, pytest.raises(rxllm.Overloaded, match=r"Too busy\.") as raised:
        from_llm(model_at(server.url)).invoke("hi", stream=False)
    assert (529, "overloaded", True) == (raised.value.status, raised.value.code, raised.value.retryable)
    assert isinstance(raised.value.__cause__, AttributeError)


def test_model_works_on_several_event_loops(way):
    """Blocking code and each event loop ask the same model."""
    protocol, adapter = way
    with FakeServer(Reply(protocol.stream(["ok"]))) as server:
        model = adapter(server.url)
        answers = [asyncio.run(model.ainvoke("hi")), asyncio.run(model.ainvoke("hi")), model.invoke("hi")]
        assert ["ok"] * 3 == [answer.text for answer in answers]


# ── models of other plugins ──────────────────────────────────────────────────────────────────────────────────────


class Old(llm.Model):
    """A model as plugins wrote them before llm had messages: texts, and the last turn only."""

    model_id = "old"
    attachment_types = frozenset({"image/png"})
    supports_tools = True

    class Options(llm.Options):
        """The options."""

        warmth: int | None = None

    def execute(self, prompt, stream, response, conversation):
        """Say what was read."""
        yield f"{prompt.system}: {prompt.prompt}, {len(prompt.attachments)} files, "
        yield f"{len(prompt.tool_results)} results"
        if prompt.tools:
            response.add_tool_call(llm.ToolCall("weather", {"city": "Rome"}))


def test_model_that_reads_the_last_turn_answers_one_turn():
    """It gets the system, the text and the files; a conversation is refused, because it would not see it."""
    model = from_llm(Old())
    asked = [("system", "Be brief."), rxllm.Message("user", [rxllm.TextPart("hi"), rxllm.FilePart("image/png", b"a")])]
    answer = model.invoke(asked)
    assert ("Be brief.: hi, 1 files, 0 results", "other") == (answer.text, answer.finish_reason)
    assert ("old", None) == (answer.model, answer.usage)
    with pytest.raises(rxllm.MisuseError, match="reads only the last message"):
        model.invoke([("user", "a"), ("assistant", "b"), ("user", "c")])


class Mute(Old):
    """A model that says nothing."""

    def execute(self, prompt, stream, response, conversation):
        """Say nothing."""
        return iter(())


def test_empty_answer_without_the_conversation_is_refused_too():
    """An empty answer to one turn is an answer."""
    assert "" == from_llm(Mute()).invoke("hi").text
    with pytest.raises(rxllm.MisuseError, match="reads only the last message"):
        from_llm(Mute()).invoke([("user", "a"), ("assistant", "b"), ("user", "c")])


def test_call_that_came_without_an_event_is_there():
    """Its id is llm's."""
    answer = from_llm(Old()).invoke("hi", tools=[rxllm.tool(weather)])
    [call] = answer.tool_calls
    assert ("weather", '{"city":"Rome"}', "tool_call") == (call.name, call.arguments, answer.finish_reason)
    assert call.id.startswith("tc_")


class Scripted(llm.AsyncModel):
    """A model of a vendor with signatures and calls without ids."""

    model_id = "scripted"
    needs_key = "anthropic"
    can_stream = True
    supports_tools = True
    reason = "tool_use"

    def __init__(self):
        self.seen = []

    def get_key(self, explicit_key=None):
        """Return no key."""

    async def execute(self, prompt, stream, response, conversation):
        """Think, call, and ask again with the result."""
        self.seen.append(prompt.messages)
        if any(message.role == "tool" for message in prompt.messages):
            yield "done"
            return
        event = parts.StreamEvent
        yield event(type="reasoning", chunk="hm")
        yield event(type="reasoning", chunk="", provider_metadata={"anthropic": {"signature": "s"}})
        yield event(type="tool_call_name", chunk="search", tool_call_id="s", server_executed=True)
        yield event(type="tool_result", chunk="found", tool_call_id="s", server_executed=True)
        yield event(type="text", chunk="wait")
        yield event(type="tool_call_name", chunk="weather")
        yield event(type="tool_call_args", chunk='{"city": ')
        yield event(type="tool_call_args", chunk='"Rome"}')
        response.set_usage(
            input=3, output=5, details={"cache_read_input_tokens": 4, "output_tokens_details": {"thinking_tokens": 1}}
        )
        response.response_json = {"stop_reason": self.reason, "id": "msg_1"}
        response.set_resolved_model("scripted-1")


def test_signatures_and_server_tools_go_back_as_they_came():
    """A call without an id gets one, which its result names; the server's own calls are not the program's."""
    model = Scripted()
    answer = rxllm.agent(from_llm(model), weather).invoke("How is it?")
    assert ("hm", "waitdone") == (answer.reasoning, answer.text)
    first, second = model.seen
    assert ["user"] == [message.role for message in first]
    assert ["user", "assistant", "tool"] == [message.role for message in second]
    thought, *_, call = second[1].parts
    assert {"anthropic": {"signature": "s"}} == thought.provider_metadata
    kinds = ["ReasoningPart", "ToolCallPart", "ToolResultPart", "TextPart", "ToolCallPart"]
    assert kinds == [type(part).__name__ for part in second[1].parts]
    [result] = second[2].parts
    assert ("weather", "rain in Rome", call.tool_call_id) == (result.name, result.output, result.tool_call_id)


def test_facts_are_read_from_the_response():
    """The finish reason, the id and the model; Anthropic's input tokens exclude those of its cache."""
    answer = from_llm(Scripted()).invoke("hi", tools=[rxllm.tool(weather)])
    facts = (answer.finish_reason, answer.raw_finish_reason, answer.id, answer.model, answer.provider)
    assert ("tool_call", "tool_use", "msg_1", "scripted-1", "anthropic") == facts
    counts = rxllm.Usage(input_tokens=7, output_tokens=5, cache_read_input_tokens=4, reasoning_output_tokens=1)
    assert counts == answer.usage


def test_empty_stop_reason_is_an_interrupted_answer():
    """Anthropic's answers always have one, and llm takes a stream that broke off for a whole answer."""
    model = Scripted()
    model.reason = None
    with pytest.raises(rxllm.Interrupted, match="finish reason is missing") as raised:
        from_llm(model).invoke("hi", tools=[rxllm.tool(weather)])
    assert "wait" == raised.value.partial.text


class Failing(llm.Model):
    """A model that fails."""

    model_id = "failing"
    error: Exception

    def execute(self, prompt, stream, response, conversation):
        """Raise the error."""
        yield "Hel"
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (llm.ModelError("overloaded"), rxllm.ProviderError),
        (llm.NeedsKeyException("No key found - add one using 'llm keys set x'"), rxllm.MisuseError),
        (NotImplementedError("Model does not support system prompts"), rxllm.MisuseError),
        (httpx.ReadError("cut"), rxllm.Interrupted),
        (ValueError("a bug"), ValueError),
    ],
)
def test_errors_of_plugins_are_those_of_rxllm(error, kind):
    """The exception is the cause; one that rxllm does not know stays as it is."""
    model = Failing()
    model.error = error
    with pytest.raises(kind, match=str(error)) as raised:
        from_llm(model).invoke("hi")
    assert error in (raised.value, raised.value.__cause__)
    is_of_request = isinstance(error, NotImplementedError) or isinstance(raised.value, rxllm.RxllmError)
    assert is_of_request == (getattr(raised.value, "request", None) is not None)


# ── models and values ────────────────────────────────────────────────────────────────────────────────────────────


async def test_name_of_a_model_is_enough(folder, monkeypatch):
    """The asynchronous model is taken if there is one. Handlers see the provider and the model."""
    services = []
    listen = [lambda event: services.append(event.run.service) if isinstance(event, rxllm.Started) else None]
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        entry = {"model_id": "mine", "model_name": "m", "api_base": f"{server.url}/v1", "aliases": ["my"]}
        (folder / "extra-openai-models.yaml").write_text(json.dumps([entry]), "utf-8")
        model = from_llm("my", handlers=listen)
        assert "ok" == (await model.ainvoke("hi")).text
        assert "AsyncLlm('mine')" == repr(model)
    assert ("llm", "mine") == (services[0].provider, services[0].model)
    assert "Llm" == type(from_llm("gpt-3.5-turbo-instruct")).__name__


def test_plugin_of_rxllm_is_the_inverse():
    """A model that went to llm and back gives the same texts and facts."""
    settings = {"seed": 3, "temperature": 0.2}
    again, model = from_llm("rxllm/embedded"), rxllm.Embedded()
    assert [c.text for c in model.stream("hi", **settings) if c.text] == [
        c.text for c in again.stream("hi", **settings) if c.text
    ]
    expected, answer = model.invoke("hi", **settings), again.invoke("hi", **settings)
    for name in ("usage", "finish_reason", "model"):
        assert getattr(expected, name) == getattr(answer, name), name


@pytest.mark.parametrize("wrong", [None, object(), 5, vendor.Chat])
def test_other_values_are_refused(wrong):
    """The message says what to pass."""
    with pytest.raises(rxllm.MisuseError, match="from_llm needs a model of llm"):
        from_llm(wrong)


def test_missing_or_old_library_is_a_sentence(monkeypatch):
    """The message says what to install."""
    for name in "llm", "llm.parts":
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(rxllm.MisuseError, match=r"from_llm needs llm 0\.32 or newer: pip install -U llm"):
                from_llm("gpt-4o-mini")


def test_unknown_name_is_refused():
    """The message says how to list the models."""
    with pytest.raises(rxllm.MisuseError, match="llm knows no model 'nobody'"):
        from_llm("nobody")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "other"}, "has its name already"),
        ({"top_k": 5}, "no option for top_k"),
        ({"stop_sequences": ["a", "b"]}, "stop"),
        ({"temperature": 3}, "temperature"),
        ({"extra": {"warmth": 1}}, "warmth"),
        ({"tools": [rxllm.tool(weather)], "tool_choice": "required"}, "no option for tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "server-side tool"),
        ({"response_format": {"type": "json_schema", "strange": 1}}, "takes a JSON schema"),
    ],
)
def test_unsupported_parameters_are_refused(settings, message):
    """Nothing is dropped in silence, and nothing is sent."""
    with FakeServer() as server:
        with pytest.raises(rxllm.MisuseError, match=message) as raised:
            from_llm(model_at(server.url)).invoke("hi", **settings)
        assert [] == server.requests
        assert "hi" == raised.value.request.text  # a server shows the sentence to its client


def test_unsupported_prompts_are_refused():
    """The model takes no sound, and llm takes no id of a file."""
    for part, message in (
        (rxllm.FilePart("audio/wav", b"a"), "takes application/pdf, .* not audio/wav"),
        (rxllm.FilePart("image/png", file_id="f", provider="openai"), "the bytes or the URL of a file"),
    ):
        with FakeServer() as server:
            with pytest.raises(rxllm.MisuseError, match=message):
                from_llm(model_at(server.url)).invoke([rxllm.Message("user", [part])])
            assert [] == server.requests


def test_json_without_a_schema_is_asked_for():
    """The option of the model has another name."""
    with FakeServer(Reply(Chat().stream(["{}"]))) as server:
        from_llm(model_at(server.url)).invoke("JSON, please", response_format="json")
        assert {"type": "json_object"} == server.requests[0].json["response_format"]


def test_example_runs_with_the_library(folder):
    """Without `llm`, it prints what to install; see tests/test_examples.py."""
    example = Path(rxllm.__file__).parents[1] / "examples" / "54_llm_plugin.py"
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    *song, tea = done.stdout.splitlines()
    assert len(song) > 1
    assert tea.endswith("Usage(input=4, output=20, details=None)")
