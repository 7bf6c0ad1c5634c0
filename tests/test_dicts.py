"""`astream_events`: dicts of the shape that is known from langchain-core, in its order."""

import asyncio

import pytest
import reactivex as rx
from protocols import Chat, Completions
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, Interrupted, Message, MisuseError, Run, Started, ToolFinished, ToolStarted, dispatch
from rxllm.events import Failed, Retried
from rxllm.operators.dicts import as_dicts
from rxllm.testing import End, Endless, FakeServer, Reply

KEYS = ["event", "name", "run_id", "parent_ids", "tags", "metadata", "data"]


class Letters(LLM):
    """Streams the prompt by letters."""

    async def chunks(self, request):
        """Letters."""
        for letter in request.text:
            yield letter


class Tells(LLM):
    """Dispatches, and then answers."""

    async def complete(self, request):
        """The prompt."""
        dispatch("progress", {"percent": 50})
        return request.text


async def dicts_of(stage, prompt="ab", **selection):
    """All of them."""
    return [event async for event in stage.astream_events(prompt, **selection)]


def names(events):
    """Which events these are."""
    return [event["event"] for event in events]


async def test_a_models_dicts():
    """A model that continues a text: start, stream, end; text for chunks, the input at the start alone."""
    llm = Letters(run_name="poet", tags=["b", "a"], metadata={"k": 1})
    events = await dicts_of(llm)
    assert [KEYS] * 4 == [list(event) for event in events]
    identity = {"name": "poet", "parent_ids": [], "tags": ["a", "b"], "metadata": {"k": 1}}
    run_id = events[0]["run_id"]
    assert [
        {"event": "on_llm_start", **identity, "run_id": run_id, "data": {"input": "ab"}},
        {"event": "on_llm_stream", **identity, "run_id": run_id, "data": {"chunk": "a"}},
        {"event": "on_llm_stream", **identity, "run_id": run_id, "data": {"chunk": "b"}},
        {"event": "on_llm_end", **identity, "run_id": run_id, "data": {"output": Message("assistant", "ab")}},
    ] == events


async def test_a_chat_models_dicts():
    """A model that converses: messages in, chunks and a message out, with the usage at the end."""
    with FakeServer(Reply(Chat().stream(["Hel", "lo"]))) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1")
        events = await dicts_of(llm, [("system", "Be brief."), ("user", "hi")])
    assert ["on_chat_model_start", *["on_chat_model_stream"] * (len(events) - 2), "on_chat_model_end"] == names(events)
    messages = [Message("system", "Be brief."), Message("user", "hi")]
    assert {"input": {"messages": [messages]}} == events[0]["data"]
    chunks = [event["data"]["chunk"] for event in events[1:-1]]
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    assert "Hello" == "".join(map(str, chunks))
    output = events[-1]["data"]["output"]
    assert ("Hello", 5, ["output"]) == (output.text, output.usage.output_tokens, list(events[-1]["data"]))
    assert {"OpenAI"} == {event["name"] for event in events}


async def test_completions_are_an_llm():
    """The older protocol continues a text."""
    with FakeServer(Reply(Completions().stream(["Hel", "lo"]))) as server:
        events = await dicts_of(rxllm.OpenAI("gpt-3.5-turbo-instruct", base_url=f"{server.url}/v1"))
    assert {"on_llm_start", "on_llm_stream", "on_llm_end"} == set(names(events))
    assert "Hello" == "".join(event["data"]["chunk"] for event in events if event["event"] == "on_llm_stream")


async def test_a_pipelines_dicts():
    """Models within start with nothing and tell their input at the end; parents are told from the root down."""
    one, two = Letters(run_name="one"), Letters(run_name="two")
    pipeline = rxllm.pipe(one, rxllm.message(), ops.map(lambda m: m.text * 2), ops.flat_map(two), rxllm.text())
    events = await dicts_of(pipeline, "x")
    told = [(event["name"], event["event"], event["data"]) for event in events]
    answers = Message("assistant", "x"), Message("assistant", "xx")
    assert [
        ("Pipeline", "on_chain_start", {"input": "x"}),
        ("one", "on_llm_start", {}),
        ("one", "on_llm_stream", {"chunk": "x"}),
        ("one", "on_llm_end", {"output": answers[0], "input": {"prompts": ["x"]}}),
        ("two", "on_llm_start", {}),
        ("two", "on_llm_stream", {"chunk": "x"}),
        ("Pipeline", "on_chain_stream", {"chunk": "x"}),
        ("two", "on_llm_stream", {"chunk": "x"}),
        ("Pipeline", "on_chain_stream", {"chunk": "x"}),
        ("two", "on_llm_end", {"output": answers[1], "input": {"prompts": ["xx"]}}),
        ("Pipeline", "on_chain_end", {"output": "xx"}),
    ] == told
    root = events[0]["run_id"]
    assert [[], [root]] == [events[0]["parent_ids"], events[1]["parent_ids"]]
    assert {(): 1, (root,): 2} == {
        parents: len({event["run_id"] for event in events if tuple(event["parent_ids"]) == parents})
        for parents in {tuple(event["parent_ids"]) for event in events}
    }


