"""Frames of AWS event streams: both checksums, headers of each type, exceptions, bounds, and every cut."""

import json
import struct
import zlib

import pytest
from protocols import aws_event, aws_frame

from rxllm.errors import ProtocolError
from rxllm.wire.eventstream import EventStreamDecoder

EVENTS = [
    aws_event("messageStart", {"role": "assistant"}),
    aws_event("contentBlockDelta", {"delta": {"text": "Hé 🌍"}}),
]
FRAMES = [("messageStart", b'{"role": "assistant"}'), ("contentBlockDelta", '{"delta": {"text": "Hé 🌍"}}'.encode())]


def fed(stream, size, **settings):
    """The frames of a stream that comes in pieces."""
    decoder = EventStreamDecoder(**settings)
    pieces = [stream[place : place + size] for place in range(0, len(stream), size)]
    return [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.flush()


def with_sizes(total, headers):
    """A prelude of these sizes, with the right checksum."""
    sizes = struct.pack(">II", total, headers)
    return sizes + struct.pack(">I", zlib.crc32(sizes))


@pytest.mark.parametrize("size", [1, 2, 7, 12, 13, 1000])
def test_frames_are_the_same_however_they_are_chopped(size):
    """Each frame is emitted once its last byte has come."""
    assert FRAMES * 3 == fed(b"".join(EVENTS) * 3, size)


def test_a_frame_is_emitted_with_its_last_byte():
    """Not before, and not with the next frame."""
    decoder = EventStreamDecoder()
    assert [] == decoder.feed(EVENTS[0][:-1])
    assert FRAMES[:1] == decoder.feed(EVENTS[0][-1:])
    assert FRAMES == decoder.feed(b"".join(EVENTS))


@pytest.mark.parametrize("cut", range(len(EVENTS[1])))
def test_a_frame_that_was_cut_is_dropped(cut):
    """Half a frame gives no frame."""
    assert FRAMES[:1] == fed(EVENTS[0] + EVENTS[1][:cut], 1000)


@pytest.mark.parametrize("place", range(len(EVENTS[1])))
@pytest.mark.parametrize("mask", [1, 0x80])
def test_each_flipped_bit_is_noticed(place, mask):
    """The wrong byte may be in the sizes, in a checksum, in the headers or in the payload."""
    damaged = bytearray(EVENTS[1])
    damaged[place] ^= mask
    with pytest.raises(ProtocolError, match="checksum"):
        fed(bytes(damaged) + EVENTS[0], 1000)


def test_an_exception_is_an_error_document_with_its_name():
    """The exception's name is its type. A payload that is not JSON becomes the message."""
    told = {"message": "Too many requests", "originalStatusCode": 429}
    frames = [aws_event("throttlingException", each, "exception") for each in (told, b"Slow down", b"")]
    expected = [
        {"error": {**told, "type": "throttlingException"}},
        {"error": {"message": "Slow down", "type": "throttlingException"}},
        {"error": {"message": "", "type": "throttlingException"}},
    ]
    actual = fed(b"".join(frames), 10)
    assert (["error"] * 3, expected) == ([name for name, _ in actual], [json.loads(data) for _, data in actual])


def test_an_error_is_told_by_its_headers():
    """An unmodelled error has no payload."""
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "Sorry"}
    [(name, data)] = fed(aws_frame(headers, b""), 10)
    assert ("error", {"error": {"type": "InternalError", "message": "Sorry"}}) == (name, json.loads(data))


def test_headers_of_every_type_are_passed_over():
    """A header is a name and a value; the type or the first two bytes of the value determine its length."""
    values = {
        0: b"",
        1: b"",
        2: b"1",
        3: b"12",
        4: b"1234",
        5: b"12345678",
        6: b"\0\x03abc",
        8: b"12345678",
        9: b"u" * 16,
    }
    head = b"".join(b"\x01a" + bytes([kind]) + value for kind, value in values.items())
    head += b"\x0b:event-type\x07\x00\x05later"
    whole = with_sizes(16 + len(head) + 2, len(head)) + head + b"{}"
    assert [("later", b"{}")] == fed(whole + struct.pack(">I", zlib.crc32(whole)), 1000)


@pytest.mark.parametrize("head", [b"\x05a", b"\x01a\x0a", b"\x01a\x07\x00", b"\x01a\x07\x00\x05abc", b"\x01\xff\x00"])
def test_headers_that_cannot_be_read(head):
    """A name or a value that is cut, or a type that there is not."""
    whole = with_sizes(16 + len(head), len(head)) + head
    with pytest.raises(ProtocolError, match="headers cannot be read"):
        fed(whole + struct.pack(">I", zlib.crc32(whole)), 1000)


@pytest.mark.parametrize(("total", "headers"), [(0, 0), (15, 0), (16, 1), (100, 85), (100, 2**32 - 1)])
def test_sizes_that_cannot_be(total, headers):
    """Headers that are longer than their frame."""
    with pytest.raises(ProtocolError, match="longer than the frame"):
        fed(with_sizes(total, headers) + b"x" * 100, 1000)


def test_the_bound_of_a_frame():
    """At the limit a frame is read; one over it is refused as soon as its size has come."""
    frame = EVENTS[0]
    assert FRAMES[:1] == fed(frame, 1000, limit=len(frame))
    with pytest.raises(ProtocolError, match="larger than the limit"):
        EventStreamDecoder(limit=len(frame) - 1).feed(frame[:12])


def test_invalid_utf8_is_replaced():
    """As in any other stream."""
    assert [("a", "\ufffd".encode())] == fed(aws_event("a", b"\xff"), 1000)


@pytest.mark.parametrize("page", [b"Service Unavailable, try again", b"data: {}\n\n" * 2])
def test_what_is_no_stream_of_events(page):
    """The message names base_url, and the error keeps the beginning of the body."""
    with pytest.raises(ProtocolError, match="base_url") as caught:
        fed(page, 1000)
    assert page == caught.value.frame


def test_a_large_frame_in_many_pieces_takes_linear_time():
    """A frame of 4 MiB in pieces of 64 bytes is copied a few times, not 65,536 times."""
    frame = aws_event("a", b'{"a":"' + b"x" * 2**22 + b'"}')
    [(_, data)] = fed(frame, 64)
    assert 2**22 + 8 == len(data)
