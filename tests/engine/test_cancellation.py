"""Whoever leaves closes the request at once, whatever way he leaves and whatever operators stand between.

What counts is what the *server* sees: the connection is gone. Each way may be tried three times, and must once be fast:
a busy machine may be late, but not thrice.
"""

import asyncio
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing, closing, suppress
from pathlib import Path

import pytest
import reactivex as rx
from protocols import Chat
from reactivex import operators as ops
from reactivex.subject import Subject

import rxllm
from rxllm import BadRequest, Cancelled, from_iter, observe
from rxllm.testing import End, Endless, FakeServer, Reply, Signal

AT_ONCE = 0.05  # seconds from leaving to the closed connection
TRIES = 3
HEL = Chat().stream(["Hel"])[1]
ENDLESS = Reply([Endless(HEL)])
HANGING = Reply([HEL, End.HANG])
SILENT = Reply([End.HANG])


class Served:
    """An endless server, a model that asks it, and how long the server had to wait until it was left."""

    def __init__(self, server):
        self.server = server
        self.llm = rxllm.OpenAI("m", base_url=server.url)

    @property
    def latest(self):
        """The exchange of the latest request."""
        return self.server.exchanges[-1]

    def closed_at_once(self, leave):
        """Whether `leave`, which gives the moment when it left, closes all that it has opened, once fast enough."""
        return any(self._slowest(leave(), start) < AT_ONCE for start in self._starts())

    async def closed_soon(self, leave):
        """The same for coroutines; and no task is left on the loop."""
        tasks = asyncio.all_tasks()
        for start in self._starts():
            since = await leave()
            for exchange in self.server.exchanges[start:]:
                await exchange.closed.soon()
            fast = self._slowest(since, start) < AT_ONCE
            if left := asyncio.all_tasks() - tasks:
                await asyncio.wait_for(asyncio.wait(left), 2)
            if fast:
                return True
        return False

    def _starts(self):
        for _ in range(TRIES):
            yield len(self.server.exchanges)

    def _slowest(self, since, start):
        return max(exchange.wait_closed(since) for exchange in self.server.exchanges[start:])


@pytest.fixture
def endless():
    """Served without end."""
    with FakeServer(ENDLESS) as server:
        yield Served(server)
        assert server.open_connections == 0


@pytest.fixture
def hanging():
    """Served one chunk, then silence."""
    with FakeServer(HANGING) as server:
        yield Served(server)
        assert server.open_connections == 0


@pytest.fixture
def silent():
    """Served nothing, not even headers."""
    with FakeServer(SILENT) as server:
        yield Served(server)
        assert server.open_connections == 0


def three(llm):
    """A pipeline with three operators behind the model."""
    return rxllm.pipe(llm, rxllm.text(), ops.map(str.upper), ops.filter(bool))


# ── the ways to leave a plain loop ───────────────────────────────────────────────────────────────────────────────


def by_break(llm):
    """The loop is left, and with it goes its iterator."""
    for _ in llm.stream("p"):
        break
    return time.monotonic()


def by_with(llm):
    """The block is left."""
    with llm.stream("p") as chunks:
        next(chunks)
        return time.monotonic()


def by_close(llm):
    """The iterator is closed."""
    chunks = llm.stream("p")
    next(chunks)
    since = time.monotonic()
    chunks.close()
    return since


def by_a_failing_block(llm):
    """The block raises."""
    with suppress(ZeroDivisionError), llm.stream("p") as chunks:
        next(chunks)
        since = time.monotonic()
        raise ZeroDivisionError
    return since


def by_del(llm):
    """The last name of the iterator goes."""
    chunks = llm.stream("p")
    next(chunks)
    since = time.monotonic()
    del chunks
    return since


def by_garbage_collection(llm):
    """The iterator is part of a cycle that nobody knows any more."""
    chunks = llm.stream("p")
    next(chunks)
    cycle = [chunks]
    cycle.append(cycle)
    del chunks, cycle
    gc.collect()
    return time.monotonic()


def by_a_closed_generator(llm):
    """The generator that reads is closed."""

    def texts():
        for chunk in llm.stream("p"):
            yield str(chunk)

    with closing(texts()) as reader:
        next(reader)
        return time.monotonic()


