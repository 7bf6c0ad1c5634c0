"""`LLM`: a provider overrides one method, and the base implements all others."""

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

TIMEOUT = 5.0  # seconds; the tests wait for events that arrive at once
user = contextvars.ContextVar("user", default="nobody")


class Whole(LLM):
    """Answers with an ``async def complete``."""

    async def complete(self, request):
        """Return the prompt."""
        return request.text


class Blocking(LLM):
    """Answers with a plain ``def complete``, which runs in a thread."""

    def complete(self, request):
        """Return the prompt."""
        return request.text


class AsyncWords(LLM):
    """Streams with an async generator."""

    async def chunks(self, request):
        """Stream the prompt, letter by letter."""
        for letter in request.text:
            yield letter


class Words(LLM):
    """Streams with a plain generator, which runs in a thread."""

    def chunks(self, request):
        """Stream the prompt, letter by letter."""
        yield from request.text


class Observed(LLM):
    """Streams with an Observable."""

    def chunks(self, request):
        """Stream the prompt, letter by letter."""
        return rx.from_(request.text)


class Listed(LLM):
    """Streams with a list."""

    def chunks(self, request):
        """Stream the prompt, letter by letter."""
        return list(request.text)


STREAMING = [AsyncWords(), Words(), Observed(), Listed()]
ALL = [Whole(), Blocking(), *STREAMING]
named = pytest.mark.parametrize("llm", ALL, ids=lambda llm: type(llm).__name__)


@frozen
class Says(LLM):
    """Answers with the result of a function of the request."""

    answer_of: Callable[[Request], Any]

    async def complete(self, request):
        """Return the result of the function."""
        return self.answer_of(request)


@frozen
class Streams(LLM):
    """Streams the result of a function of the request."""

    stream_of: Callable[[Request], Any]

    def chunks(self, request):
        """Return the result of the function."""
        return self.stream_of(request)


@frozen
class Counting(LLM):
    """Streams the prompt in two chunks, and records the requests."""

    seen: list[Request] = field(factory=list)

    async def chunks(self, request):
        """Yield the prompt in two chunks."""
        self.seen.append(request)
        yield request.text[:2]
        yield request.text[2:]


# ── the two methods ──────────────────────────────────────────────────────────────────────────────────────────────


@named
def test_sync_methods_return_the_same_text(llm):
    """`invoke`, `stream` and `batch` return the same text, and `invoke` returns a Message of the assistant."""
    answer = llm.invoke("abc")
    assert ("assistant", "abc", "abc") == (answer.role, answer.text, str(answer))
    assert "abc" == "".join(map(str, llm.stream("abc")))
    assert ["abc", "abc"] == [message.text for message in llm.batch(["abc", "abc"])]


@named
async def test_async_methods_return_the_same_text(llm):
    """`ainvoke`, `astream` and `abatch` return the same text."""
    assert "abc" == (await llm.ainvoke("abc")).text
    assert "abc" == "".join([str(chunk) async for chunk in llm.astream("abc")])
    assert ["abc"] == [message.text for message in await llm.abatch(["abc"])]


@pytest.mark.parametrize("llm", STREAMING, ids=lambda llm: type(llm).__name__)
def test_each_yielded_text_becomes_a_chunk(llm):
    """A streaming provider emits one Chunk for each yielded text."""
    assert [Chunk("a"), Chunk("b"), Chunk("c")] == list(llm.stream("abc"))
    assert llm.streaming


@pytest.mark.parametrize("llm", [Whole(), Blocking()], ids=lambda llm: type(llm).__name__)
def test_whole_answer_is_one_chunk(llm):
    """A provider with `complete` only emits its answer as one chunk."""
    assert [Chunk("abc")] == list(llm.stream("abc"))
    assert not llm.streaming


@named
def test_stream_false_gives_one_chunk(llm):
    """With ``stream=False``, every provider emits one chunk with the same text."""
    assert [Chunk("abc")] == list(llm.stream("abc", stream=False))
    assert [Chunk("abc")] == list(llm.bind(stream=False).stream("abc"))
    assert not llm.bind(stream=False).streaming


def test_empty_stream_is_an_empty_answer():
    """A stream without chunks is not an error."""
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
def test_provider_may_answer_with_text_chunk_or_message(said, expected):
    """Both methods accept all three types."""
    assert [expected] == list(Says(lambda _: said).stream("x"))
    assert [expected] == list(Streams(lambda _: rx.of(said)).stream("x"))


@pytest.mark.parametrize("said", [None, 5, b"hi", {"content": "hi"}])
def test_other_answers_raise_misuse_error(said):
    """The message tells the provider's author which types are allowed."""
    with pytest.raises(MisuseError, match=f"not {type(said).__name__}"):
        Says(lambda _: said).invoke("x")
    with pytest.raises(MisuseError, match=f"not {type(said).__name__}"):
        Streams(lambda _: rx.of("good", said, "more")).invoke("x")


