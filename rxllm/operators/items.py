"""`items`: the elements of a list in an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactivex import Observable, abc
from typing_extensions import TypeForm

from ..errors import ParseError
from ..misuse import MisuseError, is_text, shown
from ..runtime.source import Source
from ..shapes.elements import ElementReader
from ..shapes.growing import GrowingJSON
from ..shapes.shape import Shape, shape_of
from ..shapes.spelling import spelled
from ._documents import DocumentObserver
from ._pieces import Texts
from .stage import makes_operator

__all__ = ["items"]

T = TypeVar("T")


@makes_operator(adds_up="list")
def items(shape: TypeForm[T], key: str | None = None) -> Callable[[Texts], Observable[T]]:
    """Emit each element of a list in an answer as soon as the element is whole.

    ::

        -[{"na-me":"Ada"}-,{"name"-:"Alan"}]-|
        items(Person)
        -------Person(name='Ada')--Person(name='Alan')-|

    Shape: takes chunks or texts; emits values of the type. An object or a list is emitted at its closing bracket, a
    text at its closing quote, a number at the comma or bracket after it.

    Args:
        shape: the type of an element.
        key: the key of the list, if the answer is an object with the list in it. Without a key the answer has the shape
            ``list[T]``, as after ``llm.bind(shape=list[T])``.

    Errors: those of the source. `ParseError` for text that is not JSON, for an element that does not fit the type, for
    an answer without the list, and, with the reason ``"cut"``, for an answer that ends before its JSON does; elements
    before the error were emitted. `MisuseError` for a ``reset`` after an element, which cannot be taken back, and for a
    value that is not a Chunk or text.

    Raises:
        MisuseError: `shape` cannot be the shape of an answer, or `key` is not text.
    """
    if key is not None and not is_text(key):
        raise MisuseError(f"The key of items must be text, as in items(Step, key='steps'), not {shown(key)}.")
    element = shape_of(shape)

    def operator(source: Texts) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            return _Items(observer, element, key).start(cast("Observable[Any]", source), scheduler)

        return Source(subscribe)

    return operator


class _Items(DocumentObserver):
    """Emits the elements of one list.

    Attributes:
        emitted: the number of elements that were emitted.
    """

    __slots__ = ("element", "emitted", "key", "reader")

    def __init__(self, observer: abc.ObserverBase[Any], element: Shape[Any], key: str | None) -> None:
        super().__init__(observer, element.type)
        self.element = element
        self.key = key
        self.emitted = 0
        self.begin()

    def begin(self) -> None:
        if self.emitted:
            raise MisuseError(
                "The model restarted its answer after items() had emitted elements of it, which cannot be taken back. "
                "Use parse(), which takes the whole answer, drafts(), which honours the restart, or a model that does "
                "not restart."
            )
        self.reader = ElementReader(self.key, self.show)

    def read(self, text: str) -> None:
        self.reader.feed(text)

    def show(self, element: str) -> None:
        """Decode and emit an element that has become whole."""
        if self.upstream.is_disposed:
            return
        try:
            value = self.element.decode_element(element)
        except ParseError as error:
            if error.reason == "malformed":
                self.locate()
            raise self.placed(error) from None
        self.emitted += 1
        self.emit(value)

    def finish(self) -> None:
        self.reader.end()

    def locate(self) -> None:
        """Read the whole answer strictly, to find its error.

        Raises:
            ParseError: the answer is not valid JSON; the message has the place.
        """
        answer = self.arrived.message()
        if answer is not None:
            GrowingJSON().feed(answer.text)

    def placed(self, error: ParseError) -> ParseError:
        """Return the error of an element, with paths that begin at the top of the answer."""
        path = f"{self.reader.path}[{self.emitted}]"
        problems = [f"{what}, at {path}{below}" for what, _, below in (p.rpartition(", at $") for p in error.problems)]
        details = "; ".join(problems) or str(error)
        return ParseError(
            f"The element {path} of the answer does not fit {spelled(self.type)}: {details}.",
            reason=error.reason,
            path=path + error.path.removeprefix("$"),
            problems=problems,
        )
