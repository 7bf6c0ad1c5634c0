"""`MarbleLLM`: models written as marble diagrams, on virtual time and on an event loop."""

import asyncio
import time

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import HistoricalScheduler, VirtualTimeScheduler
from reactivex.testing import ReactiveTest, TestScheduler
from reactivex.testing.marbles import marbles_testing

import rxllm
from rxllm import Chunk, Message, MisuseError, Request, Timeout, TransportError
from rxllm.combinators.hedge import hedge
from rxllm.combinators.retry import retry
from rxllm.testing import MarbleLLM

FAST = 0.001  # seconds per character in real time


def heard(llm, prompt="hi", **parameters):
    """The notifications and their times, on virtual time."""
    with marbles_testing() as (start, _, _, _):
        return start(llm.bind(**parameters)(prompt).pipe(ops.map(str)))


def expected(diagram, values=None, error=None):
    """The records of a diagram."""
    with marbles_testing() as (_, _, _, exp):
        return exp(diagram, values, error)


def failure(records):
    """The error at the end, and its time."""
    return records[-1].value.exception, records[-1].time - ReactiveTest.subscribed


@pytest.mark.parametrize("diagram", ["--a-b--|", "a|", "|", "-", "--Hel-lo|", "-(a,b)-c|", "-a- -b |", "(a,b,|)"])
def test_answer_equals_its_diagram(diagram):
    """The times are exact on virtual time, in the syntax of reactivex."""
    assert expected(diagram) == heard(MarbleLLM(diagram))


def test_timespan_is_the_time_of_a_character():
    """The unit is seconds."""
    assert [(201.5, "a"), (203.0, "b")] == [
        (record.time, record.value.value) for record in heard(MarbleLLM("---a--b", timespan=0.5))
    ]


@pytest.mark.parametrize("value", ["text", Chunk("text"), Message("assistant", "text")])
def test_values_are_chunks(value):
    """Words and numbers stand for texts, Chunks and Messages, also empty ones."""
    llm = MarbleLLM("a-1-e-b|", values={"a": value, "1": value, "e": ""})
    assert expected("a-a-e-b|", {"a": "text", "e": "", "b": "b"}) == heard(llm)


def test_underscore_is_a_space():
    """A space in the diagram is ignored; `values` is looked up first."""
    llm = MarbleLLM("-Hello_ - _world - a_b|", values={"a_b": "a_b"})
    assert ["Hello ", " world", "a_b"] == [record.value.value for record in heard(llm)[:-1]]


def test_marble_model_can_be_cached():
    """Its identity is its diagrams and values, not its error; failures are not cached."""
    store = rxllm.MemoryStore()
    first = MarbleLLM(["#", "-a|"], timespan=FAST)
    llm = rxllm.cached(first, store)
    with pytest.raises(TransportError):
        llm.invoke("hi")
    assert ["a", "a"] == [llm.invoke("hi").text, llm.invoke("hi").text]
    again = MarbleLLM(["#", "-a|"], timespan=FAST, error=ValueError("another"))
    assert "a" == rxllm.cached(again, store).invoke("hi").text
    other = MarbleLLM("-a|", values={"a": "b"}, timespan=FAST)
    assert "b" == rxllm.cached(other, store).invoke("hi").text
    assert [2, 0, 1] == [len(each.requests) for each in (first, again, other)]


def test_time_limit_reports_what_had_arrived():
    """The Timeout has `partial` on virtual time, too."""
    with marbles_testing() as (start, _, _, _):
        error, at = failure(start(MarbleLLM("--Hel-lo------|")("hi").pipe(rxllm.text(), rxllm.idle_timeout(4.5))))
    assert (Timeout, "Hello", 10.5) == (type(error), error.partial.text, at)


def test_error_has_its_request_and_partial():
    """Each answer raises its own copy, with the facts of the configured error."""
    given = rxllm.RateLimited("Slow down.", status=429, retry_after=3)
    llm = MarbleLLM(["-a-b-#", "--#"], error=given)
    first, second = failure(heard(llm, "one")), failure(heard(llm, "two"))
    assert [5.0, 2.0] == [first[1], second[1]]
    for (error, _), prompt in ((first, "one"), (second, "two")):
        assert (rxllm.RateLimited, "Slow down.", 429, 3) == (type(error), str(error), error.status, error.retry_after)
        assert prompt == error.request.text
    assert ("ab", None) == (first[0].partial.text, second[0].partial)
    assert (None, None) == (given.request, given.partial)


def test_default_error_is_a_transport_error():
    """The default error is retryable."""
    error, _ = failure(heard(MarbleLLM("#")))
    assert (TransportError, True) == (type(error), error.retryable)


def test_error_may_be_of_any_class():
    """The error need not be one of rxllm's."""
    assert ValueError is type(failure(heard(MarbleLLM("-a#", error=ValueError("no"))))[0])


@pytest.mark.parametrize("diagram", ["--a-b--|", "-(a,b)-|"])
def test_stream_false_emits_one_chunk_at_the_end(diagram):
    """Also on virtual time."""
    assert expected("-" * (len(diagram) - 1) + "(t,|)", {"t": "ab"}) == heard(MarbleLLM(diagram), stream=False)


def test_each_request_has_its_diagram():
    """Diagrams are used in order, the last one repeats; copies share the position."""
    llm = MarbleLLM(["-a|", "-b|", "-c|"])
    assert ["a", "b", "c", "c"] == [heard(each)[0].value.value for each in (llm, llm.bind(temperature=0), llm, llm)]


