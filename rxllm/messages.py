"""The values: parts, `Message`, `Chunk`, `Usage`, `Request`. All frozen; `Chunk` is a monoid.

A `Chunk` is some of an answer: ``Chunk()`` is nothing and ``+`` joins, so that the sum of all chunks is the
answer, whatever the pieces were::

    Chunk("Hel") + Chunk("lo") == Chunk("Hello")

How parts join (each rule is associative, `tests/laws/test_monoid.py` checks it):

* text joins with text that it directly follows;
* reasoning joins with reasoning of its index (without one: that it directly follows) until a signature closes it;
* a tool-call fragment with a new id opens a call; one without an id, or with the same id, continues the latest call
  of its index. It never absorbs a later id;
* usage: providers send running totals, so the later known figure replaces the earlier one;
* ``reset=True`` forgets everything that came before.

This module is one room because the values refer to each other, and the rules above are one algorithm (`_Fold`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypedDict, TypeGuard, cast, get_args

import attrs
from attrs import field, frozen
from attrs.validators import optional

from .errors import MisuseError, is_text, must_be, shown
from .extensible import evolved

__all__ = [
    "PARAMETERS",
    "Chunk",
    "FilePart",
    "FinishReason",
    "Logprobs",
    "Message",
    "Parameters",
    "Part",
    "Prompt",
    "RawPart",
    "ReasoningPart",
    "RefusalPart",
    "Request",
    "Role",
    "Sampling",
    "Settings",
    "TextPart",
    "ToolCallPart",
    "ToolResultPart",
    "Usage",
    "is_whole",
]

Role = Literal["system", "user", "assistant", "tool"]
Logprobs = Mapping[str, Sequence[Any]]
"""By the provider's names, such as ``content`` or ``tokens``: what it says of each token."""
FinishReason = Literal["stop", "length", "content_filter", "tool_call", "error", "other"]
"""Why an answer ended. ``other`` stands for every word of a provider that is not known; never for a plain end."""


def is_whole(reason: FinishReason | None) -> bool:
    """Whether an answer that ended for this reason may be kept and given again.

    An answer that was filtered, failed, or ended for an unknown reason may not. A model that gives no reason ends its
    answers as it means to.
    """
    return reason in _WHOLE


_WHOLE = (None, "stop", "length", "tool_call")


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


@frozen
class TextPart:
    """Text to be read."""

    text: str = field(validator=must_be("text", is_text))


@frozen
class ReasoningPart:
    """What the model thought. `signature` closes it and must be sent back with it; `index` is its place, if known."""

    text: str = ""
    signature: str | None = None
    index: int | None = None


@frozen
class RefusalPart:
    """The model's words of refusal, which are not its answer."""

    text: str


@frozen
class ToolCallPart:
    """A call of a tool, or a fragment of one. `arguments` is JSON text as it came, which need not be valid."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0


@frozen
class ToolResultPart:
    """What a tool answered to the call `id`."""

    id: str = field(validator=must_be("text", is_text))
    content: str = field(validator=must_be("text (json.dumps makes it)", is_text))
    is_error: bool = False
    name: str = ""


@frozen
class FilePart:
    """A picture, a document, a sound: its bytes, or where to get it. `media_type` is like ``image/png``."""

    media_type: str = field(validator=must_be("like image/png", lambda kind: isinstance(kind, str) and "/" in kind))
    data: bytes | None = field(
        default=None,
        validator=optional(must_be("bytes", lambda data: isinstance(data, bytes))),
        repr=lambda data: "None" if data is None else f"<{len(data)} bytes>",
    )
    url: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    name: str | None = None


@frozen
class RawPart:
    """Something of one provider's that must be sent back untouched: redacted thinking, blocks of server tools."""

    provider: str
    data: Mapping[str, Any] = field(validator=must_be("a dict", _is_object))

    def __hash__(self) -> int:
        return hash((self.provider, frozenset(self.data)))


Part = TextPart | ReasoningPart | RefusalPart | ToolCallPart | ToolResultPart | FilePart | RawPart


