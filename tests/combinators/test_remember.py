"""`remember`: turns of a `Conversation`."""

import asyncio
import copy
import pickle
import threading

import pytest
import reactivex as rx
from attrs import field, frozen
from combinators.moments import moments
from reactivex import operators as ops

import rxllm
from rxllm import (
    LLM,
    Chunk,
    Conversation,
    Message,
    MisuseError,
    Request,
    ToolCallPart,
    Usage,
    fallback,
    hedge,
    remember,
    retry,
)
from rxllm.testing import LLMContract, MarbleLLM, on_virtual_time


@frozen
class Echo(LLM):
    """A model that records what it gets, and answers with the texts of the messages."""

    asked: list[tuple[str, ...]] = field(factory=list, repr=False, eq=False)

    async def chunks(self, request):
        """Emits the text of the last message, letter by letter."""
        self.asked.append(tuple(message.text for message in request.messages))
        for letter in request.messages[-1].text:
            await asyncio.sleep(1)
            yield letter.upper()


@frozen
class Fails(LLM):
    """A model that emits `first` and raises, `times` times; then it answers ``ok``."""

    times: int = 1
    first: str = ""
    asked: list[tuple[str, ...]] = field(factory=list, repr=False, eq=False)

    async def chunks(self, request):
        """Emits the beginning and raises, or answers."""
        self.asked.append(tuple(message.text for message in request.messages))
        await asyncio.sleep(1)
        if len(self.asked) <= self.times:
            if self.first:
                yield self.first
            raise rxllm.Interrupted("cut")
        yield Chunk("ok", finish_reason="stop")


def texts(conversation):
    """The messages, as (role, text), with a star after an interrupted text."""
    return [(message.role, message.text + "*" * message.interrupted) for message in conversation.messages]


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_later_turn_gets_the_earlier_messages():
    """The model gets the whole conversation and the new message, and the conversation keeps both."""
    model, conversation = Echo(), Conversation([("system", "Be brief.")])
    llm = remember(model, conversation)
    assert "AB" == (await llm.ainvoke("ab")).text
    assert "C" == (await llm.ainvoke("c")).text
    assert [("Be brief.", "ab"), ("Be brief.", "ab", "AB", "c")] == model.asked
    roles = [message.role for message in conversation.messages]
    assert ["system", "user", "assistant", "user", "assistant"] == roles


@on_virtual_time
async def test_question_is_kept_when_the_turn_begins_and_the_answer_when_it_ends():
    """A cold stream keeps nothing; a running turn has its question only."""
    conversation = Conversation()
    stream = remember(Echo(), conversation)("ab")
    assert () == conversation.messages
    stream.subscribe()
    assert [("user", "ab")] == texts(conversation)
    await asyncio.sleep(1.5)
    assert [("user", "ab")] == texts(conversation)
    await asyncio.sleep(1)
    assert [("user", "ab"), ("assistant", "AB")] == texts(conversation)


@on_virtual_time
async def test_answer_is_kept_with_its_facts():
    """Usage, finish reason, model and id are those of the answer that invoke returns."""
    conversation = Conversation()
    facts = Chunk(" b", usage=Usage(input_tokens=3, output_tokens=4), finish_reason="stop", model="m", id="i")
    answer = await remember(MarbleLLM("-a-(b,|)", values={"b": facts}), conversation).ainvoke("hi")
    assert answer == conversation.messages[-1]
    assert (Usage(input_tokens=3, output_tokens=4), "stop", "m", "i") == (
        answer.usage,
        answer.finish_reason,
        answer.model,
        answer.id,
    )


