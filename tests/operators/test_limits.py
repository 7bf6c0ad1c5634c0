"""Limits on silence, on virtual time: to the moment."""

import asyncio
import gc
import weakref

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxllm
from rxllm import Chunk, MisuseError, Timeout, deadline, first_chunk_timeout, idle_timeout
from rxllm.operators.answering import Arrived
from rxllm.operators.timeouts import LATE, silence
from rxllm.runtime.gate import Gate
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source, connect
from rxllm.testing import MarbleLLM, on_virtual_time

on_next, on_error, on_completed = ReactiveTest.on_next, ReactiveTest.on_error, ReactiveTest.on_completed
FAILURE = ValueError("no")
PATIENCE = 5.0  # seconds for what comes at once


def run(operator, *events):
    """What comes of a hot source, as (time, value), and from when to when it was listened to."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(*events)
    observer = scheduler.start(lambda: source.pipe(operator))
    heard = [
        (event.time, type(event.value.exception) if event.value.kind == "E" else getattr(event.value, "value", "|"))
        for event in observer.messages
    ]
    return heard, [(each.subscribe, each.unsubscribe) for each in source.subscriptions]


@pytest.mark.parametrize(
    ("operator", "events", "expected", "left"),
    [
        pytest.param(first_chunk_timeout(50), [], [(250, Timeout)], 250, id="nothing ever comes"),
        pytest.param(
            first_chunk_timeout(50), [on_next(251, "a")], [(250, Timeout)], 250, id="the first comes a moment too late"
        ),
        pytest.param(
            first_chunk_timeout(50),
            [on_next(249, "a"), on_next(900, "b"), on_completed(990)],
            [(249, "a"), (900, "b"), (990, "|")],
            990,
            id="the first comes just in time, and no later one matters",
        ),
        pytest.param(
            first_chunk_timeout(50), [on_completed(240)], [(240, "|")], 240, id="an empty answer is no silence"
        ),
        pytest.param(
            first_chunk_timeout(50), [on_error(240, FAILURE)], [(240, ValueError)], 240, id="an error is passed on"
        ),
        pytest.param(
            idle_timeout(50),
            [on_next(210, "a"), on_next(259, "b"), on_next(400, "c")],
            [(210, "a"), (259, "b"), (309, Timeout)],
            309,
            id="the limit counts from the last item",
        ),
        pytest.param(
            idle_timeout(50),
            [on_next(900, "a"), on_completed(940)],
            [(900, "a"), (940, "|")],
            940,
            id="not before the first",
        ),
        pytest.param(idle_timeout(50), [on_next(900, "a")], [(900, "a"), (950, Timeout)], 950, id="from the first on"),
        pytest.param(
            idle_timeout(50),
            [*(on_next(at, at) for at in range(210, 900, 40)), on_completed(900)],
            [*((at, at) for at in range(210, 900, 40)), (900, "|")],
            900,
            id="a long answer that keeps coming is fine",
        ),
        pytest.param(
            silence(first=100, idle=20),
            [on_next(290, "a"), on_next(300, "b")],
            [(290, "a"), (300, "b"), (320, Timeout)],
            320,
            id="both at once",
        ),
        pytest.param(
            silence(first=700, idle=30),
            [on_next(255, "a")],
            [(255, "a"), (285, Timeout)],
            285,
            id="both at once, the first much longer",
        ),
        pytest.param(silence(first=100, idle=20), [], [(300, Timeout)], 300, id="both at once, and nothing comes"),
        pytest.param(
            silence(first=20, idle=100),
            [on_next(210, "a")],
            [(210, "a"), (310, Timeout)],
            310,
            id="both at once, the first shorter",
        ),
        pytest.param(silence(first=None, idle=None), [on_next(900, "a")], [(900, "a")], 1000, id="no limit at all"),
    ],
)
def test_silence_is_limited_to_the_moment(operator, events, expected, left):
    """The error comes exactly when the limit is over, and the source is left at that moment."""
    assert (expected, [(200, left)]) == run(operator, *events)


def test_the_sentence_says_which_limit_it_was():
    """And how long it is."""
    for operator, sentence in (
        (first_chunk_timeout(50), "No first chunk came within 50 s."),
        (idle_timeout(2.5), "No further chunk came within 2.5 s."),
    ):
        scheduler = TestScheduler()
        source = scheduler.create_hot_observable(on_next(201, "a") if "further" in sentence else on_next(900, "a"))
        (*_, last) = scheduler.start(lambda source=source, operator=operator: source.pipe(operator)).messages
        assert sentence == str(last.value.exception)


@pytest.mark.parametrize("operator", [first_chunk_timeout, idle_timeout])
@pytest.mark.parametrize("wrong", [0, -1, -0.5])
def test_a_limit_that_is_none_is_refused(operator, wrong):
    """At once."""
    with pytest.raises(MisuseError, match="positive number of seconds"):
        operator(wrong)


def alarms():
    """How many timers are set on the running loop."""
    return sum(not timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)


@pytest.mark.parametrize("limits", [{"first": 5.0, "idle": None}, {"first": 50.0, "idle": 5.0}])
@on_virtual_time
async def test_a_closed_gate_is_no_idleness(limits):
    """While the consumer pauses nothing can come; the limit counts from when it goes on."""
    scheduler = Scheduler(asyncio.get_running_loop()).with_gate(gate := Gate())
    source, heard, errors = Subject(), [], []
    source.pipe(silence(**limits)).subscribe(heard.append, errors.append, scheduler=scheduler)
    if limits["idle"]:
        source.on_next("a")
    await asyncio.sleep(4.0)
    gate.close()
    await asyncio.sleep(100.0)
    assert [] == errors
    gate.open()
    await asyncio.sleep(4.9)
    assert [] == errors
    await asyncio.sleep(0.2)
    assert [Timeout] == [type(error) for error in errors]
    assert 0 == alarms()


@on_virtual_time
async def test_nothing_is_scheduled_for_an_item():
    """A timer an item would cost more than the item."""
    source = Subject()
    subscription = source.pipe(silence(first=5.0, idle=5.0)).subscribe(scheduler=rxllm.scheduler())
    for _ in range(1000):
        source.on_next("a")
    assert 1 == alarms()
    subscription.dispose()
    assert 0 == alarms()


class Stalls(rxllm.LLM):
    """Streams a chunk, and no more."""

    async def chunks(self, request):
        """Half of it."""
        yield "Hel"
        await asyncio.Event().wait()


def test_the_timeout_of_a_model_carries_what_had_arrived():
    """A limit inside the provider is one of its errors: request and partial are known."""

    class Limited(rxllm.LLM):
        def chunks(self, request):
            return Stalls()(request).pipe(idle_timeout(0.01))

    with pytest.raises(Timeout) as caught:
        Limited().invoke("x")
    assert ("Hel", "x") == (caught.value.partial.text, caught.value.request.text)


def test_a_limit_around_a_model_closes_the_request():
    """After the Timeout nothing is left running (the leak check of all tests looks)."""
    heard = []
    with pytest.raises(Timeout):
        heard.extend(Stalls()("x").pipe(idle_timeout(0.01), rxllm.stream()))
    stream = Stalls()("x").pipe(idle_timeout(0.01), rxllm.stream())
    assert Chunk("Hel") == next(stream)
    with pytest.raises(Timeout):
        next(stream)


LIMITS = {
    "idle_timeout": idle_timeout(0.01),
    "deadline": deadline(0.05),
    "idle_timeout behind text": lambda source: source.pipe(rxllm.text(), idle_timeout(0.01)),
    "idle_timeout before text": lambda source: source.pipe(idle_timeout(0.01), rxllm.text()),
    "idle_timeout before message": lambda source: source.pipe(idle_timeout(0.01), rxllm.message()),
    "deadline behind message": lambda source: source.pipe(rxllm.message(), deadline(0.05)),
    "first_chunk_timeout behind message": lambda source: source.pipe(rxllm.message(), first_chunk_timeout(0.05)),
    "one within another": lambda source: source.pipe(deadline(0.05), idle_timeout(60), rxllm.text(), deadline(60)),
    "one around another": lambda source: source.pipe(deadline(60), rxllm.text(), idle_timeout(0.01)),
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS.keys())
@pytest.mark.parametrize(
    "run",
    [
        lambda limit: list(Stalls()("x").pipe(limit, rxllm.stream())),
        lambda limit: list(rxllm.pipe(Stalls(), limit).stream("x")),
        lambda limit: rxllm.pipe(Stalls(), limit).invoke("x"),
        lambda limit: rxllm.pipe(Quick(), rxllm.message(), ops.map(lambda answer: "x"), Stalls(), limit).invoke("y"),
        lambda limit: rxllm.observe(rxllm.pipe(Stalls(), limit), lambda event: None).invoke("x"),
    ],
    ids=["operators", "pipeline", "invoke", "the second model", "observed"],
)
def test_a_limit_around_a_model_tells_what_was_asked_and_what_had_arrived(limit, run):
    """As the model's own limits do, wherever the limit stands."""
    with pytest.raises(Timeout) as caught:
        run(limit)
    error = caught.value
    assert ("x", "Hel", True) == (error.request.text, error.partial.text, error.partial.usage.estimated)


