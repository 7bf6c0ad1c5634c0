"""POST and the bytes of its answer: every fault of a network, against a local server that makes them."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
import tracemalloc
from contextlib import ExitStack, closing

import httpx
import httpx_aiohttp
import pytest

import rxllm
from rxllm.errors import Interrupted, ProtocolError, ProviderError, Timeout, TransportError
from rxllm.misuse import MisuseError
from rxllm.testing import End, Endless, FakeServer, Reply, Signal
from rxllm.wire.http import post
from rxllm.wire.timeouts import Timeouts, timeouts_of

KEY = "sk-do-not-show-this"
PROMPT = 10.0  # seconds within which a closed connection is seen, also on a loaded machine


@pytest.fixture
def server():
    """A local server that answers with two pieces unless a test sets another reply."""
    with FakeServer(Reply([b"Hel", b"lo"])) as server:
        yield server


def failure(status, body, headers):
    """An error whose attributes are the arguments of `failure`."""
    return ProviderError(
        body.decode(), status=status, body=body.decode(), code=headers.get("x-code"), retryable=status >= 500
    )


def posted(url, body=b"{}", *, headers=None, **settings):
    """The bytes of an answer, as an Observable."""
    url = url.url if isinstance(url, FakeServer) else url
    return post(url, body, headers={} if headers is None else headers, failure=failure, **settings)


def answered(url, **settings):
    """All the bytes of an answer."""
    return b"".join(posted(url, **settings).pipe(rxllm.stream()))


async def answered_soon(url, **settings):
    """The same on the running loop, which has connections of its own."""
    return b"".join([piece async for piece in posted(url, **settings).pipe(rxllm.astream())])


def heard_until_error(source, *, then=None):
    """Return the bytes before the error, and the error. `then` is set at the first bytes."""
    heard = b""
    try:
        for piece in source.pipe(rxllm.stream()):
            heard += piece
            if then is not None:
                then.set()
    except rxllm.RxllmError as error:
        return heard, error
    raise AssertionError(f"there was no error after {heard!r}")


class TestRequest:
    """The request."""

    def test_the_body_and_the_headers_arrive_as_given(self, server):
        """The request is a POST with these bytes, and accepts no compression."""
        answered(server.url + "/v1/x?y=1", body=b'{"a": 1}', headers={"x-one": "1", "content-type": "application/json"})
        request = server.requests[0]
        assert ("POST", "/v1/x", "y=1", b'{"a": 1}') == (request.method, request.path, request.query, request.body)
        expected = {"x-one": "1", "content-type": "application/json", "accept-encoding": "identity"}
        assert expected == {name: request.headers[name] for name in expected}

    def test_nothing_is_sent_before_subscribe_and_twice_for_two(self, server):
        """The source is cold."""
        source = posted(server)
        assert [] == server.requests
        assert [b"Hello", b"Hello"] == [b"".join(source.pipe(rxllm.stream())) for _ in range(2)]
        assert 2 == len(server.requests)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost:8000/v1",
            "ftp://localhost/v1",
            "https:///v1",
            "http://[::1/v1",
            "http://localhost:port/v1",
            "http://localhost:99999/v1",
        ],
    )
    def test_a_bad_address_is_a_sentence(self, url):
        """An invalid address raises MisuseError before anything is sent."""
        with pytest.raises(MisuseError, match=r"base_url must be like https://host/v1, not '"):
            posted(url)

    @pytest.mark.parametrize("key", ["sk-é-do-not-show", "sk-do-not\nshow", "sk-do-not\r\nx-evil: 1", "sk-\0-do-not"])
    def test_a_key_that_is_no_header_is_misuse(self, server, key):
        """A header that HTTP cannot carry is a sentence without its value, before anything is sent."""
        with pytest.raises(MisuseError, match="The header 'authorization' has characters") as caught:
            answered(server, headers={"authorization": f"Bearer {key}"})
        assert "do-not" not in str(caught.value)
        assert [] == server.requests

    def test_no_cookie_is_carried_over(self, server):
        """One request's answer sets no cookie for another's, which may be another user's."""
        server.reply(Reply(b"ok", headers={"set-cookie": "session=1; Path=/"}))
        for _ in range(2):
            answered(server)
        assert ["cookie" in request.headers for request in server.requests] == [False, False]


