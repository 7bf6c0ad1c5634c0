"""Models of rxllm as models of Pydantic AI: agents and direct requests, against a real local server."""

import asyncio
import copy
import pickle

import pytest
from attrs import frozen
from foreign import weather
from models import made
from protocols import Chat, Messages, Responses, ToolCall

import rxllm
from rxllm.adapters import to_pydantic_ai
from rxllm.testing import End, FakeServer, Reply

pydantic_ai = pytest.importorskip("pydantic_ai", reason="the extra 'clients' is not installed")

from pydantic import BaseModel  # noqa: E402
from pydantic_ai import Agent, BinaryContent, ModelRetry, NativeOutput, ToolOutput  # noqa: E402
from pydantic_ai.direct import model_request  # noqa: E402
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UnexpectedModelBehavior  # noqa: E402
from pydantic_ai.messages import ModelRequest, NativeToolCallPart, NativeToolReturnPart  # noqa: E402
from pydantic_ai.models.fallback import FallbackModel  # noqa: E402

PROTOCOLS = (Chat(), Responses(), Messages())


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
def protocol(request):
    """Each protocol in turn."""
    return request.param


class City(BaseModel):
    """A place."""

    name: str
    people: int


async def test_agent_streams_and_calls_tools(protocol):
    """Text streams, a tool is called with its arguments, the result goes back, and usage adds up."""
    call = ToolCall(name="weather")
    replies = [protocol.stream([], tool_call=call, usage=(3, 5)), protocol.stream(["It ", "rains"], usage=(7, 2))]
    with FakeServer(*map(Reply, replies)) as server:
        agent = Agent(to_pydantic_ai(made(protocol, server.url)), tools=[weather], instructions="Be brief.")
        async with agent.run_stream("How is it?") as run:
            assert ["It ", "rains"] == [text async for text in run.stream_text(delta=True, debounce_by=None)]
            assert (10, 7, 2) == (run.usage.input_tokens, run.usage.output_tokens, run.usage.requests)
        first, second = server.requests
    assert "Be brief." in str(first.json)
    assert "The weather in a city." in str(first.json)
    assert "rain in Paris" in str(second.json)


async def test_answer_goes_back_as_it_came():
    """The second request has the thinking block with its signature, although its text is not all that there is."""
    first = Messages().stream(["Wait"], reasoning=["hm"], tool_call=ToolCall(name="weather"))
    with FakeServer(Reply(first), Reply(Messages().stream(["It rains"]))) as server:
        agent = Agent(to_pydantic_ai(made(Messages(), server.url)), tools=[weather])
        run = await agent.run("How is it?", event_stream_handler=drained)
        assert "It rains" == run.output
        turn = server.requests[1].json["messages"][1]
    assert ["thinking", "text", "tool_use"] == [block["type"] for block in turn["content"]]
    assert turn["content"][0]["signature"]


async def drained(_, events):
    """Read the events, so that the request streams."""
    async for _ in events:
        pass


async def test_edited_answer_goes_back_as_it_is():
    """A program may change the text of a history; then what rxllm has kept does not count."""
    reply = Messages().stream(["Wait"], reasoning=["hm"])
    with FakeServer(Reply.json(Messages().whole(["Wait"], reasoning=["hm"])), Reply(reply)) as server:
        agent = Agent(to_pydantic_ai(made(Messages(), server.url)))
        history = (await agent.run("hi")).all_messages()
        history[1].parts[1].content = "Stop"
        await agent.run("and?", message_history=history, event_stream_handler=drained)
        turn = server.requests[1].json["messages"][1]
    assert ["hm", "Stop"] == [block.get("thinking") or block["text"] for block in turn["content"]]


async def test_whole_answer_has_everything(protocol):
    """`request` asks for a whole answer: text, reasoning, a call, usage, finish reason, model and id."""
    with FakeServer(Reply.json(protocol.whole(["hi"], reasoning=["hm"], tool_call=ToolCall()))) as server:
        model = to_pydantic_ai(made(protocol, server.url))
        response = await model_request(model, [ModelRequest.user_text_prompt("?")])
        assert server.requests[0].json["stream"] is False
    assert ["thinking", "text", "tool-call"] == [part.part_kind for part in response.parts]
    assert ("hi", {"city": "Paris"}) == (response.text, response.tool_calls[0].args_as_dict())
    assert ("tool_call", "model-1", "answer_1") == (
        response.finish_reason,
        response.model_name,
        response.provider_response_id,
    )
    assert (3, 5) == (response.usage.input_tokens, response.usage.output_tokens)


