"""`LLM`: a provider overrides one method, and everything else comes free."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st
from reactivex import operators as ops
from reactivex.subject import Subject

import rxllm
from rxllm import LLM, Chunk, Message, MisuseError, Request, ToolCallPart, Usage

TIMEOUT = 5.0  # seconds for what comes at once
who = contextvars.ContextVar("who", default="nobody")


class Whole(LLM):
    """Answers by an async def."""

    async def complete(self, request):
        """The prompt."""
        return request.text


class Blocking(LLM):
    """Answers by a def, in a thread."""

    def complete(self, request):
        """The prompt."""
        return request.text


class AsyncWords(LLM):
    """Streams by an async generator."""

    async def chunks(self, request):
        """The prompt, letter by letter."""
        for letter in request.text:
            yield letter


class Words(LLM):
    """Streams by a plain generator, in a thread."""

    def chunks(self, request):
        """The prompt, letter by letter."""
        yield from request.text


class Observed(LLM):
    """Streams by an Observable."""

    def chunks(self, request):
        """The prompt, letter by letter."""
        return rx.from_(request.text)


class Listed(LLM):
    """Streams by any iterable."""

    def chunks(self, request):
        """The prompt, letter by letter."""
        return list(request.text)


STREAMING = [AsyncWords(), Words(), Observed(), Listed()]
ALL = [Whole(), Blocking(), *STREAMING]
named = pytest.mark.parametrize("llm", ALL, ids=lambda llm: type(llm).__name__)


@frozen
class Says(LLM):
    """Answers with what a function makes of the request."""

    answer_of: Callable[[Request], Any]

    async def complete(self, request):
        """What the function says."""
        return self.answer_of(request)


@frozen
class Streams(LLM):
    """Streams what a function makes of the request."""

    stream_of: Callable[[Request], Any]

    def chunks(self, request):
        """What the function says."""
        return self.stream_of(request)


@frozen
class Counting(LLM):
    """Echoes, and remembers the requests."""

    seen: list[Request] = field(factory=list)

    async def chunks(self, request):
        """Two chunks."""
        self.seen.append(request)
        yield request.text[:2]
        yield request.text[2:]


# ── the two methods ──────────────────────────────────────────────────────────────────────────────────────────────


@named
def test_the_answer_is_whole_in_every_way_of_asking(llm):
    """Sync, by a loop, and by a stream: the text is the same, and `invoke` gives a Message of the assistant."""
    answer = llm.invoke("abc")
    assert ("assistant", "abc", "abc") == (answer.role, answer.text, str(answer))
    assert "abc" == "".join(map(str, llm.stream("abc")))
    assert ["abc", "abc"] == [message.text for message in llm.batch(["abc", "abc"])]


@named
async def test_the_answer_is_whole_on_a_loop(llm):
    """The same with await."""
    assert "abc" == (await llm.ainvoke("abc")).text
    assert "abc" == "".join([str(chunk) async for chunk in llm.astream("abc")])
    assert ["abc"] == [message.text for message in await llm.abatch(["abc"])]


@pytest.mark.parametrize("llm", STREAMING, ids=lambda llm: type(llm).__name__)
def test_a_stream_comes_in_chunks(llm):
    """What a provider yields is what comes, each text as a Chunk."""
    assert [Chunk("a"), Chunk("b"), Chunk("c")] == list(llm.stream("abc"))
    assert "native" == llm.streaming


@pytest.mark.parametrize("llm", [Whole(), Blocking()], ids=lambda llm: type(llm).__name__)
def test_a_whole_answer_is_one_chunk(llm):
    """That is all of the fallback."""
    assert [Chunk("abc")] == list(llm.stream("abc"))
    assert "single emission" == llm.streaming


@named
def test_stream_false_gives_one_chunk(llm):
    """Asked for whole, every provider's answer is one chunk, the same text."""
    assert [Chunk("abc")] == list(llm.stream("abc", stream=False))
    assert [Chunk("abc")] == list(llm.bind(stream=False).stream("abc"))
    assert "single emission" == llm.bind(stream=False).streaming


