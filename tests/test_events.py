"""Events: the events of each run, their receivers and order, and the cost of observing."""

import asyncio
import contextvars
import logging
import uuid

import pytest
import reactivex as rx
from attrs import field, frozen
from endings import RunEnd
from protocols import Chat
from raising import Raises
from reactivex import operators as ops

import rxllm
from rxllm import (
    LLM,
    Cancelled,
    Chunk,
    Custom,
    Emitted,
    Failed,
    Finished,
    Handler,
    Interrupted,
    Message,
    MisuseError,
    RunChunk,
    Started,
    Usage,
    dispatch,
)
from rxllm.bridges.stream import HIGH_WATER
from rxllm.operators import observing
from rxllm.testing import Endless, FakeServer, Reply

TIMEOUT = 5.0  # seconds; a limit for steps that take milliseconds
ENDS = (Finished, Failed, Cancelled)


class Letters(LLM):
    """Streams the prompt letter by letter."""

    async def chunks(self, request):
        """Yield one chunk per letter."""
        for letter in request.text:
            yield letter


class Hangs(LLM):
    """Emits a chunk, then never ends."""

    async def chunks(self, request):
        """Yield one chunk, then wait for ever."""
        yield "a"
        await asyncio.Event().wait()


class Breaks(LLM):
    """Emits a chunk, then fails."""

    async def chunks(self, request):
        """Yield one chunk, then raise."""
        yield "a"
        raise Interrupted("no")


@frozen(eq=False)
class Listener(Handler):
    """Records the events that it receives."""

    heard: list[rxllm.Event] = field(factory=list)

    def on_event(self, event):
        """Record the event."""
        self.heard.append(event)


def told(events):
    """The run's name and the class of each event."""
    return [f"{event.name} {type(event).__name__}" for event in events]


def events_of(stage, prompt="ab"):
    """All events, in order, received in this thread."""
    return list(stage.events(prompt).pipe(rxllm.stream()))


def started(events):
    """The runs by their names."""
    return {event.name: event.run for event in events if isinstance(event, Started)}


# ── order and parents ────────────────────────────────────────────────────────────────────────────────────────────


def test_events_of_a_model_are_typed():
    """Started has the request, each chunk is a RunChunk, Finished has the answer; all share one run."""
    first, a, b, last = events_of(Letters())
    assert (Started, RunChunk, RunChunk, Finished) == tuple(map(type, (first, a, b, last)))
    assert ("ab", "a", "b", "ab") == (first.request.text, str(a), str(b), last.message.text)
    assert {first.run_id} == {event.run_id for event in (a, b, last)}
    assert () == first.parent_ids
    assert first.time <= a.time <= b.time <= last.time


def test_run_chunk_is_a_chunk():
    """It adds, prints and matches like one."""
    _, a, b, _ = events_of(Letters())
    assert isinstance(a, Chunk)
    assert Chunk("ab") == a + b
    assert "ab" == f"{a}{b}"


def test_only_models_have_a_request_and_a_message():
    """The error of a pipeline's event names the attribute to read instead."""
    first, *_, last = events_of(rxllm.pipe(Letters(), rxllm.text()))
    assert ("ab", "ab") == (first.input, last.output)
    with pytest.raises(MisuseError, match="input"):
        _ = first.request
    with pytest.raises(MisuseError, match="output"):
        _ = last.message


def test_model_inside_a_pipeline_is_its_child():
    """The model's events lie between the pipeline's, and end first."""
    events = events_of(rxllm.pipe(Letters(), rxllm.text()), "a")
    expected = ["Pipeline Started", "Letters Started", "Letters RunChunk", "Pipeline Emitted"]
    assert [*expected, "Letters Finished", "Pipeline Finished"] == told(events)
    runs = started(events)
    assert (runs["Pipeline"].id,) == runs["Letters"].parent_ids


def test_consecutive_models_are_siblings():
    """The second model's parent is the pipeline, although the end of the first model subscribes it."""
    stages = Letters(run_name="one"), rxllm.message(), ops.flat_map(Letters(run_name="two")), rxllm.text()
    events = events_of(rxllm.pipe(*stages), "a")
    runs = started(events)
    assert [(runs["Pipeline"].id,)] * 2 == [runs["one"].parent_ids, runs["two"].parent_ids]
    assert told(events).index("one Finished") < told(events).index("Pipeline Finished")
    assert ["one Started", "two Started"] == [name for name in told(events) if name in ("one Started", "two Started")]


