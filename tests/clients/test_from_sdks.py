"""Models that send their requests with the clients of OpenAI's and Anthropic's SDKs, against a real local server."""

import asyncio
import base64
import pickle

import pytest
from attrs import frozen
from contracts import ProtocolContract
from foreign import assert_malformed_answers_raise
from models import made
from protocols import Chat, Messages, Responses, ToolCall, aws_event

import rxllm
from rxllm.adapters import from_anthropic, from_openai
from rxllm.testing import End, FakeServer, Reply, Signal

openai = pytest.importorskip("openai", reason="the extra 'clients' is not installed")
anthropic = pytest.importorskip("anthropic", reason="the extra 'clients' is not installed")

KEY = "sk-do-not-show-this-to-anybody"


def over_openai(url, kind=openai.AsyncOpenAI, **settings):
    """Return a model over OpenAI's SDK, which makes a client for each event loop."""
    return from_openai(lambda: kind(api_key=KEY, base_url=f"{url}/v1", max_retries=0), "m", **settings)


def over_anthropic(url, kind=anthropic.AsyncAnthropic, **settings):
    """Return a model over Anthropic's SDK, which makes a client for each event loop."""
    return from_anthropic(lambda: kind(api_key=KEY, base_url=url, max_retries=0), "m", **settings)


class SDKContract(ProtocolContract):
    """The contract over an SDK, whose client takes longer to create than the default client of rxllm."""

    def impatient(self, url, seconds):
        """Return a model with longer time limits."""
        return super().impatient(url, 8 * seconds)


class TestOpenAI(SDKContract):
    """The contract of a provider, over an asynchronous client."""

    protocol = Chat()

    def provider(self, url):
        """Return the model."""
        return over_openai(url, api="chat")


class TestOpenAIResponses(SDKContract):
    """The contract of a provider, over an asynchronous client and the Responses protocol."""

    protocol = Responses()

    def provider(self, url):
        """Return the model."""
        return over_openai(url, api="responses")


class Blocking(SDKContract):
    """The contract over a blocking client. It differs only while the client waits for its response to begin."""

    @pytest.mark.parametrize("steps", [(b"",)], ids=["after the headers"])
    def test_silence_before_the_first_chunk_times_out(self, server, steps):
        """The answer fails with Timeout, and the request is closed."""
        super().test_silence_before_the_first_chunk_times_out(server, steps)

    @pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "whole"])
    def test_early_cancellation_closes_the_request(self, server, llm, streaming):
        """The client closes its connection as soon as the response begins."""
        begins = Signal()
        server.reply(self.streamed([begins, b"", End.HANG]))

        async def leave():
            subscription = llm.bind(stream=streaming)(self.prompt).subscribe()
            await server.exchange(0).arrived.soon()
            subscription.dispose()
            begins.set()
            await asyncio.to_thread(self.closes, server.exchange(0))

        self.run(leave())


class TestBlockingOpenAI(Blocking):
    """The contract of a provider, over a blocking client."""

    protocol = Chat()

    def provider(self, url):
        """Return the model."""
        return over_openai(url, openai.OpenAI, api="chat")


class TestAnthropic(SDKContract):
    """The contract of a provider, over an asynchronous client."""

    protocol = Messages()

    def provider(self, url):
        """Return the model."""
        return over_anthropic(url)


class TestBlockingAnthropic(Blocking):
    """The contract of a provider, over a blocking client."""

    protocol = Messages()

    def provider(self, url):
        """Return the model."""
        return over_anthropic(url, anthropic.Anthropic)


WAYS = {
    "chat": (Chat(), lambda url, **settings: over_openai(url, api="chat", **settings)),
    "responses": (Responses(), lambda url, **settings: over_openai(url, api="responses", **settings)),
    "messages": (Messages(), over_anthropic),
}
SDKS = {"openai": (Chat(), over_openai), "anthropic": (Messages(), over_anthropic)}


@frozen
class Answer:
    """A structured value."""

    answer: int


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request):
    """A protocol and the adapter that speaks it, in turn."""
    return request.param


@pytest.fixture(params=SDKS.values(), ids=SDKS)
def sdk(request):
    """A protocol and the adapter of each SDK in turn."""
    return request.param


CLIENTS = {
    "openai": (Chat(), openai.AsyncOpenAI, from_openai),
    "anthropic": (Messages(), anthropic.AsyncAnthropic, from_anthropic),
}