def test_an_empty_stream_is_an_empty_answer():
    """No chunk is no failure, streamed or whole."""
    assert Message("assistant") == Streams(lambda _: rx.empty()).invoke("x")
    assert [Chunk()] == list(Streams(lambda _: rx.empty()).stream("x", stream=False))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("hi", Chunk("hi")),
        ("", Chunk()),
        (Chunk("hi", model="m"), Chunk("hi", model="m")),
        (
            Message("assistant", [ToolCallPart("1", "f")], Usage(output_tokens=1), "tool_call"),
            Chunk(parts=[ToolCallPart("1", "f")], usage=Usage(output_tokens=1), finish_reason="tool_call"),
        ),
    ],
)
def test_text_chunks_and_messages_are_answers(said, expected):
    """From either method."""
    assert [expected] == list(Says(lambda _: said).stream("x"))
    assert [expected] == list(Streams(lambda _: rx.of(said)).stream("x"))


@pytest.mark.parametrize("said", [None, 5, b"hi", {"content": "hi"}])
def test_other_answers_are_refused(said):
    """The provider's author hears what an answer is; nothing is guessed."""
    with pytest.raises(MisuseError, match=f"not {type(said).__name__}"):
        Says(lambda _: said).invoke("x")
    with pytest.raises(MisuseError, match=f"not {type(said).__name__}"):
        Streams(lambda _: rx.of("good", said, "more")).invoke("x")


def test_neither_method_overridden_is_told():
    """And both names are."""
    with pytest.raises(MisuseError, match=r"LLM must override complete .* or chunks"):
        LLM().invoke("x")


def test_chunks_that_return_no_stream_are_told():
    """An `async def` without a yield is the usual slip."""

    class Slip(LLM):
        async def chunks(self, request):
            return "hi"

    with pytest.raises(MisuseError, match=r"Slip.chunks must be a generator.*not coroutine.*override complete"):
        Slip().invoke("x")
    with pytest.raises(MisuseError, match="not int"):
        Streams(lambda _: 5).invoke("x")


def test_a_plain_generator_is_advanced_and_closed_in_one_thread():
    """A cursor that belongs to its thread works, and is closed when the reader leaves."""
    threads, closed = set(), threading.Event()

    class Cursor(LLM):
        def chunks(self, request):
            try:
                while True:
                    threads.add(threading.get_ident())
                    yield "x"
            finally:
                threads.add(threading.get_ident())
                closed.set()

    with Cursor().stream("x") as stream:
        assert ["x", "x", "x"] == [str(next(stream)) for _ in range(3)]
    assert closed.wait(TIMEOUT)
    assert 1 == len(threads)
    assert threading.get_ident() not in threads


def test_invoke_may_be_nested_in_complete():
    """Six blocking models that ask each other do not wait for each other's thread."""

    @frozen
    class Nested(LLM):
        depth: int

        def complete(self, request):
            return f"{self.depth}{Nested(self.depth - 1).invoke(request).text if self.depth else ''}"

    assert ["6543210"] * 8 == [answer.text for answer in Nested(6).batch(["x"] * 8)]


# ── cold ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_asked_before_subscribe_and_each_subscription_asks():
    """A stream is cold."""
    llm = Counting()
    answer = llm("abcd")
    waiting = llm.stream("abcd")
    assert [] == llm.seen
    waiting.close()
    for times in 1, 2:
        assert ["ab", "cd"] == [str(chunk) for chunk in answer.pipe(rxllm.stream())]
        assert times == len(llm.seen)


async def test_awaiting_an_answer_gives_its_last_chunk():
    """As of any Observable."""
    assert Chunk("cd") == await Counting()("abcd")


def test_an_answer_is_not_iterable():
    """Plain reactivex would iterate for ever."""
    with pytest.raises(MisuseError, match=r"llm\.stream\(prompt\)"):
        iter(Whole()("x"))
    with pytest.raises(MisuseError, match=r"llm\.stream\(prompt\)"):
        list(Whole()("x").pipe(rxllm.text()))


@pytest.mark.parametrize("compose", [lambda llm: llm | len, lambda llm: len | llm, lambda llm: llm | llm])
def test_bars_are_refused(compose):
    """The sentence names `pipe`."""
    with pytest.raises(MisuseError, match=r"rxllm\.pipe"):
        compose(Whole())


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_reach_the_provider():
    """By `bind` or at the call, the nearest wins, and the LLM itself stays as it was."""
    llm = Counting()
    bound = llm.bind(temperature=1, max_tokens=9)
    bound.invoke("x", temperature=0, stop_sequences="!", extra={"a": 1})
    bound.invoke("x")
    llm.invoke("x")
    seen = [(r.temperature, r.max_tokens, r.stop_sequences, r.extra) for r in llm.seen]
    assert [(0, 9, ("!",), {"a": 1}), (1, 9, None, {}), (None, None, None, {})] == seen
    assert llm == Counting(llm.seen)


