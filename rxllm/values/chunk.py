"""`Chunk`: some of an answer. Chunks are a monoid.

A `Chunk` is some of an answer: ``Chunk()`` is nothing and ``+`` joins, so that the sum of all chunks is the
answer, whatever the pieces were::

    Chunk("Hel") + Chunk("lo") == Chunk("Hello")

How parts join (each rule is associative, `tests/laws/test_monoid.py` checks it):

* text joins with text that it directly follows, unless it has an index of its own; their citations are in one row;
* a text with a signature joins with no other, since the signature holds for exactly this text;
* reasoning joins with reasoning of its index (without one: that it directly follows) until a signature closes it;
* a tool-call fragment with a new id opens a call; one without an id, or with the same id, continues the latest call
  of its index. It never absorbs a later id;
* the result of a tool closes all calls and all reasoning before it: servers use ids and indices again in each round;
* usage: providers send running totals, so the later known figure replaces the earlier one;
* ``reset=True`` forgets everything that came before.

This module is one room because the rules above are one algorithm (`_Fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from attrs import field, frozen

from ..misuse import MisuseError, shown
from .frozen import frozen_json
from .message import FinishReason, Logprobs, Message
from .parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart, text_of
from .usage import Usage

__all__ = ["Chunk"]


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
    provider: str | None = field(default=None, eq=False)


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
        provider: str | None = None,
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
            text = text_of(whole, TextPart)
            if not whole or (len(whole) == 1 and _is_mere_text(whole[0])):
                whole = None
        plain = not (
            whole or usage or finish_reason or raw_finish_reason or model or id or reset or logprobs or provider
        )
        rest = (
            None
            if plain
            else _Rest(
                whole,
                usage,
                finish_reason,
                raw_finish_reason,
                model,
                id,
                reset,
                logprobs and frozen_json(logprobs),
                provider,
            )
        )
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
        return text_of(self._facts.parts or (), ReasoningPart)

    @property
    def refusal(self) -> str:
        """The words of refusal in it."""
        return text_of(self._facts.parts or (), RefusalPart)

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

    @property
    def provider(self) -> str | None:
        """Who answers, if this chunk tells it."""
        return self._facts.provider

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
            provider=facts.provider,
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
            provider=answer.provider,
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
    rest.usage = rest.finish_reason = rest.raw_finish_reason = rest.model = rest.id = None
    rest.logprobs = rest.provider = None
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
                rest.provider or facts.provider,
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
        provider=facts.provider,
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


def _is_mere_text(part: Part) -> bool:
    return isinstance(part, TextPart) and part == TextPart(part.text)


class _Open:
    """A part that may still grow: its texts and citations so far, and what else is known of it."""

    __slots__ = ("citations", "part", "texts")

    def __init__(self, part: TextPart | ReasoningPart | RefusalPart | ToolCallPart) -> None:
        self.part = part
        self.texts: list[str] = [part.arguments if isinstance(part, ToolCallPart) else part.text]
        self.citations: list[Mapping[str, Any]] = []  # that came after the part was opened

    def learn(self, part: TextPart | ReasoningPart | ToolCallPart) -> None:
        """Takes over what a later fragment says besides its text."""
        if part.signature is None and part.provider is None and part.extra is None:
            return
        known: Any = self.part
        extra: dict[str, Any] = {**(known.extra or {}), **(part.extra or {})}
        self.part = attrs.evolve(
            known,
            signature=part.signature or known.signature,
            provider=known.provider or part.provider,
            extra=extra or None,
        )

    def close(self) -> Part:
        if len(self.texts) == 1:
            return self.part
        text = "".join(self.texts)
        if isinstance(self.part, ToolCallPart):
            return attrs.evolve(self.part, arguments=text)
        if isinstance(self.part, TextPart):
            return attrs.evolve(self.part, text=text, citations=[*self.part.citations, *self.citations])
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
        if isinstance(last, _Open) and type(last.part) is TextPart and last.part.signature is None:
            last.texts.append(text)
        elif text:
            self._parts.append(_Open(TextPart(text)))

    def add(self, part: Part) -> None:
        if isinstance(part, TextPart):
            self._passage(part)
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
            if isinstance(part, ToolResultPart):
                self._calls.clear()
                self._reasoning.clear()
            self._parts.append(part)

    def _passage(self, part: TextPart) -> None:
        last = self._parts[-1] if self._parts else None
        known = last.part if isinstance(last, _Open) else None
        is_apart = part.signature is not None or (isinstance(known, TextPart) and known.signature is not None)
        if (
            isinstance(last, _Open)
            and isinstance(known, TextPart)
            and part.index in (None, known.index)
            and not is_apart
        ):
            last.texts.append(part.text)
            last.citations += part.citations
            last.learn(part)
        elif part.text or part.citations or part.signature or part.extra:
            self._parts.append(_Open(part))

    def _call(self, part: ToolCallPart) -> None:
        latest = self._calls.get(part.index)
        known = latest.part if latest else None
        if latest and isinstance(known, ToolCallPart) and part.id in ("", known.id):
            if part.name and not known.name:
                latest.part = attrs.evolve(known, name=part.name)
            latest.learn(part)
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
            if part.id and not known.id:
                latest.part = attrs.evolve(known, id=part.id)
            latest.learn(part)
            latest.texts.append(part.text)
            return
        if part.text or part.signature or part.id:
            opened = _Open(part)
            self._parts.append(opened)
            if part.index is not None:
                self._reasoning[part.index] = opened

    def parts(self) -> tuple[Part, ...]:
        return tuple(part.close() if isinstance(part, _Open) else part for part in self._parts)
