"""Compressed bodies, long bodies and redirects: bounded while they are unpacked, over any client."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import httpx
import pytest

import rxllm
from rxllm.errors import ProtocolError, ProviderError, TransportError
from rxllm.testing import End, FakeServer, Reply
from rxllm.wire.http import post

MIB = 2**20
ANSWER = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}


@pytest.fixture
def server():
    """A local server."""
    with FakeServer(Reply(b"Hello")) as server:
        yield server


@pytest.fixture(params=["default", "httpx"])
async def client(request):
    """No client, and a plain one of httpx."""
    if request.param == "default":
        yield None
        return
    async with httpx.AsyncClient() as client:
        yield client


def failure(status, body, headers):
    """An error whose attributes are the arguments of `failure`."""
    return ProviderError("failed", status=status, body=body.decode())


async def asked(server, **settings):
    """All the bytes of an answer."""
    headers = settings.pop("headers", {})
    source = post(server.url + "/v1/x", b"{}", headers=headers, failure=failure, **settings)
    return b"".join([piece async for piece in source.pipe(rxllm.astream())])


def raw_deflate(data):
    """Deflate without the header of zlib, as some servers send it."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


class TestCompression:
    """A body in an accepted encoding is unpacked; any other encoding raises ProtocolError."""

    @pytest.mark.parametrize(
        ("encoding", "compress"),
        [
            ("gzip", gzip.compress),
            ("X-GZip", gzip.compress),
            ("identity, gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("deflate", raw_deflate),
            ("gzip", lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:])),
            ("gzip", lambda data: gzip.compress(data) + bytes(100)),
        ],
        ids=["gzip", "x-gzip", "identity", "deflate", "raw", "joined", "padded"],
    )
    @pytest.mark.parametrize("size", [1, 700, 10**6])
    async def test_compression_that_was_asked_for_is_undone(self, server, encoding, compress, size):
        """By a client of one's own, or by a header of the model; in pieces of any size."""
        data = b"Hello" * 100_000
        body = compress(data)
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        server.reply(Reply(pieces, headers={"content-encoding": encoding}))
        async with httpx.AsyncClient() as client:
            assert data == await asked(server, client=client)
        assert data == await asked(server, headers={"accept-encoding": "gzip, deflate;q=0.5, br"})
        assert ["gzip, deflate"] * 2 == [request.headers["accept-encoding"] for request in server.requests]

    @pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,deflate", "br", "zstd", "compress", "aes128gcm", "é" * 9])
    async def test_other_compression_is_refused(self, server, client, encoding):
        """The message names the encoding, and the body is not unpacked."""
        server.reply(Reply(gzip.compress(gzip.compress(bytes(MIB))), headers={"content-encoding": encoding}))
        with pytest.raises(ProtocolError, match=f"{server.url} compressed its answer"):
            await asked(server, client=client)

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    async def test_compression_that_was_not_asked_for_is_refused(self, server, encoding):
        """By default the request accepts only plain bytes, because compressed bytes arrive in blocks."""
        server.reply(Reply(gzip.compress(b"Hello"), headers={"content-encoding": encoding}))
        with pytest.raises(ProtocolError, match="accepts only plain bytes"):
            await asked(server)

    @pytest.mark.parametrize("header", ["identity", "", "identity, identity", "UTF-8", "none"])
    async def test_identity_is_no_compression(self, server, client, header):
        """A server may state the encoding `identity`. Some state the charset in this header."""
        server.reply(Reply(b"Hello", headers={"content-encoding": header}))
        assert b"Hello" == await asked(server, client=client)

    async def test_what_is_not_compressed_as_it_says_is_a_sentence(self, server):
        """The bytes are not of the encoding that the header names."""
        server.reply(Reply(b"Hello", headers={"content-encoding": "gzip"}))
        async with httpx.AsyncClient() as client:
            with pytest.raises(ProtocolError, match="is not gzip, contrary to its header"):
                await asked(server, client=client)


@pytest.fixture(scope="module")
def bombs():
    """100 MiB each, in a tenth of a MiB."""
    return {beginning: gzip.compress(beginning + b" " * 100 * MIB) for beginning in (b"{", b"data: ", b"no")}


