"""The base of the operators that search for a text and rewrite chunks: `stop_at`, `split_reasoning`."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..extensible import mutable_class
from ..values.chunk import Chunk, part_chunk, text_chunk, with_parts
from ..values.parts import Part, ReasoningPart, TextPart
from .adding_up import no_chunk
from .observer import RefusingObserver

__all__ = ["Ending", "Patterns"]


class Patterns:
    """Texts to find in a stream. An empty set of texts is never found.

    Attributes:
        begins: finds a character that begins one of the texts.
        whole: finds the first complete one of the texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # An alternation takes its first branch that matches. Of two texts where one begins the other, the shorter
        # one is complete sooner, so it comes first.
        ordered = sorted(set(texts), key=len)
        self.whole = re.compile("|".join(map(re.escape, ordered)) or _NEVER).search
        firsts = re.escape("".join(sorted({text[0] for text in texts})))
        self._first = re.compile(f"[{firsts}]" if firsts else _NEVER)
        self._beginnings = frozenset(text[:size] for text in texts for size in range(1, len(text)))
        self._longest = max(map(len, texts), default=1) - 1
        self.begins = self._first.search

    def find(self, text: str) -> tuple[int, re.Match[str] | None]:
        """The size of the text that certainly precedes each match, and the match that follows right after it.

        Without a match, the text after that size may be the beginning of one, and must be held back.
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
    """Text in pieces that ends before the first match of a pattern.

    Attributes:
        held: text that may be the beginning of a match.
        found: whether a pattern has matched.
    """

    __slots__ = ("found", "held", "patterns")

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns
        self.held: str = ""
        self.found = False

    def read(self, text: str) -> str:
        """Add text, and return the text that certainly precedes a match."""
        text = self.held + text
        size, found = self.patterns.find(text)
        self.found = found is not None
        self.held = "" if found else text[size:]
        return text[:size]

    def rest(self) -> str:
        """Return the held text at the end of the stream, up to a match within it.

        Held text may contain a match of a shorter pattern, if it began with a longer pattern that did not continue.
        """
        text, self.held = self.held, ""
        found = self.patterns.whole(text)
        self.found = found is not None
        return text[: found.start()] if found else text


class Rewriting(RefusingObserver[Chunk, Chunk]):
    """Rewrites the text of chunks into parts. Parts of other kinds pass, after the text that was held before them."""

    __slots__ = ()

    name: ClassVar[str]

    @abstractmethod
    def read(self, text: str) -> list[Part]:
        """Add text, and return the parts that are certain now."""

    @abstractmethod
    def rest(self) -> list[Part]:
        """Return the held text as parts, and forget it."""

    @abstractmethod
    def forget(self) -> None:
        """Drop the held text, because the answer starts again."""

    def rewritten(self, value: Chunk) -> list[Part]:
        """The parts that are certain after this chunk; none of them come after the end of the stream."""
        if value.rest is None:
            return self.read(value.text)
        if value.rest.reset:
            self.forget()
        parts: list[Part] = []
        for part in value.parts:
            if isinstance(part, TextPart):
                parts += self.read(part.text)
                if part.citations and not self.ended:
                    parts.append(TextPart("", part.citations))
            else:
                parts += self.rest()
                if not self.ended:
                    parts.append(part)
            if self.ended:
                break
        return parts

    def on_next(self, value: Chunk) -> None:
        parts = self.rewritten(value)
        if value.rest is None:
            self.emit_parts(parts)
        else:
            self.emit(with_parts(value, parts))

    def emit_parts(self, parts: list[Part]) -> None:
        """Emit a chunk of the parts, if there are any."""
        only = parts[0] if len(parts) == 1 else None
        if type(only) is TextPart:
            self.emit(text_chunk(only.text))
        elif type(only) is ReasoningPart:
            self.emit(part_chunk(only))
        elif parts:
            self.emit(Chunk(parts=parts))

    def refuse_value(self, value: object) -> None:
        """End the stream with an error, because the value is not a Chunk."""
        self.refuse(no_chunk(self.name, value))

    def end(self, notify: Callable[[], object]) -> None:
        """Emit the held text before the stream ends."""
        if not self.ended:
            self.emit_parts(self.rest())
            super().end(notify)


# Most chunks of reasoning are one ReasoningPart, and the frozen __init__ of attrs takes three times as long.
MutablePart = mutable_class(ReasoningPart)


new_object: Callable[[Any], Any] = object.__new__