@frozen(kw_only=True)
class Usage:
    """Counts of tokens; None where the provider did not say.

    ``a + b`` adds them up across answers. `estimated` marks counts that no provider has confirmed.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        def add(name: str) -> int | None:
            counts = [n for n in (getattr(self, name), getattr(other, name)) if n is not None]
            return sum(counts) if counts else None

        return Usage(**{name: add(name) for name in _COUNTS}, estimated=self.estimated or other.estimated)

    def updated(self, later: Usage) -> Usage:
        """The running total after `later` came: its known counts replace these."""
        counts = {name: n for name in _COUNTS if (n := getattr(later, name)) is not None}
        return attrs.evolve(self, **counts, estimated=later.estimated)


_COUNTS = [name for name in attrs.fields_dict(Usage) if name != "estimated"]


def _parts_of(content: object) -> tuple[Part, ...]:
    """Parts from what people write as content: text, parts, or the usual content dicts."""
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    if isinstance(content, _PART_TYPES):
        return (cast("Part", content),)
    if content is None:
        return ()
    if isinstance(content, Mapping):
        return (_part_of(cast("Mapping[str, Any]", content)),)
    if isinstance(content, Iterable) and not isinstance(content, bytes):
        return tuple(part for item in cast("Iterable[object]", content) for part in _parts_of(item))
    raise MisuseError(f"Content must be text, parts or content dicts, not {type(content).__name__}.")


def _part_of(item: Mapping[str, Any]) -> Part:
    match item:
        case {"type": "text" | "input_text", "text": str(text)}:
            return TextPart(text)
        case {"type": "image_url", "image_url": {"url": str(url)}} | {"type": "image_url", "image_url": str(url)}:
            return _file_of(url)
        case _:
            raise MisuseError(
                f"Content of type {item.get('type')!r} is not known here; use the parts of rxllm "
                "(TextPart, FilePart, …), or RawPart for what one provider alone understands."
            )


def _file_of(url: str) -> FilePart:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return FilePart("image/*", url=url)
    try:
        return FilePart(head[5:-7], data=base64.b64decode(data, validate=True))
    except ValueError as error:
        raise MisuseError(f"The data URL of an image is not valid base64: {error}.") from None


_PART_TYPES = get_args(Part)
_ROLE_HINTS = {"human": "user", "ai": "assistant", "model": "assistant", "developer": "system", "function": "tool"}


def _role(message: object, attribute: object, role: object) -> None:
    if role not in get_args(Role):
        hint = f"; say {_ROLE_HINTS[role]!r}" if isinstance(role, str) and role in _ROLE_HINTS else ""
        raise MisuseError(f"A message's role is one of {', '.join(get_args(Role))}, not {role!r}{hint}.")


@frozen
class Message:
    """One turn of a conversation. An answer has the last five fields too, and goes back into a conversation as it is.

    ``str(message)`` is its text. `parts` may be given as text, a part, or any of the usual content lists.
    """

    role: Role = field(validator=_role)
    parts: tuple[Part, ...] = field(converter=_parts_of, default=())
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    logprobs: Logprobs | None = field(default=None, eq=False)

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """All text, joined."""
        return _text(self.parts, TextPart)

    @property
    def reasoning(self) -> str:
        """All reasoning, joined."""
        return _text(self.parts, ReasoningPart)

    @property
    def refusal(self) -> str:
        """The words of refusal, if the model refused."""
        return _text(self.parts, RefusalPart)

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls of tools that the model asks for, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart))


def _text(parts: Iterable[Part], kind: type[TextPart] | type[ReasoningPart] | type[RefusalPart]) -> str:
    return "".join([part.text for part in parts if isinstance(part, kind)])


@frozen
class _Rest:
    """Everything about a chunk that plain text has not. `parts` is None where the chunk's text is all its content."""

    parts: tuple[Part, ...] | None = None
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    reset: bool = False
    logprobs: Logprobs | None = field(default=None, hash=False)


_NOTHING = _Rest()


