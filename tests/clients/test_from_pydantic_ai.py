"""Models of Pydantic AI as models of rxllm, against a real local server."""

import asyncio
import json

import attrs
import pytest
from foreign import CONVERSATION, assert_like_the_provider, assert_malformed_answers_raise, either_way, weather
from models import made
from protocols import Chat, Messages, ToolCall

import rxllm
from rxllm.adapters import from_pydantic_ai, to_pydantic_ai
from rxllm.testing import End, FakeServer, LLMContract, Reply

pytest.importorskip("pydantic_ai", reason="the extra 'clients' is not installed")

from pydantic_ai.exceptions import UserError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

KEY = "sk-do-not-show-this-to-anybody"
ONCE = {"max_retries": 0}  # a setting of Pydantic AI


def over_openai(url, **settings):
    """Return a model over OpenAI's chat protocol, one for each event loop."""

    def make():
        return OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY))

    return from_pydantic_ai(make, extra=ONCE, **settings)


def over_anthropic(url, **settings):
    """Return a model over Anthropic's protocol, one for each event loop."""

    def make():
        return AnthropicModel("m", provider=AnthropicProvider(base_url=url, api_key=KEY))

    return from_pydantic_ai(make, extra=ONCE, **settings)


@pytest.fixture(params=[(Chat(), over_openai), (Messages(), over_anthropic)], ids=["openai", "anthropic"])
def way(request):
    """A protocol, and the model of Pydantic AI that speaks it."""
    return request.param


class TestOverOpenAI(LLMContract):
    """The contract of a model."""

    protocol, adapter = Chat(), staticmethod(over_openai)

    @pytest.fixture
    def llm(self):
        """A model at a server that streams, or answers as a whole."""
        with FakeServer(either_way(self.protocol)) as server:
            yield self.adapter(server.url)


class TestOverAnthropic(TestOverOpenAI):
    """The contract of a model."""

    protocol, adapter = Messages(), staticmethod(over_anthropic)


def test_answer_is_that_of_the_provider(way):
    """Text, reasoning, a call, usage, finish reason, model and id are the same, streamed and whole."""
    protocol, adapter = way
    assert_like_the_provider(
        protocol, adapter, ("text", "reasoning", "finish_reason", "model", "id"), reasoning=["Hm, ", "well"]
    )


def test_request_is_that_of_the_provider():
    """A conversation with each kind of message becomes the same turns, and parameters have their names."""
    settings = {"tools": [rxllm.tool(weather)], "tool_choice": "weather", "max_tokens": 9, "temperature": 0.5}
    settings |= {"seed": 7, "stop_sequences": ["."], "parallel_tool_calls": False}
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        made(Chat(), server.url).invoke(CONVERSATION, **settings)
        over_openai(server.url).invoke(CONVERSATION, **settings)
        expected, sent = (request.json for request in server.requests)
    assert [message["role"] for message in expected["messages"]] == [message["role"] for message in sent["messages"]]
    assert "Be brief." == sent["messages"][0]["content"]
    assert expected["messages"][2]["tool_calls"] == sent["messages"][2]["tool_calls"]
    assert ("c", True) == (sent["messages"][3]["tool_call_id"], "no" in sent["messages"][3]["content"])
    assert expected["messages"][4]["content"][1] == sent["messages"][4]["content"][1]
    for name in ("temperature", "seed", "stop", "parallel_tool_calls"):
        assert expected[name] == sent[name], name
    assert ("required", ["weather"]) == (sent["tool_choice"], [tool["function"]["name"] for tool in sent["tools"]])


def test_agent_of_rxllm_runs_tools_with_it(way):
    """The result of a call goes back, and the thoughts before the call with their signature."""
    protocol, adapter = way
    call = ToolCall(name="weather")
    first = Reply(protocol.stream(["Wait"], reasoning=["hm"], tool_call=call))
    with FakeServer(first, Reply(protocol.stream(["It rains"]))) as server:
        assert "It rains" in rxllm.agent(adapter(server.url), weather).invoke("How is it?").text
        body = server.requests[1].json
    assert "rain in Paris" in str(body)
    if protocol.name == "messages":
        thought = body["messages"][1]["content"][0]
        assert ("thinking", "hm") == (thought["type"], thought["thinking"])
        assert thought["signature"]


def test_answer_that_was_edited_goes_back_as_it_is():
    """What rxllm has kept of the response does not count after an edit."""
    with FakeServer(Reply(Messages().stream(["Wait"], reasoning=["hm"]))) as server:
        llm = over_anthropic(server.url)
        answer = llm.invoke("hi")
        changed = [rxllm.TextPart("Stop") if isinstance(p, rxllm.TextPart) else p for p in answer.parts]
        llm.invoke([("user", "hi"), attrs.evolve(answer, parts=changed), ("user", "and?")])
        turn = server.requests[1].json["messages"][1]
    assert ["hm", "Stop"] == [block.get("thinking") or block["text"] for block in turn["content"]]


