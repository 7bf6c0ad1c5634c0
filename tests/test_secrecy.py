"""The search for a secret in a text that repeats it."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm import Request
from rxllm.secrecy import CUT, blanked, hidden, is_secret

SECRET = "sk-Ab/+9~=&\"'\\x"
KEY = "sk-0123456789abcdef"

WAYS = [
    lambda c: c,
    lambda c: "".join(f"%{byte:02x}" for byte in c.encode()),
    lambda c: "".join(f"%25{byte:02X}" for byte in c.encode()),
    lambda c: json.dumps(c)[1:-1],
    lambda c: f"\\u{ord(c):04x}",
    lambda c: f"\\\\u{ord(c):04X}",
    lambda c: f"\\x{ord(c):02x}",
    lambda c: f"&#{ord(c)};",
    lambda c: f"&#x{ord(c):X};",
    lambda c: {"&": "&amp;", "<": "&lt;", '"': "&quot;"}.get(c, c),
]


@given(st.lists(st.sampled_from(WAYS), min_size=len(SECRET), max_size=len(SECRET)))
def test_each_character_may_be_written_in_its_own_way(ways):
    """Any mixture of escapes is found, and no more than the secret is blanked."""
    written = "".join(way(c) for way, c in zip(ways, SECRET.replace("\\", ""), strict=False))
    assert "key: ***, again ***." == blanked(f"key: {written}, again {written}.", [SECRET.replace("\\", "")])


@given(st.binary(max_size=20), st.binary(max_size=20), st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
def test_a_secret_within_base64_is_found(before, after, encode):
    """Wherever it begins in what was encoded, and quoted, too; what is left does not tell it."""
    written = encode(before + KEY.encode() + after).decode()
    for text in written, quote(written, safe=""):
        left = blanked(text, [KEY]).split("***")
        assert 2 == len(left)
        assert len("".join(left)) <= len(quote(encode(before + after).decode(), safe="")) + 16


@pytest.mark.parametrize("secret", [KEY, "pass word", 'q"uo\\te', "sk-é漢😀"])
def test_common_forms_are_found(secret):
    """As JSON, in JSON, as the repr of bytes, as a form's field, in hexadecimal digits, in another encoding."""
    data = secret.encode()
    for written in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret)[1:-1])[1:-1],
        repr(data)[2:-1],
        quote(secret),
        quote(secret, safe="").replace("%20", "+"),
        data.hex(),
        data.decode("latin-1"),
    ):
        assert "a *** b" == blanked(f"a {written} b", [secret]), written


def test_the_beginning_of_a_secret_before_a_cut_is_blanked():
    """Four characters are enough; fewer may be an ordinary word."""
    assert [f"a ***{CUT} b", f"a sk-{CUT} b"] == [blanked(f"a {KEY[:size]}{CUT} b", [KEY]) for size in (4, 3)]
    assert f"***{CUT}" == blanked(f"{quote(KEY[:7], safe='').replace('-', '%2d')}{CUT}", [KEY])


def test_secrets_that_overlap_are_blanked_whole():
    """One may be a part of another, or begin in it."""
    assert "a *** b" == blanked("a abcdefgh b", ["abcdef", "cdef", "efgh"])


@pytest.mark.parametrize("text", ["", "plain", "100 % \\ & &amp; %zz \\u12", "x" * 100])
def test_other_text_stays(text):
    """Nothing is rewritten where there is no secret."""
    assert text == blanked(text, [KEY])


@pytest.mark.parametrize("name", ["api_key", "apiKey", "Authorization", "access_token", "clientSecret", "X-API-KEY"])
def test_names_of_secrets(name):
    """In any spelling."""
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "monkey", "keyboard", "authors", "stop"])
def test_names_of_other_fields(name):
    """A word in a word tells nothing."""
    assert not is_secret(name)


def test_a_request_hides_its_keys():
    """By their names, in `headers`, and in `extra` by their looks; what has none is the same object."""
    tools = [{"type": "mcp", "headers": {"X-Any": KEY}, "authorization": "token"}, {"type": "weather_of_0123456789"}]
    request = Request(prompt="hi", tools=tools, extra={"a": [{"password": "hunter2"}, KEY], "effort": "high", "n": 1})
    clean = request.without_secrets()
    assert {"a": [{"password": "***"}, "***"], "effort": "high", "n": 1} == clean.extra
    hides = {"type": "mcp", "headers": {"X-Any": "***"}, "authorization": "***"}
    assert (hides, tools[1]) == clean.tools
    assert repr(request) == repr(clean)
    assert KEY == request.extra["a"][1]
    plain = Request(prompt="hi", extra={"effort": "high"})
    assert plain is plain.without_secrets()
    assert "hunter2" == hidden("hunter2")
