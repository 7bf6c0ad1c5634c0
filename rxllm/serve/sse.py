"""`sse`: an Observable as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from reactivex import Observable

from ..records import to_json
from ..values.characters import json_bytes
from ..values.chunk import Chunk
from ..values.message import Message
from .failures import HTTPFailure
from .response import HOLD, PING, StreamResponse

__all__ = ["Events", "sse"]

T = TypeVar("T")


class Events:
    """Encodes items as server-sent events, each with one line of JSON.

    Shape: a text is a JSON string; a Chunk is an object with ``text`` and what else the chunk has; a Message is the
    object of `Message.to_json`; any other item is its JSON, also of a dataclass, an attrs class or a model of pydantic.
    The last event is ``done``, or ``failure`` with ``code``, ``message`` and ``retry_after``. The name
    ``error`` is not used, because a browser's EventSource gives it to its own errors.
    """

    media_type = "text/event-stream"
    ping = b": ping\n\n"

    def begin(self) -> bytes:
        """Return no bytes: an event stream has no beginning."""
        return b""

    def encode(self, item: Any) -> bytes:
        """Return the event of one item."""
        if isinstance(item, Chunk):
            item = to_json(item)
        elif isinstance(item, Message):
            item = item.to_json()
        return b"data: " + json_bytes(item) + b"\n\n"

    def end(self) -> bytes:
        """Return the event ``done``."""
        return b"event: done\ndata: {}\n\n"

    def fail(self, failure: HTTPFailure) -> bytes:
        """Return the event ``failure``."""
        return b"event: failure\ndata: " + self.refuse(failure) + b"\n\n"

    def refuse(self, failure: HTTPFailure) -> bytes:
        """Return the error as a JSON object."""
        return json_bytes({"code": failure.code, "message": failure.message, "retry_after": failure.retry_after})


def sse(
    source: Observable[T], *, headers: Mapping[str, str] | None = None, hold: float = HOLD, ping: float = PING
) -> StreamResponse[T]:
    r"""Return a response that sends an Observable as server-sent events.

    ::

        -Hel---lo-|
        sse
        data: "Hel"\n\n   data: "lo"\n\n   event: done\ndata: {}\n\n

    Shape: see `Events`. Units: `hold` and `ping` in seconds, as in `StreamResponse`. Errors: an error before the first
    item is a JSON response with its own status; a later error is the event ``failure``. Source:
    https://html.spec.whatwg.org/multipage/server-sent-events.html.
    """
    return StreamResponse(source, Events(), headers=headers, hold=hold, ping=ping)