def test_shape_is_asked_for_and_decoded(way):
    """A structured value arrives by the schema of the provider, or by a call."""
    protocol, adapter = way

    @attrs.frozen
    class Answer:
        answer: int

    with FakeServer(Reply(protocol.stream(['{"answer":', " 42}"]))) as server:
        llm = adapter(server.url)
        if protocol.name == "chat":
            assert Answer(42) == rxllm.shaped(llm, Answer, mode="native").invoke("?")
            assert "answer" in str(server.requests[0].json["response_format"])
        server.reply(Reply(protocol.stream([], tool_call=ToolCall(name="answer", pieces=['{"answer": 42}']))))
        assert Answer(42) == rxllm.shaped(llm, Answer, mode="tool").invoke("?")


# ── leaving, errors, loops ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["break", "dispose", "cancel"])
async def test_leaving_closes_the_request(way, how):
    """The server sees it at once."""
    protocol, adapter = way
    with FakeServer(
        Reply([*protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"])), End.HANG])
    ) as server:
        llm, has_begun = adapter(server.url), asyncio.Event()

        async def read():
            async with llm.astream("hi") as chunks:
                async for _ in chunks:
                    has_begun.set()
                    if how == "break":
                        break

        if how == "dispose":
            subscription = llm("hi").subscribe(lambda _: has_begun.set())
            await has_begun.wait()
            subscription.dispose()
        else:
            task = asyncio.create_task(read())
            await has_begun.wait()
            if how == "cancel":
                task.cancel()
            await asyncio.wait([task])
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "BadRequest"), (401, "AuthenticationError"), (429, "RateLimited"), (503, "Overloaded")]
)
def test_error_has_the_exception_of_the_library_as_its_cause(way, status, kind):
    """The class, the status and the wait are those of rxllm's own providers."""
    protocol, adapter = way
    reply = Reply.json(protocol.error_body(status, "It went wrong"), status=status, headers={"retry-after": "7"})
    with FakeServer(reply) as server, pytest.raises(getattr(rxllm, kind), match="It went wrong") as raised:
        adapter(server.url).invoke("hi")
    assert (status, 7.0) == (raised.value.status, raised.value.retry_after)
    assert "pydantic_ai" == type(raised.value.__cause__).__module__.partition(".")[0]


def test_key_is_never_shown(way):
    """If the server repeats it, neither the error nor its cause shows it."""
    protocol, adapter = way
    reply = Reply.json(protocol.error_body(401, f"wrong key {KEY}"), status=401)
    with FakeServer(reply) as server, pytest.raises(rxllm.AuthenticationError) as raised:
        adapter(server.url).invoke("hi")
    assert None is raised.value.__cause__
    assert KEY not in f"{raised.value} {raised.value.body} {adapter(server.url)!r}"


def test_key_in_an_unreadable_answer_is_never_shown():
    """The exception of Pydantic AI shows it, so it is not the cause."""
    answer = json.loads(Chat().whole(["hi"]))
    answer["choices"][0]["message"] = {"role": KEY, "content": 5}
    with FakeServer(Reply.json(answer)) as server, pytest.raises(rxllm.ProtocolError, match="could not read") as raised:
        over_openai(server.url).invoke("hi", stream=False)
    assert (None, True) == (raised.value.__cause__, raised.value.__suppress_context__)
    assert KEY not in str(raised.value)
    assert "***" in str(raised.value)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_malformed_answers_raise(way):
    """Also those that make the library stumble over an exception of Python's, which is then the cause."""
    assert_malformed_answers_raise(*way)


@pytest.mark.parametrize("stream", [True, False])
def test_mistake_in_a_function_stays_as_it_is(stream):
    """The TypeError of a program's own function tells nothing of a response."""

    async def answer(messages, info):
        return 1 + "one"

    async def pieces(messages, info):
        yield "Hello"
        yield 1 + "one"

    with pytest.raises(TypeError, match="unsupported operand"):
        from_pydantic_ai(FunctionModel(answer, stream_function=pieces)).invoke("hi", stream=stream)


@pytest.mark.parametrize("model", [over_openai, lambda url: made(Chat(), url, max_retries=0)], ids=["adapter", "own"])
@pytest.mark.parametrize(("code", "retryable"), [("rate_limit_exceeded", True), ("insufficient_quota", False)])
def test_advice_of_the_server_counts(model, code, retryable):
    """A spent quota and the server's own advice decide on a retry, as with rxllm's providers."""
    body = {"error": {"message": "no", "type": "x", "code": code}}
    for headers, expected in ({}, retryable), ({"x-should-retry": "false"}, False):
        with (
            FakeServer(Reply.json(body, status=429, headers=headers)) as server,
            pytest.raises(rxllm.RateLimited) as raised,
        ):
            model(server.url).invoke("hi")
        assert (429, code, expected) == (raised.value.status, raised.value.code, raised.value.retryable)


