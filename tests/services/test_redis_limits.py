"""`RedisLimits` with a real Redis: processes that share, that are killed, and a server that stops, restarts or forgets.

The processes of the first tests are real. The other tests have several participants on one event loop, each with a
connection, a name and a state of its own, like those of several processes.
"""

import asyncio
import contextlib
import itertools
import signal
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis_processes import LEASE, Notes, ask_many, start_many
from redis_server import RedisServer
from relay_processes import Process

import rxllm
from rxllm.combinators import redis_claims, shared_state
from rxllm.combinators.own_share import Asked
from rxllm.testing import FakeServer, MarbleLLM, Reply, Signal

ANSWER = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}]}
SECOND = {"requests_per_minute": 60}  # one request a second


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis for the tests that do not harm it."""
    with RedisServer(tmp_path_factory.mktemp("redis"), fsync="no") as server:
        yield server


@pytest.fixture
def fragile(tmp_path):
    """A Redis of one test, which forgets everything when it ends."""
    with RedisServer(tmp_path, fsync=None) as server:
        yield server


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """Let leases expire soon. A busy machine must not look like a Redis that does not answer."""
    for module, name in [(shared_state, "_LEASE"), (redis_claims, "LEASE")]:
        monkeypatch.setattr(module, name, LEASE)
    for module in (shared_state, redis_claims):
        monkeypatch.setattr(module, "_TIMEOUT", 30.0)


def asked(tokens=1.0, **limits):
    """Return what a request takes of these limits."""
    limiter = rxllm.Limiter(**limits)
    return Asked(limiter._queue.rates, tokens, limits.get("concurrency"))


async def several(url, name, count, **options):
    """Return participants like those of several processes."""
    return [await rxllm.RedisLimits(url, name, **options).participant() for _ in range(count)]


async def planned(participant, request, most=None):
    """Reserve a request without waiting for its time, and return the time."""
    deadline = float("inf") if most is None else time.monotonic() + most
    reserved = await participant._reserve(request, deadline)
    return time.monotonic() + reserved.wait


async def reached(look, is_enough):
    """Call a coroutine function until its result is as expected, and return it."""
    while not is_enough(value := await look()):  # noqa: ASYNC110  (another process sends no event)
        await asyncio.sleep(0.01)
    return value


async def go(*processes):
    """Let processes start together when all are ready."""
    for process in processes:
        assert "ready" == await process.report()
    for process in processes:
        process.connection.send("go")


def most_within(times, seconds):
    """Return the largest number of times in any period of so many seconds."""
    times = sorted(times)
    return max(sum(start <= time < start + seconds for time in times) for start in times)


def most_at_once(exchanges):
    """Return the largest number of requests that the server answered at the same time."""
    steps = [(exchange.arrived.at, 1) for exchange in exchanges]
    steps += [(exchange.finished.at, -1) for exchange in exchanges]
    return max(itertools.accumulate(step for _, step in sorted(steps)))


async def test_processes_share_one_rate_fairly_whatever_their_clocks_say(redis):
    """Three processes and one whose clock is a minute ahead: their sum keeps the rate, and each gets a quarter."""
    rate, seconds = 40, 4.0
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(Process(start_many, redis.url, "fair", seconds, ahead=ahead, requests_per_second=rate))
            for ahead in (0.0, 0.0, 0.0, 61.0)
        ]
        await go(*processes)
        starts = [await process.report() for process in processes]
    together = list(itertools.chain(*starts))
    assert most_within(together, 2.0) <= 2 * rate * 1.15  # a busy machine starts some requests late
    mean = len(together) / len(starts)
    assert mean > 0.5 * rate * seconds / len(starts)
    assert all(0.75 * mean <= len(own) <= 1.25 * mean for own in starts)


async def test_processes_share_the_places_fairly(redis):
    """Three processes ask for 60 answers each: never more than four requests are open, and all get on equally."""
    slow = Reply([0.02, *Reply.json(ANSWER).body], content_type="application/json", chunked=False)
    with FakeServer(slow) as server, contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(Process(ask_many, redis.url, "places", server.url, 60, prompt, concurrency=4))
            for prompt in "abc"
        ]
        await go(*processes)
        assert [["x"] * 60] * 3 == [await process.report() for process in processes]
        assert 180 == len(server.exchanges)
        assert 2 <= most_at_once(server.exchanges) <= 4
        prompts = "".join(exchange.request.json["messages"][0]["content"] for exchange in server.exchanges)
        together = prompts[max(map(prompts.index, "abc")) : min(map(prompts.rindex, "abc"))]
        counts = [together.count(prompt) for prompt in "abc"]
        assert max(counts) - min(counts) <= 3 + len(together) / 10


async def test_killed_process_frees_its_place_and_a_living_one_keeps_it(redis):
    """The lease of a killed process expires. That of a process whose request runs for longer is renewed."""
    released = Signal()
    held = Reply([released, *Reply.json(ANSWER).body], content_type="application/json", chunked=False)
    limits = {"concurrency": 2}
    with FakeServer(held) as server, contextlib.ExitStack() as stack:
        victim, other, third, last = (
            stack.enter_context(Process(ask_many, redis.url, "killed", server.url, 1, **limits)) for _ in range(4)
        )
        await go(victim, other)
        await asyncio.gather(*(server.exchange(number).arrived.soon() for number in range(2)))
        await go(third)
        with pytest.raises(TimeoutError):
            await server.exchange(2).arrived.soon(2 * LEASE)  # both renew their leases
        killed_at = time.monotonic()
        victim.send(signal.SIGKILL)
        await server.exchange(2).arrived.soon()
        assert server.exchange(2).arrived.at - killed_at >= LEASE / 2
        await go(last)
        with pytest.raises(TimeoutError):
            await server.exchange(3).arrived.soon(2 * LEASE)
        released.set()
        assert [["x"]] * 3 == [await process.report() for process in (other, third, last)]


async def test_no_period_has_more_than_the_limit_whatever_the_burst_is(redis):
    """Half of the minute's requests may start at once, but not half a minute's more in the same minute."""
    three = await several(redis.url, "period", 3)
    request = asked(requests_per_minute=40, burst=20)
    times = [await planned(one, request) for _ in range(30) for one in three]
    assert 40 == most_within(times, 60 - 1)  # a span is a second
    assert max(times) - min(times) <= 60 * 90 / 40 + 61


async def test_participants_alternate(redis):
    """One that asks for one request waits behind one reservation of each other, not behind all their requests."""
    one, two = await several(redis.url, "alternate", 2)
    request = asked(**SECOND)
    await planned(one, request)
    waiting = [asyncio.create_task(one.start(request, None)) for _ in range(50)]
    await reached(lambda: asyncio.sleep(0, one._starts), lambda at: at > time.monotonic())
    assert await planned(two, request) - time.monotonic() < 2.5
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_places_are_given_in_the_order_of_the_requests(redis, monkeypatch):
    """The participant that waits longest gets the place. It hears of it, and need not look for itself."""
    monkeypatch.setattr(shared_state, "_LOOK", 600.0)
    monkeypatch.setattr(shared_state, "_PATIENCE", 600.0)
    holder, first, second = await several(redis.url, "line", 3)
    request = asked(concurrency=1)
    place = await holder.start(request, None)
    order, tasks = [], []
    for name, one in (("first", first), ("second", second)):

        async def wait(name=name, one=one):
            reserved = await one.start(request, None)
            order.append(name)
            one.end(request, reserved)

        tasks.append(asyncio.create_task(wait()))
        await reached(lambda one=one: asyncio.sleep(0, one._waits), bool)
    again = asyncio.create_task(holder.start(request, None))
    holder.end(request, place)
    await asyncio.gather(*tasks)
    assert ["first", "second"] == order
    holder.end(request, await again)


async def test_request_that_leaves_gives_its_place_back(redis):
    """A cancelled request does not let the others wait: neither for its time, nor for its place."""
    limits = rxllm.RedisLimits(redis.url, "leaves")
    limiter = rxllm.Limiter(requests_per_minute=60, burst=1, concurrency=2, shared=limits)
    (other,) = await several(redis.url, "leaves", 1)
    request = asked(requests_per_minute=60, burst=1, concurrency=2)
    await planned(other, request)
    task = asyncio.create_task(rxllm.limited(Notes(), limiter).ainvoke("x"))
    own = await limits.participant()
    await reached(lambda: asyncio.sleep(0, own._held), bool)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    before = time.monotonic()
    assert await planned(other, request) - before <= 1.0
    assert 0 == own._held


async def test_loop_that_ends_gives_its_places_back_at_once(redis):
    """A script may end while its answer is still open."""
    request = asked(concurrency=1)
    limiter = rxllm.Limiter(concurrency=1, shared=rxllm.RedisLimits(redis.url, "ends"))

    async def leave():
        stream = rxllm.limited(MarbleLLM("a-----|", timespan=60), limiter).astream("x")
        await anext(stream)

    await asyncio.to_thread(asyncio.run, leave())
    (other,) = await several(redis.url, "ends", 1)
    place = await other.start(request, LEASE / 4)
    with pytest.raises(rxllm.RateLimited):
        await other.start(request, 0.0)
    other.end(request, place)


async def test_wait_that_is_too_long_is_refused(redis):
    """Before anything is sent, with the time of the wait; a refused request takes nothing."""
    (other,) = await several(redis.url, "refused", 1)
    request = asked(requests_per_minute=1)
    await planned(other, request)
    limiter = rxllm.Limiter(requests_per_minute=1, max_wait=0, shared=rxllm.RedisLimits(redis.url, "refused"))
    for _ in range(2):
        with pytest.raises(rxllm.RateLimited, match="shared limits 'refused' are full, and it could start in") as error:
            await rxllm.limited(Notes(), limiter).ainvoke("x")
        assert 40 < error.value.retry_after <= 60
        limiter = rxllm.Limiter(requests_per_minute=1, max_wait=0, shared=limiter._shared)
    holder, waiting = await several(redis.url, "refused places", 2)
    request = asked(concurrency=1)
    place = await holder.start(request, None)
    with pytest.raises(rxllm.RateLimited, match=r"are full\. Limiter"):
        await waiting.start(request, 0.0)
    holder.end(request, place)
    waiting.end(request, await waiting.start(request, None))


async def test_requests_of_one_loop_do_not_wait_for_each_other_to_be_refused(redis):
    """With ``max_wait`` a request behind one that waits for a minute is refused at once, with that time."""
    (one,) = await several(redis.url, "behind", 1)
    request = asked(requests_per_minute=1)
    await planned(one, request)
    waiting = asyncio.create_task(one.start(request, None))
    await reached(lambda: asyncio.sleep(0, one._starts), lambda at: at > time.monotonic() + 1)
    with pytest.raises(rxllm.RateLimited, match="it could start in") as error:
        await one.start(request, 1.0)
    assert 40 < error.value.retry_after <= 60
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_refusal_of_the_server_holds_for_all_processes(redis):
    """A ``retry-after`` that one process gets lets the others wait."""
    limiter = rxllm.Limiter(requests_per_minute=6000, shared=rxllm.RedisLimits(redis.url, "closed"))
    (other,) = await several(redis.url, "closed", 1)
    request = asked(requests_per_minute=6000)
    refusal = Reply.json({"error": {"message": "slow"}}, status=429, headers={"retry-after": "50"})
    with FakeServer(refusal) as server:
        llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=server.url, max_retries=0)
        with pytest.raises(rxllm.RateLimited):
            await rxllm.limited(llm, limiter).ainvoke("x")
        await reached(lambda: planned(other, request), lambda at: at - time.monotonic() > 30)


async def test_tokens_are_corrected_when_the_answer_tells(redis):
    """The estimate reserves, the usage counts: both for the pace, and for the minute."""
    usage = rxllm.Usage(input_tokens=500, output_tokens=500)

    class Long(rxllm.LLM):
        async def complete(self, request):
            return rxllm.Message("assistant", "x", usage=usage)

    limits = {"tokens_per_minute": 6000}
    limiter = rxllm.Limiter(**limits, shared=rxllm.RedisLimits(redis.url, "tokens"))
    await rxllm.limited(Long(), limiter).ainvoke("x")
    (other,) = await several(redis.url, "tokens", 1)
    request = asked(1.0, **limits)
    at = await reached(lambda: planned(other, request), lambda at: at - time.monotonic() > 5)
    assert at - time.monotonic() <= 10  # 1000 tokens at 100 a second
    whole = asked(5500.0, **limits)
    assert await planned(other, whole) - time.monotonic() > 50  # when the minute has forgotten the 1000


async def test_stopped_redis_leaves_each_participant_its_share(fragile, caplog, monkeypatch):
    """While Redis is stopped, two participants take half of each limit. Afterwards they share again, and keep to it."""
    one, two = await several(fragile.url, "stopped", 2)
    (strict,) = await several(fragile.url, "stopped", 1, strict=True)
    places = asked(concurrency=4)
    held = [await one.start(places, None) for _ in range(3)]
    await planned(two, asked(**SECOND))
    monkeypatch.setattr(shared_state, "_TIMEOUT", 0.25)
    fragile.process.send_signal(signal.SIGSTOP)
    try:
        before = time.monotonic()
        first, second = await planned(two, asked(**SECOND)), await planned(two, asked(**SECOND))
        assert time.monotonic() - before < 5.0  # a quarter of a second for Redis; the machine may be busy
        assert 1.9 < second - first <= 2.1  # half of the rate
        two_places = [await two.start(places, None) for _ in range(2)]
        waiting = asyncio.create_task(two.start(places, None))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert ["Redis does not answer (TimeoutError)"] == [text.partition(".")[0] for text in messages(caplog, "stop")]
        with pytest.raises(
            rxllm.RateLimited, match="Redis does not answer, so the shared limits 'stopped' are unknown"
        ):
            await strict.start(places, None)
    finally:
        fragile.process.send_signal(signal.SIGCONT)
    monkeypatch.setattr(shared_state, "_TIMEOUT", 30.0)
    one.end(places, held.pop())
    await asyncio.sleep(2 * LEASE)  # both have told Redis what they hold: two and two
    assert not waiting.done()
    for reserved in two_places:
        two.end(places, reserved)
    two_places = [await waiting, await two.start(places, None)]
    with pytest.raises(rxllm.RateLimited, match="are full"):
        await strict.start(places, 0.0)
    for participant, reserved in [*((one, each) for each in held), *((two, each) for each in two_places)]:
        participant.end(places, reserved)


def messages(caplog, name):
    """Return the warnings about these shared limits, without those of the strict participant."""
    return list(dict.fromkeys(record.getMessage() for record in caplog.records if name in record.getMessage()))


@pytest.mark.parametrize("how", ["restarted", "flushed"])
async def test_redis_that_forgets_lets_nobody_exceed_the_limits(fragile, caplog, how):
    """Every participant first tells how many places it holds, and when the rate has caught up."""
    three = await several(fragile.url, "forgets", 3)
    places, pace = asked(concurrency=6), asked(requests_per_minute=6)
    held = [(one, await one.start(places, None)) for one in three for _ in range(2)]
    last = [await planned(one, pace) for one in three][-1]
    if how == "restarted":
        fragile.kill()
        fragile.__enter__()
    else:
        async with Redis.from_url(fragile.url) as client:
            await client.flushall()
    waiting = [asyncio.create_task(one.start(places, None)) for one in three]
    await asyncio.sleep(2 * LEASE)
    assert not any(task.done() for task in waiting)
    assert any("Redis has lost the counts of the shared limits 'forgets'" in text for text in caplog.messages)
    assert await planned(three[2], pace) >= last + 9  # the pace goes on
    for one, reserved in held:
        one.end(places, reserved)
    for one, task in zip(three, waiting, strict=True):
        one.end(places, await task)


async def test_clock_of_redis_that_is_set_back_stops_nobody(redis):
    """Its time stands still until the clock has caught up, and then... goes on from there."""
    (one,) = await several(redis.url, "back", 1)
    await planned(one, asked(requests_per_minute=60))
    async with Redis.from_url(redis.url) as client:
        await client.eval(
            "local state = cmsgpack.unpack(redis.call('GET', KEYS[1])) state.behind = state.behind - 3600 "
            "redis.call('SET', KEYS[1], cmsgpack.pack(state))",
            1,
            "rxllm:limits:{back}",
        )
    assert await planned(one, asked(requests_per_minute=60)) - time.monotonic() <= 1.0


async def test_limits_are_shared_over_tls(tmp_path):
    """``rediss://`` with a certificate."""
    certificate = Path(__file__).parents[1] / "wire" / "loopback.pem"
    with RedisServer(tmp_path, fsync=None, certificate=certificate) as server:
        one, two = await several(server.url, "tls", 2)
        await planned(one, asked(**SECOND))
        assert await planned(two, asked(**SECOND)) - time.monotonic() > 0.5
        llm = rxllm.cached(MarbleLLM("-Hel-lo|", timespan=0.001), rxllm.RedisStore(server.url), name="m")
        assert "Hello" == (await llm.ainvoke("x")).text


async def test_keys_have_the_prefix_and_hold_no_pickle(redis):
    """All keys of an account begin with the prefix, and expire."""
    one, two = await several(redis.url, "keys", 2, prefix="mine")
    request = asked(concurrency=1, **SECOND)
    place = await one.start(request, None)
    waiting = asyncio.create_task(two.start(request, None))
    async with Redis.from_url(redis.url) as client:
        await reached(lambda: asyncio.sleep(0, two._waits), bool)
        one.end(request, place)
        two.end(request, await waiting)
        for key in await client.keys("*{keys}*"):
            assert key.startswith(b"mine:limits:{keys}")
            assert await client.ttl(key) > 0
        state = await client.eval(
            "return cjson.encode(cmsgpack.unpack(redis.call('GET', KEYS[1])))", 1, "mine:limits:{keys}"
        )
        assert state.startswith(b"{")
