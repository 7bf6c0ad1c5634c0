"""`limited`: the limit for the next bytes holds only while a read waits for them."""

import asyncio

import pytest

from rxllm.testing import on_virtual_time
from rxllm.wire.timeouts import limited


class Silent(Exception):
    """No bytes arrived in time."""


def fail(read):
    """Return a function that makes a waiting read raise, as a transport does."""
    return lambda: read.set_exception(Silent)


@on_virtual_time
async def test_silence_fails_the_read():
    """After exactly the limit."""
    loop = asyncio.get_running_loop()
    read = loop.create_future()
    with pytest.raises(Silent):
        await limited(read, 5.0, fail(read))
    assert 5.0 == loop.time()


@on_virtual_time
async def test_bytes_that_arrive_while_the_loop_is_busy_count():
    """The limit has passed when the loop sees them, but the server was not silent."""
    loop = asyncio.get_running_loop()
    read = loop.create_future()

    def keep_busy():
        loop.advance(60.0)
        loop.call_soon(read.set_result, b"Hel")  # as the selector does in the turn in which the timer ends

    failures = []
    loop.call_later(1.0, keep_busy)
    assert b"Hel" == await limited(read, 5.0, lambda: failures.append(Silent))
    assert not failures


@on_virtual_time
async def test_reader_that_pauses_is_not_silence():
    """No timer runs between two reads, and none of an earlier read ends a later one."""
    loop = asyncio.get_running_loop()
    for _ in range(3):
        read = loop.create_future()
        loop.call_later(4.0, read.set_result, b"Hel")
        assert b"Hel" == await limited(read, 5.0, fail(read))
        await asyncio.sleep(100)
    assert not [timer for timer in loop._scheduled if not timer.cancelled()]
