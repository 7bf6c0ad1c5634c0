"""One model on any loop, in any thread, in any kind of program."""

import asyncio
import contextvars
import os
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
from rxllm.runtime.portal import portal
from rxllm.testing import End, FakeServer, Reply, Signal

HELLO = Reply(Chat().stream(["Hel", "lo"]))
HANGING = Reply([Chat().stream(["Hel"])[1], End.HANG])


def model(server):
    """The server's model."""
    return rxllm.OpenAI("m", base_url=server.url)


@pytest.fixture
def hello():
    """Answers `Hello` in two chunks."""
    with FakeServer(HELLO) as server:
        yield server


async def text_of(llm, prompt="p"):
    """The answer, read by `async for`."""
    return "".join([str(chunk) async for chunk in llm.astream(prompt)])


# ── loops ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_loops_one_after_another(hello):
    """The same model serves one `asyncio.run` after another, and each closes its connections."""
    llm = model(hello)
    for number in range(5):
        assert "Hello" == asyncio.run(text_of(llm))
        hello.exchange(number).wait_closed()
    assert 0 == hello.open_connections


def test_a_loop_shares_one_client(hello):
    """Requests one after another use one connection, in a loop and from synchronous code."""
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


async def test_a_plain_loop_inside_a_running_loop(hello):
    """As in Jupyter: the running loop stands still meanwhile, the stream does not."""
    llm = model(hello)
    assert ["Hel", "lo"] == [str(chunk) for chunk in llm.stream("p") if str(chunk)]
    assert ["Hello"] == [str(answer) for answer in llm.batch(["p"])]
    assert "Hello" == str(llm.invoke("p")) == await text_of(llm)


def test_eight_threads_at_once(hello):
    """Threads share the portal and do not disturb each other."""
    llm = model(hello)
    start = threading.Barrier(8)

    def read(_):
        start.wait(5)
        return ["".join(map(str, llm.stream("p"))) for _ in range(5)]

    with ThreadPoolExecutor(8) as threads:
        assert [["Hello"] * 5] * 8 == list(threads.map(read, range(8)))


def test_eight_loops_at_once(hello):
    """Nor do loops."""
    llm = model(hello)
    start = threading.Barrier(8)

    def read(_):
        start.wait(5)
        return asyncio.run(text_of(llm))

    with ThreadPoolExecutor(8) as threads:
        assert ["Hello"] * 8 == list(threads.map(read, range(8)))


async def test_a_thousand_streams_at_once():
    """All at once on one loop; not one is lost, and nothing is left."""
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


async def test_one_stream_belongs_to_one_loop():
    """Reading on another loop is a mistake that is named."""
    with FakeServer(HANGING) as server:
        chunks = model(server).astream("p")
        await anext(chunks)

        async def read_on():
            await anext(chunks)

        with ThreadPoolExecutor(1) as thread, pytest.raises(MisuseError, match="another event loop"):
            thread.submit(asyncio.run, read_on()).result(5)
        await chunks.aclose()


async def test_one_stream_has_one_reader():
    """Two tasks that wait for the next item of one stream are told; the first goes on."""
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
    """Asks another model from blocking code."""

    inner: LLM = field(factory=rxllm.Embedded)

    def complete(self, request):
        """Blocks on the other's answer."""
        return f"<{self.inner.invoke(request)}>"


@frozen
class Echo(LLM):
    """Says what it was asked."""

    async def complete(self, request):
        """The prompt."""
        return request.text


def test_blocking_models_may_ask_each_other():
    """Each blocking call has a thread of its own: six deep, none waits for another's."""
    llm = Echo()
    for _ in range(6):
        llm = Blocking(inner=llm)
    assert "<<<<<<p>>>>>>" == str(llm.invoke("p"))
    assert ["<<<<<<p>>>>>>"] * 20 == [str(answer) for answer in llm.batch(["p"] * 20, max_concurrency=20)]


async def test_blocking_models_may_ask_each_other_on_a_loop():
    """The same from a running loop."""
    llm = Echo()
    for _ in range(6):
        llm = Blocking(inner=llm)
    assert "<<<<<<p>>>>>>" == str(await llm.ainvoke("p"))


def test_a_synchronous_call_on_the_portal_is_refused():
    """It would wait for itself; what to do instead is said."""
    llm = Echo()
    for blocking in (llm.invoke, lambda text: list(llm.stream(text)), lambda text: llm.batch([text])):
        with pytest.raises(MisuseError, match="ainvoke"):
            list(llm("p").pipe(rxllm.text(), ops.map(blocking), rxllm.stream()))


# ── context ──────────────────────────────────────────────────────────────────────────────────────────────────────

WHO = contextvars.ContextVar("WHO", default="nobody")


