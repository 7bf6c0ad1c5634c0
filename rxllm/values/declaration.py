"""`Declaration`: the facts that the class of a provider declares about itself."""

from __future__ import annotations

from typing import Literal, get_args

from attrs import frozen

from ..bounds import IMAGE_BYTES
from ..public import Public

__all__ = ["FEATURES", "Declaration", "Feature"]

Feature = Literal["tools", "json_schema", "images", "files", "audio", "reasoning", "usage"]
FEATURES: tuple[Feature, ...] = get_args(Feature)


@frozen(kw_only=True)
class Declaration(metaclass=Public):
    """The facts that a provider's class declares: `rxllm.model`, `rxllm.providers` and the command line read them.

    Attributes:
        keys: the environment variables of the key; the first that is set counts.
        default_model: the model that the command line uses if one of the keys is set and no model is named.
        takes_model: whether the constructor takes the name of a model.
        features: the features that the protocol has.
        pictures: the subtypes of ``image/`` that the provider reads; empty if this is unknown.
        picture_bytes: the largest picture that the provider reads.
        tool_names: a regular expression for the names of tools that the provider accepts; empty if this is unknown.
    """

    keys: tuple[str, ...] = ()
    default_model: str | None = None
    takes_model: bool = True
    features: tuple[Feature, ...] = ()
    pictures: tuple[str, ...] = ()
    picture_bytes: int = IMAGE_BYTES
    tool_names: str = ""