def by_take(llm):
    """An operator has had enough."""
    assert 5 == len(list(llm("p").pipe(ops.take(5), rxllm.stream())))
    return time.monotonic()


def by_a_raising_mapper(llm):
    """An operator's function raises: the consumer hears of it."""
    with pytest.raises(ZeroDivisionError):
        list(llm("p").pipe(ops.map(lambda _: 1 / 0), rxllm.stream()))
    return time.monotonic()


SYNC = [
    by_break,
    by_with,
    by_close,
    by_a_failing_block,
    by_del,
    by_garbage_collection,
    by_a_closed_generator,
    by_take,
    by_a_raising_mapper,
]


@pytest.mark.parametrize("leave", SYNC)
def test_leaving_a_plain_loop_closes_the_request(endless, leave):
    """Whatever way a plain loop is left, the server sees the connection closed at once."""
    assert endless.closed_at_once(lambda: leave(endless.llm))


@pytest.mark.parametrize("leave", SYNC)
def test_leaving_a_plain_loop_over_a_pipeline_closes_the_request(endless, leave):
    """Three operators in between change nothing."""
    assert endless.closed_at_once(lambda: leave(three(endless.llm)))


# ── the ways to leave an asynchronous loop ───────────────────────────────────────────────────────────────────────


async def by_async_break(llm):
    """The loop is left, and with it goes its iterator."""
    async for _ in llm.astream("p"):
        break
    return time.monotonic()


async def by_async_with(llm):
    """The block is left."""
    async with llm.astream("p") as chunks:
        await anext(chunks)
        return time.monotonic()


async def by_aclose(llm):
    """The iterator is closed."""
    chunks = llm.astream("p")
    await anext(chunks)
    since = time.monotonic()
    await chunks.aclose()
    return since


async def by_async_del(llm):
    """The last name of the iterator goes."""
    chunks = llm.astream("p")
    await anext(chunks)
    since = time.monotonic()
    del chunks
    return since


async def by_async_garbage_collection(llm):
    """The iterator is part of a cycle that nobody knows any more."""
    chunks = llm.astream("p")
    await anext(chunks)
    chunks.itself = chunks
    del chunks
    gc.collect()
    return time.monotonic()


async def by_an_aclosed_generator(llm):
    """The generator that reads is closed."""

    async def texts():
        async for chunk in llm.astream("p"):
            yield str(chunk)

    async with aclosing(texts()) as reader:
        await anext(reader)
        return time.monotonic()


async def by_async_take(llm):
    """An operator has had enough."""
    assert 5 == len([item async for item in llm("p").pipe(ops.take(5), rxllm.astream())])
    return time.monotonic()


async def by_a_raising_mapper_in_async(llm):
    """An operator's function raises: the consumer hears of it."""
    with pytest.raises(ZeroDivisionError):
        await anext(llm("p").pipe(ops.map(lambda _: 1 / 0), rxllm.astream()))
    return time.monotonic()


async def by_a_timeout(llm):
    """The loop takes longer than `asyncio.timeout` allows."""
    loop = asyncio.get_running_loop()
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            async for _ in llm.astream("p"):
                limit.reschedule(loop.time())
    assert limit.expired()
    return time.monotonic()


async def cancelled(reading, *, keep=False):
    """Cancels the task of `reading(heard)` once it has set `heard`; gives when."""
    heard = asyncio.Event()
    task = asyncio.create_task(reading(heard))
    await heard.wait()
    since = time.monotonic()
    task.cancel()
    if keep:
        KEPT.append(task)
        await asyncio.wait([task])
    else:
        with pytest.raises(asyncio.CancelledError):
            await task
    return since


KEPT = []


async def by_task_cancel(llm):
    """The task is cancelled; nobody has a name for its iterator."""

    async def reading(heard):
        async for _ in llm.astream("p"):
            heard.set()

    return await cancelled(reading)


async def by_task_cancel_of_a_named_iterator(llm):
    """The task is cancelled; a local variable of its coroutine names the iterator."""

    async def reading(heard):
        chunks = llm.astream("p")
        async for _ in chunks:
            heard.set()

    return await cancelled(reading)


