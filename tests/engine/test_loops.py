"""One model works on any event loop, in any thread and in any kind of program."""

import asyncio
import contextvars
import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import field, frozen
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, MisuseError, observe
from rxllm.runtime.interrupts import wait_for
from rxllm.runtime.portal import portal
from rxllm.testing import End, FakeServer, Reply, Signal

HELLO = Reply(Chat().stream(["Hel", "lo"]))
HANGING = Reply([Chat().stream(["Hel"])[1], End.HANG])


def model(server):
    """Return a model that asks the server."""
    return rxllm.OpenAI("m", base_url=server.url)


@pytest.fixture
def hello():
    """A server that answers `Hello` in two chunks."""
    with FakeServer(HELLO) as server:
        yield server


async def text_of(llm, prompt="p"):
    """Return the answer, read by `async for`."""
    return "".join([str(chunk) async for chunk in llm.astream(prompt)])


# ── loops ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_serves_several_loops_in_turn(hello):
    """One model serves several `asyncio.run` in turn, and each closes its connections."""
    llm = model(hello)
    for number in range(5):
        assert "Hello" == asyncio.run(text_of(llm))
        hello.exchange(number).wait_closed()
    assert 0 == hello.open_connections


def test_requests_of_a_loop_share_a_connection(hello):
    """Requests in turn use one connection, on a loop and from synchronous code."""
    llm = model(hello)

    async def thrice():
        for _ in range(3):
            await llm.ainvoke("p")
            assert 1 == hello.open_connections

    asyncio.run(thrice())
    hello.exchange(0).wait_closed()
    for _ in range(3):
        llm.invoke("p")
        assert 1 == hello.open_connections


async def test_plain_loop_inside_a_running_loop_streams(hello):
    """A plain `for` inside a running loop, as in Jupyter, blocks that loop but still gets its items."""
    llm = model(hello)
    assert ["Hel", "lo"] == [str(chunk) for chunk in llm.stream("p") if str(chunk)]
    assert ["Hello"] == [str(answer) for answer in llm.batch(["p"])]
    assert "Hello" == str(llm.invoke("p")) == await text_of(llm)


def test_threads_stream_at_once(hello):
    """Eight threads share the background loop without disturbing each other."""
    llm = model(hello)
    start = threading.Barrier(8)

    def read(_):
        start.wait(30)
        return ["".join(map(str, llm.stream("p"))) for _ in range(5)]

    with ThreadPoolExecutor(8) as threads:
        assert [["Hello"] * 5] * 8 == list(threads.map(read, range(8)))


def test_loops_stream_at_once(hello):
    """Eight event loops stream at once without disturbing each other."""
    llm = model(hello)
    start = threading.Barrier(8)

    def read(_):
        start.wait(30)
        return asyncio.run(text_of(llm))

    with ThreadPoolExecutor(8) as threads:
        assert ["Hello"] * 8 == list(threads.map(read, range(8)))


async def test_thousand_streams_at_once_all_complete():
    """A thousand streams on one loop all complete, and no task is left."""
    released = Signal()
    events = Chat().stream(["Hel", "lo"])
    with FakeServer(Reply([events[1], released, *events[2:]])) as server:
        llm = model(server)
        tasks = asyncio.all_tasks()
        answers = [asyncio.create_task(text_of(llm)) for _ in range(1000)]
        await server.exchange(999).arrived.soon(30)
        assert 1000 == server.open_connections
        released.set()
        assert ["Hello"] * 1000 == await asyncio.gather(*answers)
        if left := asyncio.all_tasks() - tasks:
            await asyncio.wait_for(asyncio.wait(left), 5)
        assert set() == asyncio.all_tasks() - tasks


async def test_stream_read_on_another_loop_raises_misuse():
    """Reading a stream on another loop than it was begun on is a MisuseError."""
    with FakeServer(HANGING) as server:
        chunks = model(server).astream("p")
        await anext(chunks)

        async def read_on():
            await anext(chunks)

        with ThreadPoolExecutor(1) as thread, pytest.raises(MisuseError, match="another event loop"):
            thread.submit(asyncio.run, read_on()).result(5)
        await chunks.aclose()


async def test_second_reader_of_a_stream_raises_misuse():
    """If two tasks wait for the same stream, the second gets a MisuseError and the first continues."""
    released = Signal()
    events = Chat().stream(["Hel", "lo"])
    with FakeServer(Reply([released, *events])) as server:
        chunks = model(server).astream("p")
        first = asyncio.create_task(anext(chunks))
        await server.exchange().arrived.soon()
        with pytest.raises(MisuseError, match="Two tasks"):
            await anext(chunks)
        released.set()
        assert "Hel" == str(await first)
        await chunks.aclose()


