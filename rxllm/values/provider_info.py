"""`ProviderInfo`: the features of a provider, for programs and as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import frozen

from ..public import Public
from .declaration import FEATURES, Feature

__all__ = ["ProviderInfo", "provider_table"]


@frozen(kw_only=True)
class ProviderInfo(metaclass=Public):
    """The features of a provider. A single model may have fewer.

    Attributes:
        name: the provider's name for `rxllm.model`.
        streaming: ``"native"`` if chunks arrive while the model generates them; otherwise the answer is one chunk.
        tools: whether the models can call tools.
        json_schema: whether the provider can make an answer fit a JSON schema.
        images: whether a prompt may contain images.
        files: whether a prompt may contain other files, such as PDF documents.
        audio: whether a prompt may contain sound.
        reasoning: whether the provider separates the reasoning from the answer.
        usage: whether a stream ends with the token usage.
        keys: the environment variables of the key; the first that is set counts.
        default_model: the model that the command line uses if one of the keys is set and no model is named.
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
    keys: tuple[str, ...] = ()
    default_model: str | None = None


def provider_table(infos: Iterable[ProviderInfo]) -> str:
    """Return the features of providers as a table in Markdown."""
    titles = ("Provider", "Streams", *(_TITLES[feature] for feature in FEATURES), "Key", "Default model")
    rows = [titles, ("---",) * len(titles)]
    for info in infos:
        features = ("yes" if getattr(info, feature) else "no" for feature in FEATURES)
        keys = ", ".join(f"`{key}`" for key in info.keys) or "none"
        default = f"`{info.default_model}`" if info.default_model else "none"
        rows.append((f"`{info.name}`", info.streaming, *features, keys, default))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


_TITLES: dict[Feature, str] = {
    "tools": "Tools",
    "json_schema": "JSON schema",
    "images": "Images",
    "files": "Files",
    "audio": "Audio",
    "reasoning": "Reasoning",
    "usage": "Usage in streams",
}