def test_model_with_a_stream_as_prompt_is_a_sibling():
    """A model that waits for the end of its upstream is a child of the pipeline."""
    runs = started(events_of(rxllm.pipe(Letters(run_name="one"), Letters(run_name="two")), "a"))
    assert [(runs["Pipeline"].id,)] * 2 == [runs["one"].parent_ids, runs["two"].parent_ids]


def test_models_in_branches_are_siblings():
    """The branches of a shared and zipped stream belong to the pipeline."""
    one, two = Letters(run_name="one"), Letters(run_name="two")

    def both(prompt):
        whole = ops.reduce(lambda some, chunk: some + chunk, Chunk())
        return rx.fork_join(one(prompt).pipe(whole), two(prompt).pipe(whole))

    runs = started(events_of(rxllm.pipe(both), "a"))
    assert [(runs["Pipeline"].id,)] * 2 == [runs["one"].parent_ids, runs["two"].parent_ids]


def test_pipelines_nest():
    """`parent_ids` lists the ids from the root down."""
    inner = rxllm.pipe(Letters(), rxllm.text()).with_config(run_name="inner")
    runs = started(events_of(rxllm.pipe(inner).with_config(run_name="outer"), "a"))
    assert (runs["outer"].id, runs["inner"].id) == runs["Letters"].parent_ids


def test_model_called_in_a_models_thread_is_its_child():
    """A blocking `complete` may call another model, whose events appear at that point."""

    class Asks(LLM):
        def complete(self, request):
            return Letters().invoke(request).text

    events = events_of(Asks(), "a")
    expected = ["Asks Started", "Letters Started", "Letters RunChunk", "Letters Finished"]
    assert [*expected, "Asks RunChunk", "Asks Finished"] == told(events)
    runs = started(events)
    assert (runs["Asks"].id,) == runs["Letters"].parent_ids


async def test_model_awaited_in_a_model_is_its_child():
    """An async `complete` may await another model."""

    class Asks(LLM):
        async def complete(self, request):
            return (await Letters().ainvoke(request)).text

    heard = await Asks().events("a").pipe(ops.to_list())
    runs = started(heard)
    assert (runs["Asks"].id,) == runs["Letters"].parent_ids


async def test_model_called_after_a_model_is_not_its_child():
    """A function after a model belongs to the pipeline, even if it passes no scheduler on."""
    behind = []
    pipeline = rxllm.pipe(
        Letters(run_name="one"), ops.do_action(lambda _: behind.append(rxllm.scheduler().observation.run))
    )
    heard = await pipeline.events("a").pipe(ops.to_list())
    assert [started(heard)["Pipeline"]] == behind


async def test_concurrent_runs_are_separate():
    """Of a hundred concurrent runs, each has only its own events."""
    streams = [Letters(run_name=str(number)).events(f"{number}.") for number in range(100)]
    heard = await rx.merge(*streams).pipe(ops.to_list())
    for number in range(100):
        own = [event for event in heard if event.name == str(number)]
        assert f"{number}." == "".join(str(event) for event in own if isinstance(event, Chunk))
        assert 1 == len({event.run_id for event in own})
    assert 100 == len({event.run_id for event in heard})


def test_each_prompt_of_a_batch_is_a_run():
    """The runs of a batch have separate events."""
    listener = Listener()
    Letters(handlers=[listener]).batch(["a", "b", "c"])
    assert 3 == len({event.run_id for event in listener.heard}) == told(listener.heard).count("Letters Finished")


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_failure_follows_the_earlier_events():
    """Each enclosing run reports the failure, the innermost first; then the error is raised."""
    heard = []
    recorded = rxllm.pipe(Breaks(), rxllm.text()).events("x").pipe(ops.do_action(heard.append), rxllm.stream())
    with pytest.raises(Interrupted) as caught:
        list(recorded)
    expected = ["Pipeline Started", "Breaks Started", "Breaks RunChunk", "Pipeline Emitted"]
    assert [*expected, "Breaks Failed", "Pipeline Failed"] == told(heard)
    assert caught.value is heard[-1].error
    assert "a" == heard[-1].partial.text


