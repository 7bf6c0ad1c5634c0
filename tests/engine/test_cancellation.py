"""However a stream is left, and whatever operators stand between, its request is closed at once.

What counts is what the *server* sees: the connection is closed. Each way is tried up to three times and must be fast
once, since a busy machine may be late.
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

AT_ONCE = 0.05  # seconds from leaving the stream to the closed connection
TRIES = 10
HEL = Chat().stream(["Hel"])[1]
ENDLESS = Reply([Endless(HEL)])
HANGING = Reply([HEL, End.HANG])
SILENT = Reply([End.HANG])


class Served:
    """An endless server, a model that asks it, and the time until the server sees the connection closed."""

    def __init__(self, server):
        self.server = server
        self.llm = rxllm.OpenAI("m", base_url=server.url)

    @property
    def latest(self):
        """The exchange of the latest request."""
        return self.server.exchanges[-1]

    def closed_at_once(self, leave, requests=1):
        """Return whether `leave` closes all requests that it opened, fast enough in one try.

        `leave` returns the time at which it left the stream. The limit counts for each of its requests.
        """
        return any(self._slowest(leave(), start) < requests * AT_ONCE for start in self._starts())

    async def closed_soon(self, leave):
        """As `closed_at_once`, for a coroutine function; no task may be left on the loop."""
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
    """A server that sends chunks without end."""
    with FakeServer(ENDLESS) as server:
        yield Served(server)
        assert server.open_connections == 0


@pytest.fixture
def hanging():
    """A server that sends one chunk and then nothing."""
    with FakeServer(HANGING) as server:
        yield Served(server)
        assert server.open_connections == 0


@pytest.fixture
def silent():
    """A server that sends nothing, not even headers."""
    with FakeServer(SILENT) as server:
        yield Served(server)
        assert server.open_connections == 0


def three(llm):
    """Return a pipeline with three operators behind the model."""
    return rxllm.pipe(llm, rxllm.text(), ops.map(str.upper), ops.filter(bool))


# ── ways to leave a plain loop ───────────────────────────────────────────────────────────────────────────────


def by_break(llm):
    """Leave the loop, which drops its iterator."""
    for _ in llm.stream("p"):
        break
    return time.monotonic()


def by_with(llm):
    """Leave the block."""
    with llm.stream("p") as chunks:
        next(chunks)
        return time.monotonic()


def by_close(llm):
    """Close the iterator."""
    chunks = llm.stream("p")
    next(chunks)
    since = time.monotonic()
    chunks.close()
    return since


def by_a_failing_block(llm):
    """Raise in the block."""
    with suppress(ZeroDivisionError), llm.stream("p") as chunks:
        next(chunks)
        since = time.monotonic()
        raise ZeroDivisionError
    return since


def by_del(llm):
    """Delete the last reference to the iterator."""
    chunks = llm.stream("p")
    next(chunks)
    since = time.monotonic()
    del chunks
    return since


def by_garbage_collection(llm):
    """Make the iterator part of a reference cycle, and collect garbage."""
    chunks = llm.stream("p")
    next(chunks)
    cycle = [chunks]
    cycle.append(cycle)
    del chunks, cycle
    gc.collect()
    return time.monotonic()


def by_a_closed_generator(llm):
    """Close the generator that reads the stream."""

    def texts():
        for chunk in llm.stream("p"):
            yield str(chunk)

    with closing(texts()) as reader:
        next(reader)
        return time.monotonic()


def by_take(llm):
    """Let an operator complete."""
    assert 5 == len(list(llm("p").pipe(ops.take(5), rxllm.stream())))
    return time.monotonic()


def by_a_raising_mapper(llm):
    """Let an operator's function raise; the loop raises it."""
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
def test_left_plain_loop_closes_its_request(endless, leave):
    """However a plain loop is left, the server sees the connection closed at once."""
    assert endless.closed_at_once(lambda: leave(endless.llm))


