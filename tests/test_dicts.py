"""`astream_events`: dicts in the shape and order of langchain-core."""

import asyncio

import pytest
import reactivex as rx
from protocols import Chat, Completions
from reactivex import abc
from reactivex import operators as ops

import rxllm
from rxllm import (
    LLM,
    Cancelled,
    Chunk,
    Interrupted,
    Message,
    MisuseError,
    Run,
    Started,
    ToolFinished,
    ToolStarted,
    dispatch,
    tool,
)
from rxllm.events import Failed, Finished, Retried, run_chunk
from rxllm.operators.astream_events import as_dicts
from rxllm.runtime.source import connect
from rxllm.testing import End, Endless, FakeServer, Reply

KEYS = ["event", "name", "run_id", "parent_ids", "tags", "metadata", "data"]


class Letters(LLM):
    """Streams the prompt letter by letter."""

    async def chunks(self, request):
        """Yield one chunk per letter."""
        for letter in request.text:
            yield letter


class ChatLetters(Letters):
    """The same as a chat model."""

    def kind(self, request):
        """Report the kind of run."""
        return "chat_model"


@tool
async def shout(text):
    """Yield the text in capitals."""
    if not text:
        raise KeyError(text)
    return text.upper()


class Dispatching(LLM):
    """Dispatches an event, then answers."""

    async def complete(self, request):
        """Return the prompt."""
        dispatch("progress", {"percent": 50})
        return request.text


async def dicts_of(stage, prompt="ab", **selection):
    """All dicts of one run."""
    return [event async for event in stage.astream_events(prompt, **selection)]


def names(events):
    """The names of the events."""
    return [event["event"] for event in events]


def generated(text, **more):
    """The end data of a model that reports nothing but its text."""
    told = {"text": text, "generation_info": {"finish_reason": None, "logprobs": None}, "type": "Generation", **more}
    return {"generations": [[told]], "llm_output": {"token_usage": {}, "model_name": None}}


async def test_dicts_of_a_text_completion_model():
    """Start, stream and end; chunks are text, and only the start has the input."""
    llm = Letters(run_name="poet", tags=["b", "a"], metadata={"k": 1})
    events = await dicts_of(llm)
    assert [KEYS] * 4 == [list(event) for event in events]
    identity = {"name": "poet", "parent_ids": [], "tags": ["a", "b"], "metadata": {"k": 1}}
    run_id = events[0]["run_id"]
    assert [
        {"event": "on_llm_start", **identity, "run_id": run_id, "data": {"input": "ab"}},
        {"event": "on_llm_stream", **identity, "run_id": run_id, "data": {"chunk": "a"}},
        {"event": "on_llm_stream", **identity, "run_id": run_id, "data": {"chunk": "b"}},
        {"event": "on_llm_end", **identity, "run_id": run_id, "data": {"output": generated("ab")}},
    ] == events


async def test_dicts_of_a_chat_model():
    """Messages are the input; chunks and a message are the output, with the usage at the end."""
    with FakeServer(Reply(Chat().stream(["Hel", "lo"]))) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1")
        events = await dicts_of(llm, [("system", "Be brief."), ("user", "hi")])
    assert ["on_chat_model_start", *["on_chat_model_stream"] * (len(events) - 2), "on_chat_model_end"] == names(events)
    assert {"input": [Message("system", "Be brief."), Message("user", "hi")]} == events[0]["data"]
    chunks = [event["data"]["chunk"] for event in events[1:-1]]
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    assert "Hello" == "".join(map(str, chunks))
    output = events[-1]["data"]["output"]
    assert ("Hello", 5, ["output"]) == (output.text, output.usage.output_tokens, list(events[-1]["data"]))
    assert {"OpenAI"} == {event["name"] for event in events}


