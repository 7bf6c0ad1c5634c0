"""Code around the engine that breaks the rules: the failure is reported, ends in time, and disturbs no other stream."""

import asyncio
import inspect
import subprocess
import sys
import threading
import time

import pytest
import reactivex as rx
from protocols import Chat
from reactivex import operators as ops
from reactivex.scheduler.eventloop import AsyncIOScheduler

import rxllm
from rxllm import LLM, MisuseError
from rxllm.operators.timeouts import silence
from rxllm.runtime.gate import Gate
from rxllm.runtime.lifetime import settled
from rxllm.runtime.loop_local import loop_local
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import source
from rxllm.testing import End, FakeServer, Reply, Signal, on_virtual_time

TIMEOUT = 5.0  # seconds for something that is fast
EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks before Python 3.12")


class Count(LLM):
    """A model that emits five chunks."""

    async def chunks(self, request):
        """The numbers from 0 to 4."""
        for number in range(5):
            await asyncio.sleep(0)
            yield f"{number} "


def careless(source):
    """An operator that raises at the second item instead of sending an error."""

    def subscribe(observer, scheduler=None):
        seen = []

        def on_next(value):
            seen.append(value)
            if len(seen) == 2:
                raise ValueError("careless")
            observer.on_next(value)

        return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return rx.create(subscribe)


def stopping(value):
    """Raise StopIteration or StopAsyncIteration."""
    raise StopIteration if value == "1 " else StopAsyncIteration


# ── StopIteration from other code ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [StopIteration("no"), StopAsyncIteration("no")])
async def test_stop_iteration_upstream_is_an_error(error):
    """A loop would take it for the end of the answer, and a half answer would look whole."""
    broken = rx.concat(rx.of("a"), rx.throw(error))
    received = []
    with pytest.raises(
        RuntimeError, match=rf"{type(error).__name__} was raised by code that is not an iterator"
    ) as caught:
        received.extend(broken.pipe(rxllm.stream()))
    assert error is caught.value.__cause__
    items = broken.pipe(rxllm.astream())
    assert "a" == await anext(items)
    with pytest.raises(
        RuntimeError, match=rf"{type(error).__name__} was raised by code that is not an iterator"
    ) as caught:
        await anext(items)
    assert error is caught.value.__cause__
    assert ["a"] == received


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
async def test_stop_iteration_fails_an_answer(error):
    """`invoke` raises another error, since a StopIteration would end the caller's own iteration."""

    def raising(chunk):
        raise error

    talk = rxllm.pipe(Count(), rxllm.text(), ops.map(raising))
    with pytest.raises(RuntimeError, match="by code that is not an iterator"):
        talk.invoke("x")
    with pytest.raises(RuntimeError, match="by code that is not an iterator"):
        await talk.ainvoke("x")
    results = await talk.abatch(["x", "y"], return_exceptions=True)
    assert [error, error] == [type(result) for result in results]


# ── an operator that raises ──────────────────────────────────────────────────────────────────────────────────────


