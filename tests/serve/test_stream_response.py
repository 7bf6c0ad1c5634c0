"""`StreamResponse` and `sse` on real servers: what a client reads, and what happens when it leaves."""

import asyncio
import json
import time
import weakref
from dataclasses import dataclass
from decimal import Decimal

import httpx
import msgspec
import pydantic
import pytest
import reactivex
from fastapi import FastAPI
from serving import SERVERS, Client, Serving
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

import rxllm
from rxllm.serve import sse
from rxllm.testing import End, FakeServer, Reply
from rxllm.testing.servers import Endless

ROUNDS = 25  # clients that leave
SOON = 10.0  # seconds; on a quiet machine a request is closed within 5 ms, on a loaded one threads wait long


async def pass_on(request, call_next):
    """Middleware that does nothing but stand between."""
    return await call_next(request)


def application(make, *, middleware=False, **options):
    """Return an application whose only page streams what `make` returns."""

    async def page(request):
        return sse(make(), **options)

    layers = [Middleware(BaseHTTPMiddleware, dispatch=pass_on)] if middleware else []
    return Starlette(routes=[Route("/", page, methods=["GET", "POST"])], middleware=layers)


def events(text):
    """Return the (name, data) pairs of an event stream."""
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    return [(block.get("event", "message"), json.loads(block["data"])) for block in blocks if "data" in block]


def test_stream_of_chunks_is_events_and_ends_with_done():
    """Each chunk is one event with its text, and the last event is ``done``."""
    with Serving(application(lambda: reactivex.of(rxllm.Chunk("Hel"), rxllm.Chunk("lo")))) as server:
        answer = httpx.get(server.url, timeout=60)
    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
    assert "no" == answer.headers["x-accel-buffering"]
    assert [("message", {"text": "Hel"}), ("message", {"text": "lo"}), ("done", {})] == events(answer.text)


def test_texts_with_line_ends_stay_one_event():
    """A text with line ends and quotes comes back equal."""
    text = 'a\n\ndata: "b"\r\nc\u2028'
    with Serving(application(lambda: reactivex.of(text))) as server:
        assert [("message", text), ("done", {})] == events(httpx.get(server.url, timeout=60).text)


def test_values_are_their_json():
    """Of any class that rxllm reads, by the names of its schema; a message is what `Message.from_json` reads."""

    class City(pydantic.BaseModel):
        size: Decimal = pydantic.Field(alias="inhabitants")

    @dataclass
    class Country:
        capital: City

    city, message = City(inhabitants="1.50"), rxllm.Message("assistant", ["Hi", rxllm.ToolCallPart("c", "now", "{}")])
    with Serving(application(lambda: reactivex.of(city, [Country(city)], {1: city}, message))) as server:
        values = [value for _, value in events(httpx.get(server.url, timeout=60).text)]
    plain = {"inhabitants": "1.50"}
    assert [plain, [{"capital": plain}], {"1": plain}] == values[:3]
    assert message == rxllm.Message.from_json(values[3])


def test_half_of_a_character_is_replaced():
    """No bytes can express it; a model of one's own may emit it. The rest arrives."""
    items = ("a\ud800", {"b\ud800": 1}, rxllm.Chunk("c"))
    with Serving(application(lambda: reactivex.of(*items))) as server:
        values = [value for _, value in events(httpx.get(server.url, timeout=60).text)]
    assert ["a\ufffd", {"b\ufffd": 1}, {"text": "c"}, {}] == values


def test_empty_stream_is_whole():
    """A stream without items has the status 200 and ends with ``done``."""
    with Serving(application(reactivex.empty)) as server:
        answer = httpx.get(server.url, timeout=60)
    assert (200, [("done", {})]) == (answer.status_code, events(answer.text))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (rxllm.RateLimited("slow down", status=429, retry_after=1.2), 429),
        (rxllm.AuthenticationError("wrong key", status=401), 502),
        (rxllm.BadRequest("too long", status=400), 400),
        (rxllm.Timeout("late"), 504),
        (ValueError("a secret detail"), 500),
    ],
)
def test_error_before_the_first_item_has_its_own_status(error, status):
    """An error before any item is a JSON response; the vendor's 401 is not the client's."""
    with Serving(application(lambda: reactivex.throw(error))) as server:
        answer = httpx.get(server.url, timeout=60)
    assert status == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert "a secret detail" not in answer.text
    assert "wrong key" not in answer.text
    assert ("2" if status == 429 else None) == answer.headers.get("retry-after")


def test_error_after_the_first_item_is_an_event():
    """An error in the middle ends the stream with the event ``failure`` and without ``done``."""
    source = reactivex.concat(reactivex.of("Hel"), reactivex.throw(rxllm.Interrupted("cut")))
    with Serving(application(lambda: source)) as server:
        answer = httpx.get(server.url, timeout=60)
    assert 200 == answer.status_code
    assert ["message", "failure"] == [name for name, _ in events(answer.text)]