def test_llm_without_overridden_method_raises_misuse_error():
    """The message names both methods."""
    with pytest.raises(MisuseError, match=r"LLM must override complete .* or chunks"):
        LLM().invoke("x")


def test_chunks_without_stream_raises_misuse_error():
    """An ``async def`` without a ``yield`` is a common mistake."""

    class Slip(LLM):
        async def chunks(self, request):
            return "hi"

    with pytest.raises(MisuseError, match=r"Slip.chunks must be a generator.*not coroutine.*override complete"):
        Slip().invoke("x")
    with pytest.raises(MisuseError, match="not int"):
        Streams(lambda _: 5).invoke("x")


def test_plain_generator_runs_in_one_thread_until_it_is_closed():
    """A database cursor is bound to its thread. Closing the stream closes the generator in the same thread."""
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


def test_nested_invoke_in_complete_does_not_deadlock():
    """Each blocking model has a thread of its own, so that six nested calls do not wait for a free thread."""

    @frozen
    class Nested(LLM):
        depth: int

        def complete(self, request):
            return f"{self.depth}{Nested(self.depth - 1).invoke(request).text if self.depth else ''}"

    assert ["6543210"] * 8 == [answer.text for answer in Nested(6).batch(["x"] * 8)]


# ── cold ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_subscription_sends_a_request_and_nothing_is_sent_before():
    """A stream is cold."""
    llm = Counting()
    answer = llm("abcd")
    waiting = llm.stream("abcd")
    assert [] == llm.seen
    waiting.close()
    for times in 1, 2:
        assert ["ab", "cd"] == [str(chunk) for chunk in answer.pipe(rxllm.stream())]
        assert times == len(llm.seen)


async def test_await_of_a_stream_returns_its_last_chunk():
    """``await`` works as for every Observable."""
    assert Chunk("cd") == await Counting()("abcd")


def test_iterating_over_the_observable_raises_misuse_error():
    """With a plain reactivex Observable, the loop would never end."""
    with pytest.raises(MisuseError, match=r"llm\.stream\(prompt\)"):
        iter(Whole()("x"))
    with pytest.raises(MisuseError, match=r"llm\.stream\(prompt\)"):
        list(Whole()("x").pipe(rxllm.text()))


@pytest.mark.parametrize("compose", [lambda llm: llm | len, lambda llm: len | llm, lambda llm: llm | llm])
def test_bar_operator_raises_misuse_error(compose):
    """The message names `pipe`."""
    with pytest.raises(MisuseError, match=r"rxllm\.pipe"):
        compose(Whole())


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_reach_the_provider():
    """The parameters of a call win over those of `bind`. The LLM itself does not change."""
    llm = Counting()
    bound = llm.bind(temperature=1, max_tokens=9)
    bound.invoke("x", temperature=0, stop_sequences="!", extra={"a": 1})
    bound.invoke("x")
    llm.invoke("x")
    seen = [(r.temperature, r.max_tokens, r.stop_sequences, r.extra) for r in llm.seen]
    assert [(0, 9, ("!",), {"a": 1}), (1, 9, None, {}), (None, None, None, {})] == seen
    assert llm == Counting(llm.seen)


async def test_every_method_accepts_parameters():
    """Parameters of a call work as with `bind`."""
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


def test_parameters_of_a_request_win_over_bound_parameters():
    """The parameters of a Request win over the model's."""
    llm = Counting().bind(temperature=1, seed=3)
    llm.invoke(Request(prompt="x", temperature=0))
    assert [(0, 3)] == [(request.temperature, request.seed) for request in llm.seen]


@pytest.mark.parametrize("combine", [lambda llm: llm, rxllm.retry, lambda llm: rxllm.pipe(llm, rxllm.message())])
async def test_parameters_of_a_call_win_over_the_request(combine):
    """The order is: the model's, the bound, the Request's, the call's; the last wins. `extra` fields are merged."""
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
def test_invalid_parameter_raises_before_a_request_is_sent(ask):
    """The call itself raises, also for methods that send nothing before the first ``next``."""
    llm = Counting()
    prompt = {"bind": (), "batch": (["x"],), "batch_as_completed": (["x"],)}.get(ask, ("x",))
    with pytest.raises(MisuseError, match="Did you mean temperature="):
        getattr(llm, ask)(*prompt, temperatur=1)
    with pytest.raises(MisuseError, match="temperature must be a number of at least 0"):
        getattr(llm, ask)(*prompt, temperature=-1)
    assert [] == llm.seen


