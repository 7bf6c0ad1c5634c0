"""The engine's own parts: schedulers, sources, threads, and what each loop has one of."""

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
import reactivex as rx
from protocols import Chat
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler.eventloop import AsyncIOScheduler, AsyncIOThreadSafeScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

import rxllm
from rxllm import LLM, Interrupted, MisuseError
from rxllm.runtime.lifetime import settled
from rxllm.runtime.loop_local import loop_local
from rxllm.runtime.portal import portal
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source, source
from rxllm.runtime.threads import Worker, in_thread, pull
from rxllm.testing import FakeServer, Reply, Signal

HELLO = Reply(Chat().stream(["Hel", "lo"]))


class Heard:
    """An observer that remembers, and can be waited for."""

    def __init__(self):
        self.events = []
        self.ended = Signal()

    def on_next(self, value):
        """Remembers an item."""
        self.events.append(value)

    def on_error(self, error):
        """Remembers the error's class, and ends."""
        self.events.append(type(error))
        self.ended.set()

    def on_completed(self):
        """Ends."""
        self.events.append("|")
        self.ended.set()


@pytest.fixture
async def blamed():
    """What the running loop's exception handler is told."""
    told = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.put_nowait(context["exception"]))
    return told


# ── schedulers ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_running_loop_is_taken_and_else_the_portal():
    """`scheduler()` is the running loop's; where none runs, the portal's."""
    given = rxllm.scheduler()
    assert given.loop is asyncio.get_running_loop()
    assert given is rxllm.scheduler(given)
    assert portal() is await asyncio.to_thread(lambda: rxllm.scheduler().loop)


def test_another_thread_may_schedule_and_dispose():
    """Actions run on the scheduler's loop, whoever scheduled them; who is disposed of does not run."""
    scheduler = rxllm.scheduler()
    released, done, ran = Signal(), Signal(), []

    def note(name):
        return lambda *_: ran.append((name, threading.current_thread().name))

    scheduler.schedule(lambda *_: released.wait())  # the loop stands still, so that nothing is too late
    for disposed in (scheduler.schedule(note("never")), scheduler.schedule_relative(0.001, note("never"))):
        disposed.dispose()
        disposed.dispose()
    released.set()
    scheduler.schedule(note("at once"))
    scheduler.schedule_relative(0.01, note("in seconds"))
    scheduler.schedule_relative(timedelta(milliseconds=20), note("in a timedelta"))
    scheduler.schedule_absolute(scheduler.now + timedelta(milliseconds=30), note("at a time"))
    scheduler.schedule_relative(0.04, lambda *_: done.set())
    done.wait()
    names = ["at once", "in seconds", "in a timedelta", "at a time"]
    assert [(name, "rxllm-portal") for name in names] == ran


def test_what_was_scheduled_can_be_disposed_while_it_waits():
    """The timer is taken from the loop."""
    scheduler = rxllm.scheduler()
    first, done, ran = Signal(), Signal(), []
    late = scheduler.schedule_relative(0.02, lambda *_: ran.append("late"))
    scheduler.schedule(lambda *_: first.set())
    first.wait()
    late.dispose()
    scheduler.schedule_relative(0.04, lambda *_: done.set())
    done.wait()
    assert [] == ran


def test_time_operators_run_on_the_portal():
    """With `scheduler()` the operators that count time start no Timer threads."""
    keys, heard, done = Subject(), [], Signal()

    def hear(key):
        heard.append((key, threading.current_thread().name))
        done.set()

    before = set(threading.enumerate())
    subscription = keys.pipe(ops.debounce(0.02), ops.timeout(60)).subscribe(hear, scheduler=rxllm.scheduler())
    for key in "abc":
        keys.on_next(key)
    assert set() == {thread for thread in set(threading.enumerate()) - before if thread.name != "rxllm-portal"}
    done.wait()
    subscription.dispose()
    assert [("c", "rxllm-portal")] == heard


@pytest.mark.parametrize("stage", [rxllm.Embedded(), rxllm.OpenAI("m", base_url="http://127.0.0.1:1")])
def test_virtual_time_is_refused(stage):
    """A virtual-time scheduler has no loop: the subscriber hears a MisuseError, nothing is raised at the caller."""
    heard = Heard()
    stage("p").subscribe(heard, scheduler=TestScheduler())
    heard.ended.wait()
    assert [MisuseError] == heard.events


