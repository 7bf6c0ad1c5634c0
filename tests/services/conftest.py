"""Skips tests that need programs of the system. The CI stage `services` installs them and sets the variable."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Skip the tests of this folder, unless the variable is set."""
    if os.environ.get("RXLLM_SERVICES"):
        return
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.skip(reason="RXLLM_SERVICES is not set"))
