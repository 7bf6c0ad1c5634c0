"""The base of the operators that cut text into pieces: `words`, `lines`, `sentences`."""

from __future__ import annotations

import re
from collections.abc import Callable

from reactivex import Observable, abc

from ..runtime.source import Source
from ..values.chunk import Chunk
from .observer import OperatorObserver
from .text import read

__all__ = ["Pieces", "Texts", "cutting"]


Texts = Observable[Chunk] | Observable[str]
"""Chunks or strings: both carry text."""


def cutting(cutter: Callable[[abc.ObserverBase[str]], abc.ObserverBase[str]]) -> Callable[[Texts], Observable[str]]:
    """The operator whose observer `cutter` makes."""

    def operator(source: Texts) -> Observable[str]:
        return Source(lambda observer, scheduler: read(source, cutter(observer), scheduler))

    return operator


class Pieces(OperatorObserver[str, str]):
    """Cuts text after each match of `boundary`.

    A boundary matches one character and looks ahead at one more, so that no text is searched twice.

    Attributes:
        held: the text since the last boundary, as it came. A string grows at each append; a list does not copy.
        skips_blank: whether whitespace is held until the first word comes, to which it belongs.
    """

    __slots__ = ("held", "search", "skips_blank")

    def __init__(self, observer: abc.ObserverBase[str], boundary: str, *, skips_blank: bool) -> None:
        super().__init__(observer)
        self.search = re.compile(boundary).search
        self.skips_blank = skips_blank
        self.held: list[str] = []

    def on_next(self, value: str) -> None:
        self.take(value, self.search)

    def take(self, value: str, search: Callable[[str, int], re.Match[str] | None]) -> None:
        """Add text, and cut after each match of `search`."""
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
        """Emit the held text as one piece; whitespace before the first word stays held."""
        held = self.held
        piece = held[0] if len(held) == 1 else "".join(held)
        if self.skips_blank:
            if piece.isspace():
                self.held = [piece]
                return
            self.skips_blank = False
        self.held = []
        self.emit(piece)

    def end(self, notify: Callable[[], object]) -> None:
        """Emit the rest of the text before the stream ends."""
        held, self.held = self.held, []
        if held:
            self.emit("".join(held))
        super().end(notify)
