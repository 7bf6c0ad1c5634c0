"""Limits and steering of an agent, and what happens when its consumer leaves."""

import asyncio
import threading

import pytest
import reactivex as rx
from combinators.scripted import Scripted, call, collect, roles, shown, timeline
from protocols import Chat, ToolCall
from reactivex.subject import ReplaySubject, Subject

import rxllm
from rxllm import Chunk, LimitReached, Limits, Message, MisuseError, ToolResultPart, Usage, agent, tool
from rxllm.testing import End, FakeServer, Reply, on_virtual_time


@tool
async def work(n: int = 0) -> int:
    """Work for ten seconds."""
    await asyncio.sleep(10)
    return n


def used(input_tokens, output_tokens):
    """A chunk with a usage."""
    return Chunk(usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens))


def outcomes(message):
    """The outcomes of the results, by the ids of their calls."""
    return {part.id: part.outcome for part in message.parts if isinstance(part, ToolResultPart)}


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_tokens_are_limited_over_all_rounds():
    """The limit is compared after each round. The calls of the last round do not run, and have results."""
    model = Scripted([[call("work", id=f"c{n}"), used(100, 20)] for n in range(5)])
    chunks, error = await collect(agent(model, work, limits=Limits(tokens=240))("hi"))
    assert (LimitReached, "tokens") == (type(error), error.limit)
    assert "The agent has not ended within its limit of 240 tokens." == str(error)
    assert ({"c0": "ok", "c1": "error"}, 2) == (outcomes(error.partial), len(model.requests))
    assert rxllm.join(chunks).message().parts == error.partial.parts
    answered = Scripted([[call("work"), used(100, 20)], ["Done.", used(500, 20)]])
    assert "Done." == (await agent(answered, work, limits=Limits(tokens=240)).ainvoke("hi")).text


@on_virtual_time
async def test_tokens_of_models_that_tools_ask_count():
    """So do estimated tokens, if a provider reports none."""

    @tool
    async def ask(question: str) -> str:
        return (await Scripted([["x" * 4000]]).ainvoke(question)).text

    model = Scripted([[call("ask", '{"question":"q"}'), used(10, 10)], [call("ask", '{"question":"q"}'), used(10, 10)]])
    _, error = await collect(agent(model, ask, limits=Limits(tokens=1000))("hi"))
    assert ("tokens", 2) == (error.limit, len(model.requests))


@on_virtual_time
async def test_cost_is_limited():
    """By the list prices of genai-prices. A model without a price is an error, because the limit could not hold."""

    class Priced(Scripted):
        def service(self, request):
            return rxllm.Service("openai", "gpt-4o")

    model = Priced([[call("work"), used(10**6, 0)]])
    _, error = await collect(agent(model, work, limits=Limits(cost=7), rounds=9)("hi"))
    assert ("cost", "The agent has not ended within its limit of 7 US dollars.") == (error.limit, str(error))
    assert 3 == len(model.requests)
    unknown = Scripted([[call("work"), used(10, 10)]])
    with pytest.raises(MisuseError, match=r"limit of cost, but no price is known for Scripted\. Limit the tokens"):
        await agent(unknown, work, limits=Limits(cost=7)).ainvoke("hi")


