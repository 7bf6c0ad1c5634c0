"""`RedisStore` with a real Redis: processes that join one request, that are killed, and whose requests fail."""

import asyncio
import contextlib
import signal

import pytest
from redis.asyncio import Redis
from redis_processes import LEASE, ask_stored
from redis_server import RedisServer
from relay_processes import Process

import rxllm
from rxllm.combinators import redis_claims
from rxllm.testing import FakeServer, MarbleLLM, Reply, Signal

NEVER = 600.0  # seconds: a lease that does not end while a test runs
ANSWER = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}]}


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis for the tests of this module."""
    with RedisServer(tmp_path_factory.mktemp("redis"), fsync="no") as server:
        yield server


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """Let claims expire soon. A busy machine must not look like a Redis that does not answer."""
    monkeypatch.setattr(redis_claims, "LEASE", LEASE)
    monkeypatch.setattr(redis_claims, "_TIMEOUT", 30.0)
    monkeypatch.setattr("rxllm.operators.caching.PATIENCE", 30.0)


@contextlib.contextmanager
def processes(redis, server, prompt, count, lease=LEASE):
    """Run processes that ask for the same answer."""
    arguments = redis.url, server.url, prompt, lease
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Process(ask_stored, *arguments)) for _ in range(count)]


async def go(*several):
    """Let processes start together when all are ready."""
    for process in several:
        assert "ready" == await process.report()
    for process in several:
        process.connection.send("go")


def callers(redis, server, name):
    """Return two cached models that share answers only through Redis."""
    llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=server.url, max_retries=0)
    return [rxllm.cached(llm, rxllm.RedisStore(redis.url), name=name) for _ in range(2)]


def held(signal, content=ANSWER):
    """Return an answer that waits for a signal."""
    return Reply([signal, *Reply.json(content).body], content_type="application/json", chunked=False)


def test_store_keeps_answers_for_other_processes(redis):
    """An answer that one store keeps is found by another one, also on another event loop."""
    llm = MarbleLLM("-Hel-lo|", timespan=0.001)
    first = rxllm.cached(llm, rxllm.RedisStore(redis.url, seconds=60), name="m")
    again = rxllm.cached(MarbleLLM("#"), rxllm.RedisStore(redis.url), name="m")
    assert "Hello" == first.invoke("x").text
    assert "Hello" == again.invoke("x").text

    async def ask():
        return await again.ainvoke("x")

    assert "Hello" == asyncio.run(ask()).text
    assert ["Hel", "lo"] == [chunk.text for chunk in again.stream("x")]


async def test_processes_join_one_request(redis):
    """Four processes ask for the same answer at once: one request, four answers."""
    released = Signal()
    with FakeServer(held(released)) as server, processes(redis, server, "join", 4) as four:
        await go(*four)
        await server.exchange(0).arrived.soon()
        with pytest.raises(TimeoutError):
            await server.exchange(1).arrived.soon(1.5 * LEASE)  # its claim is renewed
        released.set()
        assert ["x"] * 4 == [await process.report() for process in four]
        assert 1 == len(server.exchanges)


async def test_claim_of_a_killed_process_expires_and_another_one_asks(redis):
    """The others wait for no longer than the lease, and one of them asks."""
    with (
        FakeServer(held(Signal()), Reply.json(ANSWER)) as server,
        processes(redis, server, "killed", 3) as (victim, *others),
    ):
        await go(victim)
        await server.exchange(0).arrived.soon()
        await go(*others)
        with pytest.raises(TimeoutError):
            await server.exchange(1).arrived.soon(LEASE / 2)
        victim.send(signal.SIGKILL)
        assert ["x"] * 2 == [await process.report() for process in others]
        assert 2 == len(server.exchanges)


async def test_failed_request_lets_another_process_ask(redis):
    """Long before the lease ends, and the process whose request failed gets its error."""
    failure = Signal()
    broken = Reply([failure, b"{}"], status=500, content_type="application/json", chunked=False)
    with (
        FakeServer(broken, Reply.json(ANSWER)) as server,
        processes(redis, server, "failed", 3, NEVER) as (first, *others),
    ):
        await go(first)
        await server.exchange(0).arrived.soon()
        await go(*others)
        with pytest.raises(TimeoutError):
            await server.exchange(1).arrived.soon(0.5)
        failure.set()
        assert "ProviderError" == await first.report()
        assert ["x"] * 2 == [await process.report() for process in others]
        assert 2 == len(server.exchanges)


async def test_answer_that_is_not_whole_lets_another_caller_ask(redis, monkeypatch):
    """A filtered answer is not stored, so the next caller asks for itself, long before the lease ends."""
    monkeypatch.setattr(redis_claims, "LEASE", NEVER)
    filtered = {"choices": [{**ANSWER["choices"][0], "finish_reason": "content_filter"}]}
    released = Signal()
    with FakeServer(held(released, filtered), Reply.json(ANSWER)) as server:
        one, two = callers(redis, server, "filtered")
        first = asyncio.create_task(one.ainvoke("x"))
        await server.exchange(0).arrived.soon()
        second = asyncio.create_task(two.ainvoke("x"))
        await asyncio.sleep(0.1)
        released.set()
        assert ["content_filter", "stop"] == [(await task).finish_reason for task in (first, second)]
        assert 2 == len(server.exchanges)


@pytest.mark.parametrize("how", ["disposed", "ended"])
async def test_caller_that_leaves_lets_another_one_ask(redis, monkeypatch, how):
    """Long before the lease ends: after a disposed stream, and after a loop that ended with an open stream."""
    monkeypatch.setattr(redis_claims, "LEASE", NEVER)
    with FakeServer(held(Signal()), Reply.json(ANSWER)) as server:
        one, two = callers(redis, server, how)

        async def leave():
            task = asyncio.create_task(one.ainvoke("x"))
            await server.exchange(0).arrived.soon()
            if how == "disposed":
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        await (leave() if how == "disposed" else asyncio.to_thread(asyncio.run, leave()))
        assert "x" == (await two.ainvoke("x")).text


async def test_caller_asks_for_itself_when_redis_stops_while_it_waits(tmp_path, monkeypatch, caplog):
    """A store that does not answer costs money, but no answer."""
    monkeypatch.setattr("rxllm.operators.caching.PATIENCE", 1.0)
    released = Signal()
    with RedisServer(tmp_path, fsync=None) as fragile, FakeServer(held(released), Reply.json(ANSWER)) as server:
        one, two = callers(fragile, server, "stops")
        first = asyncio.create_task(one.ainvoke("x"))
        await server.exchange(0).arrived.soon()
        second = asyncio.create_task(two.ainvoke("x"))
        await asyncio.sleep(0.1)
        fragile.process.send_signal(signal.SIGSTOP)
        try:
            assert "x" == (await second).text
            assert "The store took longer than 1 s." in caplog.text
        finally:
            fragile.process.send_signal(signal.SIGCONT)
        released.set()
        assert "x" == (await first).text


async def test_handlers_hear_that_an_answer_is_reused(redis):
    """From a running request of another process: running; from the store: not."""
    released = Signal()
    with FakeServer(held(released)) as server:
        one, two = callers(redis, server, "reused")
        first = asyncio.create_task(one.ainvoke("x"))
        await server.exchange(0).arrived.soon()
        heard = []

        async def watch():
            events = [event async for event in two.events("x").pipe(rxllm.astream())]
            heard.extend(event.running for event in events if isinstance(event, rxllm.Reused))

        second = asyncio.create_task(watch())
        await asyncio.sleep(0.1)
        released.set()
        await asyncio.gather(first, second)
        await watch()
        assert [True, False] == heard


async def test_flushed_redis_loses_answers_and_nothing_else(redis):
    """A claim that Redis has lost is set again, and the request of another process is joined as before."""
    released = Signal()
    with FakeServer(held(released)) as server:
        one, two = callers(redis, server, "flushed")
        first = asyncio.create_task(one.ainvoke("x"))
        await server.exchange(0).arrived.soon()
        async with Redis.from_url(redis.url) as client:
            await client.flushall()
            while not await client.keys("*claim"):  # noqa: ASYNC110  (Redis sends no event)
                await asyncio.sleep(0.01)
            second = asyncio.create_task(two.ainvoke("x"))
            await asyncio.sleep(0.1)
            released.set()
            assert ["x"] * 2 == [(await task).text for task in (first, second)]
            assert 1 == len(server.exchanges)
            assert [] == await client.keys("*claim")
            (key,) = await client.keys("*flushed*")
            assert (await client.get(key)).startswith(b"[{")  # JSON


async def test_many_answers_at_once_wait_for_a_connection(redis):
    """The package refuses commands beyond its connections, which must not count as a store that failed."""
    llm = rxllm.cached(MarbleLLM("a|"), rxllm.RedisStore(redis.url), name="many")
    answers = await llm.abatch([f"{number}" for number in range(300)], max_concurrency=300)
    assert ["a"] * 300 == [answer.text for answer in answers]
