"""Models that LiteLLM reaches as models of rxllm, against a real local server."""

import asyncio
import json
import os
import pickle
import subprocess
import sys

import attrs
import pytest
from foreign import CONVERSATION, assert_like_the_provider, assert_malformed_answers_raise, either_way, weather
from models import made
from protocols import Chat, Messages, ToolCall

import rxllm
from rxllm.adapters import from_litellm
from rxllm.testing import End, FakeServer, LLMContract, Reply

pytestmark = [
    pytest.mark.usefixtures("litellm"),
    pytest.mark.timeout(300),  # importing it takes seconds
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),  # LiteLLM's filters are pytest's now
]

KEY = "sk-do-not-show-this-to-anybody"


def over_openai(url, **options):
    """Return a model over OpenAI's chat protocol."""
    return from_litellm("openai/m", api_base=f"{url}/v1", api_key=KEY, max_retries=0, **options)


def over_anthropic(url, **options):
    """Return a model over Anthropic's protocol."""
    return from_litellm("anthropic/m", api_base=url, api_key=KEY, max_retries=0, **options)


@pytest.fixture(params=[(Chat(), over_openai), (Messages(), over_anthropic)], ids=["openai", "anthropic"])
def way(request):
    """A protocol, and the model of LiteLLM that speaks it."""
    return request.param


@pytest.fixture
def nothing_is_left_behind():
    """Check nothing: LiteLLM keeps threads and tasks on purpose. The fixture `litellm` closes its connections."""


class TestOverOpenAI(LLMContract):
    """The contract of a model."""

    protocol, adapter = Chat(model="m"), staticmethod(over_openai)

    @pytest.fixture
    def leaks(self):
        """Check nothing, as above."""

    @pytest.fixture
    def llm(self, run, monkeypatch):
        """A model at a server that streams, or answers as a whole."""
        monkeypatch.setattr(self, "run", run)

        with FakeServer(either_way(self.protocol)) as server:
            yield self.adapter(server.url)


class TestOverAnthropic(TestOverOpenAI):
    """The contract of a model."""

    protocol, adapter = Messages(model="m"), staticmethod(over_anthropic)


def test_answer_is_that_of_the_provider(way):
    """Text, reasoning, calls, usage and finish reason are the same, streamed and whole."""
    protocol, adapter = way
    assert_like_the_provider(protocol, adapter, ("text", "reasoning", "finish_reason"), reasoning=["Hm, ", "well"])


def test_request_is_that_of_the_provider():
    """A conversation with each kind of message becomes the same messages, and parameters have their names."""
    settings = {"tools": [rxllm.tool(weather)], "tool_choice": "weather", "max_tokens": 9, "temperature": 0.5}
    settings |= {"seed": 7, "stop_sequences": ["."], "parallel_tool_calls": False, "effort": "low", "top_k": 3}
    settings |= {"extra": {"presence_penalty": 0.5}}
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        made(Chat(), server.url).invoke(CONVERSATION, model="m", **settings)
        over_openai(server.url, service_tier="flex").invoke(CONVERSATION, **settings)
        expected, sent = (request.json for request in server.requests)
    assert {**expected, "service_tier": "flex"} == sent


def test_reasoning_goes_back_as_it_was_signed():
    """The next request has each thought with its signature, streamed and whole; and another vendor gets none."""
    protocol, call = Messages(), ToolCall(name="weather")
    said = {"reasoning": ["h", "m"], "tool_call": call}
    for stream, reply in (True, Reply(protocol.stream([], **said))), (False, Reply.json(protocol.whole([], **said))):
        with FakeServer(reply, Reply(protocol.stream(["It rains"]))) as server:
            llm = over_anthropic(server.url, effort="low", max_tokens=9999).bind(model="anthropic/claude-sonnet-4-6")
            answer = llm.invoke("hi", tools=[rxllm.tool(weather)], stream=stream)
            result = rxllm.Message("tool", [rxllm.ToolResultPart("call_1", "rain")])
            llm.invoke([("user", "hi"), answer, result], tools=[rxllm.tool(weather)], stream=True)
            turn = server.requests[1].json["messages"][1]
            assert ["thinking", "tool_use"] == [block["type"] for block in turn["content"]]
            assert ("hm", "EqQBCgIYAhIM") == (turn["content"][0]["thinking"], turn["content"][0]["signature"])
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        over_openai(server.url).invoke([("user", "hi"), answer, result])
        assert {"role", "tool_calls"} == server.requests[0].json["messages"][1].keys() - {"content"}


def test_hidden_thought_goes_back():
    """It is encrypted, and the vendor wants it back."""
    hidden = {"type": "redacted_thinking", "data": "c2VjcmV0"}
    body = json.loads(Messages().whole(["Hello"]))
    body["content"].insert(0, hidden)
    with FakeServer(Reply.json(body)) as server:
        llm = over_anthropic(server.url, stream=False)
        llm.invoke([("user", "hi"), llm.invoke("hi"), ("user", "and?")])
        turn = server.requests[1].json["messages"][1]
    assert [hidden, "Hello"] == [turn["content"][0], turn["content"][1]["text"]]


