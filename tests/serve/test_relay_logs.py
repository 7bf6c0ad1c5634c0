"""The contract of the logs of a relay, for each of them; two objects on one storage stand for two processes."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys

import pytest
import reactivex
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis_server import RedisServer

import rxllm
from rxllm.bridges import AsyncStream
from rxllm.serve import MemoryLog, RedisLog, Relay, SQLiteLog
from rxllm.serve.logs import END, Listeners, LogLost, Position
from rxllm.serve.sse import Events

KEY = ("alice", "a/b {c}:\n")
PATIENCE = 30  # seconds; everything here takes milliseconds


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """Start one server for all tests."""
    with RedisServer(tmp_path_factory.mktemp("redis"), fsync="no") as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make(request, tmp_path):
    """Return a function that opens the log in another process."""
    if request.param == "memory":
        logs = []  # of one process

        def memory(keep=600, **options):
            logs.append(logs[0] if logs else MemoryLog(keep=keep))
            return logs[-1]

        return memory
    if request.param == "sqlite":
        return lambda **options: SQLiteLog(tmp_path / "log.sqlite", **options)
    redis = request.getfixturevalue("redis")
    return lambda **options: RedisLog(redis.url, prefix=request.node.name, **options)


@pytest.fixture
def silent():
    """Return the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


@contextlib.asynccontextmanager
async def two(make, **options):
    """Open the log in two processes."""
    one, other = make(**options), make(**options)
    try:
        yield one, other
    finally:
        await one.aclose()
        await other.aclose()


async def until(condition):
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not (result := await condition()):  # noqa: ASYNC110  (the change is in another process)
            await asyncio.sleep(0.005)
    return result


def seen(entries):
    """Return the seqs, data and endings of entries."""
    return [(entry.id.seq, entry.data, entry.ending) for entry in entries]


async def test_entries_are_read_in_order_from_any_position(make):
    """Another process reads what follows a position, up to the end."""
    async with two(make) as (one, other):
        epoch = await one.begin(KEY, 60)
        assert Position(epoch, 0) == await other.latest(KEY)
        assert await one.append(KEY, epoch, 1, [b"a", b"\0\xff"])
        assert await one.append(KEY, epoch, 3, [b"c"])
        assert Position(epoch, 3) == await other.latest(KEY)
        await one.end(KEY, epoch, "finish", b"z")
        whole = [(1, b"a", None), (2, b"\0\xff", None), (3, b"c", None), (END, b"z", "finish")]
        for seq in range(4):
            assert whole[seq:] == seen(await other.read(KEY, Position(epoch, seq)))
        assert whole[3:] == seen(await other.read(KEY, Position(epoch, 50)))  # a client invented this position
        assert [] == await other.read(KEY, Position(epoch, END))
        assert Position(epoch, END) == await other.latest(KEY)


async def test_long_answer_is_read_in_pages(make):
    """One read is bounded; the next one goes on."""
    async with two(make) as (one, other):
        epoch = await one.begin(KEY, 60)
        assert await one.append(KEY, epoch, 1, [b"%d" % number for number in range(1200)])
        after, sizes = Position(epoch, 0), []
        while entries := await other.read(KEY, after):
            sizes.append(len(entries))
            after = entries[-1].id
        assert [500, 500, 200] == sizes


async def test_write_that_is_repeated_counts_once(make):
    """A producer whose reply was lost writes again, also a part of it."""
    async with two(make) as (one, other):
        epoch = await one.begin(KEY, 60)
        for first, events in ((1, [b"a", b"b"]), (1, [b"a", b"b"]), (2, [b"b", b"c"]), (3, [b"c"])):
            assert await one.append(KEY, epoch, first, events)
        assert [b"a", b"b", b"c"] == [entry.data for entry in await other.read(KEY, Position(epoch, 0))]


async def test_first_end_counts_and_closes_the_answer(make):
    """After an end nothing is added, neither an entry nor another end."""
    async with two(make) as (one, other):
        epoch = await one.begin(KEY, 60)
        await other.end(KEY, epoch, "abort")
        await one.end(KEY, epoch, "finish", b"z")
        assert not await one.append(KEY, epoch, 1, [b"late"])
        assert [(END, b"", "abort")] == seen(await one.read(KEY, Position(epoch, 0)))
        assert [(KEY, epoch)] == [*await one.renew([(KEY, epoch)])]


async def test_newer_answer_fences_the_older_one(make):
    """A producer that was cut off can neither write into the old answer nor into the new one."""
    async with two(make) as (one, other):
        old = await one.begin(KEY, 60)
        assert await one.append(KEY, old, 1, [b"a"])
        new = await other.begin(KEY, 60)
        assert new > old
        assert not await one.append(KEY, old, 2, [b"zombie"])
        await one.end(KEY, old, "finish")
        assert [(KEY, old)] == [*await one.renew([(KEY, old), (KEY, new)])]
        assert await other.append(KEY, new, 1, [b"b"])
        assert (None, [(1, b"b", None)]) == (
            await other.read(KEY, Position(old, 0)),
            seen(await other.read(KEY, Position(new, 0))),
        )