def test_cancellation_ends_inner_runs_first():
    """Children are cancelled before their parents, each once."""
    listener, end = Listener(), RunEnd()
    with rxllm.pipe(Hangs(), rxllm.text()).with_config(handlers=[listener, end]).stream("x") as stream:
        next(stream)
    end.wait()
    assert ["Hangs Cancelled", "Pipeline Cancelled"] == told(listener.heard)[-2:]
    guess = Usage(input_tokens=1, output_tokens=1, estimated=True)
    assert (Message("assistant", "a", guess), "a") == tuple(event.partial for event in listener.heard[-2:])


async def test_operator_that_ends_early_cancels_the_model_first():
    """An operator inside cancels the model, then the pipeline finishes."""
    events = await rxllm.pipe(Hangs(), ops.take(1), rxllm.text()).events("x").pipe(ops.to_list())
    assert ["Hangs Cancelled", "Pipeline Finished"] == told(events)[-2:]


async def test_failing_branch_cancels_its_sibling_first():
    """langchain-core lets the sibling continue."""
    pipeline = rxllm.pipe(lambda prompt: rx.merge(Hangs()(prompt), Breaks()(prompt)))
    listener = Listener()
    with pytest.raises(Interrupted):
        await pipeline.with_config(handlers=[listener]).ainvoke("x")
    assert ["Breaks Failed", "Hangs Cancelled", "Pipeline Failed"] == [
        event for event in told(listener.heard) if event.split()[1] in ("Failed", "Cancelled")
    ]


async def test_no_event_follows_the_end():
    """If a handler cancels the run at a chunk, the other handlers receive the end, but not that chunk."""
    heard, taken = [], []

    def leave(event):
        if isinstance(event, rxllm.Chunk):
            subscription.dispose()

    llm = rxllm.observe(Letters(), leave, heard.append)
    subscription = llm("abc").subscribe(taken.append)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (["Started", "Cancelled"], []) == ([type(event).__name__ for event in heard], taken)


async def test_unsubscribing_from_events_cancels_the_model():
    """Attached handlers receive Cancelled; the disposed subscriber receives nothing more."""
    listener, heard = Listener(), []
    subscription = Hangs(handlers=[listener]).events("x").subscribe(heard.append)
    subscription.dispose()
    assert (["Hangs Started", "Hangs Cancelled"], ["Hangs Started"]) == (told(listener.heard), told(heard))


# ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_handler_of_a_pipeline_receives_inner_events():
    """A handler attached outside receives the same events as `events`."""
    listener = Listener()
    rxllm.pipe(Letters(), rxllm.text()).with_config(handlers=[listener]).invoke("a")
    assert told(events_of(rxllm.pipe(Letters(), rxllm.text()), "a")) == told(listener.heard)


@pytest.mark.parametrize("function", [False, True], ids=["handler", "method"])
def test_handler_attached_in_several_places_receives_each_event_once(function):
    """Attached to a pipeline, its model and the call, a handler or bound method counts as one."""
    listener = Listener()
    heard = (lambda: listener.heard.append) if function else (lambda: listener)
    llm = Letters(handlers=[heard(), heard()]).with_config(handlers=[heard()])
    rxllm.pipe(llm, rxllm.text()).bind(handlers=[heard()]).invoke("a")
    assert told(events_of(rxllm.pipe(Letters(), rxllm.text()), "a")) == told(listener.heard)


def test_equal_handlers_are_separate_handlers():
    """Two handlers that compare equal both receive the events."""

    @frozen
    class Equal(Handler):
        heard: list[rxllm.Event] = field(factory=list)

        def on_event(self, event):
            self.heard.append(event)

    one, two = Equal(), Equal()
    Letters(handlers=[one, two]).invoke("a")
    assert 3 == len(one.heard) == len(two.heard)


def test_call_may_have_handlers():
    """Handlers of a call are for that call alone, in addition to those of the model."""
    mine, its = Listener(), Listener()
    llm = Letters(handlers=[its])
    llm.invoke("a", handlers=[mine])
    list(llm.stream("a"))
    assert (1, 2) == (told(mine.heard).count("Letters Started"), told(its.heard).count("Letters Started"))