# ── blocking code ────────────────────────────────────────────────────────────────────────────────────────────────


@frozen
class Blocking(LLM):
    """A model that asks another model from blocking code."""

    inner: LLM = field(factory=rxllm.Embedded)

    def complete(self, request):
        """Answer."""
        return f"<{self.inner.invoke(request)}>"


@frozen
class Echo(LLM):
    """A model that answers with its prompt."""

    async def complete(self, request):
        """Answer."""
        return request.text


def test_nested_blocking_models_do_not_deadlock():
    """Each blocking call has a thread of its own, so six nested models do not wait for each other."""
    llm = Echo()
    for _ in range(6):
        llm = Blocking(inner=llm)
    assert "<<<<<<p>>>>>>" == str(llm.invoke("p"))
    assert ["<<<<<<p>>>>>>"] * 20 == [str(answer) for answer in llm.batch(["p"] * 20, max_concurrency=20)]


async def test_nested_blocking_models_do_not_deadlock_on_a_loop():
    """Six nested blocking models asked on a running loop do not wait for each other."""
    llm = Echo()
    for _ in range(6):
        llm = Blocking(inner=llm)
    assert "<<<<<<p>>>>>>" == str(await llm.ainvoke("p"))


def test_synchronous_call_on_the_background_loop_raises_misuse():
    """The call would wait for itself; the error names the async form."""
    llm = Echo()
    for blocking in (llm.invoke, lambda text: list(llm.stream(text)), lambda text: llm.batch([text])):
        with pytest.raises(MisuseError, match="ainvoke"):
            list(llm("p").pipe(rxllm.text(), ops.map(blocking), rxllm.stream()))


# ── context ──────────────────────────────────────────────────────────────────────────────────────────────────────

USER = contextvars.ContextVar("USER", default="nobody")


def providers():
    """Return a provider of each kind; each answers with the user that it sees."""

    @frozen
    class Complete(LLM):
        async def complete(self, request):
            return USER.get()

    @frozen
    class BlockingComplete(LLM):
        def complete(self, request):
            return USER.get()

    @frozen
    class Chunks(LLM):
        async def chunks(self, request):
            yield USER.get()
            await asyncio.sleep(0)
            yield USER.get()

    @frozen
    class BlockingChunks(LLM):
        def chunks(self, request):
            yield USER.get()
            yield USER.get()

    return [Complete, BlockingComplete, Chunks, BlockingChunks]


class Seen:
    """A model with an operator and a handler, and the users that each of them saw."""

    def __init__(self, kind):
        self.names = []
        self.pipeline = rxllm.pipe(observe(kind(), self.note), ops.do_action(self.note))

    def note(self, event):
        """Record the user that this code sees."""
        self.names.append(USER.get())
        self.names += [str(event)] if isinstance(event, Chunk) and str(event) else []


@pytest.mark.parametrize("kind", providers())
def test_context_variables_reach_providers_operators_and_handlers(kind):
    """Each of them sees the subscriber's context variables, by each way to ask."""

    async def on_a_loop(seen):
        USER.set("loop")
        await seen.pipeline.ainvoke("p")
        async for _ in seen.pipeline.astream("p"):
            pass
        await seen.pipeline.abatch(["p", "q"])

    def in_sync(seen):
        USER.set("sync")
        seen.pipeline.invoke("p")
        list(seen.pipeline.stream("p"))
        seen.pipeline.batch(["p", "q"])

    def subscribed(seen):
        USER.set("subscriber")
        ended = Signal()
        seen.pipeline("p").subscribe(on_error=print, on_completed=ended.set)
        ended.wait()

    for run in (lambda seen: asyncio.run(on_a_loop(seen)), in_sync, subscribed):
        seen = Seen(kind)
        contextvars.copy_context().run(run, seen)
        assert 1 == len(set(seen.names))
        assert "nobody" not in seen.names
    assert "nobody" == USER.get()


def test_threads_keep_their_own_context():
    """Streams of several threads on one background loop see the context of their own thread."""

    def read(name):
        USER.set(name)
        seen = [Seen(kind) for kind in providers()]
        for one in seen:
            list(one.pipeline.stream("p"))
        return {name for one in seen for name in one.names}

    with ThreadPoolExecutor(8) as threads:
        names = [f"thread {number}" for number in range(8)]
        assert [{name} for name in names] == list(
            threads.map(lambda name: contextvars.copy_context().run(read, name), names)
        )


