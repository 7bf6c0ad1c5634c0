"""The parts of the engine: schedulers, sources, threads, and loop-local objects."""

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
from rxllm import LLM, Chunk, Interrupted, MisuseError
from rxllm.runtime.executor import DaemonExecutor
from rxllm.runtime.lifetime import settled
from rxllm.runtime.loop_local import loop_local
from rxllm.runtime.portal import portal
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source, source
from rxllm.runtime.threads import Worker, in_thread, pull
from rxllm.testing import FakeServer, Reply, Signal

HELLO = Reply(Chat().stream(["Hel", "lo"]))


class Recorder:
    """An observer that records what it gets, and that a test can wait for."""

    def __init__(self):
        self.events = []
        self.ended = Signal()

    def on_next(self, value):
        """Record an item."""
        self.events.append(value)

    def on_error(self, error):
        """Record the class of the error, and the end."""
        self.events.append(type(error))
        self.ended.set()

    def on_completed(self):
        """Record the end."""
        self.events.append("|")
        self.ended.set()


@pytest.fixture
async def reported():
    """The errors that the running loop's exception handler gets."""
    told = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.put_nowait(context["exception"]))
    return told


# ── schedulers ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_scheduler_uses_the_running_loop_or_the_background_loop():
    """`scheduler()` uses the running loop; without one, the background loop."""
    given = rxllm.scheduler()
    assert given.loop is asyncio.get_running_loop()
    assert given is rxllm.scheduler(given)
    assert portal() is await asyncio.to_thread(lambda: rxllm.scheduler().loop)


def test_actions_of_other_threads_run_on_the_loop():
    """Any thread may schedule an action and dispose of it; a disposed action does not run."""
    scheduler = rxllm.scheduler()
    released, done, ran = Signal(), Signal(), []

    def note(name):
        return lambda *_: ran.append((name, threading.current_thread().name))

    scheduler.schedule(lambda *_: released.wait())  # blocks the loop, so that the dispose is in time
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


def test_disposed_action_leaves_the_loop():
    """Disposing removes the timer from the loop."""
    scheduler = rxllm.scheduler()
    first, done, ran = Signal(), Signal(), []
    late = scheduler.schedule_relative(0.02, lambda *_: ran.append("late"))
    scheduler.schedule(lambda *_: first.set())
    first.wait()
    late.dispose()
    scheduler.schedule_relative(0.04, lambda *_: done.set())
    done.wait()
    assert [] == ran


def test_time_operators_start_no_timer_threads():
    """With `scheduler()`, operators that count time run on the background loop."""
    keys, received, done = Subject(), [], Signal()

    def hear(key):
        received.append((key, threading.current_thread().name))
        done.set()

    before = set(threading.enumerate())
    subscription = keys.pipe(ops.debounce(0.02), ops.timeout(60)).subscribe(hear, scheduler=rxllm.scheduler())
    for key in "abc":
        keys.on_next(key)
    assert set() == {thread for thread in set(threading.enumerate()) - before if thread.name != "rxllm-portal"}
    done.wait()
    subscription.dispose()
    assert [("c", "rxllm-portal")] == received


@pytest.mark.parametrize("stage", [rxllm.Embedded(), rxllm.OpenAI("m", base_url="http://127.0.0.1:1")])
def test_virtual_time_sends_misuse_to_the_subscriber(stage):
    """A virtual-time scheduler has no event loop: `on_error` gets a MisuseError, and `subscribe` raises nothing."""
    received = Recorder()
    stage("p").subscribe(received, scheduler=TestScheduler())
    received.ended.wait()
    assert [MisuseError] == received.events


@pytest.mark.parametrize("kind", [AsyncIOScheduler, AsyncIOThreadSafeScheduler])
async def test_loop_of_a_plain_asyncio_scheduler_is_used(kind):
    """A stream runs on that loop, also if another thread subscribes."""
    received, loops = Recorder(), []
    loop = asyncio.get_running_loop()
    answer = rxllm.Embedded()("p").pipe(ops.do_action(lambda _: loops.append(asyncio.get_running_loop())))
    thread = threading.Thread(target=lambda: answer.subscribe(received, scheduler=kind(loop)))
    thread.start()
    await received.ended.soon()
    thread.join()
    assert {loop} == set(loops)


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_source_emits_items_and_one_end():
    """Each of two subscriptions gets all items, then one terminal event."""

    async def items(_):
        yield 1
        yield 2

    received = Recorder(), Recorder()
    for one in received:
        source(items).subscribe(one)
    for one in received:
        await one.ended.soon()
        assert [1, 2, "|"] == one.events


