"""`call_drafts`: the arguments of tool calls while the model writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import evolve, field, frozen
from reactivex import Observable, abc

from ..errors import ParseError
from ..misuse import MisuseError, shown
from ..public import Public
from ..runtime.source import Source
from ..shapes.growing import NOTHING, GrowingJSON
from ..showing import brief
from ..values.chunk import Chunk
from ..values.parts import ToolCallPart, ends_round
from .observer import RefusingObserver
from .stage import makes_operator

__all__ = ["CallDraft", "call_drafts"]


@frozen
class CallDraft(metaclass=Public):
    """A tool call that the model is writing.

    Attributes:
        index: the place of the call among the calls of its round. Calls may be written at the same time.
        id: the id of the call; empty while the server has sent none.
        name: the name of the tool.
        arguments: the arguments so far, as plain data. Drafts share what is whole, so do not change them.
    """

    index: int
    id: str
    name: str
    arguments: Any = field(factory=dict[str, Any])

    __repr__ = brief


@makes_operator(adds_up="last")
def call_drafts() -> Callable[[Observable[Chunk]], Observable[CallDraft]]:
    """Emit the arguments of tool calls while the model writes them, for a page that shows a form being filled.

    ::

        -(mail {"to":"An)-(na"})-|
        call_drafts()
        -mail(to='An')----mail(to='Anna')-|

    Shape: takes chunks, such as those of an agent; emits a `CallDraft` when a call begins and when its arguments have
    changed, and nothing for other content. As with `drafts`, a text, an object and a list grow, everything else appears
    when it is whole, and a draft takes nothing back. A call whose arguments are not JSON keeps its last draft: an agent
    tells the model. After a chunk with ``reset`` the calls begin anew. To show the text, too, ``share`` the chunks.

    Errors: those of the source; `MisuseError` for a value that is not a Chunk.
    """

    def operator(source: Observable[Chunk]) -> Observable[CallDraft]:
        return Source(lambda observer, scheduler: _CallDrafts(observer).start(source, scheduler))

    return operator


class _Call:
    """A call that is open: fragments without an id, or with its own, continue it.

    Attributes:
        call: its id and its name.
        growing: its arguments; None if they are not JSON.
    """

    __slots__ = ("call", "growing")

    def __init__(self, call: ToolCallPart) -> None:
        self.call = call
        self.growing: GrowingJSON | None = GrowingJSON()


class _CallDrafts(RefusingObserver[Chunk, CallDraft]):
    """Emits the drafts of the calls.

    Attributes:
        calls: the open calls, by their index.
    """

    __slots__ = ("calls",)

    def __init__(self, observer: abc.ObserverBase[CallDraft]) -> None:
        super().__init__(observer)
        self.calls: dict[int, _Call] = {}

    def on_next(self, value: Chunk) -> None:
        """Read the calls of a chunk."""
        if not isinstance(cast("object", value), Chunk):
            self.refuse(MisuseError(f"call_drafts takes chunks, not {shown(value)}. Put it behind a model."))
            return
        if value.rest is None or self.ended:  # plain text, as most chunks
            return
        if value.rest.reset:
            self.calls.clear()
        for part in value.rest.parts or ():
            if isinstance(part, ToolCallPart):
                self.read(part)
            elif ends_round(part):
                self.close()

    def read(self, part: ToolCallPart) -> None:
        """Read a fragment of a call."""
        open_call = self.calls.get(part.index)
        begins = open_call is None or part.id not in ("", open_call.call.id)
        if open_call is None or begins:
            self.flush(open_call)
            open_call = self.calls[part.index] = _Call(part)
        elif part.name and not open_call.call.name:
            open_call.call = evolve(open_call.call, name=part.name)
        growing = open_call.growing
        if growing is None:
            return
        try:
            growing.feed(part.arguments)
        except ParseError:
            open_call.growing = None
        draft = growing.next_draft()
        if draft is not NOTHING or begins:
            self.show(open_call, {} if draft is NOTHING else draft)

    def show(self, open_call: _Call, arguments: Any) -> None:
        call = open_call.call
        self.emit(CallDraft(call.index, call.id, call.name, arguments))

    def flush(self, open_call: _Call | None) -> None:
        """Emit what was too costly to show before."""
        if open_call is not None and open_call.growing is not None and open_call.growing.has_changed:
            self.show(open_call, open_call.growing.draft())

    def close(self) -> None:
        """End the open calls."""
        for open_call in self.calls.values():
            self.flush(open_call)
        self.calls.clear()

    def end(self, notify: Callable[[], object]) -> None:
        """Emit what was held back, and end."""
        if not self.ended:
            self.close()
            super().end(notify)