@on_virtual_time
async def test_turns_wait_for_each_other_in_the_order_of_their_subscriptions():
    """Three turns at once: each gets the answers before it."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    await asyncio.gather(*(llm.ainvoke(prompt) for prompt in ("abc", "d", "ef")))
    assert [("abc",), ("abc", "ABC", "d"), ("abc", "ABC", "d", "D", "ef")] == model.asked
    assert 6 == asyncio.get_running_loop().time()


@on_virtual_time
async def test_two_models_share_a_conversation():
    """Their turns wait for each other, too."""
    conversation, model = Conversation(), Echo()
    first, second = remember(Echo(), conversation), remember(model, conversation)
    await asyncio.gather(first.ainvoke("a"), second.ainvoke("b"))
    assert [("a", "A", "b")] == model.asked


def test_turns_of_several_threads_wait_for_each_other():
    """Each thread's stream runs on the background loop; no turn is lost."""
    conversation = Conversation()
    llm = remember(rxllm.Embedded(max_tokens=3), conversation)
    threads = [threading.Thread(target=llm.invoke, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["user", "assistant"] * 6 == [message.role for message in conversation.messages]


def test_turns_of_several_loops_wait_for_each_other():
    """A loop that ended in the middle of a turn does not stop the turns of the next loop."""
    conversation, model = Conversation(), Echo()
    llm = remember(model, conversation)

    async def abandon():
        llm("ab").subscribe()
        await asyncio.sleep(1.5)

    on_virtual_time(abandon)()
    assert [("user", "ab"), ("assistant", "A*")] == texts(conversation)
    on_virtual_time(llm.ainvoke)("c")
    assert ("ab", "A", "c") == model.asked[-1]


@on_virtual_time
async def test_long_answer_is_kept_whole():
    """More chunks than are joined at once."""
    conversation = Conversation()

    class Long(LLM):
        async def chunks(self, request):
            for number in range(5000):
                yield f"{number} "

    answer = await remember(Long(), conversation).ainvoke("hi")
    assert "".join(f"{number} " for number in range(5000)) == answer.text == conversation.messages[-1].text


def test_works_on_a_virtual_time_scheduler():
    """Without an event loop, as the operators do."""
    conversation = Conversation()
    llm = remember(MarbleLLM("--a-b-|"), conversation)
    assert [(2.0, "a"), (4.0, "b"), (6.0, "|")] == moments(llm("hi"))
    assert [(2.0, "a")] == moments(llm("again"), leave_at=3)
    assert [("user", "hi"), ("assistant", "ab"), ("user", "again"), ("assistant", "a*")] == texts(conversation)


# ── turns that end early ─────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_disposed_turn_is_interrupted_in_memory_before_dispose_returns():
    """The answer has what came, and the next turn sends it."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    subscription = llm("abc").subscribe()
    await asyncio.sleep(2.5)
    subscription.dispose()
    assert [("user", "abc"), ("assistant", "AB*")] == texts(conversation)
    await llm.ainvoke("d")
    assert ("abc", "AB", "d") == model.asked[-1]


def test_dispose_in_another_thread_marks_the_turn_before_it_returns():
    """`break` in a plain for loop, whose stream runs in the background."""
    conversation = Conversation()

    class Waits(LLM):
        async def chunks(self, request):
            yield "so "
            await asyncio.Event().wait()

    for _ in remember(Waits(), conversation).stream("hi"):
        break
    assert [("user", "hi"), ("assistant", "so *")] == texts(conversation)
    assert not remember(rxllm.Embedded(max_tokens=3), conversation).invoke("again").interrupted


@on_virtual_time
async def test_turn_disposed_while_it_waits_leaves_nothing():
    """It has not begun."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    running = asyncio.ensure_future(llm.ainvoke("ab"))
    await asyncio.sleep(0.5)
    llm("never").subscribe().dispose()
    await running
    await llm.ainvoke("c")
    assert [("ab",), ("ab", "AB", "c")] == model.asked


@on_virtual_time
async def test_turn_disposed_before_its_first_chunk_keeps_its_question():
    """The question is in the conversation; there is no answer to mark."""
    conversation = Conversation()
    subscription = remember(Echo(), conversation)("abc").subscribe()
    await asyncio.sleep(0.5)
    subscription.dispose()
    assert [("user", "abc")] == texts(conversation)


@on_virtual_time
async def test_dispose_from_on_next_marks_the_turn():
    """As `ops.take(1)` does."""
    conversation = Conversation()
    await remember(Echo(), conversation)("abc").pipe(ops.take(1), rxllm.astream()).__anext__()
    assert [("user", "abc"), ("assistant", "A*")] == texts(conversation)


@on_virtual_time
async def test_failed_answer_is_kept_as_far_as_it_came():
    """Marked as interrupted; the error reaches the subscriber unchanged."""
    conversation = Conversation()
    with pytest.raises(rxllm.Interrupted) as raised:
        await remember(Fails(first="so "), conversation).ainvoke("hi")
    assert "so " == raised.value.partial.text
    assert [("user", "hi"), ("assistant", "so *")] == texts(conversation)


@on_virtual_time
async def test_raising_subscriber_ends_the_turn():
    """The answer is interrupted, and the next turn begins."""
    conversation = Conversation()
    llm = remember(Echo(), conversation)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def fail(chunk):
        raise RuntimeError

    llm("abc").subscribe(fail)
    await asyncio.wait_for(llm.ainvoke("d"), 10)
    assert [("user", "abc"), ("assistant", "A*"), ("user", "d"), ("assistant", "D")] == texts(conversation)


@on_virtual_time
async def test_empty_answer_is_kept():
    """It ended, although it has nothing in it."""
    conversation = Conversation()
    await remember(MarbleLLM("--|"), conversation).ainvoke("hi")
    assert (Message("user", "hi"), Message("assistant")) == conversation.messages


# ── the same request again ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("inside", [True, False])
@on_virtual_time
async def test_retry_inside_and_outside_keeps_one_question(inside):
    """After two empty failures."""
    model, conversation = Fails(times=2), Conversation()
    llm = remember(retry(model), conversation) if inside else retry(remember(model, conversation))
    assert "ok" == (await llm.ainvoke("hi")).text
    assert [("user", "hi"), ("assistant", "ok")] == texts(conversation)
    assert [("hi",)] * 3 == model.asked


@pytest.mark.parametrize("inside", [True, False])
@on_virtual_time
async def test_restarted_answer_is_kept_as_its_last_attempt(inside):
    """`Chunk.reset` takes the first attempt back; outside, the repeated request replaces its turn."""
    model, conversation = Fails(first="no "), Conversation()
    llm = remember(model, conversation)
    llm = retry(llm, mid_stream="restart") if not inside else remember(retry(model, mid_stream="restart"), conversation)
    chunks = [chunk async for chunk in llm.astream("hi")]
    assert "ok" == rxllm.join(chunks).text
    assert [("user", "hi"), ("assistant", "ok")] == texts(conversation)
    assert not conversation.messages[-1].interrupted


@on_virtual_time
async def test_same_request_by_hand_replaces_an_empty_failure_only():
    """A failure that left something stays in the conversation."""
    conversation = Conversation()
    for model in (Fails(), Fails(first="so ")):
        with pytest.raises(rxllm.Interrupted):
            await remember(model, conversation).ainvoke("hi")
    await remember(Echo(), conversation).ainvoke("hi")
    assert [("user", "hi"), ("assistant", "so *"), ("user", "hi"), ("assistant", "HI")] == texts(conversation)


@on_virtual_time
async def test_other_request_after_an_empty_failure_keeps_both_questions():
    """Only the same messages replace a turn."""
    conversation = Conversation()
    with pytest.raises(rxllm.Interrupted):
        await remember(Fails(), conversation).ainvoke("hi")
    await remember(Echo(), conversation).ainvoke("ho")
    assert [("user", "hi"), ("user", "ho"), ("assistant", "HO")] == texts(conversation)


@on_virtual_time
async def test_same_question_after_an_answer_is_a_new_turn():
    """Two turns with the same text are two turns."""
    conversation = Conversation()
    llm = remember(Echo(), conversation)
    await llm.ainvoke("a")
    await llm.ainvoke("a")
    assert [("user", "a"), ("assistant", "A")] * 2 == texts(conversation)


# ── other combinators and operators around it ────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_batch_asks_one_after_another():
    """In the order of the prompts; each prompt gets the answers before it."""
    model, conversation = Echo(), Conversation()
    await remember(model, conversation).abatch(["a", "b", "c"])
    assert [("a",), ("a", "A", "b"), ("a", "A", "b", "B", "c")] == model.asked


@on_virtual_time
async def test_fallback_keeps_one_question():
    """The second model replaces the failed turn."""
    conversation = Conversation()
    llm = fallback(remember(Fails(), conversation), remember(Echo(), conversation))
    assert "HI" == (await llm.ainvoke("hi")).text
    assert [("user", "hi"), ("assistant", "HI")] == texts(conversation)


@on_virtual_time
async def test_hedge_outside_never_asks_the_second_model_while_the_first_runs():
    """Its turn waits, so it only helps when the first model fails. Inside, both models run."""
    conversation, model = Conversation(), Echo()
    slow = remember(MarbleLLM("---------a|"), conversation)
    assert "a" == (await hedge(slow, remember(model, conversation), after=1).ainvoke("hi")).text
    assert [] == model.asked
    assert [("user", "hi"), ("assistant", "a")] == texts(conversation)
    assert "HO" == (await remember(hedge(slow.of[0], model, after=1), conversation).ainvoke("ho")).text
    assert ("assistant", "HO") == texts(conversation)[-1]
    assert 4 == len(texts(conversation))


@on_virtual_time
async def test_limited_inside_admits_a_turn_when_it_begins():
    """Outside, the turns that wait for each other would hold all places."""
    model, limiter = Echo(), rxllm.Limiter(concurrency=2)
    first, second = (remember(rxllm.limited(model, limiter), Conversation()) for _ in range(2))
    answers = await asyncio.gather(first.ainvoke("ab"), first.ainvoke("c"), second.ainvoke("de"), second.ainvoke("f"))
    assert ["AB", "C", "DE", "F"] == [answer.text for answer in answers]
    assert 3 == asyncio.get_running_loop().time()
    outside = rxllm.limited(first, rxllm.Limiter(concurrency=2))
    await asyncio.gather(*(outside.ainvoke(prompt) for prompt in "ghi"))
    assert ["g", "G", "h", "H", "i", "I"] == [message.text for message in first.how.conversation.messages[-6:]]


@on_virtual_time
async def test_share_is_one_turn():
    """Two subscribers of a shared stream are one turn."""
    model, conversation = Echo(), Conversation()
    shared = remember(model, conversation)("ab").pipe(rxllm.share())
    both = await asyncio.gather(*(rxllm.pipe(lambda _: shared, rxllm.text()).ainvoke("") for _ in range(2)))
    assert ["AB", "AB"] == both
    assert [("user", "ab"), ("assistant", "AB")] == texts(conversation)


@on_virtual_time
async def test_switch_map_interrupts_the_former_turn():
    """The new turn begins after the former one is marked, although it may be subscribed before."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    prompts = rx.merge(rx.of("abc"), rx.timer(2.5).pipe(ops.map(lambda _: "d")))
    heard = [chunk.text async for chunk in prompts.pipe(ops.switch_map(llm), rxllm.astream())]
    assert ["A", "B", "D"] == heard
    assert [("abc",), ("abc", "AB", "d")] == model.asked
    assert [("user", "abc"), ("assistant", "AB*"), ("user", "d"), ("assistant", "D")] == texts(conversation)


@on_virtual_time
async def test_new_turn_subscribed_before_the_former_is_disposed_waits_for_it():
    """The order in which some operators switch."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    former = llm("abc").subscribe()
    await asyncio.sleep(1.5)
    later = asyncio.ensure_future(llm.ainvoke("d"))
    await asyncio.sleep(0)
    former.dispose()
    await later
    assert [("abc",), ("abc", "A", "d")] == model.asked


@on_virtual_time
async def test_concat_map_downstream_is_a_later_turn():
    """A turn that a chunk of another turn starts is not within it."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    again = llm("a").pipe(ops.concat_map(lambda chunk: llm(f"x{chunk}")), rxllm.astream())
    assert ["X", "A"] == [chunk.text async for chunk in again]
    assert [("a",), ("a", "A", "xA")] == model.asked


@pytest.mark.parametrize("when", ["on_next", "on_completed"])
@on_virtual_time
async def test_turn_that_a_subscriber_starts_is_a_later_turn(when):
    """The subscriber runs in the task of the first turn, and is not part of it."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    later, done = [], asyncio.Event()

    def start(*_):
        llm("b").subscribe(lambda chunk: later.append(chunk.text), later.append, done.set)

    llm("a").subscribe(**{when: start})
    await asyncio.wait_for(done.wait(), 10)
    assert ["B"] == later
    assert ("a", "A", "b") == model.asked[-1]


@pytest.mark.parametrize("observing", [True, False])
@on_virtual_time
async def test_turn_within_its_own_turn_is_refused(observing):
    """It would wait for itself for ever."""
    conversation = Conversation(id="anna")

    class Asks(LLM):
        async def complete(self, request):
            return await llm.ainvoke("what?")

    llm = remember(Asks(), conversation).with_config(handlers=[print] if observing else [])
    with pytest.raises(MisuseError, match=r"Conversation 'anna' is asked within another turn"):
        await llm.ainvoke("hi")
    assert [("user", "hi")] == texts(conversation)


def test_blocking_turn_within_its_own_turn_is_refused():
    """A plain function that runs in a thread."""
    conversation = Conversation()

    class Asks(LLM):
        def complete(self, request):
            return llm.invoke("what?")

    llm = remember(Asks(), conversation)
    with pytest.raises(MisuseError, match="within another turn"):
        llm.invoke("hi")


@on_virtual_time
async def test_turn_of_another_conversation_within_a_turn_is_fine():
    """It waits for nothing."""
    other = remember(Echo(), Conversation())

    class Asks(LLM):
        async def complete(self, request):
            return await other.ainvoke("what?")

    assert "WHAT?" == (await remember(Asks(), Conversation()).ainvoke("hi")).text


@on_virtual_time
async def test_each_branch_of_parallel_is_a_turn():
    """On one conversation they ask in the order of the branches; a branch without it does not wait."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    both = rxllm.parallel(a=llm, b=llm, c=Echo())
    heard = [next(iter(item)) async for item in both.astream("hi")]
    assert ["a", "c", "a", "c", "b", "b"] == heard
    assert [("hi",), ("hi", "HI", "hi")] == model.asked
    assert [("user", "hi"), ("assistant", "HI")] * 2 == texts(conversation)


@on_virtual_time
async def test_failing_branch_of_parallel_interrupts_the_turns_of_the_others():
    """The running turn keeps the text that came; the waiting turn leaves nothing."""
    conversation = Conversation()
    llm = remember(Echo(), conversation)
    with pytest.raises(rxllm.Interrupted):
        await rxllm.parallel(a=llm, b=llm, c=Fails()).ainvoke("hey")
    assert [("user", "hey"), ("assistant", "H*")] == texts(conversation)


def test_cached_outside_is_refused():
    """The prompt alone does not determine the answer."""
    with pytest.raises(MisuseError, match=r"Write remember\(cached\(llm, store\), conversation\)"):
        rxllm.cached(remember(Echo(), Conversation()), rxllm.MemoryStore())


@on_virtual_time
async def test_cached_inside_stores_each_state_of_the_conversation():
    """The key has the whole conversation; an equal conversation gets the stored answer."""
    model = Echo()
    llm = rxllm.cached(model, rxllm.MemoryStore())
    for _ in range(2):
        talk = remember(llm, Conversation())
        assert ["A", "A"] == [(await talk.ainvoke("a")).text for _ in range(2)]
    assert [("a",), ("a", "A", "a")] == model.asked


@on_virtual_time
async def test_new_messages_are_sent_as_they_are():
    """Only what stands in the conversation is mended."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation)
    await llm.ainvoke("")
    await llm.ainvoke("a")
    assert [("",), ("a",)] == model.asked
    assert 4 == len(conversation.messages)


# ── views ────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_view_decides_what_is_sent():
    """The conversation keeps everything."""
    model, conversation = Echo(), Conversation()
    llm = remember(model, conversation, view=lambda messages: messages[-1:])
    await llm.ainvoke("a")
    await llm.ainvoke("b")
    assert [("a",), ("b",)] == model.asked
    assert 4 == len(conversation.messages)


@on_virtual_time
async def test_failing_view_fails_the_turn_before_anything_is_sent():
    """The question stays, so the same request replaces the turn."""
    model, conversation = Echo(), Conversation()
    with pytest.raises(ZeroDivisionError):
        await remember(model, conversation, view=lambda _: 1 / 0).ainvoke("a")
    with pytest.raises(MisuseError, match=r"view of remember\(\) returned no messages"):
        await remember(model, conversation, view=lambda _: ()).ainvoke("a")
    assert [] == model.asked
    assert [("user", "a")] == texts(conversation)


@on_virtual_time
async def test_call_that_was_interrupted_is_mended_when_it_is_sent():
    """The conversation keeps what came; the model gets a result for the whole call, and nothing of the cut one."""
    heard, conversation = [], Conversation()

    class Calls(LLM):
        async def chunks(self, request):
            heard.append(request.messages)
            yield Chunk(parts=[ToolCallPart("1", "now", "{}", 0)])
            yield Chunk(parts=[ToolCallPart("2", "now", '{"zo', 1)])
            await asyncio.sleep(9)

    llm = remember(Calls(), conversation)
    for prompt in ("a", "b"):
        subscription = llm(prompt).subscribe()
        await asyncio.sleep(1)
        subscription.dispose()
    assert ["1", "2"] == [call.id for call in conversation.messages[1].tool_calls]
    _, answer, result, new = heard[1]
    assert (ToolCallPart("1", "now", "{}", 0),) == answer.parts
    assert "interrupted; it may or may not have run" == result.parts[0].text
    assert Message("user", "b") == new


# ── the object ───────────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_parameters_reach_the_model():
    """Of the call, of the request and of the combinator."""
    heard = []

    class Hears(LLM):
        async def complete(self, request):
            heard.append((request.temperature, request.seed, request.max_tokens))
            return "ok"

    llm = remember(Hears(max_tokens=3), Conversation()).bind(seed=2)
    await llm.ainvoke(Request(prompt="hi", temperature=1.0))
    assert [(1.0, 2, 3)] == heard


@on_virtual_time
async def test_events_show_the_turn_and_the_run_of_the_model():
    """The outer run has the new prompt, the inner one the whole conversation."""
    llm = remember(Echo(), Conversation([("system", "Be brief.")]))
    events = [event async for event in llm.events("a").pipe(rxllm.astream())]
    started = [event for event in events if isinstance(event, rxllm.Started)]
    assert ["remember", "Echo"] == [event.run.name for event in started]
    assert "a" == started[0].input
    assert "Be brief.\n\na" == started[1].input.text


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Conversation("hi"), "begins with a list of messages"),
        (lambda: Conversation(["hi"]), "must contain Messages"),
        (lambda: Conversation(id=""), "id of a Conversation must be text"),
        (lambda: Conversation(id=3), "id of a Conversation must be text"),
        (lambda: remember("hi", Conversation()), "remember takes a model, not str"),
        (lambda: remember(rxllm.shaped(Echo(), int), Conversation()), r"as in shaped\(remember\("),
        (lambda: remember(Echo(), []), r"remember takes a Conversation, such as rxllm.Conversation\(\), not \[\]"),
        (lambda: remember(remember(Echo(), Conversation()), Conversation()), "around a model that remembers already"),
        (lambda: remember(retry(remember(Echo(), Conversation())), Conversation()), "model that remembers already"),
        (lambda: rxllm.agent(remember(Echo(), Conversation())), r"Write remember\(agent\(llm, …\), conversation\)"),
        (lambda: remember(Echo(), Conversation(), 4000), "view must be a function of the messages"),
        (lambda: remember(Echo(), Conversation(), Echo().ainvoke), "view must be a plain function, not an async one"),
    ],
)
def test_wrong_arguments_are_refused(make, sentence):
    """With a sentence that names what is taken."""
    with pytest.raises(MisuseError, match=sentence):
        make()


