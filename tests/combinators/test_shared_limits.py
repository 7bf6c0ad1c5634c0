"""`RedisLimits` and `RedisStore` without a Redis: what is refused, and what happens when none answers."""

import asyncio
import contextlib

import pytest
from ports import free_port

import rxllm
from rxllm.combinators.redis_limits import Share
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
        (lambda: rxllm.Limiter(concurrency=1, shared=rxllm.RedisLimits("redis://a", "a")), "needs a rate to share"),
    ],
)
def test_wrong_arguments_are_refused(make, sentence):
    """With the reason."""
    with pytest.raises(rxllm.MisuseError, match=sentence):
        make()


async def test_without_redis_the_process_keeps_the_rates_alone(url, caplog):
    """The log says so once, and no message or repr has the password."""
    limits = rxllm.RedisLimits(url, "account")
    limiter = rxllm.Limiter(requests_per_minute=6000, shared=limits)
    llm = rxllm.limited(MarbleLLM("-a|", timespan=0.001), limiter)
    assert ["a", "a"] == [answer.text for answer in await llm.abatch(["x", "y"])]
    await limits.book([Share("0", 500.0, 0.0)])
    assert 300 < (await limits.book([Share("0", 500.0, 0.0)])).wait <= 500.1
    assert ["Redis does not answer"] == [record.getMessage()[:21] for record in caplog.records]
    assert "secret" not in caplog.text + repr(limiter) + repr(rxllm.RedisStore(url))


async def test_forked_processes_have_names_of_their_own(url, monkeypatch):
    """Each takes a share of the rates while Redis is away, so they must be counted."""
    limits, names = rxllm.RedisLimits(url, "account"), set()

    async def call(script, keys, arguments):
        names.add(arguments[0])
        return ["0", 1]

    monkeypatch.setattr(limits, "_call", call)
    for process in (7, 8, 8):
        monkeypatch.setattr("rxllm.combinators.redis_limits.os.getpid", lambda process=process: process)
        await limits.book([Share("0", 1.0, 0.0)])
    assert 2 == len(names)


async def test_many_requests_at_once_wait_for_a_connection(monkeypatch):
    """The package refuses commands beyond 100 connections, which must not count as a Redis that does not answer."""

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.CancelledError):  # the loop ends before the client is closed
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                writer.write(b"*2\r\n$1\r\n0\r\n:1\r\n" if words[0].upper() == b"EVAL" else b"+OK\r\n")
        writer.close()

    monkeypatch.setattr(
        "rxllm.combinators.redis_limits._TIMEOUT", 60.0
    )  # on a busy machine 200 answers take their time
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    limits = rxllm.RedisLimits(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", "account", strict=True)
    bookings = await asyncio.gather(*(limits.book([Share("0", 1.0, 0.0)]) for _ in range(200)))
    assert all(booking.is_shared for booking in bookings)
    server.close()


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
