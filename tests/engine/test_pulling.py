"""`pull`: a thread reads the items of a blocking iterable for the event loop, as many as there is room for."""

import asyncio
import contextlib
import itertools
import os
import threading

import pytest
from waiting import PATIENCE, wait_until

import rxllm
from rxllm.jobs.inputs import rows_in
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.threads import Worker, pull

ROOM = 64


class Asked(Worker):
    """Counts how often the event loop asks its thread."""

    def __init__(self):
        scheduler = Scheduler(asyncio.get_running_loop())
        super().__init__(scheduler.loop, scheduler.context)
        self.times = 0

    def put(self, job):
        """Called on the event loop, and in the thread for its next item."""
        self.times += threading.current_thread() is threading.main_thread()
        super().put(job)


def pulled(make, room=ROOM, calls=None):
    """The items, in a block that ends as a disposal does."""
    scheduler = Scheduler(asyncio.get_running_loop())
    scheduler.gate.room = room
    return contextlib.aclosing(pull(scheduler, make, calls))


@pytest.mark.parametrize("room", [1, 2, ROOM])
@pytest.mark.parametrize("count", [0, 1, ROOM - 1, ROOM, ROOM + 1, 10 * ROOM + 7])
async def test_all_items_arrive_in_their_order(room, count):
    """However many there are, and however much room there is."""
    async with pulled(lambda: range(count), room) as items:
        assert [*range(count)] == [item async for item in items]


async def test_thread_is_asked_once_for_the_items_that_there_is_room_for():
    """To ask it takes longer than to read an item."""
    calls = Asked()
    async with pulled(lambda: range(10 * ROOM), calls=calls) as items:
        assert 10 * ROOM == len([item async for item in items])
    assert calls.times <= 1 + 10 + 1  # to begin, for each room, and for the end


async def test_item_that_has_arrived_does_not_wait_for_the_next_one():
    """A pipe may be silent after any row."""
    went_on = threading.Event()

    def slow():
        for number in range(3 * ROOM):
            yield number
            went_on.wait(PATIENCE)
            went_on.clear()

    async with pulled(slow) as items:
        for number in range(3 * ROOM):
            assert number == await anext(items)
            went_on.set()


@pytest.mark.parametrize("room", [1, 5])
async def test_no_item_is_read_that_there_is_no_room_for(room):
    """The input may be endless, and its rows may be large."""
    read = []
    async with pulled(lambda: map(read.append, itertools.count()), room) as items:
        for taken in range(4 * room):
            await anext(items)
            assert len(read) <= (taken // room + 1) * room
    assert 4 * room == len(read)


async def test_error_comes_after_the_items_before_it():
    """A line that is no row stops the job at its place."""

    def broken():
        yield from range(ROOM + 3)
        raise rxllm.MisuseError("Line 68 is not JSON.")

    async with pulled(broken) as items:
        assert [*range(ROOM + 3)] == [await anext(items) for _ in range(ROOM + 3)]
        with pytest.raises(rxllm.MisuseError, match="Line 68"):
            await anext(items)


async def test_error_before_the_first_item():
    """The file is missing, or the iterable cannot be made."""
    with pytest.raises(rxllm.MisuseError, match="cannot be read"):
        await anext(rxllm.from_iter(lambda: rows_in("no-such-file.jsonl")).pipe(rxllm.astream()))
    with pytest.raises(TypeError, match="not iterable"):
        await anext(rxllm.from_iter(lambda: 7).pipe(rxllm.astream()))


@pytest.mark.parametrize("waits", ["for room", "for an item"])
async def test_disposal_closes_the_input(waits):
    """At once if the thread rests, else after the item that it reads; the event loop does not wait for it."""
    next_item, closed, read = threading.Event(), threading.Event(), []

    def items():
        try:
            for number in range(1000):
                if number == ROOM // 4 and waits == "for an item":
                    next_item.wait(PATIENCE)
                read.append(number)
                yield number
        finally:
            closed.set()

    expected = ROOM if waits == "for room" else ROOM // 4
    async with pulled(items) as stream:
        assert 0 == await anext(stream)
        await asyncio.to_thread(wait_until, lambda: len(read) == expected)
    assert waits == "for room" or not closed.is_set()
    next_item.set()
    await asyncio.to_thread(wait_until, closed.is_set)
    assert len(read) <= expected + 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
async def test_rows_of_a_pipe_are_emitted_as_they_come(tmp_path):
    """Each row before the next one is written."""
    path = tmp_path / "in.jsonl"
    os.mkfifo(path)
    # Opened for both directions, it opens without waiting for the other end.
    with path.open("r+b", buffering=0) as pipe:
        async with pulled(lambda: rows_in(str(path))) as rows:
            for number in range(5):
                pipe.write(b'{"prompt": "p%d"}\n' % number)
                assert {"prompt": f"p{number}"} == await asyncio.wait_for(anext(rows), PATIENCE)
