"""Requests with an ``Idempotency-Key``: one answer, however often the request comes."""

import asyncio
import json
import os
import subprocess
import sys

import httpx
import pytest
from combinators.scripted import Scripted as Rounds
from combinators.scripted import call
from serving import Client, Scripted, Serving

import rxllm
from rxllm.serve import MemoryLog, Relay, idempotency, openai
from rxllm.serve.failures import Refused
from rxllm.serve.idempotency import Repeats
from rxllm.serve.openai_chat import ChatEvents
from rxllm.testing import FakeServer, Reply, Signal

USED = rxllm.Chunk(finish_reason="stop", usage=rxllm.Usage(input_tokens=3, output_tokens=2))
PATHS = {"/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]}, "/v1/responses": {"input": "hi"}}


def post(server, key, path="/v1/chat/completions", **body):
    """Send a request with an Idempotency-Key."""
    body = {"model": "m", **PATHS[path], **body}
    headers = {"idempotency-key": key, "authorization": f"Bearer {body.pop('as_caller', 'a')}"}
    return httpx.post(f"{server.url}{path}", json=body, headers=headers, timeout=60)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_repeated_request_gets_the_same_answer(path, stream):
    """The second request gets the bytes of the first, and the model is asked once."""
    model = Scripted("Hel", "lo", USED)
    with Serving(openai({"m": model})) as server:
        first, second = (post(server, "k", path, stream=stream) for _ in range(2))
        assert 200 == first.status_code
        assert (first.content, first.headers["content-type"]) == (second.content, second.headers["content-type"])
        assert 1 == len(model.asked)
        assert first.content != post(server, "k2", path, stream=stream).content


def test_key_belongs_to_one_request_of_one_caller():
    """Another request with the same key is refused; another caller may use the same key."""
    model = Scripted("Hello", USED)
    with Serving(openai({"m": model}, keys={"alice": "a", "bob": "b"})) as server:
        assert 200 == post(server, "k").status_code
        assert 422 == post(server, "k", temperature=1).status_code
        assert 400 == post(server, "k" * 256).status_code
        assert 200 == post(server, "k", as_caller="b").status_code
        assert 2 == len(model.asked)


@pytest.mark.parametrize("stream", [True, False])
def test_failed_answer_is_tried_again(stream):
    """A failure keeps its status and is not repeated: the next request with the key asks the model again."""
    model = Rounds([[rxllm.RateLimited("slow", status=429)], ["Hello", USED]])
    with Serving(openai({"m": model})) as server:
        assert [429, 200, 200] == [post(server, "k", stream=stream).status_code for _ in range(3)]
        assert 2 == len(model.requests)


@pytest.mark.parametrize("stream", [True, False])
def test_failure_that_the_request_causes_is_repeated(stream):
    """Another attempt would fail in the same way, so the model is not asked."""
    model = Rounds([[rxllm.BadRequest("The prompt is too long.", status=400)], ["Hello", USED]])
    with Serving(openai({"m": model})) as server:
        answers = [post(server, "k", stream=stream) for _ in range(2)]
        assert [400, 400] == [answer.status_code for answer in answers]
        assert "too long" in answers[1].text
        assert 1 == len(model.requests)


@pytest.mark.parametrize(
    "failure",
    [rxllm.Overloaded("busy", status=503), rxllm.Interrupted("cut"), rxllm.MisuseError("no"), ValueError("no")],
)
async def test_failure_that_no_client_has_seen_is_not_repeated(failure):
    """The client lost its connection before the model failed. Its next request asks the model again."""
    model = Rounds([["Hel", failure], ["Hello", USED]])
    repeats = Repeats()

    async def ask():
        return await repeats.answer("", "k", {}, model("hi"), ChatEvents("m"))

    await ask()
    await asyncio.wait(repeats.relay._producers.values())
    answers = []
    for source, encoder in [await ask(), await ask()]:
        answers.append(b"".join([encoder.encode(entry) async for entry in source.pipe(rxllm.astream())]))
    assert answers[0] == answers[1]
    assert b"Hello" in answers[0]
    assert b"[DONE]" in answers[0]
    assert 2 == len(model.requests)
    await repeats.relay.aclose()


async def test_requests_that_repeat_a_failed_one_at_once_begin_one_answer():
    """They come together after the failure, and share the new answer."""
    model = Rounds([[rxllm.Overloaded("busy", status=503)], ["Hello", USED], ["again"]])
    repeats = Repeats()

    async def ask():
        source, _ = await repeats.answer("", "k", {}, model("hi"), ChatEvents("m"))
        return [entry.id async for entry in source.pipe(rxllm.astream())]

    with pytest.raises(Refused):
        await ask()
    first, *others = await asyncio.gather(*(ask() for _ in range(5)))
    assert [first] * 4 == others
    assert 2 == len(model.requests)
    await repeats.relay.aclose()


async def test_answer_that_the_log_had_no_room_for_begins_anew():
    """A full log deletes the oldest answer without a reader. The next request with its key asks the model again."""
    model = Rounds([["Hello", USED], ["Hello again", USED]])
    log = MemoryLog(max_bytes=5_000)
    repeats = Repeats(Relay(log))

    async def ask():
        source, encoder = await repeats.answer("", "k", {}, model("hi"), ChatEvents("m"))
        return b"".join([encoder.encode(entry) async for entry in source.pipe(rxllm.astream())])

    assert b"Hello again" not in await ask()
    await log.attend([("", "idempotent k")], 0)
    await log.append(("", "other"), await log.begin(("", "other"), 60), 1, [bytes(5_000)])
    answers = await asyncio.gather(ask(), ask())
    assert answers[0] == answers[1]
    assert b"Hello again" in answers[0]
    assert 2 == len(model.requests)
    await repeats.relay.aclose()


async def test_answer_that_nobody_reads_is_stopped_and_begins_anew():
    """Without a reader the answer ends, and the next request asks the model again. A late reader is told to do so."""
    closed = asyncio.Event()

    class Endless(rxllm.LLM):
        asked = 0

        async def chunks(self, request):
            Endless.asked += 1
            try:
                yield "Hel"
                await asyncio.Event().wait()
            finally:
                closed.set()

    repeats = Repeats(Relay(linger=0.03))
    model = Endless()

    async def ask():
        return await repeats.answer("", "k", {}, model("hi"), ChatEvents("m"))

    source, encoder = await ask()
    await closed.wait()
    entries = [entry async for entry in source.pipe(rxllm.astream())]
    with pytest.raises(Refused) as caught:
        encoder.encode(entries[-1])
    assert (409, True) == (caught.value.failure.status, caught.value.failure.again)
    assert b"its client had left" in encoder.refuse(caught.value.failure)
    await ask()
    await asyncio.sleep(0)
    assert 2 == Endless.asked
    await repeats.relay.aclose()


async def test_answer_that_runs_longer_than_answers_are_kept_is_not_begun_again(monkeypatch):
    """An answer of many minutes is still asked for once."""
    monkeypatch.setattr(idempotency, "KEEP", -1.0)
    model = Rounds([["Hel"], ["again"]])
    repeats = Repeats()
    positions = []
    for _ in range(2):
        source, _encoder = await repeats.answer("", "k", {}, model("hi"), ChatEvents("m"))
        positions.append([entry.id async for entry in source.pipe(rxllm.astream())])
    assert positions[0] == positions[1]
    assert 1 == len(model.requests)
    await repeats.relay.aclose()


def test_client_that_lost_its_connection_gets_the_answer_from_its_beginning():
    """The request to the model goes on without the client, and the client's second request reads it."""
    done = Signal()
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    with FakeServer(Reply([event % b"Hel", done, event % b"lo", end])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serving(openai({"m": llm})) as server:
            body = {"model": "m", **PATHS["/v1/chat/completions"], "stream": True}
            with httpx.stream(
                "POST",
                f"{server.url}/v1/chat/completions",
                json=body,
                headers={"idempotency-key": "k"},
                timeout=60,
            ) as first:
                assert any("Hel" in line for line in first.iter_lines())
            done.set()
            text = post(server, "k", stream=True).text
            assert 1 == len(upstream.requests)
    assert text.index("Hel") < text.index('"lo"') < text.index("[DONE]")


def test_agent_shows_one_answer_with_its_usage():
    """Over /v1 an agent's calls and results are hidden; there is one finish reason, and the usage is the sum."""

    @rxllm.tool
    async def look() -> str:
        return "rain"

    used = rxllm.Usage(input_tokens=3, output_tokens=2)
    rounds = [["Let me see. ", call("look", "{}", "c", finish_reason="tool_call", usage=used)], ["Rain.", USED]]
    with Serving(openai({"m": rxllm.agent(Rounds(rounds * 2), look)})) as server:
        text = post(server, "k", stream=True, stream_options={"include_usage": True}).text
        whole = post(server, "l").json()
    frames = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    choices = [choice for frame in frames for choice in frame["choices"]]
    assert ["stop"] == [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert "Let me see. Rain." == "".join(choice["delta"].get("content") or "" for choice in choices)
    assert "tool_calls" not in text
    assert (10, 10) == (frames[-1]["usage"]["total_tokens"], whole["usage"]["total_tokens"])
    assert ("Let me see. Rain.", "stop") == (
        whole["choices"][0]["message"]["content"],
        whole["choices"][0]["finish_reason"],
    )


def test_client_cannot_act_for_an_agents_tools():
    """Tools for an agent, and calls of its own tools with results that the client wrote, are refused."""

    @rxllm.tool
    async def look() -> str:
        return "rain"

    model = rxllm.Limiter(concurrency=1)
    served = rxllm.limited(rxllm.agent(Rounds([["Hello"]]), look), model)
    forged = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "sun"},
    ]
    tool = {"type": "function", "function": {"name": "own", "parameters": {"type": "object", "properties": {}}}}
    with Serving(openai({"m": served})) as server:
        assert "takes no others" in post(server, "k", tools=[tool]).text
        assert "runs on this server" in post(server, "l", messages=forged).text
        assert 200 == post(server, "m").status_code


def test_full_server_lets_the_client_try_again():
    """A request above the limit of answers at once gets 429, and the SDK is told to try again."""
    with FakeServer(Reply([b"", Signal()])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serving(openai({"m": llm}, max_concurrency=1)) as server:
            body = {"model": "m", **PATHS["/v1/chat/completions"]}
            first = Client(server.port, "/v1/chat/completions", json.dumps(body).encode())
            upstream.exchange(0).arrived.wait()
            response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
            first.leave()
            upstream.exchange(0).wait_closed()
    assert (429, "true", "1") == (
        response.status_code,
        response.headers["x-should-retry"],
        response.headers["retry-after"],
    )


FORKING = """
import asyncio, os, threading
import httpx
import rxllm
from rxllm.serve import openai
from rxllm.serve.edge import Edge

parent, asked, finish = os.getpid(), threading.Event(), threading.Event()

class Held(rxllm.LLM):
    def chunks(self, request):
        asked.set()
        assert os.getpid() != parent or finish.wait(50)
        yield str(os.getpid())

server = Edge(openai({"m": Held()}, max_concurrency=1), {})

async def ask():
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://localhost") as client:
        answer = await client.post("/v1/chat/completions", json=body, headers={"idempotency-key": "k"}, timeout=30)
    assert 200 == answer.status_code, answer.text
    assert str(os.getpid()) == answer.json()["choices"][0]["message"]["content"]
    assert await server.end(0), "no request is left"

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asking = asyncio.run_coroutine_threadsafe(ask(), loop)
assert asked.wait(50)
if (child := os.fork()) == 0:
    asyncio.run(asyncio.wait_for(ask(), 30))
    os._exit(0)
assert 0 == os.waitpid(child, 0)[1]
finish.set()
asking.result(30)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_answers_by_itself_while_an_answer_of_its_parent_runs():
    """The same request with the same key is asked in the child. The parent's request takes no place there."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING]  # of forks with threads
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (0, "") == (done.returncode, done.stderr)
