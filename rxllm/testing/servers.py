r"""A local HTTP server that answers as told, faults included.

What a reply does is a sequence of steps, played in order::

    released = Signal()
    with FakeServer(Reply([b"data: Hel\n\n", released, b"data: lo\n\n", End.RST])) as server:
        ...                                     # any client, sync, async or in another process
        released.set()                          # the server stood still until here: no test needs to sleep
        server.exchange(0).wait_closed()

The server's loop runs in a daemon thread of its own; everything public may be used from any thread.
Longer than a room should be, because it is one thing to read: steps, facts and server explain each other.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from enum import Enum
from typing import Any, Self, cast
from urllib.parse import urlsplit

from attrs import define, field, frozen

from ..misuse import MisuseError

__all__ = ["End", "Endless", "Exchange", "FakeServer", "Received", "Reply", "Signal", "Step"]

BACKLOG = 4096  # so that a thousand clients may connect at the same moment


class Signal(threading.Event):
    """A `threading.Event` that can also be awaited, knows when it was set, and never times out in silence."""

    def __init__(self) -> None:
        super().__init__()
        self.at: float | None = None
        self._lock = threading.Lock()
        self._waiters: list[Future[None]] = []

    def set(self) -> None:
        """Set it and wake who waits; only the first time counts for `at` (by `time.monotonic()`)."""
        with self._lock:
            if self.is_set():
                return
            self.at = time.monotonic()
            super().set()
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)

    def wait(self, timeout: float | None = 5.0) -> bool:
        """Block until it is set; `TimeoutError` after `timeout` seconds."""
        if not super().wait(timeout):
            raise TimeoutError(f"not set within {timeout} seconds")
        return True

    async def soon(self, timeout: float | None = 5.0) -> None:  # noqa: ASYNC109 (the twin of `wait`)
        """The same for coroutines, on any loop."""
        waiter: Future[None] = Future()
        with self._lock:
            if self.is_set():
                return
            self._waiters.append(waiter)
        async with asyncio.timeout(timeout):
            await asyncio.wrap_future(waiter)


class End(Enum):
    """How a reply ends before its last step."""

    CLEAN = "properly, with the terminal chunk: a truncation that nobody notices"
    FIN = "the connection is closed, without the terminal chunk"
    RST = "the connection is reset"
    HANG = "not at all: the connection is held until the client leaves"


@frozen
class Endless:
    """A piece sent again and again, as fast as the client reads, until it leaves."""

    piece: bytes


Step = bytes | float | int | Signal | End | Endless
"""Bytes are sent as one HTTP chunk, a number pauses for so many seconds, a `Signal` is waited for."""


def _steps(body: bytes | Iterable[Step]) -> tuple[Step, ...]:
    steps: tuple[Any, ...] = (body,) if isinstance(body, bytes) else tuple(body)
    for step in steps:
        if not isinstance(step, Step):
            raise TypeError(f"not a step of a reply: {step!r}")
    return steps


@frozen
class Reply:
    """What to answer to one request.

    Status line and headers travel with the first bytes of the body; ``b""`` sends them alone. So steps before the
    first bytes happen before any answer: ``Reply([End.HANG])`` never answers, ``Reply([End.FIN])`` closes silently.

    Attributes:
        body: The steps, or the bytes of the only one.
        status: The HTTP status.
        headers: More headers, and those to replace. ``connection: close`` is obeyed.
        content_type: What the body claims to be.
        chunked: Whether each piece is a chunk; otherwise a Content-Length tells the bytes of *all* steps.
    """

    body: Sequence[Step] = field(default=(), converter=_steps)
    status: int = field(default=200, kw_only=True)
    headers: Mapping[str, str] = field(factory=dict[str, str], kw_only=True)
    content_type: str = field(default="text/event-stream", kw_only=True)
    chunked: bool = field(default=True, kw_only=True)

    @classmethod
    def json(cls, body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """A whole JSON answer with its Content-Length; bytes are taken as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return cls(content, status=status, headers=headers or {}, content_type="application/json", chunked=False)


