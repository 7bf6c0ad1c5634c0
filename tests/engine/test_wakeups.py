"""Wake-ups: tasks that go on in the turn of the event loop in which a packet arrives."""

import asyncio
import contextvars
import itertools
import selectors
import socket
import threading
import weakref

import pytest

import rxllm
from rxllm.runtime.wakeups import Wakeup, in_one_turn

NAME = contextvars.ContextVar("NAME", default="none")


def in_turn_of_loop(call):
    """Let the event loop call it, outside of tasks; return a future of its result."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(call()))
    return done


async def waiting(*coroutines):
    """Begin tasks, and return them as soon as they wait."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


async def test_woken_tasks_and_those_that_they_wake_go_on_at_once():
    """The third task, which the program wakes, goes on in the next turn."""
    loop, seen = asyncio.get_running_loop(), []
    wakeups = [Wakeup(loop) for _ in range(3)]

    async def chain(number):
        await wakeups[number]
        seen.append(number)
        if number < 2:
            wakeups[number + 1].set_result(None)

    tasks = await waiting(*map(chain, range(3)))

    def packet():
        in_one_turn(wakeups[0].set_result, None, loop)
        return [*seen]

    assert [0, 1] == await in_turn_of_loop(packet)
    await asyncio.gather(*tasks)
    assert [0, 1, 2] == seen


async def test_task_that_goes_on_at_once_is_the_current_task_in_its_own_context():
    """As it is when the event loop resumes it."""
    wakeup, seen = Wakeup(asyncio.get_running_loop()), []

    async def task():
        NAME.set("task")
        await wakeup
        seen.append((asyncio.current_task(), NAME.get()))

    tasks = await waiting(task())
    loop = asyncio.get_running_loop()
    await in_turn_of_loop(lambda: in_one_turn(wakeup.set_result, None, loop))
    assert [(tasks[0], "task")] == seen
    assert NAME.get() == "none"


async def test_wakeup_without_a_packet_comes_in_the_next_turn():
    """Also within a task, where asyncio could not resume another one."""
    loop = asyncio.get_running_loop()
    wakeups, seen = [Wakeup(loop), Wakeup(loop)], []

    async def task(number):
        await wakeups[number]
        seen.append(number)

    tasks = await waiting(task(0), task(1))
    wakeups[0].set_result(None)
    in_one_turn(wakeups[1].set_result, None, loop)
    assert [] == seen
    await asyncio.gather(*tasks)
    assert [0, 1] == sorted(seen)


async def test_wakeup_that_is_done_is_not_awaited():
    """Its task goes on without a turn."""
    wakeup = Wakeup(asyncio.get_running_loop())
    wakeup.set_result(None)
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await wakeup
    assert wakeup.done()
    assert [] == turns


async def test_exception_of_a_wakeup_is_raised_in_its_task():
    """In the next turn."""
    wakeup = Wakeup(asyncio.get_running_loop())

    async def task():
        await wakeup

    (running,) = await waiting(task())
    wakeup.set_exception(KeyError("word"))
    with pytest.raises(KeyError, match="word"):
        await running


async def test_cancelled_task_gets_its_cancellation_before_or_after_it_is_woken():
    """Before, at the wait; after, at its next wait, as with a future."""
    loop, seen = asyncio.get_running_loop(), []
    wakeups = [Wakeup(loop), Wakeup(loop)]

    async def task(number):
        try:
            await wakeups[number]
        except asyncio.CancelledError as error:
            seen.append((number, error.args))
            raise

    tasks = await waiting(task(0), task(1))
    tasks[0].cancel("enough")
    assert wakeups[0].done()
    assert not wakeups[0].cancel()
    wakeups[1].set_result(None)
    tasks[1].cancel("late")
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert [(0, ("enough",)), (1, ("late",))] == seen


@pytest.mark.usefixtures("no_collector")
async def test_cancelled_task_is_freed_with_what_its_frames_hold():
    """At once, without the garbage collector."""

    class Items:
        pass

    kept = weakref.WeakSet()

    async def task():
        items = Items()
        kept.add(items)
        await Wakeup(asyncio.get_running_loop())
        del items

    (running,) = await waiting(task())
    running.cancel()
    await asyncio.wait([running])
    assert 1 == len(kept)
    del running
    assert 0 == len(kept)


async def test_task_of_another_loop_is_refused():
    """As with a future."""
    wakeup = Wakeup(asyncio.get_running_loop())

    async def foreign():
        await wakeup

    with pytest.raises(RuntimeError, match="different loop"):
        await asyncio.to_thread(asyncio.run, foreign())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_of_a_woken_task_ends_the_loop_and_not_the_connection(kind):
    """The tasks after it go on, too."""
    loop, seen = asyncio.new_event_loop(), []
    wakeups = [Wakeup(loop), Wakeup(loop)]

    async def leave():
        await wakeups[0]
        raise kind(3)

    async def stay():
        await wakeups[1]
        seen.append("stayed")

    def packet():
        in_one_turn(lambda _: [wakeup.set_result(None) for wakeup in wakeups], None, loop)
        seen.append("the connection goes on")

    async def main():
        await waiting(leave(), stay())
        loop.call_soon(packet)
        await asyncio.sleep(3600)

    try:
        with pytest.raises(kind):
            loop.run_until_complete(main())
        assert ["stayed", "the connection goes on"] == seen
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class Counting(selectors.DefaultSelector):
    """Counts how often the event loop asks for events, which it does once in a turn."""

    turns = 0

    def select(self, timeout=None):
        """Count."""
        self.turns += 1
        return super().select(timeout)


class PingPong:
    """A server of one answer, which sends a token, in a packet of its own, each time it is told."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._told = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve)

    def next(self, last=False):
        """Send a token, or the end."""
        self._is_over = last
        self._told.release()

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = b""
            while b"\r\n\r\n{" not in request:
                request += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            while True:
                self._told.acquire()
                if self._is_over:
                    break
                connection.sendall(b'data: {"choices": [{"delta": {"content": "token "}}]}\n\n')
            connection.sendall(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.next(last=True)
        self._thread.join(30)
        self._listener.close()


def test_token_reaches_the_reader_in_the_turn_in_which_its_packet_arrives():
    """From the socket to the body of the `async for` there is no other turn of the event loop."""
    selector = Counting()
    turns = []

    async def read(server):
        llm = rxllm.OpenAI("m", api="chat", base_url=server.url, api_key="key")
        async with llm.astream("hi") as stream:
            server.next()
            async for _ in stream:
                turns.append(selector.turns)
                if len(turns) == 22:
                    break
                server.next()

    with PingPong() as server, asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(read(server))
    assert [1] * 20 == [after - before for before, after in itertools.pairwise(turns[1:])]
