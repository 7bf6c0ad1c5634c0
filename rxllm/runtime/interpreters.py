"""Further processes of this Python: a fresh interpreter, because a fork would inherit locked locks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["interpreter", "same_environment"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


def interpreter(*arguments: str) -> list[str]:
    """Return the command that runs this interpreter with these arguments."""
    return [sys.executable, "-P", *arguments]


def same_environment(defaults: Mapping[str, str] = _NOTHING) -> dict[str, str]:
    """Return this process's environment, in which the same modules can be imported.

    Args:
        defaults: variables for which the environment has no value.
    """
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)  # noqa: PTH109
    return {**defaults, **os.environ, "PYTHONPATH": path}