def test_cost_needs_the_extra(monkeypatch):
    """The error names it, when the limit is made."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[prices\]'"):
        Limits(cost=1)


@on_virtual_time
async def test_seconds_limit_running_tools():
    """The tools are cancelled at once: nobody knows what they have done. Queued calls have not run."""
    cancelled = []

    @tool
    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(asyncio.get_running_loop().time())

    calls = [call("long", id="a"), call("long", id="b", index=1)]
    limited = agent(Scripted([["See.", *calls]]), long, concurrency=1, limits=Limits(seconds=5))
    chunks, error = await collect(limited("hi"))
    assert ("seconds", [5], 5) == (error.limit, cancelled, asyncio.get_running_loop().time())
    assert {"a": "interrupted", "b": "error"} == outcomes(error.partial)
    assert rxllm.join(chunks).message().parts == error.partial.parts


@on_virtual_time
async def test_seconds_limit_the_model():
    """The request is cancelled, and what came is the partial answer. An answer in time is not disturbed."""
    model = Scripted([[call("work")], ["It ", 60, "rains."]])
    _, error = await collect(agent(model, work, limits=Limits(seconds=20))("hi"))
    assert ("seconds", "work{} =0 It ", 20) == (error.limit, shown(error.partial), asyncio.get_running_loop().time())
    assert [1, 2] == model.closed
    model = Scripted([[call("work")], ["It ", 6, "rains."]])
    assert "It rains." == (await agent(model, work, limits=Limits(seconds=20)).ainvoke("hi")).text


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"tokens": 0}, "tokens must be a whole number of at least 1, not 0"),
        ({"cost": -1}, "cost must be a positive number, not -1"),
        ({"seconds": float("inf")}, "seconds must be a positive number, not inf"),
        ({"seconds": True}, "seconds must be a positive number, not True"),
    ],
)
def test_limits_are_checked(limits, sentence):
    """When they are made."""
    with pytest.raises(MisuseError, match=sentence):
        Limits(**limits)
    with pytest.raises(MisuseError, match=r"limits must be rxllm\.Limits\(…\), not 5"):
        agent(Scripted(["x"]), limits=5)


# ── steering ─────────────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_message_in_the_inbox_goes_into_the_next_round():
    """The answer contains it, so that the history stays whole."""
    inbox, loop = Subject(), asyncio.get_running_loop()
    model = Scripted([[call("work")], "In French.", "Good."])
    loop.call_later(4, inbox.on_next, "In French, please.")
    steered = agent(model, work).bind(inbox=inbox)
    assert [(0, "work{}"), (10, "=0"), (10, "raw"), (10, "In French."), (10, "|")] == await timeline(steered("hi"))
    sent = [("user", "hi"), ("assistant", "work{}"), ("tool", "=0"), ("user", "In French, please.")]
    assert sent == roles(model.prompts[1])
    assert [] == inbox.observers
    answer = Message("assistant", (await collect(steered("hi")))[0][-1].parts)
    assert "Good." == answer.text


@on_virtual_time
async def test_message_after_the_answer_asks_once_more():
    """The two answers stay apart, in the answer and in the history."""
    inbox, loop = Subject(), asyncio.get_running_loop()
    think = Chunk(parts=[rxllm.ReasoningPart("hm", index=0)])
    model = Scripted(
        [[think, 5, Chunk("One.", finish_reason="stop")], [think, Chunk("Two.", finish_reason="stop")], "x"]
    )
    loop.call_later(2, inbox.on_next, Message("user", "And two?"))
    answer = await agent(model).ainvoke("hi", inbox=inbox)
    assert ("(hm) One. raw (hm) Two.", "stop") == (shown(answer), answer.finish_reason)
    await model.ainvoke([("user", "hi"), answer, ("user", "bye")])
    assert [
        ("user", "hi"),
        ("assistant", "(hm) One."),
        ("user", "And two?"),
        ("assistant", "(hm) Two."),
        ("user", "bye"),
    ] == roles(model.prompts[2])


@pytest.mark.parametrize("options", [{"rounds": 1}, {"limits": Limits(tokens=100)}])
@pytest.mark.parametrize("finish", [{"finish_reason": "stop"}, {}])
@on_virtual_time
async def test_message_that_comes_too_late_leaves_the_answer_as_it_is(options, finish):
    """A limit forbids another request. It stops an answer with calls only."""
    inbox = Subject()
    model = Scripted([["One", used(100, 20), 5, Chunk(".", **finish)]])
    asyncio.get_running_loop().call_later(2, inbox.on_next, "And two?")
    chunks, error = await collect(agent(model, work, **options).bind(inbox=inbox)("hi"))
    answer = rxllm.join(chunks).message()
    assert ("One.", finish.get("finish_reason"), None, 1) == (
        answer.text,
        answer.finish_reason,
        error,
        len(model.requests),
    )
    assert all(chunks)


@on_virtual_time
async def test_message_before_a_pause_is_in_the_history():
    """The agent gets it after the results of the calls that waited."""
    inbox = ReplaySubject()
    waits = tool(work.function, name="wait", approve=True)
    model = Scripted([[call("wait", id="a"), call("work", id="b", index=1)], "Done."])
    asyncio.get_running_loop().call_later(2, inbox.on_next, "And be brief.")
    careful = agent(model, waits, work)
    answer = await careful.bind(inbox=inbox).ainvoke("hi")
    assert ("wait{} work{} =0 raw wait…", "tool_call") == (shown(answer), answer.finish_reason)
    history = [Message("user", "hi"), answer, Message("user", [answer.pending[0].approve()])]
    assert "Done." == (await careful.ainvoke(history)).text
    assert [
        ("user", "hi"),
        ("assistant", "wait{} work{}"),
        ("tool", "=0 =0"),
        ("user", "And be brief."),
    ] == roles(model.prompts[1])


@on_virtual_time
async def test_message_before_the_first_round_is_part_of_it():
    """It follows the prompt."""
    inbox = ReplaySubject()
    inbox.on_next("And be brief.")
    model = Scripted(["Yes."])
    await agent(model).bind(inbox=inbox, temperature=0).ainvoke("hi")
    assert ([("user", "hi"), ("user", "And be brief.")], 0) == (roles(model.prompts[0]), model.requests[0].temperature)


def test_inbox_may_emit_on_another_thread():
    """The messages arrive on the event loop of the agent."""
    inbox, began = Subject(), threading.Event()

    @tool
    def wait() -> str:
        began.set()
        inbox.on_next("from the tool's thread")
        return "ok"

    model = Scripted([[call("wait")], "Done."])
    assert "Done." == agent(model, wait).bind(inbox=inbox).invoke("hi").text
    assert "from the tool's thread" == model.prompts[1][-1].text


@on_virtual_time
async def test_inbox_that_fails_or_emits_something_else_ends_the_answer():
    """A completed inbox does nothing. Other models have no inbox."""
    with pytest.raises(MisuseError, match="inbox of an agent must emit texts or messages of the user, not 5"):
        await agent(Scripted([[1, "x"]])).bind(inbox=rx.of(5)).ainvoke("hi")
    with pytest.raises(MisuseError, match="not Message"):
        await agent(Scripted([[1, "x"]])).bind(inbox=rx.of(Message("assistant", "no"))).ainvoke("hi")
    with pytest.raises(ValueError, match="broken"):
        await agent(Scripted([[1, "x"]])).bind(inbox=rx.throw(ValueError("broken"))).ainvoke("hi")
    assert "x" == (await agent(Scripted(["x"])).bind(inbox=rx.empty()).ainvoke("hi")).text
    with pytest.raises(MisuseError, match="inbox must be an Observable of texts or messages, not 'hi'"):
        agent(Scripted(["x"])).bind(inbox="hi")
    with pytest.raises(MisuseError, match="There is no parameter 'inbox'"):
        Scripted(["x"]).bind(inbox=Subject())


# ── leaving ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Phases:
    """An agent whose phases last: each notes when it was cancelled, in seconds."""

    def __init__(self):
        self.cancelled = []

        @tool
        async def slow(n: int) -> int:
            return await self.phase(f"tool {n}")

        phases = self

        class Model(rxllm.LLM):
            async def chunks(self, request):
                number = sum(message.role == "tool" for message in request.messages)
                yield f"{number}"
                if number != 1:
                    await phases.phase(f"model {number}")
                else:
                    yield call("slow", '{"n":0}', "a")
                    yield call("slow", '{"n":1}', "b", 1)

        self.agent = agent(Model(), slow)

    async def phase(self, name):
        """Last for a minute."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.append((name, asyncio.get_running_loop().time()))
            raise