async def test_every_method_takes_parameters():
    """They are sugar for `bind` everywhere."""
    llm = Counting()
    llm.invoke("x", seed=1)
    await llm.ainvoke("x", seed=1)
    list(llm.stream("x", seed=1))
    [chunk async for chunk in llm.astream("x", seed=1)]
    llm.batch(["x"], seed=1)
    await llm.abatch(["x"], seed=1)
    list(llm.batch_as_completed(["x"], seed=1))
    [item async for item in llm.abatch_as_completed(["x"], seed=1)]
    assert [1] * 8 == [request.seed for request in llm.seen]


def test_a_requests_own_parameters_win():
    """Whoever writes a Request means it."""
    llm = Counting().bind(temperature=1, seed=3)
    llm.invoke(Request(prompt="x", temperature=0))
    assert [(0, 3)] == [(request.temperature, request.seed) for request in llm.seen]


@pytest.mark.parametrize("combine", [lambda llm: llm, rxllm.retry, lambda llm: rxllm.pipe(llm, rxllm.message())])
async def test_what_a_call_says_wins_over_the_request(combine):
    """The model's, then what is bound, then the Request's own, then the call's; `extra` fields are united."""
    llm = Counting(parameters=rxllm.Parameters(seed=1, top_k=1, top_p=0.1, temperature=0.1))
    asked = combine(llm).bind(top_k=2, top_p=0.2, temperature=0.2)
    request = Request(prompt="x", top_p=0.3, temperature=0.3, extra={"a": 3, "b": 3})
    call = {"temperature": 0.4, "extra": {"b": 4}}
    asked.invoke(request, **call)
    list(asked.stream(request, **call))
    await asked.abatch([request], **call)
    said = [(r.seed, r.top_k, r.top_p, r.temperature, r.extra) for r in llm.seen]
    assert [(1, 2, 0.3, 0.4, {"a": 3, "b": 4})] * 3 == said


@pytest.mark.parametrize("ask", ["bind", "invoke", "stream", "astream", "batch", "batch_as_completed"])
def test_a_bad_parameter_is_told_before_anything_is_sent(ask):
    """Also where nothing would be sent before the first `next`."""
    llm = Counting()
    prompt = {"bind": (), "batch": (["x"],), "batch_as_completed": (["x"],)}.get(ask, ("x",))
    with pytest.raises(MisuseError, match="Did you mean temperature="):
        getattr(llm, ask)(*prompt, temperatur=1)
    with pytest.raises(MisuseError, match="temperature must be a number of at least 0"):
        getattr(llm, ask)(*prompt, temperature=-1)
    assert [] == llm.seen


def test_a_bad_prompt_is_told_at_the_call():
    """Not at the first `next`, and nothing is sent."""
    llm = Counting()
    for ask in llm, llm.stream, llm.astream, llm.invoke:
        with pytest.raises(MisuseError, match="A prompt must be text"):
            ask(5)
    assert [] == llm.seen


def test_with_config_unites_tags_and_metadata():
    """A copy: the original keeps its own."""
    llm = Whole(tags=("a",))
    other = llm.with_config(tags=["b", "a"], metadata={"x": 1}, run_name="echo").with_config(metadata={"y": 2})
    assert (("a", "b"), {"x": 1, "y": 2}, "echo") == (other.tags, other.metadata, other.run_name)
    assert (("a",), {}, None) == (llm.tags, llm.metadata, llm.run_name)


