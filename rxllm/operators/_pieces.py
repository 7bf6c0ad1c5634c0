"""The observer under the operators that cut text into pieces."""

from __future__ import annotations

import re
from collections.abc import Callable

from reactivex import Observable, abc

from ..runtime.source import Source
from ..values.chunk import Chunk
from .text import read

__all__ = ["Texts"]


Texts = Observable[Chunk] | Observable[str]
"""Chunks or strings: text either way."""


def cutting(cutter: Callable[[abc.ObserverBase[str]], abc.ObserverBase[str]]) -> Callable[[Texts], Observable[str]]:
    """The operator whose observer `cutter` makes."""

    def operator(source: Texts) -> Observable[str]:
        return Source(lambda observer, scheduler: read(source, cutter(observer), scheduler))

    return operator


class Pieces(abc.ObserverBase[str]):
    """Cuts behind what the pattern matches, which is one character and sees one ahead: no text is read twice."""

    __slots__ = ("emit", "held", "observer", "search", "skips_blank")

    def __init__(self, observer: abc.ObserverBase[str], boundary: str, *, skips_blank: bool) -> None:
        self.observer = observer
        self.emit = observer.on_next
        self.search = re.compile(boundary).search
        self.skips_blank = skips_blank
        self.held: list[str] = []

    def on_next(self, value: str) -> None:
        self.take(value, self.search)

    def take(self, value: str, search: Callable[[str, int], re.Match[str] | None]) -> None:
        """Cuts where it finds something."""
        held = self.held
        offset = 1 if held else 0
        window = held[-1][-1] + value if held else value
        start = 0
        match = search(window, 0)
        while match is not None:
            end = match.end()
            if end - offset > start:
                held.append(value[start : end - offset])
                start = end - offset
            self.cut()
            held = self.held
            match = search(window, end)
        if start < len(value):
            held.append(value[start:] if start else value)

    def cut(self) -> None:
        """Emits the piece that is held."""
        """Emits what is held; but blanks before the first word, which belong to it."""
        held = self.held
        piece = held[0] if len(held) == 1 else "".join(held)
        if self.skips_blank:
            if piece.isspace():
                self.held = [piece]
                return
            self.skips_blank = False
        self.held = []
        self.emit(piece)

    def finish(self) -> None:
        """Emits what is left at the end of the stream."""
        held, self.held = self.held, []
        if held:
            self.emit("".join(held))

    def on_error(self, error: Exception) -> None:
        self.finish()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.finish()
        self.observer.on_completed()