HISTORY = [
    ("user", "hi"),
    Message("assistant", [rxllm.ToolCallPart("x", "slow")]),
    Message("tool", [ToolResultPart("x", "1")]),
]


@pytest.mark.parametrize(
    ("prompt", "until", "cancelled"),
    [("hi", 1, ["model 0"]), (HISTORY, 3, ["tool 0", "tool 1"])],
)
@pytest.mark.parametrize("leave", ["break", "cancel", "dispose"])
@on_virtual_time
async def test_leaving_cancels_the_model_or_the_tools_at_once(prompt, until, cancelled, leave):
    """However the consumer leaves. Virtual time stands still meanwhile."""
    phases, seen, reached = Phases(), [], asyncio.Event()

    def note(chunk):
        seen.append(chunk)
        if len(seen) == until:
            reached.set()

    async def read():
        async with phases.agent.astream(prompt) as stream:
            async for chunk in stream:
                note(chunk)
                if leave == "break" and len(seen) == until:
                    await asyncio.sleep(1)
                    break

    reading = None if leave == "dispose" else asyncio.create_task(read())
    subscription = phases.agent(prompt).subscribe(note) if reading is None else None
    await reached.wait()
    await asyncio.sleep(1)
    if subscription is not None:
        subscription.dispose()
    elif leave == "cancel":
        reading.cancel()
    await asyncio.sleep(0.01)  # turns of the loop
    assert [(name, 1) for name in cancelled] == sorted(phases.cancelled)
    if reading is not None:
        await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize("phase", ["the first round", "a tool", "the second round"])