def test_invalid_prompt_raises_at_the_call():
    """The call itself raises, not the first ``next``, and nothing is sent."""
    llm = Counting()
    for ask in llm, llm.stream, llm.astream, llm.invoke:
        with pytest.raises(MisuseError, match="A prompt must be text"):
            ask(5)
    assert [] == llm.seen


def test_with_config_merges_tags_and_metadata():
    """`with_config` returns a copy; the original does not change."""
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
def test_llm_sends_one_request_for_an_observable(upstream, expected):
    """Chunks join, and strings join. One Message, list or Request is used as it is. An answer becomes its text."""
    llm = Counting()
    list(llm(rx.from_(upstream)).pipe(rxllm.stream()))
    assert [tuple(expected)] == [request.messages for request in llm.seen]
    assert [7 if isinstance(upstream[0], Request) else None] == [request.seed for request in llm.seen]


@pytest.mark.parametrize(
    ("upstream", "sentence"),
    [
        ([], "emitted nothing, but a model needs one prompt"),
        ([Message("user", "a"), Message("user", "b")], r"2 values \(Message\)"),
        ([["a"], ["b"]], r"2 values \(list\)"),
        (["a", Chunk("b")], r"2 values \(Chunk, str\)"),
        ([Request(prompt="a"), Request(prompt="b")], "2 values"),
    ],
)
def test_several_prompts_from_an_observable_raise_misuse_error(upstream, sentence):
    """The message names the operators that send one request for each value, and nothing is sent."""
    llm = Counting()
    with pytest.raises(MisuseError, match=sentence) as caught:
        list(llm(rx.from_(upstream)).pipe(rxllm.stream()))
    assert "ops.concat_map(llm)" in str(caught.value)
    assert [] == llm.seen


def test_invalid_prompt_from_an_observable_is_the_error_of_the_stream():
    """The stream fails with MisuseError."""
    with pytest.raises(MisuseError, match="A prompt must be text"):
        list(Whole()(rx.of(5)).pipe(rxllm.stream()))


def test_failing_upstream_fails_the_stream_without_a_request():
    """The model waits for the upstream to complete. If the upstream fails, the model sends nothing."""
    llm, upstream, errors = Counting(), Subject(), []
    llm(upstream).subscribe(on_error=errors.append, scheduler=rxllm.scheduler())
    upstream.on_next("half a prompt")
    upstream.on_error(failure := ValueError("no"))
    assert ([failure], []) == (errors, llm.seen)


async def test_dispose_cancels_the_upstream_or_the_request():
    """Before the upstream completes, dispose cancels the upstream; after that, the request."""
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
def test_model_is_a_mapper_for_reactivex_operators(mapper):
    """`flat_map`, `concat_map` and `switch_map` accept a model unchanged."""
    texts = rx.of("abcd").pipe(mapper(Counting()), rxllm.text(), rxllm.stream())
    assert ["ab", "cd"] == list(texts)


def test_concat_map_sends_requests_one_after_another():
    """The answers arrive whole and in the order of the prompts."""
    asked = rx.of("ab", "cd", "ef").pipe(ops.concat_map(AsyncWords()), rxllm.text(), rxllm.stream())
    assert "abcdef" == "".join(asked)


# ── the grammar ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_observable_that_emits_from_many_threads_is_serialised():
    """Three threads emit at once. The subscriber receives one event at a time, on one thread, and one end."""
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

    def on_next(_):
        overlaps.extend(inside)
        inside.append(1)
        threads.add(threading.get_ident())
        inside.pop()

    ends = []
    Streams(lambda _: rx.Observable(subscribe))("x").subscribe(
        on_next, ends.append, lambda: (ends.append("end"), done.set())
    )
    assert done.wait(TIMEOUT)
    assert ([], ["end"], 1) == (overlaps, ends, len(threads))


@given(st.lists(st.sampled_from(["next", "error", "end"]), max_size=12), st.integers(0, 12))
def test_subscriber_receives_nothing_after_the_end_or_dispose(events, dispose_at):
    """A subscriber receives items and then at most one terminal event, whatever the provider emits."""

    async def main():
        heard = []
        pushed = Subject()
        wild = []  # the callbacks of a source that breaks the Rx grammar

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


async def test_subscriber_that_disposes_in_on_next_receives_nothing_more():
    """This holds for a provider that never pauses. The generator is closed, and its clean-up may await."""
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