@frozen(init=False, repr=False)
class Chunk:
    """Some of an answer. ``Chunk()`` is none of it, ``+`` joins, ``str(chunk)`` is its text.

    Most chunks are plain text, and there are many: one is made of two slots, the text and a `rest` that is None.
    """

    text: str
    rest: _Rest | None

    def __init__(
        self,
        text: str = "",
        *,
        parts: Iterable[Part] = (),
        usage: Usage | None = None,
        finish_reason: FinishReason | None = None,
        raw_finish_reason: str | None = None,
        model: str | None = None,
        id: str | None = None,
        reset: bool = False,
        logprobs: Logprobs | None = None,
    ) -> None:
        if type(text) is not str and not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"The text of a Chunk must be text, not {shown(text)}.")
        whole = tuple(parts) or None
        # Most chunks with parts are one fragment, with nothing to join, and no text.
        if whole and not (len(whole) == 1 and not text and _is_fragment(whole[0])):
            fold = _Fold()
            fold.text(text)
            for part in whole:
                fold.add(part)
            whole = fold.parts()
            text = _text(whole, TextPart)
            if all(isinstance(part, TextPart) for part in whole):
                whole = None
        plain = not (whole or usage or finish_reason or raw_finish_reason or model or id or reset or logprobs)
        rest = None if plain else _Rest(whole, usage, finish_reason, raw_finish_reason, model, id, reset, logprobs)
        _set_text(self, text)
        _set_rest(self, rest)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        shown = [repr(self.text)] if self.text and self._facts.parts is None else []
        shown += [f"{a.name}={v!r}" for a in attrs.fields(_Rest) if (v := getattr(self._facts, a.name))]
        return f"Chunk({', '.join(shown)})"

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.text) or self.rest is not None

    def __add__(self, other: Chunk) -> Chunk:
        if not isinstance(other, Chunk):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
            return NotImplemented
        if self.rest is None and other.rest is None:
            return text_chunk(self.text + other.text)
        return join([self, other])

    def __radd__(self, other: int) -> Chunk:
        """For the builtin ``sum``, which begins with 0."""
        return self if other == 0 else NotImplemented

    @property
    def _facts(self) -> _Rest:
        return _NOTHING if self.rest is None else self.rest

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content, in order."""
        if self.rest is None or self.rest.parts is None:
            return (TextPart(self.text),) if self.text else ()
        return self.rest.parts

    @property
    def reasoning(self) -> str:
        """The reasoning in it, joined."""
        return _text(self._facts.parts or (), ReasoningPart)

    @property
    def refusal(self) -> str:
        """The words of refusal in it."""
        return _text(self._facts.parts or (), RefusalPart)

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls, or fragments of calls, in it."""
        return tuple(part for part in self._facts.parts or () if isinstance(part, ToolCallPart))

    @property
    def usage(self) -> Usage | None:
        """The running total of tokens, if this chunk tells it."""
        return self._facts.usage

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended, if this chunk tells it."""
        return self._facts.finish_reason

    @property
    def raw_finish_reason(self) -> str | None:
        """The same in the provider's word."""
        return self._facts.raw_finish_reason

    @property
    def model(self) -> str | None:
        """The model that answers, if this chunk tells it."""
        return self._facts.model

    @property
    def id(self) -> str | None:
        """The provider's id of the answer, if this chunk tells it."""
        return self._facts.id

    @property
    def reset(self) -> bool:
        """Whether everything that came before is to be forgotten."""
        return self._facts.reset

    @property
    def logprobs(self) -> Logprobs | None:
        """The log-probabilities of its tokens, if they were asked for."""
        return self._facts.logprobs

    def message(self) -> Message:
        """The answer that this chunk is the whole of."""
        facts = self._facts
        return Message(
            "assistant",
            self.parts,
            usage=facts.usage,
            finish_reason=facts.finish_reason,
            raw_finish_reason=facts.raw_finish_reason,
            model=facts.model,
            id=facts.id,
            logprobs=facts.logprobs,
        )

    @classmethod
    def of(cls, answer: str | Message | Chunk) -> Chunk:
        """A whole answer as one chunk.

        Raises:
            MisuseError: it is none of the three.
        """
        if isinstance(answer, str):
            return text_chunk(answer)
        if isinstance(answer, Chunk):
            return answer
        if not isinstance(answer, Message):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
            raise MisuseError(f"A model answers with text, a Chunk or a Message, not {type(answer).__name__}.")
        return cls(
            parts=answer.parts,
            usage=answer.usage,
            finish_reason=answer.finish_reason,
            raw_finish_reason=answer.raw_finish_reason,
            model=answer.model,
            id=answer.id,
            logprobs=answer.logprobs,
        )


# Slot descriptors: what attrs' own frozen __init__ costs twice as much for (see tests/benchmarks).
_new: Callable[[Any], Any] = object.__new__
_set_text = Chunk.text.__set__  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
_set_rest = Chunk.rest.__set__  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess, reportUnknownMemberType, reportUnknownVariableType]


def thawed(kind: type) -> Any:
    """A class whose objects are filled field by field, and then given the frozen class that they are meant to be of.

    For the per-token path: nothing else fills a frozen object as fast.
    """
    # Both, for only together they are the plain setting of a slot, which the interpreter knows to make quick.
    plain = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    return type(f"Thawed{kind.__name__}", (kind,), {"__slots__": (), **plain})


_ThawedRest, _ThawedChunk = thawed(_Rest), thawed(Chunk)


