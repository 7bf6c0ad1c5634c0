"""`observe`: handlers get all events in order and affect nothing. Also: laws of all combinators."""

import asyncio
import inspect
import logging
import re

import pytest
import reactivex as rx
from attrs import field, frozen
from reactivex import operators as ops

import rxllm
from rxllm import (
    LLM,
    Cancelled,
    Chunk,
    Failed,
    Finished,
    Handler,
    Message,
    MisuseError,
    Request,
    RunChunk,
    Started,
    Usage,
    combinators,
)
from rxllm.testing import Signal

TIMEOUT = 5.0  # seconds for what comes at once
GUESS = Usage(input_tokens=1, output_tokens=1, estimated=True)


class Hello(LLM):
    """A model that streams two chunks and the usage."""

    async def chunks(self, request):
        """Emits "Hello"."""
        yield "Hel"
        yield Chunk("lo", usage=Usage(output_tokens=2))


class Breaks(LLM):
    """A model that fails after one chunk."""

    async def chunks(self, request):
        """Emits half of the answer."""
        yield "Hel"
        raise rxllm.Interrupted("no")


class Hangs(LLM):
    """A model that emits one chunk, and then nothing."""

    async def chunks(self, request):
        """Emits half of the answer."""
        yield "Hel"
        await asyncio.Event().wait()


@frozen
class Listener(Handler):
    """A handler that records events."""

    heard: list[rxllm.Event] = field(factory=list)

    def on_event(self, event):
        """Records the event."""
        self.heard.append(event)


def test_handler_gets_a_run_from_started_to_finished():
    """It gets every chunk and the whole answer, and the answer itself is unchanged."""
    listener = Listener()
    llm = rxllm.observe(Hello(tags=("t",), metadata={"a": 1}), listener).bind(temperature=0)
    assert "Hello" == llm.invoke("x").text
    request = Request.ask("x", rxllm.Parameters(temperature=0))
    answer = Message("assistant", "Hello", Usage(output_tokens=2))
    started, *chunks, finished = listener.heard
    run = started.run
    assert (Started(request, run=run), Finished(answer, run=run)) == (started, finished)
    assert [("Hel", None, run), ("lo", Usage(output_tokens=2), run)] == [
        (chunk.text, chunk.usage, chunk.run) for chunk in chunks
    ]
    assert ("Hello", "llm", (), ("t",), {"a": 1}) == (run.name, run.kind, run.parent_ids, run.tags, run.metadata)
    times = [event.time for event in listener.heard]
    assert sorted(times) == times


def test_run_has_the_name_of_its_config():
    """Whether `with_config` is called before or after `observe`."""
    listener = Listener()
    rxllm.observe(Hello(run_name="before"), listener).invoke("x")
    rxllm.observe(Hello(), listener).with_config(run_name="after").invoke("x")
    assert ["before", "after"] == [event.name for event in listener.heard if isinstance(event, Started)]


def test_handler_gets_failed():
    """The event has the partial answer."""
    listener = Listener()
    with pytest.raises(rxllm.Interrupted) as caught:
        rxllm.observe(Breaks(), listener).invoke("x")
    started, chunk, failed = listener.heard
    run = started.run
    assert (Started, "Hel", Failed(caught.value, run=run)) == (type(started), str(chunk), failed)
    assert Message("assistant", "Hel", GUESS) == failed.partial
    assert Failed(ValueError(), run=run).partial is None


def test_closed_stream_emits_cancelled():
    """The event has the partial answer; the reader of the stream gets nothing more."""
    listener, heard, cancelled = Listener(), [], Signal()
    notice = lambda event: cancelled.set() if isinstance(event, Cancelled) else None  # noqa: E731
    with rxllm.observe(Hangs(), listener, notice).stream("x") as stream:
        assert "Hel" == str(next(stream))
        stream.close()
        heard.extend(stream)
    cancelled.wait()
    assert [Started, RunChunk, Cancelled] == [type(event) for event in listener.heard]
    assert (Message("assistant", "Hel", GUESS), []) == (listener.heard[-1].partial, heard)


async def test_cancelled_before_the_first_chunk_has_no_partial():
    """The partial is None."""
    listener = Listener()
    rxllm.observe(Hello(), listener)("x").subscribe().dispose()
    assert [Started, Cancelled] == [type(event) for event in listener.heard]
    assert listener.heard[-1].partial is None


async def test_take_cancels_the_run():
    """An operator that has enough disposes, which gives one Cancelled."""
    listener = Listener()
    assert Chunk("Hel") == await rxllm.observe(Hangs(), listener)("x").pipe(ops.take(1))
    assert [Started, RunChunk, Cancelled] == [type(event) for event in listener.heard]


async def test_run_ends_exactly_once():
    """A dispose after the end gives no Cancelled."""
    listener = Listener()
    done = asyncio.Event()
    subscription = rxllm.observe(Hello(), listener)("x").subscribe(on_completed=done.set)
    await asyncio.wait_for(done.wait(), TIMEOUT)
    subscription.dispose()
    assert [Started, RunChunk, RunChunk, Finished] == [type(event) for event in listener.heard]


