"""Models written as marble diagrams, on virtual time and on an event loop."""

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

FAST = 0.001  # seconds a character, where they pass


def heard(llm, prompt="hi", **parameters):
    """What comes when, on virtual time, as a list of records."""
    with marbles_testing() as (start, _, _, _):
        return start(llm.bind(**parameters)(prompt).pipe(ops.map(str)))


def expected(diagram, values=None, error=None):
    """The same of a diagram."""
    with marbles_testing() as (_, _, _, exp):
        return exp(diagram, values, error)


def failure(records):
    """The error at the end, and when it came."""
    return records[-1].value.exception, records[-1].time - ReactiveTest.subscribed


@pytest.mark.parametrize("diagram", ["--a-b--|", "a|", "|", "-", "--Hel-lo|", "-(a,b)-c|", "-a- -b |", "(a,b,|)"])
def test_it_answers_as_its_diagram_says(diagram):
    """To the moment, on virtual time, in the syntax of reactivex."""
    assert expected(diagram) == heard(MarbleLLM(diagram))


def test_a_character_takes_its_timespan():
    """In seconds."""
    assert [(201.5, "a"), (203.0, "b")] == [
        (record.time, record.value.value) for record in heard(MarbleLLM("---a--b", timespan=0.5))
    ]


@pytest.mark.parametrize("value", ["text", Chunk("text"), Message("assistant", "text")])
def test_values_stand_for_chunks(value):
    """Texts, Chunks and Messages, by words and by numbers; an empty one is one, too."""
    llm = MarbleLLM("a-1-e-b|", values={"a": value, "1": value, "e": ""})
    assert expected("a-a-e-b|", {"a": "text", "e": "", "b": "b"}) == heard(llm)


def test_an_underscore_is_a_space():
    """A space of the diagram is none. What `values` says comes first."""
    llm = MarbleLLM("-Hello_ - _world - a_b|", values={"a_b": "a_b"})
    assert ["Hello ", " world", "a_b"] == [record.value.value for record in heard(llm)[:-1]]


def test_it_may_be_cached():
    """It is known by its diagrams and values, whatever its error is; no failure is kept."""
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


def test_a_limit_tells_what_had_arrived():
    """On virtual time, too."""
    with marbles_testing() as (start, _, _, _):
        error, at = failure(start(MarbleLLM("--Hel-lo------|")("hi").pipe(rxllm.text(), rxllm.idle_timeout(4.5))))
    assert (Timeout, "Hello", 10.5) == (type(error), error.partial.text, at)


def test_an_error_tells_what_was_asked_and_what_had_arrived():
    """As a real one does; each answer has its own, with the facts of the given one."""
    given = rxllm.RateLimited("Slow down.", status=429, retry_after=3)
    llm = MarbleLLM(["-a-b-#", "--#"], error=given)
    first, second = failure(heard(llm, "one")), failure(heard(llm, "two"))
    assert [5.0, 2.0] == [first[1], second[1]]
    for (error, _), prompt in ((first, "one"), (second, "two")):
        assert (rxllm.RateLimited, "Slow down.", 429, 3) == (type(error), str(error), error.status, error.retry_after)
        assert prompt == error.request.text
    assert ("ab", None) == (first[0].partial.text, second[0].partial)
    assert (None, None) == (given.request, given.partial)


def test_without_an_error_it_is_one_of_transport():
    """Which is worth another try."""
    error, _ = failure(heard(MarbleLLM("#")))
    assert (TransportError, True) == (type(error), error.retryable)


def test_an_error_of_any_kind():
    """Not only rxllm's."""
    assert ValueError is type(failure(heard(MarbleLLM("-a#", error=ValueError("no"))))[0])


@pytest.mark.parametrize("diagram", ["--a-b--|", "-(a,b)-|"])
def test_stream_false_makes_one_chunk_at_the_end(diagram):
    """On virtual time, too."""
    assert expected("-" * (len(diagram) - 1) + "(t,|)", {"t": "ab"}) == heard(MarbleLLM(diagram), stream=False)


def test_each_request_has_its_diagram():
    """In order, and the last one for all that follow; copies take turns with the original."""
    llm = MarbleLLM(["-a|", "-b|", "-c|"])
    assert ["a", "b", "c", "c"] == [heard(each)[0].value.value for each in (llm, llm.bind(temperature=0), llm, llm)]


def test_it_remembers_what_it_was_asked():
    """Once for each subscription, in order, with the parameters; nothing before anybody subscribes."""
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
def test_any_virtual_time_will_do(scheduler):
    """They have no loop, and need none."""
    virtual, texts = scheduler(), []
    MarbleLLM("--a-b|")("hi").subscribe(lambda chunk: texts.append(str(chunk)), scheduler=virtual)
    assert [] == texts
    virtual.start()
    assert ["a", "b"] == texts


