r"""A local HTTP server with scripted replies, faults included.

A reply is a sequence of steps, played in order::

    released = Signal()
    with FakeServer(Reply([b"data: Hel\n\n", released, b"data: lo\n\n", End.RST])) as server:
        ...                                     # any client, sync, async or in another process
        released.set()                          # the server waited until here: no test needs to sleep
        server.exchange(0).wait_closed()

The server's event loop runs in a daemon thread; any thread may use the public names.
The module is longer than 300 lines because steps, exchanges and server are easier to understand together.
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

BACKLOG = 4096  # allows a thousand clients to connect at the same moment


class Signal(threading.Event):
    """A `threading.Event` that can also be awaited, knows when it was set, and raises when it times out."""

    def __init__(self) -> None:
        super().__init__()
        self.at: float | None = None
        self._lock = threading.Lock()
        self._waiters: list[Future[None]] = []

    def set(self) -> None:
        """Set the signal and wake all waiters; only the first call sets `at` (by `time.monotonic()`)."""
        with self._lock:
            if self.is_set():
                return
            self.at = time.monotonic()
            super().set()
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)

    def wait(self, timeout: float | None = 30.0) -> bool:
        """Block until the signal is set; raise `TimeoutError` after `timeout` seconds."""
        if not super().wait(timeout):
            raise TimeoutError(f"the signal was not set within {timeout} seconds")
        return True

    async def soon(self, timeout: float | None = 30.0) -> None:  # noqa: ASYNC109 (the twin of `wait`)
        """Await the signal, on any event loop; raise `TimeoutError` after `timeout` seconds."""
        waiter: Future[None] = Future()
        with self._lock:
            if self.is_set():
                return
            self._waiters.append(waiter)
        async with asyncio.timeout(timeout):
            await asyncio.wrap_future(waiter)


class End(Enum):
    """The way a reply ends before its last step."""

    CLEAN = "with the terminal chunk, so HTTP shows no truncation"
    FIN = "the server closes the connection without the terminal chunk"
    RST = "the server resets the connection"
    HANG = "the server keeps the connection open until the client disconnects"


@frozen
class Endless:
    """Bytes that are sent again and again, as fast as the client reads, until the client disconnects."""

    piece: bytes


Step = bytes | float | int | Signal | End | Endless
"""Bytes are sent as one HTTP chunk, a number pauses for so many seconds, a `Signal` is awaited."""


def _steps(body: bytes | Iterable[Step]) -> tuple[Step, ...]:
    steps: tuple[Any, ...] = (body,) if isinstance(body, bytes) else tuple(body)
    for step in steps:
        if not isinstance(step, Step):
            raise TypeError(f"a step of a reply must be bytes, a number, a Signal, an End or an Endless, not {step!r}")
    return steps


@frozen
class Reply:
    """The reply to one request.

    The status line and headers are sent with the first bytes of the body; ``b""`` sends them alone. So steps before the
    first bytes happen before the response: ``Reply([End.HANG])`` never answers, ``Reply([End.FIN])`` closes silently.

    Attributes:
        body: the steps, or bytes as the only step.
        status: the HTTP status.
        headers: additional and replacement headers; ``connection: close`` closes the connection.
        content_type: the Content-Type header.
        chunked: whether each piece is an HTTP chunk; otherwise Content-Length counts the bytes of *all* steps.
    """

    body: Sequence[Step] = field(default=(), converter=_steps)
    status: int = field(default=200, kw_only=True)
    headers: Mapping[str, str] = field(factory=dict[str, str], kw_only=True)
    content_type: str = field(default="text/event-stream", kw_only=True)
    chunked: bool = field(default=True, kw_only=True)

    @classmethod
    def json(cls, body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Return a whole JSON response with a Content-Length; bytes are sent unchanged."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return cls(content, status=status, headers=headers or {}, content_type="application/json", chunked=False)


@frozen
class Received:
    """A received request; the names of its headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed JSON body."""
        return json.loads(self.body)


@define(eq=False)
class Exchange:
    """One request and the progress of its reply, as facts to wait for.

    Attributes:
        request: the received request; available once `arrived` is set.
        bytes_sent: the sent bytes of the body, without framing; constant while the client does not read.
        aborted: whether the client disconnected before the end of the reply; valid once `closed` is set.
        arrived: set when the request has been read.
        finished: set when the reply was played to its end, even if that is a cut.
        closed: set when the connection is closed, by either side.
    """

    request: Received = field(init=False)
    bytes_sent: int = field(default=0, init=False)
    aborted: bool = field(default=False, init=False)
    arrived: Signal = field(factory=Signal, init=False)
    finished: Signal = field(factory=Signal, init=False)
    closed: Signal = field(factory=Signal, init=False)

    @property
    def closed_at(self) -> float | None:
        """The time the connection closed, by `time.monotonic()`."""
        return self.closed.at

    def wait_closed(self, since: float = 0.0, timeout: float | None = 30.0) -> float:
        """Block until the connection is closed; return the seconds from `since` (by `time.monotonic()`) until then."""
        self.closed.wait(timeout)
        return (self.closed.at or 0.0) - since

    async def closed_soon(self, since: float = 0.0, timeout: float | None = 30.0) -> float:  # noqa: ASYNC109 (a twin)
        """Await the end of the connection, like `wait_closed`, on any event loop."""
        await self.closed.soon(timeout)
        return (self.closed.at or 0.0) - since

    def wait_stalled(self, quiet: float = 0.1, timeout: float = 60.0) -> int:
        """Block until `bytes_sent` has been constant for `quiet` seconds, and return it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = self.bytes_sent
            if not threading.Event.wait(self.closed, quiet) and 0 < before == self.bytes_sent:
                return before
        raise TimeoutError(f"the reply did not stall within {timeout} seconds")