@pytest.mark.parametrize("kind", [AsyncIOScheduler, AsyncIOThreadSafeScheduler])
async def test_a_plain_asyncio_schedulers_loop_is_taken(kind):
    """Also from a thread that runs no loop."""
    heard, loops = Heard(), []
    loop = asyncio.get_running_loop()
    answer = rxllm.Embedded()("p").pipe(ops.do_action(lambda _: loops.append(asyncio.get_running_loop())))
    thread = threading.Thread(target=lambda: answer.subscribe(heard, scheduler=kind(loop)))
    thread.start()
    await heard.ended.soon()
    thread.join()
    assert {loop} == set(loops)


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_source_speaks_the_grammar():
    """Items, then one end; two subscriptions are two runs."""

    async def items(_):
        yield 1
        yield 2

    heard = Heard(), Heard()
    for one in heard:
        source(items).subscribe(one)
    for one in heard:
        await one.ended.soon()
        assert [1, 2, "|"] == one.events


@pytest.mark.parametrize("error", [ValueError, asyncio.TimeoutError, StopIteration, SystemExit])
def test_a_failing_source_tells_whoever_waits(error):
    """What a source raises reaches a plain loop, even what is no Exception; none waits for ever."""

    async def items(_):
        yield 1
        raise error

    stream = source(items).pipe(rxllm.stream())
    assert 1 == next(stream)
    with pytest.raises(RuntimeError if error is StopIteration else error):
        next(stream)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration])
def test_a_failing_blocking_call_tells_whoever_waits(error):
    """The same of a provider's thread."""

    class Failing(LLM):
        def complete(self, request):
            raise error

    expected = {asyncio.CancelledError: Interrupted, StopIteration: RuntimeError}.get(error, error)
    with pytest.raises(expected):
        Failing().invoke("p")


def test_a_source_that_is_cancelled_from_within_is_interrupted():
    """If what a provider waits for is cancelled, nobody left: the answer has failed, and may be tried again."""

    class Cancelling(LLM):
        async def complete(self, request):
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future

    with pytest.raises(Interrupted) as caught:
        Cancelling().invoke("p")
    assert caught.value.retryable


def raising(items):
    """An operator with a bug, which raises where it should not."""
    return Observable(
        lambda observer, scheduler=None: items.subscribe(
            lambda _: 1 / 0, observer.on_error, observer.on_completed, scheduler=scheduler
        )
    )


def test_an_operators_bug_reaches_a_plain_loop():
    """What an operator raises instead of passing it on ends the loop, which would wait for ever."""
    with pytest.raises(ZeroDivisionError):
        list(rxllm.Embedded()("p").pipe(raising, rxllm.stream()))


async def test_an_operators_bug_reaches_an_async_loop(blamed):
    """The same, and the loop's exception handler is not told, too."""
    with pytest.raises(ZeroDivisionError):
        [item async for item in rxllm.Embedded()("p").pipe(raising, rxllm.astream())]
    assert 0 == blamed.qsize()


def test_an_operators_bug_closes_all_requests():
    """All that the broken graph had asked is left."""
    events = Chat().stream(["Hel"])
    with FakeServer(Reply([events[1], Signal()])) as server:
        llm = rxllm.OpenAI("m", base_url=server.url)
        both = rx.merge(llm("a"), llm("b").pipe(ops.skip(1))).pipe(
            ops.do_action(lambda _: None), lambda items: raising(items)
        )
        with pytest.raises(ZeroDivisionError):
            list(both.pipe(rxllm.stream()))
        for exchange in server.exchanges:
            exchange.wait_closed()


