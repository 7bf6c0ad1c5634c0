"""The observer under the operators that search for a text and rewrite chunks."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from reactivex import Observable, abc

from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.source import connect
from ..values.chunk import Chunk, part_chunk, text_chunk, thawed
from ..values.parts import Part, ReasoningPart, TextPart
from .adding_up import no_chunk

__all__ = ["Ending", "Sought"]


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


class Rewriting(abc.ObserverBase[Chunk]):
    """Text into other parts. What is no text passes, after what is held of the text before it."""

    __slots__ = ("emit", "observer", "over", "upstream")

    name: ClassVar[str]

    def __init__(self, observer: abc.ObserverBase[Chunk]) -> None:
        self.observer = observer
        self.emit: Callable[[Chunk], object] = observer.on_next
        self.over = False
        self.upstream = LockFreeSerialDisposable()

    def start(self, source: Observable[Chunk], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes to the source."""
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
                if part.citations and not self.over:
                    parts.append(TextPart("", part.citations))
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
        """Emits a chunk of the parts."""
        only = parts[0] if len(parts) == 1 else None
        if type(only) is TextPart:
            self.emit(text_chunk(only.text))
        elif type(only) is ReasoningPart:
            self.emit(part_chunk(only))
        elif parts:
            self.emit(Chunk(parts=parts))

    def refuse(self, value: object) -> None:
        """Ends the stream with an error: this value is no Chunk."""
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
        """Emits what is held, and then the end."""
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
ThawedPart = thawed(ReasoningPart)


new_object: Callable[[Any], Any] = object.__new__