@pytest.mark.parametrize("error", [ValueError, asyncio.TimeoutError, StopIteration, SystemExit])
def test_failure_of_a_source_reaches_a_plain_loop(error):
    """The loop raises what the source raised, also a BaseException, and does not hang."""

    async def items(_):
        yield 1
        raise error

    stream = source(items).pipe(rxllm.stream())
    assert 1 == next(stream)
    with pytest.raises(RuntimeError if error is StopIteration else error):
        next(stream)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration])
def test_failure_of_a_blocking_call_reaches_a_plain_loop(error):
    """The loop raises what a provider's thread raised, also a BaseException, and does not hang."""

    class Failing(LLM):
        def complete(self, request):
            raise error

    expected = {asyncio.CancelledError: Interrupted, StopIteration: RuntimeError}.get(error, error)
    with pytest.raises(expected):
        Failing().invoke("p")


async def _cancelled():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


class _Blocking(LLM):
    def complete(self, request):
        return asyncio.run(_cancelled())


class _BlockingStream(LLM):
    def chunks(self, request):
        yield Chunk("a")
        asyncio.run(_cancelled())


@pytest.mark.parametrize("llm", [_Blocking(), _BlockingStream()])
def test_cancellation_inside_a_blocking_function_is_interrupted(llm):
    """The function's own event loop was cancelled. The message does not say that the loop of the stream ended."""
    with pytest.raises(Interrupted, match="A blocking function raised CancelledError, so its result") as caught:
        llm.invoke("p")
    assert caught.value.retryable


def test_cancellation_inside_a_source_is_interrupted():
    """If something that a provider awaits is cancelled, the answer fails with a retryable Interrupted."""

    class Cancelling(LLM):
        async def complete(self, request):
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future

    with pytest.raises(Interrupted) as caught:
        Cancelling().invoke("p")
    assert caught.value.retryable


def raising(items):
    """An operator with a bug: it raises in `on_next` or during `subscribe`."""
    return Observable(
        lambda observer, scheduler=None: items.subscribe(
            lambda _: 1 / 0, observer.on_error, observer.on_completed, scheduler=scheduler
        )
    )


def test_exception_of_an_operator_ends_a_plain_loop():
    """The loop raises it; otherwise it would wait for ever."""
    with pytest.raises(ZeroDivisionError):
        list(rxllm.Embedded()("p").pipe(raising, rxllm.stream()))


async def test_exception_of_an_operator_ends_an_async_loop(reported):
    """The loop raises it, and the event loop's exception handler does not get it as well."""
    with pytest.raises(ZeroDivisionError):
        [item async for item in rxllm.Embedded()("p").pipe(raising, rxllm.astream())]
    assert 0 == reported.qsize()


def test_exception_of_an_operator_closes_all_requests():
    """All requests of the broken graph are closed."""
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


async def test_exception_of_a_subscriber_reaches_the_exception_handler(reported):
    """The loop's handler gets it from `on_next`, from `on_completed`, and for a missing `on_error`."""

    async def items(_):
        yield 1
        yield 2  # not emitted to a subscriber that has raised

    async def failing(_):
        raise ValueError
        yield

    errors = []
    source(items).subscribe(lambda _: 1 / 0, errors.append)
    assert ZeroDivisionError is type(await reported.get())
    source(items).subscribe(on_error=errors.append, on_completed=lambda: 1 / 0)
    assert ZeroDivisionError is type(await reported.get())
    source(failing).subscribe(lambda _: None)
    assert ValueError is type(await reported.get())
    assert ([], 0) == (errors, reported.qsize())


async def test_exception_while_closing_reaches_the_exception_handler(reported):
    """The subscriber has disposed, so the loop's exception handler gets it."""

    async def items(_):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            raise ValueError

    received = asyncio.Event()
    subscription = source(items).subscribe(lambda _: received.set())
    await received.wait()
    subscription.dispose()
    assert ValueError is type(await reported.get())


async def test_cancelled_task_of_a_source_is_reported_once():
    """The failure handler gets one CancelledError when the loop cancels the task, and none after a dispose."""
    failures = []

    async def items(_):
        await asyncio.Event().wait()
        yield 1

    for cancel in (lambda scheduler, _: [task.cancel() for task in scheduler.lifetime.tasks], lambda _, s: s.dispose()):
        base = Scheduler(asyncio.get_running_loop())
        scheduler = base.evolve(lifetime=base.lifetime.handled_by(lambda error: failures.append(type(error)) or True))
        subscription = source(items).subscribe(scheduler=scheduler)
        await asyncio.sleep(0)
        cancel(scheduler, subscription)
        await settled(scheduler.lifetime.tasks)
    assert [asyncio.CancelledError] == failures


