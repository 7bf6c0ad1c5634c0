"""The default transport and httpx's own give the same results, whatever the network and the server do."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress

import httpx
import pytest
from wire_raw import RawServer, chunked, fin, ok, rst

import rxllm
from rxllm.errors import Interrupted, ProviderError, TransportError
from rxllm.testing import Signal
from rxllm.wire.http import post
from rxllm.wire.transport import Transport

STRAY = ok(b"another tenant's answer")


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
    return ProviderError(body.decode(), status=status, body=body.decode(), retryable=status >= 500)


def posted(server, **settings):
    """The bytes of an answer, as an Observable."""
    return post(server.url + "/v1/x", b"{}", headers=settings.pop("headers", {}), failure=failure, **settings)


async def asked(server, **settings):
    """All the bytes of an answer."""
    return b"".join([piece async for piece in posted(server, **settings).pipe(rxllm.astream())])


async def noticed():
    """Let the loop read the bytes that have arrived."""
    for _ in range(5):
        await asyncio.sleep(0)


class TestKeptConnections:
    """A kept connection is used again only if it has no unread bytes."""

    @pytest.mark.parametrize(
        "surplus",
        [
            STRAY,
            STRAY[:30],
            STRAY[:-3],
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 500",
            b"HTTP/1.1 200 OK\r\nx: a",
            chunked(b"no", end=b""),
        ],
        ids=["whole", "half a header", "half a body", "informational", "status", "half a line", "chunk"],
    )
    @pytest.mark.parametrize("first", [ok(b"one"), chunked(b"one")], ids=["length", "chunks"])
    async def test_bytes_right_behind_a_response_are_never_an_answer(self, first, surplus):
        """They come in one packet with the end of the first response; the second request gets its own answer.

        httpx's own transport keeps such bytes for the next request.
        """
        with RawServer([first + surplus], [ok(b"two")]) as server:
            assert [b"one", b"two"] == [await asked(server) for _ in range(2)]
            assert (2, 2) == (len(server.requests), server.connections)

    async def test_junk_right_behind_a_response_is_never_an_answer(self):
        """The packet is not HTTP, which is an error. The second request gets its own answer."""
        with RawServer([ok(b"one") + b"x"], [ok(b"two")]) as server:
            with pytest.raises(TransportError, match="the response is not HTTP"):
                await asked(server)
            assert b"two" == await asked(server)

    @pytest.mark.timeout(20)
    async def test_body_that_stops_being_http_ends_at_once(self, client):
        """What came before is read, and no time limit passes, although the connection has not closed by itself."""
        read = Signal()
        pieces = []

        async def heard(server):
            async for piece in posted(server, client=client).pipe(rxllm.astream()):
                pieces.append(piece)
                read.set()

        with RawServer([chunked(b"one", end=b""), read, b"zz\r\n"]) as server:
            with pytest.raises(Interrupted, match="in the middle of the answer"):
                await heard(server)
            assert [b"one"] == pieces

    @pytest.mark.parametrize("seen", [True, False])
    @pytest.mark.parametrize("surplus", [STRAY, STRAY[:30], STRAY[:-3], b"x"])
    async def test_bytes_while_a_connection_is_idle_are_never_an_answer(self, client, surplus, seen):
        """Whether the loop has read them before the next request, or they wait in the kernel."""
        with RawServer([ok(b"one")], [ok(b"two")]) as server:
            assert b"one" == await asked(server, client=client)
            server.send(surplus)
            if seen:
                await noticed()
            assert b"two" == await asked(server, client=client)
            assert (2, 2) == (len(server.requests), server.connections)

    async def test_bytes_after_a_second_response_are_never_an_answer(self):
        """A connection that was used twice is watched as one that was used once."""
        with RawServer([ok(b"one")], [ok(b"two") + STRAY], [ok(b"three")]) as server:
            assert [b"one", b"two", b"three"] == [await asked(server) for _ in range(3)]
            assert 2 == server.connections

    async def test_a_clean_connection_is_kept(self, client):
        """Responses by length, in chunks and without a body leave one connection."""
        with RawServer([ok(b"one")], [chunked(b"two")], [ok(b"")], [ok(b"four")]) as server:
            assert [b"one", b"two", b"", b"four"] == [await asked(server, client=client) for _ in range(4)]
            assert 1 == server.connections


class TestRetries:
    """The cases in which the transport repeats a request: docs/retries.md."""

    @pytest.mark.parametrize("seen", [True, False])
    @pytest.mark.parametrize("end", [fin, rst])
    async def test_a_connection_that_was_closed_while_idle_is_replaced(self, client, end, seen):
        """No byte was sent over it, so the request goes over another connection, once."""
        with RawServer([ok(b"one"), end], [ok(b"two")]) as server:
            assert b"one" == await asked(server, client=client)
            await server.answered[0].soon()
            if seen:
                await noticed()
            assert b"two" == await asked(server, client=client)
            assert 2 == len(server.requests)

    @pytest.mark.parametrize("end", [fin, rst])
    @pytest.mark.parametrize("before", [0, 1])
    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent"], ids=["silence", "half a header"])
    async def test_a_request_that_was_read_is_sent_once(self, client, end, before, answer):
        """Over a new connection or a kept one: the server hangs up after it has read the request."""
        with RawServer(*[[ok(b"one")]] * before, [answer, end], [ok(b"no")]) as server:
            for _ in range(before):
                assert b"one" == await asked(server, client=client)
            with pytest.raises(TransportError, match=f"No answer from {server.url}") as caught:
                await asked(server, client=client)
            assert (TransportError, True, before + 1) == (
                type(caught.value),
                caught.value.retryable,
                len(server.requests),
            )

    @pytest.mark.parametrize("end", [fin, rst])
    async def test_a_response_that_breaks_is_not_asked_for_again(self, client, end):
        """After the first bytes, a retry is the caller's decision."""
        with RawServer([ok(b"Hello")[:-2], end], [ok(b"no")]) as server:
            with pytest.raises(Interrupted):
                await asked(server, client=client)
            assert 1 == len(server.requests)

    @pytest.mark.parametrize(("retries", "requests"), [(0, 1), (2, 3)])
    async def test_a_model_asks_as_often_as_max_retries_says(self, client, retries, requests):
        """A server that hangs up on every request sees one more than that."""
        with RawServer(*[[fin]] * 4) as server:
            llm = rxllm.OpenAI("m", base_url=server.url, client=client, max_retries=retries)
            with pytest.raises(TransportError):
                await llm.ainvoke("hi")
            assert requests == len(server.requests)

    async def test_a_write_of_which_nothing_was_sent_is_repeated(self):
        """The kernel refuses the first byte on a kept connection; the request goes out over another."""
        with RawServer([ok(b"one")], [ok(b"two")]) as server:
            async with httpx.AsyncClient(transport=Transport()) as client:
                assert b"one" == await asked(server, client=client)
                ((kept, _),) = next(iter(client._transport._connector._conns.values()))
                with socket.socket(fileno=os.dup(kept.transport.get_extra_info("socket").fileno())) as half:
                    half.shutdown(socket.SHUT_WR)
                assert b"two" == await asked(server, client=client)
            assert (2, 2) == (len(server.requests), server.connections)