@on_virtual_time
async def test_branch_begins_with_the_same_messages():
    """Also with an agent's answer of several rounds, which stays one message."""
    conversation = Conversation()

    def now() -> str:
        """Tell the time."""
        return "noon"

    calls = Chunk(parts=[ToolCallPart("1", "now", "{}", 0)], finish_reason="tool_call")
    model = MarbleLLM(["(c,|)", "-Noon.|"], values={"c": calls})
    await remember(rxllm.agent(model, now), conversation).ainvoke("What time is it?")
    branch = Conversation(conversation.messages)
    assert conversation.messages == branch.messages
    assert 2 == len(branch.messages)
    await remember(Echo(), branch).ainvoke("a")
    assert (2, 4) == (len(conversation.messages), len(branch.messages))


@on_virtual_time
async def test_tool_that_asks_its_own_conversation_is_refused():
    """It would wait for itself. What came of the answer is kept."""
    conversation = Conversation()

    async def ask() -> str:
        """Ask the model."""
        return (await llm.ainvoke("what?")).text

    calls = Chunk(parts=[ToolCallPart("1", "ask", "{}", 0)], finish_reason="tool_call")
    llm = remember(rxllm.agent(MarbleLLM("(c,|)", values={"c": calls}), ask), conversation)
    with pytest.raises(MisuseError, match="asked within another turn"):
        await llm.ainvoke("hi")
    assert ["user", "assistant"] == [message.role for message in conversation.messages]
    assert conversation.messages[-1].interrupted


