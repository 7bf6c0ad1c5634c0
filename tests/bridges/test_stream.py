"""`stream`: an Observable in a plain loop."""

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import reactivex as rx
from protocols import Chat
from reactivex import operators as ops
from reactivex.subject import Subject

import rxllm
from rxllm import LLM, SyncStream
from rxllm.bridges.stream import CallerStream
from rxllm.runtime.portal import portal
from rxllm.testing import End, FakeServer, Reply, Signal


def test_items_arrive_in_order_and_the_loop_ends():
    """The loop gets all items and ends; a stream that has ended stays ended."""
    items = rx.of(1, 2, 3).pipe(rxllm.stream())
    assert isinstance(items, SyncStream)
    assert items is iter(items)
    assert [1, 2, 3] == list(items)
    assert [] == list(items)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_no_item_is_lost_at_the_water_marks(size):
    """All items arrive whatever their number, also those before an error."""
    numbers = range(size)
    assert list(numbers) == list(rxllm.from_iter(numbers).pipe(rxllm.stream()))
    assert list(numbers) == list(rx.from_(numbers).pipe(rxllm.stream()))

    def failing():
        yield from numbers
        raise ValueError("boom")

    items = rxllm.from_iter(failing).pipe(rxllm.stream())
    received = [next(items) for _ in numbers]
    with pytest.raises(ValueError, match="boom"):
        next(items)
    assert list(numbers) == received
    assert [] == list(items)


def test_error_is_raised_once():
    """After the error the stream has ended."""
    items = rx.throw(ValueError("boom")).pipe(rxllm.stream())
    with pytest.raises(ValueError, match="boom"):
        next(items)
    assert [] == list(items)


def test_first_next_sends_the_request():
    """Making the stream, and entering and leaving its block, sends nothing."""
    with FakeServer(Reply(Chat().stream(["Hel"]))) as server:
        llm = rxllm.OpenAI("m", base_url=server.url)
        llm.stream("p")
        with llm.stream("p"):
            pass
        llm.stream("p").close()
        iter(llm.stream("p"))
        assert [] == server.requests
        assert "Hel" == str(next(llm.stream("p")))
        assert 1 == len(server.requests)


def test_closed_stream_has_ended():
    """A stream may be closed before the first `next`, in the middle, and twice."""
    unread = rx.of(1, 2, 3).pipe(rxllm.stream())
    unread.close()
    assert [] == list(unread)
    items = rx.of(1, 2, 3).pipe(rxllm.stream())
    assert 1 == next(items)
    items.close()
    items.close()
    assert [] == list(items)


def test_close_in_another_thread_ends_a_waiting_loop():
    """The loop ends as at the end of the source."""
    with FakeServer(Reply([Chat().stream(["Hel"])[1], End.HANG])) as server:
        chunks = rxllm.OpenAI("m", base_url=server.url).stream("p")
        received, first = [], Signal()

        def read():
            for chunk in chunks:
                received.append(str(chunk))
                first.set()

        reader = threading.Thread(target=read)
        reader.start()
        first.wait()
        chunks.close()
        reader.join(5)
        assert not reader.is_alive()
        assert ["Hel"] == received
        server.exchange().wait_closed()


def test_items_of_another_thread_wake_the_loop():
    """A waiting loop gets an item of any thread, and the end."""
    subject, subscribed = Subject(), Signal()

    def subscribe(_):
        portal().call_soon(subscribed.set)  # after this callback
        return subject

    def speak():
        subscribed.wait()
        subject.on_next(1)
        subject.on_next(2)
        subject.on_completed()

    speaker = threading.Thread(target=speak)
    speaker.start()
    assert [1, 2] == list(rx.defer(subscribe).pipe(rxllm.stream()))
    speaker.join()


def test_collected_stream_frees_its_graph():
    """When the stream is collected, nothing of its graph is kept."""

    class Item:
        pass

    items = rx.of(*(Item() for _ in range(3))).pipe(rxllm.stream())
    item = weakref.ref(next(items))
    del items
    told = Signal()
    portal().call_soon_threadsafe(told.set)
    told.wait()
    gc.collect()
    assert None is item()


def test_exception_while_subscribing_reaches_the_loop():
    """The loop raises what an operator raises in `subscribe`."""

    def raising(observer, scheduler=None):
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        list(rx.create(raising).pipe(rxllm.stream()))