async def test_conversations_are_apart(make):
    """Another owner's conversation with the same id is another one."""
    async with two(make) as (one, other):
        epoch = await one.begin(KEY, 60)
        assert await other.latest(("bob", KEY[1])) is None
        assert await other.read(("bob", KEY[1]), Position(epoch, 0)) is None
        await other.end(("bob", KEY[1]), epoch, "abort")
        assert not await other.append(("bob", KEY[1]), epoch, 1, [b"x"])
        assert await one.append(KEY, epoch, 1, [b"a"])


async def test_listeners_hear_of_changes_in_another_process(make):
    """A listener hears of entries, and of an end with its epoch; of another conversation it hears nothing."""
    heard, changed = [], asyncio.Event()

    def hear(ended):
        heard.append(ended)
        changed.set()

    async with two(make) as (one, other):
        epoch = await one.begin(KEY, 60)
        async with other.listening(("alice", "quiet"), lambda _: heard.append("foreign")), other.listening(KEY, hear):
            assert [] == await other.read(KEY, Position(epoch, 0))  # what comes after this read is told

            async def write(seq):
                changed.clear()
                assert await one.append(KEY, epoch, seq, [b"a"])
                async with asyncio.timeout(PATIENCE):
                    await changed.wait()

            await write(1)
            await write(2)
            await one.begin(KEY, 60)  # ends the answer
            async with asyncio.timeout(PATIENCE):
                while epoch not in heard:
                    changed.clear()
                    await changed.wait()
    assert {None, epoch} >= set(heard) - {"foreign"}
    assert heard.count("foreign") <= 1, "a new listener may be told to look once"


async def test_silent_producer_loses_its_lease(make):
    """An answer whose producer gives no sign of life is ended by a reader, once; a renewed one is not."""
    async with two(make, lease=60) as (one, other):
        epoch = await one.begin(KEY, 60)
        if isinstance(one, MemoryLog):
            assert not await other.settle(KEY, epoch)
            return
        assert not await other.settle(KEY, epoch)
        one.lease = 0.01
        assert [] == [*await one.renew([(KEY, epoch)])]
        assert await until(lambda: other.settle(KEY, epoch))
        assert not await one.settle(KEY, epoch)
        assert not await one.append(KEY, epoch, 1, [b"zombie"])
        assert [(END, b"", "interrupted")] == seen(await one.read(KEY, Position(epoch, 0)))


async def test_process_that_ends_in_order_interrupts_its_answers(make):
    """A reader in another process gets an error at once, without waiting for the lease."""
    one, other = Relay(make(lease=600)), Relay(make(lease=600))
    position = await one.start(KEY, reactivex.concat(reactivex.of("a"), reactivex.never()), Events())
    async with AsyncStream(other.follow(KEY, position)) as stream:
        assert b'data: "a"' == (await anext(stream)).data
        await one.aclose()
        with pytest.raises(rxllm.Interrupted):
            await anext(stream)
    await other.aclose()


async def test_answer_without_readers_is_reported(make):
    """`renew` returns an answer as soon as its readers' time is over."""
    async with two(make) as (one, other):
        epoch = await one.begin(KEY, 0.01)
        await other.attend([KEY], 60)
        assert [] == [*await one.renew([(KEY, epoch)])]
        await other.attend([KEY], 0.01)
        assert [(KEY, epoch)] == [*await until(lambda: one.renew([(KEY, epoch)]))]


async def test_ended_answer_is_forgotten(make):
    """After `keep` seconds an answer is gone."""
    async with two(make, keep=0.05) as (one, other):
        epoch = await one.begin(KEY, 60)
        await one.end(KEY, epoch, "finish")

        async def is_gone():
            await one.begin(("alice", "another"), 60)  # a SQLite file is tidied when an answer begins
            return await other.latest(KEY) is None

        await until(is_gone)
        assert await one.begin(KEY, 60) > epoch


async def test_memory_log_makes_room_for_the_last_entry_of_an_answer():
    """A whole answer is one entry: its end. It counts to the size of the log, as other entries do."""
    log = MemoryLog(max_bytes=10)
    for name in ("a", "b", "c"):
        await log.end(("alice", name), await log.begin(("alice", name), 0), "finish", bytes(8))
    assert [None, None, END] == [last and last.seq for last in [await log.latest(("alice", name)) for name in "abc"]]