async def test_branches_side_by_side():
    """Both models have the pipeline as their parent; each branch streams as it comes."""

    def both(prompt):
        return rx.fork_join(Letters(run_name="one")(prompt), Letters(run_name="two")(prompt))

    events = await dicts_of(rxllm.pipe(both, ops.map(lambda pair: "".join(map(str, pair)))), "x")
    root = events[0]["run_id"]
    assert {"one": [root], "two": [root], "Pipeline": []} == {event["name"]: event["parent_ids"] for event in events}
    assert {"output": "xx"} == events[-1]["data"]


async def test_the_first_version():
    """The same without parents and without the program's own events."""
    pipeline = rxllm.pipe(Tells(), rxllm.text())
    first, second = await dicts_of(pipeline, version="v1"), await dicts_of(pipeline)
    assert [name for name in names(second) if name != "on_custom_event"] == names(first)
    assert [[]] * len(first) == [event["parent_ids"] for event in first]
    assert [KEYS] * len(first) == [list(event) for event in first]


async def test_an_event_of_the_programs_own():
    """It has the name it was given, and the data bare; the run is whose it is."""
    start, custom, *_ = await dicts_of(Tells(tags=["t"]))
    assert {**start, "event": "on_custom_event", "name": "progress", "data": {"percent": 50}} == custom


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        ({"include_names": ["one"]}, {"one"}),
        ({"include_names": ["one"], "include_tags": ["second"]}, {"one", "two"}),
        ({"include_types": ["chain"]}, {"Pipeline"}),
        ({"include_types": ["llm"], "exclude_names": ["two"]}, {"one"}),
        ({"exclude_tags": ["second"]}, {"one", "Pipeline"}),
        ({"exclude_types": ["llm"]}, {"Pipeline"}),
        ({"include_names": []}, set()),
        ({"include_names": None}, {"one", "two", "Pipeline"}),
    ],
)
async def test_selections(selection, left):
    """Any of the includes will do, and none of the excludes may hold."""
    stages = Letters(run_name="one"), Letters(run_name="two", tags=["second"]), rxllm.text()
    events = await dicts_of(rxllm.pipe(*stages), **selection)
    assert left == {event["name"] for event in events}


@pytest.mark.parametrize("wrong", ["one", [1], 7])
def test_a_selection_is_several_texts(wrong):
    """One text alone would pass for its letters; it is refused before anything is asked."""
    with pytest.raises(MisuseError, match="include_names is several texts"):
        Letters().astream_events("ab", include_names=wrong)


async def test_parameters_pass_through():
    """What is no selection is a parameter or config of the models."""

    class Warm(LLM):
        async def complete(self, request):
            return str(request.temperature)

    events = await dicts_of(Warm(), temperature=0.5, tags=["t"], include_types=["llm"])
    assert ("0.5", ["t"]) == (events[-1]["data"]["output"].text, events[-1]["tags"])
    with pytest.raises(MisuseError):
        Warm().astream_events("x", include_name=["Warm"])


def test_other_versions_and_selections_are_refused():
    """Before anything is asked."""
    with pytest.raises(MisuseError, match="'v1' or 'v2'"):
        Letters().astream_events("x", version="v3")
    with pytest.raises(MisuseError, match="include_name"):
        as_dicts(include_name=["x"])


async def test_a_failure_is_raised_after_what_came():
    """There is no event for it."""

    class Breaks(LLM):
        async def chunks(self, request):
            yield "a"
            raise Interrupted("no")

    events = []
    recorded = rxllm.pipe(Breaks(), rxllm.text()).events("x").pipe(as_dicts(), ops.do_action(events.append))
    with pytest.raises(Interrupted):
        await recorded
    assert ["on_chain_start", "on_llm_start", "on_llm_stream", "on_chain_stream"] == names(events)


async def test_tools_have_their_words():
    """start, end and error; a retry has none."""
    run = Run("1", "search", "tool")
    heard = rx.of(
        ToolStarted({"q": 1}, run=run), ToolFinished("found", run=run), Retried(1, ValueError(), run=run)
    ).pipe(as_dicts(), ops.to_list())
    assert [("on_tool_start", {"input": {"q": 1}}), ("on_tool_end", {"output": "found"})] == [
        (event["event"], event["data"]) for event in heard.run()
    ]
    error = ValueError("no")
    [start, failed] = rx.of(Started({"q": 1}, run=run), Failed(error, run=run)).pipe(as_dicts(), ops.to_list()).run()
    assert ("on_tool_start", "on_tool_error", {"error": error}) == (start["event"], failed["event"], failed["data"])


async def test_a_break_after_five_closes_the_request():
    """As the documents do it; the server sees that the client has left."""
    piece = Completions().stream(["x"])[0]
    with FakeServer(Reply([Endless(piece)])) as server:
        llm = rxllm.OpenAI("gpt-3.5-turbo-instruct", base_url=f"{server.url}/v1")
        index = 0
        async for _ in llm.astream_events("Write me a 1 verse song about goldfish on the moon", version="v1"):
            index += 1
            if index >= 5:
                break
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted


async def test_a_cancelled_task_closes_the_request():
    """While the server is silent."""
    with FakeServer(Reply([Completions().stream(["x"])[0], End.HANG])) as server:
        llm = rxllm.OpenAI("gpt-3.5-turbo-instruct", base_url=f"{server.url}/v1")
        task = asyncio.create_task(dicts_of(llm))
        await server.exchange(0).arrived.soon()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted
