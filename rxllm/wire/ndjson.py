"""JSON documents, one a line, out of bytes: `NDJSONDecoder`. Pure and incremental, as `SSEDecoder` is."""

from __future__ import annotations

from ..bounds import EVENT_BYTES_PER_VALUE, LONG_BYTES
from .sse import BYTE_ORDER_MARK, DEFAULT_LIMIT, Frame, is_json, too_large, valid_utf8
from .weights import check_weight

__all__ = ["NDJSONDecoder"]

WHITESPACE = b" \t\r"  # JSON's own, without the line end; other control characters are not ours to drop


class NDJSONDecoder:
    r"""Turns the bytes of newline-delimited JSON, however they are chopped, into frames named "message".

    ::

        {"a":1}\n  {"b"  :2}\r\n  \n  {"c":3}  end
        ------({"a":1})-------({"b":2})--------({"c":3})|

    Shape: `("message", line)` for each line that is not blank, without the white space around it. Only LF ends a line
    (a CR before it is white space). Units: `limit` in bytes of one line with its end. Errors: `ProtocolError` for a
    line over the limit, or of too many values. Source: https://github.com/ndjson/ndjson-spec.

    Attributes:
        last_event_id: always "", for lines have no ids; here so that it can stand where an `SSEDecoder` does.
        retry: always None, likewise.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self.last_event_id: str = ""
        self.retry: int | None = None
        self._limit = limit
        self._pending = bytearray()  # of the line that is not complete
        self._is_first = True  # no line is complete, so that a byte order mark may stand before the first

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        pending = self._pending
        searched = len(pending)
        pending += data
        end = pending.rfind(b"\n", searched)
        frames: list[Frame] = []
        if end >= 0:
            block = bytes(pending[:end])
            del pending[: end + 1]
            if self._is_first:
                self._is_first = False
                block = block.removeprefix(BYTE_ORDER_MARK)
            if len(block) >= self._limit:
                for line in block.split(b"\n"):
                    if len(line) >= self._limit:
                        raise too_large(line, self._limit)
            if len(block) > LONG_BYTES:
                for line in block.split(b"\n"):
                    check_weight(line, self._limit // EVENT_BYTES_PER_VALUE)
            frames = _frames(block)
        if len(pending) > self._limit:
            beginning = bytes(pending[:1000])
            pending.clear()  # the error's traceback holds on to it
            raise too_large(beginning, self._limit)
        return frames

    @staticmethod
    def begins(beginning: bytes) -> bool:
        """Whether a stream of JSON objects begins so, though none of them may be whole."""
        return beginning.startswith(b"{")

    def flush(self) -> list[Frame]:
        """At the end of the stream: the last line that lacks its LF, if it is whole."""
        pending, self._pending = self._pending, bytearray()
        return [frame for frame in _frames(bytes(pending).removeprefix(BYTE_ORDER_MARK)) if is_json(frame[1])]


def _frames(block: bytes) -> list[Frame]:
    lines = valid_utf8(block).split(b"\n")
    return [("message", stripped) for line in lines if (stripped := line.strip(WHITESPACE))]
