"""Thousands of requests that begin at once and are open at the same moment: each is answered, and none times out.

The first round is ``rxllm batch --concurrency N`` from cold, the second is N streams of one event loop. The server is
another process: it sends the first half of each answer, and holds the second halves until all N requests have come. At
that moment the client's memory is read. It is compared with the memory of the same client with one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from soaking import CONTEXT, PROTOCOLS, Soak, asking, run

from rxllm.cli.draining import room_for_many
from rxllm.testing import FakeServer, Reply, Signal
from rxllm.testing.servers import Received

LARGEST = 34 * 1024  # bytes of memory for each open request
MANY = 1000  # below this number of requests the memory says nothing
PIECES = ["All ", "together"]


def serve(parent: Connection, count: int) -> None:
    """Hold all answers until `count` requests have come and the parent has sent a message."""
    raise_descriptors()
    arrived, released = 0, Signal()

    def reply(request: Received) -> Reply:
        nonlocal arrived
        arrived += 1
        if arrived == count:
            parent.send("all")
        protocol = next(each for each in PROTOCOLS if each.path == request.path)
        if request.json.get("stream"):
            first, *rest = protocol.stream(PIECES)
            return Reply([first, released, *rest])
        whole = protocol.whole(PIECES)
        half = len(whole) // 2
        steps = [whole[:half], released, whole[half:]]
        return Reply(steps, content_type="application/json", chunked=False)

    with FakeServer(reply) as server:
        parent.send(server.url)
        parent.recv()
        released.set()
        parent.recv()


@contextlib.contextmanager
def serving(count: int) -> Iterator[tuple[str, Connection]]:
    """Run the server in a process. Yield its address, and the pipe on which it says that all requests have come."""
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=serve, args=[there, count])
    process.start()
    there.close()
    try:
        yield here.recv(), here
    finally:
        with contextlib.suppress(OSError):
            here.send("release")
            here.send("stop")
        process.join()


def raise_descriptors() -> None:
    """Allow this process as many open files as the system does."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def rows_of(directory: str, count: int) -> Path:
    """Write so many rows to a file, and return its path."""
    path = Path(directory, "rows.jsonl")
    path.write_text("".join(f'{{"custom_id": "{number}", "prompt": "p{number}"}}\n' for number in range(count)))
    return path


def batch(url: str, count: int, directory: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the command in a process. Return the process and the path of its output."""
    rows, output = rows_of(directory, count), Path(directory, "out.jsonl")
    words = ["batch", str(rows), "-o", str(output), "-m", "openai:m", "--attempts", "1", "--concurrency", str(count)]
    environment = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "k"}
    return subprocess.Popen([sys.executable, "-m", "rxllm", *words], env=environment, stderr=subprocess.DEVNULL), output


def streams(url: str, count: int, report: Connection) -> None:
    """Read `count` streams on one event loop, and report the answers or errors."""

    async def one(number: int) -> str:
        try:
            return "".join([chunk.text async for chunk in llm.astream(f"p{number}")])
        except Exception as error:
            return repr(error)

    async def together() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(count)))

    llm = asking(next(each for each in PROTOCOLS if each.name == "chat"), url)
    with room_for_many():
        report.send(asyncio.run(together()))


def resident(pid: int) -> int:
    """The bytes of memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def wait_for_all(soak: Soak, pipe: Connection, pid: int) -> int:
    """Return the client's memory when all requests are open."""
    while not pipe.poll(0.5):
        if soak.over or not Path(f"/proc/{pid}").exists():
            soak.fault("not all requests arrived")
            return 0
    pipe.recv()
    memory = resident(pid)
    pipe.send("release")
    return memory


def batched(soak: Soak, count: int) -> int:
    """Answer rows by the command. Return its memory when all requests are open."""
    with tempfile.TemporaryDirectory() as directory, serving(count) as (url, pipe):
        process, output = batch(url, count, directory)
        memory = wait_for_all(soak, pipe, process.pid)
        if process.wait():
            soak.fault(f"rxllm batch ended with {process.returncode}")
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        texts = Counter(
            line["response"]["body"]["choices"][0]["message"]["content"] if line["response"] else str(line["error"])
            for line in lines
        )
        check(soak, "rxllm batch", texts, count)
    return memory


def streamed(soak: Soak, count: int) -> int:
    """Read streams. Return the memory of their process when all are open."""
    with serving(count) as (url, pipe):
        here, there = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=streams, args=[url, count, there])
        process.start()
        memory = wait_for_all(soak, pipe, process.pid or 0)
        check(soak, "streams", Counter(here.recv()), count)
        process.join()
    return memory


def check(soak: Soak, name: str, texts: Counter[str], count: int) -> None:
    """Check that there are `count` whole answers and nothing else."""
    if texts != {"".join(PIECES): count}:
        soak.fault(f"{name}: not {count:,} answers, but {texts.most_common(3)}")


def work(soak: Soak) -> None:
    """Run both rounds, each with one request first."""
    for name, round_ in (("batch", batched), ("streams", streamed)):
        alone = round_(soak, 1)
        began = time.monotonic()
        size = (round_(soak, soak.count) - alone) / soak.count
        soak.numbers[f"{name}_seconds"] = round(time.monotonic() - began, 1)
        soak.numbers[f"{name}_kilobytes"] = round(size / 1024, 1)
        if soak.count >= MANY and size > LARGEST:
            soak.fault(f"{name}: each open request takes {size:,.0f} bytes")
    soak.numbers["requests"] = soak.count


if __name__ == "__main__":
    run(work, count=10_000)
