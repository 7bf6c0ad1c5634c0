"""Server-sent events: every rule of the standard, and the few that real streams add."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm.errors import ProtocolError
from rxllm.wire.sse import SSEDecoder

LF, CR, CRLF = b"\n", b"\r", b"\r\n"


def frames_of(stream: bytes) -> list[tuple[str, bytes]]:
    """All frames of a stream that is fed at once."""
    decoder = SSEDecoder()
    return decoder.feed(stream) + decoder.flush()


def fed(decoder, stream: bytes, size: int) -> list[tuple[str, bytes]]:
    """The frames of a stream that comes in pieces."""
    return [frame for at in range(0, len(stream), size) for frame in decoder.feed(stream[at : at + size])]


def messages(*data: bytes) -> list[tuple[str, bytes]]:
    """Return frames without an event name; silence gives none."""
    return [("message", each) for each in data]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(
            b"data: YHOO\ndata: +2\ndata: 10\n\n",
            messages(b"YHOO\n+2\n10"),
            id="several lines of data are joined",
        ),
        pytest.param(
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
            messages(b"first event", b"second event"),
            id="a comment, an id, an id without value, and a third event that is cut off",
        ),
        pytest.param(
            b"data\n\ndata\ndata\n\ndata:",
            messages(b"", b"\n"),
            id="empty data is data; the last block has no blank line",
        ),
        pytest.param(
            b"data:test\n\ndata: test\n\n",
            messages(b"test", b"test"),
            id="the space after the colon may be left out",
        ),
        pytest.param(
            b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
            [("add", b"73857293"), ("remove", b"2153"), ("add", b"113411")],
            id="named events",
        ),
    ],
)
def test_the_examples_of_the_standard_hold(stream, expected):
    """The examples of WHATWG HTML 9.2.6 give the results that the standard states."""
    assert expected == frames_of(stream)


@pytest.mark.parametrize("end", [LF, CR, CRLF])
def test_lines_end_in_lf_cr_or_crlf(end):
    """Each of the three line ends is one."""
    stream = end.join([b"event: a", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
    expected = [("a", b"1\n2"), ("message", b"3")]
    assert expected == frames_of(stream)


@pytest.mark.parametrize("first", [LF, CR, CRLF])
@pytest.mark.parametrize("second", [LF, CR, CRLF])
def test_line_ends_may_be_mixed(first, second):
    """A line end of one kind and a blank line of another complete an event; only CR LF is one end, not two."""
    expected = messages(b"1\n2") if (first, second) == (CR, LF) else messages(b"1", b"2")
    assert expected == frames_of(b"data: 1" + first + second + b"data: 2\n\n")


PIECES = ("data: 1", "data: ", "data:2", "id: 3", "event: a", ": ping", "data:  é", "data: 1\rid: 9", "\n", "\r", "x")


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
def test_whole_events_with_crlf_are_read_as_byte_by_byte(pieces):
    """The fast path for events of one line gives the same frames and the same last id as the general path."""
    stream = "".join(f"{piece}\r\n\r\n" for piece in pieces).encode()
    at_once, slowly = SSEDecoder(), SSEDecoder()
    expected = [frame for at in range(len(stream)) for frame in slowly.feed(stream[at : at + 1])]
    assert expected == at_once.feed(b": begin\n\n") + at_once.feed(stream)
    assert slowly.last_event_id == at_once.last_event_id


def test_a_cr_at_the_end_of_a_chunk_ends_its_line_at_once():
    """An event is not held back until the byte after its CR is seen; a LF that follows belongs to that CR."""
    decoder = SSEDecoder()
    assert messages(b"1") == decoder.feed(b"data: 1\r\r")
    assert messages() == decoder.feed(b"")
    assert messages() == decoder.feed(b"\n")
    assert messages() == decoder.feed(b"data: 2\r")
    assert messages() == decoder.feed(b"")
    assert messages() == decoder.feed(b"\n")
    assert messages(b"2") == decoder.feed(b"\n")
    assert messages(b"3") == decoder.feed(b"data: 3\r\n\r")
    assert messages(b"4") == decoder.feed(b"\ndata: 4\r\n\r\n")


def test_one_lf_only_belongs_to_a_cr():
    """After CR LF, another LF is a blank line."""
    decoder = SSEDecoder()
    assert messages() == decoder.feed(b"data: 1\r")
    assert messages(b"1") == decoder.feed(b"\n\n")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_one_byte_order_mark_is_dropped(size):
    """A leading byte order mark is not part of the first field's name, however the stream is chopped."""
    decoder = SSEDecoder()
    stream = b"\xef\xbb\xbfdata: 1\n\n"
    frames = fed(decoder, stream, size)
    assert messages(b"1") == frames


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n", [], id="a second one"),
        pytest.param(b"\n\xef\xbb\xbfdata: 1\n\n", [], id="after a line end"),
        pytest.param(b"data: \xef\xbb\xbf1\n\n", messages(b"\xef\xbb\xbf1"), id="in data"),
        pytest.param(b"\xef\xbbdata: 1\n\n", [], id="two thirds of one"),
    ],
)
def test_other_byte_order_marks_are_text(stream, expected):
    """Only one is dropped, and only at the very beginning."""
    assert expected == frames_of(stream)


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b"data:1", b"1"),
        (b"data: 1", b"1"),
        (b"data:  1", b" 1"),
        (b"data: \t1 ", b"\t1 "),
        (b"data:\t1", b"\t1"),
        (b"data: a: b", b"a: b"),
        (b"data:", b""),
        (b"data: ", b""),
        (b"data", b""),
    ],
)
def test_exactly_one_space_after_the_colon_is_dropped(line, data):
    """Other characters of a value stay, and an empty line of data counts as a line."""
    assert messages(data) == frames_of(line + b"\n\n")