@pytest.mark.parametrize("kind", [Started, RunChunk, Finished], ids=lambda kind: kind.__name__)
def test_handler_with_raise_error_fails_the_run(kind):
    """The handler's exception is the run's error; the other handlers receive one end, and nothing after it."""
    before, after = Listener(), Listener()
    with pytest.raises(ValueError, match="the handler's"):
        Letters(handlers=[before, Raises(kind, ValueError("the handler's")), after]).invoke("ab")
    assert told(before.heard) == told(after.heard)
    ends = [event for event in before.heard if isinstance(event, ENDS)]
    assert [before.heard[-1]] == ends
    assert (Finished if kind is Finished else Failed) is type(ends[0])


@pytest.mark.parametrize("kind", [Failed, Cancelled], ids=lambda kind: kind.__name__)
def test_handler_cannot_fail_a_run_that_has_ended(kind, caplog):
    """An exception at the end event is logged even with `raise_error`; the run's own error stays."""
    with caplog.at_level(logging.ERROR, "rxllm"):
        if kind is Failed:
            with pytest.raises(Interrupted):
                Breaks(handlers=[Raises(kind, ValueError("the handler's"))]).invoke("x")
        else:
            end = RunEnd()
            with Hangs(handlers=[Raises(kind, ValueError("the handler's")), end]).stream("x") as stream:
                next(stream)
            end.wait()
            rxllm.Embedded().invoke("now the loop has logged the exception, after it called the handlers")
    assert [kind.__name__] == [name for name in (Failed.__name__, Cancelled.__name__) if name in caplog.text]


def test_failing_handler_disturbs_neither_the_run_nor_other_handlers(caplog):
    """The exception is logged once per run, not once per chunk."""
    listener = Listener()

    def raises(event):
        raise ValueError("the handler's")

    with caplog.at_level(logging.ERROR, "rxllm"):
        for runs in (1, 2):
            assert "ab" == Letters(handlers=[raises, listener]).invoke("ab").text
            assert 4 * runs == len(listener.heard)
            assert runs == len([record for record in caplog.records if record.name == "rxllm"])


def test_handler_of_chunks_without_events_is_isolated_like_others(caplog):
    """Its exception is logged once; with `raise_error` it fails the run."""

    class Receives(Listener):
        def _chunk_receiver(self, run):
            def receive(chunk):
                assert Chunk is type(chunk)
                raise ValueError(f"the handler's, in {run.name}")

            return receive

        def on_event(self, event):
            assert not isinstance(event, Chunk)

    with caplog.at_level(logging.ERROR, "rxllm"):
        assert "ab" == Letters(handlers=[Receives()]).invoke("ab").text
    assert 1 == len([record for record in caplog.records if record.name == "rxllm"])
    strict = Receives()
    object.__setattr__(strict, "raise_error", True)
    with pytest.raises(ValueError, match="the handler's, in Letters"):
        Letters(handlers=[strict]).invoke("ab")


@pytest.mark.parametrize("method", ["on_event", "on_next"])
@pytest.mark.parametrize("kind", [rxllm.UsageMeter, rxllm.LoggingHandler, rxllm.Timeline, rxllm.CallbackHandler])
def test_subclass_of_a_handler_that_overrides_a_method_for_events_gets_all_events(kind, method):
    """The base class needs no events of chunks, but its subclass may."""
    heard = []

    def hear(self, event):
        heard.append(type(event))
        getattr(kind, method)(self, event)

    Letters(handlers=[type("Sub", (kind,), {method: hear})()]).invoke("ab")
    assert [Started, RunChunk, RunChunk, Finished] == heard


MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")


class Coroutine(rxllm.Handler):
    """A handler with an ``async def`` method, a likely mistake."""

    async def on_event(self, event):
        """Never awaited."""


async def coroutine(event):
    """Never awaited."""


@pytest.mark.parametrize("handler", [coroutine, Coroutine()])
def test_async_def_handlers_are_refused(handler):
    """Attaching one raises MisuseError, with the way to write it."""
    with pytest.raises(MisuseError, match="is async def, but a handler's function is never awaited"):
        rxllm.observe(Letters(), handler)


def test_context_variable_set_by_a_handler_lasts_for_the_run():
    """A variable set at Started is visible to the provider, later events and inner runs, but not outside."""
    seen, end = [], RunEnd()

    class ReadsMark(LLM):
        async def chunks(self, request):
            seen.append(MARK.get())
            yield "a"

    def handler(event):
        if isinstance(event, Started) and not event.parent_ids:
            MARK.set(event.name)
        elif not isinstance(event, Started):
            seen.append(MARK.get())

    rxllm.pipe(ReadsMark(), rxllm.text()).with_config(handlers=[handler], run_name="mine").invoke("x")
    with Hangs(handlers=[handler, end], run_name="mine").stream("x") as stream:
        next(stream)
    end.wait()
    assert ["mine"] * 7 == seen
    assert "" == MARK.get()


