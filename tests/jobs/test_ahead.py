"""`read_ahead`: a thread reads rows before they are needed."""

import asyncio
import contextlib
import os
import threading

import pytest
from waiting import PATIENCE, wait_until

import rxllm
from rxllm.jobs.ahead import AHEAD, _Reading, read_ahead
from rxllm.jobs.inputs import rows_in
from rxllm.runtime.scheduler import Scheduler


def unbuffered(make):
    """The items without the buffer of a stream, in a block that ends as a disposal does."""
    return contextlib.aclosing(_Reading(make).items(Scheduler(asyncio.get_running_loop())))


@pytest.mark.parametrize("count", [0, 1, AHEAD // 2, AHEAD - 1, AHEAD, AHEAD + 1, 10 * AHEAD + 7])
async def test_all_items_arrive_in_their_order(count):
    """However many there are."""
    assert [*range(count)] == [item async for item in read_ahead(lambda: range(count)).pipe(rxllm.astream())]


async def test_item_that_has_arrived_does_not_wait_for_the_next_one():
    """A pipe may be silent after any row."""
    went_on = threading.Event()

    def slow():
        for number in range(3 * AHEAD):
            yield number
            went_on.wait(PATIENCE)
            went_on.clear()

    async with read_ahead(slow).pipe(rxllm.astream()) as items:
        for number in range(3 * AHEAD):
            assert number == await anext(items)
            went_on.set()


async def test_thread_stays_a_bounded_number_of_items_ahead():
    """The input may be endless, and its rows may be large."""
    read, taken, leads = 0, 0, []

    def endless():
        nonlocal read
        while True:
            read += 1
            leads.append(read - taken)
            yield read

    async with unbuffered(endless) as items:
        for _ in range(5 * AHEAD):
            await anext(items)
            taken += 1
        await asyncio.to_thread(wait_until, lambda: read >= taken + AHEAD // 2)
    assert AHEAD // 2 <= max(leads) <= AHEAD + 1  # the item that is taken while it is counted


async def test_error_comes_after_the_items_before_it():
    """A line that is no row stops the job at its place."""

    def broken():
        yield from range(AHEAD + 3)
        raise rxllm.MisuseError("Line 68 is not JSON.")

    async with read_ahead(broken).pipe(rxllm.astream()) as items:
        assert [*range(AHEAD + 3)] == [await anext(items) for _ in range(AHEAD + 3)]
        with pytest.raises(rxllm.MisuseError, match="Line 68"):
            await anext(items)


async def test_error_before_the_first_item():
    """The file is missing."""
    with pytest.raises(rxllm.MisuseError, match="cannot be read"):
        await anext(read_ahead(lambda: rows_in("no-such-file.jsonl")).pipe(rxllm.astream()))


@pytest.mark.parametrize("waits", ["for room", "for an item"])
async def test_disposal_closes_the_input(waits):
    """At once if the thread waits for room, else after the item that it reads; the event loop does not wait for it."""
    next_item, closed, read = threading.Event(), threading.Event(), []

    def items():
        try:
            for number in range(1000):
                if number == AHEAD // 4 and waits == "for an item":
                    next_item.wait(PATIENCE)
                read.append(number)
                yield number
        finally:
            closed.set()

    async with unbuffered(items) as stream:
        assert 0 == await anext(stream)
        await asyncio.to_thread(wait_until, lambda: len(read) == (AHEAD if waits == "for room" else AHEAD // 4))
    assert waits == "for room" or not closed.is_set()
    next_item.set()
    await asyncio.to_thread(wait_until, closed.is_set)
    assert len(read) <= AHEAD


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
async def test_rows_of_a_pipe_are_emitted_as_they_come(tmp_path):
    """Each row before the next one is written."""
    path = tmp_path / "in.jsonl"
    os.mkfifo(path)
    # Opened for both directions, it opens without waiting for the other end.
    with path.open("r+b", buffering=0) as pipe:
        async with read_ahead(lambda: rows_in(str(path))).pipe(rxllm.astream()) as rows:
            for number in range(5):
                pipe.write(b'{"prompt": "p%d"}\n' % number)
                assert {"prompt": f"p{number}"} == await asyncio.wait_for(anext(rows), PATIENCE)