def test_graph_runs_on_the_background_loop():
    """Operators run in one thread, which is not the reader's."""
    names = rxllm.Embedded()("p").pipe(ops.map(lambda _: threading.current_thread().name), rxllm.stream())
    assert {"rxllm-portal"} == set(names)


# ── the reader's thread pulls prompts ────────────────────────────────────────────────────────────────────


class Echo(LLM):
    """A model that answers with its prompt."""

    async def complete(self, request):
        """The prompt."""
        return request.text


def test_reader_pulls_the_prompts():
    """A database cursor, which belongs to one thread, works as a source of prompts."""
    threads = set()

    def prompts():
        for number in range(20):
            threads.add(threading.get_ident())
            yield str(number)

    assert [str(number) for number in range(20)] == [str(answer) for answer in Echo().batch(prompts())]
    pairs = {index: str(answer) for index, answer in Echo().batch_as_completed(prompts())}
    assert {number: str(number) for number in range(20)} == pairs
    assert {threading.get_ident()} == threads


def test_prompts_are_pulled_only_while_the_reader_waits():
    """Prompts are pulled only while `next` runs."""
    inside = False
    pulled = []

    def prompts():
        for number in range(20):
            pulled.append(inside)
            yield str(number)

    answers = Echo().batch_as_completed(prompts(), max_concurrency=2)
    for _ in range(20):
        inside = True
        next(answers)
        inside = False
    assert [True] * 20 == pulled


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, StopIteration])
def test_exception_of_the_prompts_reaches_the_reader(error):
    """It ends the batch, also if it is Ctrl-C, and the background loop does not see it."""
    reported, loop = [], portal()

    class Prompts:
        def __init__(self):
            self.numbers = iter(range(3))

        def __iter__(self):
            return self

        def __next__(self):
            if (number := next(self.numbers, None)) is None:
                raise error
            return str(number)

    loop.call_soon_threadsafe(loop.set_exception_handler, lambda _, context: reported.append(context))
    if error is StopIteration:
        assert 3 == len(Echo().batch(Prompts()))
    else:
        with pytest.raises(error):
            Echo().batch(Prompts())
    told = Signal()
    loop.call_soon_threadsafe(loop.set_exception_handler, None)
    loop.call_soon_threadsafe(told.set)
    told.wait()
    assert [] == reported


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pthread_kill")
def test_ctrl_c_wakes_a_waiting_loop():
    """`next` raises it, and the request is closed."""
    with FakeServer(Reply([End.HANG])) as server:

        def interrupt():
            server.exchange().arrived.wait()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        chunks = rxllm.OpenAI("m", base_url=server.url).stream("p")
        with pytest.raises(KeyboardInterrupt):
            next(chunks)
        interrupter.join()
        server.exchange().wait_closed()
        assert [] == list(chunks)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_that_reads_a_stream_of_its_parent_raises_misuse():
    """The items go to the parent, which continues to read."""
    script = """
import os, rxllm
words = rxllm.from_iter(iter(["a", "b"])).pipe(rxllm.stream())
print(next(words), flush=True)
child = os.fork()
if not child:
    try:
        list(words)
    except rxllm.MisuseError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(*words)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1])},
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    first, told, rest = done.stdout.splitlines()
    assert ("a", "b") == (first, rest)
    assert "begun by the parent of this process" in told


@pytest.mark.parametrize("use", [rxllm.stream(), rxllm.astream(), lambda it: rxllm.text()(it).subscribe()])
def test_stream_of_anything_but_an_observable_raises_misuse(use):
    """The error names the ways to make an Observable."""
    with pytest.raises(rxllm.MisuseError, match="An Observable was expected here, not str"):
        use("abc")


def test_exception_while_building_the_graph_reaches_the_reader():
    """It is raised on the background loop, so without this the loop would wait for ever."""

    def operator(source):
        raise LookupError("no")

    with pytest.raises(LookupError):
        list(CallerStream([1], operator))


@pytest.mark.parametrize("create_stream", [lambda llm: llm("hi"), lambda llm: llm.stream("hi")])
async def test_async_for_over_a_plain_stream_names_the_right_method(create_stream):
    """The error names the method to use."""
    with pytest.raises(rxllm.MisuseError, match=r"llm.astream\(prompt\)"):
        async for _ in create_stream(rxllm.Embedded()):
            pass
