"""`Chunk`: a piece of an answer. Chunks form a monoid: ``Chunk()`` is the unit and ``+`` joins.

The sum of all chunks is the answer, no matter where the provider cut it::

    Chunk("Hel") + Chunk("lo") == Chunk("Hello")

These rules join chunks. Each rule is associative; `tests/laws/test_monoid.py` checks this:

* Text joins with the text directly before it, unless it has an index of its own. Its citations are appended.
* A text with a signature never joins, because the signature is valid for exactly this text.
* Reasoning joins with the reasoning of the same index, or, without an index, with the reasoning directly before it.
  A signature closes reasoning.
* A tool-call fragment with a new id opens a call. A fragment without an id, or with the same id, continues the latest
  call of its index. A call never absorbs a later id.
* The result of a tool closes all calls and all reasoning before it, because servers reuse ids and indices in each
  round.
* Providers send usage as running totals, so each later count replaces the earlier one.
* A chunk with ``reset=True`` discards all chunks before it.

`PartJoiner` implements the rules for parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard, cast, get_args

import attrs
from attrs import field, frozen

from ..extensible import mutable_class
from ..misuse import MisuseError, shown
from ..public import Public
from .frozen import frozen_json
from .joining import PartJoiner
from .message import Message
from .parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, text_of
from .plain import plain
from .usage import Usage
from .vocabulary import FinishReason, Logprobs

__all__ = ["Chunk"]


@frozen
class _Rest:
    """All attributes of a chunk except its text. `parts` is None if the text is the chunk's only content."""

    parts: tuple[Part, ...] | None = None
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    reset: bool = False
    logprobs: Logprobs | None = field(default=None, hash=False)
    provider: str | None = field(default=None, eq=False)


_EMPTY = _Rest()