def test_requests_are_recorded():
    """One request per subscription, in order, with its parameters; none before a subscription."""
    llm = MarbleLLM("-a|", timespan=FAST)
    answer = llm("one")
    assert [] == llm.requests
    answer.pipe(ops.map(str)).run()
    heard(llm, "two", temperature=0)
    assert "a" == llm.invoke([("user", "three")]).text
    assert [
        Request(prompt="one"),
        Request(prompt="two", temperature=0.0),
        Request.ask([("user", "three")]),
    ] == llm.requests


@pytest.mark.parametrize("scheduler", [TestScheduler, VirtualTimeScheduler, HistoricalScheduler])
def test_every_virtual_time_scheduler_works(scheduler):
    """No event loop is needed."""
    virtual, texts = scheduler(), []
    MarbleLLM("--a-b|")("hi").subscribe(lambda chunk: texts.append(str(chunk)), scheduler=virtual)
    assert [] == texts
    virtual.start()
    assert ["a", "b"] == texts


def test_disposal_on_virtual_time():
    """A disposed subscriber receives nothing more."""
    assert expected("--a|") == heard(MarbleLLM("--a|")) != heard(MarbleLLM("--ab-c-d|"))
    with marbles_testing() as (start, _, _, exp):
        assert exp("--a-(b,|)") == start(MarbleLLM("--a-b-c-d|")("hi").pipe(ops.map(str), ops.take(2)))


def test_ten_minutes_of_silence_take_no_time():
    """Under 1 s of processor time, with rxllm's operators and with those of reactivex."""
    stall = "-a" + "-" * 600 + "b|"
    for limit in (rxllm.idle_timeout(300), ops.timeout(300.0)):
        began = time.thread_time()
        observer = TestScheduler().start(lambda limit=limit: MarbleLLM(stall)("hi").pipe(limit), disposed=2000)
        took = time.thread_time() - began
        assert [(201.0, "N"), (501.0, "E")] == [(record.time, record.value.kind) for record in observer.messages]
        assert took < 1
    assert Timeout is type(
        failure(TestScheduler().start(lambda: MarbleLLM(stall)("hi").pipe(rxllm.idle_timeout(300))).messages)[0]
    )


def test_combinators_and_pipelines_on_virtual_time():
    """An operator that passes the scheduler on runs on virtual time."""
    hedged = hedge(MarbleLLM("------a|"), MarbleLLM("-b|"), after=3)
    assert expected("----b|") == heard(hedged)
    retried = retry(MarbleLLM(["--#", "-a|"]), delay=lambda error, attempt: 5.0)
    assert expected("--------a|") == heard(retried)
    with marbles_testing() as (start, _, _, exp):
        pipeline = rxllm.pipe(str.upper, llm := MarbleLLM("-a-b|"), rxllm.text())
        assert exp("-a-b|") == start(pipeline("hi"))
    assert "HI" == llm.requests[0].text


# ── on an event loop ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_time_passes_on_an_event_loop():
    """Chunks are never early, and every LLM method works."""
    llm = MarbleLLM("---a---b|", timespan=0.01)
    began = time.monotonic()
    times = [(str(chunk), time.monotonic() - began) async for chunk in llm.astream("hi")]
    assert ["a", "b"] == [text for text, _ in times]
    assert [True, True] == [at >= due for (_, at), due in zip(times, (0.03, 0.07), strict=True)]
    assert ["ab", "ab"] == [str(answer) for answer in await llm.abatch(["hi", "ho"])]


def test_events_of_a_marble_model():
    """On an event loop the model has events, like any model."""
    kinds = [type(event).__name__ for event in MarbleLLM("-a-b|", timespan=FAST).events("hi").pipe(rxllm.stream())]
    assert ["Started", "RunChunk", "RunChunk", "Finished"] == kinds


def test_error_on_an_event_loop():
    """The error has its request and `partial`, streamed or whole."""
    for stream in (True, False):
        with pytest.raises(TransportError) as caught:
            MarbleLLM("-a-#", timespan=FAST).invoke("hi", stream=stream)
        assert ("hi", "a") == (caught.value.request.text, caught.value.partial.text)


async def test_diagram_without_end_never_completes():
    """The answer is silent for ever, and can be cancelled."""
    chunks = MarbleLLM("-a-", timespan=FAST).astream("hi")
    assert "a" == str(await anext(chunks))
    silence = asyncio.ensure_future(anext(chunks))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not silence.done()
    await chunks.aclose()
    await asyncio.wait([silence])


def test_marble_model_as_an_operator_needs_an_event_loop():
    """On virtual time MisuseError says so."""
    llm = MarbleLLM("-a|", timespan=FAST)
    assert "a" == "".join(map(str, llm(rx.of("hi")).pipe(rxllm.stream())))
    assert MisuseError is type(failure(TestScheduler().start(lambda: llm(rx.of("hi"))).messages)[0])


# ── misuse ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("diagram", ["-a|b", "a,b", "-#-a", ["-a|", "-|a"], "x(f|)", "-(a,b#)-", "(a |)"])
def test_invalid_diagram_is_refused(diagram):
    """The constructor raises MisuseError."""
    with pytest.raises(MisuseError, match="is not a marble diagram"):
        MarbleLLM(diagram)


def test_missing_diagram_and_invalid_value_are_refused():
    """The constructor raises MisuseError."""
    with pytest.raises(MisuseError, match="needs a diagram"):
        MarbleLLM([])
    with pytest.raises(MisuseError, match="must answer with text, a Chunk or a Message"):
        MarbleLLM("a|", values={"a": 5})


def test_handlers_on_virtual_time_are_refused():
    """They would never receive an event."""
    llm = MarbleLLM("-a|", handlers=[print])
    observer = TestScheduler().start(lambda: llm("hi"))
    assert MisuseError is type(failure(observer.messages)[0])
