"""Processes that share limits and answers through Redis, for tests that kill them.

They import the HTTP client before they start: on a busy machine the import could take longer than their short leases.
"""

import asyncio
import contextlib
import time

import redis.asyncio  # noqa: F401

import rxllm
import rxllm.providers.openai
import rxllm.wire.clients
import rxllm.wire.transport
from rxllm.combinators import redis_claims, shared_state

LEASE = 2.0  # seconds; a busy machine must not look like a dead one


def hurry(lease=LEASE):
    """Let leases expire soon, and wait long for Redis on a busy machine."""
    shared_state._LEASE = redis_claims.LEASE = lease
    shared_state._TIMEOUT = redis_claims._TIMEOUT = 30.0


class Notes(rxllm.LLM):
    """A model that notes when it is asked, and answers after a pause."""

    def __init__(self, pause=0.0):
        super().__init__()
        object.__setattr__(self, "pause", pause)
        object.__setattr__(self, "asked", [])

    async def complete(self, request):
        """Answer after the pause."""
        self.asked.append(time.monotonic())
        await asyncio.sleep(self.pause)
        return "x"


def start_many(connection, url, name, seconds, ahead=0.0, **limits):
    """Ask as fast as the limits allow for some seconds, and report when each request started.

    The wall clock of the process is ahead of the others'.
    """
    hurry()
    wall = time.time
    time.time = lambda: wall() + ahead

    async def run():
        llm = Notes()
        limiter = rxllm.Limiter(**limits, shared=rxllm.RedisLimits(url, name))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await rxllm.limited(llm, limiter).abatch(["x"] * 10_000, max_concurrency=50)
        return llm.asked

    connection.send("ready")
    connection.recv()
    connection.send(asyncio.run(run()))


def ask_many(connection, url, name, server, count, prompt="x", lease=LEASE, **limits):
    """Ask a server for so many answers within the limits, and report their texts."""
    hurry(lease)

    async def run():
        limiter = rxllm.Limiter(**limits, shared=rxllm.RedisLimits(url, name))
        llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=server, max_retries=0)
        return await rxllm.limited(llm, limiter).abatch([prompt] * count, max_concurrency=count)

    connection.send("ready")
    connection.recv()
    connection.send([answer.text for answer in asyncio.run(run())])


def ask_stored(connection, url, server, prompt, lease=LEASE):
    """Ask a server for an answer, or wait for that of another process, and report the text or the error's name."""
    hurry(lease)
    llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=server, max_retries=0)
    cached = rxllm.cached(llm, rxllm.RedisStore(url), name="m")
    connection.send("ready")
    connection.recv()
    try:
        connection.send(cached.invoke(prompt).text)
    except rxllm.RxllmError as error:
        connection.send(type(error).__name__)
