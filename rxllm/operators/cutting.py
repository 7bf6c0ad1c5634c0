"""What is found in the text as it comes, across the borders of chunks: `stop_at`, `split_reasoning`.

They are one room, since they share how text is held back (`Sought`) and how a chunk gets other parts (`_Rewriting`).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, cast

from reactivex import Observable, abc

from .._runtime import Serial, Source, connect
from ..errors import MisuseError
from ..messages import Chunk, Part, ReasoningPart, TextPart, part_chunk, text_chunk, thawed
from .folds import no_chunk

__all__ = ["Ending", "Sought", "split_reasoning", "stop_at"]


def stop_at(*sequences: str) -> Callable[[Observable[Chunk]], Observable[Chunk]]:
    r"""Ends the answer before the first of the texts, for providers without `stop_sequences` and texts of any number.

    ::

        -Fine.-\nHu-man: W-hy?-|
        stop_at("\nHuman:")
        -Fine.------|

    Shape: takes chunks and gives chunks. The last one says ``finish_reason="stop"``, and no more. The source is left by
    then, which closes its connection, so what it would have said in the end (its usage) is not heard. Text that may be
    the beginning of a sequence is held back until that is decided, and no other. Where several could end the answer,
    the one that begins first does. A sequence is found across chunks, but not across a part of another kind, such as a
    tool call.

    Errors: of the source, after what was held back; `MisuseError` for what is no chunk. A ``reset`` forgets what is
    held back.
    """
    if not sequences or not all(isinstance(cast("object", sequence), str) and sequence for sequence in sequences):
        raise MisuseError(f"stop_at takes one or more non-empty texts, not {sequences!r}.")
    sought = Sought(sequences)

    def operator(source: Observable[Chunk]) -> Observable[Chunk]:
        return Source(lambda observer, scheduler: _Stopping(observer, sought).start(source, scheduler))

    return operator


def split_reasoning(start: str = "<think>", end: str = "</think>") -> Callable[[Observable[Chunk]], Observable[Chunk]]:
    r"""What the answer has between the tags at its beginning becomes reasoning; the tags vanish.

    ::

        -<thi-nk>Hm-m.</-think>\n-Yes.-|
        split_reasoning()
        ---------Hm-m.-----------Yes.-|      the first two as ReasoningParts

    For models that are served raw and think aloud in their text, such as DeepSeek-R1 and Qwen3; providers and servers
    with a reasoning parser do this themselves.

    Shape: takes chunks and gives chunks. Only an answer that begins with `start`, perhaps after whitespace, has
    reasoning: a tag that comes later is text, since answers may speak of tags. Where the prompt's template has already
    opened the reasoning, so that the answer begins inside of it, say ``start=""``. Whitespace between `end` and the
    answer is dropped. Reasoning that is never closed is reasoning to the end.

    Errors: of the source, after what was held back; `MisuseError` for what is no chunk. A ``reset`` starts anew.

    Source: the parsers of vLLM (``deepseek_r1`` takes a missing opening tag as given, ``qwen3`` does not) and SGLang,
    whose list tells which model opens with a tag: https://docs.sglang.io/docs/advanced_features/separate_reasoning
    """
    start = start.lstrip()
    if not end:
        raise MisuseError("split_reasoning needs the text that ends the reasoning.")
    sought = Sought([end])

    def operator(source: Observable[Chunk]) -> Observable[Chunk]:
        return Source(lambda observer, scheduler: _Splitting(observer, start, end, sought).start(source, scheduler))

    return operator


class Sought:
    """Texts to be found in a stream; none of them is never found.

    Attributes:
        begins: finds a character that one of them begins with.
        whole: finds the first of them, whatever may come.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # An alternation takes the first that fits, and of two with one beginning the shorter is there sooner.
        ordered = sorted(set(texts), key=len)
        self.whole = re.compile("|".join(map(re.escape, ordered)) or _NEVER).search
        firsts = re.escape("".join(sorted({text[0] for text in texts})))
        self._first = re.compile(f"[{firsts}]" if firsts else _NEVER)
        self._beginnings = frozenset(text[:size] for text in texts for size in range(1, len(text)))
        self._longest = max(map(len, texts), default=1) - 1
        self.begins = self._first.search

    def find(self, text: str) -> tuple[int, re.Match[str] | None]:
        """How much of `text` is certainly before any of them, and the one that is certainly there right after it.

        What is after that is to be held back: the beginning of one, perhaps.
        """
        found = self.whole(text)
        size = len(text)
        for match in self._first.finditer(text, max(0, size - self._longest)):
            place = match.start()
            if found is not None and found.start() <= place:
                break
            if text[place:] in self._beginnings:
                return place, None
        return (size, None) if found is None else (found.start(), found)