@pytest.mark.parametrize("leave", ["break", "dispose"])
async def test_leaving_closes_the_request_or_the_tool(phase, leave):
    """Over HTTP, in each phase. The server sees its connection close, and the tool its cancellation."""
    began, cancelled, chat = asyncio.Event(), asyncio.Event(), Chat()

    @tool
    async def work() -> str:
        began.set()
        try:
            if phase == "a tool":
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "done"

    called = Reply(chat.stream(["See."], tool_call=ToolCall("c", "work", ["{}"])))
    silent = Reply([*chat.stream(["It "])[:2], End.HANG])
    with FakeServer(*[silent] if phase == "the first round" else [called, silent]) as server:
        llm = rxllm.OpenAI("m", api_key="k", base_url=f"{server.url}/v1", api="chat", max_retries=0)
        spoke = asyncio.Event()

        def note(chunk):
            if chunk.text == ("See." if phase == "a tool" else "It "):
                spoke.set()

        async def read():
            async with agent(llm, work).astream("hi") as stream:
                async for chunk in stream:
                    note(chunk)
                    if spoke.is_set():
                        await (began.wait() if phase == "a tool" else asyncio.sleep(0))
                        return

        if leave == "break":
            await read()
        else:
            subscription = agent(llm, work)("hi").subscribe(note)
            await spoke.wait()
            await (began.wait() if phase == "a tool" else asyncio.sleep(0))
            subscription.dispose()
        if phase == "a tool":
            await cancelled.wait()
        else:
            exchange = server.exchange(0 if phase == "the first round" else 1)
            await asyncio.to_thread(exchange.wait_closed, timeout=30)
        assert (2 if phase == "the second round" else 1) == len(server.requests)


@on_virtual_time
async def test_leaving_between_the_rounds_asks_no_further():
    """A subscriber that disposes at a result gets no further chunk, and no request follows."""
    model, seen = Scripted([[call("work")], "Done."]), []
    subscription = rx.disposable.SerialDisposable()

    def leave(chunk):
        seen.append(chunk)
        if isinstance(chunk.parts[0], ToolResultPart):
            subscription.dispose()

    subscription.disposable = agent(model, work)("hi").subscribe(leave)
    await asyncio.sleep(30)
    assert (2, 1) == (len(seen), len(model.requests))


@on_virtual_time
async def test_blocking_tool_is_silenced():
    """Its thread runs on, and its result reaches nobody. No further call starts."""
    release, began, done = threading.Event(), threading.Event(), threading.Event()

    @tool
    def block() -> str:
        began.set()
        release.wait(5)
        done.set()
        return "late"

    model, seen = Scripted([[call("block", id="a"), call("work", id="b", index=1)]]), []
    subscription = agent(model, block, work, concurrency=1)("hi").subscribe(seen.append)
    while not began.is_set():  # noqa: ASYNC110  (another thread sets it)
        await asyncio.sleep(0.01)
    subscription.dispose()
    release.set()
    while not done.is_set():  # noqa: ASYNC110  (another thread sets it)
        await asyncio.sleep(0.01)
    await asyncio.sleep(20)
    assert ["block{}", "work{}"] == [shown(chunk) for chunk in seen]


@on_virtual_time
async def test_subscriber_that_raises_stops_the_agent(caplog):
    """The tools are cancelled, and the exception goes to the event loop's exception handler, as with every model."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))

    def fail(chunk):
        if isinstance(chunk.parts[0], ToolResultPart):
            raise ValueError("mine")

    model = Scripted([[call("quick", id="a"), call("work", id="b", index=1)], "Done."])
    heard = []
    agent(model, tool(lambda: 1, name="quick"), work).with_config(handlers=[heard.append])("hi").subscribe(fail)
    await asyncio.sleep(30)
    assert (["mine"], 1) == (reported, len(model.requests))
    assert "Cancelled" in [type(event).__name__ for event in heard if event.name == "work"]


@on_virtual_time
async def test_slow_reader_pauses_the_model_and_not_the_tools():
    """Tools run while the gate is closed; at most the usual number of chunks is buffered."""
    ran = []

    @tool
    async def note() -> str:
        ran.append(asyncio.get_running_loop().time())
        return "ok"

    model = Scripted([[call("note")], [str(n) for n in range(1000)]])
    async with agent(model, note).astream("hi") as stream:
        await anext(stream)
        await asyncio.sleep(5)
        assert ([0], [1]) == (ran, model.closed)
        assert 1001 == len([chunk async for chunk in stream])


@on_virtual_time
async def test_operator_that_ends_the_answer_knows_all_rounds():
    """While a tool runs, and the models that it asks; and while the model of a later round answers."""

    @tool
    async def ask() -> str:
        return (await Scripted([["inner", 60]]).ainvoke("q")).text

    _, error = await collect(rxllm.deadline(5)(agent(Scripted([["See.", call("ask")]]), ask)("hi")))
    assert ("Timeout", "See. ask{}", "hi") == (type(error).__name__, shown(error.partial), error.request.text)
    later = agent(Scripted([[call("work")], ["It ", 60]]), work)
    _, error = await collect(rxllm.deadline(15)(later("hi")))
    assert "work{} =0 It " == shown(error.partial)
