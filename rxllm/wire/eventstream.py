"""Decodes ``application/vnd.amazon.eventstream``: `EventStreamDecoder`. Pure, like `SSEDecoder`.

A frame has a prelude of twelve bytes (the frame's size, its headers' size, a checksum of both), headers, a payload, and
a checksum of all bytes before it. All numbers are big-endian; the checksums are CRC-32.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from zlib import crc32

import msgspec

from ..bounds import EVENT_BYTES_PER_VALUE, LONG_BYTES
from ..errors import ProtocolError
from .sse import DEFAULT_LIMIT, Frame, too_large, valid_utf8
from .weights import check_weight

__all__ = ["EventStreamDecoder"]

_PRELUDE = struct.Struct(">III")
_NUMBER = struct.Struct(">I")
_SHORT = struct.Struct(">H")
_NAMES = 64  # the maximum number of cached event names; a stream has about ten
_SHOWN = 1000  # bytes of an invalid frame that the error keeps
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value, by type
_ERROR = "error"
_BYTES, _TEXT = 6, 7  # types of values that begin with their size


class EventStreamDecoder:
    """Turns the bytes of an AWS event stream, however they are split, into frames.

    ::

        [messageStart {"role":…}][contentBlock    Delta {"delta":…}][exception throttlingException {"message":…}]
        -(messageStart, {"role":…})-------(contentBlockDelta, {"delta":…})--(error, {"error":{"type":…, "message":…}})

    Shape: `(":event-type", payload)` for each event. An exception becomes a frame named "error" with the data
    ``{"error": {"type": …, …}}``: the exception's payload, with its name as the type. Units: `limit` in bytes of one
    frame. Errors: `ProtocolError` for a wrong checksum, impossible sizes or headers, and a frame over the limit.
    Source: https://smithy.io/2.0/aws/amazon-eventstream.html.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._pending = bytearray()  # the incomplete frame
        self._size = 0  # the size of that frame; 0 until its prelude has arrived
        self._failure: ProtocolError | None = None  # the error to raise next; frames before it were returned
        self._names: dict[bytes, str] = {}  # names by the bytes of the headers, which repeat

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. An error is raised after the frames before it were returned."""
        if self._failure is not None:
            raise self._failure
        pending = self._pending
        if pending:
            pending += data
            if len(pending) < (self._size or _PRELUDE.size):
                return []
            data = bytes(pending)
            pending.clear()
        frames: list[Frame] = []
        try:
            self._cut(data, frames)
        except ProtocolError as error:
            if not frames:
                raise
            self._failure = error
        return frames

    def _cut(self, data: bytes, frames: list[Frame]) -> None:
        """Add the whole frames of `data`, and keep the rest."""
        names, limit = self._names, self._limit
        place, end = 0, len(data)
        self._size = 0
        while end - place >= 12:
            size, headers, checksum = _PRELUDE.unpack_from(data, place)
            if crc32(data[place : place + 8]) != checksum:
                raise _broken("the checksum of a frame's head is wrong", data[place:])
            if size > limit:
                raise too_large(data[place : place + _SHOWN], limit)
            stop = place + size
            start = place + 12 + headers
            if start > stop - 4:
                raise _broken("a frame's headers are longer than the frame", data[place:])
            if stop > end:
                self._size = size
                break
            if crc32(data[place : stop - 4]) != _NUMBER.unpack_from(data, stop - 4)[0]:
                raise _broken("the checksum of a frame is wrong", data[place:stop])
            head = data[place + 12 : start]
            name = names.get(head) or self._name(head)
            payload = valid_utf8(data[start : stop - 4])
            if size > LONG_BYTES:
                check_weight(payload, limit // EVENT_BYTES_PER_VALUE)
            frames.append((name, payload if name != _ERROR else _error_data(_headers(head), payload)))
            place = stop
        if place < end:
            self._pending += data[place:] if place else data

    @property
    def may_flush(self) -> bool:
        """False: a frame says where it ends."""
        return False

    def flush(self) -> list[Frame]:
        """Return no frames: an incomplete frame cannot be read at the end of the stream.

        Raises:
            ProtocolError: the bytes after the last frame were invalid.
        """
        self._pending.clear()
        if self._failure is not None:
            raise self._failure
        return []

    @staticmethod
    def begins(beginning: bytes) -> bool:
        """Return whether an event stream may begin with these bytes: the first frame is always smaller than 16 MiB."""
        return beginning.startswith(b"\0")

    def _name(self, head: bytes) -> str:
        """Return the name of a frame with these headers."""
        headers = _headers(head)
        is_event = headers.get(":message-type", "event") == "event"
        name = headers.get(":event-type", "message") if is_event else _ERROR
        if len(self._names) < _NAMES:
            self._names[head] = name
        return name


def _error_data(headers: dict[str, str], payload: bytes) -> bytes:
    """Return the data for an exception, whose payload is JSON or text, or for an error, which has only headers."""
    fields: dict[str, object] = {"message": headers.get(":error-message", payload.decode())}
    with suppress(msgspec.MsgspecError, RecursionError):  # the payload may be text
        fields = msgspec.json.decode(payload, type=dict[str, object])
    name = headers.get(":exception-type") or headers.get(":error-code")
    return msgspec.json.encode({"error": {**fields, **({"type": name} if name else {})}})


def _headers(head: bytes) -> dict[str, str]:
    """Return the text headers.

    Raises:
        ProtocolError: the bytes end within a header, or a header has an unknown type.
    """
    headers: dict[str, str] = {}
    place, end = 0, len(head)
    try:
        while place < end:
            stop = place + 1 + head[place]
            name = head[place + 1 : stop].decode()
            kind = head[stop]
            place = stop + 1
            if kind in (_BYTES, _TEXT):
                size = _SHORT.unpack_from(head, place)[0]
                place += 2
            else:
                size = _SIZES[kind]
            value = head[place : place + size]
            place += size
            if kind == _TEXT:
                headers[name] = value.decode()
    except (IndexError, KeyError, ValueError, struct.error):
        place = end + 1
    if place > end:
        raise _broken("a frame's headers cannot be read", head)
    return headers


def _broken(reason: str, data: bytes) -> ProtocolError:
    return ProtocolError(
        f"The response is not a valid AWS event stream: {reason}. Is base_url right?",
        frame=data[:_SHOWN],
    )