@frozen
class Received:
    """A request as it came; the names of its headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@define(eq=False)
class Exchange:
    """One request and what became of its reply: facts to wait for.

    Attributes:
        request: What was received; known once `arrived` is set.
        bytes_sent: How much of the body was sent (without framing). It stands still when the client does.
        aborted: Whether the client left before the reply had ended; known once `closed` is set.
        arrived: The request has been read.
        finished: The reply was played to its end, be it a cut.
        closed: Its connection is gone, whoever closed it.
    """

    request: Received = field(init=False)
    bytes_sent: int = field(default=0, init=False)
    aborted: bool = field(default=False, init=False)
    arrived: Signal = field(factory=Signal, init=False)
    finished: Signal = field(factory=Signal, init=False)
    closed: Signal = field(factory=Signal, init=False)

    @property
    def closed_at(self) -> float | None:
        """When its connection went, by `time.monotonic()`."""
        return self.closed.at

    def wait_closed(self, since: float = 0.0, timeout: float | None = 5.0) -> float:
        """Block until its connection is gone; gives the seconds from `since` (by `time.monotonic()`) until then."""
        self.closed.wait(timeout)
        return (self.closed.at or 0.0) - since

    async def closed_soon(self, since: float = 0.0, timeout: float | None = 5.0) -> float:  # noqa: ASYNC109 (a twin)
        """The same for coroutines, on any loop."""
        await self.closed.soon(timeout)
        return (self.closed.at or 0.0) - since

    def wait_stalled(self, quiet: float = 0.1, timeout: float = 5.0) -> int:
        """Block until `bytes_sent` has stood still for `quiet` seconds; gives it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = self.bytes_sent
            if not threading.Event.wait(self.closed, quiet) and 0 < before == self.bytes_sent:
                return before
        raise TimeoutError(f"did not stall within {timeout} seconds")


class FakeServer:
    """The server: ``with FakeServer(Reply(b"…")) as server: …``. Leaving the block closes every connection."""

    def __init__(self, *replies: Reply | Callable[[Received], Reply]) -> None:
        self.url = ""
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._arrivals = 0
        self._connections: set[_Connection] = set()
        self.reply(*replies or [Reply.json({"error": {"message": "this FakeServer was given no reply"}}, status=501)])

    def reply(self, *replies: Reply | Callable[[Received], Reply]) -> None:
        """From now on answer with these, in order; the last one repeats. A function is asked with the request."""
        if not replies:
            raise ValueError("give at least one reply")
        for reply in replies:
            if not (isinstance(reply, Reply) or callable(cast("object", reply))):
                raise MisuseError(
                    f"A FakeServer answers with Reply objects, or a function of the request that returns one, not "
                    f"{type(reply).__name__}: say FakeServer(Reply(b'…'))."
                )
        self._replies = list(replies)

    def exchange(self, index: int = 0) -> Exchange:
        """The exchange of the request with this number, which may be still to come (see its `arrived`)."""
        with self._lock:
            self._exchanges += [Exchange() for _ in range(len(self._exchanges), index + 1)]
            return self._exchanges[index]

    @property
    def exchanges(self) -> list[Exchange]:
        """Those whose request has arrived, in order."""
        return self._exchanges[: self._arrivals]

    @property
    def requests(self) -> list[Received]:
        """What has been received, in order."""
        return [exchange.request for exchange in self.exchanges]

    @property
    def open_connections(self) -> int:
        """How many connections are open now, idle ones included."""
        return len(self._connections)

    def close_idle(self) -> None:
        """Close the kept-alive connections that wait for a request, unannounced."""

        def close() -> None:
            for connection in self._connections:
                if connection.played:
                    connection.transport.close()

        self._loop.call_soon_threadsafe(close)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="FakeServer", daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await self._loop.create_server(
            lambda: _Connection(self._arrive, self._connections), sock=self._listener, backlog=BACKLOG
        )
        await self._stop.wait()
        server.close()
        while self._connections or len(asyncio.all_tasks()) > 1:
            for connection in self._connections:
                connection.transport.abort()
            await asyncio.sleep(0)

    def _arrive(self, request: Received, connection: list[Exchange]) -> tuple[Exchange, Reply]:
        exchange = self.exchange(self._arrivals)
        exchange.request = request
        connection.append(exchange)
        self._arrivals += 1
        exchange.arrived.set()
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        try:
            made = cast("object", reply if isinstance(reply, Reply) else reply(request))
            if not isinstance(made, Reply):
                raise TypeError(f"it returned {type(made).__name__} instead of a Reply")
            return exchange, made
        except Exception as error:
            return exchange, Reply.json({"error": {"message": f"the reply function failed: {error!r}"}}, status=500)