def whos():
    """Providers of each kind, that answer with whom they see."""

    @frozen
    class Complete(LLM):
        async def complete(self, request):
            return WHO.get()

    @frozen
    class BlockingComplete(LLM):
        def complete(self, request):
            return WHO.get()

    @frozen
    class Chunks(LLM):
        async def chunks(self, request):
            yield WHO.get()
            await asyncio.sleep(0)
            yield WHO.get()

    @frozen
    class BlockingChunks(LLM):
        def chunks(self, request):
            yield WHO.get()
            yield WHO.get()

    return [Complete, BlockingComplete, Chunks, BlockingChunks]


class Seen:
    """A model with an operator and a handler, and whom all of them saw."""

    def __init__(self, kind):
        self.names = []
        self.pipeline = rxllm.pipe(observe(kind(), self.note), ops.do_action(self.note))

    def note(self, event):
        """Notes who is seen, and whom a chunk has seen."""
        self.names.append(WHO.get())
        self.names += [str(event)] if isinstance(event, Chunk) and str(event) else []


@pytest.mark.parametrize("kind", whos())
def test_context_variables_are_seen_by_all(kind):
    """Provider, operators and handlers see the subscriber's context variables, whichever way it is asked."""

    async def on_a_loop(seen):
        WHO.set("loop")
        await seen.pipeline.ainvoke("p")
        async for _ in seen.pipeline.astream("p"):
            pass
        await seen.pipeline.abatch(["p", "q"])

    def in_sync(seen):
        WHO.set("sync")
        seen.pipeline.invoke("p")
        list(seen.pipeline.stream("p"))
        seen.pipeline.batch(["p", "q"])

    def subscribed(seen):
        WHO.set("subscriber")
        ended = Signal()
        seen.pipeline("p").subscribe(on_error=print, on_completed=ended.set)
        ended.wait()

    for run in (lambda seen: asyncio.run(on_a_loop(seen)), in_sync, subscribed):
        seen = Seen(kind)
        contextvars.copy_context().run(run, seen)
        assert 1 == len(set(seen.names))
        assert "nobody" not in seen.names
    assert "nobody" == WHO.get()


def test_threads_do_not_see_each_others_context():
    """Streams that run at the same time on one portal see each their own."""

    def read(name):
        WHO.set(name)
        seen = [Seen(kind) for kind in whos()]
        for one in seen:
            list(one.pipeline.stream("p"))
        return {name for one in seen for name in one.names}

    with ThreadPoolExecutor(8) as threads:
        names = [f"thread {number}" for number in range(8)]
        assert [{name} for name in names] == list(
            threads.map(lambda name: contextvars.copy_context().run(read, name), names)
        )


async def test_streams_at_once_do_not_see_each_others_context():
    """Each request of a batch has a context of its own, as any task has."""

    class Sets(rxllm.LLM):
        async def complete(self, request):
            seen = WHO.get()
            WHO.set(request.text)
            await asyncio.sleep(0)
            return f"{seen} {WHO.get()}"

    WHO.set("who asks")
    answers = await Sets().abatch(["a", "b", "c"])
    assert ["who asks a", "who asks b", "who asks c"] == [answer.text for answer in answers]


# ── programs ─────────────────────────────────────────────────────────────────────────────────────────────────────

# On a slow machine asyncio's debug mode, part of -X dev, warns that importing httpx took its time.
PRELUDE = """
import asyncio, logging, os, sys, threading
import rxllm
logging.getLogger("asyncio").setLevel("ERROR")
llm = rxllm.OpenAI("m", base_url=sys.argv[1])
"""


def run(script, url, *, ignore=()):
    """What a program says, which must end well and complain of nothing."""
    options = ["-X", "dev", "-W", "error", *(option for what in ignore for option in ("-W", f"ignore::{what}"))]
    done = subprocess.run(
        [sys.executable, *options, "-c", PRELUDE + script, url],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1])},
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


SUBSCRIBES = """
llm("p").subscribe(lambda chunk: print(chunk, end="", flush=True), print, lambda: print("!"))
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_script_that_only_subscribes_hears_the_end(host):
    """The process stays until the stream has ended, even where the host's name is still to be looked up."""
    events = Chat().stream(["Hel", "lo"])
    with FakeServer(Reply([*events[:2], 0.05, *events[2:]])) as server:
        assert "Hello!\n" == run(SUBSCRIBES, server.url.replace("127.0.0.1", host))


def test_a_script_hears_all_that_it_subscribed_to(hello):
    """Of many subscriptions."""
    assert 3 == run(SUBSCRIBES * 3, hello.url).count("!")


