"""`Parameters`: the settings of a request, such as the temperature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypedDict, cast, get_args

import attrs
from attrs import field, frozen
from attrs.validators import optional
from typing_extensions import TypeForm

from ..extensible import evolved
from ..misuse import MisuseError, is_mapping, is_text, must_be
from ..public import Public
from ..secrecy import hidden
from ..shapes.shape import Shape, shape_of
from ..shapes.spelling import spelled
from ..showing import brief
from .plain import plain
from .tools import Effort, ResponseSchema, Specified, ToolLike, response_format_of, tool_choice_of, tools_of

__all__ = ["PARAMETERS", "Parameters", "Sampling", "Settings", "ShapeMode"]


_INFINITY = float("inf")


def _sequences(value: object) -> tuple[str, ...] | None:
    """Convert one stop sequence or several to a tuple."""
    if value is None:
        return None
    single = isinstance(value, str) or not isinstance(value, Iterable)
    return (plain(cast("str", value)),) if single else tuple(map(plain, cast("Iterable[str]", value)))


def _name(value: str | None) -> str | None:
    return plain(value)


def _number(value: float | None) -> float | None:
    return plain(value)


def _whole(value: int | None) -> int | None:
    return plain(value)


def number(low: float = -_INFINITY, high: float = _INFINITY, *, whole: bool = False) -> Any:
    """Return a validator that accepts finite numbers within the range."""
    limits = f" from {low:g} to {high:g}" if high < _INFINITY else f" of at least {low:g}" if low > -_INFINITY else ""

    def is_valid(value: Any) -> bool:
        is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        return is_number and low <= value <= high and abs(value) != _INFINITY

    return must_be(("a whole number" if whole else "a number") + limits, is_valid)


def _all(is_valid: Callable[[Any], bool]) -> Callable[[Iterable[Any]], bool]:
    return lambda items: all(map(is_valid, items))


def is_name(value: object) -> bool:
    """Return whether the value is a non-empty str."""
    return isinstance(value, str) and bool(value)


def _fields(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if value is None else value


def _check_extra(_: object, attribute: object, extra: object) -> None:
    """Check that `extra` is a dict with text keys. The message shows types only, because a value may be a secret."""
    if not isinstance(extra, Mapping):
        raise MisuseError(f"extra must be a dict of fields of the request's body, not {type(extra).__name__}.")
    for name in cast("Mapping[object, object]", extra):
        if not is_text(name):
            raise MisuseError(f"extra must be a dict of fields of the request's body, not of {type(name).__name__}.")


ShapeMode = Literal["auto", "native", "tool", "prompted"]
"""How a shape is asked for."""


def _shape(shape: object) -> Any:
    """Convert a type to its shape."""
    return None if shape is None else shape_of(cast("Any", shape))


_OPTIONAL_BOOL = must_be("True, False or None", lambda value: value is None or isinstance(value, bool))


@frozen(kw_only=True)
class Parameters(metaclass=Public):
    """The settings of a request. None leaves a setting to the provider.

    Attributes:
        model: the name of the model; it replaces the name that the LLM was constructed with.
        temperature: 0 for the most likely tokens, higher values for more variety.
        top_p: sample from the most likely tokens whose probabilities add up to this value, from 0 to 1.
        top_k: sample from this number of the most likely tokens.
        max_tokens: the maximum number of tokens in the answer.
        stop_sequences: texts at which the answer ends. The answer does not contain them.
        seed: requests with equal seeds give equal answers, as far as the provider supports it.
        tools: the tools that the model may call: tools, `ToolSpec` objects, or dicts in OpenAI's or Anthropic's form. A
            dict with more fields than a ToolSpec is sent unchanged, by the provider that uses this form.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, or the name of the one tool to call.
        parallel_tool_calls: whether the model may call several tools at once.
        effort: how much the model reasons before it answers.
        response_format: ``"json"``, or the JSON schema that the answer must fit, as a dict or a `ResponseSchema`.
        shape: the type of the answer, for `parse`, `drafts` and `items`. The provider asks the model for JSON that fits
            its schema.
        shape_mode: how the shape is asked for. ``"auto"`` chooses the surest way that loses nothing; ``"native"`` is
            the provider's field for a schema, ``"tool"`` a forced call of a tool, ``"prompted"`` a sentence in the
            prompt.
        stream: False requests the whole answer at once, as one chunk.
        extra: further fields of the provider's request body, sent unchanged.
    """

    # The hash leaves out the fields with dicts. Equal objects still have equal hashes.
    model: str | None = field(
        default=None, converter=_name, validator=optional(must_be("a name such as 'gpt-5-mini'", is_name))
    )
    temperature: float | None = field(default=None, converter=_number, validator=optional(number(0)))
    top_p: float | None = field(default=None, converter=_number, validator=optional(number(0, 1)))
    top_k: int | None = field(default=None, converter=_whole, validator=optional(number(0, whole=True)))
    max_tokens: int | None = field(default=None, converter=_whole, validator=optional(number(1, whole=True)))
    stop_sequences: tuple[str, ...] | None = field(
        default=None,
        converter=_sequences,
        validator=optional(must_be("one or more non-empty texts", _all(is_name))),
    )
    seed: int | None = field(default=None, converter=_whole, validator=optional(number(whole=True)))
    tools: tuple[ToolLike, ...] | None = field(
        default=None, converter=tools_of, repr=lambda tools: repr(hidden(tools)), hash=False
    )
    tool_choice: str | Mapping[str, Any] | None = field(
        default=None,
        converter=tool_choice_of,
        validator=optional(
            must_be("'auto', 'none', 'required' or a tool's name", lambda choice: is_name(choice) or is_mapping(choice))
        ),
        hash=False,
    )
    parallel_tool_calls: bool | None = field(default=None, validator=_OPTIONAL_BOOL)
    effort: Effort | None = field(
        default=None,
        validator=optional(must_be(f"one of {', '.join(get_args(Effort))}", get_args(Effort).__contains__)),
    )
    response_format: Literal["json"] | ResponseSchema | Mapping[str, Any] | None = field(
        default=None,
        converter=response_format_of,
        validator=optional(
            must_be(
                "'json' or a JSON schema",
                lambda form: form == "json" or is_mapping(form) or isinstance(form, ResponseSchema),
            )
        ),
        hash=False,
    )
    shape: Shape[Any] | None = field(default=None, converter=_shape, repr=lambda shape: spelled(shape.type))
    shape_mode: ShapeMode | None = field(
        default=None,
        validator=optional(must_be(f"one of {', '.join(get_args(ShapeMode))}", get_args(ShapeMode).__contains__)),
    )
    stream: bool | None = field(
        default=None,
        validator=_OPTIONAL_BOOL,
    )
    extra: Mapping[str, Any] = field(
        factory=dict[str, Any],
        converter=_fields,
        validator=_check_extra,
        repr=lambda extra: repr(hidden(extra, keys=True)),
        hash=False,
    )

    __repr__ = brief

    def without_secrets(self) -> Self:
        """Return a copy for errors, with ``***`` in place of the secrets in `tools` and `extra`."""
        tools, extra = hidden(self.tools), hidden(self.extra, keys=True)
        return self if tools is self.tools and extra is self.extra else attrs.evolve(self, tools=tools, extra=extra)

    def updated(self, settings: Mapping[str, Any]) -> Self:
        """Return a copy with the parameters in `settings` that are not None. The `extra` fields are merged.

        Raises:
            MisuseError: a parameter has an invalid value.
        """
        changes = {name: value for name, value in settings.items() if value is not None and name in PARAMETERS}
        changed = evolved(self, **changes)
        return evolved(changed, extra={**self.extra, **changed.extra}) if "extra" in changes else changed

    def over(self, defaults: Parameters) -> Self:
        """Return a copy in which `defaults` replace the parameters that are None. The `extra` fields are merged."""
        missing = {
            name: value
            for name in PARAMETERS
            if (value := getattr(defaults, name)) is not None and getattr(self, name) is None
        }
        if defaults.extra:
            missing["extra"] = {**defaults.extra, **self.extra}
        return evolved(self, **missing) if missing else self


PARAMETERS = attrs.fields_dict(Parameters)


class Sampling(TypedDict, total=False):
    """The keywords for a constructor: all `Parameters` except the model."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop_sequences: str | Sequence[str]
    seed: int
    tools: Sequence[ToolLike | Specified] | ToolLike | Specified
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    effort: Effort
    response_format: Literal["json"] | ResponseSchema | Mapping[str, Any]
    shape: TypeForm[Any]
    shape_mode: ShapeMode
    stream: bool
    extra: Mapping[str, Any]


class Settings(Sampling, total=False):
    """The keywords for `bind`, `stream` and the other methods: `Parameters`, and the config of a run.

    ``inbox`` is for agents: an Observable of messages that reach the agent while it runs.
    """

    model: str
    tags: Iterable[str]
    metadata: Mapping[str, Any]
    run_name: str
    handlers: Iterable[Any]
    inbox: Any
