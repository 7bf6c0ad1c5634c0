"""JSON documents, one a line."""

import time

import pytest

from rxllm.errors import ProtocolError
from rxllm.wire.ndjson import NDJSONDecoder
from rxllm.wire.sse import SSEDecoder


def fed(decoder, stream: bytes, size: int) -> list[tuple[str, bytes]]:
    """The frames of a stream that comes in pieces."""
    return [frame for at in range(0, len(stream), size) for frame in decoder.feed(stream[at : at + size])]


def messages(*data: bytes) -> list[tuple[str, bytes]]:
    """Return frames with the name `message`; empty lines give none."""
    return [("message", each) for each in data]


def frames_of(stream: bytes) -> list[tuple[str, bytes]]:
    """All frames of a stream that is fed at once."""
    decoder = NDJSONDecoder()
    return decoder.feed(stream) + decoder.flush()


def test_each_line_is_a_frame_as_soon_as_it_ends():
    """A line is emitted with its LF, not with the next line."""
    decoder = NDJSONDecoder()
    assert messages() == decoder.feed(b'{"a"')
    assert messages(b'{"a":1}') == decoder.feed(b":1}\n")
    assert messages(b"2", b"3") == decoder.feed(b"2\n3\n4")
    assert messages(b"45") == decoder.feed(b"5\n")
    assert messages() == decoder.flush()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"\n\n", b"\r\n\r\n", b"\n \t\r\n"])
def test_blank_lines_and_white_space_around_a_line_are_dropped(end):
    """Both kinds of line ends are seen in the wild, and a blank line is a keep-alive."""
    assert messages(b'{"a": 1}', b"{}") == frames_of(end + b'{"a": 1}' + end + b"  {}" + end)


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e", "\r", "é", "水", "🫧"])
def test_only_lf_ends_a_line(text):
    """Other characters that Python treats as line ends stay in their line."""
    data = b'{"a": "' + text.encode() + b'"}'
    assert messages(data, data) == frames_of(data + b"\n" + data + b"\n")


def test_a_final_line_without_its_end_is_flushed():
    """Once; a blank one is none."""
    decoder = NDJSONDecoder()
    assert messages(b"1") == decoder.feed(b'1\n{"done": true}')
    assert messages(b'{"done": true}') == decoder.flush()
    assert messages() == decoder.flush()
    assert messages(b"1") == frames_of(b"1\n \r")


def test_a_final_line_that_was_cut_is_dropped():
    """A stream that ends in the middle of a document has not said it."""
    assert messages(b"1") == frames_of(b'1\n{"done": tr')


def test_invalid_utf8_becomes_the_replacement_character():
    """In its own line only."""
    assert messages(b'"\xef\xbf\xbd"', "é".encode(), b"\xef\xbf\xbd") == frames_of(b'"\xff"\n\xc3\xa9\n\xc3\n')


def test_it_has_the_attributes_of_a_decoder_of_events():
    """The decoders are interchangeable."""
    lines, events = NDJSONDecoder(), SSEDecoder()
    assert (events.last_event_id, events.retry) == (lines.last_event_id, lines.retry)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("line", [b"x" * 99, b"\xff" * 99])
def test_a_line_over_the_limit_is_refused(line, size):
    """This holds however the line is chopped. The message contains the limit and the remedy."""
    stream = b"0\n" * 50 + line + b"x\n"
    for sent in (stream, stream[:-1]):
        decoder = NDJSONDecoder(limit=99)
        with pytest.raises(ProtocolError, match=r"limit of 99 bytes.*raise the limit") as caught:
            fed(decoder, sent, size)
        assert line[:20] == caught.value.frame[:20]
        assert messages() == decoder.flush()


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize(("byte", "character"), [(b"x", "x"), (b"\xff", "\ufffd")])
def test_a_line_at_the_limit_is_fine(byte, character, size):
    """The limit counts the bytes of one line as they came, with its end; not those of many lines."""
    decoder = NDJSONDecoder(limit=100)
    stream = (byte * 99 + b"\n") * 50
    assert messages(*[character.encode() * 99] * 50) == fed(decoder, stream, size)


@pytest.mark.parametrize("size", [1, 100])
def test_a_long_line_in_small_pieces_takes_linear_time(size):
    """1 MiB in pieces is decoded at once, not searched again with each piece (which takes minutes)."""
    decoder = NDJSONDecoder()
    data = b"x" * 2**20
    stream = data + b"\n"
    start = time.process_time()
    frames = fed(decoder, stream, size)
    assert time.process_time() - start < 5
    assert messages(data) == frames


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_byte_order_mark_before_the_first_line_is_dropped(size):
    """Only there, and whether or not the line has an end."""
    mark = b"\xef\xbb\xbf"
    decoder = NDJSONDecoder()
    assert messages(b"1", mark + b"2") == fed(decoder, mark + b"1\n" + mark + b"2\n", size)
    assert messages(b"1") == frames_of(mark + b"1")
