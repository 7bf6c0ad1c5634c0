"""`GrowingJSON`: what a draft shows, what it refuses, and what it costs."""

import json

import pytest

from rxllm.errors import ParseError
from rxllm.shapes.growing import NOTHING, GrowingJSON
from rxllm.shapes.outline import Outline
from rxllm.shapes.problems import MAX_DEPTH

SHOWN = {
    "a string grows": (['"He', "llo", '"'], ["He", "Hello"]),
    "an empty string shows": (['"', '"'], [""]),
    "a list grows": (["[", "1", ",", "2", "]"], [[], [1], [1, 2]]),
    "a number appears when it is whole": (['{"price":12', ".5", "}"], [{}, {"price": 12.5}]),
    "a number at the top appears at the end": (["1", "2"], [12]),
    "a word appears when it is whole": (["[tr", "ue", ",nul", "l]"], [[], [True], [True, None]]),
    "a key appears with its value": (['{"na', 'me"', ":", '"', 'x"}'], [{}, {"name": ""}, {"name": "x"}]),
    "spaces change nothing": ([" {", "  ", "\n", "} ", "\t"], [{}]),
    "an escape appears when it is whole": (['"a\\', "n", "\\u00", "e9", '"'], ["a", "a\n", "a\né"]),
    "a surrogate pair appears when it is whole": (['"\\ud8', "3e", "\\", "udee", '7"'], ["", "🫧"]),
    "an escaped backslash may be cut": (['"\\', '\\"'], ["", "\\"]),
    "brackets in a string are text": (['["}', ']",', '"{"]'], [["}"], ["}]"], ["}]", "{"]]),
    "nested values grow": (
        ['{"a":[{"b":"x', 'y"},', "[", "]]", ',"c":0}'],
        [{"a": [{"b": "x"}]}, {"a": [{"b": "xy"}]}, {"a": [{"b": "xy"}, []]}, {"a": [{"b": "xy"}, []], "c": 0}],
    ),
}
REFUSED = {
    "Sure, here": (0, "a value"),
    '{"a":1,}': (7, "a key in double quotes"),
    "{a:1}": (1, "a key in double quotes"),
    "[1,]": (3, "a value"),
    "[1 2]": (3, 'a "," or a "]"'),
    '{"a" 1}': (5, 'a ":"'),
    '{"a":1]': (6, 'a "," or a "}"'),
    "{} {}": (3, "the end"),
    '"a\nb"': (2, "an escape for this control character"),
    '"\\x"': (2, "an escape of JSON after the backslash"),
    '"\\u12g4"': (6, "four hexadecimal digits after \\u"),
    '"\\udc00"': (6, "the first half of a surrogate pair"),
    '"\\ud800"': (7, "the second half of a surrogate pair"),
    '"\\ud800\\n"': (8, "the second half of a surrogate pair"),
    '"\\ud800\\ud800"': (12, "the second half of a surrogate pair"),
    "[01]": (1, "a number or a word of JSON"),
    "[1.]": (1, "a number or a word of JSON"),
    "[-]": (1, "a number or a word of JSON"),
    "[nope]": (1, "a number or a word of JSON"),
    "[1e999]": (1, "a smaller number"),
    f"[{'1' * 5000}]": (1, "a smaller number"),
}


def shown(pieces, outline=None):
    """The draft after each piece that has changed it."""
    growing, drafts = GrowingJSON(outline), []
    for piece in pieces:
        growing.feed(piece)
        if growing.has_changed:
            drafts.append(growing.draft())
    growing.end()
    return [*drafts, growing.draft()] if growing.has_changed else drafts


@pytest.mark.parametrize(("pieces", "expected"), SHOWN.values(), ids=SHOWN)
def test_draft_shows_what_will_not_be_taken_back(pieces, expected):
    """One draft for each change, and none without a change."""
    assert expected == shown(pieces)


@pytest.mark.parametrize("text", REFUSED)
def test_error_says_where_and_what_was_expected(text):
    """The place is counted from the beginning of the answer, however the text is cut."""
    place, expected = REFUSED[text]
    for pieces in [text], [*text]:
        with pytest.raises(ParseError) as caught:
            shown(pieces)
        assert f"After {place} characters" in str(caught.value)
        assert f"instead of {expected}." in str(caught.value)
        assert "malformed" == caught.value.reason