def test_silent_stream_sends_its_headers_and_pings():
    """After `hold` seconds the headers are sent, and after each `ping` seconds a comment."""
    with FakeServer(Reply([b"", End.HANG])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serving(application(lambda: llm("hi"), hold=0.01, ping=0.01)) as server:
            client = Client(server.port)
            assert client.read_until(b": ping").startswith(b"HTTP/1.1 200")
            client.read_until(b": ping")
            client.leave()
            upstream.exchange().wait_closed()


async def test_items_that_were_sent_are_freed_before_the_next_ones_come():
    """A silent stream keeps none of its items, but for the last one, which its source holds."""

    class Item(msgspec.Struct, weakref=True, eq=False):
        number: int

    kept, left, counts = weakref.WeakSet(), asyncio.Event(), []

    async def items():
        for number in range(20):
            item = Item(number)
            kept.add(item)
            yield item
        del item
        left.set()
        await asyncio.Event().wait()

    async def receive():
        await left.wait()
        for _ in range(5):  # turns in which the response sends and waits again
            await asyncio.sleep(0)
        counts.append(len(kept))
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    await sse(rxllm.from_aiter(items))({"type": "http", "method": "GET"}, receive, send)
    assert [1] == counts


async def test_burst_of_large_items_is_sent_in_pieces():
    """A server keeps what its client has not read, so it gets no more than 64 KiB and the rest of an item at once."""
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message.get("body", b""))

    await sse(rxllm.from_iter(["x" * 20_000] * 40))({"type": "http", "method": "GET"}, receive, send)
    assert 40 * [("message", "x" * 20_000)] + [("done", {})] == events(b"".join(sent).decode())
    assert max(map(len, sent)) < 2**16 + 20_100


def test_head_request_asks_no_model():
    """The server answers a HEAD request with the headers, and does not subscribe."""
    asked = []

    def make():
        return reactivex.defer(lambda _: asked.append(1) or reactivex.of("a"))

    async def page(request):
        return sse(make())

    app = Starlette(routes=[Route("/", page)])
    with Serving(app) as server:
        assert 200 == httpx.head(server.url, timeout=60).status_code
    assert [] == asked


def test_response_works_in_fastapi():
    """A FastAPI endpoint returns it like any response."""
    app = FastAPI()

    @app.get("/")
    async def page():
        return sse(reactivex.of("a"))

    with Serving(app) as server:
        assert [("message", "a"), ("done", {})] == events(httpx.get(server.url, timeout=60).text)


@pytest.fixture(scope="module")
def granian_runtime():
    """Start granian once before the checks for leaks: its runtime keeps two sockets until the process ends."""
    with Serving(Starlette(), "granian"):
        pass


EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
BODIES = {
    "before the headers": [End.HANG],
    "before the first chunk": [b"", End.HANG],
    "streaming": [EVENT % b"Hel", End.HANG],
    "paused": [Endless(EVENT % (b"x" * 60_000))],
}


class Answers:
    """Begins answers of the model of a FakeServer; `kept` has those that are in memory."""

    def __init__(self, upstream):
        self.llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        self.kept = weakref.WeakSet()

    def __call__(self):
        """Begin an answer."""
        answer = self.llm("hi")
        self.kept.add(answer)
        return answer


def seconds_to_close(server, upstream, numbers, situation):
    """Let a client with each number ask; then let each one leave, and yield the seconds until its request is closed."""
    clients, exchanges = [], [upstream.exchange(number) for number in numbers]
    for exchange in exchanges:
        clients.append(Client(server.port))
        exchange.arrived.wait()
        if situation == "streaming":
            clients[-1].read_until(b"Hel")
    if situation == "paused":
        wait_stalled(exchanges)
    for client, exchange in zip(clients, exchanges, strict=True):
        left = time.monotonic()
        client.leave()
        yield exchange.wait_closed(left)


def wait_stalled(exchanges):
    """Wait until no exchange sends any more."""
    sent = before = []
    while 0 in sent or sent != before or not sent:
        before = [exchange.bytes_sent for exchange in exchanges]
        exchanges[0].wait_stalled()
        sent = [exchange.bytes_sent for exchange in exchanges]


@pytest.mark.parametrize("situation", BODIES)
@pytest.mark.parametrize("middleware", [False, True], ids=["plain", "behind middleware"])
@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.usefixtures("granian_runtime", "no_collector")
def test_client_that_leaves_closes_the_request_to_the_model(kind, middleware, situation):
    """The model's server sees the close at once, and the stream leaves the memory, without the garbage collector."""
    with FakeServer(Reply(BODIES[situation])) as upstream:
        answers = Answers(upstream)
        with Serving(application(answers, middleware=middleware), kind) as server:
            assert max(seconds_to_close(server, upstream, range(ROUNDS), situation)) < SOON
    assert 0 == len(answers.kept)