def test_a_script_hears_what_was_subscribed_to_while_it_heard():
    """Whoever subscribes when he hears something is waited for, too."""
    events = Chat().stream(["Hel", "lo"])
    script = """
llm("p").subscribe(on_completed=lambda: llm("q").subscribe(on_completed=lambda: print("!")))
"""
    with FakeServer(HELLO, Reply([*events[:2], 0.2, *events[2:]])) as server:
        assert "!\n" == run(script, server.url)


def test_a_script_with_a_half_read_iterator_ends_at_once():
    """Nobody waits for the rest, and its request is closed."""
    with FakeServer(HANGING) as server:
        assert "Hel\n" == run("chunks = llm.stream('p'); print(next(chunks))", server.url)
        server.exchange().wait_closed()
        assert server.exchange().aborted


def test_a_script_with_a_half_read_async_iterator_ends_at_once():
    """The same on a loop."""
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


def test_a_disposed_subscription_holds_no_script():
    """Whoever has left is not waited for."""
    script = """
heard = threading.Event()
subscription = llm("p").subscribe(lambda _: heard.set())
heard.wait()
subscription.dispose()
"""
    with FakeServer(HANGING) as server:
        assert "" == run(script, server.url)


def test_a_thread_reads_on_after_the_main_thread():
    """A thread that is no daemon may begin, read and end its streams when the main thread has ended."""
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


# Two Pythons start no thread once the main thread has ended.
STARTS_THREADS_LATE = not ((3, 12) <= sys.version_info < (3, 12, 2))
LATE_CALLS = {
    "an answer": "print(llm.invoke('p'))",
    "a subscription": "llm('p').subscribe(lambda chunk: print(chunk, end=''), on_completed=print)",
    "a blocking model": "print(Blocking().invoke('p'))",
}


@pytest.mark.parametrize(
    ("call", "host"), [("an answer", "localhost"), ("a subscription", "127.0.0.1"), ("a blocking model", "localhost")]
)
def test_a_thread_may_begin_after_the_main_thread(call, host, hello):
    """A thread that is no daemon makes the first call of all; where Python can't start threads any more, it says so."""
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


@pytest.mark.parametrize("call", ["an answer", "a subscription"])
def test_a_thread_may_go_on_after_the_main_thread(call, hello):
    """A program whose main thread has asked before may ask on, on any Python, and look up its host."""
    script = f"""
llm.invoke("p")
def read():
    threading.main_thread().join()
    {LATE_CALLS[call]}
threading.Thread(target=read).start()
"""
    assert "Hello\n" == run(script, hello.url.replace("127.0.0.1", "localhost"))


def test_an_executors_jobs_are_done_after_the_main_thread():
    """The jobs of an executor that nobody shuts down are done at the end of the program."""
    script = """
from concurrent.futures import ThreadPoolExecutor
llm.invoke("p")
executor = ThreadPoolExecutor(1)
for _ in range(3):
    executor.submit(lambda: print(llm.invoke("p")))
"""
    with FakeServer(HELLO) as server:
        assert "Hello\n" * 3 == run(script, server.url)


def test_an_error_that_nobody_takes_is_logged():
    """A subscriber without `on_error` ends his stream only: the next one is heard, and the process ends."""
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
def test_a_forked_child_has_a_portal_of_its_own(end, hello):
    """A child streams after its parent has, ends whichever way, and the parent goes on."""
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
def test_a_forked_child_may_use_its_parents_objects():
    """Locks that the parent holds, permits that it has taken and requests that it runs are not the child's."""
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
def test_a_forked_child_does_not_wait_for_its_parents_streams():
    """What the parent has subscribed to is the parent's to hear out."""
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


def test_a_subscribers_exit_takes_nobody_elses_loop(hello):
    """SystemExit out of a subscriber on the portal ends his own stream; the next ones are served."""
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


def test_the_portal_lives_on_after_a_callbacks_exit(hello):
    """SystemExit out of whatever runs on the portal takes it from nobody."""
    blamed = []
    told = Signal()
    loop = portal()

    def handler(_, context):
        blamed.append(type(context["exception"]))
        told.set()

    loop.call_soon_threadsafe(loop.set_exception_handler, handler)
    loop.call_soon_threadsafe(sys.exit)
    told.wait()
    loop.call_soon_threadsafe(loop.set_exception_handler, None)
    assert [SystemExit] == blamed
    assert "Hello" == str(model(hello).invoke("p"))


@pytest.mark.parametrize(
    ("patched", "advice"),
    [
        ("gevent.monkey", "gevent.monkey.patch_all(thread=False, queue=False, select=False)"),
        ("eventlet.patcher", "eventlet.monkey_patch(thread=False, select=False)"),
    ],
)
def test_greenlets_instead_of_threads_are_refused(patched, advice):
    """Where a library has replaced Python's threads, the first synchronous call says how to patch without them."""
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