@pytest.mark.parametrize("text", ["", " ", "{", '{"a":1', "[1", '"a', "tru", "-", '"\\u00', '{"a"', "[1,"])
def test_missing_end_is_cut_or_malformed(text):
    """A document that could continue is cut. An incomplete number or word at the end is malformed."""
    with pytest.raises(ParseError) as caught:
        shown([text])
    assert ("malformed" if text in ("tru", "-") else "cut") == caught.value.reason


def test_second_value_of_a_key_is_refused():
    """The second value would replace the first one, which a draft has shown."""
    with pytest.raises(ParseError, match="has the key 'a' twice"):
        shown(['{"a":1,"a":2}'])


def test_too_deep_a_document_is_a_parse_error():
    """The error comes at the first level that is too deep, so endless nesting does not fill the memory."""
    assert json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH) == shown(["[" * MAX_DEPTH + "]" * MAX_DEPTH])[-1]
    for text in "[" * 100_000, '{"a":' * 100_000:
        with pytest.raises(ParseError, match="levels deep"):
            shown([text])


SCHEMA = {
    "$defs": {
        "Kind": {"enum": ["one", "two"]},
        "Node": {
            "type": "object",
            "properties": {"at": {"type": "string", "format": "date"}, "next": {"$ref": "#/$defs/Node"}},
        },
    },
    "type": "object",
    "properties": {
        "kind": {"$ref": "#/$defs/Kind"},
        "maybe": {"anyOf": [{"const": "x"}, {"type": "null"}]},
        "either": {"anyOf": [{"enum": ["auto"]}, {"type": "string"}]},
        "data": {"type": "string", "contentEncoding": "base64"},
        "free": {"type": ["string", "null"]},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"enum": ["abc"]}], "items": False},
        "dates": {"type": "array", "items": {"type": "string", "format": "date"}},
        "node": {"$ref": "#/$defs/Node"},
        "any": {},
    },
    "additionalProperties": {"type": "string", "format": "uuid"},
}


@pytest.mark.parametrize(
    ("before", "grows"),
    {
        '{"kind":': False,
        '{"maybe":': False,
        '{"either":': True,
        '{"data":': False,
        '{"free":': True,
        '{"pair":[': True,
        '{"pair":["",': False,
        '{"dates":[': False,
        '{"dates":["2026-01-01",': False,
        '{"node":{"next":{"next":{"at":': False,
        '{"node":{"next":{"next":{"other":': True,
        '{"any":': True,
        '{"any":{"b":[': True,
        '{"other":': False,
    }.items(),
)
def test_schema_decides_whether_a_string_grows(before, grows):
    """Free text grows; enums, constants, dates and encoded bytes appear when they are whole."""
    growing = GrowingJSON(Outline.of(SCHEMA))
    growing.feed(before)
    growing.draft()
    growing.feed('"ab')
    assert grows == growing.has_changed
    growing.feed('c"')
    assert growing.has_changed


def test_each_member_and_element_has_an_outline_of_its_own():
    """Whether one member grows does not depend on the others."""
    outline = Outline.of(SCHEMA)
    for _ in range(2):
        assert [False, True, False] == [outline.at(key).grows for key in ("kind", "free", "other")]
        assert [True, False] == [outline.at("pair").at(index).grows for index in (0, 1)]


def test_outline_of_a_loop_of_references_ends():
    """A schema that only refers to itself allows any value."""
    assert Outline.of({"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}}).at("x").grows


LONG = {
    "a string": lambda size: json.dumps("x" * size),
    "a list of numbers": lambda size: json.dumps([12345] * (size // 7)),
    "a wide object": lambda size: json.dumps({f"key{number}": number for number in range(size // 16)}),
    "deep lists": lambda size: "[" + ",".join(["[" * 100 + "]" * 100] * (size // 200)) + "]",
}


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_text_pays_for_the_copies(make):
    """The size of all copies is linear in the length of the text, and there are still many drafts."""

    def copied(size):
        text, growing, drafts, total = make(size), GrowingJSON(), 0, 0
        for start in range(0, len(text), 15):
            growing.feed(text[start : start + 15])
            if growing.next_draft() is not NOTHING:
                drafts += 1
                total += sum(8 * len(each.value) for each in growing.open) + sum(map(len, growing.pieces))
        growing.end()
        assert growing.draft() == json.loads(text)
        return total / len(text), drafts

    for size in 30_000, 120_000, 480_000:
        per_character, drafts = copied(size)
        assert per_character <= 1024 + 16 * 2**17 / size
        assert drafts > 10 * (size / 1000) ** 0.5