@pytest.mark.parametrize("leave", SYNC)
def test_left_plain_loop_over_a_pipeline_closes_its_request(endless, leave):
    """Three operators between the model and the loop make no difference."""
    assert endless.closed_at_once(lambda: leave(three(endless.llm)))


# ── ways to leave an async loop ───────────────────────────────────────────────────────────────────────


async def by_async_break(llm):
    """Leave the loop, which drops its iterator."""
    async for _ in llm.astream("p"):
        break
    return time.monotonic()


async def by_async_with(llm):
    """Leave the block."""
    async with llm.astream("p") as chunks:
        await anext(chunks)
        return time.monotonic()


async def by_aclose(llm):
    """Close the iterator."""
    chunks = llm.astream("p")
    await anext(chunks)
    since = time.monotonic()
    await chunks.aclose()
    return since


async def by_async_del(llm):
    """Delete the last reference to the iterator."""
    chunks = llm.astream("p")
    await anext(chunks)
    since = time.monotonic()
    del chunks
    return since


async def by_async_garbage_collection(llm):
    """Make the iterator part of a reference cycle, and collect garbage."""
    chunks = llm.astream("p")
    await anext(chunks)
    chunks.itself = chunks
    del chunks
    gc.collect()
    return time.monotonic()


async def by_an_aclosed_generator(llm):
    """Close the generator that reads the stream."""

    async def texts():
        async for chunk in llm.astream("p"):
            yield str(chunk)

    async with aclosing(texts()) as reader:
        await anext(reader)
        return time.monotonic()


async def by_async_take(llm):
    """Let an operator complete."""
    assert 5 == len([item async for item in llm("p").pipe(ops.take(5), rxllm.astream())])
    return time.monotonic()


async def by_a_raising_mapper_in_async(llm):
    """Let an operator's function raise; the loop raises it."""
    with pytest.raises(ZeroDivisionError):
        await anext(llm("p").pipe(ops.map(lambda _: 1 / 0), rxllm.astream()))
    return time.monotonic()


async def by_a_timeout(llm):
    """Take longer in the loop than `asyncio.timeout` allows."""
    loop = asyncio.get_running_loop()
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            async for _ in llm.astream("p"):
                limit.reschedule(loop.time())
    assert limit.expired()
    return time.monotonic()


async def cancelled(reading, *, keep=False):
    """Cancel the task of `reading(received)` once it has set `received`; return the time of the cancellation."""
    received = asyncio.Event()
    task = asyncio.create_task(reading(received))
    await received.wait()
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
    """Cancel the reading task, in which no variable names the iterator."""

    async def reading(received):
        async for _ in llm.astream("p"):
            received.set()

    return await cancelled(reading)


async def by_task_cancel_of_a_named_iterator(llm):
    """Cancel the reading task, in which a local variable names the iterator."""

    async def reading(received):
        chunks = llm.astream("p")
        async for _ in chunks:
            received.set()

    return await cancelled(reading)


async def by_cancelling_a_kept_task(llm):
    """Cancel a task that is kept and never awaited; its traceback keeps the iterator."""

    async def reading(received):
        chunks = llm.astream("p")
        async for _ in chunks:
            received.set()

    return await cancelled(reading, keep=True)


async def by_cancelling_a_kept_task_in_its_body(llm):
    """Cancel such a task while it awaits something else than the stream."""

    async def reading(received):
        chunks = llm.astream("p")
        async for _ in chunks:
            received.set()
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
async def test_left_async_loop_closes_its_request(endless, leave):
    """However an async loop is left, the server sees the connection closed at once."""
    assert await endless.closed_soon(lambda: leave(endless.llm))


@pytest.mark.parametrize("leave", ASYNC)
async def test_left_async_loop_over_a_pipeline_closes_its_request(endless, leave):
    """Three operators between the model and the loop make no difference."""
    assert await endless.closed_soon(lambda: leave(three(endless.llm)))


async def test_cancelled_task_closes_its_hanging_request(hanging):
    """The cancellation takes effect although the server sends nothing."""
    assert await hanging.closed_soon(lambda: by_task_cancel_of_a_named_iterator(hanging.llm))
    assert await hanging.closed_soon(lambda: by_cancelling_a_kept_task(hanging.llm))