@frozen(init=False, repr=False)
class Chunk(metaclass=Public):
    """A piece of an answer. ``Chunk()`` is empty, ``+`` joins two chunks, ``str(chunk)`` is the text.

    A stream has many chunks, and most are plain text. To keep them cheap, a Chunk has two slots: `text`, and `rest`,
    which is None for plain text.
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
        provider: str | None = None,
    ) -> None:
        if type(text) is not str:
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise MisuseError(f"The text of a Chunk must be text, not {shown(text)}.")
            text = plain(text)
        whole = _parts(parts) or None
        # Most chunks with parts hold one fragment or one text; they need no joining.
        single = whole[0] if whole and len(whole) == 1 and not text else None
        if single is not None and _is_plain_text(single):
            text, whole = single.text, None
        elif whole and not (single is not None and _is_fragment(single)):
            joiner = PartJoiner()
            joiner.add_text(text)
            for part in whole:
                joiner.add(part)
            whole = joiner.parts()
            text = text_of(whole, TextPart)
            if not whole or (len(whole) == 1 and _is_plain_text(whole[0])):
                whole = None
        is_plain = not (
            whole or usage or finish_reason or raw_finish_reason or model or id or reset or logprobs or provider
        )
        rest = None
        if not is_plain:
            rest = _MutableRest()
            rest.parts, rest.usage = whole, usage
            rest.finish_reason, rest.raw_finish_reason = finish_reason, raw_finish_reason
            rest.model, rest.id, rest.provider, rest.reset = model, id, provider, reset
            rest.logprobs = logprobs and frozen_json(logprobs)
            rest.__class__ = _Rest
        _set_text(self, text)
        _set_rest(self, rest)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        shown = [repr(self.text)] if self.text and self._facts.parts is None else []
        shown += [f"{a.name}={v!r}" for a in attrs.fields(_Rest) if (v := getattr(self._facts, a.name))]
        return f"Chunk({', '.join(shown)})"

    def __bool__(self) -> bool:
        """False for the empty chunk only."""
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
        return _EMPTY if self.rest is None else self.rest

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content of the chunk, in order."""
        if self.rest is None or self.rest.parts is None:
            return (TextPart(self.text),) if self.text else ()
        return self.rest.parts

    @property
    def reasoning(self) -> str:
        """The reasoning in this chunk, joined."""
        return text_of(self._facts.parts or (), ReasoningPart)

    @property
    def refusal(self) -> str:
        """The model's refusal in this chunk, joined."""
        return text_of(self._facts.parts or (), RefusalPart)

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls, or fragments of tool calls, in this chunk."""
        return tuple(part for part in self._facts.parts or () if isinstance(part, ToolCallPart))

    @property
    def usage(self) -> Usage | None:
        """The running total of tokens, or None if this chunk reports none."""
        return self._facts.usage

    @property
    def finish_reason(self) -> FinishReason | None:
        """The reason why the answer ended, or None if this chunk reports none."""
        return self._facts.finish_reason

    @property
    def raw_finish_reason(self) -> str | None:
        """The finish reason in the provider's own word."""
        return self._facts.raw_finish_reason

    @property
    def model(self) -> str | None:
        """The name of the model, or None if this chunk reports none."""
        return self._facts.model

    @property
    def id(self) -> str | None:
        """The provider's id of the answer, or None if this chunk reports none."""
        return self._facts.id

    @property
    def reset(self) -> bool:
        """Whether this chunk discards all chunks before it."""
        return self._facts.reset

    @property
    def logprobs(self) -> Logprobs | None:
        """The log-probabilities of the tokens in this chunk, if the request asked for them."""
        return self._facts.logprobs

    @property
    def provider(self) -> str | None:
        """The name of the provider, or None if this chunk reports none."""
        return self._facts.provider

    def message(self) -> Message:
        """Return the Message for a chunk that is a whole answer."""
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
            provider=facts.provider,
        )

    @classmethod
    def of(cls, answer: str | Message | Chunk) -> Chunk:
        """Return a whole answer as one chunk.

        Raises:
            MisuseError: `answer` is not text, a Message or a Chunk.
        """
        if isinstance(answer, str):
            return text_chunk(plain(answer))
        if isinstance(answer, Chunk):
            return answer
        if not isinstance(answer, Message):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
            raise MisuseError(f"A model must answer with text, a Chunk or a Message, not {type(answer).__name__}.")
        return cls(
            parts=answer.parts,
            usage=answer.usage,
            finish_reason=answer.finish_reason,
            raw_finish_reason=answer.raw_finish_reason,
            model=answer.model,
            id=answer.id,
            logprobs=answer.logprobs,
            provider=answer.provider,
        )


