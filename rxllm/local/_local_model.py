"""`LocalModel`: what the models on this machine have in common: their settings, and weights that copies share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from ..extensible import state_of
from ..llm import LLM
from ..misuse import is_mapping, must_be
from ..values.frozen import frozen_json
from ..values.parameters import number
from ..values.request import Request
from ._lazy import Lazy

__all__ = ["LocalModel"]


@frozen
class LocalModel(LLM):
    """A model on this machine. Its public subclasses describe the fields."""

    _shared_by_copies = (*LLM._shared_by_copies, "_weights")

    context: int = field(default=4096, kw_only=True, validator=number(1, whole=True))
    parallel: int = field(default=4, kw_only=True, validator=number(1, whole=True))
    options: Mapping[str, Any] = field(
        factory=dict[str, Any], kw_only=True, validator=must_be("a dict", is_mapping), converter=frozen_json, hash=False
    )
    _weights: Lazy[Any] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_weights", self._shared_weights())

    @abstractmethod
    def _shared_weights(self) -> Lazy[Any]:
        """Return what models with the same settings share.

        Raises:
            MisuseError: a package is not installed, or an option is invalid.
        """

    def __getstate__(self) -> Any:
        """Return the state without the loaded model; the unpickled object loads it again."""
        values, fields = state_of(self)
        return values, {name: value for name, value in fields.items() if name != "_weights"}

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.__attrs_post_init__()

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"chat_model"``."""
        return "chat_model"
