"""`StreamResponse`: an HTTP response that owns the subscription to an Observable.

A streaming response has two tasks. The writer subscribes to the Observable, encodes its items and sends them. The
listener waits for ``http.disconnect``, from the first moment on. The response ends when one of them ends, and then
cancels the other. The writer leaves the stream in every case, and the subscription is disposed with it: a client that
leaves stops the request to the model, whether the stream is silent, speaking, or waiting for a slow client.

The headers wait for the first item, so that an early error still gets its own status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from reactivex import Observable
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..bridges.astream import AsyncStream
from ..misuse import MisuseError, shown
from ..runtime.loops import clock_of
from .failures import HTTPFailure, failure_of, log

__all__ = ["HOLD", "PING", "Encoder", "StreamResponse"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

HOLD, PING = 10.0, 15.0
_PIECE = 2**16  # bytes; servers pause a writer whose client has not read so many
_LEFT = 499  # nginx's status for "client closed request"; no client reads it
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is for nginx, which else buffers


class Encoder(Protocol[T_contra]):
    """Turns the items of one response into bytes. Each response has its own encoder.

    Attributes:
        media_type: the value of the Content-Type header.
        ping: the bytes that keep a silent connection open; clients ignore them.
    """

    media_type: str
    ping: bytes

    def begin(self) -> bytes:
        """Return the bytes before the first item."""
        ...

    def encode(self, item: T_contra, /) -> bytes:
        """Return the bytes of one item."""
        ...

    def end(self) -> bytes:
        """Return the bytes after the last item of a complete stream."""
        ...

    def fail(self, failure: HTTPFailure, /) -> bytes:
        """Return the bytes that tell a client that the stream failed after its headers were sent."""
        ...

    def refuse(self, failure: HTTPFailure, /) -> bytes:
        """Return the JSON body of a response that failed before its headers were sent."""
        ...


class _Left(Exception):
    """The server reported while it sent that the client has left."""


class StreamResponse(Response, Generic[T]):
    """A Starlette response that sends the items of an Observable as they arrive.

    It works in Starlette and in FastAPI, on every ASGI server. Its request to the model is closed within milliseconds
    after the client has left.

    Shape: `source` gives the items, `encoder` turns them into bytes. All items that have arrived are sent together.
    Units: `hold` and `ping` in seconds. The headers are sent with the first item, or after `hold`; a silent stream
    sends a ping each `ping` seconds. With `hold` None the headers wait for the first item or the error. Errors: an
    error before the headers becomes a JSON response with its own status; a later one becomes the encoder's error
    frame, and the log has the original.
    """

    def __init__(
        self,
        source: Observable[T],
        encoder: Encoder[T],
        *,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
        hold: float | None = HOLD,
        ping: float = PING,
    ) -> None:
        if not isinstance(source, Observable):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
            raise MisuseError(f"A response streams an Observable, such as llm(prompt), not {shown(source)}.")
        self.source = source
        self.encoder = encoder
        self.hold = hold
        self.ping = ping
        self.status_code = 200
        self.media_type = encoder.media_type
        self.background = background
        self.init_headers({**_HEADERS, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response: the entry point for ASGI servers."""
        connection = _Connection(send, self.status_code, self.raw_headers)
        if scope["method"] == "HEAD":
            await connection.send(b"")
            await connection.finish(b"")
        else:
            await self._stream(connection, receive)
        if self.background is not None:
            await self.background()

    async def _stream(self, connection: _Connection, receive: Receive) -> None:
        writer = asyncio.create_task(self._write(connection))
        listener = asyncio.create_task(_disconnected(receive))
        tasks = {writer, listener}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when the server cancels the response
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not writer.cancelled() and (error := writer.exception()) is not None and not isinstance(error, _Left):
            raise error
        if not connection.started:  # Starlette's BaseHTTPMiddleware raises without a response
            await connection.start(_LEFT, self.raw_headers)
            await connection.finish(b"")

    async def _write(self, connection: _Connection) -> None:
        async with AsyncStream(self.source) as stream:
            try:
                await self._write_items(stream, connection)
            except _Left:
                raise
            except Exception as error:
                failure = failure_of(error)
                log(error, failure)
                if connection.started:
                    await connection.finish(self.encoder.fail(failure))
                else:
                    await connection.refuse(failure, self.encoder.refuse(failure))
            else:
                await connection.finish(self.encoder.end())

    async def _write_items(self, stream: AsyncStream[T], connection: _Connection) -> None:
        alarm = _Alarm(stream.rouse)
        if self.hold is not None:
            alarm.set(self.hold)
        try:
            while True:  # without a name for the items, which would keep them until the next ones
                await self._send(await stream.burst(), connection)
                alarm.set(self.ping)
        except StopAsyncIteration:
            pass
        finally:
            alarm.stop()
        if not connection.started:
            await connection.send(self.encoder.begin())

    def _send(self, items: list[T], connection: _Connection) -> Awaitable[None]:
        """Send some items. No items: the alarm rang."""
        if connection.started and len(items) == 1:  # as nearly always, so without a coroutine of its own
            return connection.send(self.encoder.encode(items[0]))
        return self._send_pieces(items, connection)

    async def _send_pieces(self, items: list[T], connection: _Connection) -> None:
        """Send some items in pieces, of which the server keeps two for a slow client."""
        pieces = [] if connection.started else [self.encoder.begin()]
        if not items:
            pieces.append(self.encoder.ping if connection.started else b"")
        size = 0
        for item in items:
            pieces.append(piece := self.encoder.encode(item))
            size += len(piece)
            if size >= _PIECE:
                await connection.send(b"".join(pieces))
                await asyncio.sleep(0)  # hypercorn's send returns at once for a client that has left: let it be heard
                pieces, size = [], 0
        if pieces:
            await connection.send(b"".join(pieces))


class _Alarm:
    """Ends the writer's wait when nothing was sent for some time.

    One timer serves the whole response, because a timer for each wait would be a third of an event's cost. When it
    fires too early, it waits for the rest. When it rings, the writer sets it again.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = clock_of(self._loop)
        self._ring = ring
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Ring after so many seconds from now, unless it is set again before."""
        self._due = self._time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
        else:
            self._ring()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()


class _Connection:
    """Sends the messages of one response.

    Attributes:
        started: whether the status and the headers were sent.
    """

    def __init__(self, send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._status = status
        self._headers = headers
        self.started = False

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a status and headers."""
        self.started = True
        await self._deliver({"type": "http.response.start", "status": status, "headers": headers})

    def send(self, body: bytes) -> Awaitable[None]:
        """Send a piece of the body, after the headers if these were not sent."""
        if self.started and body:  # as nearly always, so without a coroutine of its own
            return self._deliver({"type": "http.response.body", "body": body, "more_body": True})
        return self._send_first(body)

    async def _send_first(self, body: bytes) -> None:
        if not self.started:
            await self.start(self._status, self._headers)
        if body:
            await self.send(body)

    async def finish(self, body: bytes) -> None:
        """Send the last piece of the body."""
        await self._deliver({"type": "http.response.body", "body": body, "more_body": False})

    async def refuse(self, failure: HTTPFailure, body: bytes) -> None:
        """Send an error as a whole JSON response."""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.start(failure.status, [*headers, *failure.headers()])
        await self.finish(body)

    async def _deliver(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError as error:  # some servers raise this after the client has closed the connection
            raise _Left from error


async def _disconnected(receive: Receive) -> None:
    """Return when the client has left."""
    message: Message = {"type": "http.request"}
    while message["type"] != "http.disconnect":
        message = await receive()