@pytest.mark.parametrize(
    "line", [b": ping", b":", b"::", b"other: 1", b"DATA: 1", b" data: 1", b"data : 1", b"datas", b"\xff: 1"]
)
def test_comments_and_unknown_fields_are_ignored(line):
    """Comments and unknown fields create no event and do not change the event around them."""
    assert messages() == frames_of(line + b"\n\n")
    assert messages(b"1\n2") == frames_of(b"\n".join([line, b"data: 1", line, b"data: 2", line, b"", b""]))
    assert messages(b"1", b"2") == frames_of(b"data: 1\n\n" + line + b"\n\ndata: 2\n\n")
    assert messages(b"1", b"2") == frames_of(b"data: 1\n" + line + b"\n\ndata: 2\n" + line + b"\n\n")


@pytest.mark.parametrize("lines", [b"event: ping", b"retry: 10", b"id: 7", b"id: 7\nevent: ping", b": x", b""])
def test_an_event_without_data_is_not_dispatched(lines):
    """Nor does its name stay for the next one."""
    assert messages(b"1") == frames_of(lines + b"\n\ndata: 1\n\n")


def test_a_blank_line_after_an_id_is_no_event():
    """An id that persists does not make blank lines and pings into events."""
    assert messages(b"1") == frames_of(b"id: 7\ndata: 1\n\n\n\n: ping\n\n\n")


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (b"event: a", "a"),
        (b"event:a", "a"),
        (b"event: a\nevent: b", "b"),
        (b"event: a\nevent", "message"),
        (b"event:", "message"),
        (b"event: \xc3\xa9", "é"),
        (b"event: \xff", "\ufffd"),
    ],
)
def test_the_last_name_is_the_events_name(lines, name):
    """An empty name is none, and a name is text, before or after the data."""
    assert [(name, b"1")] == frames_of(lines + b"\ndata: 1\n\n")
    assert [(name, b"1")] == frames_of(b"data: 1\n" + lines + b"\n\n")


def test_the_id_persists():
    """It stays until another one comes, through events without one; an empty one resets it."""
    decoder = SSEDecoder()
    seen = [decoder.last_event_id]
    for lines in (b"id: 1\ndata: x", b"data: x", b"id: 2", b"id: \xc3\xa9\ndata: x", b": ping", b"id\ndata: x"):
        decoder.feed(lines + b"\n\n")
        seen.append(decoder.last_event_id)
    expected = ["", "1", "1", "2", "é", "é", ""]
    assert expected == seen


def test_an_id_with_a_nul_is_ignored():
    """The standard forbids it, since the id goes into a header."""
    decoder = SSEDecoder()
    decoder.feed(b"id: 1\ndata: x\n\nid: 2\x00\ndata: y\n\n")
    expected = "1"
    assert expected == decoder.last_event_id