@pytest.mark.parametrize("mode", [NativeOutput, ToolOutput])
async def test_structured_output(mode):
    """The schema is sent in either mode, and the value arrives."""
    city = '{"name": "Oslo", "people": 700000}'
    tool = ToolCall(name="final_result", pieces=[city])
    reply = Chat().whole([city]) if mode is NativeOutput else Chat().whole([], tool_call=tool)
    with FakeServer(Reply.json(reply)) as server:
        agent = Agent(to_pydantic_ai(made(Chat(), server.url)), output_type=mode(City))
        assert City(name="Oslo", people=700_000) == (await agent.run("Where?")).output
        body = server.requests[0].json
    if mode is NativeOutput:
        assert "people" in body["response_format"]["json_schema"]["schema"]["properties"]
    else:
        assert ("required", "final_result") == (body["tool_choice"], body["tools"][0]["function"]["name"])


async def test_settings_and_files_are_sent():
    """Settings have their names in the protocol; a file is data."""
    settings = {"temperature": 0.5, "max_tokens": 9, "top_p": 0.5, "seed": 1, "stop_sequences": ["."]}
    settings |= {"thinking": "low", "presence_penalty": 0.5, "parallel_tool_calls": False, "extra_body": {"user": "me"}}
    with FakeServer(Reply.json(Chat().whole(["a cat"]))) as server:
        agent = Agent(to_pydantic_ai(made(Chat(), server.url)), tools=[weather])
        picture = BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")
        await agent.run(["What is it?", picture], model_settings=settings)
        body = server.requests[0].json
    names = ("temperature", "max_tokens", "top_p", "seed", "stop", "reasoning_effort", "presence_penalty", "user")
    assert [0.5, 9, 0.5, 1, ["."], "low", 0.5, "me"] == [body[name] for name in names]
    assert body["parallel_tool_calls"] is False
    assert ["text", "image_url"] == [item["type"] for item in body["messages"][0]["content"]]


async def test_tool_that_asks_for_another_attempt():
    """The model gets the reason as the result of its call."""

    def fussy(city: str) -> str:
        raise ModelRetry(f"No city {city}.")

    replies = [Chat().whole([], tool_call=ToolCall(name="fussy")), Chat().whole(["Sorry"])]
    with FakeServer(*map(Reply.json, replies)) as server:
        agent = Agent(to_pydantic_ai(made(Chat(), server.url)), tools=[fussy])
        assert "Sorry" == (await agent.run("hi")).output
        result = server.requests[1].json["messages"][-1]
    assert ("tool", "call_1") == (result["role"], result["tool_call_id"])
    assert "No city Paris." in result["content"]


async def test_history_serialises(protocol):
    """A history that went through JSON continues with what the vendor requires."""
    with FakeServer(Reply.json(protocol.whole(["hi"], reasoning=["hm"])), Reply(protocol.stream(["ok"]))) as server:
        agent = Agent(to_pydantic_ai(made(protocol, server.url)))
        first = await agent.run("?")
        history = pydantic_ai.ModelMessagesTypeAdapter.validate_json(first.all_messages_json())
        await agent.run("and?", message_history=history, event_stream_handler=drained)
        body = str(server.requests[1].json)
    assert "hi" in body
    assert protocol.name == "chat" or "hm" in body


# ── leaving, errors, loops ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["leave", "cancel", "task"])
async def test_leaving_closes_the_request(protocol, way):
    """The end of the block, `cancel` and the end of a task close the connection."""
    begun = protocol.before("wonderful", protocol.stream(["Hello ", "wonderful"]))
    with FakeServer(Reply([*begun, End.HANG])) as server:
        model = to_pydantic_ai(made(protocol, server.url))
        has_begun = asyncio.Event()

        async def read():
            parameters = pydantic_ai.models.ModelRequestParameters()
            async with model.request_stream([ModelRequest.user_text_prompt("?")], None, parameters) as stream:
                async for _ in stream:
                    has_begun.set()
                    if way == "leave":
                        break
                    if way == "cancel":
                        await stream.cancel()

        task = asyncio.create_task(read())
        await has_begun.wait()
        if way == "task":
            task.cancel()
        await asyncio.wait([task])
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted
        assert task.cancelled() == (way == "task")


async def test_errors_are_those_of_pydantic_ai(protocol):
    """A status is a ModelHTTPError, a broken connection a ModelAPIError; the error of rxllm is the cause."""
    with FakeServer(Reply.json(protocol.error_body(429, "slow down"), status=429)) as server:
        agent = Agent(to_pydantic_ai(made(protocol, server.url)))
        with pytest.raises(ModelHTTPError, match="slow down") as raised:
            await agent.run("hi")
        assert (429, rxllm.RateLimited) == (raised.value.status_code, type(raised.value.__cause__))
        server.reply(Reply([*protocol.stream(["Hel"])[:-3], End.FIN]))
        with pytest.raises(ModelAPIError) as raised:
            await agent.run("hi", event_stream_handler=drained)
        assert rxllm.Interrupted is type(raised.value.__cause__)
        server.reply(Reply.json(b"[]"))
        with pytest.raises(UnexpectedModelBehavior) as raised:
            await agent.run("hi")
        assert rxllm.ProtocolError is type(raised.value.__cause__)