def test_script_with_a_raising_operator_ends():
    """The subscriber gets no end, but no timer of the broken stream keeps the process alive."""
    program = f"""
import asyncio, reactivex as rx, rxllm
from rxllm import LLM
from rxllm.operators.timeouts import silence
{inspect.getsource(Count)}
{inspect.getsource(careless)}
class Limited(Count):
    def chunks(self, request):
        return careless(rxllm.from_aiter(lambda: Count.chunks(self, request))).pipe(silence(first=600, idle=300))
Limited()("x").subscribe(print)
Count()("x").pipe(careless, rxllm.idle_timeout(300), rxllm.first_chunk_timeout(600)).subscribe(print)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert ["0 ", "0 "] == sorted(done.stdout.splitlines())
    assert 2 == done.stderr.count("ValueError: careless")


async def test_raising_operator_fails_only_its_own_answer():
    """In a batch, and in `batch` as an operator, the other prompts are answered and nothing hangs."""
    asked = {"good": rxllm.pipe(Count(), rxllm.message()), "bad": rxllm.pipe(Count(), careless, rxllm.message())}

    def choose(prompt):
        return asked[prompt](prompt)

    either = rxllm.pipe(choose)
    results = await either.abatch(["good", "bad", "good"], return_exceptions=True)
    assert ["Message", "ValueError", "Message"] == [type(result).__name__ for result in results]
    with pytest.raises(ValueError, match="careless"):
        await either.abatch(["bad", "good"])
    over, received = asyncio.Event(), []
    rxllm.from_iter(["good", "bad"]).pipe(rxllm.batch(either)).subscribe(
        received.append, lambda error: (received.append(error), over.set())
    )
    await asyncio.wait_for(over.wait(), TIMEOUT)
    assert "careless" == str(received[-1])


async def test_raising_operator_before_a_batch_ends_the_batch():
    """A batch does not wait for prompts that can no longer come."""
    over, received = asyncio.Event(), []
    prompts = careless(rxllm.from_iter(["a", "b", "c"]))
    prompts.pipe(rxllm.batch(Count())).subscribe(received.append, lambda error: (received.append(error), over.set()))
    await asyncio.wait_for(over.wait(), TIMEOUT)
    assert "careless" == str(received[-1])


# ── providers that break the rules ───────────────────────────────────────────────────────────────────────────


async def test_provider_that_swallows_cancellation_is_closed_at_its_next_item():
    """It is cancelled once, goes on, and is closed at its next item."""
    closed = []

    class Stubborn(LLM):
        async def chunks(self, request):
            yield "a"
            try:
                while True:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        closed.append("told")
                    yield "more"
            finally:
                closed.append("closed")

    async with asyncio.timeout(TIMEOUT), Stubborn().astream("x") as answer:
        assert "a" == (await anext(answer)).text
        for _ in range(5):  # turns of the loop, until the pump waits
            await asyncio.sleep(0)
    assert ["told", "closed"] == closed


async def test_error_raised_by_chunks_carries_its_request():
    """An error of `chunks` carries its request, also if `chunks` raises before it returns a stream."""

    class Raises(LLM):
        def chunks(self, request):
            raise rxllm.TransportError("no")

    with pytest.raises(rxllm.TransportError) as caught:
        await Raises().ainvoke("hi")
    assert "hi" == caught.value.request.text


@pytest.mark.parametrize("answer", ["text", b"bytes", {"a": 1}, None])
def test_chunks_that_return_a_value_raise_misuse(answer):
    """A returned str is an iterable of letters, which no provider means."""

    class Slip(LLM):
        def chunks(self, request):
            return answer

    with pytest.raises(MisuseError, match=rf"not {type(answer).__name__}\. To return whole answers, override complete"):
        Slip().invoke("x")


@EAGER
async def test_eager_task_factory_gives_the_same_items():
    """Nested subscriptions work on a loop that starts each task at once."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    answers = await rxllm.pipe(Count(), rxllm.text()).abatch(["x"] * 20)
    assert ["0 1 2 3 4 "] * 20 == answers
    assert ["0 1 2 3 4 "] * 20 == [answer.text for answer in await Count().abatch(["x"] * 20)]


async def test_stream_disposed_at_a_closed_gate_starts_no_thread():
    """A source that waits for the gate before its first item starts nothing."""
    scheduler = Scheduler(asyncio.get_running_loop())
    scheduler.gate.close()
    begun = []
    subscription = source(lambda scheduler: begun.append(scheduler)).subscribe(scheduler=scheduler)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    subscription.dispose()
    await settled(scheduler.lifetime.tasks)
    assert [] == begun