class FakeServer:
    """A server: ``with FakeServer(Reply(b"…")) as server: …``. The end of the block closes every connection."""

    def __init__(self, *replies: Reply | Callable[[Received], Reply]) -> None:
        self.url = ""
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._arrivals = 0
        self._connections: set[_Connection] = set()
        self.reply(*replies or [Reply.json({"error": {"message": "this FakeServer was given no reply"}}, status=501)])

    def reply(self, *replies: Reply | Callable[[Received], Reply]) -> None:
        """Answer with these replies from now on, in order; the last one repeats.

        A function is called with the request.
        """
        if not replies:
            raise ValueError("reply() needs at least one reply")
        for reply in replies:
            if not (isinstance(reply, Reply) or callable(cast("object", reply))):
                raise MisuseError(
                    f"A FakeServer needs Reply objects, or functions of the request that return one, not "
                    f"{type(reply).__name__}. Write FakeServer(Reply(b'…'))."
                )
        self._replies = list(replies)

    def exchange(self, index: int = 0) -> Exchange:
        """Return the exchange of the request with this number, which may not have arrived (see its `arrived`)."""
        with self._lock:
            self._exchanges += [Exchange() for _ in range(len(self._exchanges), index + 1)]
            return self._exchanges[index]

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges whose request has arrived, in order."""
        return self._exchanges[: self._arrivals]

    @property
    def requests(self) -> list[Received]:
        """The received requests, in order."""
        return [exchange.request for exchange in self.exchanges]

    @property
    def open_connections(self) -> int:
        """The number of open connections, idle ones included."""
        return len(self._connections)

    def close_idle(self) -> None:
        """Close the idle kept-alive connections without notice."""

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
            result = cast("object", reply if isinstance(reply, Reply) else reply(request))
            if not isinstance(result, Reply):
                raise TypeError(f"it returned {type(result).__name__} instead of a Reply")
            return exchange, result
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
    """A client's connection, as a protocol: unlike a stream, it detects a disconnection even while it does not read.

    States: *receiving* (`played` is True: the last reply has been written), *playing* a reply, *closed*. The server's
        event loop alone changes them.
    """

    transport: asyncio.Transport

    def __init__(
        self, arrive: Callable[[Received, list[Exchange]], tuple[Exchange, Reply]], connections: set[_Connection]
    ) -> None:
        self.arrive = arrive
        self.connections = connections
        self.exchanges: list[Exchange] = []
        self.reader = asyncio.StreamReader(limit=2**20)
        self.writable = asyncio.Event()
        self.head = b""  # the status line and headers, until they are sent
        self.played = True  # whether the last step of the latest reply has been written
        self.client_left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)  # so that `writable` means that the kernel has all bytes
        self.writable.set()
        self.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self.serve())

    def data_received(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def eof_received(self) -> None:
        self.client_left = True
        self.transport.abort()  # close() would first wait to send the remaining bytes

    def connection_lost(self, exc: Exception | None) -> None:
        self.task.cancel()
        asyncio.get_running_loop().call_soon(self.closed, exc)  # the socket is closed only after this method returns

    def closed(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        for exchange in self.exchanges:
            if self.played and self.writable.is_set():
                exchange.finished.set()
            exchange.aborted = not exchange.finished.is_set() and (self.client_left or exc is not None)
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
            pass  # the connection is closed
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
        """Play the reply and return whether the connection can be used again."""
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
        await asyncio.sleep(0)  # give the other connections a turn
        await self.writable.wait()
        self.transport.write(self.head + _framed(reply, piece))
        self.head = b""
        exchange.bytes_sent += len(piece)