class TestAnswer:
    """The bytes that come."""

    @pytest.mark.parametrize("chunked", [True, False])
    def test_bytes_come_as_they_are_sent(self, server, chunked):
        """Chunked or with a length, the body is the body."""
        server.reply(Reply([b"Hel", b"", b"lo"], chunked=chunked))
        assert b"Hello" == answered(server)

    def test_a_piece_comes_before_the_next_is_sent(self, server):
        """The bytes are emitted at once, even if the server sends no more."""
        released = Signal()
        server.reply(Reply([b"Hel", released, b"lo"]))
        with posted(server).pipe(rxllm.stream()) as pieces:
            assert b"Hel" == next(pieces)
            released.set()
            assert [b"lo"] == list(pieces)

    def test_a_web_page_is_no_answer(self, server):
        """A 200 with HTML comes from another server, so the message asks whether base_url is right."""
        server.reply(Reply(b"<html>Welcome</html>", content_type="text/html; charset=utf-8"))
        _, error = heard_until_error(posted(server))
        assert (ProtocolError, b"<html>Welcome</html>") == (type(error), error.frame)
        assert f"{server.url} answered with a web page" in str(error)

    def test_a_slow_reader_stops_the_server(self, server):
        """While the consumer pauses, the socket is not read, so memory is bounded."""
        server.reply(Reply([Endless(b"x" * 65536)]))
        with posted(server).pipe(rxllm.stream()) as pieces:
            next(pieces)
            assert server.exchange(0).wait_stalled() < 32 * 2**20
        assert server.exchange(0).wait_closed() > 0


class TestStatus:
    """Anything but success."""

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 503, 529])
    def test_a_status_makes_the_providers_error(self, server, status):
        """Status, body and headers (by lower-case names) go to the provider, which makes the error."""
        server.reply(Reply.json(b"no", status=status, headers={"X-Code": "C"}))
        _, error = heard_until_error(posted(server))
        assert (status, "no", "C") == (error.status, error.body, error.code)

    def test_an_endless_error_document_is_cut(self, server):
        """At most 64 KiB of an error are read; then its connection is closed."""
        server.reply(Reply([Endless(b"no " * 1000)], status=500))
        _, error = heard_until_error(posted(server))
        assert 65536 == len(error.body)
        server.exchange(0).wait_closed()

    @pytest.mark.parametrize("end", [End.FIN, End.RST, End.HANG])
    def test_an_error_document_that_cannot_be_read_is_what_came_of_it(self, server, end, monkeypatch):
        """The status and the headers count, though the network fails in the document, or it never ends."""
        monkeypatch.setattr("rxllm.wire.responses.ERROR_BODY_PATIENCE", 0.1)
        server.reply(Reply([b"no", end], status=401, headers={"x-code": "C"}))
        _, error = heard_until_error(posted(server))
        assert (401, "no", "C") == (error.status, error.body, error.code)
        server.exchange(0).wait_closed()

    def test_an_error_document_without_end_comes_before_the_first_chunk_is_late(self, server):
        """With a short limit for the first chunk, the error is that of the status, not a Timeout."""
        server.reply(Reply([b"no", End.HANG], status=401))
        began = time.monotonic()
        _, error = heard_until_error(posted(server, timeouts=Timeouts(first_chunk=0.2)))
        assert (401, "no") == (error.status, error.body)
        assert time.monotonic() - began < 1

    def test_an_error_document_that_cannot_be_decompressed_is_none(self, server):
        """The error is that of the status."""
        server.reply(Reply(b"junk", status=400, headers={"content-encoding": "gzip"}))
        _, error = heard_until_error(posted(server))
        assert (400, "") == (error.status, error.body)

    @pytest.mark.parametrize("end", [End.FIN, End.RST])
    def test_a_web_page_that_breaks_is_one(self, server, end):
        """The error contains the part of the body that arrived."""
        server.reply(Reply([b"<html>", end], content_type="text/html"))
        _, error = heard_until_error(posted(server))
        assert (ProtocolError, b"<html>") == (type(error), error.frame)

    def test_a_compressed_error_is_read(self, server):
        """Compression is undone here, too."""
        server.reply(Reply(gzip.compress(b"no"), status=500, headers={"content-encoding": "gzip"}))
        assert "no" == heard_until_error(posted(server))[1].body


