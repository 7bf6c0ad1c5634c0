"""`astream`: an Observable in an asynchronous loop."""

import asyncio
import gc
import threading
import weakref

import pytest
import reactivex as rx
from protocols import Chat
from reactivex.subject import Subject

import rxllm
from rxllm import AsyncStream
from rxllm.bridges.astream import _Sink
from rxllm.testing import End, FakeServer, Reply, Signal


async def test_items_arrive_in_order_and_the_loop_ends():
    """The loop gets all items and ends; a stream that has ended stays ended."""
    items = rx.of(1, 2, 3).pipe(rxllm.astream())
    assert isinstance(items, AsyncStream)
    assert items is aiter(items)
    assert [1, 2, 3] == [item async for item in items]
    assert [] == [item async for item in items]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
async def test_no_item_is_lost_at_the_water_marks(size):
    """All items arrive whatever their number, also those before an error."""
    numbers = range(size)
    assert list(numbers) == [item async for item in rxllm.from_iter(numbers).pipe(rxllm.astream())]
    assert list(numbers) == [item async for item in rx.from_(numbers).pipe(rxllm.astream())]

    async def failing():
        for number in numbers:
            yield number
        raise ValueError("boom")

    items = rxllm.from_aiter(failing).pipe(rxllm.astream())
    received = [await anext(items) for _ in numbers]
    with pytest.raises(ValueError, match="boom"):
        await anext(items)
    assert list(numbers) == received
    assert [] == [item async for item in items]


async def test_first_anext_sends_the_request():
    """Making the stream, and entering and leaving its block, sends nothing."""
    with FakeServer(Reply(Chat().stream(["Hel"]))) as server:
        llm = rxllm.OpenAI("m", base_url=server.url)
        llm.astream("p")
        async with llm.astream("p"):
            pass
        await llm.astream("p").aclose()
        aiter(llm.astream("p"))
        assert [] == server.requests
        assert "Hel" == str(await anext(llm.astream("p")))
        assert 1 == len(server.requests)


async def test_stream_made_without_a_loop_belongs_to_the_loop_that_reads():
    """The first `anext` decides to which loop the stream belongs."""
    items = await asyncio.to_thread(lambda: rxllm.Embedded().astream("p"))
    assert "" != "".join([str(item) async for item in items])


async def test_closed_stream_has_ended():
    """A stream may be closed before the first `anext`, in the middle, and twice."""
    unread = rx.of(1, 2, 3).pipe(rxllm.astream())
    await unread.aclose()
    assert [] == [item async for item in unread]
    items = rx.of(1, 2, 3).pipe(rxllm.astream())
    assert 1 == await anext(items)
    await items.aclose()
    await items.aclose()
    assert [] == [item async for item in items]


async def test_aclose_returns_after_the_request_is_closed():
    """When `aclose` returns, the task of the stream has ended."""
    tasks = asyncio.all_tasks()
    closed = []

    async def items():
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(asyncio.current_task() in tasks)

    async with rxllm.from_aiter(items).pipe(rxllm.astream()) as stream:
        await anext(stream)
    assert [False] == closed
    assert tasks == asyncio.all_tasks()


async def test_aclose_in_another_task_ends_a_waiting_loop():
    """The loop ends as at the end of the source."""
    with FakeServer(Reply([Chat().stream(["Hel"])[1], End.HANG])) as server:
        chunks = rxllm.OpenAI("m", base_url=server.url).astream("p")
        received, first = [], asyncio.Event()

        async def read():
            async for chunk in chunks:
                received.append(str(chunk))
                first.set()

        reader = asyncio.create_task(read())
        await first.wait()
        await chunks.aclose()
        await asyncio.wait_for(reader, 30)
        assert ["Hel"] == received
        await server.exchange().closed.soon()


async def test_end_of_the_reading_task_does_not_close_the_stream():
    """A task may begin a stream and hand it on; only a cancelled task closes it."""
    released = asyncio.Event()

    async def numbers():
        yield 1
        await released.wait()
        yield 2

    async def begin():
        items = rxllm.from_aiter(numbers).pipe(rxllm.astream())
        assert 1 == await anext(aiter(items))
        return items

    items = await asyncio.create_task(begin())
    for _ in range(3):
        await asyncio.sleep(0)
    released.set()
    assert [2] == [item async for item in items]


async def test_reading_task_keeps_no_finished_stream():
    """A long-lived task holds no reference to the streams that it has read."""

    class Item:
        pass

    kept = []
    for _ in range(3):
        source = rx.of(Item(), Item())
        kept += [weakref.ref(item) async for item in source.pipe(rxllm.astream())]
        async for item in source.pipe(rxllm.astream()):
            kept += [weakref.ref(item)]
            break
        async with source.pipe(rxllm.astream()) as items:
            kept.append(weakref.ref(await anext(items)))
    del source, item, items
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert [None] * len(kept) == [item() for item in kept]


