"""`share`: one request and one log, which each subscriber reads at its own pace."""

import asyncio
import gc
import random
import sys
import threading

import pytest
import reactivex as rx
from combinators.moments import moments
from hypothesis import given
from hypothesis import strategies as st
from protocols import Chat
from reactivex import operators as ops
from reactivex.scheduler import VirtualTimeScheduler
from reactivex.subject import Subject

import rxllm
from rxllm import LLM, Interrupted, share
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source, connect
from rxllm.testing import End, Endless, FakeServer, MarbleLLM, Reply

TIMEOUT = 5.0  # seconds for what comes at once
HEL = Chat().stream(["Hel"])[1]


def later(scheduler, seconds, observable, heard):
    """Subscribes after some virtual seconds; returns the disposable."""
    subscription = rx.disposable.SerialDisposable()

    def begin(_, state=None):
        subscription.disposable = observable.subscribe(
            lambda value: heard.append((scheduler.now.timestamp(), str(value))),
            lambda error: heard.append((scheduler.now.timestamp(), type(error))),
            lambda: heard.append((scheduler.now.timestamp(), "|")),
            scheduler=scheduler,
        )

    scheduler.schedule_relative(seconds, begin)
    return subscription


def test_late_subscriber_gets_the_whole_answer():
    """The values so far come at once, the others as they arrive, from one request."""
    scheduler, first, second, third = VirtualTimeScheduler(), [], [], []
    llm = MarbleLLM("-a-b-c|")
    shared = llm("hi").pipe(share())
    later(scheduler, 0, shared, first)
    later(scheduler, 4, shared, second)
    later(scheduler, 100, shared, third)
    scheduler.start()
    assert [(1, "a"), (3, "b"), (5, "c"), (6, "|")] == first
    assert [(4, "a"), (4, "b"), (5, "c"), (6, "|")] == second
    assert [(100, "a"), (100, "b"), (100, "c"), (100, "|")] == third
    assert 1 == len(llm.requests)


def test_last_subscriber_closes_the_request():
    """A subscriber that disposes earlier affects no other. A later subscriber makes a new request."""
    scheduler, first, second, third = VirtualTimeScheduler(), [], [], []
    llm = MarbleLLM("-a-b-c|")
    shared = llm("hi").pipe(share())
    leave_first = later(scheduler, 0, shared, first)
    leave_second = later(scheduler, 1.5, shared, second)
    scheduler.schedule_relative(2, lambda *_: leave_first.dispose())
    scheduler.schedule_relative(4, lambda *_: leave_second.dispose())
    later(scheduler, 10, shared, third)
    scheduler.start()
    assert [(1, "a")] == first
    assert [(1.5, "a"), (3, "b")] == second
    assert [(11, "a"), (13, "b"), (15, "c"), (16, "|")] == third
    assert 2 == len(llm.requests)


def test_error_reaches_all_subscribers_and_is_not_kept():
    """Each gets the values before the error. The next subscriber makes a new request."""
    scheduler, first, second, third = VirtualTimeScheduler(), [], [], []
    shared = MarbleLLM(["-a-#", "-A|"], error=Interrupted("cut"))("hi").pipe(share())
    later(scheduler, 0, shared, first)
    later(scheduler, 2, shared, second)
    later(scheduler, 10, shared, third)
    scheduler.start()
    assert [(1, "a"), (3, Interrupted)] == first
    assert [(2, "a"), (3, Interrupted)] == second
    assert [(11, "A"), (12, "|")] == third


def test_whole_answer_stays_whole():
    """An error that an upstream operator emits after the end is ignored, such as that of a `deadline`."""
    scheduler, first, second = VirtualTimeScheduler(), [], []
    llm = MarbleLLM("-a-b|")
    shared = llm("hi").pipe(rxllm.deadline(8), share())
    later(scheduler, 0, shared, first)
    later(scheduler, 10, shared, second)
    scheduler.start()
    assert [(1, "a"), (3, "b"), (4, "|")] == first
    assert [(10, "a"), (10, "b"), (10, "|")] == second
    assert 1 == len(llm.requests)