_NEVER = "(?!)"


class Ending:
    """Text that comes in pieces and ends before the first of the texts sought.

    Attributes:
        held: what may be the beginning of one of them.
        over: whether one was found.
    """

    __slots__ = ("held", "over", "sought")

    def __init__(self, sought: Sought) -> None:
        self.sought = sought
        self.held: str = ""
        self.over = False

    def read(self, text: str) -> str:
        """What is now decided, of what was held and `text`."""
        text = self.held + text
        size, found = self.sought.find(text)
        self.over = found is not None
        self.held = "" if found else text[size:]
        return text[:size]

    def rest(self) -> str:
        """What is held, and is held no longer: in it may be one, inside of what became none."""
        text, self.held = self.held, ""
        found = self.sought.whole(text)
        self.over = found is not None
        return text[: found.start()] if found else text


class _Rewriting(abc.ObserverBase[Chunk]):
    """Text into other parts. What is no text passes, after what is held of the text before it."""

    __slots__ = ("emit", "observer", "over", "upstream")

    name: ClassVar[str]

    def __init__(self, observer: abc.ObserverBase[Chunk]) -> None:
        self.observer = observer
        self.emit: Callable[[Chunk], object] = observer.on_next
        self.over = False
        self.upstream = Serial()

    def start(self, source: Observable[Chunk], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        self.upstream.disposable = connect(source, self, scheduler)
        return self.upstream

    @abstractmethod
    def read(self, text: str) -> list[Part]:
        """What is now decided, of what was held and `text`."""

    @abstractmethod
    def rest(self) -> list[Part]:
        """What is held, and is held no longer."""

    @abstractmethod
    def forget(self) -> None:
        """The answer begins anew."""

    def rewritten(self, value: Chunk) -> list[Part]:
        """What `value` decides, until it is over."""
        if value.rest is None:
            return self.read(value.text)
        if value.rest.reset:
            self.forget()
        parts: list[Part] = []
        for part in value.parts:
            if isinstance(part, TextPart):
                parts += self.read(part.text)
            else:
                parts += self.rest()
                if not self.over:
                    parts.append(part)
            if self.over:
                break
        return parts

    def on_next(self, value: Chunk) -> None:
        parts = self.rewritten(value)
        if value.rest is None:
            self.say(parts)
        else:
            self.emit(_with(value, parts))

    def say(self, parts: list[Part]) -> None:
        only = parts[0] if len(parts) == 1 else None
        if type(only) is TextPart:
            self.emit(text_chunk(only.text))
        elif type(only) is ReasoningPart:
            self.emit(part_chunk(only))
        elif parts:
            self.emit(Chunk(parts=parts))

    def refuse(self, value: object) -> None:
        """What is no chunk is the end."""
        if not self.over:
            self.over = True
            self.emit = _unheard
            self.upstream.dispose()
            self.observer.on_error(no_chunk(self.name, value))

    def on_error(self, error: Exception) -> None:
        self.end(lambda: self.observer.on_error(error))

    def on_completed(self) -> None:
        self.end(self.observer.on_completed)

    def end(self, end: Callable[[], object]) -> None:
        """Ends as the source did, after what was held."""
        if not self.over:
            self.say(self.rest())
            end()


def _unheard(chunk: Chunk) -> None:
    """The stream was refused."""


def _with(chunk: Chunk, parts: list[Part]) -> Chunk:
    """A chunk that says the same but for its parts."""
    return Chunk(
        parts=parts,
        usage=chunk.usage,
        finish_reason=chunk.finish_reason,
        raw_finish_reason=chunk.raw_finish_reason,
        model=chunk.model,
        id=chunk.id,
        reset=chunk.reset,
        logprobs=chunk.logprobs,
    )


# Most chunks of reasoning are this one thing, and attrs' own frozen __init__ takes three times as long.
_ThawedPart = thawed(ReasoningPart)
_new: Callable[[Any], Any] = object.__new__


def _thought(text: str) -> Chunk:
    """What `Chunk` makes of one ReasoningPart."""
    part = _new(_ThawedPart)
    part.text = text
    part.signature = part.index = None
    part.__class__ = ReasoningPart
    return part_chunk(part)


def _text(text: str) -> list[Part]:
    return [TextPart(text)] if text else []


def _reasoning(text: str) -> list[Part]:
    return [ReasoningPart(text)] if text else []


class _Stopping(_Rewriting):
    __slots__ = ("begins", "ending")

    name = "stop_at()"

    def __init__(self, observer: abc.ObserverBase[Chunk], sought: Sought) -> None:
        super().__init__(observer)
        self.begins = sought.begins
        self.ending = Ending(sought)

    def on_next(self, value: Chunk) -> None:
        if self.over:
            return
        try:
            rest = value.rest
        except AttributeError:
            self.refuse(value)
            return
        if rest is None and not self.ending.held and self.begins(value.text) is None:
            self.emit(value)
            return
        super().on_next(value)
        if self.over:
            self.stop()

    def end(self, end: Callable[[], object]) -> None:
        """Ends as the source did, unless what was held has a sequence in it, inside of what became none."""
        if self.over:
            return
        self.say(self.rest())
        if self.over:
            self.stop()
        else:
            end()

    def stop(self) -> None:
        # Not the guard of the subscriber: an operator in between may keep what comes, and the end, for a while.
        self.upstream.dispose()
        self.emit(Chunk(finish_reason="stop"))
        self.observer.on_completed()

    def read(self, text: str) -> list[Part]:
        text = self.ending.read(text)
        self.over = self.ending.over
        return _text(text)

    def rest(self) -> list[Part]:
        text = self.ending.rest()
        self.over = self.ending.over
        return _text(text)

    def forget(self) -> None:
        self.ending.held = ""


_Stage = Literal["before", "reasoning", "gap", "answer"]


class _Splitting(_Rewriting):
    __slots__ = ("blank", "first", "held", "opening", "sought", "stage")

    name = "split_reasoning()"

    def __init__(self, observer: abc.ObserverBase[Chunk], opening: str, end: str, sought: Sought) -> None:
        super().__init__(observer)
        self.opening = opening
        self.first = end[0]
        self.sought = sought
        self.forget()

    def forget(self) -> None:
        self.held: str = ""
        self.blank: list[str] = []  # before the opening tag
        self.stage: _Stage = "before" if self.opening else "reasoning"

    def on_next(self, value: Chunk) -> None:
        try:
            facts = value.rest
        except AttributeError:
            self.refuse(value)
            return
        if self.stage == "reasoning" and facts is None and not self.held:
            text = value.text
            if self.first in text:
                text = self.find(text)
            if text:
                self.emit(_thought(text))
        elif self.stage == "answer" and (facts is None or not facts.reset):
            self.emit(value)
        else:
            super().on_next(value)

    def find(self, text: str) -> str:
        """What of the text is reasoning, where nothing is held; but of the last there is, everything is said here."""
        size, found = self.sought.find(text)
        if found is None:
            self.held = text[size:]
            return text[:size]
        self.say(self.read(text))
        return ""

    def read(self, text: str) -> list[Part]:
        parts: list[Part] = []
        if self.stage == "before":
            text = self.open(text)
        if self.stage == "reasoning":
            text = self.held + text
            size, found = self.sought.find(text)
            parts += _reasoning(text[:size])
            if found is None:
                self.held = text[size:]
                return parts
            self.held = ""
            self.stage = "gap"
            text = text[found.end() :]
        if self.stage == "gap":
            text = text.lstrip()
            if text:
                self.stage = "answer"
        return parts + _text(text)

    def open(self, text: str) -> str:
        """Reads the beginning of the answer. What is returned belongs to the stage after it."""
        if not self.held:
            word = text.lstrip()
            self.blank.append(text[: len(text) - len(word)])
            text = word
        text = self.held + text
        self.held = ""
        if text.startswith(self.opening):
            self.blank.clear()
            self.stage = "reasoning"
            return text[len(self.opening) :]
        if self.opening.startswith(text):  # also where nothing but whitespace has come
            self.held = text
            return ""
        self.stage = "answer"
        return self.begun(text)

    def rest(self) -> list[Part]:
        text, self.held = self.held, ""
        if self.stage == "reasoning":
            return _reasoning(text)
        return _text(self.begun(text))

    def begun(self, text: str) -> str:
        """An answer that begins with no tag keeps its whitespace."""
        blank, self.blank = self.blank, []
        return "".join([*blank, text])