class Quick(rxllm.LLM):
    """Has answered before anybody can lose patience."""

    async def complete(self, request):
        """Something else."""
        return "no"


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["Hel", "lo"], "Hello"),
        ([Chunk("Hel"), Chunk(usage=rxllm.Usage()), Chunk("lo")], "Hello"),
        ([Chunk("no"), Chunk("Hel", reset=True), Chunk("lo")], "Hello"),
        ([Chunk(parts=[rxllm.ReasoningPart("Hm.")])], ""),
        ([5, None], None),
    ],
)
@pytest.mark.parametrize("limit", [idle_timeout(50), deadline(60)], ids=["idle_timeout", "deadline"])
def test_without_a_model_what_has_passed_is_what_had_arrived(limit, items, expected):
    """Of chunks and of text; on virtual time as well."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(*(on_next(201 + number, item) for number, item in enumerate(items)))
    error = scheduler.start(lambda: source.pipe(limit)).messages[-1].value.exception
    assert (Timeout, None) == (type(error), error.request)
    assert expected == (error.partial and error.partial.text)


async def test_what_was_left_is_not_what_timed_out():
    """Of answers that were switched away from, none is told of; nor is it kept."""
    prompts, failed = Subject(), asyncio.get_running_loop().create_future()
    prompts.pipe(ops.switch_map(Stalls()), idle_timeout(0.05)).subscribe(on_error=failed.set_result)
    for prompt in "abc":
        prompts.on_next(prompt)
        for _ in range(5):
            await asyncio.sleep(0)
    error = await asyncio.wait_for(failed, PATIENCE)
    assert ("c", "Hel") == (error.request.text, error.partial.text)


@pytest.mark.parametrize("model", [Quick(), MarbleLLM("-#", timespan=0.001)], ids=["end", "failure"])
async def test_of_an_answer_that_has_ended_nothing_is_kept(model):
    """Although nobody has disposed of it yet."""
    scheduler, running, over = Scheduler(asyncio.get_running_loop()), [], asyncio.Event()

    def note(source):
        def subscribe(observer, scheduler=None):
            running[:] = [scheduler.context[each] for each in scheduler.context if each.name == "rxllm_overheard"]
            return connect(source, observer, scheduler)

        return Source(subscribe)

    connect(model("x").pipe(note, idle_timeout(60)), Lazy(over), scheduler)
    (((answer,),),) = running
    assert "x" == answer.request.text
    await asyncio.wait_for(over.wait(), PATIENCE)
    assert [({},)] == running


def test_what_is_kept_has_a_bound():
    """4 Mi characters, as of a model's own errors; and chunks of a few letters are joined on the way."""
    arrived = Arrived()
    for _ in range(70_000):
        arrived.add("a")
    assert len(arrived.kept) < 40_000
    for _ in range(10):
        arrived.add(Chunk("b" * 2**20))
    assert 4 * 2**20 <= len(arrived.message().text) <= 5 * 2**20