class TestBounds:
    """The limits count the unpacked bytes while they are unpacked."""

    @pytest.fixture(autouse=True)
    def little_memory(self, bombs):
        """A body of 100 MiB is never in memory at once."""
        tracemalloc.start()
        yield
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 * MIB

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("size", [100, 10**6])
    async def test_a_document_over_the_limit(self, server, bombs, monkeypatch, stream, size):
        """This also holds for a requested stream, and for packets of any size."""
        monkeypatch.setattr("rxllm.providers._reader.WHOLE_LIMIT", 2 * MIB)
        bomb = bombs[b"{"]
        pieces = [bomb[at : at + size] for at in range(0, min(len(bomb), 100 * size), size)]
        server.reply(Reply(pieces, headers={"content-encoding": "gzip"}))
        async with httpx.AsyncClient() as client:
            llm = rxllm.OpenAI("m", base_url=server.url, client=client, max_retries=0).bind(stream=stream)
            with pytest.raises(ProtocolError, match="longer than 2 MiB"):
                await llm.ainvoke("hi")

    async def test_an_event_over_the_limit(self, server, bombs):
        """The limit of one event."""
        server.reply(Reply(bombs[b"data: "], headers={"content-encoding": "gzip"}))
        async with httpx.AsyncClient() as client:
            llm = rxllm.OpenAI("m", base_url=server.url, client=client, event_limit=MIB)
            with pytest.raises(ProtocolError, match="larger than the limit of 1,048,576 bytes"):
                await llm.ainvoke("hi")

    async def test_an_error_over_the_limit(self, server, client, bombs):
        """The error keeps 64 KiB of it, although the request did not accept its compression."""
        server.reply(Reply(bombs[b"no"], status=500, headers={"content-encoding": "gzip"}))
        with pytest.raises(ProviderError) as caught:
            await asked(server, client=client)
        assert (500, 65536, "no ") == (caught.value.status, len(caught.value.body), caught.value.body[:3])

    @pytest.mark.parametrize("over", [0, 1])
    async def test_the_limit_is_exact(self, server, client, monkeypatch, over):
        """A document as long as the limit is read, one byte more is not."""
        body = json.dumps(ANSWER).encode()
        monkeypatch.setattr("rxllm.providers._reader.WHOLE_LIMIT", len(body))
        server.reply(Reply(body + b" " * over, content_type="application/json"))
        asking = rxllm.OpenAI("m", base_url=server.url, client=client).bind(stream=False).ainvoke("hi")
        if not over:
            assert "Hello" == str(await asking)
            return
        with pytest.raises(ProtocolError, match="longer than"):
            await asking


class TestRedirects:
    """A redirect within a server is followed; a key never goes to another."""

    @pytest.mark.parametrize("status", [307, 308])
    @pytest.mark.parametrize("location", ["/v2/x?y=1", "{url}/v2/x?y=1", "http://user:word@{host}/v2/x?y=1#z"])
    async def test_within_a_server_it_is_followed(self, server, client, status, location):
        """The same request goes to the other path, with its headers and its body."""
        location = location.format(url=server.url, host=server.url.removeprefix("http://"))
        server.reply(Reply(b"", status=status, headers={"location": location}, chunked=False), Reply(b"Hello"))
        assert b"Hello" == await asked(server, client=client, headers={"x-api-key": "sk-secret-secret"})
        first, second = server.requests
        assert ("POST", "/v2/x", "y=1", b"{}") == (second.method, second.path, second.query, second.body)
        assert first.headers == second.headers

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("follow", [False, True])
    async def test_to_another_server_it_is_a_sentence(self, server, status, follow):
        """The message names the target. The other server gets no request, whatever the client's own setting is."""
        with FakeServer() as elsewhere:
            location = elsewhere.url.replace("http://", "http://user:word@") + "/v1/x?token=secret"
            server.reply(Reply(b"", status=status, headers={"location": location}))
            async with httpx.AsyncClient(follow_redirects=follow) as client:
                for one in (None, client):
                    with pytest.raises(
                        ProviderError, match=f"redirects the request to {elsewhere.url}/v1/x "
                    ) as caught:
                        await asked(server, client=one, headers={"x-api-key": "sk-secret-secret"})
                    assert status == caught.value.status
                    assert all(secret not in str(caught.value) for secret in ("word", "token", "secret"))
            assert [] == elsewhere.requests

    @pytest.mark.parametrize("location", [None, ""])
    async def test_to_nowhere_it_is_a_sentence(self, server, client, location):
        """The location is missing."""
        server.reply(Reply(b"", status=307, headers={} if location is None else {"location": location}))
        with pytest.raises(ProviderError, match="without saying where to"):
            await asked(server, client=client)
        assert 1 == len(server.requests)

    async def test_in_a_circle_it_ends(self, server, client):
        """Five redirects are followed. The message does not claim that the address got no request."""
        server.reply(Reply(b"", status=307, headers={"location": "/v1/x"}))
        with pytest.raises(ProviderError, match=f"again and again, the last time to {server.url}/v1/x .HTTP 307."):
            await asked(server, client=client)
        assert 6 == len(server.requests)

    async def test_a_refused_redirect_to_the_same_address_is_not_said_to_have_got_nothing(self, server, client):
        """A server that answers a POST with a redirect to the same address has got the request."""
        server.reply(Reply(b"", status=301, headers={"location": "/v1/x"}))
        with pytest.raises(ProviderError, match="rxllm does not follow that redirect"):
            await asked(server, client=client)
        assert 1 == len(server.requests)

    async def test_a_connection_that_breaks_after_a_redirect_is_not_a_broken_answer(self, server, client):
        """No byte of the answer has arrived, so the error is not `Interrupted`."""
        server.reply(Reply(b"", status=307, headers={"location": "/v2/x"}, chunked=False), Reply([End.RST]))
        with pytest.raises(TransportError, match="No answer from") as caught:
            await asked(server, client=client)
        assert not isinstance(caught.value, rxllm.Interrupted)

    async def test_a_model_follows_it(self, server, client):
        """And its error, where it does not, is of the status, with the request."""
        reply = Reply(b"", status=307, headers={"location": "/elsewhere"})
        server.reply(reply, Reply.json(ANSWER))
        assert "Hello" == str(await rxllm.OpenAI("m", base_url=server.url, client=client).ainvoke("hi"))
        server.reply(Reply(b"", status=308, headers={"location": "https://model.invalid/v1"}))
        with pytest.raises(ProviderError, match=r"redirects the request to https://model.invalid/v1 \(HTTP 308\)"):
            await rxllm.OpenAI("m", base_url=server.url, client=client).ainvoke("hi")
        assert 3 == len(server.requests)
