"""`Body`: the bytes of a response in aiohttp's buffer, bounded, and in order with errors."""

import asyncio

import aiohttp
import httpx
import pytest
from aiohttp.client_proto import ResponseHandler

from rxllm.wire.body import PIECE, Body

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
BUFFER = 2 * 2**20  # bytes of objects; more than aiohttp's buffer and one read from the socket


class Wire(asyncio.Transport):
    """A transport that notes whether it is paused."""

    def __init__(self):
        super().__init__()
        self.is_paused = False

    def pause_reading(self):
        """Note it."""
        self.is_paused = True

    def resume_reading(self):
        """Note it."""
        self.is_paused = False


class Unpooled:
    """A connection outside of a pool."""

    protocol = transport = None

    def close(self):
        """Do nothing."""


def chunked(*pieces):
    """The pieces as HTTP chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


async def received(beginning=b""):
    """A connection that has received a header, and the body of its response."""
    protocol, wire = ResponseHandler(asyncio.get_running_loop()), Wire()
    protocol.connection_made(wire)
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    protocol.data_received(HEAD + beginning)
    _, content = await protocol.read()
    return protocol, wire, Body(Unpooled(), content, None)


async def test_bytes_before_and_after_the_header_was_read_are_in_order():
    """The buffer has changed its class between them."""
    protocol, _, body = await received(chunked(b"Hel", b"lo"))
    protocol.data_received(chunked(b", wo") + chunked(b"rld") + END)
    assert b"Hello, world" == b"".join([piece async for piece in body])


async def test_pieces_are_bounded():
    """A large HTTP chunk is several pieces."""
    protocol, _, body = await received()
    text = bytes(range(256)) * 1024
    protocol.data_received(chunked(text) + END)
    pieces = [piece async for piece in body]
    assert text == b"".join(pieces)
    assert PIECE >= max(map(len, pieces))


@pytest.mark.parametrize("size", [1, 100, 100_000], ids="{}-byte-chunks".format)
async def test_unread_body_pauses_the_connection(size):
    """The objects of small chunks count, too. Reading resumes the connection, and nothing is lost."""
    protocol, wire, body = await received()
    sent = 0
    while not wire.is_paused:
        protocol.data_received(chunked(*[b"x" * size] * (1 + 1000 // size)))
        sent += (1 + 1000 // size) * size
        assert sent * (1 + 50 // size) < BUFFER
    reading = aiter(body)
    got = 0
    while wire.is_paused:
        got += len(await anext(reading))
    protocol.data_received(END)
    async for piece in reading:
        got += len(piece)
    assert sent == got


async def test_bytes_before_an_error_come_first():
    """Then the error."""
    protocol, _, body = await received(chunked(b"Hello"))
    protocol.connection_lost(None)
    reading = aiter(body)
    assert b"Hello" == await anext(reading)
    with pytest.raises(httpx.ReadError):
        await anext(reading)


async def test_error_ends_a_read_that_waits():
    """Without a timer."""
    protocol, _, body = await received()
    reading = asyncio.ensure_future(anext(aiter(body)))
    await asyncio.sleep(0)
    protocol.connection_lost(ConnectionResetError())
    with pytest.raises(httpx.ReadError):
        await reading


async def test_response_without_a_body_is_empty():
    """All of these share one buffer in aiohttp, which stays as it is."""
    protocol, wire = ResponseHandler(asyncio.get_running_loop()), Wire()
    protocol.connection_made(wire)
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    protocol.data_received(b"HTTP/1.1 204 No Content\r\n\r\n")
    _, content = await protocol.read()
    body = Body(Unpooled(), content, None)
    assert [] == [piece async for piece in body]
    assert aiohttp.streams.EMPTY_PAYLOAD is content
    assert aiohttp.streams.EmptyStreamReader is type(content)