class TestNetwork:
    """No connection, or one that breaks."""

    def test_a_refused_connection_names_the_place(self):
        """A refused connection is a retryable TransportError, not a Timeout, and the message names the server."""
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            place = f"http://127.0.0.1:{free.getsockname()[1]}"
        _, error = heard_until_error(posted(place + "/v1/secret-path"))
        assert (TransportError, True) == (type(error), error.retryable)
        assert place in str(error)

    def test_an_unknown_host_names_the_place(self, monkeypatch):
        """An unknown host name is a TransportError, not a Timeout."""

        def unknown(*_, **__):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        _, error = heard_until_error(posted("http://model.invalid/v1"))
        assert TransportError is type(error)
        assert "http://model.invalid" in str(error)

    @pytest.mark.parametrize("end", [End.FIN, End.RST])
    def test_a_connection_that_breaks_in_the_answer_is_interrupted(self, server, end):
        """The bytes before the break were emitted."""
        heard = Signal()
        server.reply(Reply([b"Hel", heard, end]))
        came, error = heard_until_error(posted(server), then=heard)
        assert (b"Hel", Interrupted, True) == (came, type(error), error.retryable)
        assert f"{server.url} broke in the middle of the answer" in str(error)

    @pytest.mark.parametrize("end", [End.FIN, End.RST])
    def test_a_connection_that_breaks_before_the_answer_is_no_partial_answer(self, server, end):
        """The error is not Interrupted, because no part of an answer arrived."""
        server.reply(Reply([end]))
        _, error = heard_until_error(posted(server))
        assert TransportError is type(error)
        assert f"No answer from {server.url}" in str(error)
        assert 1 == len(server.requests), "the server got the request; a retry is the caller's decision"

    @pytest.mark.parametrize("chunked", [True, False])
    def test_a_body_shorter_than_announced_is_interrupted(self, server, chunked):
        """A FIN ends no body that promised more."""
        heard = Signal()
        server.reply(Reply([b"Hel", heard, End.FIN, b"lo"], chunked=chunked))
        assert Interrupted is type(heard_until_error(posted(server), then=heard)[1])

    @pytest.mark.parametrize("end", [End.FIN, End.RST])
    def test_what_came_at_once_with_the_break_is_delivered(self, server, end):
        """A server that crashes right after its last words does not take them away."""
        server.reply(Reply([b"Hello", end]))
        actual = [heard_until_error(posted(server)) for _ in range(20)]
        assert [(b"Hello", Interrupted)] * 20 == [(heard, type(error)) for heard, error in actual]

    def test_a_kept_connection_is_used_again(self, server):
        """Two requests, one connection."""
        for _ in range(2):
            assert b"Hello" == answered(server)
        assert (2, 1) == (len(server.requests), server.open_connections)

    async def test_a_kept_connection_that_the_server_closed_is_replaced(self, server):
        """The server closed an idle connection. The next request succeeds, whichever side notices the end first."""
        for _ in range(5):
            asked = len(server.requests)
            assert b"Hello" == await answered_soon(server)
            server.close_idle()
            server.exchange(asked).wait_closed()  # it blocks this loop, which therefore can't have noticed
            assert b"Hello" == await answered_soon(server)

    @pytest.mark.parametrize("end", [End.FIN, End.RST])
    def test_a_request_that_the_server_has_read_is_not_sent_again(self, server, end):
        """The server closes a kept connection after it has read the second request. No third request is sent."""
        assert b"Hello" == answered(server)
        server.reply(Reply([end]))
        _, error = heard_until_error(posted(server))
        assert (TransportError, True, 2) == (type(error), error.retryable, len(server.requests))


