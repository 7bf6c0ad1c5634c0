"""What a terminal or a log is never sent."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm import MisuseError, ProviderError, RxllmError
from rxllm.terminal import one_line, printable

BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_every_control_character_but_tab_and_newline_is_shown():
    """C0, DEL and C1, the line separators, bidirectional formatting and halves of characters; nothing else changes."""
    everything = {chr(code) for code in range(sys.maxunicode + 1)}
    obeyed = {c for c in everything if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - {"\t", "\n"}
    obeyed |= {*BIDIRECTIONAL}
    assert obeyed == {c for c in everything if printable(c) != c}
    assert {f"\\u{ord(c):04x}" for c in obeyed} == {printable(c) for c in obeyed}


@given(st.text(st.characters(codec=None, categories=None)), st.integers(0))
def test_any_cut_gives_the_same(text, place):
    """A sequence that is split over two chunks is shown as it is when it comes in one."""
    cut = place % (len(text) + 1)
    assert printable(text) == printable(text[:cut]) + printable(text[cut:])


@given(st.text())
def test_json_keeps_its_value(text):
    """In a JSON string the replacement is the character's escape."""
    assert text == json.loads(printable(json.dumps(text, ensure_ascii=False)))


@given(st.text(st.characters(codec=None, categories=None)))
def test_one_line_is_one_line(text):
    """Whatever the text, neither a terminal nor `str.splitlines` begins another line."""
    assert len(one_line(text).splitlines()) <= 1
    assert printable(one_line(text)) == one_line(text)


@pytest.mark.parametrize("kind", [RxllmError, ProviderError, MisuseError])
def test_errors_send_no_control_characters(kind):
    """The message of an error may be a server's; a newline stays, as in any error."""
    assert "\\u001b]52;c;AA\\u0007\n\\u202e" == str(kind("\x1b]52;c;AA\x07\n\u202e"))