async def test_gate_drops_cancelled_waiters():
    """A gate that stays closed for long keeps no waiter that was cancelled."""
    gate = Gate()
    gate.close()
    waiting = [asyncio.ensure_future(gate.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait(waiting[1:2])
    assert 2 == len(gate._waiters)
    gate.open()
    await asyncio.gather(waiting[0], waiting[2])


# ── loops ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_loop_local_objects_of_many_threads_are_independent():
    """Each loop makes and closes its own object, while other threads do the same."""
    failures = []

    async def closed(value):
        pass

    async def use():
        for key in range(20):
            await loop_local(key, object, closed)

    def work():
        try:
            for _ in range(20):
                asyncio.run(use())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures


def test_subscribing_on_a_closed_loop_raises_misuse():
    """The task of such a subscription would never run."""
    loop = asyncio.new_event_loop()
    loop.close()
    for scheduler in AsyncIOScheduler(loop), Scheduler(loop):
        with pytest.raises(MisuseError, match=r"is closed\. Subscribe on a loop that runs"):
            Count()("x").subscribe(scheduler=scheduler)


def test_stream_is_closed_from_another_loop():
    """`aclose` on another loop returns at once, since the stream's loop may be busy, and the request is closed."""
    with FakeServer(Reply([Chat().stream(["Hel"])[1], End.HANG])) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k")
        begun, left = threading.Event(), Signal()
        streams = []

        async def begin():
            streams.append(llm.astream("x"))
            await anext(streams[0])
            begun.set()
            await left.soon()

        thread = threading.Thread(target=asyncio.run, args=[begin()])
        thread.start()
        begun.wait(TIMEOUT)
        asyncio.run(asyncio.wait_for(streams[0].aclose(), TIMEOUT))
        server.exchange().wait_closed()
        left.set()
        thread.join()


async def test_stream_closed_before_it_begins_leaves_no_callback():
    """The reading task keeps no callback of such a stream."""
    stream = aiter(Count().astream("x"))
    await stream.aclose()
    assert [] == [chunk async for chunk in stream]
    assert "deserted" not in repr(asyncio.current_task())


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_blocked_loop_does_not_time_out():
    """While a consumer blocks the event loop, the items wait in the socket, so the idle limit does not count."""
    beginning, *rest = Chat().stream(["a", "b"])
    with FakeServer(Reply([beginning, *rest])) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k", timeout=rxllm.Timeouts(idle=0.1))
        received = []
        async for chunk in llm.astream("x"):
            received.append(chunk.text)
            if chunk.text == "a":
                time.sleep(0.3)  # noqa: ASYNC251  (the busy thread)
    assert "ab" == "".join(received)


@on_virtual_time
async def test_silence_after_a_blocked_loop_times_out():
    """A blocked loop extends the idle limit once, not for ever."""
    never = source(lambda scheduler: _once())
    items = never.pipe(silence(first=None, idle=0.05), rxllm.astream())
    await anext(items)
    asyncio.get_running_loop().advance(0.2)  # the busy thread
    with pytest.raises(rxllm.Timeout, match=r"No further chunk came within 0\.05 s"):
        await anext(items)


async def _once():
    yield "a"
    await asyncio.Event().wait()


def test_run_cancelled_before_its_first_step_emits_cancelled():
    """The task never runs, but the listeners get Cancelled."""
    told = []

    async def main():
        rxllm.observe(Count(), told.append)("x").subscribe()

    asyncio.run(main())
    assert [rxllm.Started, rxllm.Cancelled] == [type(event) for event in told]


def buggy(source):
    """An operator that raises instead of sending an error."""

    def on_next(value):
        raise ZeroDivisionError

    return rx.create(
        lambda observer, scheduler=None: source.subscribe(
            on_next, observer.on_error, observer.on_completed, scheduler=scheduler
        )
    )


@pytest.mark.parametrize("delay", [ops.delay(0.001), ops.map(str)], ids=["on time", "at once"])
@pytest.mark.parametrize("handlers", [[], [lambda event: None]], ids=["unobserved", "observed"])
def test_operator_that_raises_in_a_timer_ends_the_loop(delay, handlers):
    """No task of a source calls the operator then, only a scheduled action."""
    pipeline = rxllm.pipe(Count(), delay, buggy).with_config(handlers=handlers)
    with pytest.raises(ZeroDivisionError):
        pipeline.invoke("x")
    with pytest.raises(ZeroDivisionError):
        asyncio.run(pipeline.ainvoke("x"))


def leave(*_):
    """Raise an exception that ends the program."""
    raise SystemExit(3)


class Leaves(LLM):
    """A model that ends the program when it is asked."""

    def chunks(self, request):
        """Not a stream."""
        leave()


@pytest.mark.parametrize(
    "stage",
    [
        rxllm.observe(Count(), leave),
        Leaves(),
        rxllm.pipe(lambda _: rx.defer(leave)),
        rxllm.pipe(Count(), ops.delay(0.001), ops.map(leave)),
    ],
    ids=["a handler", "a model", "a factory", "on time"],
)
def test_exit_on_the_background_loop_reaches_the_reader(stage):
    """The reader in another thread gets it, also if it is raised during `subscribe`."""
    with pytest.raises(SystemExit):
        stage.invoke("x")
    assert "0 1 2 3 4 " == Count().invoke("x").text, "the others' loop goes on"
