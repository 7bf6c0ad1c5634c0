"""The cost of a request and of observing it, as numbers that no busy machine changes: calls of Python functions."""

import asyncio
import contextlib
import gc
import json
import sys

import pytest

import rxllm
from rxllm import Chunk
from rxllm.testing import FakeServer, Reply

REQUESTS = 10
CHUNKS = 2000
ROWS = 300

# Measured: 566 and 662. A change that adds a fifth to the cost of each request fails here.
MOST = {"whole": 680, "stream": 790}
MOST_OF_A_ROW = 135  # measured: 113


def answer(**choice):
    """One frame of a stream, or a whole answer, by OpenAI's chat protocol."""
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    frame = {"id": "1", "model": "m", "choices": [{"index": 0, **choice}], "usage": usage}
    return json.dumps(frame if "message" in choice else {**frame, "usage": None}).encode()


def replies(kind):
    """Return the reply of a server to one request: a whole answer, or a stream of three chunks."""
    if kind == "whole":
        return Reply.json(answer(message={"role": "assistant", "content": "Hello"}, finish_reason="stop"))
    frames = [*(answer(delta={"content": text}) for text in "abc"), answer(delta={}, finish_reason="stop"), b"[DONE]"]
    return Reply(b"".join(b"data: %b\n\n" % frame for frame in frames))


@contextlib.contextmanager
def counting():
    """Yield a function that returns the number of calls of Python functions so far."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    gc.disable()  # finalisers of other tests are not part of a request
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield lambda: calls
    finally:
        sys.setprofile(before)
        gc.enable()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each Python makes other calls for the same code")
@pytest.mark.parametrize("kind", ["whole", "stream"])
async def test_calls_of_a_request(kind):
    """The client calls at most so many Python functions for an answer on a warm connection."""
    with FakeServer(*[replies(kind)] * (REQUESTS + 2)) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k", stream=kind == "stream")

        async def ask(times):
            for _ in range(times):
                if kind == "whole":
                    await llm.ainvoke("hi")
                else:
                    async for _ in llm.astream("hi"):
                        pass

        await ask(2)
        with counting() as calls:
            await ask(REQUESTS)
    assert calls() / REQUESTS <= MOST[kind], f"{calls() / REQUESTS} calls"
    assert not asyncio.all_tasks() - {asyncio.current_task()}


class Echo(rxllm.LLM):
    """Answers with the prompt."""

    async def complete(self, request):
        """Return the prompt."""
        return request.text


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each Python makes other calls for the same code")
async def test_calls_of_a_row_of_a_job(tmp_path):
    """A job calls at most so many Python functions for a row, beside those of its request."""

    async def calls_of(operator, count):
        rows = rxllm.from_iter([f"Row {number}" for number in range(count)])
        with counting() as calls:
            assert count == len([each async for each in rows.pipe(operator, rxllm.astream())])
        return calls() / count

    llm = rxllm.retry(Echo())
    await calls_of(rxllm.job(llm, rxllm.Journal(tmp_path / "warm")), ROWS)
    alone = await calls_of(rxllm.batch_as_completed(llm), ROWS)
    assert await calls_of(rxllm.job(llm, rxllm.Journal(tmp_path / "out")), ROWS) - alone <= MOST_OF_A_ROW


class Tokens(rxllm.LLM):
    """Streams plain text."""

    async def chunks(self, request):
        """Yield many chunks."""
        for number in range(CHUNKS):
            yield Chunk(f"{number} ")


def hear(event):
    """Hear an event."""


class Hooks(rxllm.CallbackHandler):
    """Has no hook for chunks."""

    def on_llm_end(self, response, **kwargs):
        """Hear the end."""


READERS = {
    "unobserved": lambda: Tokens().astream("hi"),
    "events": lambda: Tokens().events("hi").pipe(rxllm.astream()),
    "dicts": lambda: Tokens().astream_events("hi"),
}
HANDLERS = {
    "handler": lambda: hear,
    "hooks": Hooks,
    "usage": rxllm.UsageMeter,
    "logging": rxllm.LoggingHandler,
    "timeline": rxllm.Timeline,
}


def read(kind):
    """Read an answer, with one kind of handler or in one way."""
    return READERS[kind]() if kind in READERS else Tokens(handlers=[HANDLERS[kind]()]).astream("hi")


@pytest.mark.parametrize(
    ("kind", "most"),
    [("handler", 2), ("hooks", 1), ("usage", 1), ("logging", 3), ("timeline", 4), ("events", 1), ("dicts", 3)],
)
async def test_calls_of_an_observed_chunk(kind, most):
    """To observe a run takes at most so many more calls for each chunk, the handler's own call included."""

    async def calls_of(kind):
        with counting() as calls:
            assert CHUNKS <= len([each async for each in read(kind)])
        return calls()

    await calls_of(kind)
    assert await calls_of(kind) - await calls_of("unobserved") <= (most + 0.5) * CHUNKS


async def test_observed_run_keeps_no_chunks():
    """The text of an answer so far is no work for the garbage collector, in an observed run, too."""
    most = 0

    def count(event):
        nonlocal most
        if isinstance(event, Chunk) and event.text.endswith("00 "):
            most = max(most, sum(type(each) is Chunk for each in gc.get_objects()))

    gc.collect()
    before = sum(type(each) is Chunk for each in gc.get_objects())
    async for _ in Tokens(handlers=[count]).astream("hi"):
        pass
    assert most - before <= 100