async def test_exception_of_a_subscriber_goes_to_the_loop_exception_handler():
    """The request is closed. The subscriber's own on_error does not receive the exception."""
    closed, reported, errors, received = asyncio.Event(), [], [], []

    class Careful(LLM):
        async def chunks(self, request):
            try:
                for letter in "abc":
                    yield letter
            finally:
                await asyncio.sleep(0)
                closed.set()

    def on_next(chunk):
        received.append(str(chunk))
        if chunk.text == "b":
            raise failure

    failure = ValueError("the subscriber's")
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    Careful()("x").subscribe(on_next, errors.append)
    await asyncio.wait_for(closed.wait(), TIMEOUT)
    assert (["a", "b"], [failure], []) == (received, reported, errors)


def test_cancelled_error_inside_a_provider_fails_the_stream():
    """If a task that the provider awaits is cancelled, the caller gets Interrupted instead of waiting for ever."""

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
def test_exit_of_a_provider_reaches_the_caller(kind):
    """A provider that raises SystemExit fails its caller, and does not stop the background loop."""

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


def test_error_carries_its_request_and_the_partial_answer():
    """The error of a broken stream has the request and the chunks that arrived before it."""

    class Breaks(LLM):
        async def chunks(self, request):
            yield Chunk("Hel", model="m")
            yield Chunk("lo", usage=Usage(output_tokens=2))
            raise rxllm.Overloaded("later")

    with pytest.raises(rxllm.Overloaded) as caught:
        Breaks().invoke("x", seed=1)
    assert Message("assistant", "Hello", Usage(output_tokens=2), model="m") == caught.value.partial
    assert Request.ask("x", rxllm.Parameters(seed=1)) == caught.value.request


def test_request_and_partial_of_an_error_are_not_replaced():
    """The innermost request and partial stay. If nothing arrived, the partial is None, not an empty answer."""
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
def test_exception_of_a_provider_propagates_unchanged(failure, kind):
    """Rxllm does not wrap the exception of a provider."""

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


def test_partial_of_an_endless_answer_is_bounded():
    """The partial answer that rxllm keeps for an error stops growing at 4 Mi characters."""

    class Floods(LLM):
        async def chunks(self, request):
            for _ in range(12):
                yield "x" * 2**20
            raise rxllm.Interrupted("no")

    with pytest.raises(rxllm.Interrupted) as caught:
        Floods().invoke("x")
    assert 4 * 2**20 <= len(caught.value.partial.text) <= 10 * 2**20


# ── contexts ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ContextWhole(LLM):
    """Answers with the context variable, from an ``async def``."""

    async def complete(self, request):
        """Return the value of the context variable."""
        return user.get()


class ContextBlocking(LLM):
    """Answers with the context variable, from a thread."""

    def complete(self, request):
        """Return the value of the context variable."""
        return user.get()


class ContextStream(LLM):
    """Answers with the context variable, from an async generator."""

    async def chunks(self, request):
        """Return the value of the context variable."""
        yield user.get()


class ContextGenerator(LLM):
    """Answers with the context variable, from a plain generator."""

    def chunks(self, request):
        """Return the value of the context variable."""
        yield user.get()


@pytest.fixture
def somebody():
    """Set the context variable."""
    token = user.set("somebody")
    yield "somebody"
    user.reset(token)


@pytest.mark.parametrize(
    "llm", [ContextWhole(), ContextBlocking(), ContextStream(), ContextGenerator()], ids=lambda x: type(x).__name__
)
def test_subscriber_context_is_visible(llm, somebody):
    """Providers, operators and handlers see the context variables of the subscriber."""
    heard = []
    watched = rxllm.observe(llm, lambda event: heard.append(user.get()))
    texts = watched("x").pipe(ops.map(lambda chunk: f"{chunk.text} {user.get()}"), rxllm.stream())
    assert ["somebody somebody"] == list(texts)
    assert {"somebody"} == set(heard)
    assert somebody == watched.invoke("x").text


@pytest.mark.parametrize(
    "llm", [ContextWhole(), ContextBlocking(), ContextStream(), ContextGenerator()], ids=lambda x: type(x).__name__
)
async def test_each_task_sees_its_own_context(llm):
    """Two tasks that run at the same time see each its own context variables."""

    async def ask(name):
        user.set(name)
        heard = []
        watched = rxllm.observe(llm, lambda event: heard.append(user.get()))
        answer = await watched.ainvoke("x")
        return answer.text, set(heard)

    answers = await asyncio.gather(asyncio.create_task(ask("a")), asyncio.create_task(ask("b")))
    assert [("a", {"a"}), ("b", {"b"})] == answers


def test_error_with_stream_false_carries_the_partial_answer():
    """A provider that only streams keeps its chunks for the error, also with ``stream=False``."""

    class Breaks(LLM):
        async def chunks(self, request):
            yield "Hel"
            raise rxllm.Interrupted("no")

    with pytest.raises(rxllm.Interrupted) as caught:
        Breaks().invoke("x", stream=False)
    assert "Hel" == caught.value.partial.text
