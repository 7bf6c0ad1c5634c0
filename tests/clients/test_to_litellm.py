"""Models of rxllm as providers of LiteLLM: its completions, streams and routers, against a real local server."""

import asyncio

import pytest
from models import made
from protocols import Chat, Messages, Responses, ToolCall

import rxllm
from rxllm.adapters import from_callable, from_litellm, to_litellm
from rxllm.testing import End, FakeServer, Reply

pytestmark = [
    pytest.mark.timeout(300),  # importing LiteLLM takes seconds
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),  # LiteLLM's filters are pytest's now
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
]

PROTOCOLS = (Chat(), Responses(), Messages())
ASKED = [{"role": "user", "content": "How is it?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tell it.", "parameters": SCHEMA}}
CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
def protocol(request):
    """Each protocol in turn."""
    return request.param


@pytest.fixture
def nothing_is_left_behind():
    """Check nothing: LiteLLM keeps threads and tasks on purpose."""


@pytest.fixture(autouse=True)
def providers(litellm):
    """Forget the providers of a test."""
    yield
    litellm.custom_provider_map.clear()
    litellm._custom_providers.clear()


@pytest.fixture
def ask(litellm, run):
    """Ask by each of LiteLLM's four ways, and return its answer; a stream is joined."""

    def ask(how, messages=ASKED, **options):
        async def asynchronously():
            answer = await litellm.acompletion("mine/x", messages=messages, stream="stream" in how, **options)
            return [chunk async for chunk in answer] if "stream" in how else answer

        if how.startswith("async"):
            answer = run(asynchronously())
        else:
            answer = litellm.completion("mine/x", messages=messages, stream="stream" in how, **options)
        return litellm.stream_chunk_builder([*answer]) if "stream" in how else answer

    return ask


@pytest.fixture(params=["async stream", "async whole", "sync stream", "sync whole"])
def how(request):
    """Each way to ask in turn."""
    return request.param


def reply(protocol, how, text, **said):
    """Return the reply of a server, streamed or whole."""
    if "stream" in how:
        return Reply(protocol.stream(text, **said))
    return Reply.json(protocol.whole(text, **said))


def test_answer_has_everything(ask, protocol, how):
    """Text, reasoning, calls, usage, finish reason, model and id arrive, in each of the four ways."""
    calls = [ToolCall(name="weather"), ToolCall("call_2", "weather")]
    with FakeServer(reply(protocol, how, ["Hel", "lo"], reasoning=["hm"], tool_call=calls)) as server:
        to_litellm(made(protocol, server.url), "mine")
        options = {"stream_options": {"include_usage": True}} if "stream" in how else {}
        answer = ask(how, tools=[WEATHER], **options)
        assert ("stream" in how) == server.requests[0].json["stream"]
    [choice] = answer.choices
    assert ("Hello", "hm") == (choice.message.content, choice.message.reasoning_content)
    assert [("call_1", "weather"), ("call_2", "weather")] == [
        (call.id, call.function.name) for call in choice.message.tool_calls
    ]
    assert ['{"city":"Paris"}'] * 2 == [call.function.arguments.replace(" ", "") for call in choice.message.tool_calls]
    assert ("tool_calls", "answer_1") == (choice.finish_reason, answer.id)
    assert "stream" in how or answer.model == "model-1"
    assert (3, 5, 8) == (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)


def test_answer_goes_back_as_it_came(ask, protocol, how):
    """The second request has the thought with its signature, and the result of the call."""
    first = reply(protocol, how, ["Wait"], reasoning=["hm"], tool_call=ToolCall(name="weather"))
    with FakeServer(first, reply(protocol, how, ["It rains"])) as server:
        to_litellm(made(protocol, server.url), "mine")
        said = ask(how, tools=[WEATHER]).choices[0].message
        result = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
        assert "It rains" == ask(how, [*ASKED, said, result], tools=[WEATHER]).choices[0].message.content
        body = str(server.requests[1].json)
    assert "rain" in body
    assert "hm" in body
    assert protocol.name == "chat" or "EqQBCgIYAhIM" in body