@pytest.mark.parametrize(
    ("value", "retry"),
    [(b"250", 250), (b"0", 0), (b"", 10), (b"-1", 10), (b"1.5", 10), (b"1 ", 10), (b"\xd9\xa1", 10), (b"9" * 5000, 10)],
)
def test_retry_takes_only_digits(value, retry):
    """ASCII ones; anything else leaves the last valid one, and a number without bounds is none."""
    decoder = SSEDecoder()
    assert decoder.retry is None
    assert messages() == decoder.feed(b"retry: 10\n\nretry: " + value + b"\n\n")
    assert retry == decoder.retry


@pytest.mark.parametrize(
    "text", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x00", "é", "水", "🫧", "\ufeff"]
)
def test_only_lf_and_cr_end_a_line(text):
    """Other characters that Python treats as line ends stay in the data."""
    data = b'{"a": "' + text.encode() + b'"}'
    assert messages(data, data) == frames_of(b"data: " + data + b"\n\ndata:" + data + b"\n\n")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\xffb", "a\ufffdb"),
        (b"\xe6\xb0", "\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
        (b"\xe9", "\ufffd"),
    ],
)
def test_invalid_utf8_becomes_the_replacement_character(data, expected):
    """The stream is UTF-8 whatever a header states. Invalid bytes neither end the stream nor change other events."""
    stream = "data: é\n\n".encode() + b"data: " + data + b"\ndata: x\n\n" + "data: é\n\n".encode()
    assert messages("é".encode(), expected.encode() + b"\nx", "é".encode()) == frames_of(stream)


def test_a_character_may_be_chopped():
    """A character of several bytes survives its bytes coming one by one."""
    decoder = SSEDecoder()
    stream = "event: 水\ndata: 🫧\n\n".encode()
    frames = fed(decoder, stream, 1)
    assert [("水", "🫧".encode())] == frames


@pytest.mark.parametrize("data", [b'{"a": 1}', b"[DONE]", b"[]", b"12", b'"x"', b"null", b'{"a":\ndata: 1}'])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_an_event_without_its_blank_line_is_flushed_if_it_is_whole(data, end):
    """Real bodies end without a blank line. JSON and `[DONE]` show whether they are complete."""
    decoder = SSEDecoder()
    assert messages(b"0") == decoder.feed(b"data: 0\n\nid: 7\nevent: a\ndata: " + data + end)
    expected = [("a", data.replace(b"data: ", b""))], "7"
    assert expected == (decoder.flush(), decoder.last_event_id)
    assert messages() == decoder.flush()


def test_an_event_that_is_flushed_is_valid_utf8():
    """As all others are."""
    decoder = SSEDecoder()
    assert messages() == decoder.feed(b'event: \xff\ndata: "\xff"')
    expected = [("\ufffd", '"\ufffd"'.encode())]
    assert expected == decoder.flush()


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("space", [b" ", b""])
@pytest.mark.parametrize("end", [b"", LF, LF + LF])
def test_objects_need_no_blank_line_between_them(size, space, end):
    """Some servers end each event with one line feed. Two objects are never one document."""
    stream = (b'data: {"a":1}\ndata: {"b":2}\n\ndata: {"c":3}\ndata: [DONE]' + end).replace(b": ", b":" + space)
    decoder = SSEDecoder()
    assert messages(b'{"a":1}', b'{"b":2}', b'{"c":3}', b"[DONE]") == fed(decoder, stream, size) + decoder.flush()


def test_objects_without_blank_lines_come_at_once():
    """The first is an event as soon as the second begins."""
    decoder = SSEDecoder()
    assert [] == decoder.feed(b'data: {"a":1}\n')
    assert messages(b'{"a":1}') == decoder.feed(b'data: {"b')
    assert messages(b'{"b":2}') == decoder.feed(b'":2}\ndata: {')


def test_one_document_in_several_lines_is_one_event():
    """Its lines may be documents, too."""
    document = b'[\n{"a":1}\n,\n{"b":2}\n]'
    stream = b"".join(b"data: %b\n" % line for line in document.split(b"\n"))
    assert messages(document) == frames_of(stream + b"\n") == frames_of(stream)


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("document", [b'{"error":1}', b'{\n  "error": [\n    1\n  ]\n}', b"[1]"])
@pytest.mark.parametrize("end", [b"", LF, LF + LF, LF + LF + b"data: x" + LF + LF])
def test_a_document_without_a_field_name_is_an_event(size, document, end):
    """Gateways append an error to a stream, as the document that they would have sent alone."""
    decoder = SSEDecoder()
    frames = fed(decoder, b"data: a\n\n" + document + end, size) + decoder.flush()
    assert messages(b"a", document, *[b"x"] * (b"x" in end)) == frames