async def by_cancelling_a_kept_task(llm):
    """The cancelled task is kept and never awaited, and its traceback keeps the iterator."""

    async def reading(heard):
        chunks = llm.astream("p")
        async for _ in chunks:
            heard.set()

    return await cancelled(reading, keep=True)


async def by_cancelling_a_kept_task_in_its_body(llm):
    """The same, while it is not the stream that it waits for."""

    async def reading(heard):
        chunks = llm.astream("p")
        async for _ in chunks:
            heard.set()
            await asyncio.Event().wait()

    return await cancelled(reading, keep=True)


ASYNC = [
    by_async_break,
    by_async_with,
    by_aclose,
    by_async_del,
    by_async_garbage_collection,
    by_an_aclosed_generator,
    by_async_take,
    by_a_raising_mapper_in_async,
    by_a_timeout,
    by_task_cancel,
    by_task_cancel_of_a_named_iterator,
    by_cancelling_a_kept_task,
    by_cancelling_a_kept_task_in_its_body,
]


@pytest.mark.parametrize("leave", ASYNC)
async def test_leaving_an_async_loop_closes_the_request(endless, leave):
    """Whatever way an asynchronous loop is left, the server sees the connection closed at once."""
    assert await endless.closed_soon(lambda: leave(endless.llm))


@pytest.mark.parametrize("leave", ASYNC)
async def test_leaving_an_async_loop_over_a_pipeline_closes_the_request(endless, leave):
    """Three operators in between change nothing."""
    assert await endless.closed_soon(lambda: leave(three(endless.llm)))


async def test_cancelling_a_task_closes_a_request_that_hangs(hanging):
    """Nothing need be on its way for a cancelled task to be heard."""
    assert await hanging.closed_soon(lambda: by_task_cancel_of_a_named_iterator(hanging.llm))
    assert await hanging.closed_soon(lambda: by_cancelling_a_kept_task(hanging.llm))


async def test_a_cancelled_answer_closes_its_request(silent):
    """`ainvoke` leaves nothing behind when it is cancelled."""

    async def leave():
        exchange = silent.server.exchange(len(silent.server.exchanges))
        task = asyncio.create_task(silent.llm.ainvoke("p"))
        await exchange.arrived.soon()
        since = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return since

    assert await silent.closed_soon(leave)


async def test_a_timed_out_anext_loses_nothing():
    """`wait_for(anext(…))` that is late leaves the stream alive: the next item still comes."""
    released = Signal()
    hel, lo = Chat().stream(["Hel", "lo"])[1:3]
    with FakeServer(Reply([hel, released, lo, End.HANG])) as server:
        async with rxllm.OpenAI("m", base_url=server.url).astream("p") as chunks:
            assert "Hel" == str(await asyncio.wait_for(anext(chunks), 5))
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(chunks), 0.01)
            released.set()
            assert "lo" == str(await asyncio.wait_for(anext(chunks), 5))


async def test_an_async_loop_that_times_out_closes_its_request_while_the_error_is_kept(hanging):
    """The task lives on and keeps the exception: no frame of its traceback holds the stream."""
    kept = []

    async def leave():
        started = asyncio.Event()
        task = asyncio.current_task()

        async def expire():
            await started.wait()
            task.cancel()

        expiry = asyncio.create_task(expire())
        try:
            async for _ in hanging.llm.astream("p"):
                started.set()
        except asyncio.CancelledError as error:
            kept.append(error)
            task.uncancel()
        await expiry
        return time.monotonic()

    assert await hanging.closed_soon(leave)
    assert kept


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pthread_kill")
@pytest.mark.parametrize("ask", [lambda llm: llm.stream("p"), lambda llm: rxllm.pipe(llm, rxllm.text()).stream("p")])
def test_an_interrupted_loop_closes_its_request_while_the_error_is_kept(ask, hanging):
    """A notebook keeps the traceback of an interrupted cell: no frame of it holds the stream."""
    kept = []

    def leave():
        arrived = queue.SimpleQueue()  # which an interrupt can't divide

        def interrupt():
            arrived.get()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        try:
            for _ in ask(hanging.llm):
                arrived.put(None)
        except KeyboardInterrupt as error:
            kept.append(error)
            since = time.monotonic()
        interrupter.join()
        return since

    assert hanging.closed_at_once(leave)
    assert kept


