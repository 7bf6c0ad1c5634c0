"""Many connections to one address are opened a few at a time."""

import asyncio

import pytest

from rxllm.testing import on_virtual_time
from rxllm.wire import slow_start
from rxllm.wire.slow_start import SlowStart


@pytest.fixture(autouse=True)
def two_at_a_time(monkeypatch):
    """Two turns suffice to see who waits."""
    monkeypatch.setattr(slow_start, "OPENING", 2)


class Connecting:
    """Opens connections that take four seconds, and records how many are being opened at once."""

    def __init__(self, error=None):
        self.start = SlowStart()
        self.error = error
        self.now = self.most = 0

    async def connect(self):
        """Take four seconds."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(4)
        finally:
            self.now -= 1
        if self.error is not None:
            raise self.error
        return asyncio.get_running_loop().time()

    async def open(self):
        """Return the time at which the connection is open, or the type of its error."""
        try:
            return await self.start.open(self.connect)
        except OSError as error:
            return type(error), asyncio.get_running_loop().time()


@on_virtual_time
async def test_connections_are_opened_a_few_at_a_time():
    """None fails because it had to wait for its turn, and a cancelled one gives its turn to the next."""
    connecting = Connecting()
    opening = [asyncio.create_task(connecting.open()) for _ in range(6)]
    await asyncio.sleep(1)
    opening[0].cancel()
    opening[3].cancel()
    times = await asyncio.gather(*opening, return_exceptions=True)
    assert [4, 5, 8, 9] == sorted(time for time in times if not isinstance(time, BaseException))
    assert 2 == connecting.most


@on_virtual_time
async def test_time_out_ends_the_wait_of_the_others():
    """Requests to a server that does not answer time out together; a later one tries again."""
    connecting = Connecting(TimeoutError())
    assert [(TimeoutError, 4)] * 5 == await asyncio.gather(*[connecting.open() for _ in range(5)])
    connecting.error = None
    assert 8 == await connecting.open()


@on_virtual_time
async def test_one_time_out_ends_no_wait_for_a_server_that_answers():
    """Another request got its connection meanwhile."""
    plan = [(3, None), (4, TimeoutError()), (4, None), (4, None)]

    async def connect():
        seconds, error = plan.pop(0)
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        return asyncio.get_running_loop().time()

    start = SlowStart()
    results = await asyncio.gather(*[start.open(connect) for _ in range(4)], return_exceptions=True)
    assert [3, TimeoutError, 7, 8] == [type(each) if isinstance(each, Exception) else each for each in results]


async def test_requests_that_begin_together_connect_after_all_have_begun(monkeypatch):
    """Otherwise the time limits of the first connections would end while the others begin."""
    monkeypatch.setattr(slow_start, "OPENING", 100)
    monkeypatch.setattr(slow_start, "FEW", 1)
    start, order = SlowStart(), []

    async def connect():
        order.append("connect")
        await asyncio.sleep(0)

    async def ask():
        order.append("ask")
        await start.open(connect)

    await asyncio.gather(ask(), ask(), ask())
    assert ["ask", "connect", "ask", "ask", "connect", "connect"] == order


@on_virtual_time
async def test_other_failures_concern_one_request():
    """The next one tries for itself."""
    connecting = Connecting(ConnectionResetError())
    results = await asyncio.gather(*[connecting.open() for _ in range(3)])
    assert [(ConnectionResetError, time) for time in (4, 4, 8)] == results
