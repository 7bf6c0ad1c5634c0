"""Combinators around an agent, and within it: no tool runs twice."""

import asyncio
import copy
import pickle

import pytest
from combinators.scripted import Scripted, call, collect, roles, shown

import rxllm
from rxllm import Approval, Chunk, Limiter, MemoryStore, Message, MisuseError, Pending, ToolCallPart, agent, tool
from rxllm.testing import on_virtual_time

BROKEN = rxllm.Interrupted("cut")


class Counter:
    """A tool that counts its calls."""

    def __init__(self, approve=False):
        self.count = 0

        @tool(approve=approve)
        async def count() -> int:
            self.count += 1
            await asyncio.sleep(1)
            return self.count

        self.tool = count


def failing_later(times=1):
    """A model that calls a tool, then fails `times` times, then answers."""
    return Scripted([[call("count")], *[[BROKEN]] * times, "Done."])


# ── around an agent ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "around",
    [
        lambda llm: rxllm.retry(llm, 3),
        lambda llm: rxllm.retry(llm, 3, mid_stream="restart"),
        lambda llm: rxllm.retry(llm, 3, when=lambda error: True),
        lambda llm: rxllm.fallback(llm, llm),
        lambda llm: rxllm.hedge(llm, llm, after=100),
    ],
)
@on_virtual_time
async def test_no_combinator_repeats_an_agent_after_a_tool_ran(around):
    """The failure of a later round is final, because the tools have had effects."""
    counter, model = Counter(), failing_later()
    _, error = await collect(around(agent(model, counter.tool))("hi"))
    assert (rxllm.Interrupted, 1, 2) == (type(error), counter.count, len(model.requests))
    assert "count{} =1" == shown(error.partial)


@on_virtual_time
async def test_retry_repeats_an_agent_whose_first_round_failed():
    """Nothing has run by then. With ``mid_stream="restart"`` also if the first round has emitted something."""
    counter, model = Counter(), Scripted([[BROKEN], [call("count")], "Done."])
    assert "Done." == (await rxllm.retry(agent(model, counter.tool), 2).ainvoke("hi")).text
    model = Scripted([["Let me", BROKEN], [call("count")], "Done."])
    restarted = rxllm.retry(agent(model, counter.tool), 2, mid_stream="restart")
    assert ("Done.", 2) == ((await restarted.ainvoke("hi")).text, counter.count)


@on_virtual_time
async def test_later_rounds_are_retried_by_the_model_itself():
    """An outer retry switches off the retries of the models within for the first round only."""
    counter, model = Counter(), failing_later(2)
    inner = rxllm.retry(model, 3)
    assert "Done." == (await agent(inner, counter.tool).ainvoke("hi")).text
    outer = rxllm.retry(agent(rxllm.retry(failing_later(2), 3), counter.tool), 2)
    assert ("Done.", 2) == ((await outer.ainvoke("hi")).text, counter.count)


@on_virtual_time
async def test_fallback_asks_the_other_model_if_the_first_round_failed():
    """Nothing has run by then."""
    counter = Counter()
    answer = await rxllm.fallback(agent(Scripted([[BROKEN]]), counter.tool), Scripted(["Other."])).ainvoke("hi")
    assert ("Other.", 0) == (answer.text, counter.count)


@on_virtual_time
async def test_hedge_runs_the_tools_of_one_agent():
    """The first part of an answer decides, and tools run after it."""
    counter = Counter()
    slow, quick = Scripted([[5, call("count")], "Slow."]), Scripted([[1, call("count")], "Quick."])
    hedged = rxllm.hedge(agent(slow, counter.tool), agent(quick, counter.tool), after=1)
    assert ("Quick.", 1) == ((await hedged.ainvoke("hi")).text, counter.count)


APPROVED = [
    ("user", "hi"),
    Message("assistant", [ToolCallPart("c", "count"), Pending(ToolCallPart("c", "count"))]),
    Message("user", [Approval(ToolCallPart("c", "count"), True)]),
]