async def test_a_limit_leaves_the_source_itself():
    """At once, although who hears of it keeps the error for a while."""
    for number, limit in enumerate((idle_timeout(0.01), first_chunk_timeout(0.01), deadline(0.01))):
        scheduler, failed, source = Scheduler(asyncio.get_running_loop()), asyncio.Event(), Subject()
        connect(limit(source), Lazy(failed), scheduler)
        if number != 1:
            source.on_next("a")
        await asyncio.wait_for(failed.wait(), PATIENCE)
        assert [] == source.observers


class Lazy(rx.abc.ObserverBase):
    """A subscriber that disposes of nothing."""

    def __init__(self, over):
        self.over = over

    def on_next(self, value):
        """Goes by."""

    def on_error(self, error):
        """Notes it."""
        self.over.set()

    def on_completed(self):
        """Notes it."""
        self.over.set()


@pytest.mark.parametrize("limit", [rxllm.first_chunk_timeout(0.02), rxllm.deadline(0.02)])
async def test_a_timeout_tells_of_a_request_that_waits_for_a_limiter(limit):
    """It names the request, and says that it was not sent: the provider is not slow."""

    class Never(rxllm.LLM):
        async def complete(self, request):
            await asyncio.Event().wait()

    llm = rxllm.limited(Never(), rxllm.Limiter(concurrency=1))
    holder = asyncio.ensure_future(llm.ainvoke("first"))
    await asyncio.sleep(0)
    for model in llm, rxllm.retry(llm), rxllm.fallback(llm):
        with pytest.raises(
            Timeout, match=r"was not sent: it waited for its turn in Limiter\(concurrency=1\)"
        ) as caught:
            await rxllm.pipe(model, limit).ainvoke("second")
        assert "second" == caught.value.request.text
    with pytest.raises(Timeout) as caught:
        await rxllm.pipe(Never(), limit).ainvoke("third")
    assert ("third", False) == (caught.value.request.text, "Limiter" in str(caught.value))
    holder.cancel()
    await asyncio.wait([holder])


