"""What the values of a stream add up to: `Fold`, and the folds that stages declare.

The answer of a pipeline is what its stream adds up to. Each operator of ours declares its fold, see `makes_operator`,
and a `Pipeline` takes that of its last stage.
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
from ..values.chunk import Chunk, join
from ..values.message import Message

__all__ = [
    "BY_VALUE",
    "FOLDS",
    "LAST",
    "MESSAGE",
    "SAME",
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
    """How the values of a stream become one answer.

    Attributes:
        finish: the answer of all values.
        shorten: fewer values with the same answer, which cost less to keep; None where each value counts.
    """

    finish: Callable[[list[Any]], Any]
    shorten: Callable[[list[Any]], list[Any]] | None = None


def no_chunk(operator: str, value: object) -> MisuseError:
    """The error of an operator of chunks that gets something else."""
    earlier = {"str": "text", "Message": "message", "Usage": "usage"}.get(type(value).__name__)
    hint = f"; is {earlier}() before it?" if earlier else "."
    return MisuseError(f"{operator} takes chunks, but got {type(value).__name__}{hint}")


def joined(name: str, chunks: Iterable[Chunk]) -> Chunk:
    """The sum of chunks. It looks for a value that is not a chunk only after the sum has failed.

    Raises:
        MisuseError: a value is not a chunk; the sentence begins with `name`.
    """
    try:
        return join(chunks)
    except AttributeError:
        for value in chunks:
            if not isinstance(value, Chunk):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
                raise no_chunk(name, value) from None
        raise


def _message(values: list[Any]) -> Message:
    return _sum(values).message()


def _sum(values: list[Any]) -> Chunk:
    return joined('A stage that is declared to add up to a "message"', values)


def _text(values: list[Any]) -> str:
    try:
        return "".join(values)
    except TypeError:
        for value in values:
            if not isinstance(value, (str, Chunk, Message)):
                raise MisuseError(
                    f'A stage that is declared to add up to a "text" emits text, but got {type(value).__name__}. '
                    'Declare it otherwise, as in rxllm.stage(op, adds_up="list").'
                ) from None
        return "".join(map(str, values))


def _last(values: list[Any]) -> Any:
    if not values:
        raise RxllmError(
            "The stream completed without a value, so there is no answer. Where that may happen, end the pipeline with "
            'ops.default_if_empty(value), or declare its last stage with rxllm.stage(op, adds_up="list").'
        )
    return values[-1]


def _by_value(values: list[Any]) -> Any:
    shorter = _shorter(values)
    total = _last(shorter)
    return total.message() if isinstance(total, Chunk) and shorter[0] is not _MIXED else total


def _shorter(values: list[Any]) -> list[Any]:
    """One text of texts, one chunk of chunks; of a mixture, a mark that it is one, and the last value."""
    for kind, add in _SUMS.items():
        if values and all(isinstance(value, kind) for value in values):
            return [add(values)]
    return [_MIXED, *values[-1:]] if len(values) > 1 else values


_MIXED = object()
_SUMS: dict[type, Callable[[list[Any]], Any]] = {str: "".join, Chunk: join}

MESSAGE = Fold(_message, lambda values: [_sum(values)])
LAST = Fold(_last, lambda values: values[-1:])
BY_VALUE = Fold(_by_value, _shorter)
"""For stages that declare nothing: texts join, chunks are a Message, and of anything else the last value counts."""
SAME = Fold(_by_value, _shorter)
"""For stages that pass values on: they add up as they did before this stage."""
FOLDS: dict[str, Fold] = {
    "text": Fold(_text, lambda values: [_text(values)]),
    "message": MESSAGE,
    "list": Fold(list),
    "last": LAST,
}


def fold_of(stages: Iterable[object]) -> Fold:
    """How the values of the last of these stages add up; a stage that passes values on leaves it to the one before."""
    for each in reversed(list(stages)):
        fold = getattr(each, "_fold", BY_VALUE)
        if fold is not SAME:
            return fold if isinstance(fold, Fold) else BY_VALUE
    return BY_VALUE


def folded(source: Observable[Any], finish: Callable[[list[Any]], A]) -> Source[A]:
    """One value of all values, at the end. What came before a failure is the error's partial."""

    def subscribe(observer: abc.ObserverBase[A], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        return connect(source, _Folding(observer, finish), scheduler)

    return Source(subscribe)


def keep_partial(error: Exception, values: list[Any]) -> None:
    """Gives the error, unless it has one, the partial answer that these chunks are: nobody else has seen it."""
    if isinstance(error, RxllmError) and error.partial is None and values:
        with suppress(MisuseError):  # they are not chunks
            error.partial = _message(values)


class _Folding(abc.ObserverBase[Any]):
    """A list and one fold at the end: adding up at each step would copy the text each time."""

    __slots__ = ("finish", "observer", "over", "values")

    def __init__(self, observer: abc.ObserverBase[Any], finish: Callable[[list[Any]], Any]) -> None:
        self.observer = observer
        self.finish = finish
        self.values: list[Any] = []
        self.over = False

    def on_next(self, value: Any) -> None:
        self.values.append(value)

    def on_error(self, error: Exception) -> None:
        if self.over:
            return
        self.over = True
        keep_partial(error, self.values)
        self.observer.on_error(error)

    def on_completed(self) -> None:
        if self.over:
            return
        self.over = True
        try:
            answer = self.finish(self.values)
        except Exception as error:
            self.observer.on_error(error)
            return
        self.observer.on_next(answer)
        self.observer.on_completed()
