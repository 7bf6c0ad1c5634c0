"""The reading of bytes by every provider over HTTP, and the class of each error."""

import asyncio

import httpx
import pytest
from attrs import frozen
from reactivex import abc

from rxllm import Chunk, Interrupted, ProtocolError, Request, RxllmError, Timeout, Timeouts
from rxllm.operators.timeouts import Watch
from rxllm.providers._exchange import Exchange
from rxllm.providers._http import HTTPProvider
from rxllm.providers._reader import Reader
from rxllm.runtime.scheduler import scheduler
from rxllm.runtime.source import connect
from rxllm.testing import End, FakeServer, Reply


class Letters:
    """A decoder of frames that are text; it stumbles over some."""

    failure = None
    complete = finished = ended = False

    def chunk(self, data):
        """The text."""
        if data == b"end":
            self.complete = self.ended = True
            return None
        return Chunk(read(data))

    def rest(self):
        """It holds nothing back."""


def read(data):
    """Text, but for what no decoder has thought of."""
    stumbles = {b"key": lambda: {}["no such key"], b"type": lambda: None + data, b"1": lambda: 1 // 0}
    return stumbles.get(data, data.decode)()


@frozen(init=False)
class Letterbox(HTTPProvider):
    """A provider by that protocol."""

    def _url(self, request):
        return self.base_url

    def _headers(self, request):
        return {"x-key": "do-not-show"}

    def _body(self, request):
        return {}

    def _decoder(self, request):
        return Letters()

    def _whole(self, body, request):
        return Chunk(read(body))


def letterbox(server, **settings):
    """A model at this server."""
    return Letterbox("m", base_url=server.url, **settings)


@pytest.mark.parametrize(("data", "kind"), [(b"key", KeyError), (b"type", TypeError)])
async def test_exception_of_a_decoder_becomes_a_protocol_error(data, kind):
    """It has the frame and the partial answer, and names the exception; the connection is closed."""
    with FakeServer(Reply([b"data: a\n\ndata: " + data + b"\n\n", End.HANG])) as server:
        with pytest.raises(ProtocolError, match=f"decoder raised {kind.__name__}") as caught:
            await letterbox(server).ainvoke("hi")
        await server.exchange(0).closed_soon()
    error = caught.value
    assert (data, "a") == (error.frame, error.partial.text)


class Recorder(abc.ObserverBase):
    """Hears everything, and guards no grammar."""

    def __init__(self):
        self.heard = []
        self.ended = asyncio.Event()

    def on_next(self, value):
        """A chunk's text."""
        self.heard.append(value.text)

    def on_error(self, error):
        """An error's type."""
        self.heard.append(type(error))
        self.ended.set()

    def on_completed(self):
        """The end."""
        self.heard.append("end")
        self.ended.set()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\ndata: 1", ["a", ProtocolError]),
        (b"data: a\n\ndata: 2", ["a", "2", Interrupted]),
        (b"data: a\n\ndata: end\n\n", ["a", "end"]),
        (b"data: a\n\ndata: key\n\n", ["a", ProtocolError]),
    ],
)
async def test_stream_ends_once(body, expected):
    """Whatever the rest of the bytes contains."""
    recorder = Recorder()
    with FakeServer(Reply([body])) as server:
        connect(letterbox(server, timeout=None).chunks(Request(prompt="hi")), recorder, scheduler())
        await asyncio.wait_for(recorder.ended.wait(), 5)
        for _ in range(20):
            await asyncio.sleep(0)
    # What follows an error in the same connection is for the subscription that it ended.
    assert expected == recorder.heard[: len(expected)]
    assert 1 == len([heard for heard in recorder.heard if not isinstance(heard, str) or heard == "end"])


@pytest.mark.parametrize(("body", "kind"), [(b"key", KeyError), (b"type", TypeError)])
async def test_exception_of_the_reader_of_whole_answers_becomes_a_protocol_error(body, kind):
    """It names the exception."""
    named = pytest.raises(ProtocolError, match=f"decoder raised {kind.__name__}")
    with FakeServer(Reply(body)) as server, named as caught:
        await letterbox(server, stream=False).ainvoke("hi")
    assert (body, None) == (caught.value.frame, caught.value.partial)