async def test_cancelled_ainvoke_closes_its_request(silent):
    """A cancelled `ainvoke` leaves no request and no task."""

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


async def test_timed_out_anext_loses_no_item():
    """After `wait_for(anext(…))` has timed out, the next `anext` gets the next item."""
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


async def test_cancelled_async_loop_closes_its_request_while_the_error_is_kept(hanging):
    """The task lives on and keeps the exception; no frame of its traceback holds the stream."""
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
def test_interrupted_loop_closes_its_request_while_the_error_is_kept(ask, hanging):
    """A notebook keeps the traceback of an interrupted cell; no frame of it holds the stream."""
    kept = []

    def leave():
        arrived = queue.SimpleQueue()  # an interrupt cannot leave its put half done

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


def test_raising_loop_body_closes_its_request_while_the_error_is_kept(endless):
    """The kept traceback of any exception does not keep the stream."""
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
def test_dispose_closes_the_request(served, request):
    """Before the headers arrive, and in the middle of the body."""
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
async def test_dispose_on_the_running_loop_closes_the_request(served, request):
    """Before the headers arrive, and in the middle of the body."""
    served = request.getfixturevalue(served)

    async def leave():
        exchange = served.server.exchange(len(served.server.exchanges))
        subscription = three(served.llm)("p").subscribe()
        await exchange.arrived.soon()
        since = time.monotonic()
        subscription.dispose()
        return since

    assert await served.closed_soon(leave)


async def test_dispose_in_another_thread_closes_the_request(endless):
    """Whichever thread disposes, the stream's own loop closes the request."""

    async def leave():
        received = asyncio.Event()
        subscription = endless.llm("p").subscribe(lambda _: received.set())
        await received.wait()
        since = time.monotonic()
        thread = threading.Thread(target=subscription.dispose)
        thread.start()
        thread.join()
        return since

    assert await endless.closed_soon(leave)


async def test_dispose_before_the_request_sends_nothing(silent):
    """A subscription that is disposed at once sends no request."""
    silent.llm("p").subscribe().dispose()
    await silent.llm("q").pipe(ops.take_until(rx.timer(0)), rxllm.astream()).aclose()
    assert [] == silent.server.requests


def test_dispose_in_on_next_stops_emission():
    """After it, chunks of the same packet are not emitted, and `on_next` is not re-entered."""
    with FakeServer(Reply([HEL * 10, End.HANG])) as server:
        served = Served(server)

        def leave():
            received, depth, subscribed, left = [], [], Signal(), Signal()

            def on_next(chunk):
                depth.append(None)
                received.append((str(chunk), len(depth)))
                subscribed.wait()  # the first chunk may come before `subscribe` has returned
                subscription.dispose()
                left.set()
                depth.pop()

            subscription = rxllm.text()(served.llm("p")).subscribe(
                on_next, received.append, lambda: received.append("end")
            )
            subscribed.set()
            left.wait()
            server.exchanges[-1].wait_closed()
            assert [("Hel", 1)] == received
            return left.at

        assert served.closed_at_once(leave)


async def test_raising_observer_closes_its_request(endless):
    """The exception goes to the loop's exception handler, not to the observer's own `on_error`."""
    loop = asyncio.get_running_loop()

    async def leave():
        reported = asyncio.Queue()
        loop.set_exception_handler(lambda _, context: reported.put_nowait(context["exception"]))
        errors = []
        endless.llm("p").subscribe(lambda _: 1 / 0, errors.append, lambda: errors.append("end"))
        assert ZeroDivisionError is type(await asyncio.wait_for(reported.get(), 5))
        since = time.monotonic()
        await endless.latest.closed.soon()
        assert ([], 0) == (errors, reported.qsize())
        return since

    assert await endless.closed_soon(leave)


