"""Pipelines of rxllm as runnables of LangChain, and their runs in LangChain's events and callbacks."""

import asyncio
import itertools
import warnings

import pytest
from combinators.scripted import Scripted, call
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from protocols import Chat, Completions
from reactivex import operators as ops

import rxllm
from rxllm import Chunk, MisuseError, Usage, dispatch
from rxllm.adapters import to_langchain, to_langchain_llm
from rxllm.testing import End, FakeServer, Reply

CHAT = Chat()


class ChatScripted(Scripted):
    """A scripted chat model."""

    def kind(self, request):
        """Return the kind."""
        return "chat_model"


@rxllm.tool
async def shout(text: str) -> str:
    """Return the text in capitals."""
    dispatch("shouted", {"text": text})
    return text.upper()


def talk():
    """A pipeline with two models, a tool, and a pipeline within it."""
    one = ChatScripted([["He", "llo"]], run_name="one", tags=["t"], metadata={"k": 1})
    two = Scripted([["Good", "bye"]], run_name="two")
    inner = rxllm.pipe(two, rxllm.text()).with_config(run_name="inner")
    stages = one, rxllm.message(), ops.map(str), ops.flat_map(shout), ops.flat_map(inner)
    return rxllm.pipe(*stages).with_config(run_name="talk")


async def shown(stage, prompt, version):
    """What each dict tells of its run, without repetitions: chunks may be cut in another way.

    LangChain's v1 does not tell the tags and the metadata of the root.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain deprecates v1
        events = [event async for event in stage.astream_events(prompt, version=version)]
    names = {event["run_id"]: event["name"] for event in events}
    told = [
        (
            event["event"],
            event["name"],
            [names[parent] for parent in event["parent_ids"]],
            sorted(event["tags"]) if version == "v2" else (),
            {name: value for name, value in event["metadata"].items() if name == "k" and version == "v2"},
        )
        for event in events
    ]
    return [each for each, _ in itertools.groupby(told)]


PROGRAMS = {
    "pipeline": lambda: (talk(), to_langchain),
    "model": lambda: (ChatScripted([["He", "llo"]], run_name="poet", tags=["t"], metadata={"k": 1}), to_langchain),
    "completion model": lambda: (Scripted([["He", "llo"]], tags=["t"]), to_langchain_llm),
    "pipeline of a model": lambda: (rxllm.pipe(ChatScripted([["He", "llo"]])), to_langchain),
    "agent": lambda: (
        rxllm.pipe(
            rxllm.agent(ChatScripted([[call("shout", '{"text":"a"}', "c1")], ["Done."]]), shout), rxllm.text()
        ),
        to_langchain,
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_events_of_a_program_are_the_same_through_langchain(program, version):
    """The names, their order, the parents, the tags and the metadata."""
    stage, adapt = program()
    expected = await shown(stage, "hi", version)
    assert expected == await shown(adapt(program()[0]), "hi", version)
    assert len(expected) > 2


async def test_events_of_models_over_http_are_the_same_through_langchain():
    """The chat protocol is a chat model, the completions protocol an LLM."""
    for protocol, api, adapt in (CHAT, "chat", to_langchain), (Completions(), "completions", to_langchain_llm):
        with FakeServer(Reply(protocol.stream(["Hel", "lo"]))) as server:
            llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", api_key="k", api=api)
            for version in "v1", "v2":
                assert await shown(llm, "hi", version) == await shown(adapt(llm), "hi", version)


async def test_pipeline_within_a_chain_of_langchain():
    """Its runs have the chain's run as an ancestor, and its values reach the next step as they come."""
    chain = ChatPromptTemplate.from_template("{x}") | to_langchain(talk()) | RunnableLambda(lambda text: text + "!")
    events = [event async for event in chain.astream_events({"x": "hi"}, version="v2")]
    root = events[0]["run_id"]
    assert {root} == {event["parent_ids"][0] for event in events[1:-1] if event["parent_ids"]}
    [start] = [event for event in events if event["event"] == "on_chat_model_start"]
    assert [[HumanMessage("hi")]] == start["data"]["input"]["messages"]
    assert "Goodbye!" == events[-1]["data"]["output"]
    assert "Goodbye!" == await chain.ainvoke({"x": "hi"})
    assert "Goodbye!" == await asyncio.to_thread(chain.invoke, {"x": "hi"})


