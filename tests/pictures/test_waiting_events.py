"""The events of requests that wait, and of answers that need no request: `Queued` and `Reused`."""

import asyncio

import pytest
from raising import Raises

import rxllm
from rxllm import Queued, Reused
from rxllm.testing import MarbleLLM, on_virtual_time


def heard(kind):
    """Return a list, and a handler that adds to it the events of one kind, with their runs' names."""
    events = []
    return events, lambda event: events.append((event.name, event)) if isinstance(event, kind) else None


@on_virtual_time
async def test_request_that_waits_for_its_limiter_is_queued():
    """Only a request that has to wait sends the event, as part of the run of `limited`."""
    events, handler = heard(Queued)
    llm = rxllm.limited(MarbleLLM("-a|"), rxllm.Limiter(concurrency=1))
    await asyncio.gather(*(llm.ainvoke("hi", handlers=[handler]) for _ in range(3)))
    assert ["limited", "limited"] == [name for name, _ in events]


@on_virtual_time
async def test_request_that_waits_for_its_conversation_is_queued():
    """A turn of a conversation waits for the turns before it."""
    events, handler = heard(Queued)
    talk = rxllm.remember(MarbleLLM("-a|"), rxllm.Conversation())
    await asyncio.gather(*(talk.ainvoke("hi", handlers=[handler]) for _ in range(2)))
    assert ["remember"] == [name for name, _ in events]


@on_virtual_time
async def test_answer_that_needs_no_request_is_reused():
    """The event tells whether the answer comes from the store or from a running request."""
    events, handler = heard(Reused)
    model = MarbleLLM("-a|")
    llm = rxllm.cached(model, rxllm.MemoryStore()).with_config(handlers=[handler])
    await asyncio.gather(*(llm.ainvoke("hi") for _ in range(2)))
    await llm.ainvoke("hi")
    assert [("cached", True), ("cached", False)] == [(name, event.running) for name, event in events]
    assert 1 == len(model.requests)


@on_virtual_time
async def test_handler_that_refuses_the_wait_fails_the_run():
    """With `raise_error`, its exception is the run's, and the waiting request leaves its place."""
    model = MarbleLLM("-a|")
    llm = rxllm.limited(model, rxllm.Limiter(concurrency=1))
    first, second = [
        asyncio.ensure_future(llm.ainvoke("hi", handlers=[Raises(Queued, KeyError("refused"))])) for _ in range(2)
    ]
    assert "a" == (await first).text
    with pytest.raises(KeyError, match="refused"):
        await second
    assert "a" == (await llm.ainvoke("hi")).text
    assert 2 == len(model.requests)


@on_virtual_time
async def test_handler_that_refuses_a_stored_answer_fails_the_run():
    """With `raise_error`, its exception is the run's; the next call gets the answer."""
    llm = rxllm.cached(MarbleLLM("-a|"), rxllm.MemoryStore())
    await llm.ainvoke("hi")
    with pytest.raises(KeyError, match="refused"):
        await llm.ainvoke("hi", handlers=[Raises(Reused, KeyError("refused"))])
    assert "a" == (await llm.ainvoke("hi")).text


@on_virtual_time
async def test_handler_that_refuses_a_shared_answer_fails_its_run_only():
    """With `raise_error`, its exception is the run's; the request goes on for the other reader."""
    llm = rxllm.cached(MarbleLLM("-a|"), rxllm.MemoryStore())
    first = asyncio.ensure_future(llm.ainvoke("hi"))
    await asyncio.sleep(0.5)
    with pytest.raises(KeyError, match="refused"):
        await llm.ainvoke("hi", handlers=[Raises(Reused, KeyError("refused"))])
    assert "a" == (await first).text
