"""Server-sent events out of bytes: `SSEDecoder`.

Pure and incremental: bytes in, frames out, no I/O. It works on blocks of whole events, since it runs for each token.
"""

from __future__ import annotations

import codecs

import msgspec

from ..bounds import EVENT_BYTES, EVENT_BYTES_PER_VALUE, LONG_BYTES
from ..errors import ProtocolError
from .weights import check_weight

__all__ = ["BYTE_ORDER_MARK", "DEFAULT_LIMIT", "Frame", "SSEDecoder", "is_json", "too_large", "valid_utf8"]

DEFAULT_LIMIT = EVENT_BYTES

LF, CR = b"\n\r"
_DONE = b"data: [DONE]"
_FIELDS = (b"data", b"event", b"id", b"retry", b"")  # of events; the last is a comment's
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Frame = tuple[str, bytes]
"""The event's name ("message" where none was given) and its data, always valid UTF-8."""


class SSEDecoder:
    r"""Turns the bytes of an event stream, however they are chopped, into frames.

    ::

        data: {"a"  :1}\n\nevent: ping\ndata: {}\n\ndata:  [DONE]\r\r
        -----------(message, {"a":1}) (ping, {})---------(message, [DONE])

    Shape: `(name, data)` for each event that has data; the lines of its data are joined with LF. Units: `limit` in
    bytes of one event, counted with one byte for each line end. Errors: `ProtocolError` for an event over the limit.
    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.5 "Parsing an event stream" and
    9.2.6 "Interpreting an event stream". Added to it: real bodies end without the last blank line, see `flush`,
    and ``data: [DONE]`` needs none.

    Attributes:
        last_event_id: the last `id` of a complete event, "" before there was one.
        retry: the last valid reconnection time of a complete event, in milliseconds.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self.last_event_id: str = ""
        self.retry: int | None = None
        self._limit = limit
        self._long = min(limit, LONG_BYTES)
        self._pending = bytearray()  # of the event that is not complete, with LF as its only line end
        self._opening: bytes | None = b""  # the stream's first bytes, until they are a byte order mark or are not
        self._after_return = False  # the last byte was a CR, which has ended its line: a LF now belongs to it

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        if self._opening is not None:
            data = self._opening + data
            if len(data) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(data):
                self._opening = data
                return []
            data = data.removeprefix(BYTE_ORDER_MARK)
            self._opening = None
        if self._after_return and data:
            data = data.removeprefix(b"\n")
            self._after_return = False
        if CR in data:
            self._after_return = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        pending = self._pending
        if not pending:
            data = data.lstrip(b"\n")
            if data.endswith(b"\n\n"):  # as most packets do
                return self._frames(data[:-2])
        searched = len(pending)
        pending += data
        # Only what is new is searched, and the one byte before it, so that a long line costs no more than its length.
        end = pending.rfind(b"\n\n", searched and searched - 1)
        frames: list[Frame] = []
        if end >= 0:
            with memoryview(pending) as view:
                block = bytes(view[:end])
            del pending[: end + 2]
            frames = self._frames(block)
        if len(pending) <= len(_DONE) + 1 and bytes(pending).rstrip(b"\n") == _DONE and self._limit > len(_DONE):
            pending.clear()  # some servers leave out the blank line and keep the connection open
            frames.append(("message", b"[DONE]"))
        if len(pending) > self._limit:
            beginning = bytes(pending[:1000])
            pending.clear()  # the error's traceback holds on to it
            raise too_large(beginning, self._limit)
        return frames

    def flush(self) -> list[Frame]:
        """At the end of the stream: the event that lacks its blank line, if its data is whole.

        It is whole if it is JSON or `[DONE]`; any other is dropped, as the standard has it, and leaves no trace.
        """
        pending, self._pending = self._pending, bytearray()
        before = self.last_event_id, self.retry
        for frame in self._interpret(valid_utf8(bytes(pending))):
            if frame[1] == b"[DONE]" or is_json(frame[1]):
                return [frame]
        self.last_event_id, self.retry = before
        return []

    @staticmethod
    def begins(beginning: bytes) -> bool:
        """Whether a stream of events begins so, though none of them may be whole."""
        field, colon, _ = beginning.replace(b"\r", b"\n").partition(b"\n")[0].partition(b":")
        return field in _FIELDS if colon else any(known.startswith(field) for known in _FIELDS)

    def _frames(self, block: bytes) -> list[Frame]:
        """The frames of whole events, which blank lines separate."""
        if len(block) >= self._long:
            events = block.split(b"\n\n") if b"\n\n" in block else [block]
            for event in events:
                if len(event.strip(b"\n")) >= self._limit:
                    raise too_large(event, self._limit)
                check_weight(event, self._limit // EVENT_BYTES_PER_VALUE, b"data:")
            if len(events) == 1 and block.startswith(b"data: ") and LF not in block:  # a long one is copied once
                return [("message", valid_utf8(block)[6:])]
        block = valid_utf8(block)
        # Most events are one line of data. Where the block is cut at their beginnings, a piece without a line end is
        # the data of one; only others need to be read by line. (A long separator is also the fastest to search.)
        before, *pieces = (b"\n\n" + block).split(b"\n\ndata: ")
        frames = self._interpret(before[2:]) if before else []
        for piece in pieces:
            if LF in piece:
                frames += self._interpret(b"data: " + piece)
            else:
                frames.append(("message", piece))
        return frames

    def _interpret(self, events: bytes) -> list[Frame]:
        """Whole events, line by line."""
        frames: list[Frame] = []
        name = b""
        data: list[bytes] = []
        for line in (events + b"\n").split(b"\n"):
            if not line:
                if data:
                    frames.append((name.decode() or "message", b"\n".join(data)))
                    data.clear()
                name = b""
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            elif field == b"id" and b"\0" not in value:
                self.last_event_id = value.decode()
            elif field == b"retry" and value.isdigit() and len(value) < 20:  # int() refuses thousands of digits
                self.retry = int(value)
        return frames


def valid_utf8(block: bytes) -> bytes:
    """The same bytes, with U+FFFD for what is not UTF-8. No character may be cut off at the end."""
    if block.isascii():
        return block
    try:
        if len(block) <= LONG_BYTES:
            block.decode()
        else:  # in pieces, for text with one wide character takes four times its bytes
            decoder = codecs.getincrementaldecoder("utf-8")()
            with memoryview(block) as view:
                for place in range(0, len(block), LONG_BYTES):
                    decoder.decode(view[place : place + LONG_BYTES])
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return block.decode("utf-8", "replace").encode()
    return block


def too_large(frame: bytes, limit: int) -> ProtocolError:
    """The error for a frame over the limit."""
    return ProtocolError(
        f"One event of the stream is larger than the limit of {limit:,} bytes; if that is meant, raise the limit.",
        frame=frame,
    )


def is_json(data: bytes) -> bool:
    """Whether nothing of a document is missing."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)  # looks at all of it, and builds nothing
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
