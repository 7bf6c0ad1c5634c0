"""`stop_at`: end the stream where a text begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.source import Source
from ..values.chunk import Chunk
from ..values.parts import Part
from .rewriting import Ending, Rewriting, Sought
from .split_reasoning import text_parts
from .stage import makes_operator

__all__ = ["stop_at"]


@makes_operator(adds_up="message")
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


class _Stopping(Rewriting):
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
        return text_parts(text)

    def rest(self) -> list[Part]:
        text = self.ending.rest()
        self.over = self.ending.over
        return text_parts(text)

    def forget(self) -> None:
        self.ending.held = ""