async def test_a_raising_subscriber_is_blamed(blamed):
    """At an item, at the end, and where there is no on_error: the loop's exception handler hears of it."""

    async def items(_):
        yield 1
        yield 2  # not heard any more by whoever has raised

    async def failing(_):
        raise ValueError
        yield

    errors = []
    source(items).subscribe(lambda _: 1 / 0, errors.append)
    assert ZeroDivisionError is type(await blamed.get())
    source(items).subscribe(on_error=errors.append, on_completed=lambda: 1 / 0)
    assert ZeroDivisionError is type(await blamed.get())
    source(failing).subscribe(lambda _: None)
    assert ValueError is type(await blamed.get())
    assert ([], 0) == (errors, blamed.qsize())


async def test_a_source_that_fails_while_it_is_closed_is_blamed(blamed):
    """Nobody hears it any more, but it is not lost."""

    async def items(_):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            raise ValueError

    heard = asyncio.Event()
    subscription = source(items).subscribe(lambda _: heard.set())
    await heard.wait()
    subscription.dispose()
    assert ValueError is type(await blamed.get())


async def test_disposing_closes_where_it_stands():
    """The generator's `finally` runs on its loop; disposing twice is once; nothing is heard after."""
    closed, heard, waiting = asyncio.Event(), Heard(), asyncio.Event()

    async def items(_):
        try:
            yield 1
            waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    scheduler = Scheduler(asyncio.get_running_loop())
    subscription = source(items).subscribe(heard, scheduler=scheduler)
    await waiting.wait()
    subscription.dispose()
    subscription.dispose()
    await settled(scheduler.lifetime.tasks)
    assert closed.is_set()
    assert [1] == heard.events


async def test_who_is_disposed_at_once_never_starts():
    """Not even from another thread, before the loop has heard of it."""
    started = []

    async def items(_):
        started.append(None)
        yield 1

    scheduler = Scheduler(asyncio.get_running_loop())
    kept = []
    thread = threading.Thread(
        target=lambda: (
            source(items).subscribe(scheduler=scheduler).dispose(),
            kept.append(source(items).subscribe(scheduler=scheduler)),
        )
    )
    thread.start()
    thread.join()
    kept.pop().dispose()
    source(items).subscribe(scheduler=scheduler).dispose()
    await asyncio.sleep(0)
    await settled(scheduler.lifetime.tasks)
    assert [] == started


def test_an_observable_is_no_iterable():
    """As one it would yield Observables for ever; the sentence names what is meant."""
    with pytest.raises(MisuseError, match=r"llm\.stream\(prompt\)"):
        iter(rxllm.Embedded()("p"))


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_does_its_calls_in_one_thread():
    """One after another, in a daemon thread that ends when it is closed."""
    scheduler = Scheduler(asyncio.get_running_loop())
    worker = Worker(scheduler.loop, scheduler.context)
    threads = [await worker.call(threading.current_thread) for _ in range(3)]
    assert [threads[0]] * 3 == threads
    assert threads[0].daemon
    assert threads[0] is not threading.current_thread()
    worker.close(lambda: None)
    threads[0].join(2)
    assert not threads[0].is_alive()


async def test_stop_iteration_in_a_thread_is_an_error():
    """It can't be set on a future, so it becomes what generators make of it."""
    scheduler = Scheduler(asyncio.get_running_loop())

    def exhausted():
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(scheduler, exhausted)


async def test_who_does_not_wait_any_more_is_not_told():
    """A blocking call that ends after its caller has left disturbs nobody."""
    scheduler = Scheduler(asyncio.get_running_loop())
    begun, released, ended = Signal(), Signal(), Signal()

    def block():
        begun.set()
        released.wait()
        scheduler.loop.call_soon_threadsafe(ended.set)

    call = asyncio.create_task(in_thread(scheduler, block))
    await begun.soon()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    released.set()
    await ended.soon()


async def test_a_generator_is_advanced_and_closed_in_one_thread():
    """A cursor, a file or a lock in a generator stays in the thread that opened it."""
    scheduler = Scheduler(asyncio.get_running_loop())
    threads, closed = [], Signal()

    def numbers():
        try:
            for number in range(10):
                threads.append(threading.get_ident())
                yield number
        finally:
            threads.append(threading.get_ident())
            closed.set()

    items = pull(Worker(scheduler.loop, scheduler.context), numbers)
    assert [0, 1, 2] == [await anext(items) for _ in range(3)]
    await items.aclose()
    await closed.soon()
    assert [threads[0]] * 4 == threads
    assert threading.get_ident() not in threads


