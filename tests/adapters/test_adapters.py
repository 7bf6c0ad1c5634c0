"""The room of the adapters: its names, and what importing it loads."""

import subprocess
import sys

import pytest

import rxllm.adapters


def test_lazy_names_are_exported_and_unknown_names_raise():
    """Each adapter is in `__all__` and `dir`. An unknown name raises AttributeError."""
    assert sorted(rxllm.adapters._LAZY) == rxllm.adapters.__all__ == dir(rxllm.adapters)
    with pytest.raises(AttributeError, match="has no attribute 'from_nowhere'"):
        rxllm.adapters.from_nowhere  # noqa: B018


def test_importing_loads_no_adapter():
    """Another library is imported when its adapter is used."""
    program = "import sys, rxllm.adapters; print(*[name for name in sys.modules if name.startswith('rxllm.adapters')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "rxllm.adapters\n" == done.stdout