@pytest.mark.parametrize("ask", ["invoke", "ainvoke", "stream", "astream"])
async def test_callbacks_hear_of_the_runs_within(ask):
    """Synchronous and asynchronous handlers, with the inputs and outputs in LangChain's types."""
    told = []

    class Plain(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, **facts):
            told.append(("start", facts["name"], messages[0][0].content, facts["metadata"]["k"], facts["tags"]))

        def on_llm_new_token(self, token, **facts):
            told.append(("token", token))

        def on_llm_end(self, response, **facts):
            told.append(("end", response.generations[0][0].text))

        def on_tool_start(self, serialized, text, **facts):
            told.append(("tool", facts["name"], text))

        def on_tool_end(self, output, **facts):
            told.append(("tool end", output))

        def on_custom_event(self, name, data, **facts):
            told.append((name, data))

    class Awaited(AsyncCallbackHandler):
        async def on_chain_end(self, outputs, **facts):
            told.append(("chain end", outputs))

    config = {"callbacks": [Plain(), Awaited()]}
    runnable = to_langchain(talk())
    if ask == "astream":
        assert ["Good", "bye"] == [piece async for piece in runnable.astream("hi", config)]
    elif ask == "ainvoke":
        assert "Goodbye" == await runnable.ainvoke("hi", config)
    elif ask == "stream":
        assert ["Good", "bye"] == await asyncio.to_thread(lambda: [*runnable.stream("hi", config)])
    else:
        assert "Goodbye" == await asyncio.to_thread(runnable.invoke, "hi", config)
    assert [
        ("start", "one", "hi", 1, ["t"]),
        *(("token", token) for token in ("He", "llo")),
        ("end", "Hello"),
        ("tool", "shout", "Hello"),
        ("shouted", {"text": "Hello"}),
        ("tool end", "HELLO"),
        *(("token", token) for token in ("Good", "bye")),
        ("end", "Goodbye"),
        ("chain end", "Goodbye"),
        ("chain end", "Goodbye"),
    ] == told


async def test_failure_within_is_told_to_callbacks():
    """The run that failed first, then its parents; the exception is rxllm's."""
    told = []

    class Plain(BaseCallbackHandler):
        def on_llm_error(self, error, **facts):
            told.append(("llm", type(error).__name__))

        def on_chain_error(self, error, **facts):
            told.append(("chain", type(error).__name__))

    runnable = to_langchain(rxllm.pipe(ChatScripted([["a", rxllm.RateLimited("slow", status=429)]]), rxllm.text()))
    with pytest.raises(rxllm.RateLimited):
        await runnable.ainvoke("hi", {"callbacks": [Plain()]})
    assert [("llm", "RateLimited"), ("chain", "RateLimited")] == told


async def test_leaving_ends_the_open_runs_and_closes_the_request():
    """A reader that leaves a pipeline; the callbacks hear that the model was cancelled."""
    told = []

    class Plain(BaseCallbackHandler):
        def on_llm_error(self, error, **facts):
            told.append(type(error).__name__)

    with FakeServer(Reply([*CHAT.stream(["Hel", "lo"])[:2], End.HANG])) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", api_key="k")
        stream = to_langchain(rxllm.pipe(llm, rxllm.text())).astream("hi", {"callbacks": [Plain()]})
        assert "Hel" == await anext(stream)
        await stream.aclose()
        await server.exchange().closed_soon()
    assert ["CancelledError"] == told


