"""A consumer that stops reading stops the server, memory stays bounded, and the stream resumes with the consumer."""

import asyncio
import threading
from pathlib import Path

import pytest
import reactivex as rx
from attrs import field, frozen
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM, from_aiter, from_iter
from rxllm.runtime.gate import Gate
from rxllm.runtime.scheduler import Scheduler
from rxllm.testing import Endless, FakeServer, Reply, Signal

HIGH_WATER = 64  # items that may be buffered
READ = 16 * 1024  # bytes of one read, at most
SMALL = Chat().stream(["Hel"])[1]
BIG = Chat().stream(["x" * READ])[1]
HUGE = Chat().stream(["x" * 64 * 1024])[1]


def model(server, **settings):
    """Return a model that asks the server."""
    return rxllm.OpenAI("m", base_url=server.url, **settings)


@pytest.fixture
def server():
    """A server that sends large events without end."""
    with FakeServer(Reply([Endless(BIG)])) as server:
        yield server


@frozen
class Counting(LLM):
    """A model that emits numbers without end and records how far it was advanced."""

    begun: list = field(factory=list)

    async def chunks(self, request):
        """Numbers."""
        while True:
            self.begun.append(None)
            yield str(len(self.begun))


def shapes():
    """Return the operators that may stand between a source and its consumer."""
    return {
        "nothing": lambda source: source,
        "map, filter, scan": lambda source: source.pipe(
            ops.map(str), ops.filter(bool), ops.scan(lambda count, _: count + 1, 0)
        ),
        "flat_map": lambda source: rx.of(1).pipe(ops.flat_map(lambda _: source)),
        "concat_map": lambda source: rx.of(1).pipe(ops.concat_map(lambda _: source)),
        "publish, ref_count": lambda source: source.pipe(ops.publish(), ops.ref_count()),
    }


@pytest.mark.parametrize("shape", shapes())
def test_paused_loop_pauses_the_server(server, shape):
    """While a plain loop does not read, the server cannot send; when the loop reads, the server sends again."""
    with shapes()[shape](model(server)("p")).pipe(rxllm.stream()) as items:
        next(items)
        stalled = server.exchange().wait_stalled()
        for _ in items:
            if server.exchange().bytes_sent > stalled:
                break


@pytest.mark.parametrize("shape", shapes())
async def test_paused_async_loop_pauses_the_server(server, shape):
    """While an async loop does not read, the server cannot send; when the loop reads, the server sends again."""
    async with shapes()[shape](model(server)("p")).pipe(rxllm.astream()) as items:
        await anext(items)
        stalled = await asyncio.to_thread(server.exchange().wait_stalled)
        async for _ in items:
            if server.exchange().bytes_sent > stalled:
                break


def test_merged_streams_pause_and_resume_together(server):
    """All sources of a merged stream pause with their consumer, and all of them resume."""
    llm = model(server)
    with rx.merge(llm("a"), llm("b")).pipe(ops.map(str), rxllm.stream()) as items:
        next(items)
        for exchange in (server.exchange(0), server.exchange(1)):
            exchange.arrived.wait()
        stalled = [exchange.wait_stalled() for exchange in server.exchanges]
        for _ in items:
            if all(exchange.bytes_sent > before for exchange, before in zip(server.exchanges, stalled, strict=True)):
                break


async def test_merged_async_streams_pause_and_resume_together(server):
    """All sources of a merged stream pause with their consumer, and all of them resume."""
    llm = model(server)
    async with rx.merge(llm("a"), llm("b")).pipe(ops.map(str), rxllm.astream()) as items:
        await anext(items)
        for exchange in (server.exchange(0), server.exchange(1)):
            await exchange.arrived.soon()
        stalled = [await asyncio.to_thread(exchange.wait_stalled) for exchange in server.exchanges]
        async for _ in items:
            if all(exchange.bytes_sent > before for exchange, before in zip(server.exchanges, stalled, strict=True)):
                break


def test_buffer_of_a_plain_loop_is_bounded():
    """At most the high-water mark and the chunks of one read are buffered."""
    with FakeServer(Reply([Endless(SMALL)])) as server:
        passed = []
        with model(server)("p").pipe(ops.do_action(passed.append), rxllm.stream()) as chunks:
            for taken in range(1, 1000):
                next(chunks)
                assert len(passed) <= taken + HIGH_WATER + READ // len(SMALL) + 1
            server.exchange().wait_stalled()
            assert len(passed) <= 999 + HIGH_WATER + READ // len(SMALL) + 1


async def test_buffer_of_an_async_loop_is_bounded():
    """At most the high-water mark and the chunks of one read are buffered."""
    with FakeServer(Reply([Endless(SMALL)])) as server:
        passed = []
        async with model(server)("p").pipe(ops.do_action(passed.append), rxllm.astream()) as chunks:
            for taken in range(1, 1000):
                await anext(chunks)
                assert len(passed) <= taken + HIGH_WATER + READ // len(SMALL) + 1
            await asyncio.to_thread(server.exchange().wait_stalled)
            assert len(passed) <= 999 + HIGH_WATER + READ // len(SMALL) + 1


async def test_generator_is_advanced_at_most_to_the_high_water_mark():
    """A provider's generator is at most the high-water mark ahead of its consumer."""
    llm = Counting()
    async with llm.astream("p") as chunks:
        for taken in range(1, 300):
            assert str(taken) == str(await anext(chunks))
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(llm.begun) <= taken + HIGH_WATER + 1
        assert len(llm.begun) > 299  # the generator was ahead, but not far