@pytest.mark.parametrize("lines", [b"{", b'{"a":1', b"{} x", b'data: y\n{"a":1}', b'x: y\n"a"'])
def test_lines_without_a_field_name_are_ignored_otherwise(lines):
    """As the standard demands."""
    assert messages(*[b"y"] * (b"data" in lines)) == frames_of(lines + b"\n\n")


@pytest.mark.parametrize(
    "lines",
    [b"data: hello", b'data: {"a": ', b"data: [DONE", b"data:", b"event: a", b"x", b": x", b"data: " + b"[" * 10**5],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_an_event_that_is_cut_off_is_dropped(lines, end):
    """It leaves no frame, no id and no reconnection time."""
    decoder = SSEDecoder()
    assert messages(b"0") == decoder.feed(b"data: 0\nid: 1\nretry: 1\n\nid: 2\nretry: 2\n" + lines + end)
    expected = messages(), "1", 1
    assert expected == (decoder.flush(), decoder.last_event_id, decoder.retry)


@pytest.mark.parametrize(
    "stream", [b"", b"\n\n\n", b"\r", b"\r\n\r\n", b"\xef\xbb", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n"]
)
def test_nothing_gives_nothing(stream):
    """Silence and blank lines make no frames."""
    assert messages() == frames_of(stream)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("event", [b"data: " + b"x" * 93, b"data:" + b"\xff" * 94, b"data: 1\n" * 12 + b"xxx"])
def test_an_event_over_the_limit_is_refused(event, size):
    """This holds however the event is chopped. The message contains the limit and the remedy."""
    stream = b"data: 0\n\n" * 50 + event + b"\n\n"
    for sent in (stream, stream[:-1]):
        decoder = SSEDecoder(limit=99)
        with pytest.raises(ProtocolError, match=r"limit of 99 bytes.*raise the limit") as caught:
            fed(decoder, sent, size)
        assert event[:20] == caught.value.frame[:20]
        assert not caught.value.retryable


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_an_event_at_the_limit_is_fine(size):
    """The limit counts an event's bytes, each line end as one, without the blank line; not those of many events."""
    decoder = SSEDecoder(limit=100)
    stream = (b"data: " + b"x" * 93 + b"\r\n\r\n\r\n") * 50
    frames = fed(decoder, stream, size)
    assert messages(*[b"x" * 93] * 50) == frames


@pytest.mark.parametrize("limit", [1, 12, 13])
def test_the_end_marker_is_within_the_limit_however_chopped(limit):
    """Like each event: it counts 13 bytes with its line end, and a limit below that refuses it."""

    def result(pieces):
        try:
            decoder = SSEDecoder(limit=limit)
            return [frame for piece in pieces for frame in decoder.feed(piece)]
        except ProtocolError:
            return "too large"

    expected = [("message", b"[DONE]")] if limit == 13 else "too large"
    for stream in b"data: [DONE]\n", b"data: [DONE]\n\n":
        assert expected == result([stream]) == result([stream[at : at + 1] for at in range(len(stream))])


def test_the_limit_bounds_the_memory():
    """An endless event raises an error as soon as it exceeds the limit, and the decoder frees its bytes."""
    limit = 2**20
    decoder = SSEDecoder(limit=limit)
    tracemalloc.start()
    assert messages() == fed(decoder, bytes(limit), 100)
    with pytest.raises(ProtocolError) as caught:
        decoder.feed(b"x")
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < limit / 2
    assert most < limit * 4
    assert len(caught.value.frame) <= 1000


@pytest.mark.parametrize("size", [1, 100])
def test_a_long_line_in_small_pieces_takes_linear_time(size):
    """1 MiB in pieces is decoded at once, not searched again with each piece (which takes minutes)."""
    decoder = SSEDecoder()
    data = b"x" * 2**20
    stream = b"data: " + data + b"\n\n"
    start = time.process_time()
    frames = fed(decoder, stream, size)
    assert time.process_time() - start < 5
    assert messages(data) == frames
