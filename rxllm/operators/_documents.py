"""The base of the operators that read JSON from the text of an answer: `drafts`, `items`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from ..errors import ParseError, RxllmError
from ..misuse import MisuseError
from ..runtime.scheduler import Scheduler
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.parts import ends_round
from ..values.rounds import last_round
from .answering import Arrived, tracking
from .observer import RefusingObserver, ignore

__all__ = ["DocumentObserver"]


class DocumentObserver(RefusingObserver[Chunk | str, Any]):
    """Reads a JSON document from the text of chunks, and turns its errors into errors of the answer.

    Attributes:
        arrived: the part of the answer that has arrived.
        type: the requested type, for errors.
        describe: sets the request and the partial answer of an error, while the model runs.
        requested: an error that gets the request at the first chunk, for errors after the model's end.
        has_begun: whether a chunk has arrived.
    """

    __slots__ = ("arrived", "describe", "has_begun", "requested", "type")

    def __init__(self, observer: abc.ObserverBase[Any], type: object) -> None:
        super().__init__(observer)
        self.arrived = Arrived()
        self.type = type
        self.requested = RxllmError("")
        self.has_begun = False
        self.describe: Callable[[RxllmError], object] = ignore

    def start(self, source: Observable[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribe to the source."""
        if isinstance(scheduler, Scheduler):
            scheduler, self.describe = tracking(scheduler)
        return super().start(source, scheduler)

    @abstractmethod
    def begin(self) -> None:
        """Begin a new document, because the model restarted its answer."""

    @abstractmethod
    def read(self, text: str) -> None:
        """Read the next piece of text."""

    @abstractmethod
    def finish(self) -> None:
        """Check that the document is complete."""

    def flush(self) -> None:
        """Emit the held values."""

    def on_next(self, value: Any) -> None:
        """Read a Chunk, a text or a whole Message."""
        if self.ended:
            return
        try:
            if not self.has_begun:
                self.has_begun = True
                self.describe(self.requested)
            if type(value) is Chunk and value.rest is None:  # inlined from `Arrived.add`, to save a call per chunk
                text, arrived = value.text, self.arrived
                arrived.kept.append(text)
                arrived.size += len(text) + 1
                if arrived.size > arrived.bound:
                    arrived.compact()
                self.read(text)
            else:
                self.take(value if isinstance(value, (Chunk, str)) else Chunk.of(value))
        except (MisuseError, ParseError) as error:
            self.fail(error)

    def take(self, value: Chunk | str) -> None:
        """Read a text, or a Chunk that may be more than text."""
        self.arrived.add(value)
        if isinstance(value, str):
            self.read(value)
            return
        text = value.text
        if value.rest is not None:
            ends = value.rest.parts is not None and any(map(ends_round, value.rest.parts))
            if ends or value.rest.reset:  # an agent's text before the result of a tool is not its answer
                self.begin()
            text = last_round(value.message()).text if ends else text
        if text:
            self.read(text)

    def on_completed(self) -> None:
        """Complete, or fail if the document is incomplete."""
        if self.ended:
            return
        try:
            self.finish()
        except ParseError as error:
            self.fail(_incomplete(self.arrived.message()) if error.reason == "cut" else error)
        else:
            super().on_completed()

    def end(self, notify: Any) -> None:
        """Emit the held values, and end."""
        if not self.ended:
            self.flush()
            super().end(notify)

    def fail(self, error: MisuseError | ParseError) -> None:
        """Dispose the source, and end with the error."""
        if isinstance(error, ParseError):
            self.complete(error)
        self.upstream.dispose()
        self.flush()
        self.refuse(error)

    def complete(self, error: ParseError) -> None:
        """Add the facts of the answer to an error of its text."""
        self.describe(error)
        if error.partial is None:  # no model runs
            error.partial = self.arrived.message()
        if error.request is None:
            error.request = self.requested.request
        if error.partial is not None:
            error.usage = error.partial.usage
            error.text = last_round(error.partial).text
        error.shape = self.type
        if error.reason == "malformed" and error.text.lstrip()[:1] not in ("{", "["):
            _advise(error)


def _advise(error: ParseError) -> None:
    """Add what the program may change if a model answers with prose, as a note: a model may be shown the message."""
    request = error.request
    if request is None or request.shape is None:
        error.add_note("Models answer with JSON only if you ask for it, as with llm.bind(shape=…).")
    elif request.shape_mode != "prompted":
        error.add_note("A server that ignores schemas needs shape_mode='prompted'.")


def _incomplete(arrived: Message | None) -> ParseError:
    """Return the error of an answer that ended before its JSON did."""
    answer = last_round(arrived or Message("assistant"))
    if answer.finish_reason == "content_filter":
        said = f": {answer.refusal:.200}" if answer.refusal else "."
        sentence = f"The provider's content filter stopped the answer before its JSON ended{said}"
        return ParseError(sentence, reason="filtered")
    if answer.refusal:
        return ParseError(f"The model refused to answer: {answer.refusal:.200}", reason="refused")
    if answer.tool_calls and not answer.text.strip():
        names = ", ".join(sorted({call.name for call in answer.tool_calls}))
        return ParseError(f"The model called {names} instead of answering.", reason="empty")
    if not answer.text.strip() and answer.finish_reason != "length":  # a model may spend all tokens on its reasoning
        return ParseError("The answer has no text, so it has no JSON.", reason="empty")
    hint = " Raise max_tokens, or ask for less." if answer.finish_reason == "length" else ""
    return ParseError(f"The answer ended before its JSON did, at {answer.text[-20:]!r}.{hint}", reason="cut")