# ── given an Observable ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        (["hi"], [Message("user", "hi")]),
        (["h", "", "i"], [Message("user", "hi")]),
        ([Chunk("h"), Chunk("i", usage=Usage(input_tokens=1))], [Message("user", "hi")]),
        ([Chunk("no"), Chunk("hi", reset=True)], [Message("user", "hi")]),
        ([Message("user", "hi")], [Message("user", "hi")]),
        ([Message("system", "hi")], [Message("system", "hi")]),
        ([Message("assistant", "hi", model="m")], [Message("user", "hi")]),
        ([[("system", "a"), ("user", "b")]], [Message("system", "a"), Message("user", "b")]),
        ([{"role": "user", "content": "hi"}], [Message("user", "hi")]),
        ([Request(prompt="hi", seed=7)], [Message("user", "hi")]),
    ],
)
def test_it_asks_once_with_what_an_upstream_adds_up_to(upstream, expected):
    """Chunks join, strings join; one Message, list or Request is taken as it is; an answer is asked by its text."""
    llm = Counting()
    list(llm(rx.from_(upstream)).pipe(rxllm.stream()))
    assert [tuple(expected)] == [request.messages for request in llm.seen]
    assert [7 if isinstance(upstream[0], Request) else None] == [request.seed for request in llm.seen]


@pytest.mark.parametrize(
    ("upstream", "sentence"),
    [
        ([], "gave nothing, which is not one prompt"),
        ([Message("user", "a"), Message("user", "b")], r"2 values \(Message\)"),
        ([["a"], ["b"]], r"2 values \(list\)"),
        (["a", Chunk("b")], r"2 values \(Chunk, str\)"),
        ([Request(prompt="a"), Request(prompt="b")], "2 values"),
    ],
)
def test_what_is_not_one_prompt_is_an_error(upstream, sentence):
    """It names the operators that ask for each, and nothing is sent."""
    llm = Counting()
    with pytest.raises(MisuseError, match=sentence) as caught:
        list(llm(rx.from_(upstream)).pipe(rxllm.stream()))
    assert "ops.concat_map(llm)" in str(caught.value)
    assert [] == llm.seen


def test_one_value_that_is_no_prompt_is_an_error():
    """It arrives as the stream's error."""
    with pytest.raises(MisuseError, match="A prompt must be text"):
        list(Whole()(rx.of(5)).pipe(rxllm.stream()))


def test_it_waits_until_the_upstream_completes_and_is_not_asked_if_that_fails():
    """A failing upstream fails the stream; no request is made."""
    llm, upstream, errors = Counting(), Subject(), []
    llm(upstream).subscribe(on_error=errors.append, scheduler=rxllm.scheduler())
    upstream.on_next("half a prompt")
    upstream.on_error(failure := ValueError("no"))
    assert ([failure], []) == (errors, llm.seen)


async def test_disposing_leaves_the_upstream_or_the_answer():
    """Whichever is being listened to."""
    left, closed, begun = [], asyncio.Event(), asyncio.Event()

    class Slow(LLM):
        async def chunks(self, request):
            try:
                begun.set()
                yield await asyncio.Event().wait()
            finally:
                closed.set()

    Slow()(rx.never().pipe(ops.finally_action(lambda: left.append(1)))).subscribe().dispose()
    assert [1] == left
    answer = Slow()(rx.of("x")).subscribe()
    await begun.wait()
    answer.dispose()
    await asyncio.wait_for(closed.wait(), TIMEOUT)


@pytest.mark.parametrize("mapper", [ops.flat_map, ops.concat_map, ops.switch_map])
def test_a_model_is_a_mapper(mapper):
    """It goes into reactivex's own operators as it is."""
    texts = rx.of("abcd").pipe(mapper(Counting()), rxllm.text(), rxllm.stream())
    assert ["ab", "cd"] == list(texts)


def test_concat_map_asks_one_after_another():
    """In order, whole answers."""
    asked = rx.of("ab", "cd", "ef").pipe(ops.concat_map(AsyncWords()), rxllm.text(), rxllm.stream())
    assert "abcdef" == "".join(asked)


# ── the grammar ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_observable_of_many_threads_is_serialised():
    """Three threads push at once; one event at a time arrives, on one thread, and one end."""
    inside, overlaps, threads, done = [], [], set(), threading.Event()
    start = threading.Barrier(3)

    def subscribe(observer, _):
        def push():
            for _ in range(50):
                start.wait(TIMEOUT)
                observer.on_next("x")
            start.wait(TIMEOUT)
            observer.on_completed()

        for _ in range(3):
            threading.Thread(target=push).start()

    def heard(_):
        overlaps.extend(inside)
        inside.append(1)
        threads.add(threading.get_ident())
        inside.pop()

    ends = []
    Streams(lambda _: rx.Observable(subscribe))("x").subscribe(
        heard, ends.append, lambda: (ends.append("end"), done.set())
    )
    assert done.wait(TIMEOUT)
    assert ([], ["end"], 1) == (overlaps, ends, len(threads))