def test_agent_of_rxllm_runs_tools_with_it(way):
    """The result of a call goes back."""
    protocol, adapter = way
    first = Reply(protocol.stream(["Wait"], tool_call=ToolCall(name="weather")))
    with FakeServer(first, Reply(protocol.stream(["It rains"]))) as server:
        assert "It rains" in rxllm.agent(adapter(server.url), weather).invoke("How is it?").text
        assert "rain in Paris" in str(server.requests[1].json)


@pytest.mark.parametrize(("name", "mode"), [("openai/gpt-4o", "native"), ("openai/m", "tool")])
def test_shape_is_asked_for_and_decoded(name, mode):
    """A structured value arrives: by its schema from a model that LiteLLM knows to take one, else by a call."""

    @attrs.frozen
    class Answer:
        answer: int

    text = '{"answer": 42}'
    called = Chat().stream([], tool_call=ToolCall(name="answer", pieces=[text]))
    with FakeServer(Reply(Chat().stream([text]) if mode == "native" else called)) as server:
        llm = from_litellm(name, api_base=f"{server.url}/v1", api_key=KEY)
        assert Answer(42) == rxllm.shaped(llm, Answer).invoke("?")
        body = server.requests[0].json
    assert ("response_format" in body, "tools" in body) == (mode == "native", mode == "tool")


# ── leaving, errors, loops ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["break", "dispose", "cancel", "cancel early", "cancel whole"])
def test_leaving_closes_the_request(run, way, how):
    """The server sees it at once, also before its answer begins."""
    protocol, adapter = way
    begun = [] if " " in how else protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"]))

    async def leave(server):
        llm, has_begun = adapter(server.url), asyncio.Event()

        async def read():
            async with llm.astream("hi", stream="whole" not in how) as chunks:
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
            await (server.exchange(0).arrived.soon() if " " in how else has_begun.wait())
            if "cancel" in how:
                task.cancel()
            await asyncio.wait([task])
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted

    with FakeServer(Reply([*begun, End.HANG])) as server:
        run(leave(server))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequest"),
        (401, "AuthenticationError"),
        (403, "AuthenticationError"),
        (404, "BadRequest"),
        (429, "RateLimited"),
        (500, "ProviderError"),
        (503, "Overloaded"),
    ],
)
def test_error_has_the_exception_of_the_library_as_its_cause(way, status, kind):
    """The class, the status and the wait are those of rxllm's own providers."""
    protocol, adapter = way
    reply = Reply.json(protocol.error_body(status, "It went wrong"), status=status, headers={"retry-after": "7"})
    with FakeServer(reply) as server, pytest.raises(getattr(rxllm, kind), match=r"^It went wrong") as raised:
        adapter(server.url).invoke("hi")
    assert (status, 7.0, status in (429, 500, 503)) == (
        raised.value.status,
        raised.value.retry_after,
        raised.value.retryable,
    )
    assert "litellm" == type(raised.value.__cause__).__module__.partition(".")[0]


@pytest.mark.parametrize("named", [True, False], ids=["option", "environment"])
def test_key_is_never_shown(litellm, way, named, monkeypatch):
    """If the server repeats it, neither the error nor its cause shows it."""
    protocol, adapter = way
    reply = Reply.json(protocol.error_body(401, f"wrong key {KEY}"), status=401)
    if not named:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with FakeServer(reply) as server:
        llm = adapter(server.url)
        if not named:
            llm = from_litellm(llm.model, api_base=llm.options["api_base"], max_retries=0)
        with pytest.raises(rxllm.AuthenticationError, match=r"wrong key \*\*\*") as raised:
            llm.invoke("hi")
    assert (None, True) == (raised.value.__cause__, raised.value.__suppress_context__)
    assert KEY not in f"{raised.value} {raised.value.body} {llm!r}"


def test_broken_connections_and_answers_raise(way):
    """No connection, a stream that breaks off, an error in a stream and a web page are errors."""
    protocol, adapter = way
    begun = protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"]))
    with FakeServer() as server:
        for end in (End.FIN, End.CLEAN):
            server.reply(Reply([*begun, end]))
            with pytest.raises(rxllm.Interrupted) as raised:
                adapter(server.url).invoke("hi")
            assert "Hello " == raised.value.partial.text
        server.reply(Reply([*begun, protocol.error_frame()]))
        with pytest.raises(rxllm.ProviderError, match="The server had an error") as raised:
            adapter(server.url).invoke("hi")
        assert ("Hello ", 500) == (raised.value.partial.text, raised.value.status)
        for stream in (True, False):
            server.reply(Reply(b"<html>Welcome</html>", content_type="text/html"))
            with pytest.raises(rxllm.RxllmError):
                adapter(server.url).invoke("hi", stream=stream)
        server.reply(Reply.json({"choices": 7, "content": 7}))
        with pytest.raises(rxllm.RxllmError):
            adapter(server.url).invoke("hi", stream=False)
        server.reply(Reply([End.HANG]))
        with pytest.raises(rxllm.Timeout):
            adapter(server.url, timeout=0.2).invoke("hi")
    with pytest.raises(rxllm.TransportError):
        adapter(server.url).invoke("hi")