class TestUploads:
    """A request that is longer than the network takes at once."""

    BODY = b"x" * 32 * 2**20

    async def test_a_connection_with_an_unsent_request_is_not_kept(self):
        """The server has answered before it has read it all; the next request goes over another connection."""

        def early(connection):
            connection.recv(1)
            connection.sendall(ok(b"one"))

        with Deaf(early) as server:
            async with httpx.AsyncClient(transport=Transport()) as client:
                response = await client.send(client.build_request("POST", server.url, content=self.BODY), stream=True)
                assert b"one" == await response.aread()
                assert {} == client._transport._connector._conns

    async def test_dispose_stops_the_upload(self):
        """The rest of the request is not sent."""
        received = []

        def read(connection):
            connection.recv(1)
            started.set()
            left.wait()
            with suppress(OSError):
                while data := connection.recv(2**20):
                    received.append(len(data))
            ended.set()

        started, left, ended = Signal(), Signal(), Signal()
        with Deaf(read) as server:
            subscription = post(server.url, self.BODY, headers={}, failure=failure).subscribe()
            await started.soon()
            subscription.dispose()
            await noticed()
            left.set()
            await ended.soon()
        assert sum(received) < len(self.BODY) - 2**20


class Deaf:
    """A server that hands its only connection to a function."""

    def __init__(self, serve):
        self.serve = serve

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._thread.join(5)
        self._connection.close()
        self._listener.close()

    def _run(self):
        self._connection, _ = self._listener.accept()
        self.serve(self._connection)