def test_a_thread_outlives_its_loop_quietly():
    """A blocking call that ends after its loop was closed complains of nothing."""
    begun, released = Signal(), Signal()
    threads = []

    class Blocking(LLM):
        def complete(self, request):
            threads.append(threading.current_thread())
            begun.set()
            released.wait()
            return "late"

    async def leave():
        task = asyncio.create_task(Blocking().ainvoke("p"))
        await begun.soon()
        task.cancel()

    asyncio.run(leave())
    released.set()
    threads[0].join(2)
    assert not threads[0].is_alive()


# ── one object a loop ────────────────────────────────────────────────────────────────────────────────────────────


def test_each_loop_has_one_and_closes_it():
    """Made once a loop and key, on it; closed on it, before it is."""
    made, closed = [], []

    async def close(value):
        await asyncio.sleep(0)
        closed.append((value, asyncio.get_running_loop()))

    def make():
        made.append(object())
        return made[-1]

    async def use():
        values = await asyncio.gather(*(loop_local("key", make, close) for _ in range(5)))
        other = await loop_local("other key", make, close)
        assert {made[-2]} == set(values)
        assert other is made[-1]
        return asyncio.get_running_loop()

    loops = [asyncio.run(use()) for _ in range(3)]
    assert 6 == len(made)
    assert set(made) == {value for value, _ in closed}
    assert loops == [loop for value, loop in closed if value in made[::2]]


def test_a_loop_that_was_never_tidied_leaves_nothing():
    """Of a loop that was closed without `shutdown_asyncgens` nothing is kept, once another asks."""
    made = []

    async def close(_):
        """Can't run: the loop is closed."""

    async def use():
        await loop_local("untidy", lambda: made.append(None), close)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    asyncio.run(use())
    assert 2 == len(made)


def test_an_llm_of_ones_own_is_the_same_in_both_worlds():
    """The same prompt and seed give the same text, synchronously and asynchronously."""
    llm = rxllm.Embedded().bind(seed=7)

    async def asynchronous():
        return [str(chunk) async for chunk in llm.astream("p")], str(await llm.ainvoke("p"))

    assert ([str(chunk) for chunk in llm.stream("p")], str(llm.invoke("p"))) == asyncio.run(asynchronous())


async def test_leaving_while_hearing_the_end_cancels_nothing():
    """A subscription that has ended by itself is not cancelled, though reactivex disposes it right then."""
    cancellations = []
    heard_the_end = asyncio.Event()

    def ended():
        subscription.dispose()
        cancellations.append(asyncio.current_task().cancelling())
        heard_the_end.set()

    subscription = rxllm.from_iter(["a"]).subscribe(on_completed=ended)
    await asyncio.wait_for(heard_the_end.wait(), 5)
    assert [0] == cancellations


LEFT_OPEN = """
import asyncio, atexit, threading, rxllm

class Waiting(rxllm.LLM):
    async def chunks(self, request):
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            print("closed", flush=True)

def names():
    print("rxllm-portal" in [thread.name for thread in threading.enumerate()], flush=True)

atexit.register(names)  # before rxllm registers its own, so that it is called after that
stream = Waiting().stream("hi")
print(next(stream), flush=True)
names()
"""


def test_background_loop_is_stopped_when_the_program_ends():
    """It closes the streams that are open, and its thread has ended before the interpreter is taken down."""
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=30, check=False)
    assert (0, "begun\nTrue\nclosed\nFalse\n", "") == (done.returncode, done.stdout, done.stderr)


def test_failure_while_subscribing_is_an_error_of_the_stream():
    """It reaches the subscriber, once, and is not raised as well; after the end nobody can hear it, so it is raised."""
    failure, heard = ValueError("no"), []

    def fails(observer, scheduler):
        raise failure

    def ends_and_fails(observer, scheduler):
        observer.on_completed()
        raise failure

    Source(fails).subscribe(on_error=heard.append)
    assert [failure] == heard
    with pytest.raises(ValueError, match="no"):
        Source(ends_and_fails).subscribe(on_error=heard.append)
    assert [failure] == heard