def test_a_loop_whose_body_raises_closes_its_request_while_the_error_is_kept(endless):
    """The exception may come from anywhere."""
    kept = []

    def leave():
        try:
            for _ in endless.llm.stream("p"):
                raise ValueError("boom")
        except ValueError as error:
            kept.append(error)
        return time.monotonic()

    assert endless.closed_at_once(leave)
    assert kept


# ── disposing ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("served", ["silent", "hanging"])
def test_a_dispose_closes_the_request(served, request):
    """Before the headers as in the middle of the body."""
    served = request.getfixturevalue(served)

    def leave():
        exchange = served.server.exchange(len(served.server.exchanges))
        subscription = served.llm("p").subscribe()
        exchange.arrived.wait()
        since = time.monotonic()
        subscription.dispose()
        return since

    assert served.closed_at_once(leave)


@pytest.mark.parametrize("served", ["silent", "hanging"])
async def test_a_dispose_on_the_running_loop_closes_the_request(served, request):
    """Before the headers as in the middle of the body."""
    served = request.getfixturevalue(served)

    async def leave():
        exchange = served.server.exchange(len(served.server.exchanges))
        subscription = three(served.llm)("p").subscribe()
        await exchange.arrived.soon()
        since = time.monotonic()
        subscription.dispose()
        return since

    assert await served.closed_soon(leave)


async def test_another_thread_may_dispose(endless):
    """Whichever thread disposes, the loop that the stream runs on closes its request."""

    async def leave():
        heard = asyncio.Event()
        subscription = endless.llm("p").subscribe(lambda _: heard.set())
        await heard.wait()
        since = time.monotonic()
        thread = threading.Thread(target=subscription.dispose)
        thread.start()
        thread.join()
        return since

    assert await endless.closed_soon(leave)


async def test_a_dispose_before_the_request_is_sent_sends_none(silent):
    """What is left in the same breath is never asked."""
    silent.llm("p").subscribe().dispose()
    await silent.llm("q").pipe(ops.take_until(rx.timer(0)), rxllm.astream()).aclose()
    assert [] == silent.server.requests


def test_a_dispose_while_hearing_hears_no_more():
    """Chunks that came in the same packet are not heard any more, and nothing enters the observer twice."""
    with FakeServer(Reply([HEL * 10, End.HANG])) as server:
        served = Served(server)

        def leave():
            heard, depth, left = [], [], Signal()

            def on_next(chunk):
                depth.append(None)
                heard.append((str(chunk), len(depth)))
                subscription.dispose()
                left.set()
                depth.pop()

            subscription = rxllm.text()(served.llm("p")).subscribe(on_next, heard.append, lambda: heard.append("end"))
            left.wait()
            server.exchanges[-1].wait_closed()
            assert [("Hel", 1)] == heard
            return left.at

        assert served.closed_at_once(leave)


async def test_a_raising_observer_closes_its_request(endless):
    """What an observer raises goes to the loop's exception handler, and not to its own `on_error`."""
    loop = asyncio.get_running_loop()

    async def leave():
        blamed = asyncio.Queue()
        loop.set_exception_handler(lambda _, context: blamed.put_nowait(context["exception"]))
        errors = []
        endless.llm("p").subscribe(lambda _: 1 / 0, errors.append, lambda: errors.append("end"))
        assert ZeroDivisionError is type(await asyncio.wait_for(blamed.get(), 5))
        since = time.monotonic()
        await endless.latest.closed.soon()
        assert ([], 0) == (errors, blamed.qsize())
        return since

    assert await endless.closed_soon(leave)


async def test_a_raising_observer_behind_operators_closes_its_request(endless):
    """The same, whatever stands between."""
    loop = asyncio.get_running_loop()

    async def leave():
        blamed = asyncio.Queue()
        loop.set_exception_handler(lambda _, context: blamed.put_nowait(context["exception"]))
        errors = []
        three(endless.llm)("p").subscribe(lambda _: 1 / 0, errors.append)
        assert ZeroDivisionError is type(await asyncio.wait_for(blamed.get(), 5))
        since = time.monotonic()
        await endless.latest.closed.soon()
        assert ([], 0) == (errors, blamed.qsize())
        return since

    assert await endless.closed_soon(leave)


