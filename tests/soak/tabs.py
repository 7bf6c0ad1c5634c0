"""Many open tabs and a few slow ones: memory stays flat, no tab waits for another, no event is lost or repeated.

One process serves `chat`; this one holds the tabs. Each tab asks again and again, and its model emits four chunks a
second, each with the time of its making. Every twentieth tab is slow: its chunks are large, and it reads only at the
end of each answer. The result line has the delay from the model to the tab, and the memory of the server after the
second round and at the end. The delay counts the scheduling of two processes, so a busy machine has larger ones.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn
from soaking import CONTEXT, Soak, run

import rxllm
from rxllm.serve import chat

PACE = 0.25  # seconds between two chunks
WIDE = 50_000  # characters of a slow tab's chunk
GROWTH = 0.1  # of the server's memory after the second round, which has seen every tab's log replaced


class Paced(rxllm.LLM):
    """A model that emits the times at which it emits."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """Emits as many chunks as the prompt says, of the size that it says."""
        count, size = map(int, request.text.split())
        for number in range(count):
            await asyncio.sleep(PACE)
            yield f"{number}:{time.monotonic():.6f}:{'x' * size};"


def serve(parent: Connection) -> None:
    """Serves until the parent closes the pipe."""

    async def work() -> None:
        gc.freeze()
        server = uvicorn.Server(
            uvicorn.Config(chat({"m": Paced()}, max_concurrency=10**6), log_level="error", backlog=4096)
        )
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        parent.send(listener.getsockname()[1])
        await asyncio.to_thread(parent.recv)
        server.should_exit = True
        await task

    asyncio.run(work())


async def ask(port: int, number: int, count: int, *, slow: bool, delays: list[float]) -> str | None:
    """One answer in a tab. Returns what is wrong with it, if anything."""
    question = f"{count} {WIDE if slow else 0}"
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": question}]}
    body = json.dumps({"id": f"tab {number}", "messages": [message]}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    writer.write(
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    )
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    if slow:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(PACE * count)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
    seen, ids, ended = [], [], False
    while line := await reader.readline():
        now = time.monotonic()
        if line.startswith(b"id: "):
            ids.append(line)
        elif b'"text-delta"' in line:
            event = json.loads(line[6:])
            for piece in event["delta"].split(";")[:-1]:
                place, at, _ = piece.split(":")
                seen.append(int(place))
                if not slow:
                    delays.append(now - float(at))
        ended = ended or b"[DONE]" in line
    writer.close()
    if not ended:
        return f"tab {number}: the answer has no end"
    if seen != list(range(count)) or len(ids) != len(set(ids)):
        return f"tab {number}: the answer has the chunks {seen}"
    return None


def memory(pid: int) -> int:
    """The memory of a process, in KiB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0])


async def rounds(soak: Soak, port: int, pid: int) -> None:
    """All tabs ask at the same time, round after round."""
    small = soak.count < 100
    count, repetitions = (4, 2) if small else (40, 6)
    delays: list[float] = []
    sizes: list[int] = []
    began = time.process_time()
    for _ in range(repetitions):
        tabs = [ask(port, number, count, slow=number % 20 == 19, delays=delays) for number in range(soak.count)]
        for fault in filter(None, await asyncio.gather(*tabs)):
            soak.fault(fault)
        sizes.append(memory(pid))
        if soak.over:
            break
    delays.sort()
    if not small and sizes[-1] > sizes[1] * (1 + GROWTH):
        soak.fault(f"the server's memory grew: {sizes} KiB")
    soak.numbers.update(
        cases=soak.count * len(sizes),
        p50_ms=round(delays[len(delays) // 2] * 1000, 1),
        p99_ms=round(delays[len(delays) * 99 // 100] * 1000, 1),
        second_mib=sizes[1] // 1024,
        last_mib=sizes[-1] // 1024,
        client_cpu=round(time.process_time() - began, 1),
    )


def work(soak: Soak) -> None:
    """Starts the server, opens the tabs, and ends the server."""
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=serve, args=[there])
    process.start()
    try:
        asyncio.run(rounds(soak, here.recv(), process.pid or 0))
        cpu = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        soak.numbers["server_cpu"] = round((int(cpu[11]) + int(cpu[12])) / 100, 1)
        here.send(None)
        process.join(20)
    finally:
        process.kill()
        process.join()


if __name__ == "__main__":
    run(work, count=1000, seconds=120)
