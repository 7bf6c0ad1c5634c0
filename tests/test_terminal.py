"""`printable` and `one_line`: the characters that terminals and logs never receive. `shortened`: what fits."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm import MisuseError, ProviderError, RxllmError
from rxllm.terminal import one_line, printable, shortened

BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_control_characters_are_escaped_except_tab_and_newline():
    """C0, DEL and C1, line separators, bidirectional formatting and surrogates are escaped; nothing else changes."""
    everything = {chr(code) for code in range(sys.maxunicode + 1)}
    obeyed = {c for c in everything if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - {"\t", "\n"}
    obeyed |= {*BIDIRECTIONAL}
    assert obeyed == {c for c in everything if printable(c) != c}
    assert {f"\\u{ord(c):04x}" for c in obeyed} == {printable(c) for c in obeyed}


@given(st.text(st.characters(codec=None, categories=None)), st.integers(0))
def test_split_sequences_are_escaped_alike(text, place):
    """A sequence split over two chunks is escaped as in one chunk."""
    cut = place % (len(text) + 1)
    assert printable(text) == printable(text[:cut]) + printable(text[cut:])


@given(st.text())
def test_json_reads_back_as_the_same_value(text):
    """In a JSON string the replacement is the character's escape."""
    assert text == json.loads(printable(json.dumps(text, ensure_ascii=False)))


@given(st.text(st.characters(codec=None, categories=None)))
def test_one_line_has_no_line_break(text):
    """Neither a terminal nor `str.splitlines` finds a second line in any text."""
    assert len(one_line(text).splitlines()) <= 1
    assert printable(one_line(text)) == one_line(text)


def test_shortened_text_shows_that_it_is_cut():
    """A text that fits stays whole."""
    assert ["abc", "ab…", "…"] == [shortened(text, width) for text, width in [("abc", 3), ("abcd", 3), ("abc", 1)]]


@pytest.mark.parametrize("kind", [RxllmError, ProviderError, MisuseError])
def test_error_messages_have_no_control_characters(kind):
    """An error's message may come from a server; a newline stays, as in any error."""
    assert "\\u001b]52;c;AA\\u0007\n\\u202e" == str(kind("\x1b]52;c;AA\x07\n\u202e"))
