"""`Parameters`: how a model is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypedDict, cast, get_args

import attrs
from attrs import field, frozen
from attrs.validators import optional

from ..extensible import evolved
from ..misuse import MisuseError, is_text, must_be
from ..secrecy import hidden
from ..showing import brief
from .parts import is_mapping
from .tools import Effort, ResponseSchema, ToolLike, response_format_of, tool_choice_of, tools_of

__all__ = ["PARAMETERS", "Parameters", "Sampling", "Settings"]


_INFINITY = float("inf")


def _sequences(value: object) -> tuple[str, ...] | None:
    """One stop sequence or several."""
    if value is None:
        return None
    single = isinstance(value, str) or not isinstance(value, Iterable)
    return (cast("str", value),) if single else tuple(cast("Iterable[str]", value))


def number(low: float = -_INFINITY, high: float = _INFINITY, *, whole: bool = False) -> Any:
    """A validator: a number in the range, and no infinite one."""
    limits = f" from {low:g} to {high:g}" if high < _INFINITY else f" of at least {low:g}" if low > -_INFINITY else ""

    def good(value: Any) -> bool:
        known = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        return known and low <= value <= high and abs(value) != _INFINITY

    return must_be(("a whole number" if whole else "a number") + limits, good)


def _all(good: Callable[[Any], bool]) -> Callable[[Iterable[Any]], bool]:
    return lambda items: all(map(good, items))


def is_name(value: object) -> bool:
    """Text that is not empty."""
    return isinstance(value, str) and bool(value)


def _fields(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if value is None else value


def _check_extra(_: object, attribute: object, extra: object) -> None:
    """Refuses what is no dict of names, without showing what may be a secret."""
    if not isinstance(extra, Mapping):
        raise MisuseError(f"extra must be a dict of fields of the request's body, not {type(extra).__name__}.")
    for name in cast("Mapping[object, object]", extra):
        if not is_text(name):
            raise MisuseError(f"extra must be a dict of fields of the request's body, not of {type(name).__name__}.")


_YES_OR_NO = must_be("True, False or None", lambda given: given is None or isinstance(given, bool))


@frozen(kw_only=True)
class Parameters:
    """How to answer. None leaves the choice to the provider.

    Attributes:
        model: the model's name, instead of the one the LLM was made with.
        temperature: 0 for the likeliest, larger for the more varied.
        top_p: sample from the likeliest tokens of this much probability, 0 to 1.
        top_k: sample from this many of the likeliest tokens.
        max_tokens: end the answer after so many tokens.
        stop_sequences: end the answer before any of these texts.
        seed: the same seed asks for the same answer, as far as the provider can.
        tools: what the model may call: `ToolSpec` objects, or dicts in OpenAI's or Anthropic's spelling. A dict that
            says more than a ToolSpec can is sent as it is, by the provider in whose form it is.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, or the name of the one tool to call.
        parallel_tool_calls: whether the model may call several tools at once.
        effort: how hard to think before the answer.
        response_format: ``"json"``, or the JSON schema that the answer must fit, as a dict or a `ResponseSchema`.
        stream: False asks the provider for the whole answer at once, which is then one chunk.
        extra: further fields of the provider's request body, sent as they are.
    """

    # What holds dicts is left out of the hash, which needs only to be the same for equal ones.
    model: str | None = field(default=None, validator=optional(must_be("a name such as 'gpt-5-mini'", is_name)))
    temperature: float | None = field(default=None, validator=optional(number(0)))
    top_p: float | None = field(default=None, validator=optional(number(0, 1)))
    top_k: int | None = field(default=None, validator=optional(number(0, whole=True)))
    max_tokens: int | None = field(default=None, validator=optional(number(1, whole=True)))
    stop_sequences: tuple[str, ...] | None = field(
        default=None,
        converter=_sequences,
        validator=optional(must_be("one or more non-empty texts", _all(is_name))),
    )
    seed: int | None = field(default=None, validator=optional(number(whole=True)))
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
    parallel_tool_calls: bool | None = field(default=None, validator=_YES_OR_NO)
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
    stream: bool | None = field(
        default=None,
        validator=_YES_OR_NO,
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
        """These with ``***`` for each key in `tools` and `extra`, as an error may show them."""
        tools, extra = hidden(self.tools), hidden(self.extra, keys=True)
        return self if tools is self.tools and extra is self.extra else attrs.evolve(self, tools=tools, extra=extra)

    def having(self, given: Mapping[str, Any]) -> Self:
        """What is given by the names of parameters, and these where it says nothing; `extra` fields are united.

        Raises:
            MisuseError: a parameter can't have this value.
        """
        changes = {name: value for name, value in given.items() if value is not None and name in PARAMETERS}
        changed = evolved(self, **changes)
        return evolved(changed, extra={**self.extra, **changed.extra}) if "extra" in changes else changed

    def over(self, defaults: Parameters) -> Self:
        """These, and the others' where these say nothing; `extra` fields are united."""
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
    """`Parameters` but the model, as keywords, as constructors take them."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop_sequences: str | Sequence[str]
    seed: int
    tools: Sequence[ToolLike] | ToolLike
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    effort: Effort
    response_format: Literal["json"] | ResponseSchema | Mapping[str, Any]
    stream: bool
    extra: Mapping[str, Any]


class Settings(Sampling, total=False):
    """What `bind`, `stream` and the rest take: `Parameters`, and the config of a run."""

    model: str
    tags: Iterable[str]
    metadata: Mapping[str, Any]
    run_name: str
    handlers: Iterable[Any]
