"""Fixtures of the tests of local models."""

import importlib.util

import pytest


@pytest.fixture
def anywhere(monkeypatch):
    """Pretend that the packages are installed, for tests that need none of them."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
