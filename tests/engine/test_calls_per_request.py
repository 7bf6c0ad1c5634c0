"""The cost of a request, as a number that no busy machine changes: its calls of Python functions."""

import asyncio
import gc
import json
import sys

import pytest

import rxllm
from rxllm.testing import FakeServer, Reply

REQUESTS = 10

# Measured: 614 and 635. A change that adds a fifth to the cost of each request fails here.
MOST = {"whole": 735, "stream": 760}


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
        calls = 0

        def count(frame, event, argument):
            nonlocal calls
            calls += event == "call"

        gc.disable()  # finalisers of other tests are not part of a request
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            await ask(REQUESTS)
        finally:
            sys.setprofile(before)
            gc.enable()
    assert calls / REQUESTS <= MOST[kind], f"{calls / REQUESTS} calls"
    assert not asyncio.all_tasks() - {asyncio.current_task()}