class TestTimeouts:
    """The wait ends at its limit."""

    def test_no_connection(self):
        """A host that does not take the connection."""
        with ExitStack() as stack:
            full = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
            filling = stack.enter_context(closing(socket.socket()))
            filling.connect(full.getsockname())
            place = f"http://127.0.0.1:{full.getsockname()[1]}"
            _, error = heard_until_error(posted(place, timeouts=Timeouts(connect=0.05)))
        assert (Timeout, f"No connection to {place} within 0.05 s.") == (type(error), str(error))

    @pytest.mark.parametrize("steps", [[], [b""], [b"Hel"]])
    def test_no_bytes(self, server, steps):
        """The server stands still before its headers, after them, or in the body."""
        server.reply(Reply([*steps, End.HANG]))
        came, error = heard_until_error(posted(server, timeouts=Timeouts(read=0.05)))
        assert (b"".join(steps), Timeout) == (came, type(error))
        assert f"{server.url} sent nothing for 0.05 s." == str(error)
        server.exchange(0).wait_closed()

    @pytest.mark.parametrize("kind", [httpx.ConnectTimeout, httpx.PoolTimeout, httpx.WriteTimeout, httpx.ReadTimeout])
    def test_a_client_of_ones_own_may_have_its_own_limits(self, kind):
        """A timeout of the client's own is a Timeout, too; its message has no number."""

        def fail(request):
            raise kind("too late")

        client = lambda: httpx.AsyncClient(transport=httpx.MockTransport(fail))  # noqa: E731
        unlimited = timeouts_of(None)
        assert Timeout is type(heard_until_error(posted("http://model.invalid", client=client, timeouts=unlimited))[1])

    def test_one_number_bounds_every_silence(self):
        """Numbers and None become Timeouts."""
        assert Timeouts(5, 5, 5, 5) == timeouts_of(5)
        assert Timeouts(None, None, None, None) == timeouts_of(None)
        assert Timeouts(connect=1) == timeouts_of(Timeouts(connect=1))

    @pytest.mark.parametrize("seconds", [0, -1, "5"])
    def test_what_is_no_time_is_refused(self, seconds):
        """A limit that can't be kept is a sentence."""
        with pytest.raises(MisuseError, match="must be a positive number of seconds"):
            Timeouts(read=seconds)


class TestDispose:
    """Leaving closes the connection at once."""

    @pytest.mark.parametrize("steps", [[], [b""], [b"Hel"]])
    async def test_dispose_closes_the_connection(self, server, steps):
        """Before the headers, after them and in the body, the server sees it within 50 ms."""
        server.reply(Reply([*steps, End.HANG]))
        heard = asyncio.Event()
        subscription = posted(server).subscribe(lambda _: heard.set())
        exchange = server.exchange(0)
        await exchange.arrived.soon()
        if b"".join(steps):
            async with asyncio.timeout(30):
                await heard.wait()
        left = time.monotonic()
        subscription.dispose()
        assert await exchange.closed_soon(since=left) < PROMPT
        assert exchange.aborted

    async def test_dispose_before_the_task_has_begun_sends_nothing(self, server):
        """A subscription that is disposed at once sends no request."""
        posted(server).subscribe().dispose()
        assert b"Hello" == await answered_soon(server)
        assert 1 == len(server.requests)

    def test_break_closes_the_connection(self, server):
        """A loop that is left, too."""
        server.reply(Reply([b"Hel", End.HANG]))
        with posted(server).pipe(rxllm.stream()) as pieces:
            next(pieces)
            left = time.monotonic()
        assert server.exchange(0).wait_closed(since=left) < PROMPT