def test_values_after_the_end_are_dropped():
    """They are not replayed either."""
    scheduler, first, second = VirtualTimeScheduler(), [], []

    def careless(observer, scheduler=None):
        for event in lambda: observer.on_next("a"), observer.on_completed, lambda: observer.on_next("b"):
            event()
        observer.on_error(Interrupted("cut"))
        return rx.disposable.Disposable()

    shared = Source(careless).pipe(share())
    later(scheduler, 0, shared, first)
    later(scheduler, 1, shared, second)
    scheduler.start()
    assert [(0, "a"), (0, "|")] == first
    assert [(1, "a"), (1, "|")] == second


async def test_operator_that_completes_closes_the_request():
    """A model would otherwise run until its subscriber disposes."""
    with FakeServer(Reply([HEL, End.HANG])) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k")
        shared = llm("hi").pipe(rxllm.idle_timeout(0.01), share())
        with pytest.raises(rxllm.Timeout):
            async for _ in shared.pipe(rxllm.astream()):
                pass
        await server.exchange().closed_soon()


@pytest.mark.parametrize("end", [("on_completed",), ("on_error", ValueError("cut"))])
async def test_subscribers_are_called_on_their_own_loop(end):
    """For values and ends that the source emits on another thread."""
    heard, over, subject = [], asyncio.Event(), Subject()

    def ended(*error):
        heard.append((threading.get_ident(), *error))
        over.set()

    subject.pipe(share()).subscribe(lambda item: heard.append((threading.get_ident(), item)), ended, ended)
    await asyncio.to_thread(subject.on_next, 1)
    await asyncio.to_thread(getattr(subject, end[0]), *end[1:])
    await asyncio.wait_for(over.wait(), TIMEOUT)
    here = threading.get_ident()
    assert [(here, 1), (here, *end[1:])] == heard


def test_values_of_other_threads_are_not_lost(switching):
    """A value may arrive at the very moment when a reader finds no more."""
    numbers = list(range(300))

    def speak(observer, scheduler=None):
        def work():
            for number in numbers:
                observer.on_next(number)
            observer.on_completed()

        threading.Thread(target=work).start()
        return rx.disposable.Disposable()

    async def main():
        shared = rx.create(speak).pipe(share())
        readers = [anext(shared.pipe(ops.to_list(), rxllm.astream())) for _ in range(3)]
        readers.append(collected(shared.pipe(rxllm.astream())))
        return await asyncio.wait_for(asyncio.gather(*readers), TIMEOUT)

    for _ in range(20):
        assert [numbers] * 4 == asyncio.run(main())


async def collected(items):
    """Collects all values."""
    return [item async for item in items]