async def test_items_of_the_same_loop_wake_the_reader():
    """A waiting reader gets an item, and the end."""
    subject = Subject()
    reading = asyncio.create_task(collected(subject.pipe(rxllm.astream())))
    while not subject.observers:  # noqa: ASYNC110  (a Subject has no event for that)
        await asyncio.sleep(0)
    for number in range(200):
        subject.on_next(number)
    subject.on_completed()
    assert list(range(200)) == await reading


async def test_items_of_another_thread_wake_the_reader():
    """The reader wakes at once, by calls that are safe from another thread: a loop in debug mode refuses others."""
    asyncio.get_running_loop().set_debug(True)
    subject = Subject()
    reading = asyncio.create_task(collected(subject.pipe(rxllm.astream())))
    while not subject.observers:  # noqa: ASYNC110  (a Subject has no event for that)
        await asyncio.sleep(0)
    for number in range(3):
        await asyncio.to_thread(subject.on_next, number)
        await asyncio.sleep(0)
    await asyncio.to_thread(subject.on_completed)
    assert [0, 1, 2] == await asyncio.wait_for(reading, 30)


async def test_item_between_check_and_wait_wakes_the_reader():
    """Another thread may add an item between the reader's check and its wait, and many before the gate closes."""
    sink = _Sink(rx.never)
    sink.start()
    sink.items.append(1)
    async with asyncio.timeout(30):
        await sink.more()
        sink.items.clear()
        waiting = sink.more()
        sink.on_completed()
        await waiting
        with pytest.raises(StopAsyncIteration):
            await sink.more()


async def test_last_item_between_two_checks_reaches_the_reader():
    """Another thread may add the last item after the reader saw no item, and end the stream before its next check."""

    class Ending(_Sink):
        speaks = ends = False

        @property
        def ended(self):
            if self.speaks and not self.ends:
                self.ends = True
                self.items.append("last")
            return self.ends

        @ended.setter
        def ended(self, value):
            self.ends = value

    sink = Ending(rx.never)
    sink.start()
    sink.speaks = True
    assert "last" == await asyncio.wait_for(sink.next(), 30)


async def test_gate_reopens_after_a_burst_of_another_thread():
    """The other thread closed it while the reader was emptying the buffer."""
    subject, homes = Subject(), []

    def noting(observer, scheduler=None):
        homes.append(scheduler)
        return subject.subscribe(observer)

    stream = rx.create(noting).pipe(rxllm.astream())
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    speaker = threading.Thread(target=lambda: [subject.on_next(number) for number in range(100)])
    speaker.start()
    speaker.join()
    await asyncio.sleep(0)
    assert [*range(100)] == [await first] + [await anext(stream) for _ in range(99)]
    assert homes[0].gate.is_open
    await stream.aclose()


async def test_roused_burst_returns_without_items_and_loses_none():
    """`rouse` ends the wait of `burst`; the next burst gets what came since."""
    subject = Subject()
    async with subject.pipe(rxllm.astream()) as stream:
        waiting = asyncio.ensure_future(stream.burst())
        await asyncio.sleep(0)
        stream.rouse()
        stream.rouse()
        assert [] == await waiting
        waiting = asyncio.ensure_future(stream.burst())
        await asyncio.sleep(0)
        subject.on_next(1)
        subject.on_next(2)
        stream.rouse()
        assert [1, 2] == await waiting


async def collected(items):
    """Return all items."""
    return [item async for item in items]


async def test_exception_while_subscribing_reaches_the_loop():
    """The loop raises what an operator raises in `subscribe`."""

    def raising(observer, scheduler=None):
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        await anext(rx.create(raising).pipe(rxllm.astream()))


async def test_cancelled_anext_takes_no_item():
    """The next `anext` gets an item that arrives at the moment of a cancellation."""
    subject = Subject()
    items = subject.pipe(rxllm.astream())
    waiting = asyncio.create_task(anext(items))
    while not subject.observers:  # noqa: ASYNC110  (a Subject has no event for that)
        await asyncio.sleep(0)
    subject.on_next(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    subject.on_next(2)
    assert [1, 2] == [await anext(items), await anext(items)]
    await items.aclose()


def test_stream_that_outlives_its_loop_is_collected_quietly():
    """Any thread may collect the stream after its loop was closed."""

    async def begin():
        items = rxllm.Embedded().astream("p")
        await anext(items)
        return [items]

    kept = asyncio.run(begin())
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert [] == kept


async def test_stream_collected_in_another_thread_closes_its_request():
    """The request is closed on the stream's own loop."""
    with FakeServer(Reply([Chat().stream(["Hel"])[1], End.HANG])) as server:
        kept = [rxllm.OpenAI("m", base_url=server.url).astream("p")]
        await anext(kept[0])
        dropped = Signal()
        thread = threading.Thread(target=lambda: (kept.clear(), dropped.set()))
        thread.start()
        await dropped.soon()
        await server.exchange().closed.soon()
        thread.join()