async def test_handlers_hear_that_a_run_was_cancelled(hanging):
    """Handlers attached by `observe` hear Cancelled with what had come; the disposed subscriber hears nothing."""
    heard, events = [], []
    chunks = asyncio.Event()
    subscription = observe(hanging.llm, events.append)("p").subscribe(
        lambda _: chunks.set(), heard.append, lambda: heard.append("end")
    )
    await chunks.wait()
    subscription.dispose()
    await hanging.latest.closed.soon()
    assert ([], Cancelled, "Hel") == (heard, type(events[-1]), events[-1].partial.text)


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_leaving_a_flat_map_closes_all_of_its_requests():
    """All of fifty."""
    with FakeServer(HANGING) as server:
        served = Served(server)

        def leave():
            first = len(server.exchanges)
            prompts = rx.from_([f"prompt {number}" for number in range(50)])
            with prompts.pipe(ops.flat_map(served.llm), rxllm.stream()) as chunks:
                next(chunks)
                for number in range(50):
                    server.exchange(first + number).arrived.wait()
                return time.monotonic()

        assert served.closed_at_once(leave)
        assert len(server.exchanges) % 50 == 0


def failing_last(received):
    """A server that answers only to the prompt `bad`, and with an error."""
    if received.json["messages"][0]["content"] == "bad":
        return Reply.json({"error": {"message": "bad"}}, status=400)
    return HANGING


def test_the_first_failure_of_a_batch_closes_the_rest():
    """The other requests are closed as soon as one fails."""
    with FakeServer(failing_last) as server:
        served = Served(server)

        def leave():
            first = len(server.exchanges)

            def prompts():
                yield from ("a", "b", "c")
                for number in range(3):
                    server.exchange(first + number).arrived.wait()
                yield "bad"

            with pytest.raises(BadRequest):
                served.llm.batch(prompts())
            since = time.monotonic()
            server.close_idle()  # the connection of the failed one is kept for the next
            return since

        assert served.closed_at_once(leave)


async def test_a_switch_map_closes_the_former_request(hanging):
    """The next prompt closes the request of the one before."""

    async def leave():
        first = len(hanging.server.exchanges)
        prompts = Subject()
        heard = asyncio.Queue()
        subscription = prompts.pipe(ops.switch_map(hanging.llm)).subscribe(
            heard.put_nowait, scheduler=rxllm.scheduler()
        )
        prompts.on_next("a")
        await heard.get()
        since = time.monotonic()
        prompts.on_next("b")
        former = await hanging.server.exchange(first).closed_soon(since)
        await heard.get()
        assert not hanging.latest.closed.is_set()
        subscription.dispose()
        await hanging.latest.closed.soon()
        return time.monotonic() if former < AT_ONCE else since

    assert await hanging.closed_soon(leave)


# ── Ctrl-C ───────────────────────────────────────────────────────────────────────────────────────────────────────

# On a slow machine asyncio's debug mode, part of -X dev, warns that importing httpx took its time.
PRELUDE = "import asyncio, logging, sys, rxllm; logging.getLogger('asyncio').setLevel('ERROR')"
SCRIPTS = {
    "a plain loop": """
        for chunk in llm.stream("p"):
            print(chunk, flush=True)
    """,
    "a plain loop with a name": """
        chunks = llm.stream("p")
        for chunk in chunks:
            print(chunk, flush=True)
    """,
    "an answer": """
        print("Hel", flush=True)
        llm.invoke("p")
    """,
    "asyncio.run": """
        async def main():
            async for chunk in llm.astream("p"):
                print(chunk, flush=True)
        asyncio.run(main())
    """,
    "a subscription": """
        llm("p").subscribe(lambda chunk: print(chunk, flush=True))
    """,
}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for one process")
@pytest.mark.parametrize("name", SCRIPTS)
def test_ctrl_c_closes_the_request(name, hanging):
    """Ctrl-C ends the script and closes its request; nothing but KeyboardInterrupt is said."""
    lines = SCRIPTS[name].split("\n        ")
    script = "\n".join([PRELUDE, "llm = rxllm.OpenAI('m', base_url=sys.argv[1])", *lines])
    environment = {**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1])}

    def leave():
        exchange = hanging.server.exchange(len(hanging.server.exchanges))
        with subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-c", script, hanging.server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert "Hel\n" == process.stdout.readline()
            exchange.arrived.wait(20)
            since = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=20)
        quiet = name == "a subscription"
        assert (130 if quiet else -signal.SIGINT) == process.returncode  # a shell shows 130 for both
        assert ("" if quiet else "KeyboardInterrupt") == (complaints.splitlines() or [""])[-1]
        assert not any(word in complaints for word in ("Warning", "never retrieved", "Exception ignored", "destroyed"))
        return since

    assert hanging.closed_at_once(leave)


