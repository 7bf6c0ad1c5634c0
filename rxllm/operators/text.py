"""`text`: the text of chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from .stage import makes_operator

__all__ = ["read", "text"]


@makes_operator(adds_up="text")
def text() -> Callable[[Observable[Chunk]], Observable[str]]:
    """Each chunk's text as it comes; chunks without text are left out.

    ::

        -Hel-lo-(usage)-|
        text()
        -Hel-lo---------|

    Shape: takes chunks; texts and whole Messages, too, whose text it gives.

    Errors: `MisuseError` for a chunk that takes back what came before (``reset``): emitted text can't be unsaid. Fold
    with `message` instead, or let nothing restart the stream.
    """

    def operator(source: Observable[Chunk]) -> Observable[str]:
        return Source(lambda observer, scheduler: read(source, observer, scheduler))

    return operator


def read(
    source: Observable[Any], observer: abc.ObserverBase[str], scheduler: abc.SchedulerBase | None
) -> abc.DisposableBase:
    """Subscribes to the text of chunks; of strings and whole Messages, too."""
    texts = _Texts(observer)
    texts.upstream.disposable = connect(source, texts, scheduler)
    return texts.upstream


class _Texts(abc.ObserverBase[Chunk | str]):
    __slots__ = ("emit", "observer", "over", "upstream")

    def __init__(self, observer: abc.ObserverBase[str]) -> None:
        self.observer = observer
        self.emit: Callable[[str], None] = observer.on_next
        self.over = False
        self.upstream = LockFreeSerialDisposable()

    def on_next(self, value: Chunk | str) -> None:
        if type(value) is not Chunk:
            try:
                value = Chunk.of(value)
            except MisuseError as error:
                self.refuse(error)
                return
        rest = value.rest
        if rest is not None and rest.reset:
            self.refuse(MisuseError("The stream began anew after its text had been emitted; fold it with message()."))
        elif value.text:
            self.emit(value.text)

    def refuse(self, error: MisuseError) -> None:
        self.upstream.dispose()  # who hears of it may be slow to leave, and all would be paid for until then
        self.emit = _unheard
        self.on_error(error)

    def on_error(self, error: Exception) -> None:
        if not self.over:
            self.over = True
            self.observer.on_error(error)

    def on_completed(self) -> None:
        if not self.over:
            self.over = True
            self.observer.on_completed()


def _unheard(text: str) -> None:
    """The text was refused."""