async def test_batched_requests_keep_their_own_context():
    """Each request of a batch has a context of its own, as each task has."""

    class Sets(rxllm.LLM):
        async def complete(self, request):
            seen = USER.get()
            USER.set(request.text)
            await asyncio.sleep(0)
            return f"{seen} {USER.get()}"

    USER.set("asker")
    answers = await Sets().abatch(["a", "b", "c"])
    assert ["asker a", "asker b", "asker c"] == [answer.text for answer in answers]


# ── programs ─────────────────────────────────────────────────────────────────────────────────────────────────────

# On a slow machine asyncio's debug mode, a part of -X dev, warns that importing httpx is slow.
PRELUDE = """
import asyncio, logging, os, sys, threading
import rxllm
logging.getLogger("asyncio").setLevel("ERROR")
llm = rxllm.OpenAI("m", base_url=sys.argv[1])
"""


def run(script, url, *, ignore=()):
    """Return what a program prints; it must end with status 0 and without a warning."""
    options = ["-X", "dev", "-W", "error", *(option for what in ignore for option in ("-W", f"ignore::{what}"))]
    done = subprocess.run(
        [sys.executable, *options, "-c", PRELUDE + script, url],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1])},
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


SUBSCRIBES = """
llm("p").subscribe(lambda chunk: print(chunk, end="", flush=True), print, lambda: print("!"))
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_script_that_only_subscribes_ends_after_its_stream(host):
    """The process lives until the stream has ended, even if the host name is still to be resolved."""
    events = Chat().stream(["Hel", "lo"])
    with FakeServer(Reply([*events[:2], 0.05, *events[2:]])) as server:
        assert "Hello!\n" == run(SUBSCRIBES, server.url.replace("127.0.0.1", host))


def test_script_ends_after_all_its_subscriptions(hello):
    """The process lives until each of several subscriptions has ended."""
    assert 3 == run(SUBSCRIBES * 3, hello.url).count("!")


def test_script_ends_after_a_nested_subscription():
    """A subscription made in `on_next` at the end of a script keeps the process alive too."""
    events = Chat().stream(["Hel", "lo"])
    script = """
llm("p").subscribe(on_completed=lambda: llm("q").subscribe(on_completed=lambda: print("!")))
"""
    with FakeServer(HELLO, Reply([*events[:2], 0.2, *events[2:]])) as server:
        assert "!\n" == run(script, server.url)


def test_script_with_a_half_read_stream_ends_at_once():
    """A stream that nobody reads further does not keep the process alive, and its request is closed."""
    with FakeServer(HANGING) as server:
        assert "Hel\n" == run("chunks = llm.stream('p'); print(next(chunks))", server.url)
        server.exchange().wait_closed()
        assert server.exchange().aborted


def test_script_with_a_half_read_async_stream_ends_at_once():
    """An async stream that nobody reads further does not keep the process alive, and its request is closed."""
    script = """
async def main():
    global chunks
    chunks = llm.astream("p")
    print(await anext(chunks))
asyncio.run(main())
"""
    with FakeServer(HANGING) as server:
        assert "Hel\n" == run(script, server.url)
        server.exchange().wait_closed()
        assert server.exchange().aborted


def test_disposed_subscription_does_not_keep_a_script_alive():
    """A script does not wait for a subscription that it has disposed."""
    script = """
heard = threading.Event()
subscription = llm("p").subscribe(lambda _: heard.set())
heard.wait()
subscription.dispose()
"""
    with FakeServer(HANGING) as server:
        assert "" == run(script, server.url)


def test_thread_reads_after_the_main_thread_has_ended():
    """A non-daemon thread may begin, read and end streams after the end of the main thread."""
    script = """
begun = threading.Event()
def read():
    print(llm.invoke("p"), flush=True)
    begun.set()
    threading.main_thread().join()
    print("".join(map(str, llm.stream("p"))))
threading.Thread(target=read).start()
begun.wait()
"""
    with FakeServer(HELLO) as server:
        assert "Hello\nHello\n" == run(script, server.url)


# Python 3.12.0 and 3.12.1 start no thread after the main thread has ended.
STARTS_THREADS_LATE = not ((3, 12) <= sys.version_info < (3, 12, 2))
LATE_CALLS = {
    "an answer": "print(llm.invoke('p'))",
    "a subscription": "llm('p').subscribe(lambda chunk: print(chunk, end=''), on_completed=print)",
    "a blocking model": "print(Blocking().invoke('p'))",
    "a loop of its own": "print(asyncio.run(llm.ainvoke('p')))",
}


@pytest.mark.parametrize(
    ("call", "host"),
    [
        ("an answer", "localhost"),
        ("a subscription", "127.0.0.1"),
        ("a blocking model", "localhost"),
        ("a loop of its own", "localhost"),
    ],
)
def test_first_call_after_the_main_thread_has_ended_streams_or_raises(call, host, hello):
    """The first call after the end of the main thread works, or the error says that Python starts no thread."""
    script = f"""
