"""The body of a response, as it arrives: `Body`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from ..runtime.wakeups import Wakeup, in_one_turn
from .failures import raise_as_httpx
from .timeouts import limited

if TYPE_CHECKING:
    import asyncio

    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage

__all__ = ["Body", "Receiver", "drop", "silent"]

PIECE = 16 * 1024  # bytes; with larger pieces a burst cost 1.7 times as much
TAKEN = 64  # the maximum number of HTTP chunks in a piece, which bounds the time that one read takes
OVERHEAD = 64  # bytes that the object of an HTTP chunk takes; many chunks of one byte must not fill the memory


_waiter = cast("Callable[[asyncio.AbstractEventLoop], asyncio.Future[None]]", Wakeup)  # all that aiohttp calls


class Receiver(ResponseHandler):
    """aiohttp's protocol of a connection. A task that waits for the bytes of a packet gets them in the same turn."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, and resume the tasks that wait for them."""
        in_one_turn(super().data_received, data, self._loop)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Tell the reader of the body, too. aiohttp tells it of the end of the connection, not of invalid HTTP."""
        cause = () if exc_cause is None else (exc_cause,)
        super().set_exception(exc, *cause)
        body = self._payload
        if isinstance(body, StreamReader) and body.exception() is None:
            has_ended = body._eof  # pyright: ignore[reportPrivateUsage]  # `is_eof` waits until all bytes are read
            if not has_ended:
                body.set_exception(exc, *cause)

    async def message(self) -> tuple[RawResponseMessage, StreamReader]:
        """Return the next header of a response, and its body; wait until the header has arrived."""
        if not self._buffer and not self._eof:
            waiter = self._waiter = _waiter(self._loop)
            try:
                await waiter
            finally:
                self._waiter = None
        return await self.read()


class _Arrived(StreamReader):
    """aiohttp's buffer of a body, without what aiohttp does for each HTTP chunk.

    Servers send a token in an HTTP chunk of its own. aiohttp notes where each chunk ends, and lets its parser look for
    more data after each chunk that is read. Together this takes half of the time that a token takes.

    The parser creates the buffer, so `Body` changes the buffer's class. The attributes stay those of aiohttp.
    """

    __slots__ = ()

    def forget_splits(self) -> None:
        """Free the ends of the HTTP chunks that came with the header."""
        self._http_chunk_splits = None

    def begin_http_chunk_receiving(self) -> None:
        """Do nothing: the ends of HTTP chunks have no meaning."""

    def end_http_chunk_receiving(self) -> None:
        """Do nothing."""

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        """Keep bytes, and wake the reader. A full buffer pauses the connection."""
        if data:
            self._buffer.append(data)
            self._size += len(data) + OVERHEAD
            waiter, self._waiter = self._waiter, None
            if waiter is not None:
                waiter.set_result(None)
            if self._size > self._high_water:
                self._protocol.pause_reading()
        return False

    async def piece(self) -> bytes:
        """Return bytes that have arrived; wait until there are some. Return ``b""`` at the end of the body.

        Bytes that arrived before an error come before it.
        """
        buffer = self._buffer
        while not buffer:
            if self._exception is not None:
                raise self._exception
            if self._eof:
                return b""
            waiter = self._waiter = _waiter(self._loop)
            try:
                await waiter
            finally:
                self._waiter = None
        count = len(buffer)
        if count == 1:
            data = buffer.popleft()
        else:
            count = min(count, TAKEN)
            data = b"".join([buffer.popleft() for _ in range(count)])
        before = self._size
        self._size = size = before - len(data) - OVERHEAD * count
        if size < self._low_water <= before:
            self._protocol.resume_reading()
        return data


class Body(httpx.AsyncByteStream):
    """The body of a response, as it arrives. Received bytes are yielded before a connection error is raised."""

    def __init__(self, connection: Connection, content: StreamReader, silence: float | None) -> None:
        self._connection: Connection | None = connection
        self._content = content
        self._silence = silence
        if type(content) is StreamReader:  # all empty bodies share an object of another class
            content.__class__ = _Arrived
            cast("_Arrived", content).forget_splits()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content, silence = self._content, self._silence
        if not isinstance(content, _Arrived):
            return
        try:
            while data := await (limited(content.piece(), silence, self._fail) if silence else content.piece()):
                if len(data) <= PIECE:
                    yield data
                else:
                    for place in range(0, len(data), PIECE):
                        yield data[place : place + PIECE]
        except (aiohttp.ClientError, OSError, HttpProcessingError) as error:
            raise_as_httpx(error)
            raise

    def _fail(self) -> None:
        self._content.set_exception(silent())

    async def aclose(self) -> None:
        """Return the connection to the pool if the body has ended, else close it at once."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = connection.transport
        if self._content.is_eof() and transport is not None and not transport.get_write_buffer_size():
            connection.release()
        else:
            drop(connection)

    def __del__(self) -> None:
        """Close the connection of an unclosed body, which happens only if its event loop was closed."""
        if self._connection is not None:
            with suppress(RuntimeError):  # the event loop is closed
                drop(self._connection)


def drop(connection: Connection) -> None:
    """Close a connection at once, without writing the rest of its buffer."""
    protocol = connection.protocol
    if protocol is not None:
        protocol.abort()
    connection.close()


def silent() -> BaseException:
    """Return the error of a read that has waited too long."""
    return aiohttp.SocketTimeoutError("no bytes arrived in time")
