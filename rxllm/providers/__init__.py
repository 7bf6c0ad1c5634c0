"""The providers, one file for each vendor, and `model`, which finds a provider by its name."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, cast

from ..llm import LLM
from ..misuse import MisuseError, is_text, shown

__all__ = ["known_providers", "load_provider", "model"]

_SHIPPED = {
    "anthropic": "rxllm.providers.anthropic:Anthropic",
    "bedrock": "rxllm.providers.bedrock:Bedrock",
    "cohere": "rxllm.providers.cohere:Cohere",
    "embedded": "rxllm.providers.embedded:Embedded",
    "gemini": "rxllm.providers.gemini:Gemini",
    "ollama": "rxllm.providers.ollama:Ollama",
    "openai": "rxllm.providers.openai:OpenAI",
}

_HOUSE = "rxllm.providers.openai:OpenAI "  # a row of the table of compatible servers


_MIN_SIMILARITY = 0.7  # of a name that an error message suggests


def model(name: str | None = None, **settings: Any) -> LLM:
    """Return a model by its name, ``provider:model``.

    ::

        rxllm.model("openai:gpt-4.1-mini", temperature=0)
        rxllm.model("anthropic:claude-sonnet-4-6")
        rxllm.model("embedded")
        rxllm.model()                       # the model in the environment variable RXLLM_MODEL

    ``provider/model`` works, too. Installed packages can add providers by the entry point group ``rxllm.providers``;
    rxllm loads such a provider when a program asks for it.

    Args:
        name: the name; None takes it from the environment variable ``RXLLM_MODEL``.
        settings: the keywords for the provider's constructor.

    Raises:
        MisuseError: the name is missing, or the provider is unknown.
    """
    name = name if name is not None else os.environ.get("RXLLM_MODEL")
    if name is not None and not is_text(name):
        raise MisuseError(f"A model's name must be text, not {shown(name)}.")
    if not name:
        raise MisuseError(
            "The name of the model is missing: write rxllm.model('openai:gpt-5-mini'), or set RXLLM_MODEL."
        )
    known = known_providers()
    provider, _, rest = name.partition(":")
    if provider not in known and name.partition("/")[0] in known:
        provider, _, rest = name.partition("/")
    if provider not in known:
        near = difflib.get_close_matches(provider.lower(), known, 1, _MIN_SIMILARITY)
        hint = f" Did you mean {near[0]}:{rest or '…'}?" if near else ""
        raise MisuseError(
            f"There is no provider for {name!r}. Write provider:model with one of {', '.join(sorted(known))}.{hint}"
        )
    if provider == "embedded":
        if rest:
            raise MisuseError(f"There is no embedded model {rest!r}, because there is only one. Write 'embedded'.")
        return load_provider(known[provider])(**settings)
    if not rest:
        raise MisuseError(f"{name!r} names a provider but no model. Write {provider}:model.")
    if known[provider] is _HOUSE:
        settings["house"] = provider
    return load_provider(known[provider])(rest, **settings)


def known_providers() -> dict[str, Any]:
    """Return where each provider is defined, without importing it. Shipped providers cannot be replaced."""
    from .compatible import HOUSES

    points = {point.name: point for point in entry_points(group="rxllm.providers")}
    return {**points, **dict.fromkeys(HOUSES, _HOUSE), **_SHIPPED}


def load_provider(where: Any) -> Callable[..., LLM]:
    """Return the class of a provider, given where it is defined.

    Raises:
        MisuseError: the package that brings it is broken.
    """
    if isinstance(where, str):
        module, _, name = where.partition(":")
        return cast("Callable[..., LLM]", getattr(importlib.import_module(module), name.strip()))
    try:
        return cast("Callable[..., LLM]", where.load())
    except Exception as error:
        warnings.warn(f"The provider {where.name!r} could not be loaded: {error!r}", stacklevel=3)
        raise MisuseError(f"The provider {where.name!r} is installed but broken: {error!r}.") from error


class _Callable(types.ModuleType):
    """Makes the package callable, because ``rxllm.providers`` is both the package and the function."""

    def __call__(self) -> Any:
        from .listing import providers

        return providers()


providers: Any = sys.modules[__name__]
providers.__class__ = _Callable