def memory():
    """Return the resident memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_plain_loop_reads_100_mib_in_bounded_memory():
    """Chunks that were read are not kept, except a few MiB for an error's `partial`."""
    with FakeServer(Reply([Endless(HUGE)])) as server, model(server).stream("p") as chunks:
        next(chunks)
        before = memory()
        size = sum(len(str(chunk)) for _, chunk in zip(range(1600), chunks, strict=False))
        assert 1600 * 64 * 1024 == size
        assert memory() - before < 60


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_async_loop_reads_100_mib_in_bounded_memory():
    """Chunks that were read are not kept, except a few MiB for an error's `partial`."""
    with FakeServer(Reply([Endless(HUGE)])) as server:
        async with model(server).astream("p") as chunks:
            await anext(chunks)
            before = memory()
            for _ in range(1600):
                await anext(chunks)
            assert memory() - before < 60


def test_pause_of_the_consumer_does_not_time_out(server):
    """A consumer may pause for longer than the idle limit without a Timeout."""
    llm = model(server, timeout=rxllm.Timeouts(idle=1))
    with llm.stream("p") as chunks:
        next(chunks)
        stalled = server.exchange().wait_stalled()
        assert not threading.Event().wait(1.5)  # the pause
        for _ in chunks:
            if server.exchange().bytes_sent > stalled:
                break


async def test_silent_server_times_out_after_a_pause_of_the_consumer():
    """Time at an open gate counts as idle time: the limit holds again once the consumer reads."""
    with FakeServer(Reply([SMALL * 200, Signal()])) as server:
        llm = model(server, timeout=rxllm.Timeouts(first_chunk=None, idle=0.1))
        async with llm.astream("p") as chunks:
            await anext(chunks)
            await server.exchange().arrived.soon()
            with pytest.raises(rxllm.Timeout):
                async for _ in chunks:
                    pass


async def parked(gate):
    """Return when a pump waits at the gate."""
    while not gate._waiters:  # noqa: ASYNC110  (a gate has no event for that)
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["iterator", "collection", "async"])
async def test_closed_gate_stops_pulling(kind):
    """While the gate is closed, no item is pulled, neither the first nor a later one."""
    pulled, received = [], []

    class Numbers(list):
        def __iter__(self):
            for number in range(5):
                pulled.append(number)
                yield number

    async def numbers():
        for number in Numbers([1]):
            yield number

    source = {
        "iterator": from_iter(lambda: iter(Numbers([1]))),
        "collection": from_iter(Numbers([1])),
        "async": from_aiter(numbers),
    }[kind]
    scheduler = Scheduler(asyncio.get_running_loop())

    def hear(number):
        received.append(number)
        scheduler.gate.close()

    scheduler.gate.close()
    ended = asyncio.Event()
    source.subscribe(hear, on_completed=ended.set, scheduler=scheduler)
    for number in range(5):
        await parked(scheduler.gate)
        assert (list(range(number)), list(range(number))) == (pulled, received)
        scheduler.gate.open()
        assert not scheduler.gate._waiters
    await parked(scheduler.gate)
    scheduler.gate.open()
    await ended.wait()
    assert [0, 1, 2, 3, 4] == received


def test_endless_iterator_is_read_at_most_to_the_high_water_mark():
    """A plain loop over `from_iter` pulls at most the high-water mark ahead."""
    pulled = []

    def numbers():
        while True:
            pulled.append(None)
            yield len(pulled)

    with from_iter(numbers).pipe(rxllm.stream()) as items:
        for taken in range(1, 500):
            assert taken == next(items)
            assert len(pulled) <= taken + HIGH_WATER + 2


async def test_opening_a_gate_wakes_all_waiters():
    """Opening wakes each waiter, and a cancelled waiter does not disturb the others."""
    gate = Gate()
    await gate.wait()
    gate.close()
    waiting = [asyncio.create_task(gate.wait()) for _ in range(10)]
    await parked(gate)
    waiting[3].cancel()
    gate.open()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [None] * 3 + [asyncio.CancelledError] + [None] * 6 == [result and type(result) for result in results]


async def test_each_waiter_of_a_gate_gets_a_turn():
    """A waiter goes on even if the first one has closed the gate again; else the others would starve."""
    gate, passed = Gate(), []

    async def pump(name):
        while len(passed) < 30:
            await gate.wait()
            passed.append(name)
            gate.close()

    async def open_again():
        while len(passed) < 30:
            await parked(gate)
            gate.open()

    gate.close()
    pumps = [asyncio.create_task(pump(name)) for name in "abc"]
    opening = asyncio.create_task(open_again())
    await opening
    gate.open()
    await asyncio.gather(*pumps)
    assert {"a": 10, "b": 10, "c": 10} == {name: passed[:30].count(name) for name in "abc"}


async def test_no_merged_stream_starves():
    """However fast one source emits, the other sources of a merged stream are read too."""

    async def endless():
        while True:
            yield "endless"

    async with rx.merge(from_aiter(endless), from_iter([1, 2, 3])).pipe(rxllm.astream()) as items:
        seen = [await anext(items) for _ in range(500)]
        assert {"endless", 1, 2, 3} == set(seen)