class TestBreaks:
    """The reader gets all bytes that arrived before the error of the connection."""

    @pytest.mark.parametrize("end", [fin, rst])
    async def test_a_paused_reader_gets_all_that_arrived(self, client, end):
        """The connection breaks while the reader pauses. The reader gets every byte, and then the error."""
        body = b"x" * 60_000
        with RawServer([chunked(body, end=b""), end]) as server:
            heard: list[bytes] = []

            async def hear_slowly():
                async for piece in posted(server, client=client).pipe(rxllm.astream()):
                    heard.append(piece)
                    await server.answered[0].soon()
                    await noticed()

            with pytest.raises(Interrupted):
                await hear_slowly()
            assert body == b"".join(heard)

    @pytest.mark.parametrize("end", [fin, rst])
    async def test_an_answer_that_came_whole_is_whole(self, client, end):
        """The answer is complete, because its end marker arrived, although the HTTP body never ended."""
        word = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
        body = word * 800 + b"data: [DONE]\n\n"
        with RawServer([chunked(body, end=b""), end]) as server:
            llm = rxllm.OpenAI("m", base_url=server.url, client=client, max_retries=0)
            text = ""
            async for chunk in llm.astream("hi"):
                text += chunk.text
                await server.answered[0].soon()
            assert "word " * 800 == text


class TestHeaders:
    """The header of a response."""

    @pytest.mark.parametrize("size", [9_000, 60_000])
    async def test_a_long_header_is_read(self, client, size):
        """Gateways send policies and cookies of many KiB."""
        with RawServer([ok(b"one", x_long="a" * size)]) as server:
            assert b"one" == await asked(server, client=client)

    @pytest.mark.parametrize(
        "headers",
        [{"x": "a" * 66_000}, {"x": "a" * 300_000}, {f"x-{n}": "a" * 1000 for n in range(70)}],
        ids=["longer", "endless", "many"],
    )
    async def test_a_header_over_the_limit_is_one_sentence(self, client, headers):
        """The response ends at 64 KiB. The error is not retryable, because a retry would not help."""
        with RawServer(*[[ok(b"one", **headers)]] * 3) as server:
            with pytest.raises(TransportError, match=r"header of the answer .* is longer than 64 KiB") as caught:
                await rxllm.OpenAI("m", base_url=server.url, client=client).ainvoke("hi")
            assert (False, 1) == (caught.value.retryable, len(server.requests))

    async def test_informational_responses_are_no_answer(self, client):
        """The answer follows them."""
        hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"
        with RawServer([hints + ok(b"one")]) as server:
            assert b"one" == await asked(server, client=client)

    async def test_a_reason_in_another_alphabet_is_read(self, client):
        """Only the status counts."""
        answer = b"HTTP/1.1 503 Indispon\xedvel\r\ncontent-length: 2\r\n\r\nno"
        with RawServer([answer]) as server:
            with pytest.raises(ProviderError) as caught:
                await asked(server, client=client)
            assert (503, "no") == (caught.value.status, caught.value.body)