def test_leaving_on_virtual_time():
    """Who has left hears no more."""
    assert expected("--a|") == heard(MarbleLLM("--a|")) != heard(MarbleLLM("--ab-c-d|"))
    with marbles_testing() as (start, _, _, exp):
        assert exp("--a-(b,|)") == start(MarbleLLM("--a-b-c-d|")("hi").pipe(ops.map(str), ops.take(2)))


def test_a_ten_minute_stall_takes_no_time():
    """Under 50 ms, be it waited for by our operators or by those of reactivex."""
    stall = "-a" + "-" * 600 + "b|"
    for limit in (rxllm.idle_timeout(300), ops.timeout(300.0)):
        began = time.perf_counter()
        observer = TestScheduler().start(lambda limit=limit: MarbleLLM(stall)("hi").pipe(limit), disposed=2000)
        took = time.perf_counter() - began
        assert [(201.0, "N"), (501.0, "E")] == [(record.time, record.value.kind) for record in observer.messages]
        assert took < 0.05
    assert Timeout is type(
        failure(TestScheduler().start(lambda: MarbleLLM(stall)("hi").pipe(rxllm.idle_timeout(300))).messages)[0]
    )


def test_through_combinators_and_pipelines():
    """What subscribes with the scheduler that it was given runs on virtual time with it."""
    hedged = hedge(MarbleLLM("------a|"), MarbleLLM("-b|"), after=3)
    assert expected("----b|") == heard(hedged)
    retried = retry(MarbleLLM(["--#", "-a|"]), delay=lambda error, attempt: 5.0)
    assert expected("--------a|") == heard(retried)
    with marbles_testing() as (start, _, _, exp):
        pipeline = rxllm.pipe(str.upper, llm := MarbleLLM("-a-b|"), rxllm.text())
        assert exp("-a-b|") == start(pipeline("hi"))
    assert "HI" == llm.requests[0].text


# ── on an event loop ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_on_an_event_loop_the_time_passes():
    """Not earlier than the diagram says; and everything of an LLM is there."""
    llm = MarbleLLM("---a---b|", timespan=0.01)
    began = time.monotonic()
    times = [(str(chunk), time.monotonic() - began) async for chunk in llm.astream("hi")]
    assert ["a", "b"] == [text for text, _ in times]
    assert [True, True] == [at >= due for (_, at), due in zip(times, (0.03, 0.07), strict=True)]
    assert ["ab", "ab"] == [str(answer) for answer in await llm.abatch(["hi", "ho"])]


def test_events_of_it():
    """On a loop it is observed as any model is."""
    kinds = [type(event).__name__ for event in MarbleLLM("-a-b|", timespan=FAST).events("hi").pipe(rxllm.stream())]
    assert ["Started", "RunChunk", "RunChunk", "Finished"] == kinds


def test_an_error_on_a_loop():
    """It has its request and what had arrived, streamed or whole."""
    for stream in (True, False):
        with pytest.raises(TransportError) as caught:
            MarbleLLM("-a-#", timespan=FAST).invoke("hi", stream=stream)
        assert ("hi", "a") == (caught.value.request.text, caught.value.partial.text)


async def test_a_diagram_without_an_end_has_none():
    """It is silent for ever, and can be left."""
    chunks = MarbleLLM("-a-", timespan=FAST).astream("hi")
    assert "a" == str(await anext(chunks))
    silence = asyncio.ensure_future(anext(chunks))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not silence.done()
    await chunks.aclose()
    await asyncio.wait([silence])


def test_as_an_operator_it_needs_a_loop():
    """There it works; on virtual time the sentence says so."""
    llm = MarbleLLM("-a|", timespan=FAST)
    assert "a" == "".join(map(str, llm(rx.of("hi")).pipe(rxllm.stream())))
    assert MisuseError is type(failure(TestScheduler().start(lambda: llm(rx.of("hi"))).messages)[0])


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("diagram", ["-a|b", "a,b", "-#-a", ["-a|", "-|a"], "x(f|)", "-(a,b#)-", "(a |)"])
def test_what_is_no_diagram_is_refused(diagram):
    """When it is made."""
    with pytest.raises(MisuseError, match="is no marble diagram"):
        MarbleLLM(diagram)


def test_no_diagram_at_all():
    """Is a mistake, too; and so is a value that is no chunk."""
    with pytest.raises(MisuseError, match="needs a diagram"):
        MarbleLLM([])
    with pytest.raises(MisuseError, match="must answer with text, a Chunk or a Message"):
        MarbleLLM("a|", values={"a": 5})


def test_handlers_on_virtual_time_are_refused():
    """Rather than never told of anything."""
    llm = MarbleLLM("-a|", handlers=[print])
    observer = TestScheduler().start(lambda: llm("hi"))
    assert MisuseError is type(failure(observer.messages)[0])
