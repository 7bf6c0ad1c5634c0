"""Marks for tests that need a package of the extras for local models."""

import importlib.util

import pytest

__all__ = ["needs_transformers", "needs_xllamacpp"]

REASON = "the extras for local models are not installed"


def _needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=REASON)


needs_xllamacpp = _needs("xllamacpp")
needs_transformers = _needs("transformers")