def _parts(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Return the parts for a new chunk.

    Raises:
        MisuseError: the argument is not an iterable of parts.
    """
    is_list = type(parts) in (tuple, list) or isinstance(parts, Iterable)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_list or isinstance(parts, (str, bytes, Mapping)):
        raise MisuseError(
            f"The parts of a Chunk must be a list of parts, as in [TextPart('hi')], not {shown(cast('object', parts))}."
        )
    items = tuple(parts)
    for part in items:
        if not isinstance(part, _PARTS):
            raise MisuseError(f"The parts of a Chunk must be parts, such as TextPart('hi'), not {shown(part)}.")
    return items


_PARTS = get_args(Part)

# The slot descriptors set the fields directly. This takes half the time of attrs' frozen __init__ (tests/benchmarks).
_new: Callable[[Any], Any] = object.__new__


_set_text = Chunk.text.__set__  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


_set_rest = Chunk.rest.__set__  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess, reportUnknownMemberType, reportUnknownVariableType]


_MutableRest, _MutableChunk = mutable_class(_Rest), mutable_class(Chunk)


def text_chunk(text: str) -> Chunk:
    """Return ``Chunk(text)`` in a third of the time, for code that runs once for each token."""
    chunk = _MutableChunk()
    chunk.text = text
    chunk.rest = None
    chunk.__class__ = Chunk
    return chunk  # type: ignore[no-any-return]  # this runs for each token; cast() would cost a call


def part_chunk(part: ReasoningPart | ToolCallPart) -> Chunk:
    """Return ``Chunk(parts=[part])`` for a non-empty part, in a third of the time."""
    rest = _MutableRest()
    rest.parts = (part,)
    rest.usage = rest.finish_reason = rest.raw_finish_reason = rest.model = rest.id = None
    rest.logprobs = rest.provider = None
    rest.reset = False
    rest.__class__ = _Rest
    chunk = _MutableChunk()
    chunk.text = ""
    chunk.rest = rest
    chunk.__class__ = Chunk
    return chunk  # type: ignore[no-any-return]  # this runs for each token; cast() would cost a call


def changed(chunk: Chunk, **facts: Any) -> Chunk:
    """Return a copy of a chunk with other values of these attributes. The text stays."""
    rest = attrs.evolve(_EMPTY if chunk.rest is None else chunk.rest, **facts)
    copy: Chunk = _new(Chunk)
    _set_text(copy, chunk.text)
    _set_rest(copy, None if rest == _EMPTY and not rest.provider else rest)  # equality ignores the provider
    return copy


def with_parts(chunk: Chunk, parts: Iterable[Part]) -> Chunk:
    """Return a copy of a chunk with other parts."""
    content = Chunk(parts=parts)
    if chunk.rest is None:
        return content
    copy = changed(chunk, parts=None if content.rest is None else content.rest.parts)
    _set_text(copy, content.text)
    return copy


def join(chunks: Iterable[Chunk]) -> Chunk:
    """Return the sum of the chunks in linear time; the builtin ``sum`` would copy the text at each step.

    Raises:
        MisuseError: an item is not a Chunk.
    """
    if isinstance(chunks, list) and len(chunks) == 1 and type(chunks[0]) is Chunk:
        return chunks[0]
    joiner, facts = PartJoiner(), _EMPTY
    texts: list[str] = []  # the texts of consecutive plain chunks
    logprobs: list[Logprobs] = []
    for chunk in chunks:
        try:
            rest = chunk.rest
        except AttributeError:
            if isinstance(chunk, Chunk):  # pyright: ignore[reportUnnecessaryIsInstance]  (a subclass raised)
                raise
            raise MisuseError(f"join takes Chunks, not {shown(chunk)}.") from None
        if rest is None:
            texts.append(chunk.text)
            continue
        joiner.add_text("".join(texts))
        texts.clear()
        if rest.reset:
            joiner, facts = PartJoiner(), rest
            logprobs.clear()
        elif facts is _EMPTY:
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
                rest.provider or facts.provider,
            )
        if rest.logprobs:
            logprobs.append(rest.logprobs)
        if rest.parts is None:
            joiner.add_text(chunk.text)
        else:
            for part in rest.parts:
                joiner.add(part)
    joiner.add_text("".join(texts))
    return Chunk(
        parts=joiner.parts(),
        usage=facts.usage,
        finish_reason=facts.finish_reason,
        raw_finish_reason=facts.raw_finish_reason,
        model=facts.model,
        id=facts.id,
        reset=facts.reset,
        logprobs=_joined_logprobs(logprobs),
        provider=facts.provider,
    )


def _joined_logprobs(logprobs: list[Logprobs]) -> Logprobs | None:
    """Concatenate the lists under each name."""
    if len(logprobs) < 2:
        return logprobs[0] if logprobs else None
    lists: dict[str, list[Any]] = {}
    for each in logprobs:
        for name, items in each.items():
            lists.setdefault(name, []).extend(items)
    return {name: tuple(items) for name, items in lists.items()}


def _is_fragment(part: Part) -> bool:
    return isinstance(part, ToolCallPart) or (isinstance(part, ReasoningPart) and bool(part.text))


def _is_plain_text(part: Part) -> TypeGuard[TextPart]:
    """Return whether a text has no attributes that matter, as `TextPart(part.text) == part` would."""
    if type(part) is not TextPart or part.citations:
        return False
    return part.index is None and part.signature is None and part.extra is None
