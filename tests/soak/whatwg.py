"""`SSEDecoder` reads any stream, in any pieces, as the algorithm of the WHATWG standard does.

The reference is written here from the text of the standard (HTML, 9.2.5 and 9.2.6), character by character, without
regard to speed. The decoder differs in five points. It limits the digits of `retry`. At the end of the stream it
accepts an event that lacks only its blank line, if the data is JSON. A JSON document without a field name is the data
of its event, if it has no other. A line of data that ends with an object ends its event, if the next line begins one.
And `data: [DONE]` needs no blank line: no provider reads further, so the two results are compared up to this event.
"""

from __future__ import annotations

import itertools
import json
import random

from soaking import Soak, run

from rxllm.wire.sse import SSEDecoder

LINES = (
    *("data", "data:", "data: ", "data:  ", "event:", "event: ", "id:", "id: ", "id", "retry:", "retry: ", ":", ": "),
    *("DATA: ", " data: ", "data : ", "event", "x: ", ""),
)
TEXTS = (
    *("", " ", "a", "1", "250", "007", "-1", "٣", ":", '{"a": 1}', '{"a', "[DONE]", "[DONE", "ping", "\0", "\t"),
    *("\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\ufeff", "é", "水", "🫧", "9" * 30),
)
ENDS = ("\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\n\r", "\r\n\n", "")
BYTES = (b"\xff", b"\xc3", b"\xe6\xb0", b"\xf0\x9f", b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb", b"\xef\xbb\xbf", b"\0")


class Reading:
    """The standard's interpretation of a whole stream."""

    def __init__(self, stream: bytes) -> None:
        self.events: list[tuple[str, bytes]] = []
        self.data = self.type = self.id_buffer = self.last_id = ""
        self.bare: list[str] = []
        self.retry: int | None = None
        self.retry_buffer: int | None = None
        text = stream.decode("utf-8", "replace")
        text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        for glued in "}\ndata: {", "}\ndata:{", "}\ndata: [DONE]", "}\ndata:[DONE]":
            text = text.replace(glued, glued.replace("\n", "\n\n"))
        line, at = "", 0
        while at < len(text):
            character = text[at]
            at += 1
            if character != "\n":
                line += character
                continue
            self.read(line)
            line = ""
        self.at_the_end(line)

    def read(self, line: str) -> None:
        """Processes one complete line."""
        if line == "":
            self.dispatch()
        elif ":" in line:
            field, value = line[: line.index(":")], line[line.index(":") + 1 :]
            self.process(line, field, value[1:] if value[:1] == " " else value)
        else:
            self.process(line, line, "")

    def process(self, line: str, field: str, value: str) -> None:
        """Processes a field of an event, or a line of a document without one."""
        if field == "event":
            self.type = value
        elif field == "data":
            self.data += value + "\n"
        elif field == "id" and "\0" not in value:
            self.id_buffer = value
        elif field == "retry" and value and all(digit in "0123456789" for digit in value) and len(value) < 20:
            self.retry_buffer = int(value)
        elif self.bare or line[0] in "{[":
            self.bare.append(line)

    def dispatch(self) -> None:
        """Ends the event at a blank line."""
        self.last_id, self.retry = self.id_buffer, self.retry_buffer
        self.data = self.data or self.document()
        if self.data != "":
            self.events.append((self.type or "message", self.data[:-1].encode()))
        self.data = self.type = ""
        self.bare = []

    def document(self) -> str:
        """The lines of a JSON document without a field name, with a line end; empty if there is none."""
        text = "\n".join(self.bare)
        return text + "\n" if text and is_json(text) else ""

    def at_the_end(self, line: str) -> None:
        """Accepts an event without its blank line, if its data is whole. This rule is rxllm's, not the standard's."""
        if line:
            self.read(line)
        self.data = self.data or self.document()
        data = self.data[:-1]
        if self.data and (data == "[DONE]" or is_json(data)):
            self.dispatch()


def is_json(text: str) -> bool:
    """Whether the standard library reads the text as JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def before_done(events: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The events up to `[DONE]`, which is what a provider reads."""
    return [*itertools.takewhile(lambda event: not event[1].startswith(b"[DONE]"), events)]


def stream_of(source: random.Random) -> bytes:
    """A random stream of valid and invalid lines."""
    stream = b"\xef\xbb\xbf" if source.random() < 0.1 else b""
    for _ in range(source.randrange(1, 16)):
        line = source.choice(LINES) + source.choice(TEXTS) * source.randrange(3) + source.choice(ENDS)
        stream += line.encode()
        if source.random() < 0.1:
            stream += source.choice(BYTES)
    if source.random() < 0.05:
        stream = source.randbytes(source.randrange(40))
    return stream


def pieces_of(source: random.Random, stream: bytes) -> list[bytes]:
    """The stream in random pieces, sometimes single bytes."""
    cuts = sorted(source.randrange(len(stream) + 1) for _ in range(source.choice((0, 1, 2, 5, len(stream)))))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def work(soak: Soak) -> None:
    """Compares the two readings."""
    size = events = 0
    for _ in soak.cases():
        stream = stream_of(soak.random)
        reading, decoder = Reading(stream), SSEDecoder()
        pieces = pieces_of(soak.random, stream)
        found = [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.flush()
        expected: object = before_done(reading.events)
        actual: object = before_done(found)
        if found == actual:  # without an end mark, the state is compared, too
            expected = expected, reading.last_id, reading.retry
            actual = actual, decoder.last_event_id, decoder.retry
        size, events = size + len(stream), events + len(found)
        if expected != actual:
            soak.fault(f"{stream!r} in pieces {pieces!r}: the standard reads {expected!r}, SSEDecoder {actual!r}")
    soak.numbers.update(bytes=size, events=events)


if __name__ == "__main__":
    run(work, count=500_000)
