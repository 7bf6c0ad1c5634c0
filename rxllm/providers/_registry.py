"""The providers by name: the modules of two rooms, the table of compatible servers, and installed packages."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve, frozen

from ..llm import LLM
from ..misuse import MisuseError, is_text, shown
from ..values.declaration import FEATURES, Declaration
from ..values.provider_info import ProviderInfo

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["default_model", "model", "providers"]

# Each other module of these rooms without an underscore is a vendor: it exports one class, and its name is the name of
# the provider.
_ROOMS = ("rxllm.providers", "rxllm.local")
_NOT_VENDORS = ("batch_values", "batches", "compatible")
_MIN_SIMILARITY = 0.7  # of a name that an error message suggests


@frozen
class _Provider:
    """A way to construct the models of a provider.

    Attributes:
        construct: the class, or a function of an installed package that returns models.
        declaration: the facts about the provider.
        keywords: the keywords that select one of several servers.
    """

    construct: Callable[..., LLM]
    declaration: Declaration
    keywords: Mapping[str, str]


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
    provider, _, rest = name.partition(":")
    loaders = _shipped()
    if provider not in loaders:
        loaders = _loaders()
    if provider not in loaders and name.partition("/")[0] in loaders:
        provider, _, rest = name.partition("/")
    if provider not in loaders:
        near = difflib.get_close_matches(provider.lower(), loaders, 1, _MIN_SIMILARITY)
        hint = f" Did you mean {near[0]}:{rest or '…'}?" if near else ""
        raise MisuseError(
            f"There is no provider for {name!r}. Write provider:model with one of {', '.join(sorted(loaders))}.{hint}"
        )
    found = loaders[provider]()
    if not found.declaration.takes_model:
        if rest:
            raise MisuseError(f"The provider {provider!r} has only one model, not {rest!r}. Write {provider!r}.")
        return found.construct(**found.keywords, **settings)
    if not rest:
        raise MisuseError(f"{name!r} names a provider but no model. Write {provider}:model.")
    return found.construct(rest, **found.keywords, **settings)


def providers() -> tuple[ProviderInfo, ...]:
    """Return the features of each provider that `model` finds, in the order of their names."""
    infos: list[ProviderInfo] = []
    for name, load in sorted(_loaders().items()):
        try:
            infos.append(_info(name, load()))
        except MisuseError:  # an installed package is broken, and a warning has named it
            continue
    return tuple(infos)


def default_model() -> str | None:
    """Return the default model of a provider whose key is in the environment; None if there is no such key.

    With keys of several providers, the first name in alphabetical order wins.
    """
    for name, module in sorted(_vendors().items()):
        declaration = _vendor(module).declaration
        if declaration.default_model and any(os.environ.get(key) for key in declaration.keys):
            return f"{name}:{declaration.default_model}"
    return None


def _info(name: str, provider: _Provider) -> ProviderInfo:
    kind, declaration = provider.construct, provider.declaration
    is_native = not isinstance(kind, type) or not issubclass(kind, LLM) or kind.chunks is not LLM.chunks
    return ProviderInfo(
        name=name,
        streaming="native" if is_native else "single emission",
        keys=declaration.keys,
        default_model=declaration.default_model,
        **{feature: feature in declaration.features for feature in FEATURES},
    )


def _loaders() -> dict[str, Callable[[], _Provider]]:
    """Return a function for each provider, which imports it. The shipped providers cannot be replaced."""
    from importlib.metadata import entry_points  # imported here, because it costs a tenth of all imports of a model

    points = entry_points(group="rxllm.providers")  # reads the metadata of every installed package
    return {**{point.name: partial(_installed, point) for point in points}, **_shipped()}


def _shipped() -> dict[str, Callable[[], _Provider]]:
    from .compatible import SERVERS  # imported here, because the table costs some time

    return {
        **{name: partial(_compatible, name) for name in SERVERS},
        **{name: partial(_vendor, module) for name, module in _vendors().items()},
    }


def _vendors() -> dict[str, str]:
    """Return the full name of the module of each vendor."""
    return {
        module.name: f"{room}.{module.name}"
        for room in _ROOMS
        for module in pkgutil.iter_modules(importlib.import_module(room).__path__)
        if not module.name.startswith("_") and module.name not in _NOT_VENDORS
    }


def _vendor(name: str) -> _Provider:
    module = importlib.import_module(name)
    [exported] = module.__all__
    kind = getattr(module, exported)
    return _Provider(kind, kind.declaration, {})


def _compatible(name: str) -> _Provider:
    from .compatible import SERVERS
    from .openai import OpenAI

    server = SERVERS[name]
    features = tuple(feature for feature in OpenAI.declaration.features if feature not in server.lacks)
    declaration = evolve(OpenAI.declaration, keys=server.keys, features=features, default_model=None)
    return _Provider(OpenAI, declaration, {"server": name})


def _installed(point: EntryPoint) -> _Provider:
    try:
        construct = cast("Callable[..., LLM]", point.load())
    except Exception as error:
        warnings.warn(f"The provider {point.name!r} could not be loaded: {error!r}", stacklevel=4)
        raise MisuseError(f"The provider {point.name!r} is installed but broken: {error!r}.") from error
    return _Provider(construct, getattr(construct, "declaration", Declaration()), {})
