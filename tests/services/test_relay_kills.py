"""A relay's promises when a process dies: SIGKILL of the producer, of the reader, and of Redis.

Each row of the table in docs/how-to/resume-answers.md has its test here.
"""

import asyncio
import json
import signal

import httpx
import pytest
from redis_server import RedisServer
from relay_processes import COUNT, Process, opened, produce, read, serve, watching

import rxllm
from rxllm.bridges import AsyncStream
from rxllm.serve import Relay
from rxllm.serve.logs import Position

POINTS = [
    (1, False),
    (1, True),
    (2, True),
    (7, False),
    (7, True),
    (20, True),
    (33, False),
    (45, True),
    (60, False),
    (60, True),
]
WHOLE = [*range(1, COUNT + 1)]


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """Return the place of a log that processes share."""
    if request.param == "sqlite":
        yield str(tmp_path / "log.sqlite")
        return
    with RedisServer(tmp_path) as server:
        yield server.url


async def test_producer_killed_at_any_write_leaves_what_arrived_and_an_interruption(place):
    """Two readers get the same numbers without a gap, and then an error; every number that the log took is there."""

    async def die(number, seq, after):
        key = ("alice", f"chat {number}")
        with Process(produce, place, key, seq=seq, after=after) as process:
            start = Position(await process.report(), 0)
            one, other = await asyncio.gather(*(read(place, key, start, relay) for relay in readers))
        assert one[:2] == other[:2]
        got, last, error = one
        assert WHOLE[: len(got)] == got
        assert len(got) >= seq if after else len(got) < seq
        assert isinstance(error, rxllm.Interrupted)
        assert ([], last) == (await read(place, key, last, readers[0]))[:2], (
            "a reader that comes back gets the end again"
        )

    readers = [watching(place) for _ in range(2)]
    await asyncio.gather(*(die(number, *point) for number, point in enumerate(POINTS)))
    for relay in readers:
        await relay.aclose()


async def test_whole_answer_arrives_from_another_process(place):
    """Without a death every number arrives once, and the end is ``finish``."""
    with Process(produce, place, ("alice", "c")) as process:
        start = Position(await process.report(), 0)
        assert (WHOLE, "finish") == (await read(place, ("alice", "c"), start))[::2]


async def test_paused_producer_is_fenced(place):
    """A process that sleeps longer than its lease finds its answer ended, writes nothing more and stops its model."""
    key = ("alice", "c")
    with Process(produce, place, key, pause=0.05, lease=1.0) as process:
        start = Position(await process.report(), 0)
        relay = watching(place)
        async with AsyncStream(relay.follow(key, start)) as stream:
            await anext(stream)
        process.send(signal.SIGSTOP)
        got, _, error = await read(place, key, start, relay)
        assert isinstance(error, rxllm.Interrupted)
        process.send(signal.SIGCONT)
        assert len(got) <= await process.report() < COUNT
        assert (got, str(error)) == ((again := await read(place, key, start, relay))[0], str(again[2]))
        await relay.aclose()


async def test_stop_in_one_process_closes_the_request_of_another(place):
    """A silent model is stopped too: the process that produces hears of the stop."""
    key = ("alice", "c")
    with Process(produce, place, key, pause=1000) as process:
        start = Position(await process.report(), 0)
        relay = Relay(opened(place, lease=600))  # so that only the log's notice can end the wait
        reading = asyncio.create_task(read(place, key, start, relay))
        assert await relay.stop(key)
        assert ([], "abort") == (await reading)[::2]
        assert 0 == await process.report()
        await relay.aclose()


async def test_readers_of_all_processes_count(place):
    """A reader in another process keeps the answer alive; without any reader it is aborted after `linger`."""
    key = ("alice", "c")
    with Process(produce, place, key, pause=1000, linger=1.0) as process:
        start = Position(await process.report(), 0)
        relay = watching(place, linger=1.0)
        async with AsyncStream(relay.follow(key, start)) as stream:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 2)
            assert start == await relay.running(key)
        assert 0 == await process.report()
        assert ([], "abort") == (await read(place, key, start, relay))[::2]
        await relay.aclose()


async def test_killed_web_process_loses_no_event_of_its_readers(place):
    """A client whose server dies goes on at another one: each event once. The producer lives in a third process."""
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    with Process(serve, place) as producer, Process(serve, place) as victim, Process(serve, place) as other:
        urls = [f"http://127.0.0.1:{await process.report()}/api/chat" for process in (producer, victim, other)]
        async with httpx.AsyncClient(timeout=60) as http:
            async with http.stream("POST", urls[0], json={"id": "c", "messages": [message]}) as answer:
                assert 200 == answer.status_code
            got = []
            async with http.stream("GET", f"{urls[1]}/c/stream") as answer:
                with pytest.raises(httpx.HTTPError):
                    await collect(answer, got, victim)
            last = got[-1][0]
            async with http.stream("GET", f"{urls[2]}/c/stream", headers={"last-event-id": last}) as answer:
                await collect(answer, got)
    text = "".join(event["delta"] for _, event in got if event["type"] == "text-delta")
    assert WHOLE == [int(number) for number in text.split()]
    assert ("start", "finish") == (got[0][1]["type"], got[-1][1]["type"])


async def collect(answer, got, victim=None):
    """Add the (id, event) pairs of a response; after 20 of them, kill a process."""
    last = None
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            last = value
        elif name == "data" and value != "[DONE]":
            got.append((last, json.loads(value)))
            if victim is not None and len(got) == 20:
                victim.send(signal.SIGKILL)


async def test_redis_that_dies_and_comes_back_loses_nothing_with_its_file(tmp_path):
    """Redis is killed in the middle of an answer and started again with its file: each number arrives once."""
    key = ("alice", "c")
    with RedisServer(tmp_path) as redis, Process(produce, redis.url, key, pause=0.02, patience=60) as process:
        start = Position(await process.report(), 0)
        relay = watching(redis.url, patience=60)
        async with AsyncStream(relay.follow(key, start)) as stream:
            for _ in range(10):
                await anext(stream)
        reading = asyncio.create_task(read(redis.url, key, start, relay))
        redis.kill()
        await asyncio.sleep(0.3)
        redis.__enter__()
        assert (WHOLE, "finish") == (await reading)[::2]
        await relay.aclose()


async def test_redis_that_is_gone_interrupts_the_answer_and_closes_the_request(tmp_path):
    """After `patience` the reader gets an error, and the model is not asked any more."""
    key = ("alice", "c")
    with RedisServer(tmp_path) as redis, Process(produce, redis.url, key, pause=0.05, patience=0.5) as process:
        start = Position(await process.report(), 0)
        relay = watching(redis.url, patience=0.5)
        reading = asyncio.create_task(read(redis.url, key, start, relay))
        async with AsyncStream(relay.follow(key, start)) as stream:
            await anext(stream)
        redis.kill()
        got, _, error = await reading
        assert isinstance(error, rxllm.Interrupted)
        assert WHOLE[: len(got)] == got
        assert await process.report() < COUNT
        redis.__enter__()
        assert isinstance((await read(redis.url, key, start, relay))[2], rxllm.Interrupted)
        redis.kill()
        with pytest.raises(rxllm.Overloaded):
            await relay.running(key)
        redis.__enter__()
        await relay.aclose()
