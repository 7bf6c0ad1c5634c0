"""Decodes newline-delimited JSON: `NDJSONDecoder`. Pure and incremental, like `SSEDecoder`."""

from __future__ import annotations

from ..bounds import EVENT_BYTES_PER_VALUE, LONG_BYTES
from .sse import BYTE_ORDER_MARK, DEFAULT_LIMIT, Frame, is_json, may_be_whole, too_large, valid_utf8
from .weights import check_weight

__all__ = ["NDJSONDecoder"]

WHITESPACE = b" \t\r"  # JSON's white space without the line feed; other control characters stay


class NDJSONDecoder:
    r"""Turns the bytes of newline-delimited JSON, however they are split, into frames named "message".

    ::

        {"a":1}\n  {"b"  :2}\r\n  \n  {"c":3}  end
        ------({"a":1})-------({"b":2})--------({"c":3})|

    Shape: `("message", line)` for each line that is not blank, without the surrounding white space. Only LF ends a line
    (a CR before it is white space). Units: `limit` in bytes of one line with its end. Errors: `ProtocolError` for a
    line over the limit, or with too many values. Source: https://github.com/ndjson/ndjson-spec.

    Attributes:
        last_event_id: always "", because lines have no ids; present for compatibility with `SSEDecoder`.
        retry: always None, for the same reason.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self.last_event_id: str = ""
        self.retry: int | None = None
        self._limit = limit
        self._pending = bytearray()  # the incomplete line
        self._is_first = True  # no line is complete, so that a byte order mark may stand before the first

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes."""
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
            pending.clear()  # the error's traceback keeps this object alive
            raise too_large(beginning, self._limit)
        return frames

    @staticmethod
    def begins(beginning: bytes) -> bool:
        """Return whether a stream of lines begins with these bytes."""
        return beginning.startswith(b"{")

    @property
    def may_flush(self) -> bool:
        """Whether the bytes after the last whole line may be a line that only lacks its LF."""
        return may_be_whole(self._pending)

    def flush(self) -> list[Frame]:
        """Return the last line, at the end of the stream or before, if it lacks its LF but is complete JSON."""
        rest = bytes(self._pending)
        frames = _frames(rest.removeprefix(BYTE_ORDER_MARK) if self._is_first else rest)
        if not frames or not is_json(frames[0][1]):
            return []
        self._pending.clear()
        self._is_first = False
        return frames


def _frames(block: bytes) -> list[Frame]:
    lines = valid_utf8(block).split(b"\n")
    return [("message", stripped) for line in lines if (stripped := line.strip(WHITESPACE))]
