"""Time limits, on virtual time."""

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
from rxllm.runtime.alarms import LENGTHS
from rxllm.runtime.gate import Gate
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source, connect
from rxllm.testing import MarbleLLM, on_virtual_time

on_next, on_error, on_completed = ReactiveTest.on_next, ReactiveTest.on_error, ReactiveTest.on_completed
FAILURE = ValueError("no")
PATIENCE = 30.0  # seconds for what comes at once


def run(operator, *events):
    """The notifications of a hot source as (time, value), and its subscription times."""
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
            first_chunk_timeout(50), [on_completed(240)], [(240, "|")], 240, id="an empty answer does not time out"
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
def test_timeout_comes_exactly_at_the_limit(operator, events, expected, left):
    """The source is disposed at that moment."""
    assert (expected, [(200, left)]) == run(operator, *events)


def test_timeout_names_its_limit():
    """The error says which limit passed, and how long it is."""
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
def test_invalid_limit_is_refused(operator, wrong):
    """The operator raises MisuseError when it is created."""
    with pytest.raises(MisuseError, match="positive number of seconds"):
        operator(wrong)


def alarms():
    """The number of alarms on the running loop."""
    running = asyncio.get_running_loop()
    return sum(len(alarms.waiting) for (loop, _), alarms in LENGTHS.items() if loop is running)


@pytest.mark.parametrize("limits", [{"first": 5.0, "idle": None}, {"first": 50.0, "idle": 5.0}])
@on_virtual_time
async def test_closed_gate_does_not_count(limits):
    """While the consumer pauses the stream, no limit runs; it starts again when the gate opens."""
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
async def test_items_schedule_nothing():
    """A timer for each item would cost more than the item."""
    source = Subject()
    subscription = source.pipe(silence(first=5.0, idle=5.0)).subscribe(scheduler=rxllm.scheduler())
    for _ in range(1000):
        source.on_next("a")
    assert 1 == alarms()
    subscription.dispose()
    assert 0 == alarms()


class Stalls(rxllm.LLM):
    """A model that emits one chunk, and then nothing."""

    async def chunks(self, request):
        """Emits half of the answer."""
        yield "Hel"
        await asyncio.Event().wait()


def test_timeout_of_a_model_has_request_and_partial():
    """A limit of the provider sets both."""

    class Limited(rxllm.LLM):
        def chunks(self, request):
            return Stalls()(request).pipe(idle_timeout(0.01))

    with pytest.raises(Timeout) as caught:
        Limited().invoke("x")
    assert ("Hel", "x") == (caught.value.partial.text, caught.value.request.text)


def test_timeout_around_a_model_closes_the_request():
    """After the Timeout no task runs, as the leak check of all tests verifies."""
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
def test_timeout_around_a_model_has_request_and_partial(limit, run):
    """A limit outside the model sets both, wherever it stands."""
    with pytest.raises(Timeout) as caught:
        run(limit)
    error = caught.value
    assert ("x", "Hel", True) == (error.request.text, error.partial.text, error.partial.usage.estimated)


class Quick(rxllm.LLM):
    """A model that answers before any limit passes."""

    async def complete(self, request):
        """Returns another answer."""
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
def test_timeout_without_a_model_has_the_passed_items_as_partial(limit, items, expected):
    """For chunks and for text, also on virtual time."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(*(on_next(201 + number, item) for number, item in enumerate(items)))
    error = scheduler.start(lambda: source.pipe(limit)).messages[-1].value.exception
    assert (Timeout, None) == (type(error), error.request)
    assert expected == (error.partial and error.partial.text)


async def test_disposed_answers_are_not_part_of_a_timeout():
    """After a switch to another answer, the earlier ones are neither reported nor kept."""
    prompts, failed = Subject(), asyncio.get_running_loop().create_future()
    prompts.pipe(ops.switch_map(Stalls()), idle_timeout(0.05)).subscribe(on_error=failed.set_result)
    for prompt in "abc":
        prompts.on_next(prompt)
        for _ in range(5):
            await asyncio.sleep(0)
    error = await asyncio.wait_for(failed, PATIENCE)
    assert ("c", "Hel") == (error.request.text, error.partial.text)


@pytest.mark.parametrize("model", [Quick(), MarbleLLM("-#", timespan=0.001)], ids=["end", "failure"])
async def test_ended_answers_are_not_kept(model):
    """The answer is freed at its end, before its subscriber disposes."""
    scheduler, running, over = Scheduler(asyncio.get_running_loop()), [], asyncio.Event()

    def note(source):
        def subscribe(observer, scheduler=None):
            running[:] = [scheduler.context[each] for each in scheduler.context if each.name == "rxllm_trackers"]
            return connect(source, observer, scheduler)

        return Source(subscribe)

    connect(model("x").pipe(note, idle_timeout(60)), Lazy(over), scheduler)
    (((answer,),),) = running
    assert "x" == answer.request.text
    await asyncio.wait_for(over.wait(), PATIENCE)
    assert [({},)] == running


def test_kept_partial_is_bounded():
    """At most 4 Mi characters are kept, as in a model's own errors. Short chunks are joined."""
    arrived = Arrived()
    for _ in range(70_000):
        arrived.add("a")
    assert len(arrived.kept) < 40_000
    for _ in range(10):
        arrived.add(Chunk("b" * 2**20))
    assert 4 * 2**20 <= len(arrived.message().text) <= 5 * 2**20


