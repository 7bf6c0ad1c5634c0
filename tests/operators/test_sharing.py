"""`share`: one request, one log, and a place in it for each."""

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
    """Subscribes after some virtual seconds; gives what leaves again."""
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


def test_a_late_subscriber_hears_all_from_the_beginning():
    """What came at once, and the rest as it comes; of one request."""
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


def test_the_last_one_out_closes():
    """Whoever leaves before hurts nobody, and who comes after that asks anew."""
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


def test_a_failure_is_everybodys_and_is_not_kept():
    """All hear what came before it; the next who asks asks anew."""
    scheduler, first, second, third = VirtualTimeScheduler(), [], [], []
    shared = MarbleLLM(["-a-#", "-A|"], error=Interrupted("cut"))("hi").pipe(share())
    later(scheduler, 0, shared, first)
    later(scheduler, 2, shared, second)
    later(scheduler, 10, shared, third)
    scheduler.start()
    assert [(1, "a"), (3, Interrupted)] == first
    assert [(2, "a"), (3, Interrupted)] == second
    assert [(11, "A"), (12, "|")] == third


def test_what_is_whole_stays_so():
    """Whatever an operator above says after the end, such as a `deadline` that passes, is about nothing."""
    scheduler, first, second = VirtualTimeScheduler(), [], []
    llm = MarbleLLM("-a-b|")
    shared = llm("hi").pipe(rxllm.deadline(8), share())
    later(scheduler, 0, shared, first)
    later(scheduler, 10, shared, second)
    scheduler.start()
    assert [(1, "a"), (3, "b"), (4, "|")] == first
    assert [(10, "a"), (10, "b"), (10, "|")] == second
    assert 1 == len(llm.requests)


def test_nothing_is_kept_after_the_end():
    """A source without manners adds nothing to what is replayed."""
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


async def test_what_an_operator_ends_by_itself_closes_the_request():
    """A model that says nothing more is paid for until somebody leaves it."""
    with FakeServer(Reply([HEL, End.HANG])) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k")
        shared = llm("hi").pipe(rxllm.idle_timeout(0.01), share())
        with pytest.raises(rxllm.Timeout):
            async for _ in shared.pipe(rxllm.astream()):
                pass
        await server.exchange().closed_soon()


@pytest.mark.parametrize("end", [("on_completed",), ("on_error", ValueError("cut"))])
async def test_subscribers_hear_on_their_loop_whatever_thread_speaks(end):
    """An item as well as the end."""
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


def test_no_item_of_another_thread_is_lost(switching):
    """It may come in any moment, also in that in which a reader finds nothing more."""
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
    """All that comes."""
    return [item async for item in items]


@pytest.fixture
def switching():
    """Threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_one_who_takes_little_leaves_at_once():
    """Also while it is subscribed to, when all is there already."""
    llm = MarbleLLM("(a,b,c)|")
    shared = llm("hi").pipe(share())
    assert [(0, "a"), (0, "b"), (0, "c"), (7, "|")] == moments(shared)
    assert [(0, "a"), (0, "|")] == moments(shared.pipe(ops.take(1)))
    assert 1 == len(llm.requests)


@given(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 12)), min_size=1, max_size=50))
def test_any_who_come_and_go_hear_one_answer(visits):
    """Each a beginning of it, and the whole if it stays."""
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


async def test_fifty_on_a_loop_hear_one_request():
    """Over real HTTP, with subscribers that come and go at random."""
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


async def test_one_slow_reader_does_not_slow_the_others():
    """It has its place in the log; the source waits only when all are full."""
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


async def test_the_source_waits_when_all_are_full():
    """And goes on when one has room."""
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


def test_a_full_reader_that_leaves_does_not_hold_the_source():
    """The others go on; and a source whose readers are all gone is closed, not paused."""

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


def test_readers_on_other_loops_and_in_threads():
    """Each on its own; the request is the first one's."""
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


def test_when_the_first_ones_loop_ends_the_others_hear_it():
    """They would wait for ever."""
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


async def test_a_reader_that_raises_leaves_alone():
    """Its exception goes to the loop; the others hear on."""
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


async def test_the_scheduler_goes_up_but_for_pace_and_end():
    """Loop, context and run are the first one's; the gate and the tasks are the shared request's own."""
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


async def test_events_of_a_shared_request_are_the_first_ones():
    """So that a meter counts it once."""
    meter = rxllm.UsageMeter()
    shared = rxllm.Embedded(seed=1)("hi").pipe(share())
    either = rxllm.pipe(lambda _: shared).with_config(handlers=[meter])
    await asyncio.gather(either.ainvoke("x"), either.ainvoke("y"))
    assert 1 == meter.requests


class _Ends:
    """An observer without reactivex's guard: it notes each end that it hears."""

    def __init__(self):
        self.heard = []

    def on_next(self, value):
        """Hears a value."""

    def on_error(self, error):
        """Hears a failure."""
        self.heard.append("failed")

    def on_completed(self):
        """Hears the end."""
        self.heard.append("completed")


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_reader_hears_one_end(end):
    """Of a source that ends while it is subscribed to, too."""
    scheduler, observer = VirtualTimeScheduler(), _Ends()
    failure = ValueError("no")
    source = rx.create(lambda to, _: to.on_completed() if end == "completed" else to.on_error(failure))
    connect(share()(source), observer, scheduler)
    scheduler.start()
    assert [end] == observer.heard


async def test_error_around_a_shared_source_is_heard_and_not_reported():
    """What an operator raises where reactivex has no place for it reaches the readers, and nobody else."""

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
def test_readers_on_other_loops_hear_that_the_first_loop_ended(ending):
    """The request ends with the loop of its first subscriber; the next subscriber asks anew."""
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