@pytest.mark.parametrize("raised", [LookupError("mine"), RxllmError("mine"), ProtocolError("mine")])
@pytest.mark.parametrize("stream", [True, False])
async def test_exception_of_a_subscriber_is_no_failure_of_the_provider(raised, stream):
    """It goes unchanged to the exception handler of the loop, and the connection is closed."""
    reported, failures = asyncio.Queue(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.put_nowait(context["exception"]))

    def hear(chunk):
        raise raised

    steps = [b"data: a\n\ndata: b\n\n", End.HANG] if stream else [b"a"]
    with FakeServer(Reply(steps)) as server:
        chunks = letterbox(server).chunks(Request(prompt="hi", stream=stream))
        chunks.subscribe(hear, failures.append)
        assert raised is await asyncio.wait_for(reported.get(), 5)
        assert [] == failures
        if stream:
            await server.exchange(0).closed_soon()


async def test_nothing_follows_an_error():
    """Neither a chunk nor an end, although both were in the same piece of bytes."""
    heard = []
    with FakeServer(Reply([b"data: a\n\ndata: key\n\ndata: b\n\ndata: end\n\n"])) as server:
        done = asyncio.Event()
        letterbox(server)("hi").subscribe(
            lambda chunk: heard.append(chunk.text),
            lambda error: (heard.append(type(error)), done.set()),
            lambda: heard.append("end"),
        )
        await asyncio.wait_for(done.wait(), 5)
        for _ in range(20):
            await asyncio.sleep(0)
    assert ["a", ProtocolError] == heard


@pytest.mark.parametrize("end", [b"end", b"key"])
async def test_nothing_follows_an_exception_of_the_subscriber(end):
    """Neither the end nor an error, although they were in the same piece of bytes."""
    reported, heard = asyncio.Queue(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.put_nowait(context["exception"]))

    def hear(chunk):
        heard.append(chunk.text)
        raise LookupError

    with FakeServer(Reply([b"data: a\n\ndata: b\n\ndata: %s\n\n" % end, End.HANG])) as server:
        letterbox(server)("hi").subscribe(hear, heard.append, lambda: heard.append("end"))
        await asyncio.wait_for(reported.get(), 5)
        await server.exchange(0).closed_soon()
    assert (["a"], True) == (heard, reported.empty())


async def test_time_of_a_slow_subscriber_is_no_silence():
    """A limit on silence counts from the return of the subscriber."""
    now = 0.0

    class Slow(Recorder):
        def on_next(self, value):
            nonlocal now
            now += 1.0

    with FakeServer() as server:
        exchange = Exchange(letterbox(server), Request(prompt="hi"), "http://host", {}, {}, Timeouts())
        reader = Reader(Slow(), scheduler(), exchange)
        reader.clock = lambda: now
        reader.on_next(b"data: a\n\ndata: b\n\ndata: c\n\n")
        reader.dispose()
    assert 3.0 == reader.last


async def test_time_limit_may_pass_during_the_subscription(monkeypatch):
    """Even before the reader has its upstream."""
    monkeypatch.setattr(Watch, "sleep", lambda reader, seconds: reader.late(Timeout("late")))
    recorder = Recorder()
    with FakeServer() as server:
        connect(letterbox(server, max_retries=0).chunks(Request(prompt="hi")), recorder, scheduler()).dispose()
    assert [Timeout] == recorder.heard


@pytest.mark.parametrize(
    ("timeouts", "stream", "read"),
    [
        (Timeouts(), True, None),
        (Timeouts(read=5.0, first_chunk=5.0, idle=5.0), True, None),
        (Timeouts(read=None), True, None),
        (Timeouts(read=5.0, first_chunk=6.0, idle=5.0), True, 5.0),
        (Timeouts(read=5.0, first_chunk=5.0, idle=6.0), True, 5.0),
        (Timeouts(read=5.0, first_chunk=5.0, idle=6.0), False, None),
        (Timeouts(read=5.0, first_chunk=None), False, 5.0),
        (Timeouts(read=5.0, idle=None), True, 5.0),
    ],
)
async def test_read_limit_needs_no_timer_where_a_limit_on_chunks_is_as_short(timeouts, stream, read):
    """A timer per packet would tell nothing new; any other limit is kept."""
    sent = []

    async def look(request):
        sent.append(request.extensions["timeout"])

    with FakeServer(Reply([b"data: a\n\ndata: end\n\n"] if stream else b"a")) as server:
        async with httpx.AsyncClient(event_hooks={"request": [look]}) as client:
            llm = letterbox(server, timeout=timeouts, client=client)
            assert "a" == (await llm.ainvoke("hi", stream=stream)).text
    assert [(10.0, read)] == [(each["connect"], each["read"]) for each in sent]
