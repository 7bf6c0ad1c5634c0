"""The providers, one file for each vendor, and `model`, which finds a provider by its name."""

from __future__ import annotations

import sys
import types
from typing import Any

from ._registry import default_model, model
from ._registry import providers as _providers

__all__ = ["default_model", "model"]


class _Callable(types.ModuleType):
    """Makes the package callable, because ``rxllm.providers`` is both the package and the function."""

    def __call__(self) -> Any:
        return _providers()


providers: Any = sys.modules[__name__]
providers.__class__ = _Callable