@pytest.fixture(params=CLIENTS.values(), ids=CLIENTS)
def asynchronous(request):
    """A protocol, the class of asynchronous clients and the adapter of each SDK in turn."""
    return request.param


# ── requests and answers ─────────────────────────────────────────────────────────────────────────────────────────


def weather(city: str) -> str:
    """The weather in a city."""
    return city


CONVERSATION = [
    ("system", "Be brief."),
    ("user", "How is the weather?"),
    rxllm.Message("assistant", [rxllm.ReasoningPart("Hm"), rxllm.ToolCallPart("call_1", "weather", '{"city":"Oslo"}')]),
    rxllm.Message("tool", [rxllm.ToolResultPart("call_1", "rain")]),
    rxllm.Message("user", [rxllm.TextPart("And here?"), rxllm.FilePart("image/png", b"\x89PNG\r\n\x1a\n")]),
]
SETTINGS = {"tools": [rxllm.tool(weather)], "tool_choice": "required", "max_tokens": 99, "temperature": 0.5}


def test_requests_and_answers_are_those_of_the_provider(way):
    """The body and the path are the same; and so are text, reasoning, calls, usage and finish reason."""
    protocol, adapter = way
    reply = protocol.stream(["Hel", "lo"], reasoning=["Hm, ", "well"], tool_call=ToolCall(), usage=(3, 5))
    with FakeServer(Reply(reply)) as server:
        through = adapter(server.url).bind(**SETTINGS)
        own = made(protocol, server.url).bind(model="m", **SETTINGS)
        assert own.invoke(CONVERSATION) == through.invoke(CONVERSATION)
        first, second = server.requests
        assert (first.path, first.json) == (second.path, second.json)
        assert [*map(repr, own.stream("hi"))] == [*map(repr, through.stream("hi"))]


def test_shape_is_asked_for_and_decoded(way):
    """A structured value arrives as with the provider."""
    protocol, adapter = way
    with FakeServer(Reply(protocol.stream(['{"answer":', " 42}"]))) as server:
        assert Answer(42) == rxllm.shaped(adapter(server.url), Answer, mode="native").invoke("?")
        assert "schema" in str(server.requests[0].json)


def test_models_are_listed_through_the_client(sdk):
    """The list comes from the client's server, with the client's key."""
    _, adapter = sdk
    with FakeServer(Reply.json({"data": [{"id": "m-1"}]})) as server:
        assert ("m-1",) == adapter(server.url).models()
        [request] = server.requests
    assert ("GET", "/v1/models") == (request.method, request.path)
    assert KEY in str(request.headers)


def test_headers_of_the_model_win(sdk):
    """A header of the model replaces that of the client."""
    protocol, adapter = sdk
    with FakeServer(Reply(protocol.stream(["ok"]))) as server:
        adapter(server.url, headers={"Anthropic-Version": "2099-01-01", "User-Agent": "me"}).invoke("hi")
        [request] = server.requests
    assert ("2099-01-01", "me") == (request.headers["anthropic-version"], request.headers["user-agent"])


def test_azure_client_moves_the_model_to_the_path():
    """The path, the query and the key are those of Azure."""
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:

        def client():
            return openai.AsyncAzureOpenAI(api_key=KEY, azure_endpoint=server.url, api_version="2024-10-21")

        assert "ok" == from_openai(client, "mine", api="chat").invoke("hi").text
        [request] = server.requests
    assert ("/openai/deployments/mine/chat/completions", "api-version=2024-10-21") == (request.path, request.query)
    assert KEY == request.headers["api-key"]


def test_vertex_client_moves_the_model_to_the_path():
    """The path is that of Vertex, and the body names its version."""
    with FakeServer(Reply(Messages().stream(["ok"]))) as server:

        def client():
            return anthropic.AsyncAnthropicVertex(
                region="r", project_id="p", access_token=KEY, base_url=f"{server.url}/v1"
            )

        assert "ok" == from_anthropic(client, "claude").invoke("hi").text
        [request] = server.requests
    assert request.path.endswith("/models/claude:streamRawPredict")
    assert "anthropic_version" in request.json


def bedrock(url):
    """Return a model over the client for Bedrock."""
    return from_anthropic(lambda: anthropic.AsyncAnthropicBedrock(api_key=KEY, aws_region="r", base_url=url), "claude")