class Blocking(rxllm.LLM):
    def complete(self, request):
        return "Hello"

def read():
    threading.main_thread().join()
    try:
        {LATE_CALLS[call]}
    except rxllm.MisuseError as error:
        print(error)
threading.Thread(target=read).start()
"""
    said = run(script, hello.url.replace("127.0.0.1", host))
    if STARTS_THREADS_LATE:
        assert "Hello\n" == said
    else:
        assert "starts no thread after that" in said


@pytest.mark.parametrize("call", ["an answer", "a subscription", "a loop of its own"])
def test_later_call_after_the_main_thread_has_ended_streams(call, hello):
    """If the main thread has asked before, another thread may ask after its end, with a host name, on each Python."""
    script = f"""
llm.invoke("p")
def read():
    threading.main_thread().join()
    {LATE_CALLS[call]}
threading.Thread(target=read).start()
"""
    assert "Hello\n" == run(script, hello.url.replace("127.0.0.1", "localhost"))


def test_own_client_after_the_main_thread_has_ended_gets_a_sentence(hello):
    """The transport of httpx looks names up in Python's executor, which has ended: the error says what to do."""
    script = """
own = attrs.evolve(llm, client=httpx.AsyncClient)
async def ask():
    try:
        await own.ainvoke("p")
    except rxllm.MisuseError as error:
        print(error)
def read():
    threading.main_thread().join()
    with contextlib.suppress(RuntimeError):  # Python 3.12.1 cannot end the loop that has begun an executor
        asyncio.run(ask())
threading.Thread(target=read).start()
"""
    said = run("import attrs, contextlib, httpx\n" + script, hello.url.replace("127.0.0.1", "localhost"))
    assert "client=" in said
    assert "join()" in said


def test_executor_runs_its_jobs_after_the_main_thread_has_ended():
    """An executor that the program does not shut down runs its jobs at the end of the program."""
    script = """
from concurrent.futures import ThreadPoolExecutor
llm.invoke("p")
executor = ThreadPoolExecutor(1)
for _ in range(3):
    executor.submit(lambda: print(llm.invoke("p")))
"""
    with FakeServer(HELLO) as server:
        assert "Hello\n" * 3 == run(script, server.url)


def test_unhandled_error_is_logged():
    """A subscriber without `on_error` ends its own stream only: the next stream works, and the process ends."""
    script = """
class Failing(rxllm.LLM):
    async def complete(self, request):
        raise ValueError("boom")
logging.getLogger("asyncio").setLevel("CRITICAL")
Failing()("p").subscribe(print)
llm("p").subscribe(lambda chunk: print(chunk, end=""))
"""
    with FakeServer(HELLO) as server:
        assert "Hello" == run(script, server.url)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit()"])
