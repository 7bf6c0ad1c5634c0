"""Decodes server-sent events: `SSEDecoder`.

The decoder is pure and incremental: bytes in, frames out, no I/O. It works on blocks of whole events, because it runs
for each token.
"""

from __future__ import annotations

import codecs
from typing import TypeVar

import msgspec

from ..bounds import EVENT_BYTES, EVENT_BYTES_PER_VALUE, LONG_BYTES
from ..errors import ProtocolError
from .weights import check_weight

__all__ = [
    "BYTE_ORDER_MARK",
    "DEFAULT_LIMIT",
    "Frame",
    "SSEDecoder",
    "is_json",
    "may_be_whole",
    "too_large",
    "valid_utf8",
]

DEFAULT_LIMIT = EVENT_BYTES

AnyBytes = TypeVar("AnyBytes", bytes, bytearray)

LF, CR = b"\n\r"
_DONE = b"data: [DONE]"
# An object and what follows it here are never the data of one event.
_END_OF_OBJECT = b"}\ndata:"
_GLUED = (b"}\ndata: {", b"}\ndata:{", b"}\ndata: [DONE]", b"}\ndata:[DONE]")
_FIELDS = (b"data", b"event", b"id", b"retry", b"")  # the field names of events; the empty one starts a comment
_ERROR = b"error"  # llama.cpp's field name for the document of an error
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Frame = tuple[str, bytes]
"""The event's name ("message" by default) and its data, always valid UTF-8."""