def _head(reply: Reply) -> bytes:
    length = sum(len(step) for step in reply.body if isinstance(step, bytes))
    framing = {"transfer-encoding": "chunked"} if reply.chunked else {"content-length": str(length)}
    headers = {"content-type": reply.content_type, **framing, **reply.headers}
    lines = [f"HTTP/1.1 {reply.status} ", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _framed(reply: Reply, piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if reply.chunked and piece else piece


class _Connection(asyncio.Protocol):
    """A client's connection. A protocol, not streams: even while it stands still it hears at once that he left."""

    transport: asyncio.Transport

    def __init__(
        self, arrive: Callable[[Received, list[Exchange]], tuple[Exchange, Reply]], connections: set[_Connection]
    ) -> None:
        self.arrive = arrive
        self.connections = connections
        self.exchanges: list[Exchange] = []
        self.reader = asyncio.StreamReader(limit=2**20)
        self.writable = asyncio.Event()
        self.head = b""  # the status line and headers, as long as they are not sent
        self.played = True  # whether the last step of the latest reply has been written
        self.left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)  # so that writable means: all of it is with the kernel
        self.writable.set()
        self.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self.serve())

    def data_received(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def eof_received(self) -> None:
        self.left = True
        self.transport.abort()  # close() would first try to send what nobody reads

    def connection_lost(self, exc: Exception | None) -> None:
        self.task.cancel()
        asyncio.get_running_loop().call_soon(self.closed, exc)  # the socket is closed after this call

    def closed(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        for exchange in self.exchanges:
            if self.played and self.writable.is_set():
                exchange.finished.set()
            exchange.aborted = not exchange.finished.is_set() and (self.left or exc is not None)
            exchange.closed.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def serve(self) -> None:
        try:
            reusable = True
            while reusable:
                request = await self.receive()
                self.played = False
                exchange, reply = self.arrive(request, self.exchanges)
                reusable = await self.answer(exchange, reply) and request.headers.get("connection") != "close"
                exchange.finished.set()
        except asyncio.CancelledError:
            pass  # the connection is gone
        finally:
            self.transport.close()

    async def receive(self) -> Received:
        start, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        method, target, _ = start.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readline()).partition(b";")[0], 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        address = urlsplit(target)
        return Received(method, address.path, address.query, headers, body)

    async def answer(self, exchange: Exchange, reply: Reply) -> bool:
        """Play the reply; tells whether the connection can be used again."""
        self.head = _head(reply)
        end = End.CLEAN
        for step in reply.body:
            match step:
                case bytes():
                    await self.send(exchange, reply, step)
                case Endless(piece):
                    while True:
                        await self.send(exchange, reply, piece)
                case Signal():
                    await step.soon(timeout=None)
                case End():
                    end = step
                    break
                case _:
                    await asyncio.sleep(step)
        if end is End.HANG:
            await asyncio.Event().wait()
        if end is End.CLEAN:
            self.transport.write(self.head + (b"0\r\n\r\n" if reply.chunked else b""))
        self.played = True
        await self.writable.wait()
        if end is End.RST:
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        return end is End.CLEAN and reply.headers.get("connection") != "close"

    async def send(self, exchange: Exchange, reply: Reply, piece: bytes) -> None:
        await asyncio.sleep(0)  # the other connections want to live, too
        await self.writable.wait()
        self.transport.write(self.head + _framed(reply, piece))
        self.head = b""
        exchange.bytes_sent += len(piece)
