"""`providers`: what each provider can do, read from its class or its row in the table of compatible servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast

from attrs import field, frozen

from ..llm import LLM
from ..misuse import MisuseError
from ..public import Public
from . import known_providers, load_provider
from .compatible import HOUSES

__all__ = ["ProviderInfo", "providers", "table"]

_COLUMNS = ("tools", "json_schema", "images", "files", "audio", "reasoning", "usage")
_TITLES = (
    "Provider",
    "Streams",
    "Tools",
    "JSON schema",
    "Images",
    "Files",
    "Audio",
    "Reasoning",
    "Usage in streams",
    "Key",
)


@frozen(kw_only=True)
class ProviderInfo(metaclass=Public):
    """What a provider can do. A model of it may do less.

    Attributes:
        name: what `rxllm.model` calls it.
        streaming: ``"native"`` where chunks come as the model makes them; else the answer comes as one chunk.
        tools: whether models may call tools.
        json_schema: whether an answer can be made to fit a JSON schema.
        images: whether a prompt may have images.
        files: whether a prompt may have other files, such as PDF documents.
        audio: whether a prompt may have sound.
        reasoning: whether the reasoning of models that think is told apart from the answer.
        usage: whether the end of a stream tells the tokens that it took.
        keys: the environment variables of the key, the first that is set counts.
    """

    name: str
    streaming: Literal["native", "single emission"]
    tools: bool = False
    json_schema: bool = False
    images: bool = False
    files: bool = False
    audio: bool = False
    reasoning: bool = False
    usage: bool = False
    keys: tuple[str, ...] = field(default=())


def providers() -> tuple[ProviderInfo, ...]:
    """What each known provider can do, by its name."""
    return tuple(info for name, where in sorted(known_providers().items()) for info in _info(name, where))


def _info(name: str, where: Any) -> Iterable[ProviderInfo]:
    try:
        kind = load_provider(where)
    except MisuseError:  # an installed package is broken, and a warning has named it
        return
    streaming: Literal["native", "single emission"] = "single emission"
    if not isinstance(kind, type) or not issubclass(kind, LLM) or kind.chunks is not LLM.chunks:
        streaming = "native"
    declared = cast("object", kind)
    offers: set[str] = set(getattr(declared, "_OFFERS", ()))
    keys: tuple[str, ...] = getattr(declared, "_KEYS", ())
    house = HOUSES.get(name)
    if house is not None and name not in ("ollama", "openai"):
        offers -= set(house.lacks)
        keys = house.keys
    yield ProviderInfo(name=name, streaming=streaming, keys=keys, **{each: each in offers for each in _COLUMNS})


def table() -> str:
    """The same as a table in Markdown."""
    rows = [_TITLES, tuple("---" for _ in _TITLES)]
    for info in providers():
        told = ("yes" if getattr(info, column) else "no" for column in _COLUMNS)
        rows.append((f"`{info.name}`", info.streaming, *told, ", ".join(f"`{key}`" for key in info.keys) or "none"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
