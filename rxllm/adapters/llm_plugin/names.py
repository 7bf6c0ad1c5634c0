"""`asked_names`: the names of models of rxllm that `llm` is about to look up.

`llm` asks its plugins for all their models, makes a dict of them, and then looks a name up in the dict. It does not
tell the plugins the name, because they know their models: they ship a list, or keep one in a file that a command of
theirs fills (``llm replicate add``). rxllm has no list: each name of each provider is a model, and the user should not
have to add it first. A plugin can learn the name in four ways:

* It searches the places that names come from: the command line, ``LLM_MODEL``, the default model, the aliases, the
  templates, the loaders of templates, the database of the logs for ``llm -c``. This is never complete: a program calls
  ``llm.get_model("rxllm/…")``. And a plugin should not read the user's logs whenever the command starts.
* It replaces ``llm.get_model`` or the dict. This changes `llm` for all other plugins, and it comes too late: other
  modules have imported the function, and the first call of it is what loads the plugins.
* It registers one model ``rxllm`` with an option for the name. Then aliases, default options and logs would not tell
  one model from another.
* It reads the argument ``name`` of the call of ``llm.get_model`` or ``llm.get_async_model`` that is running. Each
  lookup is a call of one of these public functions, wherever the name came from, and reading changes nothing.

`_looked_up` does the last. Some commands search the list of models themselves, as ``llm models list -m NAME`` and
``llm -m NAME --save TEMPLATE`` do; click knows the parameters of the command that runs. The names that have an alias
and the name of the default model are added, so that lists show them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

__all__ = ["PREFIX", "asked_names"]

PREFIX = "rxllm/"
_LOOKUPS = ("get_model", "get_async_model")


def asked_names() -> list[str]:
    """Return the names that begin with ``rxllm/``, in alphabetical order."""
    llm = import_module("llm")
    found = [llm.get_default_model(), *_looked_up(), *_in_command(), *_aliased(llm)]
    return sorted({name for name in found if isinstance(name, str) and name.startswith(PREFIX) and name != PREFIX})


def _looked_up() -> Iterator[object]:
    """Yield the argument of the function of llm that looks a model up and has called this plugin."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name in _LOOKUPS and frame.f_globals.get("__name__") == "llm":
            yield frame.f_locals.get("name")
        frame = frame.f_back


def _in_command() -> Iterator[object]:
    """Yield the parameters of the command that runs."""
    context = import_module("click").get_current_context(silent=True)
    for value in context.params.values() if context is not None else ():
        yield from cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)


def _aliased(llm: Any) -> Iterator[object]:
    """Yield the names that have an alias. llm adds their aliases when they are registered."""
    with suppress(OSError, ValueError):
        aliases = json.loads((llm.user_dir() / "aliases.json").read_text("utf-8"))
        if isinstance(aliases, dict):
            yield from cast("dict[str, object]", aliases).values()