async def test_values_of_pipelines_in_langchains_types():
    """Chunks and answers are its messages, other values pass through."""
    usage = Usage(input_tokens=3, output_tokens=2)
    llm = Scripted([["He", Chunk("llo", usage=usage, finish_reason="stop", model="m")]])
    chunks = [chunk async for chunk in to_langchain(rxllm.pipe(llm)).astream("hi")]
    assert ["He", "llo", ""] == [chunk.content for chunk in chunks]
    assert ("last", 5) == (chunks[-1].chunk_position, chunks[-1].usage_metadata["total_tokens"])
    answer = await to_langchain(rxllm.pipe(llm)).ainvoke([HumanMessage("hi")])
    assert ("Hello", "m", 5) == (
        answer.content,
        answer.response_metadata["model_name"],
        answer.usage_metadata["total_tokens"],
    )
    [message] = [each async for each in to_langchain(rxllm.pipe(llm, rxllm.message())).astream("hi")]
    assert isinstance(message, AIMessage)
    lengths = to_langchain(rxllm.pipe(llm, rxllm.text(), ops.map(len)))
    assert [2, 3] == [each async for each in lengths.astream("hi")]


async def test_parameters_and_config_of_a_call():
    """Keywords are parameters of the models, the config is LangChain's."""
    llm = Scripted([["Hi"]])
    runnable = to_langchain(rxllm.pipe(llm, rxllm.text()).with_config(tags=["t"], metadata={"k": 1}))
    events = [event async for event in runnable.astream_events("hi", {"tags": ["u"]}, version="v2")]
    assert (["t", "u"], 1) == (sorted(events[0]["tags"]), events[0]["metadata"]["k"])
    await runnable.bind(temperature=0.5).ainvoke("hi")
    assert 0.5 == llm.requests[-1].temperature
    with pytest.raises(MisuseError, match="temprature"):
        await runnable.ainvoke("hi", temprature=0)


async def test_inputs_of_langchain_are_prompts():
    """Prompts, messages and lists of them; any other input goes to the first stage as it is."""
    llm = Scripted([["Hi"]])
    runnable = to_langchain(rxllm.pipe(llm, rxllm.text()))
    prompt = ChatPromptTemplate.from_messages([("system", "a"), ("user", "b")]).invoke({})
    for value in prompt, prompt.to_messages():
        await runnable.ainvoke(value)
        assert [("system", "a"), ("user", "b")] == [(each.role, each.text) for each in llm.prompts[-1]]
    for value in "hi", HumanMessage("hi"), [HumanMessage("hi")], [("user", "hi")], {"role": "user", "content": "hi"}:
        await runnable.ainvoke(value)
        assert "hi" == llm.requests[-1].text
    seen = []
    first = to_langchain(rxllm.pipe(lambda value: seen.append(value) or "x", llm, rxllm.text()))
    await first.ainvoke({"topic": "tea"})
    assert [{"topic": "tea"}] == seen


def test_pipeline_serves_several_loops_in_turn():
    """As everywhere."""
    runnable = to_langchain(talk())
    assert ["Goodbye"] * 3 == [
        asyncio.run(runnable.ainvoke("hi")),
        runnable.invoke("hi"),
        asyncio.run(runnable.ainvoke("hi")),
    ]


async def test_agent_in_a_pipeline_keeps_its_calls():
    """A program of LangChain must not run them again."""
    llm = Scripted([[call("shout", '{"text":"a"}', "c1", finish_reason="tool_call")], ["Done."]])
    runnable = to_langchain(rxllm.pipe(rxllm.agent(llm, shout)))
    answer = await runnable.ainvoke("hi")
    joined = None
    async for chunk in to_langchain(rxllm.pipe(rxllm.agent(Scripted(llm.answers), shout))).astream("hi"):
        joined = chunk if joined is None else joined + chunk
    for each in answer, joined:
        assert ([], "Done.") == (each.tool_calls, each.text)
        kinds = ["server_tool_call", "server_tool_result", "text"]
        assert kinds == [block["type"] for block in each.content_blocks]
