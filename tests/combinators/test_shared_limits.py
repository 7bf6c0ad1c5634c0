"""`RedisLimits` and `RedisStore` without a Redis: what is refused, and what happens when none answers."""

import asyncio
import copy
import pickle
import time

import pytest
from ports import free_port

import rxllm
from rxllm.combinators.own_share import Asked
from rxllm.combinators.redis_client import within
from rxllm.testing import MarbleLLM


@pytest.fixture
def url():
    """An address at which no Redis is."""
    return f"redis://:secret@127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rxllm.RedisLimits("localhost", "a"), "needs an address such as redis://localhost"),
        (lambda: rxllm.RedisLimits(3, "a"), "needs an address"),
        (lambda: rxllm.RedisLimits("redis://localhost", ""), "The name of RedisLimits must be text"),
        (lambda: rxllm.RedisStore("redis://localhost", prefix=""), "prefix of RedisStore"),
        (lambda: rxllm.RedisStore("redis://localhost", seconds=0), "seconds must be"),
        (lambda: rxllm.Limiter(requests_per_minute=1, shared="redis://localhost"), r"RedisLimits\(url, name\)"),
        (lambda: rxllm.Limiter(max_wait=1, shared=rxllm.RedisLimits("redis://a", "a")), "needs a limit to share"),
    ],
)
def test_wrong_arguments_are_refused(make, sentence):
    """With the reason."""
    with pytest.raises(rxllm.MisuseError, match=sentence):
        make()


@pytest.mark.parametrize("make", [lambda url: rxllm.RedisLimits(url, "a"), rxllm.RedisStore])
def test_password_is_not_pickled(make):
    """Without one, the copy has the same address."""
    for url in ("redis://:secret@localhost", "redis://localhost?password=secret"):
        with pytest.raises(rxllm.MisuseError, match="its address contains a password") as error:
            pickle.dumps(make(url))
        assert "=secret" not in str(error.value)
    copied = copy.deepcopy(make("redis://localhost"))
    assert (repr(make("redis://localhost")), "redis://localhost") == (repr(copied), copied._url)


async def test_without_redis_the_process_keeps_the_limits_alone(url, caplog):
    """The log says so once, and no message or repr has the password."""
    limits = rxllm.RedisLimits(url, "account")
    limiter = rxllm.Limiter(requests_per_minute=6000, concurrency=1, shared=limits)
    llm = rxllm.limited(MarbleLLM("-a|", timespan=0.001), limiter)
    assert ["a", "a"] == [answer.text for answer in await llm.abatch(["x", "y"])]
    participant = await limits.participant()
    slow = Asked(rxllm.Limiter(tokens_per_minute=60)._queue.rates, 60.0, None)
    assert 0 == (await participant.start(slow, 0.0)).wait
    with pytest.raises(rxllm.RateLimited, match="shared limits 'account' are full") as error:
        await participant.start(slow, 1.0)
    assert 50 < error.value.retry_after <= 60
    assert ["Redis does not answer"] == [record.getMessage()[:21] for record in caplog.records]
    assert "secret" not in caplog.text + repr(limiter) + repr(rxllm.RedisStore(url))


async def test_places_are_kept_without_redis(url):
    """A request waits until one before it has ended, also if it is cancelled meanwhile."""
    limits = rxllm.RedisLimits(url, "account")
    participant = await limits.participant()
    request = Asked((), 1.0, 1)
    first = await participant.start(request, None)
    left, second = (asyncio.create_task(participant.start(request, None)) for _ in range(2))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(rxllm.RateLimited):
        await participant.start(request, 0.0)
    participant.end(request, first)
    participant.end(request, await second)


async def test_refusal_of_the_server_holds_without_redis(url):
    """For this process."""
    participant = await rxllm.RedisLimits(url, "account").participant()
    participant.close_for(50.0)
    with pytest.raises(rxllm.RateLimited) as error:
        await participant.start(Asked((), 1.0, 1), 10.0)
    assert 40 < error.value.retry_after <= 50


async def test_each_loop_takes_part_by_itself(url):
    """Also that of a forked process or of a thread, so that all are counted."""
    limits = rxllm.RedisLimits(url, "account")
    own = await limits.participant()
    assert own is await limits.participant()

    async def other():
        return (await limits.participant())._state._member

    assert own._state._member != await asyncio.to_thread(asyncio.run, other())


async def test_time_of_a_busy_loop_does_not_count_against_redis():
    """Thousands of requests that begin at once must not look like a Redis that does not answer."""
    block = time.sleep  # the loop is busy

    async def answer():
        await asyncio.sleep(0)
        block(0.3)
        await asyncio.sleep(0)
        return "yes"

    assert "yes" == await within(0.05, answer())
    with pytest.raises(TimeoutError):
        await within(0.05, asyncio.Event().wait())


async def test_wait_without_an_end_is_bounded_on_a_loop_that_is_always_busy(monkeypatch):
    """After ten times the seconds."""
    loop = asyncio.get_running_loop()

    def be_busy():
        time.sleep(0.01)
        handle[0] = loop.call_later(0, be_busy)

    handle = [loop.call_later(0, be_busy)]
    with pytest.raises(TimeoutError):
        await within(0.01, asyncio.Event().wait())
    handle[0].cancel()


async def test_strict_limits_refuse_without_redis(url):
    """Before the request is sent. The error has the request."""
    limiter = rxllm.Limiter(requests_per_minute=6000, shared=rxllm.RedisLimits(url, "account", strict=True))
    with pytest.raises(rxllm.RateLimited, match="Redis does not answer") as caught:
        await rxllm.limited(MarbleLLM("-a|", timespan=0.001), limiter).ainvoke("x")
    assert "x" == caught.value.request.text


async def test_answers_come_without_the_store(url, caplog):
    """A store that cannot be reached costs money, and no answer."""
    llm = rxllm.cached(MarbleLLM("-a|", timespan=0.001), rxllm.RedisStore(url), name="m")
    assert "a" == (await llm.ainvoke("x")).text
    assert "The store of cached() failed" in caplog.text
    assert "secret" not in caplog.text