async def test_reader_that_leaves_while_redis_is_silent_leaves_no_listener(silent):
    """A reader may leave before Redis has answered its subscription."""
    client = Redis.from_url(silent, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))
    log = RedisLog(client)

    async def listen():
        async with log.listening(KEY, lambda _: None):
            await asyncio.Event().wait()

    reader = asyncio.create_task(listen())

    async def listens():
        return len(log._listeners)

    await until(listens)
    reader.cancel()
    await asyncio.wait([reader])
    assert 0 == len(log._listeners)
    await log.aclose()


async def test_redis_that_lost_entries_takes_no_more(redis):
    """After a crash that lost the last entries, the log has no gap: the answer cannot go on."""
    async with two(lambda: RedisLog(redis.url, prefix="lossy")) as (one, _):
        epoch = await one.begin(KEY, 60)
        assert await one.append(KEY, epoch, 1, [b"a"])
        assert not await one.append(KEY, epoch, 3, [b"c"])
        assert [b"a"] == [entry.data for entry in await one.read(KEY, Position(epoch, 0))]


async def test_reader_of_an_answer_whose_entries_redis_lost_gets_an_error(redis):
    """The producer notices the loss with its next entry and gives up; the reader gets no gap."""
    log = RedisLog(redis.url, prefix="crashed")
    relay, words = Relay(log), asyncio.Queue()

    async def model():
        while word := await words.get():
            yield word

    position = await relay.start(KEY, rxllm.from_aiter(model), Events())
    async with AsyncStream(relay.follow(KEY, position)) as stream:
        for word in ("a", "b"):
            words.put_nowait(word)
            await anext(stream)
        stream_key = log._keys(KEY)[0]
        await log._redis.xdel(stream_key, f"{position.epoch}-2")
        words.put_nowait("c")
        with pytest.raises(rxllm.Interrupted):
            await anext(stream)
    await relay.aclose()


async def test_lost_redis_is_said(tmp_path):
    """Each call says that the log is lost, while Redis is away."""
    with RedisServer(tmp_path) as server:
        log = RedisLog(server.url)
        epoch = await log.begin(KEY, 60)
        server.kill()
        for call in (log.begin(KEY, 60), log.append(KEY, epoch, 1, [b"a"]), log.latest(KEY), log.attend([KEY], 1)):
            with pytest.raises(LogLost):
                await call
        server.__enter__()
        assert await log.append(KEY, epoch, 1, [b"a"]), "what it had acknowledged is there again"
        await log.aclose()


FORKING = """
import asyncio, gc, os, sys, threading
import reactivex
from rxllm.serve import MemoryLog, RedisLog, Relay, SQLiteLog
from rxllm.serve.logs import Position
from rxllm.serve.sse import Events

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
kind, place = sys.argv[1:]
log = MemoryLog() if kind == "memory" else (SQLiteLog if kind == "sqlite" else RedisLog)(place, lease=1)
relay = Relay(log)
begin = relay.start(("alice", "parent"), reactivex.concat(reactivex.of("word"), reactivex.never()), Events())
epoch = asyncio.run_coroutine_threadsafe(begin, loop).result().epoch

async def use():
    gc.collect()  # frees tasks of the parent
    assert 0 == relay.active
    position = await relay.start(("alice", "child"), reactivex.of("word"), Events())
    while (ending := await relay.ending(("alice", "child"), position.epoch)) is None:
        await asyncio.sleep(0.01)
    assert ("finish", False) == (ending, relay._keeper.done())
    assert not await relay.ending(("alice", "parent"), epoch)
    assert (kind == "memory") == (await relay.running(("alice", "parent")) is None)

if (child := os.fork()) == 0:
    asyncio.run(asyncio.wait_for(use(), 30))
    os._exit(0)
assert 0 == os.waitpid(child, 0)[1]
assert 1 == relay.active
stop = asyncio.run_coroutine_threadsafe(relay.stop(("alice", "parent")), loop)
assert stop.result(30)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_forked_child_has_connections_and_tasks_of_its_own(kind, tmp_path, request):
    """Parent and child use the log at the same time. An answer of the parent goes on; in memory it is the parent's."""
    place = request.getfixturevalue("redis").url if kind == "redis" else str(tmp_path / "log.sqlite")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, kind, place]  # of forks with threads
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (0, "") == (done.returncode, done.stderr)


async def test_arguments_are_checked(tmp_path):
    """A log needs a path or an address, and shows no password."""
    with pytest.raises(rxllm.MisuseError, match="needs the path of a file"):
        SQLiteLog(":memory:")
    with pytest.raises(rxllm.MisuseError, match="needs an address"):
        RedisLog(6379)
    log = RedisLog("redis://:secret-word@localhost:1")
    assert "secret-word" not in repr(log)
    assert isinstance(log._redis, Redis)
    await log.aclose()


def test_listener_of_a_parent_ends_in_a_child():
    """The child, whose listeners are new, does not know it."""
    assert not Listeners().remove(("alice", "parent"), print)