async def test_completions_protocol_is_an_llm():
    """The older protocol continues a text."""
    with FakeServer(Reply(Completions().stream(["Hel", "lo"]))) as server:
        events = await dicts_of(rxllm.OpenAI("gpt-3.5-turbo-instruct", base_url=f"{server.url}/v1"))
    assert {"on_llm_start", "on_llm_stream", "on_llm_end"} == set(names(events))
    assert "Hello" == "".join(event["data"]["chunk"] for event in events if event["event"] == "on_llm_stream")


async def test_dicts_of_a_pipeline():
    """Inner models have their input at both ends, and `parent_ids` lists the root first."""
    one, two = Letters(run_name="one"), Letters(run_name="two")
    pipeline = rxllm.pipe(one, rxllm.message(), ops.map(lambda m: m.text * 2), ops.flat_map(two), rxllm.text())
    events = await dicts_of(pipeline, "x")
    told = [(event["name"], event["event"], event["data"]) for event in events]
    inputs = {"input": {"prompts": ["x"]}}, {"input": {"prompts": ["xx"]}}
    assert [
        ("Pipeline", "on_chain_start", {"input": "x"}),
        ("one", "on_llm_start", inputs[0]),
        ("one", "on_llm_stream", {"chunk": "x"}),
        ("one", "on_llm_end", {"output": generated("x"), **inputs[0]}),
        ("two", "on_llm_start", inputs[1]),
        ("two", "on_llm_stream", {"chunk": "x"}),
        ("Pipeline", "on_chain_stream", {"chunk": "x"}),
        ("two", "on_llm_stream", {"chunk": "x"}),
        ("Pipeline", "on_chain_stream", {"chunk": "x"}),
        ("two", "on_llm_end", {"output": generated("xx"), **inputs[1]}),
        ("Pipeline", "on_chain_end", {"output": "xx"}),
    ] == told
    root = events[0]["run_id"]
    assert [[], [root]] == [events[0]["parent_ids"], events[1]["parent_ids"]]
    assert {(): 1, (root,): 2} == {
        parents: len({event["run_id"] for event in events if tuple(event["parent_ids"]) == parents})
        for parents in {tuple(event["parent_ids"]) for event in events}
    }


ASKED, ANSWER = Message("user", "x"), Message("assistant", "x")
FIRST = {"run": None, "type": "LLMResult"}
STAGES = {
    "llm": (Letters(run_name="it"), rxllm.pipe(Letters(run_name="it"))),
    "chat_model": (ChatLetters(run_name="it"), rxllm.pipe(ChatLetters(run_name="it"))),
    "chain": (
        rxllm.pipe(Letters(), rxllm.text()).with_config(run_name="it"),
        rxllm.pipe(rxllm.pipe(Letters(), rxllm.text()).with_config(run_name="it")),
    ),
    "tool": (shout.with_config(run_name="it"), rxllm.pipe(rx.of, ops.flat_map(shout.with_config(run_name="it")))),
}


@pytest.mark.parametrize(
    ("kind", "place", "version", "start", "stream", "end"),
    [
        ("llm", "root", "v2", {"input": "x"}, "x", {"output": generated("x")}),
        ("llm", "root", "v1", {"input": "x"}, "x", {"output": "x"}),
        *(
            ("llm", "within", version, told, "x", {**told, "output": {**generated("x"), **more}})
            for told in [{"input": {"prompts": ["x"]}}]
            for version, more in [("v1", FIRST), ("v2", {})]
        ),
        *(("chat_model", "root", version, {"input": "x"}, Chunk("x"), {"output": ANSWER}) for version in ["v1", "v2"]),
        *(
            ("chat_model", "within", version, told, Chunk("x"), {**told, "output": output})
            for told in [{"input": {"messages": [[ASKED]]}}]
            for version, output in [
                ("v1", {**generated("x", type="ChatGenerationChunk", message=ANSWER), **FIRST}),
                ("v2", ANSWER),
            ]
        ),
        *(("chain", "root", version, {"input": "x"}, "x", {"output": "x"}) for version in ["v1", "v2"]),
        *(("chain", "within", version, {}, "x", {"output": "x", "input": "x"}) for version in ["v1", "v2"]),
        ("tool", "root", "v2", {"input": "x"}, None, {"output": "X"}),
        ("tool", "root", "v1", {"input": "x"}, "X", {"output": "X"}),
        *(("tool", "within", version, {"input": "x"}, None, {"output": "X", "input": "x"}) for version in ["v1", "v2"]),
    ],
)
async def test_data_match_langchain_core(kind, place, version, start, stream, end):
    """The data equal those of langchain-core 1.7.2 for each run, with our messages and chunks for its own."""
    events = await dicts_of(STAGES[kind][place == "within"], "x", version=version, include_names=["it"])
    told = [("start", start), *([("stream", {"chunk": stream})] if stream else []), ("end", end)]
    assert [f"on_{kind}_{phase}" for phase, _ in told] == names(events)
    data = [event["data"] for event in events]
    if isinstance(stream, Chunk):
        assert isinstance(data[1]["chunk"], Chunk)
        data[1]["chunk"] = Chunk(str(data[1]["chunk"]))
    assert [facts for _, facts in told] == data