@on_virtual_time
async def test_agent_that_is_broken_off_in_a_tool_leaves_a_call_without_a_result():
    """The next request has a result that says so, and the tool does not run again."""
    conversation, ran = Conversation(), []

    async def work() -> str:
        """Work for long."""
        ran.append(1)
        await asyncio.sleep(60)
        return "done"

    calls = Chunk(parts=[ToolCallPart("1", "work", "{}", 0)], finish_reason="tool_call")
    model = MarbleLLM(["(c,|)", "-Well.|"], values={"c": calls})
    llm = remember(rxllm.agent(model, work), conversation)
    subscription = llm("hi").subscribe()
    await asyncio.sleep(5)
    subscription.dispose()
    assert conversation.messages[-1].interrupted
    assert "Well." == (await llm.ainvoke("and?")).text
    assert [1] == ran
    roles = [(message.role, message.text) for message in model.requests[-1].messages]
    assert [("user", "hi"), ("assistant", ""), ("tool", ""), ("user", "and?")] == roles
    assert "interrupted" == model.requests[-1].messages[2].parts[0].outcome


def test_copies_of_a_model_share_the_conversation():
    """A copy of the conversation is the conversation; a pickled one begins with its messages."""
    conversation = Conversation(["user", "hi"][:0] or [("user", "hi")], id="anna")
    llm = remember(rxllm.Embedded(), conversation)
    assert copy.deepcopy(llm).how.conversation is conversation is copy.copy(conversation)
    loaded = pickle.loads(pickle.dumps(llm)).how.conversation  # noqa: S301  (our own)
    assert ("anna", conversation.messages) == (loaded.id, loaded.messages)
    assert loaded is not conversation
    assert "remember(Embedded(), conversation=Conversation(id='anna', 1 messages))" == repr(llm)


class Same(LLM):
    """A model that always gives the same answer."""

    async def chunks(self, request):
        """Emits a few chunks."""
        for piece in ("so ", "be ", "it"):
            await asyncio.sleep(0)
            yield piece
        yield Chunk(usage=Usage(input_tokens=1, output_tokens=3), finish_reason="stop")


class TestContract(LLMContract):
    """A model with a conversation is a model like any other."""

    def create_model(self):
        """A model in a new conversation."""
        return remember(Same(), Conversation())
