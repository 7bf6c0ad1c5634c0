"""The base of the operators that search for a text and rewrite chunks: `stop_at`, `split_reasoning`."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..values.chunk import Chunk, part_chunk, text_chunk, thawed
from ..values.parts import Part, ReasoningPart, TextPart
from .adding_up import no_chunk
from .observer import RefusingObserver

__all__ = ["Ending", "Sought"]


class Sought:
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
    """Text in pieces that ends before the first of the sought texts.

    Attributes:
        held: text that may be the beginning of a sought text.
        found: whether a sought text was found.
    """

    __slots__ = ("found", "held", "sought")

    def __init__(self, sought: Sought) -> None:
        self.sought = sought
        self.held: str = ""
        self.found = False

    def read(self, text: str) -> str:
        """Adds text, and returns what certainly precedes a sought text."""
        text = self.held + text
        size, found = self.sought.find(text)
        self.found = found is not None
        self.held = "" if found else text[size:]
        return text[:size]

    def rest(self) -> str:
        """Returns the held text at the end of the stream, up to a sought text within it.

        Held text may contain a shorter sought text, when it began a longer one that did not come.
        """
        text, self.held = self.held, ""
        found = self.sought.whole(text)
        self.found = found is not None
        return text[: found.start()] if found else text


class Rewriting(RefusingObserver[Chunk, Chunk]):
    """Rewrites the text of chunks into parts. Parts of other kinds pass, after the text that was held before them."""

    __slots__ = ()

    name: ClassVar[str]

    @abstractmethod
    def read(self, text: str) -> list[Part]:
        """Adds text, and returns the parts that are certain now."""

    @abstractmethod
    def rest(self) -> list[Part]:
        """Returns the held text as parts, and holds nothing any more."""

    @abstractmethod
    def forget(self) -> None:
        """Drops the held text, because the answer starts again."""

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
            self.emit(_with_parts(value, parts))

    def emit_parts(self, parts: list[Part]) -> None:
        """Emits a chunk of the parts, if there are any."""
        only = parts[0] if len(parts) == 1 else None
        if type(only) is TextPart:
            self.emit(text_chunk(only.text))
        elif type(only) is ReasoningPart:
            self.emit(part_chunk(only))
        elif parts:
            self.emit(Chunk(parts=parts))

    def refuse_value(self, value: object) -> None:
        """Ends the stream with an error, because the value is not a Chunk."""
        self.refuse(no_chunk(self.name, value))

    def end(self, notify: Callable[[], object]) -> None:
        """Emits the held text before the stream ends."""
        if not self.ended:
            self.emit_parts(self.rest())
            super().end(notify)


def _with_parts(chunk: Chunk, parts: list[Part]) -> Chunk:
    """A copy of the chunk with other parts."""
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


# Most chunks of reasoning are one ReasoningPart, and the frozen __init__ of attrs takes three times as long.
ThawedPart = thawed(ReasoningPart)


new_object: Callable[[Any], Any] = object.__new__
