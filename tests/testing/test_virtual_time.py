"""`VirtualLoop`: an event loop on which waiting takes no time."""

import asyncio
import threading
import time

import pytest
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM
from rxllm.testing import FakeServer, MarbleLLM, Reply, VirtualLoop, on_virtual_time

NO_TIME = 5.0  # seconds of real time; a limit far below the virtual hours


def now():
    """The running loop's time."""
    return asyncio.get_running_loop().time()


@on_virtual_time
async def test_clock_jumps_from_timer_to_timer():
    """A day of sleep takes no time, and timers fire in order, each at its exact time."""
    heard = []

    async def sleep(seconds):
        await asyncio.sleep(seconds)
        heard.append((seconds, now()))

    began = time.monotonic()
    assert 0 == now()
    await asyncio.gather(*map(sleep, [86400, 0.25, 3600, 0]))
    assert [(0, 0), (0.25, 0.25), (3600, 3600), (86400, 86400)] == heard
    assert NO_TIME > time.monotonic() - began


def test_fixture_runs_a_coroutine(virtual_time):
    """It returns the coroutine's result, and the next coroutine continues with the same clock."""

    async def sleep():
        await asyncio.sleep(600)
        return now()

    assert 600 == virtual_time(sleep())
    assert 1200 == virtual_time(sleep())


@on_virtual_time
async def test_a_hedge_with_handlers_retries_and_idle_limits_takes_no_time():
    """The engine, combinators, time limits and handlers use the loop's time."""
    heard = []
    silent = MarbleLLM("-" * 1000)
    failing = MarbleLLM(["-#", "-b|"], error=rxllm.RateLimited("Slow down.", retry_after=30))
    model = rxllm.hedge(silent, rxllm.retry(failing, delay=lambda error, attempt: 30), after=0.5)
    limited = rxllm.pipe(model, rxllm.text(), rxllm.idle_timeout(300), rxllm.deadline(3600))
    began = time.monotonic()
    asked = limited.with_config(handlers=[lambda event: heard.append((type(event), now()))])
    assert "b" == await asked.ainvoke("hi")
    assert 0.5 + 1 + 30 + 1 + 1 == now()
    assert (rxllm.Started, 0) == heard[0]
    assert (rxllm.Finished, now()) == heard[-1]
    assert NO_TIME > time.monotonic() - began


@on_virtual_time
async def test_time_limit_uses_the_loops_time():
    """The limit fires at its exact time, short or long."""
    began = now()
    with pytest.raises(rxllm.Timeout):
        await rxllm.pipe(MarbleLLM("-a" + "-" * 10000), rxllm.text(), rxllm.idle_timeout(3600)).ainvoke("hi")
    assert 3601 == now() - began


@on_virtual_time
async def test_pause_of_the_reader_is_not_idleness():
    """The time at a closed gate is the loop's time, too."""
    chunks = rxllm.from_iter(range(1000)).pipe(rxllm.idle_timeout(10), rxllm.astream())
    assert 0 == await anext(chunks)
    await asyncio.sleep(3600)
    assert list(range(1, 1000)) == [chunk async for chunk in chunks]


@on_virtual_time
async def test_reactivex_operators_use_the_loops_time():
    """With rxllm's scheduler, or subscribed through a stream."""
    windows = MarbleLLM("-a-b------c|")("hi").pipe(
        rxllm.text(), ops.buffer_with_time(5, scheduler=rxllm.scheduler()), rxllm.astream()
    )
    assert [["a", "b"], [], ["c"]] == [window async for window in windows]


class Blocking(LLM):
    """Answers in a thread, once another thread allows it."""

    def complete(self, request):
        """Return the thread's name."""
        released = threading.Event()
        threading.Timer(0.05, released.set).start()
        released.wait()
        return threading.current_thread().name


@on_virtual_time
async def test_clock_waits_for_threads():
    """A timer does not overtake a blocking model or a call in an executor."""
    async with asyncio.timeout(40):
        assert "rxllm-worker" == (await Blocking().ainvoke("hi")).text
        assert 3 == await asyncio.to_thread(lambda: Blocking().complete(None) and 3)
    assert 40 > now()
    assert not asyncio.get_running_loop()._futures_of_threads


@on_virtual_time
async def test_clock_waits_for_expected_futures():
    """Another thread sets a future that was announced with `expect`."""
    loop = asyncio.get_running_loop()
    future = loop.expect(loop.create_future())
    threading.Timer(0.05, lambda: loop.call_soon_threadsafe(future.set_result, "here")).start()
    async with asyncio.timeout(40):
        assert "here" == await future
    assert 40 > now()


@on_virtual_time
async def test_late_thread_times_out():
    """Time passes as in reality while the loop waits for a thread."""
    released = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.to_thread(released.wait)
        assert 0.05 <= now()
    finally:
        released.set()


@on_virtual_time
async def test_clock_waits_for_the_network():
    """A timer does not overtake an answer under way; without a socket, the clock jumps."""
    events = Chat().stream(["Hel", "lo"])
    with FakeServer(Reply([*events[:2], 0.05, *events[2:]])) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="any", timeout=40)
        assert "Hello" == (await llm.ainvoke("hi")).text
    assert 40 > now()


def test_loop_with_threads_closes_quietly(virtual_time):
    """The end of the executor takes real time, not the five minutes of asyncio's warning."""
    assert 7 == virtual_time(asyncio.to_thread(lambda: 7))


@on_virtual_time
async def test_coroutine_test_keeps_its_fixtures(tmp_path):
    """Pytest finds the decorated test, which gets its fixtures and an event loop of its own."""
    assert tmp_path.exists()
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)