class SSEDecoder:
    r"""Turns the bytes of an event stream, however they are split, into frames.

    ::

        data: {"a"  :1}\n\nevent: ping\ndata: {}\n\ndata:  [DONE]\r\r
        -----------(message, {"a":1}) (ping, {})---------(message, [DONE])

    Shape: `(name, data)` for each event with data; its data lines are joined with LF. Units: `limit` in bytes of one
    event, with one byte per line end. Errors: `ProtocolError` for an event over the limit. Source:
    https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.5 "Parsing an event stream" and 9.2.6
    "Interpreting an event stream". Five additions: real streams end without the last blank line, see `flush`;
    ``data: [DONE]`` needs no blank line; neither do events of one JSON object each; an event that consists of one JSON
    document without a field name is its data, because gateways write their errors into a stream like this; and an
    object after the field name ``error`` is the data of an event of this name, as llama.cpp sends it.

    Attributes:
        last_event_id: the last `id` of a complete event; "" before the first.
        retry: the last valid reconnection time of a complete event, in milliseconds.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self.last_event_id: str = ""
        self.retry: int | None = None
        self._limit = limit
        self._long = min(limit, LONG_BYTES)
        self._pending = bytearray()  # the incomplete event; all line ends are LF
        self._opening: bytes | None = b""  # the stream's first bytes, while they may be a byte order mark
        self._after_return = False  # the last byte was a CR, which ended a line: a following LF belongs to it

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes."""
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
            if not self._pending and (usual := self._usual(data)) is not None:
                return usual
            self._after_return = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        pending = self._pending
        if not pending:
            data = data.lstrip(b"\n")
            if data.endswith(b"\n\n"):  # the usual packet
                return self._frames(data[:-2])
        searched = len(pending)
        pending += data
        # Search only the new bytes and those before them that may belong to them, so that a long line costs no more
        # than its length.
        end = pending.rfind(b"\n\n", searched and searched - 1)
        frames: list[Frame] = []
        if end >= 0:
            frames, searched = self._frames(self._cut(end)), 0
        rest = max(0, searched - len(_GLUED[2]))
        if pending.find(_END_OF_OBJECT, rest) >= 0 and any(pending.find(glued, rest) >= 0 for glued in _GLUED):
            pending[:] = _parted(pending)
            frames += self._frames(self._cut(pending.rfind(b"\n\n")))
        if len(pending) <= len(_DONE) + 1 and bytes(pending).rstrip(b"\n") == _DONE and self._limit > len(_DONE):
            pending.clear()  # some servers omit the blank line and keep the connection open
            frames.append(("message", b"[DONE]"))
        if len(pending) > self._limit:
            beginning = bytes(pending[:1000])
            pending.clear()  # the error's traceback keeps this object alive
            raise too_large(beginning, self._limit)
        return frames

    def _cut(self, end: int) -> bytes:
        """Remove the events before a blank line at this place, and return them."""
        with memoryview(self._pending) as view:
            block = bytes(view[:end])
        del self._pending[: end + 2]
        return block

    @property
    def may_flush(self) -> bool:
        """Whether the bytes after the last whole event may be an event that only lacks its blank line."""
        return may_be_whole(self._pending)

    def flush(self) -> list[Frame]:
        """Return the last event if it lacks its blank line but has complete data, at the end of the stream or before.

        Complete data is JSON or `[DONE]`. Any other event changes no state: at the end of the stream it is dropped, as
        the standard demands.
        """
        before = self.last_event_id, self.retry
        frames = self._interpret(valid_utf8(bytes(self._pending)))
        if frames and all(data == b"[DONE]" or is_json(data) for _, data in frames):
            self._pending.clear()
            return frames
        self.last_event_id, self.retry = before
        return []

    @staticmethod
    def begins(beginning: bytes) -> bool:
        """Return whether an event stream may begin with these bytes, even if no event is complete."""
        field, colon, value = beginning.replace(b"\r", b"\n").partition(b"\n")[0].partition(b":")
        if colon:
            return field in _FIELDS or (field == _ERROR and value.lstrip()[:1] in (b"", b"{"))
        return any(name.startswith(field) for name in (*_FIELDS, _ERROR))

    def _usual(self, data: bytes) -> list[Frame] | None:
        """Return the frames of whole events of one line each, with CRLF as the line end; None for anything else.

        Gemini sends these. To change their line ends costs as much as to decode them.
        """
        if not (data.startswith(b"data: ") and data.endswith(b"\r\n\r\n") and len(data) < self._long):
            return None
        pieces = valid_utf8(data)[6:-4].split(b"\r\n\r\ndata: ")
        if not data.count(b"\r") == data.count(b"\n") == 2 * len(pieces):
            return None
        return [("message", piece) for piece in pieces]

    def _frames(self, block: bytes) -> list[Frame]:
        """Return the frames of whole events, which are separated by blank lines."""
        if len(block) >= self._long:
            events = block.split(b"\n\n") if b"\n\n" in block else [block]
            for event in events:
                if len(event.strip(b"\n")) >= self._limit:
                    raise too_large(event, self._limit)
                check_weight(event, self._limit // EVENT_BYTES_PER_VALUE, b"data:")
            if len(events) == 1 and block.startswith(b"data: ") and LF not in block:  # copy a long event only once
                return [("message", valid_utf8(block)[6:])]
        block = valid_utf8(block)
        # Most events are one line of data. After splitting the block at their beginnings, a piece without a line feed
        # is the data of one event; only the other pieces are parsed by line. (A long separator is also the fastest to
        # find.)
        before, *pieces = (b"\n\n" + block).split(b"\n\ndata: ")
        frames = self._interpret(before[2:]) if before else []
        for piece in pieces:
            if LF in piece:
                frames += self._interpret(b"data: " + piece)
            else:
                frames.append(("message", piece))
        return frames

    def _interpret(self, events: bytes) -> list[Frame]:
        """Return the frames of whole events, parsed line by line."""
        frames: list[Frame] = []
        name = b""
        data: list[bytes] = []
        bare: list[bytes] = []  # the lines of a document without a field name
        for line in (_parted(events) + b"\n").split(b"\n"):
            if not line:
                if not data and bare and is_json(b"\n".join(bare)):
                    data += bare
                if data:
                    frames.append((name.decode() or "message", b"\n".join(data)))
                    data.clear()
                bare.clear()
                name = b""
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            elif field == _ERROR and value.startswith(b"{"):
                data.append(value)
                name = _ERROR
            elif field == b"id" and b"\0" not in value:
                self.last_event_id = value.decode()
            elif field == b"retry" and value.isdigit() and len(value) < 20:  # int() raises for thousands of digits
                self.retry = int(value)
            elif bare or line[0] in b"{[":
                bare.append(line)
        return frames


def _parted(events: AnyBytes) -> AnyBytes:
    """Return the events with a blank line after each object that lacks one."""
    if _END_OF_OBJECT not in events:  # as nearly always; four searches would take four times as long
        return events
    for glued in _GLUED:
        events = events.replace(glued, glued.replace(b"\n", b"\n\n"))
    return events


def valid_utf8(block: bytes) -> bytes:
    """Return the bytes with U+FFFD for invalid UTF-8. The last character must be complete."""
    if block.isascii():
        return block
    try:
        if len(block) <= LONG_BYTES:
            block.decode()
        else:  # in pieces: one wide character makes the decoded text four times as large
            decoder = codecs.getincrementaldecoder("utf-8")()
            with memoryview(block) as view:
                for place in range(0, len(block), LONG_BYTES):
                    decoder.decode(view[place : place + LONG_BYTES])
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return block.decode("utf-8", "replace").encode()
    return block


def too_large(frame: bytes, limit: int) -> ProtocolError:
    """Return the error for a frame over the limit."""
    return ProtocolError(
        f"One event of the stream is larger than the limit of {limit:,} bytes. If that is expected, raise the limit.",
        frame=frame,
    )


def may_be_whole(pending: bytearray) -> bool:
    """Return whether an object, an array or ``[DONE]`` ends where the bytes end."""
    return bool(pending) and pending[-3:].rstrip().endswith((b"}", b"]"))


def is_json(data: bytes) -> bool:
    """Return whether the bytes are one complete JSON document."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)  # parses everything without building objects
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