def bedrock_reply(*events):
    """Return the events of Anthropic's protocol as Bedrock sends them, in pieces of seven bytes."""
    data = [event.partition(b"data: ")[2].strip() for event in events]
    body = b"".join(aws_event("chunk", {"bytes": base64.b64encode(each).decode()}) for each in data)
    return [body[at : at + 7] for at in range(0, len(body), 7)]


def test_bedrock_client_reads_its_event_stream():
    """The events of the AWS event stream are those of Anthropic's protocol."""
    reply = Reply(bedrock_reply(*Messages().stream(["Hel", "lo"])), content_type="application/vnd.amazon.eventstream")
    with FakeServer(reply) as server:
        answer = bedrock(server.url).invoke("hi")
        assert ("Hello", 3, "stop") == (answer.text, answer.usage.input_tokens, answer.finish_reason)
        assert "/model/claude/invoke-with-response-stream" == server.requests[0].path


def test_bedrock_exception_raises():
    """An exception within the stream is an error of the provider."""
    thrown = aws_event("throttlingException", {"message": "slow"}, "exception")
    steps = [*bedrock_reply(*Messages().stream(["Hel"])[:-3]), thrown]
    with FakeServer(Reply(steps, content_type="application/vnd.amazon.eventstream")) as server:
        with pytest.raises(rxllm.RateLimited, match="slow") as raised:
            bedrock(server.url).invoke("hi")
        assert "Hel" == raised.value.partial.text


def test_bedrock_event_that_is_no_base64_raises():
    """The error has the frame."""
    with FakeServer(Reply(aws_event("chunk", {"bytes": "%"}))) as server:
        with pytest.raises(rxllm.ProtocolError, match="cannot be read") as raised:
            bedrock(server.url).invoke("hi")
        assert b"%" in raised.value.frame


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_error_has_the_exception_of_the_sdk_as_its_cause(sdk):
    """The class is that of the status in both libraries."""
    protocol, adapter = sdk
    module = openai if protocol.name == "chat" else anthropic
    reply = Reply.json(protocol.error_body(429, "slow down"), status=429)
    with FakeServer(reply) as server, pytest.raises(rxllm.RateLimited, match="slow down") as raised:
        adapter(server.url).invoke("hi")
    assert isinstance(raised.value.__cause__, module.RateLimitError)
    with pytest.raises(rxllm.TransportError, match="Connection refused") as raised:
        adapter(server.url).invoke("hi")
    assert isinstance(raised.value.__cause__, module.APIConnectionError)


def test_malformed_answers_raise(sdk):
    """The bytes of the client are decoded by rxllm, so the error has no cause."""
    assert_malformed_answers_raise(*sdk, has_cause=False)


def test_cause_that_shows_the_key_is_dropped(sdk):
    """The text of the SDK's exception would show it in a traceback."""
    protocol, adapter = sdk
    reply = Reply.json(protocol.error_body(401, f"wrong key {KEY}"), status=401)
    with (
        FakeServer(reply) as server,
        pytest.raises(rxllm.AuthenticationError, match=r"wrong key \*\*\*") as raised,
    ):
        adapter(server.url).invoke("hi")
    assert (None, None) == (raised.value.__cause__, raised.value.__context__)


def test_time_limit_of_the_client_is_a_timeout(asynchronous):
    """The client's limit on a read holds, before the response begins and within it."""
    protocol, kind, adapter = asynchronous
    for steps in [], protocol.stream(["Hel"])[:-3]:
        with FakeServer(Reply([*steps, End.HANG])) as server:
            llm = adapter(lambda url=server.url: kind(api_key=KEY, base_url=url, timeout=0.2, max_retries=0), "m")
            with pytest.raises(rxllm.Timeout, match=r"within|sent nothing"):
                llm.invoke("hi")


def test_client_retries_unless_a_combinator_does(asynchronous):
    """The client retries as it is set up. Within `retry`, N attempts send N requests."""
    protocol, kind, adapter = asynchronous
    fails = Reply.json(protocol.error_body(500), status=500, headers={"retry-after-ms": "1"})
    with FakeServer(fails) as server:
        llm = adapter(lambda: kind(api_key=KEY, base_url=server.url, max_retries=2), "m")
        with pytest.raises(rxllm.ProviderError):
            llm.invoke("hi")
        assert 3 == len(server.requests)
        with pytest.raises(rxllm.ProviderError):
            rxllm.retry(llm, attempts=2, delay=lambda *_: 0.001).invoke("hi")
        assert 5 == len(server.requests)


# ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_asynchronous_client_stays_on_its_loop_and_open(asynchronous):
    """A second event loop gets a sentence that names the function to pass. The client is the program's to close."""
    protocol, kind, adapter = asynchronous
    with FakeServer(Reply(protocol.stream(["ok"]))) as server:
        client = kind(api_key=KEY, base_url=server.url)
        llm = adapter(client, "m")

        async def ask():
            answers = await llm.abatch(["hi", "ho"])
            assert ["ok", "ok"] == [answer.text for answer in answers]
            assert not client.is_closed()
            with pytest.raises(rxllm.MisuseError, match=rf"client=lambda: \w+\.{kind.__name__}\(…\)"):
                await asyncio.to_thread(llm.invoke, "hi")
            await client.close()

        asyncio.run(ask())


def test_blocking_client_works_on_every_loop():
    """One client answers two event loops and synchronous code, and stays open."""
    with FakeServer(Reply(Chat().stream(["ok"]))) as server, openai.OpenAI(api_key=KEY, base_url=server.url) as client:
        llm = from_openai(client, "m", api="chat")
        answers = [asyncio.run(llm.ainvoke("hi")), asyncio.run(llm.ainvoke("hi")), llm.invoke("hi")]
        assert ["ok"] * 3 == [answer.text for answer in answers]
        assert not client.is_closed()


@pytest.mark.parametrize("kind", [openai.AsyncOpenAI, openai.OpenAI])
async def test_closed_client_is_a_misuse_error(kind):
    """As with a closed client of httpx: the program made a mistake, and no request failed."""
    client = kind(api_key=KEY, base_url="http://127.0.0.1:9")
    await client.close() if kind is openai.AsyncOpenAI else client.close()
    with pytest.raises(rxllm.MisuseError, match="The client is closed"):
        await from_openai(client, "m").ainvoke("hi")


@pytest.mark.parametrize("wrong", [None, "sk-123", object(), lambda: 5, lambda: anthropic.Anthropic(api_key="k")])
def test_other_values_are_refused(wrong):
    """The message says what to pass."""
    with pytest.raises(rxllm.MisuseError, match=r"one of the package openai, such as openai.AsyncOpenAI\(\)"):
        from_openai(wrong, "m")


@pytest.mark.parametrize("make", [lambda loop: openai.OpenAI(api_key=KEY), lambda: openai.OpenAI(api_key=1 // 0)])
def test_function_that_fails_is_refused(make):
    """As at a request: the program made a mistake, and the exception is the cause."""
    with pytest.raises(rxllm.MisuseError, match="The function client= raised") as raised:
        from_openai(make, "m")
    assert isinstance(raised.value.__cause__, (TypeError, ZeroDivisionError))


@pytest.mark.parametrize("name", ["api_key", "base_url", "max_retries"])
def test_settings_of_the_client_are_refused(asynchronous, name):
    """The message says where to set it."""
    _, kind, adapter = asynchronous
    with pytest.raises(rxllm.MisuseError, match=rf"{name} is a setting of the client. Write \w+\.{kind.__name__}"):
        adapter(lambda: kind(api_key=KEY), "m", **{name: "1"})


def make_client():
    """Return a client; a function of a module pickles."""
    return openai.AsyncOpenAI(api_key=KEY)


def test_model_pickles_with_a_function_only():
    """A client's connections belong to its process, and no key is pickled."""
    llm = from_openai(make_client, "m", temperature=0.5)
    data = pickle.dumps(llm)
    assert KEY.encode() not in data
    assert llm == pickle.loads(data)  # noqa: S301
    with pytest.raises(rxllm.MisuseError, match="Pass a function"):
        pickle.dumps(from_openai(openai.OpenAI(api_key=KEY), "m"))


def test_cached_needs_a_name():
    """The client decides which server answers."""
    with pytest.raises(rxllm.MisuseError, match="name="):
        rxllm.cached(from_openai(make_client, "m"), rxllm.MemoryStore())


def test_repeated_request_of_a_job_carries_its_key(sdk, tmp_path):
    """A server that honours idempotency keys answers each row once."""
    protocol, adapter = sdk
    with FakeServer(Reply(protocol.stream(["ok"])), Reply.json(protocol.whole(["ok"]))) as server:
        rows = rxllm.from_iter(["hi"]).pipe(rxllm.job(adapter(server.url), rxllm.Journal(tmp_path / "answers.jsonl")))
        assert 1 == len([*rows.pipe(rxllm.stream())])
        assert server.requests[0].headers["idempotency-key"]
