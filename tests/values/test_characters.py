"""Halves of characters, which no encoding can express, become U+FFFD."""

import pytest

from rxllm import FilePart, Message, RawPart, TextPart, ToolResultPart
from rxllm.values.characters import whole
from rxllm.values.sendable import sendable

BAD, GOOD = "caf\udce9.txt", "caf\ufffd.txt"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (BAD, GOOD),
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        ({BAD: [BAD, 1], "b": (None, BAD)}, {GOOD: [GOOD, 1], "b": (None, GOOD)}),
        (TextPart("a", extra={"b": BAD}), TextPart("a", extra={"b": GOOD})),
        (ToolResultPart("1", ["a", TextPart(BAD)], name=BAD), ToolResultPart("1", ["a", TextPart(GOOD)], name=GOOD)),
        (FilePart("text/plain", name=BAD, path=BAD), FilePart("text/plain", name=GOOD, path=BAD)),
    ],
)
def test_half_of_a_character_is_replaced(value, expected):
    """Two halves that follow each other are a character. The path of a file stays, because it must be found."""
    assert expected == whole(value)


@pytest.mark.parametrize("value", ["a", "é😀", 1, None, b"\xff", {"a": ["é"]}, [], ("é",), RawPart("x", {"a": ["é"]})])
def test_value_without_halves_stays_itself(value):
    """No copy is made."""
    assert value is whole(value)


def test_messages_of_earlier_turns_are_sent_without_halves():
    """The new ones stay unchanged: the program that wrote them gets an error."""
    old = [Message("user", BAD, name=BAD, extra={"a": BAD}), Message("assistant", BAD)]
    new = Message("user", BAD)
    assert (Message("user", GOOD, name=GOOD, extra={"a": GOOD}), Message("assistant", GOOD), new) == sendable(
        [*old, new], [new]
    )
    assert BAD == sendable([*old, new], [new])[2].text