def test_subscribed_handler_receives_a_failure_once():
    """Subscribed to the events or to the answer, with or without other handlers."""
    listener, other = Listener(), Listener()
    llm = Breaks(handlers=[other])
    with pytest.raises(Interrupted):
        list(llm("x").pipe(ops.do(listener), rxllm.stream()))
    with pytest.raises(Interrupted):
        list(llm.events("x").pipe(ops.do(listener), rxllm.stream()))
    assert [Chunk, Failed, Started, RunChunk, Failed] == [type(event) for event in listener.heard]
    assert 2 == sum(isinstance(event, Failed) for event in other.heard)


# ── custom events ────────────────────────────────────────────────────────────────────────────────────────────────


def dispatching(name):
    """Return a function for `ops.map` that dispatches an event."""

    def tells(value):
        dispatch(name, str(value))
        return value

    return tells


def customs(events):
    """The run, the topic and the data of each custom event."""
    return [(event.name, event.topic, event.data) for event in events if isinstance(event, Custom)]


def test_model_may_dispatch():
    """Both a stream and a threaded whole answer may dispatch."""

    class Streams(LLM):
        async def chunks(self, request):
            dispatch("before")
            yield "a"
            dispatch("after", 5)

    class Blocks(LLM):
        def complete(self, request):
            dispatch("thread", 1)
            return "a"

    class Generates(LLM):
        def chunks(self, request):
            dispatch("generator", 1)
            yield "a"

    assert [("Streams", "before", None), ("Streams", "after", 5)] == customs(events_of(Streams()))
    assert [("Blocks", "thread", 1)] == customs(events_of(Blocks()))
    assert [("Generates", "generator", 1)] == customs(events_of(Generates()))


def test_function_in_a_pipeline_dispatches_for_the_pipeline():
    """Also after a model, whose run has ended by then."""
    stages = Letters(), rxllm.text(), ops.map(dispatching("seen")), ops.filter(bool)
    assert [("Pipeline", "seen", "a"), ("Pipeline", "seen", "b")] == customs(events_of(rxllm.pipe(*stages)))


def test_handler_may_dispatch():
    """A handler may dispatch at any event except its own."""

    def handler(event):
        if isinstance(event, RunChunk):
            dispatch("chunk", str(event))

    events = events_of(Letters(handlers=[handler]))
    assert [("Letters", "chunk", "a"), ("Letters", "chunk", "b")] == customs(events)


def test_dispatch_without_listeners_does_nothing():
    """Without a run, or without a listener, `dispatch` has no effect."""
    dispatch("nobody", 1)
    assert "a" == rxllm.pipe(Letters(), rxllm.text(), ops.map(dispatching("x"))).invoke("a")


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unobserved_run_creates_no_run_object(monkeypatch):
    """No id is created, no Run, and no identity is computed."""

    def refused(*arguments):
        raise AssertionError("nobody listens")

    monkeypatch.setattr(uuid, "uuid4", refused)
    monkeypatch.setattr(observing, "_Run", refused)
    monkeypatch.setattr(observing, "MutableRunChunk", refused)
    assert "ab" == rxllm.pipe(Letters(tags=["t"]), rxllm.text()).invoke("ab")


async def test_slow_reader_of_events_pauses_the_model():
    """The events wait at the reader's gate, for a model and in a pipeline."""
    made = []

    class Endlessly(LLM):
        async def chunks(self, request):
            while True:
                made.append(1)
                yield "a"

    for stage, each in (Endlessly(), 1), (rxllm.pipe(Endlessly(), rxllm.text()), 2):
        made.clear()
        async with stage.astream_events("x") as events:
            for _ in range(8):
                await anext(events)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert 8 < each * len(made) <= HIGH_WATER + 8 + 2 * each


@frozen
class Long(LLM):
    """Streams 5,000 letters, and records each in `made`."""

    made: list

    async def chunks(self, request):
        """Yield one chunk per letter."""
        for _ in range(5000):
            self.made.append(1)
            yield "a"


