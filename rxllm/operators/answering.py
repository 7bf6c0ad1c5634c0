"""What a provider answers, as chunks, and what is kept of it in case that it breaks off."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableSequence

import attrs
from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from .._runtime import Scheduler, connect
from ..errors import MisuseError, RxllmError
from ..messages import (
    Chunk,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    Request,
    TextPart,
    ToolCallPart,
    Usage,
    join,
    text_chunk,
)

__all__ = ["Answered", "answering", "estimated"]

Answered = str | Message | Chunk

PARTIAL_LIMIT = 4 * 2**20  # characters that are kept for an error's `partial`
CHARACTERS = 4  # that a token has, roughly: https://help.openai.com/en/articles/4936856


def answering(
    made: Callable[[], Observable[Answered]], request: Request, observer: abc.ObserverBase[Chunk], home: Scheduler
) -> abc.DisposableBase:
    """Subscribes to what a provider makes of the request, be it texts, Messages or Chunks, as chunks."""
    answer = _Answer(observer, request, home)
    try:
        answer.subscription.disposable = connect(made(), answer, home)
    except Exception as error:  # such as a missing key
        answer.on_error(error)
    return answer.subscription


class _Answer(abc.ObserverBase[Answered]):
    """Stands between a provider and its subscriber: makes everything a Chunk, and gives errors what had arrived.

    What the subscriber raises ends here: the request is closed, and the provider never hears of it.
    """

    __slots__ = ("arrived", "bound", "emit", "home", "observer", "request", "size", "subscription")

    def __init__(self, observer: abc.ObserverBase[Chunk], request: Request, home: Scheduler) -> None:
        self.observer = observer
        self.emit: Callable[[Chunk], None] = observer.on_next
        self.request = request
        self.home = home
        # Plain text as its text alone: a string is nothing that the garbage collector has to look at.
        self.arrived: MutableSequence[Chunk | str] = []
        self.size = 0
        self.bound = 2**16
        self.subscription = SingleAssignmentDisposable()

    def on_next(self, value: Answered) -> None:
        try:
            chunk = value if type(value) is Chunk else Chunk.of(value)
        except MisuseError as error:
            self.observer.on_error(error)
            return
        if chunk.rest is None:
            self.arrived.append(chunk.text)
            self.size += len(chunk.text) + 1
        else:
            self.arrived.append(chunk)
            self.size += _size(chunk)
        if self.size > self.bound:
            self.compact()
        try:
            self.emit(chunk)
        except Exception as error:
            self.home.report("A subscriber, or an operator before it, raised; the request is closed.", error)
            self.emit = _unheard
            self.subscription.dispose()

    def joined(self) -> Chunk:
        return join(text_chunk(some) if isinstance(some, str) else some for some in self.arrived)

    def compact(self) -> None:
        """Keeps what arrived small: one chunk instead of many, and none beyond the limit."""
        folded = self.joined()
        self.size = _size(folded)
        self.arrived = [folded]
        self.bound = 2 * self.size + 2**16
        if self.size > PARTIAL_LIMIT:
            self.arrived = _Full([folded], maxlen=1)
            self.bound = 2**63

    def on_error(self, error: Exception) -> None:
        if isinstance(error, RxllmError):
            if error.request is None:
                error.request = self.request
            if error.partial is None and self.arrived:
                error.partial = estimated(self.joined().message(), self.request)
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.observer.on_completed()


def _size(chunk: Chunk) -> int:
    """The characters of all that may grow, and one for the chunk."""
    return 1 + sum(map(_length, chunk.parts))


def _length(part: Part) -> int:
    if isinstance(part, (TextPart, ReasoningPart, RefusalPart)):
        return len(part.text)
    return len(part.arguments) if isinstance(part, ToolCallPart) else 0


def _unheard(chunk: Chunk) -> None:
    """Nobody listens any more."""


class _Full(deque[Chunk | str]):
    """What was kept before the limit was reached; takes no more."""

    def append(self, item: Chunk | str, /) -> None:
        pass


def estimated(partial: Message, request: Request) -> Message:
    """What came of an answer that broke off, with the tokens that it took: guessed, where nobody has told.

    Providers count at the end, or begin with a count that does not grow.
    """
    told = partial.usage or Usage()
    output = -(-sum(map(_length, partial.parts)) // CHARACTERS)
    if told.output_tokens is not None and told.output_tokens >= output:
        return partial
    asked = told.input_tokens
    if asked is None:
        asked = -(-len(request.text) // CHARACTERS)
    usage = attrs.evolve(told, input_tokens=asked, output_tokens=output, estimated=True)
    return attrs.evolve(partial, usage=usage)
