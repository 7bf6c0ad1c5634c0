"""`Fold`: how the values of a stream become one answer, and the folds that stages declare.

The answer of a pipeline is the fold of its stream. Each rxllm operator declares its fold with `makes_operator`, and
a `Pipeline` uses the fold of its last stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from attrs import frozen
from reactivex import Observable, abc

from ..errors import RxllmError
from ..misuse import MisuseError
from ..runtime.source import Source, connect
from ..values.chunk import Chunk, join, text_chunk
from ..values.message import Message
from .observer import OperatorObserver

__all__ = [
    "BY_VALUE",
    "FOLDS",
    "LAST",
    "MESSAGE",
    "SAME",
    "TEXTS",
    "Collected",
    "Fold",
    "fold_of",
    "folded",
    "joined",
    "keep_partial",
    "no_chunk",
]

A = TypeVar("A")


@frozen(eq=False)
class Fold:
    """Turns the values of a stream into one answer.

    Attributes:
        finish: computes the answer from all values.
        shorten: replaces values by fewer values that give the same answer; None if every value must be kept.
    """

    finish: Callable[[list[Any]], Any]
    shorten: Callable[[list[Any]], list[Any]] | None = None


def no_chunk(operator: str, value: object) -> MisuseError:
    """The error of an operator that takes chunks, for any other value."""
    earlier = {"str": "text", "Message": "message", "Usage": "usage"}.get(type(value).__name__)
    hint = f"; remove {earlier}() before it." if earlier else "."
    return MisuseError(f"{operator} takes chunks, but got {type(value).__name__}{hint}")


def joined(name: str, chunks: Iterable[Chunk]) -> Chunk:
    """The sum of chunks. Values are checked only after the sum has failed, because a check costs time for each chunk.

    Raises:
        MisuseError: a value is not a Chunk; the message begins with `name`.
    """
    try:
        return join(chunks)
    except MisuseError:
        for value in chunks:
            if not isinstance(value, Chunk):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
                raise no_chunk(name, value) from None
        raise


def _message(values: list[Any]) -> Message:
    return _sum(values).message()


def _sum(values: list[Any]) -> Chunk:
    return joined('A stage declared with adds_up="message"', values)


def _text(values: list[Any]) -> str:
    try:
        return "".join(values)
    except TypeError:
        for value in values:
            if not isinstance(value, (str, Chunk, Message)):
                raise MisuseError(
                    f'A stage declared with adds_up="text" must emit text, but it emitted {type(value).__name__}. '
                    'Declare it with another fold, such as rxllm.stage(op, adds_up="list").'
                ) from None
        return "".join(map(str, values))


def _last(values: list[Any]) -> Any:
    if not values:
        raise RxllmError(
            "The stream completed without a value, so there is no answer. If a stream may be empty, end the pipeline "
            'with ops.default_if_empty(value), or declare its last stage with rxllm.stage(op, adds_up="list").'
        )
    return values[-1]


def _by_value(values: list[Any]) -> Any:
    shorter = _shorter(values)
    total = _last(shorter)
    return total.message() if isinstance(total, Chunk) and shorter[0] is not _MIXED else total


def _shorter(values: list[Any]) -> list[Any]:
    """One text for texts, one chunk for chunks; for mixed values, a marker and the last value."""
    for kind, add in _SUMS.items():
        if values and all(isinstance(value, kind) for value in values):
            return [add(values)]
    return [_MIXED, *values[-1:]] if len(values) > 1 else values


_MIXED = object()
_SUMS: dict[type, Callable[[list[Any]], Any]] = {str: "".join, Chunk: join}

MESSAGE = Fold(_message, lambda values: [_sum(values)])
LAST = Fold(_last, lambda values: values[-1:])
BY_VALUE = Fold(_by_value, _shorter)
"""The fold of stages that declare none: it joins texts, makes a Message of chunks, and else takes the last value."""
SAME = Fold(_by_value, _shorter)
"""The fold of stages that pass values on unchanged: the fold of the stage before applies."""
FOLDS: dict[str, Fold] = {
    "text": Fold(_text, lambda values: [_text(values)]),
    "message": MESSAGE,
    "list": Fold(list),
    "last": LAST,
}


def fold_of(stages: Iterable[object]) -> Fold:
    """The fold of the last stage that is not `SAME`, because such a stage passes values on unchanged."""
    for each in reversed(list(stages)):
        fold = getattr(each, "_fold", BY_VALUE)
        if fold is not SAME:
            return fold if isinstance(fold, Fold) else BY_VALUE
    return BY_VALUE


TEXTS = 1024  # texts that are joined at once
_FOLD_AT = 1024  # values
_NEVER = 2**63  # values


class Collected:
    """The values of a stream so far, for a fold. They become few objects, which saves the garbage collector work.

    Attributes:
        joins_texts: whether the text of a chunk without other content is kept in place of the chunk. The garbage
            collector does not track texts, and such a chunk is freed as soon as it is read.
        texts: the texts after the other values.
    """

    __slots__ = ("_bound", "_fold", "_values", "joins_texts", "texts")

    def __init__(self, fold: Fold) -> None:
        self.joins_texts = fold is MESSAGE
        self.texts: list[str] = []
        self._fold = fold
        self._values: list[Any] = []
        self._bound = _NEVER if fold.shorten is None else _FOLD_AT

    def add(self, value: object) -> None:
        """Keep a value."""
        if self.texts:
            self.join_texts()
        self._values.append(value)
        if len(self._values) > self._bound:
            self._shorten()

    def join_texts(self) -> None:
        """Make one chunk of the texts."""
        text = "".join(self.texts)
        self.texts.clear()
        self.add(text_chunk(text))

    def values(self) -> list[Any]:
        """Return values whose fold is that of all values so far."""
        if self.texts:
            self.join_texts()
        return self._values

    def _shorten(self) -> None:
        """Replace many values by few.

        The next time comes later for longer values, so that the total cost of copying stays linear.
        """
        if self._fold.shorten is not None:
            try:
                self._values = self._fold.shorten(self._values)
            except MisuseError:  # they cannot be folded, which the end of the stream reports
                self._bound = _NEVER
            else:
                last = self._values[-1]
                at_least = _FOLD_AT + (len(str(last)) // 64 if isinstance(last, (str, Chunk)) else 0)
                self._bound = max(at_least, 2 * len(self._values))


def folded(
    source: Observable[Any], finish: Callable[[list[Any]], A], read: Callable[[Any], Any] | None = None
) -> Source[A]:
    """Emit one value, computed from all values at the end. On an error, values so far become the error's `partial`.

    `read` converts each value as it arrives. `ops.map` would do the same, but its subscription costs a tenth of a
    request. A MisuseError of `read` ends the stream.
    """

    def subscribe(observer: abc.ObserverBase[A], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        return connect(source, _Folding(observer, finish, read), scheduler)

    return Source(subscribe)


def keep_partial(error: Exception, values: list[Any]) -> None:
    """Set the error's `partial` to the answer so far, if the values are chunks and the error has no partial yet."""
    if isinstance(error, RxllmError) and error.partial is None and values:
        with suppress(MisuseError):  # the values are not chunks
            error.partial = _message(values)


class _Folding(OperatorObserver[Any, Any]):
    """Collects all values, and folds them once at the end: a sum at each step would copy the text each time."""

    __slots__ = ("finish", "read", "values")

    def __init__(
        self,
        observer: abc.ObserverBase[Any],
        finish: Callable[[list[Any]], Any],
        read: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(observer)
        self.finish = finish
        self.read = read
        self.values: list[Any] = []

    def on_next(self, value: Any) -> None:
        try:
            self.values.append(value if self.read is None else self.read(value))
        except MisuseError as error:
            self.on_error(error)

    def on_error(self, error: Exception) -> None:
        if not self.ended:
            keep_partial(error, self.values)
        super().on_error(error)

    def on_completed(self) -> None:
        self.end(self.emit_answer)

    def emit_answer(self) -> None:
        try:
            answer = self.finish(self.values)
        except Exception as error:
            self.observer.on_error(error)
            return
        self.observer.on_next(answer)
        self.observer.on_completed()