def test_error_document_with_status_200_is_the_error_of_the_provider():
    """LiteLLM keeps its code as the status."""
    document = {"error": {"message": "Too busy.", "type": "server_error", "code": "overloaded"}}
    with FakeServer(Reply.json(document)) as server, pytest.raises(rxllm.Overloaded, match=r"Too busy\.") as raised:
        over_openai(server.url).invoke("hi", stream=False)
    assert (529, "overloaded", True) == (raised.value.status, raised.value.code, raised.value.retryable)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_malformed_answers_raise(way):
    """Also those that make the library stumble over an exception of Python's, which is then the cause."""
    assert_malformed_answers_raise(*way)


def test_litellm_retries_unless_a_combinator_does():
    """LiteLLM retries as it is told. Within `retry`, N attempts send N requests."""
    fails = Reply.json(Chat().error_body(500), status=500, headers={"retry-after-ms": "1"})
    with FakeServer(fails) as server:
        llm = from_litellm("openai/m", api_base=f"{server.url}/v1", api_key=KEY, max_retries=2)
        with pytest.raises(rxllm.ProviderError):
            llm.invoke("hi")
        assert 3 == len(server.requests)
        with pytest.raises(rxllm.ProviderError):
            rxllm.retry(llm, attempts=2, delay=lambda *_: 0.001).invoke("hi")
        assert 5 == len(server.requests)


def test_several_event_loops(run, way):
    """One model answers two event loops, one after the other, and synchronous code."""
    protocol, adapter = way
    with FakeServer(Reply(protocol.stream(["ok"]))) as server:
        llm = adapter(server.url)
        answers = [run(llm.ainvoke("hi")), run(llm.ainvoke("hi")), llm.invoke("hi")]
    assert ["ok"] * 3 == [answer.text for answer in answers]


# ── models and options ───────────────────────────────────────────────────────────────────────────────────────────


def test_handlers_see_the_vendor_and_the_model(litellm):
    """The names are those of LiteLLM; another model of a call counts."""
    services = []
    listen = [lambda event: services.append(event.run.service) if isinstance(event, rxllm.Started) else None]
    llm = from_litellm("openai/gpt-5", handlers=listen, mock_response="Hi there")
    assert "Hi there" == llm.invoke("hi").text
    assert "Hi there" == llm.invoke("hi", model="anthropic/claude-sonnet-4-6", stream=False).text
    assert [("openai", "gpt-5"), ("anthropic", "claude-sonnet-4-6")] == [
        (each.provider, each.model) for each in services
    ]


def test_model_pickles_without_its_key(litellm):
    """The other process has keys of its own in its environment."""
    llm = over_openai("http://127.0.0.1:1", temperature=0.5)
    data = pickle.dumps(llm)
    assert KEY.encode() not in data
    again = pickle.loads(data)  # noqa: S301
    assert ({"api_base": "http://127.0.0.1:1/v1", "max_retries": 0}, 0.5) == (
        again.options,
        again.parameters.temperature,
    )


@pytest.mark.parametrize(
    ("option", "advice"),
    [({"stop": ["."]}, "stop_sequences"), ({"max_completion_tokens": 9}, "max_tokens"), ({"n": 2}, "Leave it out")],
)
def test_fields_that_rxllm_writes_are_refused(litellm, option, advice):
    """The message has rxllm's name."""
    with pytest.raises(rxllm.MisuseError, match=advice):
        from_litellm("openai/m", **option)


@pytest.mark.parametrize("name", ["nobody-knows-it", "nobody/m", None])
def test_unknown_vendors_are_refused(litellm, name):
    """The message shows how a name looks."""
    with pytest.raises(rxllm.MisuseError, match=r"such as|as in"):
        from_litellm(name)


def test_nothing_reaches_another_machine():
    """Neither the import nor a request looks anything up elsewhere, as far as LiteLLM is told so."""
    program = """
import sys
asked = []
def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect", "socket.sendto"):
        place = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        asked.append(place[0] if isinstance(place, tuple) else place)
sys.addaudithook(hook)
import rxllm, rxllm.adapters
assert "litellm" not in sys.modules
print(rxllm.adapters.from_litellm("openai/m", api_base=sys.argv[1], api_key="k").invoke("hi"))
assert "litellm" in sys.modules
print({*map(str, asked)})
"""
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        environment = {**os.environ, "LITELLM_OFFLINE_MODE": "true"}
        command = [sys.executable, "-c", program, f"{server.url}/v1"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert "ok\n{'127.0.0.1'}\n" == run.stdout, run.stderr