async def test_messages_as_input_of_a_root_are_kept():
    """A root text-completion model reports its messages as the caller passed them."""
    start, *_ = await dicts_of(Letters(), [("system", "s"), ("user", "x")])
    assert {"input": [Message("system", "s"), ASKED]} == start["data"]


async def test_each_dict_has_its_own_data():
    """A consumer's change of one event leaves the others unchanged."""
    ends = []
    async for event in rxllm.pipe(Letters()).astream_events("x", include_types=["llm"]):
        if event["event"] == "on_llm_start":
            del event["data"]["input"]
        ends.append(event["data"])
    assert {"prompts": ["x"]} == ends[-1]["input"]


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_end_of_a_tool_comes_before_the_use_of_its_result(version):
    """Events that result from the result, such as the chain's chunk, follow."""
    events = await dicts_of(STAGES["tool"][1], "x", version=version)
    tool_events = ["on_tool_start", "on_tool_end"]
    assert ["on_chain_start", *tool_events, "on_chain_stream", "on_chain_end"] == names(events)
    assert ["X", "X"] == [events[-2]["data"]["chunk"], events[-1]["data"]["output"]]


@pytest.mark.parametrize("place", ["root", "within"])
@pytest.mark.parametrize(("version", "end"), [("v1", []), ("v2", ["on_tool_error"])])
async def test_failure_of_a_tool_has_its_input(place, version, end):
    """v2 has an event for it; v1 has none."""
    events = []
    source = STAGES["tool"][place == "within"].events("").pipe(as_dicts(version), ops.do_action(events.append))
    with pytest.raises(KeyError) as raised:
        await source
    heard = [event for event in events if event["name"] == "it"]
    assert ["on_tool_start", *end] == names(heard)
    told = {"error": raised.value, "input": "", "tool_call_id": None}
    assert [told for _ in end] == [event["data"] for event in heard[1:]]


async def test_tool_finishes_before_its_subscriber_leaves():
    """A subscriber that leaves on the tool's result does not cancel the tool."""
    heard = []
    agent = rxllm.pipe(rx.of, ops.flat_map(shout), ops.take(1)).with_config(handlers=[heard.append])
    async with agent.astream("x") as results:
        assert "X" == await anext(results)
    assert [ToolFinished] == [type(e) for e in heard if isinstance(e, (ToolFinished, Cancelled)) and e.name == "shout"]


async def test_handler_may_fail_a_tool_before_its_result_is_emitted():
    """The result is not emitted, because the tool has not finished for its handler."""

    class Refuses(rxllm.Handler):
        raise_error = True

        def on_event(self, event):
            if isinstance(event, ToolFinished):
                raise ValueError(event.output)

    given = []
    with pytest.raises(ValueError, match="X"):
        await shout.with_config(handlers=[Refuses()])("x").pipe(ops.do_action(given.append))
    assert [] == given