@pytest.fixture
def switching():
    """Makes threads switch as often as possible."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_take_leaves_at_once():
    """Also during the subscription, when the whole answer is in the log."""
    llm = MarbleLLM("(a,b,c)|")
    shared = llm("hi").pipe(share())
    assert [(0, "a"), (0, "b"), (0, "c"), (7, "|")] == moments(shared)
    assert [(0, "a"), (0, "|")] == moments(shared.pipe(ops.take(1)))
    assert 1 == len(llm.requests)


@given(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 12)), min_size=1, max_size=50))
def test_subscribers_that_come_and_go_get_one_answer(visits):
    """Each gets a prefix of the answer, and all of it if it stays."""
    scheduler, llm = VirtualTimeScheduler(), MarbleLLM("-a-b-c-d|")
    shared = llm("hi").pipe(share())
    heards = []
    for come, stay in visits:
        heard = []
        heards.append((heard, stay))
        leave = later(scheduler, come, shared, heard)
        scheduler.schedule_relative(come + stay, lambda *_, leave=leave: leave.dispose())
    scheduler.start()
    for heard, stay in heards:
        said = [what for _, what in heard]
        assert ["a", "b", "c", "d", "|"][: len(said)] == said
        if stay > 8.001:  # as long as any answer takes
            assert "|" in said


async def test_fifty_subscribers_share_one_request():
    """Over HTTP, with subscribers that come and go at random."""
    pieces = [f"{number} " for number in range(200)]
    chance = random.Random(7)
    with FakeServer(Reply(Chat().stream(pieces))) as server:
        shared = rxllm.OpenAI("m", base_url=server.url, api_key="k")("hi").pipe(rxllm.text(), share())
        stays = shared.pipe(ops.to_list(), rxllm.astream())

        async def visit():
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            heard, most = [], chance.choice([1, 10, 1000])
            async with shared.pipe(rxllm.astream()) as items:
                async for item in items:
                    heard.append(item)
                    if len(heard) >= most:
                        break
            return heard, most

        whole, *visits = await asyncio.gather(anext(stays), *(visit() for _ in range(50)))
        assert pieces == whole
        for heard, most in visits:
            assert pieces[: min(most, 200)] == heard
        assert 1 == len(server.requests)


async def test_slow_reader_does_not_slow_the_others():
    """Each reader has its own position. The source pauses only when all are full."""
    made = []

    class Counts(LLM):
        async def chunks(self, request):
            for number in range(1000):
                made.append(number)
                yield f"{number} "

    shared = Counts()("x").pipe(share())
    slow, fast = shared.pipe(rxllm.astream()), shared.pipe(rxllm.astream())
    await anext(slow)
    heard = [chunk.text async for chunk in fast]
    assert 1000 == len(heard)
    assert heard == ["0 ", *[chunk.text async for chunk in slow]]


async def test_source_pauses_when_all_readers_are_full():
    """It resumes when one reader has room."""
    with FakeServer(Reply([Endless(HEL)])) as server:
        shared = rxllm.OpenAI("m", base_url=server.url, api_key="k")("hi").pipe(share())
        async with shared.pipe(rxllm.astream()) as one, shared.pipe(rxllm.astream()) as other:
            await anext(one)
            await anext(other)
            stalled = await asyncio.to_thread(server.exchange().wait_stalled)
            for _ in range(20_000):
                await anext(one)
            assert server.exchange().bytes_sent > stalled
        await server.exchange().closed_soon()


def test_full_reader_that_disposes_does_not_hold_the_source():
    """The others continue. A source without readers is closed, not paused."""

    async def main():
        with FakeServer(Reply([Endless(HEL)])) as server:
            shared = rxllm.OpenAI("m", base_url=server.url, api_key="k")("hi").pipe(share())
            other = shared.pipe(rxllm.astream())
            async with shared.pipe(rxllm.astream()) as one:
                await anext(one)
                await anext(other)
                await asyncio.to_thread(server.exchange().wait_stalled)
            for _ in range(1000):
                await anext(other)
            await other.aclose()
            await server.exchange().closed_soon()

    asyncio.run(main())


def test_readers_may_be_on_other_loops_and_threads():
    """Each is called on its own loop; the request runs on the loop of the first one."""
    pieces = [f"{number} " for number in range(500)]
    with FakeServer(Reply(Chat().stream(pieces))) as server:
        shared = rxllm.OpenAI("m", base_url=server.url, api_key="k")("hi").pipe(rxllm.text(), share())
        heard = []

        async def on_a_loop():
            heard.append([item async for item in shared.pipe(rxllm.astream())])

        threads = [threading.Thread(target=lambda: heard.append(list(shared.pipe(rxllm.stream())))) for _ in range(3)]
        threads += [threading.Thread(target=lambda: asyncio.run(on_a_loop())) for _ in range(3)]
        first = iter(shared.pipe(rxllm.stream()))
        beginning = next(first)
        for thread in threads:
            thread.start()
        heard.append([beginning, *first])
        for thread in threads:
            thread.join(TIMEOUT)
        assert [pieces] * 7 == heard
        assert 1 == len(server.requests)


def test_end_of_the_first_loop_interrupts_the_other_readers():
    """Otherwise they would wait for ever."""
    with FakeServer(Reply([HEL, End.HANG])) as server:
        shared = rxllm.OpenAI("m", base_url=server.url, api_key="k")("hi").pipe(share())
        streams = []

        async def main():
            shared.subscribe(lambda chunk: None, lambda error: None)
            other = shared.pipe(rxllm.stream())
            streams.append(other)
            await asyncio.to_thread(next, other)

        asyncio.run(main())
        with pytest.raises(Interrupted, match="event loop of its first subscriber"):
            next(streams[0])


async def test_reader_that_raises_is_removed_alone():
    """Its exception goes to the loop's exception handler, and the others continue."""
    loop, blamed, heard, over = asyncio.get_running_loop(), [], [], asyncio.Event()
    loop.set_exception_handler(lambda loop, context: blamed.append(context["exception"]))

    def careless(value):
        raise ValueError("careless")

    shared = rxllm.Embedded(seed=1)("hi").pipe(share())
    shared.subscribe(careless)
    shared.subscribe(heard.append, None, over.set)
    await asyncio.wait_for(over.wait(), TIMEOUT)
    assert ["careless"] == [str(error) for error in blamed]
    assert len(heard) > 1


async def test_shared_request_has_its_own_gate_and_tasks():
    """Its loop, context and run are those of the first subscriber."""
    seen = []

    class Probe(LLM):
        async def chunks(self, request):
            yield "a"

    def note(source):
        def subscribe(observer, scheduler=None):
            seen.append(scheduler)
            return source.subscribe(observer, scheduler=scheduler)

        return rx.create(subscribe)

    scheduler = Scheduler(asyncio.get_running_loop())
    over = asyncio.Event()
    Probe()("x").pipe(note, share()).subscribe(lambda _: None, None, over.set, scheduler=scheduler)
    await asyncio.wait_for(over.wait(), TIMEOUT)
    (above,) = seen
    assert (scheduler.loop, scheduler.context, scheduler.observation) == (above.loop, above.context, above.observation)
    assert above.gate is not scheduler.gate
    assert above.lifetime.tasks is not scheduler.lifetime.tasks


async def test_shared_request_belongs_to_the_first_subscribers_run():
    """So a meter counts it once."""
    meter = rxllm.UsageMeter()
    shared = rxllm.Embedded(seed=1)("hi").pipe(share())
    either = rxllm.pipe(lambda _: shared).with_config(handlers=[meter])
    await asyncio.gather(either.ainvoke("x"), either.ainvoke("y"))
    assert 1 == meter.requests


class _Ends:
    """An observer without reactivex's guard, which records each end."""

    def __init__(self):
        self.heard = []

    def on_next(self, value):
        """Ignores the value."""

    def on_error(self, error):
        """Records the error."""
        self.heard.append("failed")

    def on_completed(self):
        """Records the completion."""
        self.heard.append("completed")


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_reader_gets_one_end(end):
    """Also from a source that ends during the subscription."""
    scheduler, observer = VirtualTimeScheduler(), _Ends()
    failure = ValueError("no")
    source = rx.create(lambda to, _: to.on_completed() if end == "completed" else to.on_error(failure))
    connect(share()(source), observer, scheduler)
    scheduler.start()
    assert [end] == observer.heard


async def test_exception_around_a_shared_source_reaches_the_readers():
    """It is not reported to the loop's exception handler as well."""

    def raising(source):
        def subscribe(observer, scheduler):
            return source.subscribe(lambda _: 1 / 0, observer.on_error, observer.on_completed, scheduler=scheduler)

        return rx.create(subscribe)

    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    stream = rxllm.from_iter(["a"]).pipe(raising, share(), rxllm.astream())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(anext(stream), TIMEOUT)
    assert [] == reported


@pytest.mark.parametrize("ending", ["cancelled", "closed"])
def test_end_of_the_first_loop_errors_readers_on_other_loops(ending):
    """The next subscriber makes a new request."""
    asked = []

    class Slow(LLM):
        async def chunks(self, request):
            asked.append(request)
            yield "a"
            if len(asked) == 1:
                await asyncio.Event().wait()

    shared = Slow()("x").pipe(rxllm.text(), share())
    first = asyncio.new_event_loop()

    async def begin():
        stream = shared.pipe(rxllm.astream())
        await anext(stream)
        return stream

    beginning = first.run_until_complete(begin())
    second = shared.pipe(rxllm.stream())
    assert "a" == next(second)
    if ending == "cancelled":
        for task in asyncio.all_tasks(first):
            task.cancel()
        first.run_until_complete(asyncio.sleep(0))
    first.close()
    assert "a" == shared.pipe(rxllm.stream()).__next__()
    with pytest.raises(rxllm.Interrupted, match="event loop of its first subscriber"):
        next(second)
    assert 2 == len(asked)
    del beginning
    gc.collect()
