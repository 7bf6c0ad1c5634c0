"""The plugin of rxllm for the command and library `llm`: the models ``rxllm/provider:model``.

The entry point ``rxllm`` of the group ``llm`` names this module. `llm` loads the plugins of all installed packages when
it starts, so this module imports nothing but `llm` itself, and does nothing until `llm` looks for a model of rxllm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

__all__ = ["register_models"]


def register_models(register: Callable[..., None]) -> None:
    """Register the models that are being asked for. An error costs these models, but never the others."""
    try:
        for name in import_module(".names", __name__).asked_names():
            register(*import_module(".models", __name__).models_of(name))
    except Exception as error:  # such as another version of llm
        print(f"The plugin of rxllm needs llm 0.32 or newer, and failed: {error!r}", file=sys.stderr)


with suppress(ImportError):  # this module can be imported without llm
    register_models = import_module("llm").hookimpl(register_models)
