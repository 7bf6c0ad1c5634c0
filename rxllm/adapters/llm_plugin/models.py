"""`models_of`: the models that `llm` gets for a name. They are cheap: rxllm is imported when one is asked."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator, Collection, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

from .names import PREFIX

if TYPE_CHECKING:
    from ...llm import LLM

__all__ = ["models_of"]

_OPTIONS: dict[str, tuple[Any, str]] = {  # the parameters of rxllm that are options, with their types
    "temperature": (float, "0 for the most likely tokens, higher values for more variety."),
    "top_p": (float, "Sample from the most likely tokens whose probabilities add up to this value, from 0 to 1."),
    "top_k": (int, "Sample from this number of the most likely tokens."),
    "max_tokens": (int, "The maximum number of tokens in the answer."),
    "stop_sequences": (str | list[str], "A text at which the answer ends; in Python also a list of texts."),
    "seed": (int, "Requests with equal seeds give equal answers, as far as the provider supports it."),
    "effort": (str, "How much the model reasons: none, minimal, low, medium, high, xhigh or max."),
    "tool_choice": (str, "auto, none, required, or the name of the one tool to call."),
    "parallel_tool_calls": (bool, "Whether the model may call several tools at once."),
    "response_format": (Literal["json"], "json for an answer in JSON without a schema."),
    "extra": (dict[str, Any] | str, "Further fields of the request's body, as a JSON object."),
}


def models_of(name: str) -> tuple[Any, Any]:
    """Return the synchronous and the asynchronous model for a name such as ``rxllm/openai:gpt-5-mini``."""
    plain, asynchronous = _classes()
    return plain(name), asynchronous(name)


@functools.cache
def _classes() -> tuple[Any, Any]:
    """Return both classes of models. Their bases exist only where llm is installed."""
    llm = import_module("llm")
    import_module("llm.parts")  # llm has it since 0.32
    shared = {"Options": _options(llm)}
    plain = type("Rxllm", (_Plain, _Model, llm.KeyModel), shared)
    return plain, type("AsyncRxllm", (_Asynchronous, _Model, llm.AsyncKeyModel), shared)


class _Model:
    """A model of rxllm, for both classes.

    Attributes:
        model_id: the name, which begins with ``rxllm/``.
    """

    can_stream = True
    key: str | None = None

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def __str__(self) -> str:
        return f"rxllm: {self.model_id}"

    def get_key(self, explicit_key: str | None = None) -> str | None:
        """Return the key that llm has. Without one, rxllm reads its own environment variable, or says which is missing.

        Args:
            explicit_key: the key of ``--key`` or ``key=…``, or the name of one that llm keeps.
        """
        key: str | None = self.key or import_module("llm").get_key(input=explicit_key, alias=self.needs_key)
        return key

    def create(self, key: str | None) -> LLM:
        """Return the model of rxllm.

        Raises:
            MisuseError: there is no provider of this name.
        """
        from ...providers import model

        return model(self.model_id.removeprefix(PREFIX), **({"api_key": key} if key else {}))

    @functools.cached_property
    def _features(self) -> Collection[str]:
        """The features of the provider. An unknown provider has all, so that the request says what is wrong."""
        from ...values.declaration import FEATURES

        try:
            return self.create(None).declaration.features
        except Exception:
            return FEATURES

    @property
    def key_env_var(self) -> str | None:
        """The environment variable of the key; None if the provider has no key."""
        try:
            return next(iter(self.create(None).declaration.keys), None)
        except Exception:
            return None

    @property
    def needs_key(self) -> str | None:
        """The name of the provider, under which ``llm keys set`` keeps its key; None if the provider has no key."""
        provider = self.model_id.removeprefix(PREFIX).partition(":")[0].partition("/")[0]
        return provider if self.key_env_var else None

    @property
    def supports_schema(self) -> bool:
        """Whether the provider takes a JSON schema."""
        return "json_schema" in self._features

    @property
    def supports_tools(self) -> bool:
        """Whether the provider takes tools."""
        return "tools" in self._features

    @property
    def supported_server_side_tools(self) -> tuple[Any, ...]:
        """The class of tools in the vendor's own form, which rxllm sends unchanged."""
        return (import_module("llm").ServerSideTool,)

    @functools.cached_property
    def attachment_types(self) -> frozenset[str]:
        """The media types that the provider may take; rxllm says which of them it does not."""
        from ...values.disk import TYPES

        kinds = {"image": "images", "audio": "audio"}
        return frozenset(kind for kind in TYPES if kinds.get(kind.partition("/")[0], "files") in self._features)


class _Plain:
    """The synchronous execution."""

    def execute(
        self: Any, prompt: Any, stream: bool, response: Any, conversation: Any = None, key: str | None = None
    ) -> Iterator[Any]:
        """Yield the events of the answer."""
        from .running import answered

        return answered(lambda: self.create(key), prompt, response, stream=stream)


class _Asynchronous:
    """The asynchronous execution."""

    def execute(
        self: Any, prompt: Any, stream: bool, response: Any, conversation: Any = None, key: str | None = None
    ) -> AsyncGenerator[Any]:
        """Yield the events of the answer."""
        from .running import answered_async

        return answered_async(lambda: self.create(key), prompt, response, stream=stream)


def _options(llm: Any) -> Any:
    """Return the class of the options. `Parameters` checks their values."""
    pydantic: Any = import_module("pydantic")

    def check(_: object, value: Any, info: Any) -> Any:
        from ...misuse import MisuseError
        from ...values.parameters import Parameters

        if info.field_name == "extra" and isinstance(value, str):
            value = json.loads(value)  # its error is a ValueError
        try:
            Parameters(**{info.field_name: value})
        except MisuseError as error:
            raise ValueError(str(error)) from None
        return value

    fields = {
        name: (kind | None, pydantic.Field(default=None, description=text)) for name, (kind, text) in _OPTIONS.items()
    }
    validators = {"check": pydantic.field_validator("*")(classmethod(cast("Any", check)))}
    return pydantic.create_model("Options", __base__=llm.Options, __validators__=validators, **fields)
