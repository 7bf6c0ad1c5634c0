"""Reads the files of a request before a model gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
from reactivex import Observable, abc

from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import scheduler_for
from ..runtime.source import Source, connect
from ..runtime.threads import from_thread
from ..values.message import Message
from ..values.parts import FilePart, Part, ToolResultPart
from ..values.request import Request

__all__ = ["read_files", "with_files"]

T = TypeVar("T")


def with_files(request: Request, create: Callable[[Request], Observable[T]]) -> Observable[T]:
    """Return the stream that `create` makes for the request with the bytes of its files.

    Each subscription reads the files once, in a thread, and then subscribes to the stream. Without an unread file,
    the stream is that of `create` itself.

    Errors: a MisuseError about a file, and those of the stream.
    """
    prompt = request.prompt
    if isinstance(prompt, str) or not any(_has_path(part) for message in prompt for part in message.parts):
        return create(request)

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = scheduler_for(requested)
        current = LockFreeSerialDisposable()

        def ask(whole: Request) -> None:
            try:
                stream = create(whole)
            except Exception as error:  # such as a media type that the provider does not take
                observer.on_error(error)
            else:
                current.disposable = connect(stream, observer, scheduler)

        current.disposable = reading = LockFreeSerialDisposable()
        reading.disposable = from_thread(lambda: read_files(request)).subscribe(
            ask, observer.on_error, scheduler=scheduler
        )
        return current

    return Source(subscribe)


def read_files(request: Request) -> Request:
    """Return the request with the bytes of its files. It reads each file once, even if several parts are of it.

    Raises:
        MisuseError: a file cannot be read or sent.
    """
    known: dict[FilePart, FilePart] = {}

    def whole(part: Part) -> Part:
        if isinstance(part, FilePart) and part.path is not None:
            if part not in known:
                known[part] = part.read()
            return known[part]
        if isinstance(part, ToolResultPart) and _has_path(part):
            return attrs.evolve(part, content=tuple(map(whole, part.content)))
        return part

    def turn(message: Message) -> Message:
        if not any(map(_has_path, message.parts)):
            return message
        return attrs.evolve(message, parts=tuple(map(whole, message.parts)))

    if isinstance(request.prompt, str):
        return request
    return attrs.evolve(request, prompt=tuple(map(turn, request.prompt)))


def _has_path(part: Part) -> bool:
    """Return whether the part is a file that is not read yet, or has one in it."""
    if isinstance(part, FilePart):
        return part.path is not None
    return isinstance(part, ToolResultPart) and any(map(_has_path, part.content))
