"""Frames of ``application/vnd.amazon.eventstream`` out of bytes: `EventStreamDecoder`. Pure, as `SSEDecoder` is.

A frame is a prelude of twelve bytes (the size of the frame, the size of its headers, a checksum of these two), headers,
a payload, and a checksum of everything before it. All numbers are big-endian; the checksums are CRC-32.
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
_FRAMING = _PRELUDE.size + _NUMBER.size  # bytes of a frame that are neither headers nor payload
_NAMES = 64  # of events that are remembered by their headers; a stream has about ten
_SHOWN = 1000  # bytes of what could not be read that the error keeps
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value, by its type
_ERROR = "error"
_BYTES, _TEXT = 6, 7  # types of values that tell their size


class EventStreamDecoder:
    r"""Turns the bytes of an AWS event stream, however they are chopped, into frames.

    ::

        [messageStart {"role":…}][contentBlock    Delta {"delta":…}][exception throttlingException {"message":…}]
        -(messageStart, {"role":…})-------(contentBlockDelta, {"delta":…})--(error, {"error":{"type":…, "message":…}})

    Shape: `(":event-type", payload)` for each event. An exception is a frame named "error" whose data is
    ``{"error": {"type": …, …}}``: the exception's payload, and its name as the type. Units: `limit` in bytes of one
    frame. Errors: `ProtocolError` for a wrong checksum, impossible sizes or headers, and a frame over the limit.
    Source: https://smithy.io/2.0/aws/amazon-eventstream.html.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._pending = bytearray()  # of the frame that is not complete
        self._size = 0  # bytes of that frame; 0 until its prelude has come
        self._names: dict[bytes, str] = {}  # by the headers of the frame, which repeat

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        pending = self._pending
        if pending:
            pending += data
            if len(pending) < (self._size or _PRELUDE.size):
                return []
            data = bytes(pending)
            pending.clear()
        frames: list[Frame] = []
        names, limit = self._names, self._limit
        place, end = 0, len(data)
        self._size = 0
        while end - place >= 12:
            size, headers, checksum = _PRELUDE.unpack_from(data, place)
            body = place + 12
            if crc32(data[place : place + 8]) != checksum:
                raise _broken("the checksum of a frame's head is wrong", data[place:])
            if size > limit:
                raise too_large(data[place : place + _SHOWN], limit)
            stop = place + size
            start = body + headers
            if start > stop - 4:
                raise _broken("a frame's headers are longer than the frame", data[place:])
            if stop > end:
                self._size = size
                break
            if crc32(data[place : stop - 4]) != _NUMBER.unpack_from(data, stop - 4)[0]:
                raise _broken("the checksum of a frame is wrong", data[place:stop])
            head = data[body:start]
            name = names.get(head) or self._name(head)
            payload = valid_utf8(data[start : stop - 4])
            if size > LONG_BYTES:
                check_weight(payload, limit // EVENT_BYTES_PER_VALUE)
            frames.append((name, payload if name != _ERROR else _told(_headers(head), payload)))
            place = stop
        if place < end:
            pending += data[place:] if place else data
        return frames

    def flush(self) -> list[Frame]:
        """At the end of the stream: nothing, for a frame that is not complete cannot be read."""
        self._pending.clear()
        return []

    @staticmethod
    def begins(beginning: bytes) -> bool:
        """Whether a stream begins so: the first frame of every stream is smaller than 16 MiB."""
        return beginning.startswith(b"\0")

    def _name(self, head: bytes) -> str:
        """The name of a frame with these headers."""
        headers = _headers(head)
        is_event = headers.get(":message-type", "event") == "event"
        name = headers.get(":event-type", "message") if is_event else _ERROR
        if len(self._names) < _NAMES:
            self._names[head] = name
        return name


def _told(headers: dict[str, str], payload: bytes) -> bytes:
    """The data of the frame for an exception, which has a type; or for an error, which is all in its headers."""
    told: dict[str, object] = {"message": headers.get(":error-message", payload.decode())}
    with suppress(msgspec.MsgspecError, RecursionError):  # it may be text
        told = msgspec.json.decode(payload, type=dict[str, object])
    name = headers.get(":exception-type") or headers.get(":error-code")
    return msgspec.json.encode({"error": {**told, **({"type": name} if name else {})}})


def _headers(head: bytes) -> dict[str, str]:
    """The headers that are text.

    Raises:
        ProtocolError: they end in the middle of one, or one has a type that there is not.
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


def _broken(what: str, data: bytes) -> ProtocolError:
    return ProtocolError(
        f"The answer is not a stream of AWS events, or it was damaged on its way: {what}. Is base_url right?",
        frame=data[:_SHOWN],
    )