@pytest.mark.parametrize("within", [lambda llm: llm, lambda llm: rxllm.pipe(llm.events)], ids=["models", "events"])
async def test_slow_reader_of_events_pauses_a_batch(within):
    """The batch pauses although each of its answers has its own back-pressure."""
    made = []

    async with rxllm.pipe(rxllm.from_iter, rxllm.batch(within(Long(made)))).astream_events(["x"] * 3) as events:
        for _ in range(8):
            await anext(events)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert len(made) <= 2 * HIGH_WATER


MARKED: contextvars.ContextVar[int] = contextvars.ContextVar("marked", default=0)


@pytest.mark.parametrize("handlers", [[], [lambda event: None]], ids=["unobserved", "observed"])
def test_sources_of_one_pipeline_have_separate_contexts(handlers):
    """With or without a listener."""

    def marked(number):
        async def items():
            MARKED.set(number)
            await asyncio.sleep(0)
            yield number, MARKED.get()

        return rxllm.from_aiter(items)

    pipeline = rxllm.pipe(lambda _: rx.merge(marked(1), marked(2))).with_config(handlers=handlers)
    assert [(1, 1), (2, 2)] == sorted(pipeline.stream("x"))


def test_code_at_a_models_subscription_belongs_to_its_run():
    """It may dispatch, and sees a handler's context variables."""
    heard = []

    def listen(event):
        heard.append(event)
        if isinstance(event, Started):
            MARKED.set(7)

    class Plain(LLM):
        def chunks(self, request):
            dispatch("asked", MARKED.get())
            return rx.of("a")

    rxllm.observe(Plain(), listen).invoke("x")
    rxllm.observe(rxllm.route(lambda request: dispatch("routed", MARKED.get()) or Letters()), listen).invoke("x")
    assert [("asked", 7), ("routed", 7)] == [(e.topic, e.data) for e in heard if isinstance(e, Custom)]


@pytest.mark.parametrize("kind", ["awaited", "in a thread"])
async def test_slow_reader_of_events_pauses_inner_models(kind):
    """The inner model pauses although its answer is only folded, and resumes when the reader continues."""
    made = []

    class Awaits(LLM):
        async def complete(self, request):
            return await Long(made).ainvoke(request)

    class Blocks(LLM):
        def complete(self, request):
            return Long(made).invoke(request)

    async def laps():
        """Give both event loops many chances to run ahead."""
        for _ in range(100):
            await asyncio.to_thread(Letters().invoke, "x")
        return len(made)

    async with (Awaits() if kind == "awaited" else Blocks()).astream_events("x") as events:
        for _ in range(8):
            await anext(events)
        stopped_at = await laps()
        assert stopped_at == await laps() < 5000
        assert 5000 <= 8 + len([event async for event in events])


async def test_slow_reader_of_events_pauses_the_server():
    """The socket is not read, so the server blocks; unsubscribing closes the connection."""
    piece, *_ = Chat().stream(["x" * 1000])[1:]
    with FakeServer(Reply([Endless(piece)])) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1")
        async with llm.astream_events("x") as events:
            for _ in range(8):
                await anext(events)
            stalled = await asyncio.to_thread(server.exchange(0).wait_stalled)
        assert stalled == server.exchange(0).bytes_sent
        await server.exchange(0).closed_soon()
        assert server.exchange(0).aborted


def test_pipeline_emits_values_of_any_class():
    """Each value is an Emitted event."""
    events = events_of(rxllm.pipe(Letters(), rxllm.text(), ops.map(len)))
    assert [1, 1] == [event.value for event in events if isinstance(event, Emitted)]


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 5000])
async def test_output_of_a_pipeline_combines_its_values(size):
    """Chunks become a message, texts a text, other values the last one, for any number of values."""

    async def output(*operators):
        chunks = lambda prompt: rxllm.from_iter(Chunk(letter) for letter in prompt)  # noqa: E731
        [*_, last] = await rxllm.pipe(chunks, *operators).events(text).pipe(ops.to_list())
        return last.output

    text = "abcde" * (size // 5) + "x" * (size % 5)
    assert (Message("assistant", text) if text else None) == await output()
    assert text == await output(rxllm.text())
    assert (len(text) - 1 if text else None) == await output(ops.map_indexed(lambda _, index: index))
    mixed = ops.map_indexed(lambda chunk, index: None if index == 0 else str(chunk))
    assert (text[-1] if size > 1 else None) == await output(mixed)
