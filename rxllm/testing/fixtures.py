"""Fixtures for pytest.

A program's ``conftest.py`` asks for them::

    pytest_plugins = ["rxllm.testing.fixtures"]

    def test_an_outage(fake_server):
        fake_server.reply(Reply.json({"error": {"message": "no"}}, status=503), Reply([...]))
        llm = rxllm.OpenAI("m", base_url=fake_server.url, api_key="any")

`nothing_is_left_behind` is asked for by name, or for all tests of a module by
``pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .leaks import nothing_left_behind
from .servers import FakeServer

__all__ = ["fake_server", "nothing_is_left_behind"]


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    """A local server, which is told what to answer."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def nothing_is_left_behind() -> Iterator[None]:
    """Fails a test that leaves a thread, a task on rxllm's background loop or an open socket behind."""
    with nothing_left_behind():
        yield