@pytest.mark.parametrize(
    "around",
    [
        lambda one, other: rxllm.retry(one, 3, mid_stream="restart"),
        lambda one, other: rxllm.fallback(one, other),
        lambda one, other: rxllm.hedge(one, other, after=0.1),
    ],
)
@on_virtual_time
async def test_approved_call_runs_once(around):
    """Its answer begins with the approval, before the tool runs: combinators take this as the first part."""
    counter = Counter(approve=True)
    agents = [agent(Scripted([[BROKEN]]), counter.tool) for _ in range(2)]
    _, error = await collect(around(*agents)(APPROVED))
    assert (rxllm.Interrupted, 1) == (type(error), counter.count)


@on_virtual_time
async def test_limited_counts_an_agent_as_one_request():
    """Within the agent, each round is a request. The places of the limiter are free while tools run."""
    counter = Counter()
    around, within = Limiter(concurrency=1), Limiter(concurrency=1)
    model = Scripted([[1, call("count")], [1, "Done."]])
    whole = rxllm.limited(agent(model, counter.tool), around)
    await asyncio.gather(whole.ainvoke("a"), whole.ainvoke("b"))
    assert 4 == asyncio.get_running_loop().time()  # 3 s, and then the second answer, without a call
    models = [Scripted([[1, call("count")], [1, "Done."]]) for _ in range(2)]
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(agent(rxllm.limited(each, within), counter.tool).ainvoke("a") for each in models))
    assert 4 == asyncio.get_running_loop().time() - began


@on_virtual_time
async def test_cached_agent_runs_no_tool_again():
    """The whole answer is replayed, with its results. A cache within the agent keeps the rounds."""
    counter, model = Counter(), Scripted([[call("count")], "Done."])
    cached = rxllm.cached(agent(model, counter.tool), MemoryStore(), name="counting")
    answers = [await cached.ainvoke("hi") for _ in range(2)]
    assert (1, 2, answers[0].parts) == (counter.count, len(model.requests), answers[1].parts)
    counter, model = Counter(), Scripted([[call("count")], "Done."])
    within = agent(rxllm.cached(model, MemoryStore(), name="model"), tool(lambda: 1, name="count"))
    answers = [await within.ainvoke("hi") for _ in range(2)]
    assert (2, answers[0].parts) == (len(model.requests), answers[1].parts)


def test_cached_needs_a_name_for_an_agent():
    """The code of a tool has no stable key."""
    with pytest.raises(MisuseError, match=r"no stable key|cannot derive a stable key for this Agent: .* Pass cached"):
        rxllm.cached(agent(Scripted(["Done."]), Counter().tool), MemoryStore())


@on_virtual_time
async def test_share_runs_the_tools_once_for_all_subscribers():
    """Two subscriptions without `share` are two runs."""
    counter = Counter()
    shared = agent(Scripted([[call("count")], "Done."]), counter.tool)("hi").pipe(rxllm.share())
    both = await asyncio.gather(*(collect(shared) for _ in range(2)))
    assert (1, both[0]) == (counter.count, both[1])


@on_virtual_time
async def test_remember_keeps_all_rounds_as_one_answer():
    """The next turn sends them as the model got them. The other order is refused, and so is an agent as a tool."""
    counter, model, conversation = Counter(), Scripted([[call("count")], "One.", "Bye."]), rxllm.Conversation()
    talk = rxllm.remember(agent(model, counter.tool), conversation)
    answers = [await talk.ainvoke(text) for text in ("How many?", "bye")]
    assert [("user", "How many?"), ("assistant", "count{} =1 One.")] == roles(conversation.messages)[:2]
    assert ["user", "assistant", "tool", "assistant", "user"] == [message.role for message in model.prompts[-1]]
    assert (answers[0].parts, "Bye.") == (conversation.messages[1].parts, answers[1].text)
    with pytest.raises(MisuseError, match=r"Write remember\(agent\(llm, …\), conversation\)"):
        agent(rxllm.remember(model, conversation), counter.tool)
    with pytest.raises(MisuseError, match="An agent takes tools and functions, not agent"):
        agent(model, agent(model))