STORM = """
import gc, queue, random, signal, sys, threading, time
import rxllm

live, unexpected, received, until, is_told = set(), [], 0, 0, False
sys.unraisablehook = lambda swallowed: unexpected.append(swallowed.exc_value)


class Ticking(rxllm.LLM):
    async def chunks(self, request):
        life = object()
        live.add(life)
        try:
            for _ in range(random.randrange(1, 50)):
                yield "x"
            await asyncio.sleep(1000)
        finally:
            live.discard(life)


def interrupted(*_):
    global received
    received += 1
    raise KeyboardInterrupt


def interrupt():
    while shot := told.get():
        for shot in (shot, shot + 1):
            moment = time.perf_counter() + random.random() * random.choice([0.00002, 0.0003, 0.002])
            while time.perf_counter() < moment:
                pass
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            while received < shot:
                time.sleep(0)


def read():
    global is_told
    if not is_told:
        is_told = True
        told.put(until - 1)
    while received < until:
        if random.random() < 0.5:
            for _ in llm.stream("p"):
                pass
        else:
            with llm.stream("p") as chunks:
                for _ in chunks:
                    pass


def heeding(action):
    def run():
        while True:
            try:
                return action()
            except KeyboardInterrupt:
                pass
            except BaseException as error:
                unexpected.append(error)
    return run


llm, told = Ticking(), queue.SimpleQueue()
storm = heeding(heeding(heeding(read)))  # each interrupt may come while the one before is handled
next(llm.stream("p"), None)
signal.signal(signal.SIGINT, interrupted)
threading.Thread(target=interrupt, daemon=True).start()
for _ in range(ROUNDS):
    until, is_told = received + 2, False
    storm()
signal.signal(signal.SIGINT, signal.SIG_IGN)
gc.collect()
patience = time.monotonic() + 10
while live and time.monotonic() < patience:
    time.sleep(0.01)
print(len(live), unexpected)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pthread_kill")
def test_storms_of_interrupts_hang_nothing_and_leave_nothing():
    """Two interrupts, close together, 300 times: each arrives as KeyboardInterrupt, and all streams are closed."""
    script = "\n".join([PRELUDE, STORM.replace("ROUNDS", "300")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1])},
        check=False,
    )
    assert (0, "0 []\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("source", [lambda: from_iter(range(10**9)), lambda: Ticking()("hi")], ids=["range", "model"])
def test_a_source_that_never_waits_can_be_left(source):
    """From another thread, and what else runs on that loop gets its turn."""
    begun = threading.Event()
    subscription = source().subscribe(lambda item: begun.set())
    assert begun.wait(5)
    subscription.dispose()
    assert "tea" == "".join(from_iter("tea").pipe(rxllm.stream()))


async def test_a_source_that_never_waits_lets_time_pass():
    """A limit is heard of although nothing of the source is."""
    nothing = from_iter(range(10**9)).pipe(ops.filter(lambda item: False), rxllm.first_chunk_timeout(0.05))
    with pytest.raises(rxllm.Timeout):
        await anext(nothing.pipe(rxllm.astream()))


class Ticking(rxllm.LLM):
    """A model without end that waits for nothing."""

    async def chunks(self, request):
        """Ticks."""
        while True:
            yield "tick"
