"""Tools for testing programs that use rxllm, and for testing providers.

* `MarbleLLM`: a model written as a marble diagram; on virtual time its answers take no time;
* `record` and `Replay`: record a model's answers once, and replay them without the model;
* `VirtualLoop`: an event loop on which waiting takes no time;
* `FakeServer`: a local server with scripted replies and faults;
* `nothing_left_behind`: checks that no thread, task or socket is left open;
* `LLMContract` and `ProviderContract`: the required behaviour of every model, as test classes to inherit. They need
  pytest, as do the fixtures of `rxllm.testing.fixtures`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .cassettes import Cassette, Replay
from .leaks import nothing_left_behind
from .marbles import MarbleLLM
from .recording import record
from .servers import End, Endless, Exchange, FakeServer, Received, Reply, Signal, Step
from .virtual_time import VirtualLoop, on_virtual_time

if TYPE_CHECKING:
    from .contract import LLMContract, ProviderContract

__all__ = [
    "Cassette",
    "End",
    "Endless",
    "Exchange",
    "FakeServer",
    "LLMContract",
    "MarbleLLM",
    "ProviderContract",
    "Received",
    "Replay",
    "Reply",
    "Signal",
    "Step",
    "VirtualLoop",
    "nothing_left_behind",
    "on_virtual_time",
    "record",
]


_LAZY = ("LLMContract", "ProviderContract")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'rxllm.testing' has no attribute {name!r}")
    import pytest

    if "rxllm.testing.contract" not in sys.modules:
        pytest.register_assert_rewrite("rxllm.testing.contract")  # so that a failure shows the compared values
    from . import contract

    value = globals()[name] = getattr(contract, name)
    return value


def __dir__() -> list[str]:
    return __all__