@on_virtual_time
async def test_batch_asks_one_agent_for_each_prompt():
    """The answers are in the order of the prompts."""

    class Echo(rxllm.LLM):
        async def chunks(self, request):
            if request.messages[-1].role == "user":
                yield call("double", f'{{"text":"{request.text}"}}')
            else:
                yield request.messages[-1].parts[0].text

    @tool
    async def double(text: str) -> str:
        await asyncio.sleep(1)
        return text * 2

    answers = await agent(Echo(), double).abatch(["a", "b", "c"])
    assert (["aa", "bb", "cc"], 1) == ([answer.text for answer in answers], asyncio.get_running_loop().time())


@on_virtual_time
async def test_time_limits_of_an_agent_count_the_tools():
    """While a tool runs, the stream is silent."""
    counter = Counter()
    asked = agent(Scripted([[call("count")], "Done."]), counter.tool)
    assert "Done." == await rxllm.pipe(asked, rxllm.idle_timeout(2), rxllm.text()).ainvoke("hi")
    with pytest.raises(rxllm.Timeout):
        await rxllm.pipe(agent(Scripted([[call("count")], "x"]), counter.tool), rxllm.idle_timeout(0.5)).ainvoke("hi")
    with pytest.raises(rxllm.Timeout):
        await rxllm.pipe(agent(Scripted([[call("count")], "x"]), counter.tool), rxllm.deadline(0.5)).ainvoke("hi")


# ── agents in agents, and journeys ───────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_agent_can_be_a_tool_of_another():
    """The text of its answer is the result. Its run is within the tool's run."""
    inner = agent(Scripted([[call("count")], "Inner."]), Counter().tool)

    @tool
    async def research(question: str) -> Message:
        return await inner.ainvoke(question)

    model, heard = Scripted([[call("research", '{"question":"q"}')], "Outer."]), []
    assert "Outer." == (await agent(model, research).ainvoke("hi", handlers=[heard.append])).text
    assert "Inner." == model.prompts[1][-1].parts[0].text
    assert {"Scripted", "count"} == {event.name for event in heard if len(event.parent_ids) == 3}


@on_virtual_time
async def test_agent_takes_the_answer_of_a_stage_and_ends_a_pipeline():
    """It is a model: after another model it gets its text as the user's, and `text` passes the text of all rounds."""
    model = Scripted([["Let me see. ", call("count")], "One."])
    talk = rxllm.pipe(Scripted(["How many?"]), agent(model, Counter().tool), rxllm.text())
    assert "Let me see. One." == await talk.ainvoke("hi")
    assert ("user", "How many?") == roles(model.prompts[0])[0]


@tool
async def constant() -> int:
    """A tool in a module."""
    return 1


@pytest.mark.parametrize("made", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])  # noqa: S301
def test_agent_is_the_same_after_a_journey(made):
    """With tools of a module it can be pickled."""
    made_here = agent(rxllm.Embedded(seed=1), constant, {"type": "x"}, rounds=3, limits=rxllm.Limits(tokens=9))
    there = made(made_here.bind(temperature=0.5))
    assert made_here.bind(temperature=0.5) == there
    assert made_here.specs == there.specs
    text = "agent(Embedded(seed=1), tool(constant), {'type': 'x'}, rounds=3, limits=Limits(tokens=9))"
    assert text == repr(made_here)


async def test_stream_false_asks_for_whole_rounds():
    """Each round is one chunk. The answer of the agent has a chunk for each round and each result."""
    model = Scripted([["a", call("count")], ["b", "c"]])
    chunks, _ = await collect(agent(model, tool(lambda: 1, name="count")).bind(stream=False)("hi"))
    assert ["a count{}", "=1", "bc"] == [shown(chunk) for chunk in chunks]
    assert all(request.stream is False for request in model.requests)


def test_sync_and_async_forms_agree():
    """A plain loop and `invoke` work without an event loop."""
    parts = [
        rxllm.join(agent(Scripted([[call("count")], "Done."]), tool(lambda: 1, name="count")).stream("hi")).parts,
        agent(Scripted([[call("count")], "Done."]), tool(lambda: 1, name="count")).invoke("hi").parts,
    ]
    assert parts[0] == parts[1]
    assert Chunk(parts=parts[0]).text == "Done."
