"""Faults that users of other libraries reported, if no other file tests them. docs/migrate/langchain.md lists all."""

import asyncio
import threading
import time

import pytest
import reactivex as rx
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Cancelled
from rxllm.testing import Endless, FakeServer, Reply, Signal

SOON = 30.0  # seconds; the whole answer would take for ever


@pytest.mark.parametrize("pipeline", [False, True], ids=["model", "pipeline"])
def test_closing_after_five_chunks_returns_at_once(pipeline):
    """An endless answer is left: `close` does not read on, the server sees it, and handlers hear Cancelled."""
    first, *_ = Chat().stream(["x"])[1:]
    ended = []
    left = threading.Event()

    def hears(event):
        if isinstance(event, (rxllm.Finished, rxllm.Failed, Cancelled)):
            ended.append(type(event))
            left.set()

    with FakeServer(Reply([Endless(first)])) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", handlers=[hears])
        stream = (rxllm.pipe(llm, rxllm.text(), ops.map(str.upper)) if pipeline else llm).stream("x")
        for _ in range(5):
            next(stream)
        began = time.monotonic()
        stream.close()
        assert SOON > time.monotonic() - began
        assert SOON > server.exchange(0).wait_closed(began)
        assert server.exchange(0).aborted
        assert left.wait(SOON)
    assert [Cancelled] == ended


class Steps(LLM):
    """Streams a letter, and the next one only when it is told to."""

    async def chunks(self, request):
        """Two letters."""
        yield "a"
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    "operator",
    [
        ops.map(str.upper),
        ops.filter(bool),
        ops.do_action(lambda text: None),
        ops.scan(lambda some, text: some + text),
        ops.flat_map(rx.of),
    ],
    ids=["map", "filter", "do", "scan", "flat_map"],
)
async def test_a_function_of_single_values_does_not_wait(operator):
    """The first value is there while the model still has to say its second."""
    async with rxllm.pipe(Steps(), rxllm.text(), operator).astream("x") as stream:
        assert "a" == (await asyncio.wait_for(anext(stream), SOON)).lower()


def test_branches_stream_side_by_side():
    """Each branch's chunks come as they are there, and not when the branch is whole."""
    events = Chat().stream(["a", "b"])
    released = Signal()
    with FakeServer(Reply([*events[:2], released, *events[2:]])) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1")

        def both(prompt):
            named = [llm(prompt).pipe(rxllm.text(), ops.map(lambda text, name=name: (name, text))) for name in "xy"]
            return rx.merge(*named)

        with rxllm.pipe(both).stream("x") as stream:
            first = {next(stream), next(stream)}
            released.set()
            rest = set(stream)
    assert ({("x", "a"), ("y", "a")}, {("x", "b"), ("y", "b")}) == (first, rest)
