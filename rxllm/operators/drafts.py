"""`drafts`: the growing value of an answer in JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactivex import Observable, abc
from typing_extensions import TypeForm

from ..runtime.source import Source
from ..shapes.growing import NOTHING, GrowingJSON
from ..shapes.outline import Outline
from ..shapes.shape import WRAPPER, Shape, shape_of
from ._documents import DocumentObserver
from ._pieces import Texts
from .stage import makes_operator

__all__ = ["drafts"]

T = TypeVar("T")


@makes_operator(adds_up="last")
def drafts(shape: TypeForm[T] = Any) -> Callable[[Texts], Observable[Any]]:
    """Emit the value of an answer in JSON while it grows, as plain data: dicts, lists, texts, numbers.

    ::

        -{"ti-tle":"Pan-cakes","min-utes":2-0}-|
        drafts(Recipe)
        -{}---{'title': 'Pan'}-{'title': 'Pancakes'}-{'title': 'Pancakes', 'minutes': 20}-|

    A draft shows what no later text takes back. A text, an object and a list grow. A number, ``true``, ``false``,
    ``null`` and a key appear when they are whole, and so do the values of `Literal`, enums, dates, UUIDs, decimals and
    bytes in `shape`. Drafts share the parts that are whole, so do not change a draft.

    Shape: takes chunks or texts; emits plain data, which is not checked against `shape`. For values of the type use
    `parse` at the end, or `items` for the elements of a list. A draft is emitted when it differs from the one before,
    and the last one is the whole value. The total cost is linear in the length of the answer: while a value is very
    large, several chunks may pass before the next draft. After a chunk with ``reset`` the value starts anew.

    Args:
        shape: the type that the answer has; `Any` for any JSON. If `shape` is not an object, such as ``list[int]``,
            drafts show the value without the object around it in which models send it.

    Errors: those of the source. `ParseError` for text that is not JSON as RFC 8259 defines it, for text after the
    value, for a key that comes twice, for more than 128 levels, and, with the reason ``"cut"``, for an answer that ends
    before the value does. The last draft comes before the error. `MisuseError` for a value that is not a Chunk or text.

    Raises:
        MisuseError: `shape` cannot be the shape of an answer.
    """
    known = None if shape is Any else shape_of(shape)
    outline = None if known is None else Outline.of(known.schema, WRAPPER if known.wrapped else None)

    def operator(source: Texts) -> Observable[Any]:
        def subscribe(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            drafting = _Drafts(observer, known, outline)
            return drafting.start(cast("Observable[Any]", source), scheduler)

        return Source(subscribe)

    return operator


class _Drafts(DocumentObserver):
    """Emits the drafts of one document.

    Attributes:
        latest: the draft that was emitted last.
    """

    __slots__ = ("growing", "latest", "outline", "wrapped")

    def __init__(self, observer: abc.ObserverBase[Any], shape: Shape[Any] | None, outline: Outline | None) -> None:
        super().__init__(observer, None if shape is None else shape.type)
        self.wrapped = shape is not None and shape.wrapped
        self.outline = outline
        self.begin()

    def begin(self) -> None:
        self.growing = GrowingJSON(self.outline)
        self.latest: Any = NOTHING

    def read(self, text: str) -> None:
        self.growing.feed(text)
        self.show(self.growing.next_draft())

    def finish(self) -> None:
        self.growing.end()

    def flush(self) -> None:
        if self.growing.has_changed:
            self.show(self.growing.draft())

    def show(self, draft: Any) -> None:
        """Emit a draft without its wrapper, if it is a new one."""
        if self.wrapped and isinstance(draft, dict):
            members = cast("dict[str, Any]", draft)
            is_wrapper = next(iter(members), WRAPPER) == WRAPPER
            draft = members.get(WRAPPER, NOTHING) if is_wrapper else members
            if is_wrapper and len(members) > 1 and draft == self.latest:  # another member has changed
                return
        if draft is not NOTHING:
            self.latest = draft
            self.emit(draft)