def test_thoughts_that_litellm_has_from_anthropic_go_to_anthropic(ask):
    """A history of LiteLLM's own model has the signatures in a field of LiteLLM's."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}
    hidden = {"type": "redacted_thinking", "data": "aGlkZGVu"}
    said = {"role": "assistant", "content": "Wait", "reasoning_content": "hm", "thinking_blocks": [thought, hidden]}
    with FakeServer(Reply.json(Messages().whole(["ok"]))) as server:
        to_litellm(made(Messages(), server.url), "mine")
        ask("sync whole", [*ASKED, said, {"role": "user", "content": "and?"}])
        turn = server.requests[0].json["messages"][1]
    assert [thought, hidden, {"type": "text", "text": "Wait"}] == turn["content"]


def test_parameters_and_messages_are_sent(ask):
    """Parameters have their names in the protocol; unknown ones are fields of the body."""
    settings = {"temperature": 0.5, "max_tokens": 9, "top_p": 0.5, "seed": 1, "stop": ["."], "presence_penalty": 0.5}
    settings |= {"reasoning_effort": "low", "allowed_openai_params": ["reasoning_effort"], "top_k": 3, "n": 1}
    settings |= {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "color": "blue"}
    settings |= {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "rain"},
    ]
    with FakeServer(Reply.json(Chat().whole(["a cat"]))) as server:
        to_litellm(made(Chat(), server.url), "mine")
        ask("sync whole", messages, **settings)
        body = server.requests[0].json
    names = ("temperature", "max_tokens", "top_p", "seed", "stop", "presence_penalty", "reasoning_effort", "top_k")
    assert [settings[name] for name in names] == [body[name] for name in names]
    assert ("required", False, "blue") == (body["tool_choice"], body["parallel_tool_calls"], body["color"])
    assert ([WEATHER], settings["response_format"]) == (body["tools"], body["response_format"])
    assert messages == body["messages"]


def test_agent_of_rxllm_runs_its_own_tools(ask, how):
    """LiteLLM hears nothing of its calls; and what the agent did goes back with the next request."""

    def weather(city: str) -> str:
        """The weather in a city."""
        return f"rain in {city}"

    first = reply(Chat(), how, [], tool_call=ToolCall(name="weather"))
    with FakeServer(first, reply(Chat(), how, ["It rains"])) as server:
        to_litellm(rxllm.agent(made(Chat(), server.url), weather), "mine")
        [choice] = ask(how).choices
        assert ("It rains", None, "stop") == (
            choice.message.content,
            choice.message.tool_calls,
            choice.finish_reason,
        )
        ask(how, [*ASKED, choice.message, *ASKED])
        roles = [message["role"] for message in server.requests[-1].json["messages"]]
    assert ["user", "assistant", "tool", "assistant", "user"] == roles


# ── leaving, errors, loops ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["aclose", "cancel", "cancel whole"])
def test_leaving_closes_the_request(litellm, run, protocol, way):
    """`aclose` and the end of a task close the connection."""
    begun = protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"]))

    async def leave(server):
        has_begun = asyncio.Event()

        async def read():
            answer = await litellm.acompletion("mine/x", messages=ASKED, stream="whole" not in way)
            async for _ in answer:
                has_begun.set()
                if way == "aclose":
                    break
            await answer.aclose()

        task = asyncio.create_task(read())
        await (server.exchange(0).arrived.soon() if "whole" in way else has_begun.wait())
        if "cancel" in way:
            task.cancel()
        await asyncio.wait([task])
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted

    with FakeServer(Reply([*([] if "whole" in way else begun), End.HANG])) as server:
        to_litellm(made(protocol, server.url), "mine")
        run(leave(server))


def test_closing_a_synchronous_stream_closes_the_request(litellm):
    """So does the end of a `with` block."""
    begun = Chat().before("wonderful", Chat().stream(["Hello ", "wonderful"]))
    with FakeServer(Reply([*begun, End.HANG])) as server:
        to_litellm(made(Chat(), server.url), "mine")
        with litellm.completion("mine/x", messages=ASKED, stream=True) as answer:
            assert "Hello " == next(answer).choices[0].delta.content
        server.exchange(0).closed.wait(50)
        assert server.exchange(0).aborted


@pytest.mark.parametrize(
    ("status", "kind", "ours"),
    [
        (400, "BadRequestError", rxllm.BadRequest),
        (401, "AuthenticationError", rxllm.AuthenticationError),
        (403, "PermissionDeniedError", rxllm.AuthenticationError),
        (404, "NotFoundError", rxllm.BadRequest),
        (422, "UnprocessableEntityError", rxllm.BadRequest),
        (429, "RateLimitError", rxllm.RateLimited),
        (500, "InternalServerError", rxllm.ProviderError),
        (503, "ServiceUnavailableError", rxllm.Overloaded),
        (418, "APIError", rxllm.ProviderError),
    ],
)
def test_errors_are_those_of_litellm(litellm, ask, how, status, kind, ours):
    """The class is that of the status, and the error of rxllm is the cause."""
    failed = Reply.json(Chat().error_body(status, "It went wrong"), status=status, headers={"retry-after": "7"})
    with FakeServer(failed) as server:
        to_litellm(made(Chat(), server.url), "mine")
        with pytest.raises(
            litellm.exceptions.APIError if status == 418 else Exception, match="It went wrong"
        ) as raised:
            ask(how)
    error = unwrapped(raised.value)
    assert (kind, ours, status) == (type(error).__name__, type(error.__cause__), error.status_code)
    if status == 429:
        assert "7" == error.response.headers["retry-after"]


def unwrapped(error):
    """Return the exception that LiteLLM has wrapped for its router."""
    return getattr(error, "original_exception", None) or error


def test_broken_streams_raise(litellm, ask):
    """A connection that breaks is a connection's error, a time limit a timeout."""
    begun = Chat().before("wonderful", Chat().stream(["Hello ", "wonderful"]))
    with FakeServer() as server:
        to_litellm(made(Chat(), server.url, timeout=0.2), "mine")
        for steps, kind, ours in (
            ([*begun, End.FIN], "APIConnectionError", rxllm.Interrupted),
            ([*begun, Chat().error_frame()], "InternalServerError", rxllm.ProviderError),
            ([End.HANG], "Timeout", rxllm.Timeout),
            ([b"<html>"], "APIError", rxllm.ProtocolError),
        ):
            server.reply(Reply(steps))
            with pytest.raises(Exception, match=r"\w") as raised:
                ask("async stream")
            error = unwrapped(raised.value)
            assert (kind, ours) == (type(error).__name__, type(error.__cause__))