@pytest.mark.parametrize("limit", [rxllm.first_chunk_timeout(0.02), rxllm.deadline(0.02)])
@pytest.mark.parametrize("store", [False, True], ids=["between attempts", "before the store has answered"])
async def test_a_timeout_tells_of_a_request_that_no_model_has_yet(limit, store):
    """While `retry` waits for its next attempt, and while `cached` waits for its store."""

    class Fails(rxllm.LLM):
        async def complete(self, request):
            raise rxllm.TransportError("no")

    class Stuck(rxllm.Store):
        async def get(self, key):
            await asyncio.Event().wait()

        def put(self, key, chunks):
            pass

    model = rxllm.cached(Fails(), Stuck()) if store else rxllm.retry(Fails(), delay=lambda error, attempt: 60)
    with pytest.raises(Timeout) as caught:
        await rxllm.pipe(model, limit).ainvoke("hi")
    assert "hi" == caught.value.request.text


class _Subscriber:
    """A subscriber that can be watched: all that a stream holds on to holds this."""

    def __init__(self):
        self.ends = []

    def on_next(self, value):
        """Hears a value."""

    def on_error(self, error):
        """Hears an error."""
        self.ends.append(error)

    def on_completed(self):
        """Hears the end."""
        self.ends.append("completed")


@pytest.mark.parametrize("operator", [first_chunk_timeout(60), idle_timeout(60), deadline(60)])
@pytest.mark.parametrize("end", ["completed", "failed", "disposed"])
async def test_stream_that_has_ended_leaves_no_timer(operator, end):
    """The timer of a limit is cancelled with the stream, however it ends, and keeps neither it nor its subscriber."""
    source = Subject()
    subscriber = _Subscriber()
    watched = weakref.ref(subscriber)
    subscription = source.pipe(operator).subscribe(subscriber, scheduler=rxllm.scheduler())
    match end:
        case "completed":
            source.on_next("a")
            source.on_completed()
        case "failed":
            source.on_next("a")
            source.on_error(FAILURE)
        case "disposed":
            subscription.dispose()
    del source, subscription, subscriber
    await asyncio.sleep(0)
    gc.collect()
    assert watched() is None


@on_virtual_time
async def test_silence_after_a_busy_loop_still_times_out():
    """A limit that could not be looked at in time is excused once, and briefly; the silence that follows counts."""
    loop = asyncio.get_running_loop()

    async def silent_after_one():
        yield "a"
        loop.advance(60)  # the loop is kept busy for a minute
        await asyncio.Event().wait()

    stream = rxllm.from_aiter(silent_after_one()).pipe(idle_timeout(1), rxllm.astream())
    assert "a" == await anext(stream)
    with pytest.raises(Timeout, match="No further chunk"):
        await anext(stream)
    assert 60 + LATE == loop.time()


@pytest.mark.parametrize("operator", [silence(first=50, idle=None), silence(first=50, idle=50)])
@pytest.mark.parametrize("end", ["completed", FAILURE])
def test_stream_that_has_ended_is_not_late(operator, end):
    """The limit ends with the stream itself: an operator without reactivex's guard hears no error after the end."""
    scheduler, source, subscriber = TestScheduler(), Subject(), _Subscriber()
    ours = Source(lambda observer, _: source.subscribe(observer))
    connect(operator(ours), subscriber, scheduler)
    scheduler.advance_to(10)
    source.on_completed() if end == "completed" else source.on_error(end)
    scheduler.advance_to(1000)
    assert [end] == subscriber.ends