@given(st.lists(st.sampled_from(["next", "error", "end"]), max_size=12), st.integers(0, 12))
def test_after_the_end_or_a_dispose_nothing_arrives(events, dispose_at):
    """Whatever a provider emits, and whenever the subscriber leaves: items, then at most one terminal event."""

    async def main():
        heard = []
        pushed = Subject()
        wild = []  # a source without any guard: it is called as it should not be

        class Wild(rx.Observable):
            def subscribe(self, on_next=None, on_error=None, on_completed=None, *, scheduler=None):
                if hasattr(on_next, "on_next"):
                    on_next, on_error, on_completed = on_next.on_next, on_next.on_error, on_next.on_completed
                wild.append((on_next, on_error, on_completed))
                return pushed

        subscription = Streams(lambda _: Wild())("x").subscribe(
            lambda chunk: heard.append("next"), lambda error: heard.append("error"), lambda: heard.append("end")
        )
        on_next, on_error, on_completed = wild[0]
        for number, event in enumerate(events):
            if number == dispose_at:
                subscription.dispose()
            {"next": lambda: on_next("x"), "error": lambda: on_error(ValueError()), "end": on_completed}[event]()
        return heard

    expected = []
    for event in events[:dispose_at]:
        expected.append(event)
        if event != "next":
            break
    assert expected == asyncio.run(main())


async def test_a_subscriber_that_leaves_in_on_next_hears_no_more():
    """Also of a provider that never pauses; its generator is closed, and may take its time for it."""
    heard, closed = [], asyncio.Event()

    class Endless(LLM):
        async def chunks(self, request):
            try:
                while True:
                    yield "x"
            finally:
                await asyncio.sleep(0)
                closed.set()

    Endless()("x").pipe(ops.take(5)).subscribe(heard.append)
    await asyncio.wait_for(closed.wait(), TIMEOUT)
    assert [Chunk("x")] * 5 == heard


async def test_a_subscriber_that_raises_ends_its_subscription_only():
    """The request is closed, in peace; the loop's handler hears the exception, the subscriber's on_error does not."""
    closed, told, errors, heard = asyncio.Event(), [], [], []

    class Careful(LLM):
        async def chunks(self, request):
            try:
                for letter in "abc":
                    yield letter
            finally:
                await asyncio.sleep(0)
                closed.set()

    def on_next(chunk):
        heard.append(str(chunk))
        if chunk.text == "b":
            raise failure

    failure = ValueError("the subscriber's")
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    Careful()("x").subscribe(on_next, errors.append)
    await asyncio.wait_for(closed.wait(), TIMEOUT)
    assert (["a", "b"], [failure], []) == (heard, told, errors)


def test_a_provider_that_is_cancelled_from_within_fails():
    """Nobody waits for ever for what will not come."""

    class Cancelled(LLM):
        async def chunks(self, request):
            yield "half"
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task

    with pytest.raises(rxllm.Interrupted) as caught:
        Cancelled().invoke("x")
    assert "half" == caught.value.partial.text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_even_an_exit_reaches_who_waits(kind):
    """A provider that exits does not leave its caller waiting, nor take the loop of others away."""

    class Exits(LLM):
        async def complete(self, request):
            raise kind

    class ExitsInThread(LLM):
        def complete(self, request):
            raise kind

    for llm in Exits(), ExitsInThread():
        with pytest.raises(kind):
            llm.invoke("x")
    assert "still here" == Whole().invoke("still here").text


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_carries_its_request_and_what_had_arrived():
    """Of a stream that broke."""

    class Breaks(LLM):
        async def chunks(self, request):
            yield Chunk("Hel", model="m")
            yield Chunk("lo", usage=Usage(output_tokens=2))
            raise rxllm.Overloaded("later")

    with pytest.raises(rxllm.Overloaded) as caught:
        Breaks().invoke("x", seed=1)
    assert Message("assistant", "Hello", Usage(output_tokens=2), model="m") == caught.value.partial
    assert Request.ask("x", rxllm.Parameters(seed=1)) == caught.value.request


