"""`parse`: the value of an answer in JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactivex import Observable, abc
from typing_extensions import TypeForm

from ..errors import ParseError
from ..runtime.source import Source
from ..shapes.shape import Shape, shape_of
from ._documents import DocumentObserver
from ._pieces import Texts
from .stage import makes_operator

__all__ = ["parse"]

T = TypeVar("T")


@makes_operator(adds_up="last")
def parse(shape: TypeForm[T]) -> Callable[[Texts], Observable[T]]:
    """Emit the value of an answer in JSON at its end, as a Python type.

    ::

        -{"ti-tle":"Pan-cakes"}-|
        parse(Recipe)
        ------------------------Recipe(title='Pancakes')|

    Shape: takes chunks or texts; emits one value of the type. The whole text of the answer must be the JSON value: text
    around it is an error. ``llm.bind(shape=T)`` asks a model for such an answer, in the way that suits the provider.

    Args:
        shape: a class of attrs, dataclasses, msgspec or pydantic, a TypedDict, a NamedTuple, an enum, or a list, dict,
            union or Literal of such types and of plain values. Classes are called with the fields, so converters and
            validators run. Unknown fields are refused. A null stands for the default of a field that can't be null.
            Of a key that comes twice in one object the last value counts, as in `json.loads`.

    Errors: those of the source. `ParseError`, whose ``reason`` says what is wrong, for an answer that the model
        refused, that ended too early, that is no JSON value, or that does not fit the type. `MisuseError` for a value
        that is not a Chunk or text.

    Raises:
        MisuseError: `shape` cannot be the shape of an answer.
    """
    known = shape_of(shape)

    def operator(source: Texts) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            return _Parsing(observer, known).start(cast("Observable[Any]", source), scheduler)

        return Source(subscribe)

    return operator


class _Parsing(DocumentObserver):
    """Keeps the text of an answer, and decodes it at the end."""

    __slots__ = ("shape", "texts")

    def __init__(self, observer: abc.ObserverBase[Any], shape: Shape[Any]) -> None:
        super().__init__(observer, shape.type)
        self.shape = shape
        self.begin()

    def begin(self) -> None:
        self.texts: list[str] = []

    def read(self, text: str) -> None:
        self.texts.append(text)

    def finish(self) -> None:
        answer = self.arrived.message()
        text = "".join(self.texts)
        if not text or (answer is not None and (answer.refusal or answer.finish_reason in _BROKEN_OFF)):
            raise ParseError("The answer is not whole.", reason="cut")  # the base finds out why
        self.emit(self.shape.decode_text(text))


_BROKEN_OFF = ("length", "content_filter")