class Restarts(LLM):
    """Resets its answer in the middle."""

    async def chunks(self, request):
        """Yield the text twice."""
        yield "a"
        yield Chunk("ab", reset=True)
        yield "c"


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("stage", [Restarts(), rxllm.pipe(Restarts())], ids=["root", "within"])
async def test_reset_after_text_raises(stage, version):
    """A consumer that adds up the chunks would get the text twice, so the stream ends and the model is cancelled."""
    events, heard = [], []
    stage = stage.with_config(handlers=[heard.append])
    with pytest.raises(MisuseError, match=r"cannot be taken back. Use events\(\)"):
        await stage.events("x").pipe(as_dicts(version, include_types=["llm"]), ops.do_action(events.append))
    assert ["on_llm_start", "on_llm_stream"] == names(events)
    assert Cancelled in map(type, heard)
    assert "c" not in [str(event) for event in heard if isinstance(event, Chunk)]


async def test_model_is_cancelled_before_the_error_is_emitted():
    """The consumer's handling may take long, and must not keep the request open."""
    heard = []
    source = Restarts(handlers=[heard.append]).events("x").pipe(as_dicts(), ops.do_action(on_error=heard.append))
    with pytest.raises(MisuseError):
        await source
    assert [Cancelled, MisuseError] == [type(event) for event in heard if type(event) in (Cancelled, MisuseError)]


def test_nothing_follows_the_error():
    """Also for events that arrive at once."""

    class Recorder(abc.ObserverBase):
        def __init__(self):
            self.all = []

        def on_next(self, value):
            self.all.append(value["event"])

        def on_error(self, error):
            self.all.append(type(error))

        def on_completed(self):
            self.all.append("completed")

    run, heard = Run("1", "it", "llm"), Recorder()
    chunks = [run_chunk(chunk, run) for chunk in (Chunk("a"), Chunk("b", reset=True), Chunk("c", reset=True))]
    connect(as_dicts()(rx.of(*chunks, Finished(ANSWER, run=run))), heard, None)
    assert ["on_llm_stream", MisuseError] == heard.all


async def test_reset_without_visible_text_is_allowed():
    """The reset passes if no selected event shows the text, and for a chat model, whose chunk has the reset."""
    events = await dicts_of(rxllm.pipe(Restarts(), rxllm.message()), exclude_types=["llm"])
    assert "abc" == events[-1]["data"]["output"].text

    class Conversation(Restarts):
        def kind(self, request):
            return "chat_model"

    chunks = [event["data"]["chunk"] for event in (await dicts_of(Conversation()))[1:-1]]
    assert [False, True, False] == [chunk.reset for chunk in chunks]


async def test_parallel_branches():
    """Both models have the pipeline as parent, and each branch streams as its chunks arrive."""

    def both(prompt):
        return rx.fork_join(Letters(run_name="one")(prompt), Letters(run_name="two")(prompt))

    events = await dicts_of(rxllm.pipe(both, ops.map(lambda pair: "".join(map(str, pair)))), "x")
    root = events[0]["run_id"]
    assert {"one": [root], "two": [root], "Pipeline": []} == {event["name"]: event["parent_ids"] for event in events}
    assert {"output": "xx"} == events[-1]["data"]


async def test_version_1():
    """v1 has neither parents nor custom events."""
    pipeline = rxllm.pipe(Dispatching(), rxllm.text())
    first, second = await dicts_of(pipeline, version="v1"), await dicts_of(pipeline)
    assert [name for name in names(second) if name != "on_custom_event"] == names(first)
    assert [[]] * len(first) == [event["parent_ids"] for event in first]
    assert [KEYS] * len(first) == [list(event) for event in first]