async def test_fallback_model_asks_the_next_one():
    """Pydantic AI's own fallback understands the errors."""
    with FakeServer(Reply.json(Chat().error_body(503), status=503)) as server:
        backup = rxllm.adapters.from_callable(lambda request: request.text.upper())
        model = FallbackModel(to_pydantic_ai(made(Chat(), server.url)), to_pydantic_ai(backup))
        assert "HI" == (await Agent(model).run("hi")).output


class Forgetful(rxllm.LLM):
    """A model that begins its answer again."""

    async def chunks(self, request):
        """Take the first answer back."""
        yield "Hel"
        yield rxllm.Chunk("Good day", reset=True)


async def test_answer_that_begins_again():
    """A whole answer is the second one. A stream fails, because Pydantic AI has the text of the first one."""
    agent = Agent(to_pydantic_ai(Forgetful()))
    assert "Good day" == (await agent.run("hi")).output
    with pytest.raises(ModelAPIError, match="began its answer again") as raised:
        await agent.run("hi", event_stream_handler=drained)
    assert rxllm.Interrupted is type(raised.value.__cause__)


def test_several_event_loops():
    """One model answers each event loop, and synchronous code."""
    with FakeServer(Reply.json(Chat().whole(["hi"]))) as server:
        agent = Agent(to_pydantic_ai(made(Chat(), server.url)))
        outputs = [asyncio.run(agent.run("?")).output, asyncio.run(agent.run("?")).output, agent.run_sync("?").output]
        loop = asyncio.get_event_loop_policy().get_event_loop()  # run_sync leaves it open
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert ["hi"] * 3 == outputs


# ── models and values ────────────────────────────────────────────────────────────────────────────────────────────


async def test_agent_of_rxllm_runs_its_own_tools():
    """Its calls are native calls with their results, and the next request has them as they were."""
    replies = [Chat().stream([], tool_call=ToolCall(name="weather")), Chat().stream(["It rains"])]
    with FakeServer(*map(Reply, replies)) as server:
        agent = Agent(to_pydantic_ai(rxllm.agent(made(Chat(), server.url), weather)))
        run = await agent.run("How is it?", event_stream_handler=drained)
        assert "It rains" == run.output
        parts = run.all_messages()[-1].parts
        assert [NativeToolCallPart, NativeToolReturnPart] == [type(part) for part in parts[:2]]
        assert "rain in Paris" == parts[1].content
        await agent.run("and?", message_history=run.all_messages(), event_stream_handler=drained)
        roles = [message["role"] for message in server.requests[-1].json["messages"]]
    assert ["user", "assistant", "tool", "assistant", "user"] == roles


async def test_refusal_and_file_arrive():
    """A refusal is text, and a picture is a file."""

    @frozen
    class Painter(rxllm.LLM):
        async def complete(self, request):
            return rxllm.Chunk(parts=[rxllm.RefusalPart("No."), rxllm.FilePart("image/png", b"png")])

    response = await model_request(to_pydantic_ai(Painter()), [ModelRequest.user_text_prompt("?")])
    assert ("No.", b"png") == (response.text, response.files[0].data)


def test_model_has_a_name_and_a_system():
    """Traces show them."""
    model = to_pydantic_ai(rxllm.Anthropic("claude", api_key="k"))
    assert ("claude", "anthropic", "RxllmModel") == (model.model_name, model.system, type(model).__name__)
    assert ("Embedded", "embedded") == (
        to_pydantic_ai(rxllm.Embedded()).model_name,
        to_pydantic_ai(rxllm.Embedded()).system,
    )


def test_model_pickles_without_its_key():
    """The other process takes the key from the environment, as for each pickled model of rxllm."""
    model = to_pydantic_ai(rxllm.Anthropic("claude", api_key="sk-do-not-show-this"))
    pickled = pickle.dumps(model)
    assert b"sk-do-not-show-this" not in pickled
    again = pickle.loads(pickled)  # noqa: S301  (our own bytes)
    assert (type(model), repr(model.llm), model.profile) == (type(again), repr(again.llm), again.profile)
    assert model.llm == copy.deepcopy(model).llm


async def test_native_tools_are_refused():
    """The message names a way to the tool of the vendor."""
    parameters = pydantic_ai.models.ModelRequestParameters(native_tools=[pydantic_ai.WebSearchTool()])
    model = to_pydantic_ai(rxllm.Embedded())
    with pytest.raises(pydantic_ai.exceptions.UserError):
        await model.request([ModelRequest.user_text_prompt("?")], None, parameters)


@pytest.mark.parametrize("wrong", [None, "openai:gpt-5", Agent])
def test_other_values_are_refused(wrong):
    """The message shows what to pass."""
    with pytest.raises(rxllm.MisuseError, match=r"such as rxllm\.OpenAI"):
        to_pydantic_ai(wrong)