def test_forked_child_streams_on_its_own_background_loop(end, hello):
    """A child may stream and end in any way after its parent has streamed, and the parent continues."""
    script = f"""
print(llm.invoke("p"), flush=True)
child = os.fork()
if not child:
    print(llm.invoke("p"), flush=True)
    {end}
assert 0 == os.waitpid(child, 0)[1]
print(llm.invoke("p"))
"""
    assert "Hello\n" * 3 == run(script, hello.url, ignore=["DeprecationWarning", "ResourceWarning"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_uses_inherited_objects():
    """A child inherits no locked lock, no taken permit and no running request of its parent."""
    script = """
import rxllm.combinators.limiter

class Slow(rxllm.LLM):
    async def chunks(self, request):
        yield "Hel"
        if os.getpid() == parent:
            await asyncio.sleep(1000)
        yield "lo"

parent = os.getpid()
shared = Slow()("p").pipe(rxllm.text(), rxllm.share())
whole = llm("p").pipe(rxllm.text(), rxllm.share())
limited = rxllm.limited(Slow(), rxllm.Limiter(concurrency=1))
store = rxllm.MemoryStore()
cached = rxllm.cached(Slow(), store, name="slow")
meter = rxllm.UsageMeter()
assert "Hello" == "".join(whole.pipe(rxllm.stream()))
begun = [shared.pipe(rxllm.stream()), limited.stream("p"), cached.stream("p")]
for stream in begun:
    next(stream)
with store._lock, meter._lock:
    child = os.fork()
    if not child:
        said = ["".join(shared.pipe(rxllm.stream())), "".join(whole.pipe(rxllm.stream())), limited.invoke("p").text,
            cached.invoke("p").text, cached.invoke("p").text, rxllm.observe(llm, meter).invoke("p").text]
        print(said, len(meter.usage), flush=True)
        os._exit(0)
    assert 0 == os.waitpid(child, 0)[1]
for stream in begun:
    stream.close()
"""
    with FakeServer(HELLO) as server:
        said = run(script, server.url, ignore=["DeprecationWarning", "ResourceWarning"])
    assert f"{['Hello'] * 6} 1\n" == said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_does_not_wait_for_streams_of_its_parent():
    """A child ends at once, although its parent still has subscriptions."""
    released = Signal()
    script = """
import multiprocessing
heard = threading.Event()
llm("p").subscribe(lambda chunk: heard.set(), on_completed=lambda: print("parent"))
heard.wait()
def work():
    print("child", flush=True)
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
print(child.exitcode, flush=True)
llm.invoke("release")
"""
    events = Chat().stream(["Hel", "lo"])

    def reply(received):
        if received.json["messages"][0]["content"] == "release":
            released.set()
            return HELLO
        return Reply([*events[:2], released, *events[2:]])

    with FakeServer(reply) as server:
        assert "child\n0\nparent\n" == run(script, server.url, ignore=["DeprecationWarning", "ResourceWarning"])


def test_system_exit_in_a_subscriber_ends_only_its_stream(hello):
    """After SystemExit in a subscriber on the background loop, later streams work."""
    script = """
ended = threading.Event()
def leave(_):
    try:
        sys.exit(3)
    finally:
        ended.set()
logging.getLogger("asyncio").setLevel("CRITICAL")
llm("p").subscribe(leave, lambda error: None)
ended.wait()
print(llm.invoke("p"))
"""
    assert "Hello\n" == run(script, hello.url)


def test_system_exit_in_a_callback_does_not_stop_the_background_loop(hello):
    """After SystemExit in a callback on the background loop, streams work."""
    reported = []
    told = Signal()
    loop = portal()

    def handler(_, context):
        reported.append(type(context["exception"]))
        told.set()

    loop.call_soon_threadsafe(loop.set_exception_handler, handler)
    loop.call_soon_threadsafe(sys.exit)
    told.wait()
    loop.call_soon_threadsafe(loop.set_exception_handler, None)
    assert [SystemExit] == reported
    assert "Hello" == str(model(hello).invoke("p"))


@pytest.mark.parametrize(
    ("patched", "advice"),
    [
        ("gevent.monkey", "gevent.monkey.patch_all(thread=False, queue=False, select=False)"),
        ("eventlet.patcher", "eventlet.monkey_patch(thread=False, select=False)"),
    ],
)
def test_patched_threads_raise_misuse(patched, advice):
    """If a library has replaced Python's threads, the first synchronous call says how to patch without them."""
    script = f"""
import types
patcher = sys.modules["{patched}"] = types.ModuleType("{patched}")
patcher.is_module_patched = patcher.is_monkey_patched = lambda name: name in ("threading", "thread")
try:
    llm.invoke("p")
except rxllm.MisuseError as error:
    print(error)
print(asyncio.run(llm.ainvoke("p")))
"""
    with FakeServer(HELLO) as server:
        said, answer = run(script, server.url).splitlines()
    assert advice in said
    assert "Hello" == answer


def test_a_stream_of_a_closed_loop_is_freed_quietly():
    """Asyncio logs the task that the program left behind; closing the stream's iterator adds nothing to that."""
    program = """
import asyncio, gc, rxllm
class Waits(rxllm.LLM):
    async def chunks(self, request):
        yield "a"
        await asyncio.Event().wait()
async def begin():
    heard = asyncio.Event()
    Waits()("hi").subscribe(lambda chunk: heard.set())
    await heard.wait()
loop = asyncio.new_event_loop()
loop.run_until_complete(begin())
loop.close()
gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert ("", 0) == (done.stdout, done.returncode)
    first, second = done.stderr.splitlines()
    assert "Task was destroyed but it is pending!" == first
    assert second.startswith("task: <Task pending")


def test_ctrl_c_is_noticed_soon():
    """The main thread waits in short pieces, because a signal does not end its wait."""

    class Wakeups:
        def get(self, timeout):
            waited.append(timeout)
            raise queue.Empty

    waited = []
    wait_for(Wakeups())
    assert len(waited) == 1
    assert waited[0] <= 0.1
