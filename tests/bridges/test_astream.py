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


async def test_items_come_in_order_to_the_end():
    """All items, then the loop ends; what has ended stays so."""
    items = rx.of(1, 2, 3).pipe(rxllm.astream())
    assert isinstance(items, AsyncStream)
    assert items is aiter(items)
    assert [1, 2, 3] == [item async for item in items]
    assert [] == [item async for item in items]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
async def test_no_item_is_lost_at_the_marks(size):
    """Whatever their number, all items come, also those that came before the error."""
    numbers = range(size)
    assert list(numbers) == [item async for item in rxllm.from_iter(numbers).pipe(rxllm.astream())]
    assert list(numbers) == [item async for item in rx.from_(numbers).pipe(rxllm.astream())]

    async def failing():
        for number in numbers:
            yield number
        raise ValueError("boom")

    items = rxllm.from_aiter(failing).pipe(rxllm.astream())
    heard = [await anext(items) for _ in numbers]
    with pytest.raises(ValueError, match="boom"):
        await anext(items)
    assert list(numbers) == heard
    assert [] == [item async for item in items]


async def test_nothing_is_sent_before_the_first_anext():
    """Neither by asking, nor by entering the block, nor by leaving it."""
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


async def test_a_stream_may_be_made_where_no_loop_runs():
    """Which loop it belongs to is decided by its first `anext`."""
    items = await asyncio.to_thread(lambda: rxllm.Embedded().astream("p"))
    assert "" != "".join([str(item) async for item in items])


async def test_what_is_closed_is_over():
    """Before the first `anext`, in the middle, and twice."""
    unread = rx.of(1, 2, 3).pipe(rxllm.astream())
    await unread.aclose()
    assert [] == [item async for item in unread]
    items = rx.of(1, 2, 3).pipe(rxllm.astream())
    assert 1 == await anext(items)
    await items.aclose()
    await items.aclose()
    assert [] == [item async for item in items]


async def test_closing_waits_until_the_request_is_closed():
    """When `aclose` returns, the stream's task is over."""
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


async def test_another_task_may_close_a_loop_that_waits():
    """The loop ends, as if the source had."""
    with FakeServer(Reply([Chat().stream(["Hel"])[1], End.HANG])) as server:
        chunks = rxllm.OpenAI("m", base_url=server.url).astream("p")
        heard, first = [], asyncio.Event()

        async def read():
            async for chunk in chunks:
                heard.append(str(chunk))
                first.set()

        reader = asyncio.create_task(read())
        await first.wait()
        await chunks.aclose()
        await asyncio.wait_for(reader, 5)
        assert ["Hel"] == heard
        await server.exchange().closed.soon()


async def test_the_end_of_the_reading_task_is_not_the_end_of_the_stream():
    """A task may begin a stream and hand it on; only a cancelled one closes it."""
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


async def test_a_task_that_reads_many_streams_keeps_none():
    """What a long-lived task has read leaves nothing at it."""

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
    """Whoever waits hears an item, and the end."""
    subject = Subject()
    reading = asyncio.create_task(collected(subject.pipe(rxllm.astream())))
    while not subject.observers:  # noqa: ASYNC110  (it knows no event for that)
        await asyncio.sleep(0)
    for number in range(200):
        subject.on_next(number)
    subject.on_completed()
    assert list(range(200)) == await reading


async def test_items_of_another_thread_wake_the_reader():
    """At once, and as the loop allows it: in debug mode it refuses what is not safe."""
    asyncio.get_running_loop().set_debug(True)
    subject = Subject()
    reading = asyncio.create_task(collected(subject.pipe(rxllm.astream())))
    while not subject.observers:  # noqa: ASYNC110  (it knows no event for that)
        await asyncio.sleep(0)
    for number in range(3):
        await asyncio.to_thread(subject.on_next, number)
        await asyncio.sleep(0)
    await asyncio.to_thread(subject.on_completed)
    assert [0, 1, 2] == await asyncio.wait_for(reading, 5)


async def test_an_item_that_comes_before_the_reader_waits_is_not_waited_for():
    """Another thread's may come between the look and the wait; and many, before the gate is closed."""
    sink = _Sink(rx.never)
    sink.start()
    sink.items.append(1)
    await asyncio.wait_for(sink.wait(), 5)
    sink.items.clear()
    waiting = sink.wait()
    sink.on_completed()
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(sink.wait(), 5)


async def test_the_gate_is_open_again_when_another_threads_burst_has_been_read():
    """It was closed by that thread, while this one was busy."""
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


async def collected(items):
    """All that comes."""
    return [item async for item in items]


async def test_a_failing_subscription_reaches_the_loop():
    """What an operator raises while it is subscribed to is the loop's error."""

    def raising(observer, scheduler=None):
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        await anext(rx.create(raising).pipe(rxllm.astream()))


async def test_a_cancelled_wait_takes_no_item():
    """An item that comes in the moment of a cancellation is the next one's."""
    subject = Subject()
    items = subject.pipe(rxllm.astream())
    waiting = asyncio.create_task(anext(items))
    while not subject.observers:  # noqa: ASYNC110  (it knows no event for that)
        await asyncio.sleep(0)
    subject.on_next(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    subject.on_next(2)
    assert [1, 2] == [await anext(items), await anext(items)]
    await items.aclose()


def test_an_iterator_may_outlive_its_loop():
    """It is collected quietly, in whatever thread, when its loop is closed."""

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


async def test_an_iterator_may_be_collected_in_another_thread():
    """Its request is closed all the same."""
    with FakeServer(Reply([Chat().stream(["Hel"])[1], End.HANG])) as server:
        kept = [rxllm.OpenAI("m", base_url=server.url).astream("p")]
        await anext(kept[0])
        dropped = Signal()
        thread = threading.Thread(target=lambda: (kept.clear(), dropped.set()))
        thread.start()
        await dropped.soon()
        await server.exchange().closed.soon()
        thread.join()