@pytest.mark.parametrize("option", [{"n": 2}, {"tool_choice": "no-tool"}])
def test_wrong_parameters_are_bad_requests(litellm, ask, how, option):
    """Nothing is sent."""
    with FakeServer() as server:
        to_litellm(made(Messages(), server.url), "mine")
        with pytest.raises(litellm.BadRequestError) as raised:
            ask(how, **option)
        assert ([], rxllm.MisuseError) == (server.requests, type(raised.value.__cause__))


class Forgetful(rxllm.LLM):
    """A model that begins its answer again."""

    async def chunks(self, request):
        """Take the first answer back."""
        yield "Hel"
        yield rxllm.Chunk("Good day", reset=True)


def test_answer_that_begins_again(ask):
    """A whole answer is the second one. A stream fails, because LiteLLM has the text of the first one."""
    to_litellm(Forgetful(), "mine")
    assert "Good day" == ask("async whole").choices[0].message.content
    with pytest.raises(Exception, match="began its answer again") as raised:
        ask("async stream")
    assert rxllm.Interrupted is type(unwrapped(raised.value).__cause__)


@pytest.mark.parametrize(("reason", "expected"), [("length", "length"), ("content_filter", "content_filter")])
def test_finish_reason_arrives(ask, how, reason, expected):
    """The words are those of OpenAI."""
    to_litellm(from_callable(lambda _: rxllm.Chunk("hi", finish_reason=reason)), "mine")
    assert expected == ask(how).choices[0].finish_reason


def test_answer_that_broke_off_at_the_provider_raises(ask, how):
    """LiteLLM would take it for a whole one."""
    broken = rxllm.Chunk("hi", finish_reason="error", raw_finish_reason="MALFORMED")
    to_litellm(from_callable(lambda _: broken), "mine")
    with pytest.raises(Exception, match=r"broke the answer off.*MALFORMED") as raised:
        ask(how)
    assert rxllm.Interrupted is type(unwrapped(raised.value).__cause__)