async def test_custom_event():
    """The dict has the event's name, its bare data, and the dispatching run."""
    start, custom, *_ = await dicts_of(Dispatching(tags=["t"]))
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
async def test_selections_of_events(selection, left):
    """An event passes if any include matches and no exclude matches."""
    stages = Letters(run_name="one"), Letters(run_name="two", tags=["second"]), rxllm.text()
    events = await dicts_of(rxllm.pipe(*stages), **selection)
    assert left == {event["name"] for event in events}


@pytest.mark.parametrize("wrong", ["one", [1], 7])
def test_selection_must_be_several_texts(wrong):
    """A single text would count as its letters, so it raises MisuseError before the request."""
    with pytest.raises(MisuseError, match="include_names must be a list of texts"):
        Letters().astream_events("ab", include_names=wrong)


async def test_parameters_and_config_pass_through():
    """A keyword that is not a selection is a parameter or config of the models."""

    class Warm(LLM):
        async def complete(self, request):
            return str(request.temperature)

    events = await dicts_of(Warm(), temperature=0.5, tags=["t"], include_types=["llm"])
    assert (generated("0.5"), ["t"]) == (events[-1]["data"]["output"], events[-1]["tags"])
    with pytest.raises(MisuseError):
        Warm().astream_events("x", include_name=["Warm"])


@pytest.mark.parametrize(
    ("what", "wrong", "near"),
    [
        ("selection", "include_name", "include_names"),
        ("selection", "include_type", "include_types"),
        ("selection", "exclude_tag", "exclude_tags"),
        ("parameter", "temprature", "temperature"),
        ("parameter", "run_nam", "run_name"),
    ],
)
def test_misspelt_selection_suggests_the_nearest(what, wrong, near):
    """The suggestion comes from the selections and the parameters."""
    with pytest.raises(MisuseError, match=rf"no {what} '{wrong}'\. Did you mean {near}="):
        Letters().astream_events("x", **{wrong: ["Letters"]})


def test_unknown_versions_and_selections_are_refused():
    """MisuseError is raised before the request."""
    with pytest.raises(MisuseError, match="'v1' or 'v2'"):
        Letters().astream_events("x", version="v3")
    with pytest.raises(MisuseError, match="include_name"):
        as_dicts(include_name=["x"])


async def test_failure_is_raised_after_the_earlier_dicts():
    """There is no event for a failure."""

    class Breaks(LLM):
        async def chunks(self, request):
            yield "a"
            raise Interrupted("no")

    events = []
    recorded = rxllm.pipe(Breaks(), rxllm.text()).events("x").pipe(as_dicts(), ops.do_action(events.append))
    with pytest.raises(Interrupted):
        await recorded
    assert ["on_chain_start", "on_llm_start", "on_llm_stream", "on_chain_stream"] == names(events)


async def test_tools_have_events():
    """A tool has start, end and error; a retry has no event."""
    run = Run("1", "search", "tool")
    heard = rx.of(
        ToolStarted({"q": 1}, run=run), ToolFinished("found", run=run), Retried(1, ValueError(), run=run)
    ).pipe(as_dicts(), ops.to_list())
    assert [("on_tool_start", {"input": {"q": 1}}), ("on_tool_end", {"output": "found"})] == [
        (event["event"], event["data"]) for event in heard.run()
    ]
    error = ValueError("no")
    [start, failed] = rx.of(Started({"q": 1}, run=run), Failed(error, run=run)).pipe(as_dicts(), ops.to_list()).run()
    told = {"error": error, "input": {"q": 1}, "tool_call_id": None}
    assert ("on_tool_start", "on_tool_error", told) == (start["event"], failed["event"], failed["data"])


async def test_break_closes_the_request():
    """As in langchain's documentation; the server sees the disconnection."""
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


async def test_cancelled_task_closes_the_request():
    """Also while the server is silent."""
    with FakeServer(Reply([Completions().stream(["x"])[0], End.HANG])) as server:
        llm = rxllm.OpenAI("gpt-3.5-turbo-instruct", base_url=f"{server.url}/v1")
        task = asyncio.create_task(dicts_of(llm))
        await server.exchange(0).arrived.soon()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted
