"""Marks for tests that need a package beyond the extra `test`."""

import importlib.util

import pytest

__all__ = ["needs_ray", "needs_transformers", "needs_xllamacpp"]

LOCAL = "the extras for local models are not installed"


def _needs(package, reason):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=reason)


needs_xllamacpp = _needs("xllamacpp", LOCAL)
needs_transformers = _needs("transformers", LOCAL)
needs_ray = _needs("ray", "the extra 'ray' is not installed")