async def test_dispose_closes_the_generator_on_its_loop():
    """The generator's `finally` runs on its loop, a second dispose does nothing, and nothing is emitted after it."""
    closed, received, waiting = asyncio.Event(), Recorder(), asyncio.Event()

    async def items(_):
        try:
            yield 1
            waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    scheduler = Scheduler(asyncio.get_running_loop())
    subscription = source(items).subscribe(received, scheduler=scheduler)
    await waiting.wait()
    subscription.dispose()
    subscription.dispose()
    await settled(scheduler.lifetime.tasks)
    assert closed.is_set()
    assert [1] == received.events


async def test_subscription_disposed_at_once_never_starts():
    """Also if another thread subscribes and disposes before the loop has run."""
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


def test_iterating_an_observable_raises_misuse():
    """A plain Observable would yield Observables for ever; the error names the right form."""
    with pytest.raises(MisuseError, match=r"llm\.stream\(prompt\)"):
        iter(rxllm.Embedded()("p"))


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_worker_makes_its_calls_in_one_thread():
    """The calls run in turn in a daemon thread, which ends after `close`."""
    scheduler = Scheduler(asyncio.get_running_loop())
    worker = Worker(scheduler.loop, scheduler.context)
    threads = [await worker.call(threading.current_thread) for _ in range(3)]
    assert [threads[0]] * 3 == threads
    assert threads[0].daemon
    assert threads[0] is not threading.current_thread()
    worker.close(lambda: None)
    threads[0].join(2)
    assert not threads[0].is_alive()


async def test_stop_iteration_in_a_thread_is_a_runtime_error():
    """A future cannot hold StopIteration, so it becomes RuntimeError, as in a generator."""
    scheduler = Scheduler(asyncio.get_running_loop())

    def exhausted():
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(scheduler, exhausted)


async def test_result_of_a_cancelled_call_is_dropped():
    """A blocking call that ends after its caller was cancelled raises nothing."""
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


async def test_generator_runs_in_one_thread():
    """A generator with a cursor, a file or a lock is advanced and closed in one thread."""
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

    items = pull(scheduler, numbers)
    assert [0, 1, 2] == [await anext(items) for _ in range(3)]
    await items.aclose()
    await closed.soon()
    assert [threads[0]] * 4 == threads
    assert threading.get_ident() not in threads


def test_thread_that_outlives_its_loop_logs_nothing():
    """A blocking call that ends after its loop was closed raises and logs nothing."""
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


# ── loop-local objects ────────────────────────────────────────────────────────────────────────────────────────────


def test_loop_local_object_is_made_once_and_closed_with_its_loop():
    """There is one object for each loop and key; it is closed on the loop, before the loop is."""
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


def test_object_of_a_loop_closed_without_shutdown_is_dropped():
    """The next call drops the objects of a loop that was closed without `shutdown_asyncgens`."""
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


def test_custom_llm_answers_alike_in_sync_and_async():
    """The same prompt and seed give the same text synchronously and asynchronously."""
    llm = rxllm.Embedded().bind(seed=7)

    async def asynchronous():
        return [str(chunk) async for chunk in llm.astream("p")], str(await llm.ainvoke("p"))

    assert ([str(chunk) for chunk in llm.stream("p")], str(llm.invoke("p"))) == asyncio.run(asynchronous())


async def test_dispose_during_the_terminal_event_cancels_nothing():
    """A subscription that ends by itself is not cancelled, though reactivex disposes of it at that moment."""
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

atexit.register(names)  # registered before rxllm's exit function, so it is called after that
stream = Waiting().stream("hi")
print(next(stream), flush=True)
names()
"""


def test_background_loop_is_stopped_when_the_program_ends():
    """It closes the open streams, and its thread ends before the interpreter is finalised."""
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=100, check=False)
    assert (0, "begun\nTrue\nclosed\nFalse\n", "") == (done.returncode, done.stdout, done.stderr)


def test_exception_while_subscribing_reaches_on_error():
    """The subscriber gets it once and `subscribe` does not raise; after the end, `subscribe` raises it."""
    failure, received = ValueError("no"), []

    def fails(observer, scheduler):
        raise failure

    def ends_and_fails(observer, scheduler):
        observer.on_completed()
        raise failure

    Source(fails).subscribe(on_error=received.append)
    assert [failure] == received
    with pytest.raises(ValueError, match="no"):
        Source(ends_and_fails).subscribe(on_error=received.append)
    assert [failure] == received


def test_a_call_without_any_thread_raises_and_waits_for_a_busy_one_otherwise(monkeypatch):
    """If no further thread can be started, a thread that exists takes the call later."""

    def fail():
        raise RuntimeError("can't start new thread")

    executor = DaemonExecutor()
    monkeypatch.setattr(executor, "_add_thread", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        executor.submit(int)
    executor._threads.add(threading.current_thread())
    assert not executor.submit(int).done()
