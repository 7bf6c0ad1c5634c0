"""Fixtures for pytest.

Load them in a program's ``conftest.py``::

    pytest_plugins = ["rxllm.testing.fixtures"]

    def test_an_outage(fake_server):
        fake_server.reply(Reply.json({"error": {"message": "no"}}, status=503), Reply([...]))
        llm = rxllm.OpenAI("m", base_url=fake_server.url, api_key="any")

`virtual_time` runs a coroutine on an event loop where waiting takes no time::

    def test_a_retry_waits(virtual_time):
        virtual_time(rxllm.retry(llm, 3).ainvoke("hi"))

(`rxllm.testing.on_virtual_time` does so for a whole coroutine test.)

Use `nothing_is_left_behind` as an argument of a test, or for all tests of a module with
``pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from .leaks import nothing_left_behind
from .servers import FakeServer
from .virtual_time import VirtualLoop

__all__ = ["fake_server", "nothing_is_left_behind", "virtual_time"]


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    """A local server; the test scripts its replies."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a task on rxllm's background loop or a socket open."""
    with nothing_left_behind():
        yield


@pytest.fixture
def virtual_time() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A function that runs a coroutine on a `VirtualLoop`, where waiting takes no time, and returns its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner.run
