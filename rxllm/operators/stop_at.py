"""`stop_at`: end the stream where a text begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.source import Source
from ..values.chunk import Chunk
from ..values.parts import Part
from .rewriting import Ending, Patterns, Rewriting
from .split_reasoning import text_parts
from .stage import makes_operator

__all__ = ["stop_at"]


@makes_operator(adds_up="message")
def stop_at(*sequences: str) -> Callable[[Observable[Chunk]], Observable[Chunk]]:
    r"""End the answer before the first of these texts, for providers without `stop_sequences`; any number of texts.

    ::

        -Fine.-\nHu-man: W-hy?-|
        stop_at("\nHuman:")
        -Fine.------|

    Shape: takes and emits chunks. The last chunk has ``finish_reason="stop"``. The operator disposes the source when
    it finds a sequence, which closes the connection, so the usage that a server sends at the end is missing. It holds
    back only text that may be the beginning of a sequence. If several sequences match, the first match ends the
    answer. A sequence may run over several chunks, but not across a part of another kind, such as a tool call. A
    ``reset`` drops the held text.

    Errors: those of the source, after the held text; `MisuseError` for a value that is not a Chunk.
    """
    if not sequences or not all(isinstance(cast("object", sequence), str) and sequence for sequence in sequences):
        raise MisuseError(f"stop_at takes one or more texts that are not empty, but got {sequences!r}.")
    patterns = Patterns(sequences)

    def operator(source: Observable[Chunk]) -> Observable[Chunk]:
        return Source(lambda observer, scheduler: _Stopping(observer, patterns).start(source, scheduler))

    return operator


class _Stopping(Rewriting):
    __slots__ = ("begins", "ending")

    name = "stop_at()"

    def __init__(self, observer: abc.ObserverBase[Chunk], patterns: Patterns) -> None:
        super().__init__(observer)
        self.begins = patterns.begins
        self.ending = Ending(patterns)

    def on_next(self, value: Chunk) -> None:
        if self.ended:
            return
        try:
            rest = value.rest
        except AttributeError:
            self.refuse_value(value)
            return
        if rest is None and not self.ending.held and self.begins(value.text) is None:
            self.emit(value)
            return
        super().on_next(value)
        if self.ended:
            self.stop()

    def end(self, notify: Callable[[], object]) -> None:
        """End as the source did, unless the held text contains a sequence."""
        if self.ended:
            return
        self.emit_parts(self.rest())
        if self.ended:
            self.stop()
        else:
            self.ended = True
            notify()

    def stop(self) -> None:
        # The subscriber's own guard may dispose later: an operator in between may delay the chunk and the completion.
        self.upstream.dispose()
        self.emit(Chunk(finish_reason="stop"))
        self.observer.on_completed()

    def read(self, text: str) -> list[Part]:
        text = self.ending.read(text)
        self.ended = self.ending.found
        return text_parts(text)

    def rest(self) -> list[Part]:
        text = self.ending.rest()
        self.ended = self.ending.found
        return text_parts(text)

    def forget(self) -> None:
        self.ending.held = ""
