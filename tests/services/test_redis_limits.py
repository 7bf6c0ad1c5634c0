"""`RedisLimits` and `RedisStore` with a real Redis: three processes, a wrong clock, and a server that stops."""

import asyncio
import itertools
import signal
import time

import pytest
from redis_server import RedisServer

import rxllm
from rxllm.combinators.redis_limits import Share
from rxllm.testing import FakeServer, MarbleLLM, Reply

SECOND = [Share("0", 1.0, 0.0)]  # one request a second


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis for the tests of this module."""
    with RedisServer(tmp_path_factory.mktemp("redis"), fsync="no") as server:
        yield server


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """A busy machine must not look like a Redis that does not answer."""
    monkeypatch.setattr("rxllm.combinators.redis_limits._TIMEOUT", 30.0)


async def reached(limits, key, is_enough):
    """Return the wait for a rate as soon as it is as long as it will be."""
    while not is_enough(wait := (await limits.book([Share(key, 0.0, 0.0)])).wait):
        pass  # each booking lets the event loop go on
    return wait


async def test_processes_share_one_rate_fairly(redis):
    """The bookings of three processes are a second apart, and each process gets every third place."""
    processes = [rxllm.RedisLimits(redis.url, "fair") for _ in range(3)]
    began = time.monotonic()
    waits = [[] for _ in processes]
    for _ in range(10):
        for process, own in zip(processes, waits, strict=True):
            own.append((await process.book(SECOND)).wait)
    late = time.monotonic() - began
    for place, wait in enumerate(sorted(itertools.chain(*waits))):
        assert place - late - 0.01 <= wait <= place
    assert max(map(sum, waits)) - min(map(sum, waits)) <= 20 + 30 * late


async def test_clock_of_a_process_does_not_count(redis, monkeypatch):
    """A machine that is a minute ahead books no more than the others."""
    process = rxllm.RedisLimits(redis.url, "clock")
    await process.book([Share("0", 100.0, 0.0)])
    monkeypatch.setattr(time, "time", lambda: 61 + time.monotonic())
    assert 90 < (await process.book([Share("0", 100.0, 0.0)])).wait <= 100


async def test_request_that_leaves_gives_its_place_back(redis):
    """A cancelled caller does not let the others wait."""
    limiter = rxllm.Limiter(requests_per_minute=60, burst=1, shared=rxllm.RedisLimits(redis.url, "leaves"))
    other = rxllm.RedisLimits(redis.url, "leaves")
    await other.book([Share("0", 50.0, 0.0)])
    task = asyncio.create_task(rxllm.limited(MarbleLLM("-a|", timespan=0.001), limiter).ainvoke("x"))
    await reached(other, "0", lambda wait: wait > 50)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await reached(other, "0", lambda wait: wait <= 50)


async def test_wait_that_is_too_long_is_refused(redis):
    """Before anything is sent, with the time of the wait."""
    await rxllm.RedisLimits(redis.url, "refused").book([Share("0", 50.0, 0.0)])
    limiter = rxllm.Limiter(requests_per_minute=60, max_wait=0, shared=rxllm.RedisLimits(redis.url, "refused"))
    with pytest.raises(rxllm.RateLimited, match="shared limits 'refused' are full") as error:
        await rxllm.limited(MarbleLLM("-a|", timespan=0.001), limiter).ainvoke("x")
    assert 40 < error.value.retry_after <= 50


async def test_refusal_of_the_server_holds_for_all_processes(redis):
    """A ``retry-after`` that one process gets lets the others wait."""
    limiter = rxllm.Limiter(requests_per_minute=6000, shared=rxllm.RedisLimits(redis.url, "closed"))
    other = rxllm.RedisLimits(redis.url, "closed")
    refusal = Reply.json({"error": {"message": "slow"}}, status=429, headers={"retry-after": "50"})
    with FakeServer(refusal) as server:
        llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=server.url, max_retries=0)
        with pytest.raises(rxllm.RateLimited):
            await rxllm.limited(llm, limiter).ainvoke("x")
        assert 30 < await reached(other, "9", lambda wait: wait > 0) <= 50


async def test_tokens_are_corrected_when_the_answer_tells(redis):
    """The estimate books, the usage counts."""
    limiter = rxllm.Limiter(tokens_per_minute=600, shared=rxllm.RedisLimits(redis.url, "tokens"))
    usage = rxllm.Usage(input_tokens=250, output_tokens=250)

    class Long(rxllm.LLM):
        async def complete(self, request):
            return rxllm.Message("assistant", "x", usage=usage)

    await rxllm.limited(Long(), limiter).ainvoke("x")
    other = rxllm.RedisLimits(redis.url, "tokens")
    assert 50 >= await reached(other, "0", lambda wait: wait > 20)  # 500 tokens at 10 a second


async def test_silent_redis_leaves_each_process_its_share(redis, caplog, monkeypatch):
    """While Redis is stopped, a process of two takes half of the rate; afterwards the rate is shared again."""
    one, two = (rxllm.RedisLimits(redis.url, "silent") for _ in range(2))
    strict = rxllm.RedisLimits(redis.url, "silent", strict=True)
    await one.book(SECOND)
    await two.book(SECOND)
    redis.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr("rxllm.combinators.redis_limits._TIMEOUT", 0.1)
    try:
        first, second = await two.book(SECOND), await two.book(SECOND)
        assert (False, False) == (first.is_shared, second.is_shared)
        assert 0 == first.wait
        assert 1 < second.wait <= 2
        assert 1 == len(caplog.records)
        with pytest.raises(rxllm.RateLimited, match="Redis does not answer"):
            await strict.book(SECOND)
    finally:
        redis.process.send_signal(signal.SIGCONT)
        monkeypatch.undo()
    two._silent_until = 0.0  # the pause is over
    while not (await two.book(SECOND)).is_shared:
        two._silent_until = 0.0


async def test_flushed_redis_begins_anew(redis):
    """Losing the counts costs no answer."""
    process = rxllm.RedisLimits(redis.url, "flushed")
    await process.book([Share("0", 100.0, 0.0)])
    from redis.asyncio import Redis

    async with Redis.from_url(redis.url) as client:
        await client.flushall()
    assert 0 == (await process.book(SECOND)).wait


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