def test_each_subscription_is_a_run():
    """Two subscriptions make two requests and two runs."""
    listener = Listener()
    answer = rxllm.observe(Hello(), listener)("x")
    assert ["Hel", "lo"] * 2 == [*answer.pipe(rxllm.text(), rxllm.stream()), *answer.pipe(rxllm.text(), rxllm.stream())]
    assert 2 == sum(isinstance(event, Started) for event in listener.heard)
    assert 2 == sum(isinstance(event, Finished) for event in listener.heard)


@pytest.mark.parametrize("llm", [Hello(), Breaks()], ids=["whole", "broken"])
def test_raising_handler_is_logged_and_affects_nothing(llm, caplog):
    """Neither the stream, nor the handlers before and after it."""
    before, after = Listener(), Listener()

    def raises(event):
        raise ValueError("the handler's")

    def answer(llm):
        return list(llm("x").pipe(ops.catch(lambda error, _: rx.of(type(error))), rxllm.stream()))

    expected = answer(llm)
    with caplog.at_level(logging.ERROR, "rxllm"):
        assert expected == answer(rxllm.observe(llm, before, raises, after))
    assert before.heard == after.heard
    assert ["rxllm"] == [record.name for record in caplog.records]  # once a run
    assert {"the handler's"} == {str(record.exc_info[1]) for record in caplog.records}
    assert "A handler raised on Started" in caplog.records[0].message


def test_functions_are_handlers():
    """Any function of an event, including an observer's `on_next`."""
    events, seen = [], []
    rxllm.observe(Hello(), events.append, rx.Observer(seen.append).on_next).invoke("x")
    assert 4 == len(events) == len(seen)


@pytest.mark.parametrize("wrong", [None, 5, "print"])
def test_value_that_is_no_handler_is_refused(wrong):
    """MisuseError is raised when it is attached, not at the first event."""
    with pytest.raises(MisuseError, match=f"not {type(wrong).__name__}"):
        rxllm.observe(Hello(), wrong)


def test_observe_does_not_change_the_streaming():
    """A whole answer stays whole, and `stream=False` reaches the model."""

    class Whole(LLM):
        async def complete(self, request):
            return "x"

    assert not rxllm.observe(Whole(), print).streaming
    assert rxllm.observe(Hello(), print).streaming
    listener = Listener()
    llm = rxllm.observe(Hello(), listener).bind(stream=False)
    assert not llm.streaming
    assert [Chunk("Hello", usage=Usage(output_tokens=2))] == list(llm.stream("x"))
    assert [Started, RunChunk, Finished] == [type(event) for event in listener.heard]


def test_handler_may_subscribe_to_an_answer():
    """A handler is an observer: it gets chunks, then an error or a completion."""
    listener = Listener()
    rx.of(Chunk("a")).subscribe(listener)
    rx.throw(failure := ValueError("no")).subscribe(listener)
    chunk, failed = listener.heard
    assert (Chunk("a"), failure) == (chunk, failed.error)


@pytest.mark.parametrize("name", combinators.__all__)
def test_docstring_has_a_marble_diagram(name):
    """It shows the models, and below them what the subscriber gets, at the same times."""
    lines = inspect.getdoc(getattr(rxllm, name)).splitlines()
    first = lines.index("::") + 2
    picture = [re.fullmatch(r"    (\w+|\w+\(.+\)) +(-\S+|S\S+F)(?: .*)?", line) for line in lines[first:]]
    picture = picture[: lines.index("", first) - first]
    assert all(picture)
    assert any(line[1].startswith(f"{name}(") for line in picture[1:])
    starts = {line[1].partition("(")[0]: line.start(2) for line in picture}  # a model that is asked later starts later
    assert min(starts.values()) == starts[name]


@pytest.mark.parametrize(
    ("name", "combined"),
    [
        ("retry", lambda llm: rxllm.retry(llm)),
        ("fallback", lambda llm: rxllm.fallback(llm, llm)),
        ("hedge", lambda llm: rxllm.hedge(llm, llm, after=60)),
        ("route", lambda llm: rxllm.route(lambda _: llm)),
        ("limited", lambda llm: rxllm.limited(llm, rxllm.Limiter(concurrency=1))),
        ("cached", lambda llm: rxllm.cached(llm, rxllm.MemoryStore(), name="x")),
    ],
)
def test_run_of_a_combinator_has_its_name(name, combined):
    """A handler sees the combinator's run around the model's, under the name of the function that made it."""
    listener = Listener()
    rxllm.observe(combined(Hello()), listener).invoke("x")
    assert [name, "Hello"] == [event.name for event in listener.heard if isinstance(event, Started)]


def test_combined_model_streams_as_its_first_model():
    """The first model is asked first, so it tells the caller what to expect."""

    class Whole(LLM):
        async def complete(self, request):
            return "Hello"

    assert rxllm.fallback(Hello(), Whole()).streaming
    assert not rxllm.fallback(Whole(), Hello()).streaming
    assert not rxllm.retry(Whole()).streaming
