"""The number of clients, and the moment that closes each."""

from __future__ import annotations

import gc
import subprocess
import sys

import httpx
import pytest
from protocols import Chat

import rxllm
from rxllm.misuse import MisuseError
from rxllm.testing import Endless, FakeServer, Reply, Signal

ANSWER = Reply.json({"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]})


@pytest.fixture
def server():
    """A local server."""
    with FakeServer(ANSWER) as server:
        yield server


class TestFunctions:
    """A function as ``client=``."""

    @pytest.mark.parametrize("kind", ["lambda", "method", "partial"])
    def test_a_function_that_is_gone_leaves_no_client(self, server, kind):
        """If each call creates a model with a lambda, the connections close with the lambda."""

        class Factory:
            def make(self):
                return httpx.AsyncClient()

        def ask():
            factory = Factory().make
            if kind == "lambda":
                factory = lambda: httpx.AsyncClient()  # noqa: E731 (a new function each time)
            elif kind == "partial":
                import functools

                factory = functools.partial(httpx.AsyncClient)
            assert "Hello" == rxllm.OpenAI("m", base_url=server.url, client=factory).invoke("hi").text

        for _ in range(20):
            ask()
        gc.collect()
        for exchange in server.exchanges:
            exchange.wait_closed()

    def test_a_function_that_is_kept_keeps_its_client(self, server):
        """Two models with one function, or with one method of one object, share its client."""

        class Factory:
            made = 0

            def make(self):
                self.made += 1
                return httpx.AsyncClient()

        factory = Factory()
        for _ in range(3):
            assert "Hello" == rxllm.OpenAI("m", base_url=server.url, client=factory.make).invoke("hi").text
            gc.collect()
        assert (1, 1) == (factory.made, server.open_connections)

    async def test_a_client_lives_as_long_as_its_request(self, server):
        """The model and its function are garbage-collected while the answer arrives."""
        released = Signal()
        server.reply(Reply([b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n', released, b"data: [DONE]\n\n"]))
        stream = rxllm.OpenAI("m", base_url=server.url, client=lambda: httpx.AsyncClient()).astream("hi")
        assert "Hel" == (await anext(stream)).text
        gc.collect()
        released.set()
        assert [] == [chunk.text async for chunk in stream if chunk.text]

    def test_what_cannot_be_referred_to_weakly_still_works(self, server):
        """An object of a class with slots."""

        class Factory:
            __slots__ = ()

            def __call__(self):
                return httpx.AsyncClient()

        llm = rxllm.OpenAI("m", base_url=server.url, client=Factory())
        assert ["Hello", "Hello"] == [llm.invoke("hi").text for _ in range(2)]
        assert 1 == server.open_connections

    def test_what_a_function_raises_is_told(self, server):
        """It is a mistake in the calling program, before anything is sent."""
        llm = rxllm.OpenAI("m", base_url=server.url, client=lambda: 1 / 0)
        with pytest.raises(MisuseError, match="The function client= raised ZeroDivisionError") as caught:
            llm.invoke("hi")
        assert (ZeroDivisionError, []) == (type(caught.value.__cause__), server.requests)


@pytest.mark.parametrize("stream", [True, False])
def test_a_loop_may_be_closed_without_a_word(server, stream):
    """`loop.close()` without `shutdown_asyncgens` closes the connections and logs nothing."""
    program = f"""
import asyncio, gc, rxllm
llm = rxllm.OpenAI("m", base_url={server.url!r})
for _ in range(3):
    loop = asyncio.new_event_loop()
    assert "Hello" == loop.run_until_complete(llm.ainvoke("hi", stream={stream})).text
    loop.close()
    gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    for exchange in server.exchanges:
        exchange.wait_closed()


def test_a_loop_may_be_closed_right_after_a_stream_was_left():
    """`shutdown_asyncgens` gives the stream the turns of the loop that it needs; leaving ``async with`` needs none."""
    first = Chat().stream(["x"])[1]
    with FakeServer(Reply([first, Endless(first)])) as server:
        program = f"""
import asyncio, gc, rxllm
llm = rxllm.OpenAI("m", base_url={server.url!r}, api="chat")
async def leave():
    async for chunk in llm.astream("hi"):
        break
async def leave_with():
    async with llm.astream("hi") as stream:
        await anext(stream)
async def dispose():
    heard = asyncio.Event()
    subscription = llm("hi").subscribe(lambda chunk: heard.set())
    await heard.wait()
    subscription.dispose()
async def cancel():
    heard = asyncio.Event()
    async def read():
        async for chunk in llm.astream("hi"):
            heard.set()
            await asyncio.Event().wait()
    task = asyncio.ensure_future(read())
    await heard.wait()
    task.cancel()
for way in (leave, leave_with, dispose, cancel):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(way())
    if way is not leave_with:
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    gc.collect()
"""
        command = [sys.executable, "-W", "error", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50)
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
        for exchange in server.exchanges:
            exchange.wait_closed()
