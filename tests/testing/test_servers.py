"""`FakeServer`, tested with raw sockets, so that no client hides anything."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from protocols import PROTOCOLS, ToolCall, split_events, split_every, with_line_ends, with_pings

from rxllm import MisuseError
from rxllm.testing import End, Endless, FakeServer, Reply, Signal

HEAD = b"HTTP/1.1 200 \r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ONE_BYTE = len(b"HTTP/1.1 200 \r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n") + 1


def connect(server):
    """A connected socket with a timeout of five seconds."""
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=5)


def ask(client, body=b'{"a": 1}', headers=b""):
    """Send one request."""
    client.sendall(
        b"POST /v1?x=1 HTTP/1.1\r\nX-Key: k v\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), headers, body)
    )


def read(client, size):
    """Read exactly so many bytes, or all bytes before the end."""
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    return data


def read_all(client):
    """Read until the server closes the connection."""
    return read(client, 2**30)


def test_each_piece_is_one_http_chunk_and_the_request_is_recorded():
    """Each piece is an HTTP chunk, the terminal chunk follows, and the request is recorded."""
    with FakeServer(Reply([b"Hel", b"lo"], headers={"connection": "close"})) as server, connect(server) as client:
        ask(client)
        assert read_all(client).endswith(b"connection: close\r\n\r\n3\r\nHel\r\n2\r\nlo\r\n0\r\n\r\n")
        server.exchange().finished.wait()
        assert server.exchange().bytes_sent == 5
        [request] = server.requests
    assert (request.method, request.path, request.query, request.json) == ("POST", "/v1", "x=1", {"a": 1})
    assert request.headers == {"x-key": "k v", "content-length": "8"}


def test_chunked_request_is_read():
    """A request body may be chunked."""
    with FakeServer(Reply(b"x")) as server, connect(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n")
        server.exchange().arrived.wait()
        assert server.requests[0].json == [1, 2]


def test_json_reply_has_its_length_and_headers():
    """An error response has its status, headers and a Content-Length."""
    reply = Reply.json({"error": 1}, status=429, headers={"retry-after": "7"})
    with FakeServer(reply) as server, connect(server) as client:
        ask(client, headers=b"Connection: close\r\n")
        head, body = read_all(client).split(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 429 ",
        b"content-type: application/json",
        b"content-length: 12",
        b"retry-after: 7",
    ]
    assert json.loads(body) == {"error": 1}


def test_replies_come_in_order_on_one_connection_and_the_last_repeats():
    """Connections stay open; each reply is used once except the last; a function is called with the request."""
    replies = [Reply.json(b"1"), lambda request: Reply.json(request.body)]
    with FakeServer(*replies) as server, connect(server) as client:
        bodies = []
        for body in (b"x", b"2", b"3"):
            ask(client, body)
            bodies.append(read(client, ONE_BYTE)[-1:])
        assert bodies == [b"1", b"2", b"3"]
        assert len(server.exchanges) == 3
        assert server.open_connections == 1


def test_failing_reply_function_answers_500():
    """The client receives the exception, so that a mistake in the test is visible."""
    with FakeServer(lambda request: 1 / 0) as server, connect(server) as client:
        ask(client, headers=b"Connection: close\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"ZeroDivisionError" in answer


def test_signal_holds_the_reply():
    """The reply waits at a Signal until the test sets it."""
    released = Signal()
    with FakeServer(Reply([b"a", released, b"b"])) as server, connect(server) as client:
        ask(client)
        assert read(client, len(HEAD) + 6) == HEAD + b"1\r\na\r\n"
        assert not server.exchange().finished.is_set()
        released.set()
        assert read(client, 11) == b"1\r\nb\r\n0\r\n\r\n"


def test_number_pauses_the_reply():
    """The next step waits for so many seconds."""
    with FakeServer(Reply([0.05, b"a"])) as server, connect(server) as client:
        asked = time.monotonic()
        ask(client)
        read(client, 1)
    assert time.monotonic() - asked >= 0.05


@pytest.mark.parametrize(
    ("end", "rest"),
    [(End.CLEAN, b"0\r\n\r\n"), (End.FIN, b""), (End.RST, ConnectionResetError)],
    ids=["clean", "fin", "rst"],
)
def test_reply_can_be_cut(end, rest):
    """The bytes before a cut are sent, then a terminal chunk, a FIN or a reset; later steps are not played."""
    released = Signal()
    reply = Reply([b"a", released, end, b"never"])
    with FakeServer(reply) as server, connect(server) as client:
        ask(client, headers=b"Connection: close\r\n")
        assert read(client, len(HEAD) + 6) == HEAD + b"1\r\na\r\n"
        released.set()
        if rest is ConnectionResetError:
            with pytest.raises(ConnectionResetError):
                read_all(client)
        else:
            assert read_all(client) == rest
        server.exchange().wait_closed()
        assert server.exchange().finished.is_set()
        assert not server.exchange().aborted


def test_content_length_may_exceed_the_body():
    """Without chunks, Content-Length includes the bytes after the cut."""
    with FakeServer(Reply([b"abc", End.FIN, b"def"], chunked=False)) as server, connect(server) as client:
        ask(client)
        answer = read_all(client)
    assert b"content-length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\nabc")


def test_connection_can_be_closed_without_a_response():
    """The second request on a connection gets no response: a stale connection."""
    with FakeServer(Reply.json(b"1"), Reply([End.FIN]), Reply.json(b"3")) as server, connect(server) as client:
        ask(client)
        read(client, ONE_BYTE)
        ask(client)
        assert read_all(client) == b""
        assert len(server.requests) == 2


def test_idle_connections_can_be_closed():
    """Idle connections are closed without notice; a connection with a running reply stays."""
    with FakeServer(Reply([End.HANG])) as server, connect(server) as busy:
        ask(busy)
        server.exchange(0).arrived.wait()
        server.reply(Reply.json(b"1"))
        with connect(server) as idle:
            ask(idle)
            read(idle, ONE_BYTE)
            server.exchange(1).finished.wait()
            server.close_idle()
            assert read_all(idle) == b""
        assert not server.exchange(0).closed.is_set()


@pytest.mark.parametrize(
    "steps", [[End.HANG], [b"", End.HANG], [b"a", Signal()], [60.0]], ids=["silent", "head", "waiting", "pausing"]
)
@pytest.mark.parametrize("reset", [False, True])
def test_disconnection_is_detected_while_the_reply_waits(steps, reset):
    """Before the headers, after them and in the body, by FIN and by reset, the exchange is aborted at once."""
    with FakeServer(Reply(steps)) as server, connect(server) as client:
        ask(client)
        server.exchange().arrived.wait()
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        server.exchange().wait_closed()
        assert server.exchange().aborted
        assert server.open_connections == 0


def test_disconnection_after_the_whole_reply_is_not_an_abort():
    """A client that has read everything may disconnect."""
    with FakeServer(Reply(b"a" * 5_000_000)) as server, connect(server) as client:
        ask(client)
        read(client, len(HEAD) + 5_000_000 + len(b"4c4b40\r\n\r\n0\r\n\r\n"))
        client.close()
        server.exchange().wait_closed()
        assert not server.exchange().aborted


def test_disconnection_within_a_large_piece_is_an_abort():
    """Bytes in a buffer have not been sent."""
    with FakeServer(Reply(b"a" * 50_000_000)) as server, connect(server) as client:
        ask(client)
        read(client, 1000)
        client.close()
        server.exchange().wait_closed()
        assert server.exchange().aborted


def test_endless_reply_stalls_with_its_reader():
    """The server pauses when the client stops reading, resumes with it, and detects its disconnection."""
    with FakeServer(Reply([Endless(b"a" * 10_000)])) as server, connect(server) as client:
        ask(client)
        read(client, 1000)
        stalled = server.exchange().wait_stalled()
        read(client, stalled + 1_000_000)
        assert server.exchange().wait_stalled() > stalled
        client.close()
        server.exchange().wait_closed()
        assert server.exchange().aborted


def test_endless_reply_leaves_other_connections_responsive():
    """Other requests are answered however fast the client reads."""
    with FakeServer(Reply([Endless(b"a" * 100)])) as server, connect(server) as first, connect(server) as second:
        ask(first)
        read(first, 1000)
        server.reply(Reply([End.FIN]))
        ask(second)
        assert read_all(second) == b""


def test_end_of_the_block_closes_everything():
    """The server closes waiting, stalled and idle connections, and its thread ends."""
    with ExitStack() as clients:
        with FakeServer(Reply([End.HANG]), Reply([Endless(b"a" * 10_000)])) as server:
            hanging, stalled, idle = (clients.enter_context(connect(server)) for _ in range(3))
            for index, client in enumerate([hanging, stalled]):
                ask(client)
                server.exchange(index).arrived.wait()
            server.exchange(1).wait_stalled()
        assert (read_all(hanging), read_all(idle)) == (b"", b"")
        assert read_all(stalled).startswith(HEAD)
    assert [exchange.aborted for exchange in server.exchanges] == [False, False]
    assert server.open_connections == 0
    assert "FakeServer" not in {thread.name for thread in threading.enumerate()}


async def test_coroutines_can_await_signals():
    """Threads block and coroutines await; both raise TimeoutError."""
    with FakeServer(Reply([End.HANG])) as server:
        waiting = asyncio.create_task(server.exchange(0).closed_soon())
        client = connect(server)
        ask(client)
        await server.exchange(0).arrived.soon()
        left = time.monotonic()
        client.close()
        await waiting
        assert 0 <= await server.exchange(0).closed_soon(since=left) < 30
        with pytest.raises(TimeoutError):
            await server.exchange(1).arrived.soon(timeout=0.01)
        with pytest.raises(TimeoutError):
            server.exchange(1).arrived.wait(timeout=0.01)


async def test_a_thousand_concurrent_clients():
    """A thousand connections are open at the same time, and each is answered."""
    released = Signal()
    with FakeServer(Reply([b"a", released, b"b"], headers={"connection": "close"})) as server:
        address = urlsplit(server.url)

        async def client():
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"POST / HTTP/1.1\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer[-17:]

        clients = [asyncio.create_task(client()) for _ in range(1000)]
        await server.exchange(999).arrived.soon(timeout=20)
        assert server.open_connections == 1000
        released.set()
        assert await asyncio.gather(*clients) == [b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"] * 1000


def test_invalid_step_is_refused():
    """The constructor raises an error."""
    with pytest.raises(TypeError, match="a step of a reply must be"):
        Reply(["text"])


@pytest.mark.parametrize("wrong", [b"data: hi", "hi", None, [b"hi"]])
def test_invalid_reply_is_refused(wrong):
    """MisuseError is raised before the server starts, with the right form."""
    with pytest.raises(MisuseError, match=rf"Reply objects, .* not {type(wrong).__name__}\. Write FakeServer\(Reply\("):
        FakeServer(wrong)
    with FakeServer() as server, pytest.raises(MisuseError):
        server.reply(Reply(b"hi"), wrong)


def test_reply_function_without_a_reply_answers_500():
    """A function that returns something else is treated like one that raises."""
    with FakeServer(lambda request: b"hi") as server, connect(server) as client:
        ask(client, headers=b"Connection: close\r\n")
        assert b"it returned bytes instead of a Reply" in read_all(client)


def test_bodies_can_be_cut_and_decorated():
    """Cutting loses no byte; line endings and pings are inserted everywhere."""
    events = [b"data: 1\n\n", b"data: 2\n\n"]
    for end in (b"\n", b"\r", b"\r\n"):
        dressed = with_line_ends(end, events)
        assert split_events(b"".join(dressed)) == dressed
    assert split_every(7, events) == [b"data: 1", b"\n\ndata:", b" 2\n\n"]
    assert with_pings(events, b":\n\n") == [b":\n\n", events[0], b":\n\n", events[1]]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_stream_and_whole_have_the_same_content(protocol):
    """Both have every requested word in order; the stream ends with its terminal marker; each event is JSON."""
    more = {"tool_call": ToolCall(), "reasoning": ["hm"]} if "tool_call" in protocol.speaks else {}
    events = protocol.stream(["Hé", "l\nlo"], usage=(17, 19), **more)
    assert events[-1].endswith(protocol.terminal)  # empty for Responses, whose last event differs in each answer
    data = [event.partition(b"data: ")[2] for event in events if b"[DONE]" not in event]
    streamed = json.dumps([json.loads(line) for line in data])
    whole = json.dumps(json.loads(protocol.whole(["Hé", "l\nlo"], usage=(17, 19), **more)))
    finish = protocol.finishes["tool_call" if more else "stop"]
    for word in (*(json.dumps(piece) for piece in ("Hé", "l\nlo")), "17", "19", f'"{finish}"'):
        assert word in streamed
    for word in (json.dumps("Hél\nlo"), "17", "19", f'"{finish}"'):
        assert word in whole
    assert protocol.model in whole


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_errors_contain_their_message(protocol):
    """In the stream and as a body."""
    assert json.loads(protocol.error_body(429, "slow"))["error"]["message"] == "slow"
    assert '"message": "boom"' in json.dumps(json.loads(protocol.error_frame("boom").partition(b"data: ")[2]))


def test_unsupported_feature_of_a_protocol_is_refused():
    """Completions have no tool calls."""
    with pytest.raises(ValueError, match="does not speak"):
        PROTOCOLS[1].stream(tool_call=ToolCall())
