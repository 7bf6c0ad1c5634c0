"""Processes that produce answers into a shared log, for tests that kill them.

They are forked from a server that has imported everything, so that each starts in milliseconds.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver

import uvicorn

import rxllm
from rxllm.bridges import AsyncStream
from rxllm.serve import RedisLog, Relay, SQLiteLog, chat
from rxllm.serve.sse import Events

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "relay_processes"])
COUNT = 60  # numbers in an answer
LEASE = 3.0  # seconds; a busy machine must not look like a dead one


def opened(place, **options):
    """Return the log at an address of Redis or a path of SQLite."""
    return (RedisLog if place.startswith("redis://") else SQLiteLog)(place, **{"lease": LEASE, **options})


def killing(log, seq, *, after):
    """Let the process die when it writes this event: before the write, or after the log has taken it."""
    append = log.append

    async def write(key, epoch, first, events):
        dies = first + len(events) > seq
        if dies and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await append(key, epoch, first, events)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    log.append = write


async def numbers(count=COUNT, pause=0.002):
    """Emit the numbers from 1 on."""
    for number in range(1, count + 1):
        await asyncio.sleep(pause)
        yield str(number)


def produce(connection, place, key, seq=None, after=False, pause=0.002, lease=LEASE, linger=30.0, patience=10.0):
    """Produce one answer, and report its epoch, how many numbers the model gave, and when its request was closed."""

    async def run():
        given = 0

        async def counted():
            nonlocal given
            async for number in numbers(pause=pause):
                given += 1
                yield number

        log = opened(place, lease=lease)
        if seq is not None:
            killing(log, seq, after=after)
        relay = Relay(log, linger=linger, patience=patience)
        position = await relay.start(key, rxllm.from_aiter(counted), Events())
        connection.send(position.epoch)
        await asyncio.gather(*relay._producers.values(), return_exceptions=True)
        connection.send(given)
        await relay.aclose()

    asyncio.run(run())


class Counts(rxllm.LLM):
    """A model that counts."""

    async def chunks(self, request):
        """Emit the numbers, each with a space."""
        async for number in numbers(pause=0.01):
            yield f"{number} "


def serve(connection, place):
    """Serve `chat` on a free port, and report the port."""

    async def run():
        server = uvicorn.Server(
            uvicorn.Config(chat({"m": Counts()}, relay=Relay(opened(place))), port=0, log_level="error")
        )
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        connection.send(server.servers[0].sockets[0].getsockname()[1])
        await task

    asyncio.run(run())


def start_server():
    """Start the server that forks, with this process's path: it imports before it gets the path of a child."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Process:
    """``with Process(produce, …) as process``: a process and the connection to it; it is killed at the end."""

    def __init__(self, function, *arguments, **options):
        start_server()
        self.connection, child = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=function, args=(child, *arguments), kwargs=options)
        self.process.start()
        child.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.send(signal.SIGKILL)
        self.process.join()
        self.process.close()
        self.connection.close()

    def send(self, number):
        """Send a signal."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    async def report(self):
        """Return what the process reports next."""
        return await asyncio.to_thread(self.connection.recv)


def watching(place, **options):
    """Return a relay that only reads, and looks often whether a producer has died."""
    return Relay(opened(place, lease=0.2), **options)


async def read(place, key, after, relay=None):
    """Return what a reader gets: the numbers, the last position, and the end: an ending or an error."""
    reader = watching(place) if relay is None else relay
    got, last = [], after
    try:
        async with AsyncStream(reader.follow(key, after)) as stream:
            async for entry in stream:
                last = entry.id
                if entry.ending is not None:
                    return got, last, entry.ending
                got.append(int(entry.data.removeprefix(b'data: "').removesuffix(b'"')))
    except rxllm.Interrupted as error:
        return got, last, error
    finally:
        if relay is None:
            await reader.aclose()
    raise AssertionError("the stream ended without an end")
