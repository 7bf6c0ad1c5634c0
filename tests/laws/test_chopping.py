"""The same bytes give the same frames, however the stream is chopped into pieces."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm.errors import ProtocolError
from rxllm.wire.ndjson import NDJSONDecoder
from rxllm.wire.sse import SSEDecoder, is_json

text = st.sampled_from(
    [
        *(b"", b" ", b"  ", b"x", b":", b": ", b"1", b"250", b'{"a": 1}', b"[DONE]", b'{"a', b"data", b"data: "),
        *(b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
        *(each.encode() for each in ("é", "水", "🫧", "\u0085", "\u2028", "\u2029")),
    ]
)
field = st.sampled_from([b"data", b"data:", b"data: ", b"event: ", b"event:", b"id: ", b"id", b"retry: ", b": ", b""])
line_end = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b""])
line = st.builds(lambda *parts: b"".join(parts), field, text, text, line_end)
usual = st.sampled_from([b'data: {"a": 1}\n\n', b'event: a\ndata: {"b": 2}\n\n', b"data: [DONE]\n\n", b": ping\n\n"])
mark = st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb"])
streams = st.one_of(
    st.builds(lambda first, lines: first + b"".join(lines), mark, st.lists(st.one_of(line, line, usual), max_size=20)),
    st.binary(max_size=60),
)


@st.composite
def chopped(draw, whole=streams):
    """A stream, and its pieces, some of which are empty."""
    stream = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=len(stream) + 2)))
    return stream, [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def in_bytes(stream: bytes) -> list[bytes]:
    """The worst chopping."""
    return [stream[at : at + 1] for at in range(len(stream))]


def outcome(decoder, pieces):
    """Return the frames and the error of a decoder for a stream."""
    frames = [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.flush()
    return frames, decoder.last_event_id, decoder.retry


def whole(data: str) -> bool:
    """Return whether data is complete by itself: JSON or the end marker."""
    try:
        json.loads(data)
    except ValueError:
        return data == "[DONE]"
    return True


def standard(stream: bytes):
    """WHATWG HTML 9.2.5 and 9.2.6, word by word and all at once; then our rule for the end of the stream."""
    decoded = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, rest = re.split("\r\n|\r|\n", decoded)
    frames: list[tuple[str, bytes]] = []
    data = name = identifier = last_event_id = ""
    retry = retry_of_event = None

    def process(line):
        nonlocal data, name, identifier, retry_of_event
        if line.startswith(":"):
            return
        field, value = line.split(":", 1) if ":" in line else (line, "")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            identifier = value
        elif field == "retry" and re.fullmatch("[0-9]{1,19}", value):
            retry_of_event = int(value)

    def dispatch():
        nonlocal data, name, last_event_id, retry
        last_event_id, retry = identifier, retry_of_event
        if data:
            frames.append((name or "message", data.removesuffix("\n").encode()))
        data = name = ""

    for line in lines:
        if line == "":
            dispatch()
        else:
            process(line)
    process(rest)
    if data and whole(data.removesuffix("\n")):
        dispatch()
    return frames, last_event_id, retry


@given(chopped())
def test_events_are_those_of_the_standard_however_chopped(given):
    """However it is chopped, a stream gives the frames of a literal reading of the standard."""
    stream, pieces = given
    expected = standard(stream)
    assert expected == outcome(SSEDecoder(), [stream])
    assert expected == outcome(SSEDecoder(), pieces)
    assert expected == outcome(SSEDecoder(), in_bytes(stream))


@given(chopped())
def test_an_event_comes_with_the_byte_that_completes_it(given):
    """After each piece, the decoder has returned all events that are complete."""
    _, pieces = given
    decoder = SSEDecoder()
    fed, frames = b"", []
    for piece in pieces:
        fed += piece
        frames += decoder.feed(piece)
        assert SSEDecoder().feed(fed) == frames


@given(chopped())
def test_lines_are_the_same_however_chopped(given):
    """NDJSON: each line that is not blank is a frame, and only LF ends a line."""
    stream, pieces = given
    *lines, rest = [
        each.strip(" \t\r") for each in stream.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split("\n")
    ]
    lines += [rest] * is_json(rest.encode())
    expected = [("message", each.encode()) for each in lines if each], "", None
    assert expected == outcome(NDJSONDecoder(), [stream])
    assert expected == outcome(NDJSONDecoder(), pieces)
    assert expected == outcome(NDJSONDecoder(), in_bytes(stream))


@pytest.mark.parametrize("decoder", [SSEDecoder, NDJSONDecoder])
@given(given=chopped(), limit=st.integers(1, 40))
def test_a_limit_refuses_the_same_streams_however_chopped(decoder, given, limit):
    """The limit depends only on the stream, not on its pieces."""

    def result(pieces):
        try:
            return outcome(decoder(limit=limit), pieces)
        except ProtocolError:
            return "too large"

    stream, pieces = given
    assert result([stream]) == result(pieces) == result(in_bytes(stream))


@given(
    events=st.lists(st.tuples(st.sampled_from(["", "ping", "水"]), st.text(st.characters(codec="utf-8")))),
    end=st.sampled_from(["\n", "\r", "\r\n"]),
)
def test_what_is_written_is_read(events, end):
    """Any text without line ends is decoded to the same text, with its event name."""
    events = [(name, re.sub("[\r\n]", "", data)) for name, data in events]
    stream = "".join((f"event:{name}{end}" if name else "") + f"data: {data}{end}{end}" for name, data in events)
    expected = [(name or "message", data.encode()) for name, data in events]
    assert expected == outcome(SSEDecoder(), [stream.encode()])[0]