def test_an_error_that_knows_better_is_left_alone():
    """The innermost request and partial stay, and nothing that arrived is None, not an empty answer."""
    known = rxllm.Interrupted("no")
    known.request, known.partial = Request(prompt="inner"), Message("assistant", "inner")
    with pytest.raises(rxllm.Interrupted) as caught:
        Streams(lambda _: rx.concat(rx.of("outer"), rx.throw(known))).invoke("x")
    assert ("inner", "inner") == (caught.value.request.text, caught.value.partial.text)
    with pytest.raises(rxllm.Timeout) as caught:
        Streams(lambda _: rx.throw(rxllm.Timeout("no"))).invoke("x")
    assert caught.value.partial is None


@pytest.mark.parametrize("failure", [ValueError("mine"), rxllm.RateLimited("slow"), LookupError()])
@pytest.mark.parametrize("kind", ["complete", "blocking", "chunks", "generator"])
def test_a_providers_exception_comes_as_it_is(failure, kind):
    """Never wrapped into something vaguer."""

    def raises(request):
        raise failure

    def generator(request):
        yield from [raises(request)]

    class Blocked(LLM):
        def complete(self, request):
            raise failure

    class Generated(LLM):
        def chunks(self, request):
            yield from generator(request)

    llm = {"complete": Says(raises), "blocking": Blocked(), "chunks": Streams(raises), "generator": Generated()}[kind]
    with pytest.raises(type(failure)) as caught:
        llm.invoke("x")
    assert failure is caught.value


def test_the_partial_of_an_endless_answer_is_bounded():
    """What is kept for an error stops growing at 4 Mi characters."""

    class Floods(LLM):
        async def chunks(self, request):
            for _ in range(12):
                yield "x" * 2**20
            raise rxllm.Interrupted("no")

    with pytest.raises(rxllm.Interrupted) as caught:
        Floods().invoke("x")
    assert 4 * 2**20 <= len(caught.value.partial.text) <= 10 * 2**20


# ── contexts ─────────────────────────────────────────────────────────────────────────────────────────────────────


class WhoWhole(LLM):
    """Says whom it sees."""

    async def complete(self, request):
        """The context's value."""
        return who.get()


class WhoBlocking(LLM):
    """Says whom it sees, in a thread."""

    def complete(self, request):
        """The context's value."""
        return who.get()


class WhoStream(LLM):
    """Says whom it sees, in an async generator."""

    async def chunks(self, request):
        """The context's value."""
        yield who.get()


class WhoGenerator(LLM):
    """Says whom it sees, in a generator."""

    def chunks(self, request):
        """The context's value."""
        yield who.get()


@pytest.fixture
def somebody():
    """A context variable that is set."""
    token = who.set("somebody")
    yield "somebody"
    who.reset(token)


@pytest.mark.parametrize(
    "llm", [WhoWhole(), WhoBlocking(), WhoStream(), WhoGenerator()], ids=lambda x: type(x).__name__
)
def test_the_subscribers_context_is_seen(llm, somebody):
    """In providers, operators and handlers."""
    heard = []
    watched = rxllm.observe(llm, lambda event: heard.append(who.get()))
    texts = watched("x").pipe(ops.map(lambda chunk: f"{chunk.text} {who.get()}"), rxllm.stream())
    assert ["somebody somebody"] == list(texts)
    assert {"somebody"} == set(heard)
    assert somebody == watched.invoke("x").text


@pytest.mark.parametrize(
    "llm", [WhoWhole(), WhoBlocking(), WhoStream(), WhoGenerator()], ids=lambda x: type(x).__name__
)
async def test_the_subscribers_context_is_seen_on_a_loop(llm):
    """The same with await; two tasks see each its own."""

    async def ask(name):
        who.set(name)
        heard = []
        watched = rxllm.observe(llm, lambda event: heard.append(who.get()))
        answer = await watched.ainvoke("x")
        return answer.text, set(heard)

    answers = await asyncio.gather(asyncio.create_task(ask("a")), asyncio.create_task(ask("b")))
    assert [("a", {"a"}), ("b", {"b"})] == answers


def test_a_whole_answer_that_fails_half_way_keeps_what_had_arrived():
    """Also where the provider can only stream: stream=False loses nothing."""

    class Breaks(LLM):
        async def chunks(self, request):
            yield "Hel"
            raise rxllm.Interrupted("no")

    with pytest.raises(rxllm.Interrupted) as caught:
        Breaks().invoke("x", stream=False)
    assert "Hel" == caught.value.partial.text