def text_chunk(text: str) -> Chunk:
    """``Chunk(text)``, at a third of the price; for the per-token path."""
    chunk = _new(_ThawedChunk)
    chunk.text = text
    chunk.rest = None
    chunk.__class__ = Chunk
    return chunk  # type: ignore[no-any-return]  # cast() is a call, and this is the per-token path


def part_chunk(part: ReasoningPart | ToolCallPart) -> Chunk:
    """``Chunk(parts=[part])`` of a part that is not empty, at a third of the price."""
    rest = _new(_ThawedRest)
    rest.parts = (part,)
    rest.usage = rest.finish_reason = rest.raw_finish_reason = rest.model = rest.id = rest.logprobs = None
    rest.reset = False
    rest.__class__ = _Rest
    chunk = _new(_ThawedChunk)
    chunk.text = ""
    chunk.rest = rest
    chunk.__class__ = Chunk
    return chunk  # type: ignore[no-any-return]  # cast() is a call, and this is the per-token path


def join(chunks: Iterable[Chunk]) -> Chunk:
    """The sum of chunks, in time linear in their size (``sum`` would copy the text at each step)."""
    fold, facts = _Fold(), _NOTHING
    texts: list[str] = []  # of plain chunks in a row, as most are
    logprobs: list[Logprobs] = []
    for chunk in chunks:
        rest = chunk.rest
        if rest is None:
            texts.append(chunk.text)
            continue
        fold.text("".join(texts))
        texts.clear()
        if rest.reset:
            fold, facts = _Fold(), rest
            logprobs.clear()
        elif facts is _NOTHING:
            facts = rest
        else:
            usage = facts.usage.updated(rest.usage) if facts.usage and rest.usage else rest.usage or facts.usage
            facts = _Rest(
                None,
                usage,
                rest.finish_reason or facts.finish_reason,
                rest.raw_finish_reason or facts.raw_finish_reason,
                rest.model or facts.model,
                rest.id or facts.id,
                facts.reset,
                None,
            )
        if rest.logprobs:
            logprobs.append(rest.logprobs)
        if rest.parts is None:
            fold.text(chunk.text)
        else:
            for part in rest.parts:
                fold.add(part)
    fold.text("".join(texts))
    return Chunk(
        parts=fold.parts(),
        usage=facts.usage,
        finish_reason=facts.finish_reason,
        raw_finish_reason=facts.raw_finish_reason,
        model=facts.model,
        id=facts.id,
        reset=facts.reset,
        logprobs=_continued(logprobs),
    )


def _continued(logprobs: list[Logprobs]) -> Logprobs | None:
    """Lists under the same name are one after another."""
    if len(logprobs) < 2:
        return logprobs[0] if logprobs else None
    lists: dict[str, list[Any]] = {}
    for told in logprobs:
        for name, items in told.items():
            lists.setdefault(name, []).extend(items)
    return {name: tuple(items) for name, items in lists.items()}


def _is_fragment(part: Part) -> bool:
    return isinstance(part, ToolCallPart) or (isinstance(part, ReasoningPart) and bool(part.text))


class _Open:
    """A part that may still grow: its texts so far, and what else is known of it."""

    __slots__ = ("part", "texts")

    def __init__(self, part: TextPart | ReasoningPart | RefusalPart | ToolCallPart) -> None:
        self.part = part
        self.texts: list[str] = [part.arguments if isinstance(part, ToolCallPart) else part.text]

    def close(self) -> Part:
        if len(self.texts) == 1:
            return self.part
        text = "".join(self.texts)
        if isinstance(self.part, ToolCallPart):
            return attrs.evolve(self.part, arguments=text)
        return attrs.evolve(self.part, text=text)