class TestClient:
    """The client of one's choice."""

    @pytest.mark.parametrize("encoded", [False, True])
    async def test_httpx_with_its_own_transport(self, server, encoded):
        """Any httpx client will do."""
        if encoded:
            server.reply(Reply(gzip.compress(b"Hello"), headers={"content-encoding": "gzip"}))
        async with httpx.AsyncClient() as client:
            assert [b"Hello"] * 2 == [await answered_soon(server, client=client) for _ in range(2)]
        assert (2, 0) == (len(server.requests), server.requests[1].headers.get("cookie", "").count("="))

    @pytest.mark.parametrize(
        ("steps", "error"),
        [([End.FIN], TransportError), ([b"Hel", End.FIN], Interrupted), ([b"Hel", End.RST], Interrupted)],
    )
    async def test_httpx_own_transport_fails_alike(self, server, steps, error):
        """Its faults have the same names."""
        server.reply(Reply(steps))
        async with httpx.AsyncClient() as client:
            with pytest.raises(TransportError) as caught:
                await answered_soon(server, client=client)
        assert error is type(caught.value)

    @pytest.mark.parametrize("transport", [httpx.AsyncHTTPTransport, httpx_aiohttp.AiohttpTransport])
    async def test_a_hook_may_have_read_the_answer(self, server, transport):
        """The bytes that it has read are the answer."""

        async def read(response):
            await response.aread()

        server.reply(Reply([b"Hel", b"lo"]))
        async with httpx.AsyncClient(event_hooks={"response": [read]}, transport=transport()) as client:
            assert b"Hello" == await answered_soon(server, client=client)

    async def test_httpx_own_transport_refused_and_late(self, server):
        """A refused connection and silence, too."""
        server.reply(Reply([End.HANG]))
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            refused = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with httpx.AsyncClient() as client:
            for url, error in ((refused, TransportError), (server.url, Timeout)):
                with pytest.raises(TransportError) as caught:
                    await answered_soon(url, client=client, timeouts=Timeouts(read=0.05))
                assert error is type(caught.value)

    def test_an_instance_belongs_to_its_first_loop(self, server):
        """Its connections belong to the first loop. On another loop it raises MisuseError, and nothing is sent."""
        client = httpx.AsyncClient()

        async def first():
            return await answered_soon(server, client=client)

        async def second():
            with pytest.raises(MisuseError, match=r"client=lambda: httpx\.AsyncClient"):
                await answered_soon(server, client=client)

        async def last():
            await client.aclose()

        with asyncio.Runner() as scheduler, asyncio.Runner() as away:
            assert b"Hello" == scheduler.run(first())
            away.run(second())
            assert b"Hello" == scheduler.run(first())
            scheduler.run(last())
        assert 2 == len(server.requests)

    def test_a_factory_is_called_once_a_loop(self, server):
        """The loop's end closes the client that the function returned."""
        made = []

        def client():
            made.append(httpx.AsyncClient())
            return made[-1]

        async def ask():
            await asyncio.gather(*(answered_soon(server, client=client) for _ in range(3)))

        for _ in range(2):
            asyncio.run(ask())
        assert [True, True] == [client.is_closed for client in made]

    def test_each_loop_has_a_default_client(self, server):
        """Several `asyncio.run` in one program work, and leave no connection behind."""
        for _ in range(3):
            assert b"Hello" == asyncio.run(answered_soon(server))
        for exchange in server.exchanges:
            exchange.wait_closed()

    async def test_many_at_once(self, server):
        """The number of connections has no hidden limit: 150 streams wait together, then all end."""
        released = Signal()
        server.reply(Reply([b"Hel", released, b"lo"]))
        answers = asyncio.gather(*(answered_soon(server) for _ in range(150)))
        await server.exchange(149).arrived.soon()
        released.set()
        assert [b"Hello"] * 150 == await answers


def test_a_long_answer_takes_no_memory(server):
    """100 MiB pass through with a few MiB in hand."""
    server.reply(Reply([b"x" * 2**20] * 100))
    answered(server)  # everything is imported and warm
    server.reply(Reply([b"x" * 2**20] * 100))
    tracemalloc.start()
    try:
        size = sum(map(len, posted(server).pipe(rxllm.stream())))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 100 * 2**20 == size
    assert peak < 32 * 2**20


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
    ],
    ids=["ssh", "status", "line", "length"],
)
async def test_what_is_no_http_is_an_error_of_the_transport(answer):
    """The message is one line, whatever the library below raises, and contains no key that the server echoed."""

    async def respond(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.replace(b"OpenSSH", KEY.encode()))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1") as server:
        url = "http://{}:{}".format(*server.sockets[0].getsockname())
        with pytest.raises(TransportError) as caught:
            await rxllm.OpenAI("m", base_url=url, api_key=KEY, max_retries=0).ainvoke("hi")
    assert caught.value.retryable
    assert caught.value.request.text == "hi"
    assert 1 == len(str(caught.value).splitlines())
    assert KEY not in str(caught.value)