async def test_limit_disposes_the_source_itself():
    """At once, even if a later operator delays the error."""
    for number, limit in enumerate((idle_timeout(0.01), first_chunk_timeout(0.01), deadline(0.01))):
        scheduler, failed, source = Scheduler(asyncio.get_running_loop()), asyncio.Event(), Subject()
        connect(limit(source), Lazy(failed), scheduler)
        if number != 1:
            source.on_next("a")
        await asyncio.wait_for(failed.wait(), PATIENCE)
        assert [] == source.observers


class Lazy(rx.abc.ObserverBase):
    """A subscriber that disposes nothing."""

    def __init__(self, over):
        self.over = over

    def on_next(self, value):
        """Ignores the value."""

    def on_error(self, error):
        """Records the error."""
        self.over.set()

    def on_completed(self):
        """Records the completion."""
        self.over.set()


@pytest.mark.parametrize("limit", [rxllm.first_chunk_timeout(0.02), rxllm.deadline(0.02)])
async def test_timeout_reports_a_request_that_waits_for_a_limiter(limit):
    """The error has the request, and says that the request was not sent."""

    class Never(rxllm.LLM):
        async def complete(self, request):
            await asyncio.Event().wait()

    llm = rxllm.limited(Never(), rxllm.Limiter(concurrency=1))
    holder = asyncio.ensure_future(llm.ainvoke("first"))
    await asyncio.sleep(0)
    for model in llm, rxllm.retry(llm), rxllm.fallback(llm):
        with pytest.raises(Timeout, match=r"was not sent, because it waited for Limiter\(concurrency=1\)") as caught:
            await rxllm.pipe(model, limit).ainvoke("second")
        assert "second" == caught.value.request.text
    with pytest.raises(Timeout) as caught:
        await rxllm.pipe(Never(), limit).ainvoke("third")
    assert ("third", False) == (caught.value.request.text, "Limiter" in str(caught.value))
    holder.cancel()
    await asyncio.wait([holder])


@pytest.mark.parametrize("limit", [rxllm.first_chunk_timeout(0.02), rxllm.deadline(0.02)])
@pytest.mark.parametrize("store", [False, True], ids=["between attempts", "before the store has answered"])
async def test_timeout_reports_a_request_before_it_reaches_a_model(limit, store):
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
    """A subscriber with a weak reference: as long as a stream holds anything, it holds the subscriber."""

    def __init__(self):
        self.ends = []

    def on_next(self, value):
        """Ignores the value."""

    def on_error(self, error):
        """Ignores the error."""
        self.ends.append(error)

    def on_completed(self):
        """Ignores the completion."""
        self.ends.append("completed")


@pytest.mark.parametrize("operator", [first_chunk_timeout(60), idle_timeout(60), deadline(60)])
@pytest.mark.parametrize("end", ["completed", "failed", "disposed"])
async def test_ended_stream_leaves_no_timer(operator, end):
    """The limit cancels its timer at each kind of end, and keeps neither the stream nor its subscriber."""
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
    """A timer that fires late grants one short extension, and then the limit applies."""
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
def test_ended_stream_does_not_time_out(operator, end):
    """The limit ends with the stream; the test uses an observer without reactivex's guard."""
    scheduler, source, subscriber = TestScheduler(), Subject(), _Subscriber()
    ours = Source(lambda observer, _: source.subscribe(observer))
    connect(operator(ours), subscriber, scheduler)
    scheduler.advance_to(10)
    source.on_completed() if end == "completed" else source.on_error(end)
    scheduler.advance_to(1000)
    assert [end] == subscriber.ends