class _Fold:
    """Joins parts by the rules at the top of this module, in linear time."""

    __slots__ = ("_calls", "_parts", "_reasoning")

    def __init__(self) -> None:
        self._parts: list[_Open | Part] = []
        self._calls: dict[int, _Open] = {}
        self._reasoning: dict[int, _Open] = {}

    def text(self, text: str) -> None:
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _Open) and type(last.part) is TextPart:
            last.texts.append(text)
        elif text:
            self._parts.append(_Open(TextPart(text)))

    def add(self, part: Part) -> None:
        if isinstance(part, TextPart):
            self.text(part.text)
        elif isinstance(part, ToolCallPart):
            self._call(part)
        elif isinstance(part, ReasoningPart):
            self._thought(part)
        elif isinstance(part, RefusalPart):
            last = self._parts[-1] if self._parts else None
            if isinstance(last, _Open) and isinstance(last.part, RefusalPart):
                last.texts.append(part.text)
            elif part.text:
                self._parts.append(_Open(part))
        else:
            self._parts.append(part)

    def _call(self, part: ToolCallPart) -> None:
        latest = self._calls.get(part.index)
        known = latest.part if latest else None
        if latest and isinstance(known, ToolCallPart) and part.id in ("", known.id):
            if part.name and not known.name:
                latest.part = attrs.evolve(known, name=part.name)
            latest.texts.append(part.arguments)
            return
        opened = self._calls[part.index] = _Open(part)
        self._parts.append(opened)

    def _thought(self, part: ReasoningPart) -> None:
        if part.index is not None:
            latest = self._reasoning.get(part.index)
        else:
            last = self._parts[-1] if self._parts else None
            latest = last if isinstance(last, _Open) else None
        known = latest.part if latest else None
        # A second signature for the same text replaces the first; new text after a signature is a new thought.
        if (
            latest
            and isinstance(known, ReasoningPart)
            and known.index == part.index
            and (known.signature is None or not part.text)
        ):
            if part.signature:
                latest.part = attrs.evolve(known, signature=part.signature)
            latest.texts.append(part.text)
            return
        if part.text or part.signature:
            opened = _Open(part)
            self._parts.append(opened)
            if part.index is not None:
                self._reasoning[part.index] = opened

    def parts(self) -> tuple[Part, ...]:
        return tuple(part.close() if isinstance(part, _Open) else part for part in self._parts)


_INFINITY = float("inf")


def _sequences(value: object) -> tuple[str, ...] | None:
    """One stop sequence or several."""
    if value is None:
        return None
    single = isinstance(value, str) or not isinstance(value, Iterable)
    return (cast("str", value),) if single else tuple(cast("Iterable[str]", value))


def _objects(value: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None) -> tuple[Mapping[str, Any], ...] | None:
    """One definition or several."""
    if value is None:
        return None
    single = isinstance(value, (str, Mapping)) or not isinstance(cast("object", value), Iterable)
    return (cast("Mapping[str, Any]", value),) if single else tuple(cast("Iterable[Mapping[str, Any]]", value))


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


_OWN_FORM = "in the provider's own form"


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
        tools: definitions of tools in the provider's own form, passed through.
        tool_choice: which tool to use, in the provider's own form, passed through.
        response_format: the shape of the answer, in the provider's own form, passed through.
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
    tools: tuple[Mapping[str, Any], ...] | None = field(
        default=None,
        converter=_objects,
        validator=optional(must_be(f"one or more dicts {_OWN_FORM}", _all(_is_object))),
        hash=False,
    )
    tool_choice: str | Mapping[str, Any] | None = field(
        default=None,
        validator=optional(must_be(f"text or a dict {_OWN_FORM}", lambda choice: isinstance(choice, (str, Mapping)))),
        hash=False,
    )
    response_format: Mapping[str, Any] | None = field(
        default=None, validator=optional(must_be(f"a dict {_OWN_FORM}", _is_object)), hash=False
    )
    stream: bool | None = field(
        default=None,
        validator=must_be("True, False or None", lambda stream: stream is None or isinstance(stream, bool)),
    )
    extra: Mapping[str, Any] = field(
        factory=dict[str, Any],
        converter=_fields,
        validator=must_be(
            "a dict of fields of the request's body",
            lambda extra: isinstance(extra, Mapping) and all(map(is_text, cast("Mapping[object, object]", extra))),
        ),
        hash=False,
    )

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
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    response_format: Mapping[str, Any]
    stream: bool
    extra: Mapping[str, Any]


class Settings(Sampling, total=False):
    """What `bind`, `stream` and the rest take: `Parameters`, and the config of a run."""

    model: str
    tags: Iterable[str]
    metadata: Mapping[str, Any]
    run_name: str
    handlers: Iterable[Any]


def _content(prompt: Prompt) -> str | tuple[Message, ...]:
    return prompt if isinstance(prompt, str) else _conversation(prompt)


