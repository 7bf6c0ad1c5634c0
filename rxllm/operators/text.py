"""`text`: the text of chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.source import Source
from ..values.chunk import Chunk
from .observer import RefusingObserver
from .stage import makes_operator

__all__ = ["read", "text"]


@makes_operator(adds_up="text")
def text() -> Callable[[Observable[Chunk]], Observable[str]]:
    """Emit the text of each chunk; chunks without text are left out.

    ::

        -Hel-lo-(usage)-|
        text()
        -Hel-lo---------|

    Shape: takes chunks, strings and whole Messages; emits strings.

    Errors: those of the source. `MisuseError` for a chunk with ``reset``, which discards the earlier chunks: text that
    was emitted cannot be taken back. Use `message`, which honours a reset, or a model that does not restart.
    """

    def operator(source: Observable[Chunk]) -> Observable[str]:
        return Source(lambda observer, scheduler: read(source, observer, scheduler))

    return operator


def read(
    source: Observable[Any], observer: abc.ObserverBase[str], scheduler: abc.SchedulerBase | None
) -> abc.DisposableBase:
    """Subscribe to the text of chunks, strings and whole Messages."""
    return _Texts(observer).start(source, scheduler)


class _Texts(RefusingObserver[Chunk | str, str]):
    __slots__ = ()

    def on_next(self, value: Chunk | str) -> None:
        if type(value) is not Chunk:
            try:
                value = Chunk.of(value)
            except MisuseError as error:
                self.refuse(error)
                return
        rest = value.rest
        if rest is not None and rest.reset:
            self.refuse(
                MisuseError(
                    "The model restarted its answer after text() had emitted text of it, which cannot be taken back. "
                    "Use message(), which honours the restart."
                )
            )
        elif value.text:
            self.emit(value.text)