def test_broken_connections_and_answers_raise(way):
    """No connection, a stream that breaks off, and a web page are errors."""
    protocol, adapter = way
    with FakeServer(
        Reply([*protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"])), End.FIN])
    ) as server:
        with pytest.raises(rxllm.Interrupted) as raised:
            adapter(server.url).invoke("hi")
        assert "Hello " == raised.value.partial.text
        server.reply(Reply([*protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"])), End.CLEAN]))
        with pytest.raises(rxllm.Interrupted):
            adapter(server.url).invoke("hi")
        server.reply(Reply(b"<html>Welcome</html>", content_type="text/html"))
        with pytest.raises(rxllm.RxllmError):
            adapter(server.url).invoke("hi")
    with pytest.raises(rxllm.TransportError):
        adapter(server.url).invoke("hi")


def test_one_model_works_on_one_event_loop_at_a_time():
    """After the end of a loop another one may use it. While both run, a sentence names the function to pass."""
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{server.url}/v1", api_key=KEY))
        llm = from_pydantic_ai(model)

        async def ask():
            async with model:  # closes its connections, as in Pydantic AI
                return (await llm.ainvoke("hi")).text

        assert ["ok", "ok"] == [asyncio.run(ask()), asyncio.run(ask())]

        async def ask_from_two():
            async with model:
                await llm.ainvoke("hi")
                with pytest.raises(rxllm.MisuseError, match=r"client=lambda: pydantic_ai\.OpenAIChatModel"):
                    await asyncio.to_thread(llm.invoke, "hi")

        asyncio.run(ask_from_two())


# ── models and values ────────────────────────────────────────────────────────────────────────────────────────────


def test_name_of_a_model_is_enough(monkeypatch):
    """The name is that of Pydantic AI, and handlers see the provider and the model."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        services = []
        listen = [lambda event: services.append(event.run.service) if isinstance(event, rxllm.Started) else None]
        assert "ok" == from_pydantic_ai("openai-chat:gpt-5", handlers=listen).invoke("hi").text
    assert ("openai", "gpt-5") == (services[0].provider, services[0].model)


def test_test_model_answers():
    """A model of Pydantic AI without a server works as well."""
    assert "success" in from_pydantic_ai(TestModel()).invoke("hi").text


def test_both_adapters_are_inverse():
    """A model that went to Pydantic AI and back gives the same texts and facts."""
    llm = rxllm.adapters.from_callable(lambda request: rxllm.Chunk(request.text, finish_reason="length"))
    again = from_pydantic_ai(to_pydantic_ai(llm))
    assert [c.text for c in llm.stream("hi") if c.text] == [c.text for c in again.stream("hi") if c.text]
    assert llm.invoke("hi").finish_reason == again.invoke("hi").finish_reason


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [("no-such-model", UserError), (lambda loop: TestModel(), TypeError), (lambda: 1 // 0, ZeroDivisionError)],
)
def test_model_that_cannot_be_made_is_refused(wrong, cause):
    """A name that Pydantic AI does not know, and a function that fails. The exception is the cause."""
    with pytest.raises(rxllm.MisuseError, match="Pydantic AI has no such model, or the function") as raised:
        from_pydantic_ai(wrong)
    assert cause is type(raised.value.__cause__)


@pytest.mark.parametrize("wrong", [None, object(), lambda: 5, rxllm.Embedded(), TestModel])
def test_other_values_are_refused(wrong):
    """The message says what to pass."""
    if wrong is TestModel:  # a class is a function that returns a model
        assert from_pydantic_ai(wrong).invoke("hi")
        return
    with pytest.raises(rxllm.MisuseError, match="a model of Pydantic AI, the name of one, or a function"):
        from_pydantic_ai(wrong)


def test_unsupported_parameters_are_refused():
    """Nothing is dropped in silence, also where Pydantic AI refuses it. The error is about the request."""
    llm = from_pydantic_ai(TestModel())
    for settings in (
        {"model": "other"},
        {"response_format": "json"},
        {"tools": [{"type": "web_search"}]},
        {"tools": [rxllm.tool(weather)], "tool_choice": {"type": "custom"}},
        {"response_format": rxllm.ResponseSchema({"type": "object"})},
    ):
        with pytest.raises(rxllm.MisuseError, match="Pydantic AI") as raised:
            llm.invoke("hi", **settings)
        assert "hi" == raised.value.request.text  # a server shows the sentence to its client


@pytest.mark.parametrize(
    ("adapter", "file", "kind"),
    [
        (over_openai, rxllm.FilePart("video/mp4", b"ftyp"), NotImplementedError),
        (over_anthropic, rxllm.FilePart("audio/wav", b"RIFF"), NotImplementedError),
        (over_anthropic, rxllm.FilePart("application/zip", b"PK"), RuntimeError),
    ],
)
def test_file_that_a_vendor_lacks_is_refused(adapter, file, kind):
    """Pydantic AI raises exceptions of Python. The error is about the request, so a server answers 400."""
    with pytest.raises(rxllm.MisuseError, match="Pydantic AI refuses the request: ") as raised:
        adapter("http://127.0.0.1:9").invoke(rxllm.Message("user", [file]))
    assert (kind, (file,)) == (type(raised.value.__cause__), raised.value.request.messages[0].parts)