@frozen(kw_only=True)
class Request(Parameters):
    """A prompt and how to answer it: what a provider gets.

    `prompt` is the text or the messages as they were given; `messages` and `text` read it either way.
    """

    prompt: str | tuple[Message, ...] = field(converter=_content)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation; plain text is one message of the user."""
        return (Message("user", self.prompt),) if isinstance(self.prompt, str) else self.prompt

    @property
    def text(self) -> str:
        """The text of the prompt; of several messages, their texts with a blank line between."""
        return self.prompt if isinstance(self.prompt, str) else "\n\n".join(m.text for m in self.prompt if m.text)

    @classmethod
    def ask(cls, prompt: Prompt, parameters: Parameters = Parameters()) -> Request:
        """The request for a prompt; where the prompt is a Request, its own parameters win.

        Raises:
            MisuseError: this is no prompt.
        """
        if isinstance(prompt, Request):
            return prompt.over(parameters)
        request = object.__new__(cls)
        object.__setattr__(request, "prompt", _content(prompt))
        for name in PARAMETERS:  # whose values have been looked at
            object.__setattr__(request, name, getattr(parameters, name))
        return request


MessageLike = Message | Mapping[str, Any] | tuple[str, str]
Prompt = str | Message | Mapping[str, Any] | Sequence[MessageLike] | Request


def _conversation(prompt: object) -> tuple[Message, ...]:
    if isinstance(prompt, (Message, Mapping)):
        return (_message_of(cast("object", prompt)),)
    if isinstance(prompt, (Sequence, Iterable)) and not isinstance(prompt, (bytes, bytearray)):
        items = tuple(cast("Iterable[object]", prompt))
        if isinstance(prompt, tuple) and len(items) == 2 and not isinstance(items[0], (Message, Mapping, tuple)):
            return (_message_of(items),)
        if items:
            return tuple(map(_message_of, items))
        raise MisuseError("An empty list is no prompt; give text or at least one message.")
    raise MisuseError(
        "A prompt is text, a Message, a list of messages or a Request, "
        f"not {type(prompt).__name__}{': ' + shown(prompt) if prompt is not None else ''}."
    )


def _message_of(item: object) -> Message:
    if isinstance(item, Message):
        return item
    if isinstance(item, Mapping):
        return _message_of_dict(cast("Mapping[str, Any]", item))
    if _is_pair(item):
        return Message(item[0], _parts_of(item[1]))
    raise MisuseError(
        "A list of messages holds Messages, {'role', 'content'} dicts or (role, text) pairs, not "
        f"{type(item).__name__}: {shown(item)}. Several prompts go to llm.batch."
    )


def _is_pair(item: object) -> TypeGuard[tuple[Any, Any]]:
    return isinstance(item, tuple) and len(cast("Sequence[Any]", item)) == 2


def _message_of_dict(given: Mapping[str, Any]) -> Message:
    if "role" not in given:
        raise MisuseError(f"A message dict needs a 'role' and a 'content'; this one has {sorted(map(str, given))}.")
    role, content = given["role"], given.get("content")
    refusal = given.get("refusal") if role == "assistant" else None
    if content is None and not (role == "assistant" and (given.get("tool_calls") or refusal)):
        raise MisuseError(_no_content(given))
    if role == "tool":
        if "tool_call_id" not in given:
            raise MisuseError("A message dict of the role 'tool' needs the 'tool_call_id' that it answers.")
        return Message("tool", (ToolResultPart(given["tool_call_id"], _text(_parts_of(content), TextPart)),))
    calls = given.get("tool_calls") or ()
    if not isinstance(calls, (list, tuple)):
        raise MisuseError(f"tool_calls must be a list of dicts, not {shown(calls)}.")
    asked = [_call_of(index, call) for index, call in enumerate(cast("Sequence[Mapping[str, Any]]", calls))]
    refused = (RefusalPart(refusal),) if refusal and is_text(refusal) else ()
    return Message(role, (*_parts_of(content), *refused, *asked))


def _no_content(given: Mapping[str, Any]) -> str:
    if "content" in given:
        return (
            "The content of a message dict is None, which only that of an assistant's with 'tool_calls' may be: give "
            "text, parts or content dicts."
        )
    import difflib

    keys = sorted(map(str, given))
    near = difflib.get_close_matches("content", keys, 1)
    hint = f" Is {near[0]!r} its 'content'?" if near else ""
    return f"A message dict needs a 'role' and a 'content'; this one has {keys}.{hint}"


def _call_of(index: int, call: Mapping[str, Any]) -> ToolCallPart:
    match call:
        case {"function": {"name": str(name), "arguments": str(arguments)}} if is_text(call.get("id") or ""):
            return ToolCallPart(call.get("id") or "", name, arguments, index)
        case _:
            raise MisuseError(
                "A tool call is a dict of 'id' and 'function', which has a 'name' and 'arguments' as JSON text, "
                f"not {shown(call)}."
            )