async def test_raising_observer_behind_operators_closes_its_request(endless):
    """Operators between the model and the observer make no difference."""
    loop = asyncio.get_running_loop()

    async def leave():
        reported = asyncio.Queue()
        loop.set_exception_handler(lambda _, context: reported.put_nowait(context["exception"]))
        errors = []
        three(endless.llm)("p").subscribe(lambda _: 1 / 0, errors.append)
        assert ZeroDivisionError is type(await asyncio.wait_for(reported.get(), 5))
        since = time.monotonic()
        await endless.latest.closed.soon()
        assert ([], 0) == (errors, reported.qsize())
        return since

    assert await endless.closed_soon(leave)


async def test_handlers_get_cancelled_after_a_dispose(hanging):
    """Handlers of `observe` get Cancelled with the partial answer; the disposed subscriber gets nothing."""
    received, events = [], []
    chunks = asyncio.Event()
    subscription = observe(hanging.llm, events.append)("p").subscribe(
        lambda _: chunks.set(), received.append, lambda: received.append("end")
    )
    await chunks.wait()
    subscription.dispose()
    await hanging.latest.closed.soon()
    assert ([], Cancelled, "Hel") == (received, type(events[-1]), events[-1].partial.text)


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_left_flat_map_closes_all_its_requests():
    """All fifty requests are closed."""
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

        assert served.closed_at_once(leave, requests=50)
        assert len(server.exchanges) % 50 == 0


def failing_last(received):
    """Answer the prompt `bad` with an error, and hang for any other."""
    if received.json["messages"][0]["content"] == "bad":
        return Reply.json({"error": {"message": "bad"}}, status=400)
    return HANGING


def test_first_failure_of_a_batch_closes_the_other_requests():
    """The other requests are closed as soon as one request fails."""
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
            server.close_idle()  # the connection of the failed request is kept for the next request
            return since

        assert served.closed_at_once(leave)


async def test_switch_map_closes_the_previous_request(hanging):
    """The next prompt closes the request of the previous prompt."""

    async def leave():
        first = len(hanging.server.exchanges)
        prompts = Subject()
        received = asyncio.Queue()
        subscription = prompts.pipe(ops.switch_map(hanging.llm)).subscribe(
            received.put_nowait, scheduler=rxllm.scheduler()
        )
        prompts.on_next("a")
        await received.get()
        since = time.monotonic()
        prompts.on_next("b")
        former = await hanging.server.exchange(first).closed_soon(since)
        await received.get()
        assert not hanging.latest.closed.is_set()
        subscription.dispose()
        await hanging.latest.closed.soon()
        return time.monotonic() if former < AT_ONCE else since

    assert await hanging.closed_soon(leave)


# ── Ctrl-C ───────────────────────────────────────────────────────────────────────────────────────────────────────

# On a slow machine asyncio's debug mode, a part of -X dev, warns that importing httpx is slow.
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
    """Ctrl-C ends the script and closes its request; the script prints only a KeyboardInterrupt."""
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
            exchange.arrived.wait()
            since = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=100)
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


def undisturbed(action):
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
storm = undisturbed(undisturbed(undisturbed(read)))  # each interrupt may arrive while the previous one is handled
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
def test_interrupts_in_quick_succession_close_all_streams():
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
def test_source_that_never_waits_can_be_disposed(source):
    """Another thread may dispose of it, and other tasks of that loop get their turn."""
    begun = threading.Event()
    subscription = source().subscribe(lambda item: begun.set())
    assert begun.wait(30)
    subscription.dispose()
    assert "tea" == "".join(from_iter("tea").pipe(rxllm.stream()))


async def test_source_that_never_waits_can_time_out():
    """A time limit fires although the source never gives up the loop by itself."""
    nothing = from_iter(range(10**9)).pipe(ops.filter(lambda item: False), rxllm.first_chunk_timeout(0.05))
    with pytest.raises(rxllm.Timeout):
        await anext(nothing.pipe(rxllm.astream()))


class Ticking(rxllm.LLM):
    """An endless model that never waits."""

    async def chunks(self, request):
        """Ticks."""
        while True:
            yield "tick"