def test_several_event_loops(ask, run, litellm):
    """One model answers two event loops, one after the other, and synchronous code in between."""
    with FakeServer(Reply(Chat().stream(["hi"]))) as server:
        to_litellm(made(Chat(), server.url), "mine")
        answers = [ask(how) for how in ("async stream", "sync stream", "async stream")]
    assert ["hi"] * 3 == [answer.choices[0].message.content for answer in answers]


def test_router_takes_the_next_model(litellm, run):
    """LiteLLM's router understands the errors."""
    with FakeServer(Reply.json(Chat().error_body(429, "slow down"), status=429)) as server:
        to_litellm(made(Chat(), server.url), "busy")
        to_litellm(from_callable(lambda request: request.text.upper()), "mine")
        models = [{"model_name": name, "litellm_params": {"model": f"{name}/x"}} for name in ("busy", "mine")]

        async def ask():
            router = litellm.Router(models, fallbacks=[{"busy": ["mine"]}], num_retries=0)
            return await router.acompletion("busy", messages=ASKED)

        assert "HOW IS IT?" == run(ask()).choices[0].message.content


# ── models and values ────────────────────────────────────────────────────────────────────────────────────────────


def test_refusal_is_the_message_of_a_whole_answer(ask):
    """The field is OpenAI's."""
    to_litellm(from_callable(lambda _: rxllm.Chunk(parts=[rxllm.RefusalPart("No.")])), "mine")
    assert "No." == ask("sync whole").choices[0].message.refusal


def test_picture_reaches_litellm_and_goes_back(ask, how):
    """LiteLLM has pictures in ``images``, with an index each."""
    file = rxllm.FilePart("image/png", b"PNG")
    seen = []

    def draw(request):
        seen.append(request)
        return rxllm.Chunk(parts=[rxllm.TextPart("See"), file, file], finish_reason="stop")

    to_litellm(from_callable(draw), "mine")
    answer = ask(how).choices[0].message
    assert [0, 1] == [image["index"] for image in answer.images]
    assert [{"url": "data:image/png;base64,UE5H"}] * 2 == [image["image_url"] for image in answer.images]
    ask(how, [*ASKED, answer, *ASKED])
    assert [file, file] == [part for part in seen[1].messages[1].parts if isinstance(part, rxllm.FilePart)]


def test_both_adapters_are_inverse(litellm):
    """A model that went to LiteLLM and back gives the same texts and facts."""
    llm = from_callable(lambda request: rxllm.Chunk(request.text, finish_reason="length"))
    to_litellm(llm, "mine")
    again = from_litellm("mine/x")
    assert [c.text for c in llm.stream("hi") if c.text] == [c.text for c in again.stream("hi") if c.text]
    assert llm.invoke("hi").finish_reason == again.invoke("hi").finish_reason


def test_second_model_replaces_the_first(litellm, ask):
    """A handler is registered under its name, beside those of the program."""
    other = {"provider": "other", "custom_handler": litellm.CustomLLM()}
    litellm.custom_provider_map.append(other)
    to_litellm(from_callable(lambda _: "one"), "mine")
    handler = to_litellm(from_callable(lambda _: "two"), "mine")
    assert isinstance(handler, litellm.CustomLLM)
    assert [other, {"provider": "mine", "custom_handler": handler}] == litellm.custom_provider_map
    assert "two" == ask("sync whole").choices[0].message.content


@pytest.mark.parametrize("wrong", [None, "openai:gpt-5", rxllm.OpenAI])
def test_other_values_are_refused(litellm, wrong):
    """The message shows what to pass."""
    with pytest.raises(rxllm.MisuseError, match=r"such as rxllm\.OpenAI"):
        to_litellm(wrong, "mine")


@pytest.mark.parametrize("name", ["openai", "groq", "a/b", "", None])
def test_names_that_litellm_would_not_find_are_refused(litellm, name):
    """LiteLLM's own providers win, and a slash ends the name."""
    with pytest.raises(rxllm.MisuseError, match="name"):
        to_litellm(rxllm.Embedded(), name)
