"""Growing JSON: the pieces of the text make no difference, and a later draft only extends an earlier one."""

import copy
import json
import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from rxllm.errors import ParseError
from rxllm.shapes.growing import GrowingJSON
from rxllm.shapes.outline import Outline

texts = st.text(st.characters(codec="utf-8"), max_size=8)
keys = st.one_of(st.sampled_from(["a", "b", "kind", 'q"', "\\", "é🫧"]), texts)
numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(texts, numbers, st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
junk = st.sampled_from([*'{}[]",:\\0-1.e+tfnu \n\x00\x1f', "", "\\u", "\\ud83d", "\\udc00", "NaN", "Infinity", "//"])
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "y"]}, "kind": {"type": "string", "format": "date"}, "b": {"type": "string"}},
}


@st.composite
def documents(draw):
    """The JSON text of any value, in one of the usual spellings."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")]))
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()), separators=separators)
    return draw(st.sampled_from(["", " \n"])) + text.replace("/", draw(st.sampled_from(["/", "\\/"]))) + "\n"


@st.composite
def damaged(draw):
    """The text of a document in which something is missing, replaced or added."""
    text = draw(documents())
    place = draw(st.integers(0, len(text)))
    return text[:place] + draw(junk) + text[place + draw(st.integers(0, 2)) :]


@st.composite
def cut(draw, text):
    """The text in pieces, some of which are empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def drafts(pieces, outline=None):
    """All drafts of a document, and its error, if it has one, without the text that it quotes."""
    growing, made, copies, failure = GrowingJSON(outline), [], [], None

    def take():
        if growing.has_changed:
            made.append(growing.draft())
            copies.append(copy.deepcopy(made[-1]))

    try:
        for piece in pieces:
            growing.feed(piece)
            take()
        growing.end()
    except ParseError as error:
        failure = (error.reason, re.sub("it has .* instead", "it has … instead", str(error)))
    take()
    assert copies == made  # no later draft has changed an earlier one
    return made, failure


def extends(later, earlier):
    """Return whether the later value only extends the earlier one."""
    if type(later) is not type(earlier):
        return False
    if isinstance(earlier, str):
        return later.startswith(earlier)
    if isinstance(earlier, list):
        return len(later) >= len(earlier) and all(map(extends, later, earlier))
    if isinstance(earlier, dict):
        return [*later][: len(earlier)] == [*earlier] and all(extends(later[key], earlier[key]) for key in earlier)
    return repr(later) == repr(earlier)


def steps(made):
    """Each draft with the one before it."""
    return zip(made[1:], made, strict=False)


def strictly(text):
    """The value of a text.

    Raises:
        ValueError: RFC 8259 does not allow the text, or it has a key twice, a lone surrogate or a number beyond floats.
    """

    def refuse(word):
        raise ValueError(word)

    def unique(members):
        if len(dict(members)) < len(members):
            raise ValueError(members)
        return dict(members)

    def finite(number):
        return float(number) if math.isfinite(float(number)) else refuse(number)

    value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
    json.dumps(value, ensure_ascii=False).encode()
    return value


@given(documents(), st.data())
def test_draft_extends_the_one_before_and_the_last_is_the_value(text, data):
    """However the text is cut, each draft differs from the draft before it and extends it."""
    for pieces in data.draw(cut(text)), [*text], [text]:
        made, failure = drafts(pieces)
        assert failure is None
        assert all(extends(later, earlier) and repr(later) != repr(earlier) for later, earlier in steps(made))
        assert repr(json.loads(text)) == repr(made[-1])


@given(documents(), st.data())
def test_strings_that_mean_nothing_in_part_appear_whole(text, data):
    """With a schema a draft extends the draft before it, too, and dates and enums appear when they are complete."""
    made, failure = drafts(data.draw(cut(text)), Outline.of(SCHEMA))
    assert failure is None
    assert all(extends(later, earlier) for later, earlier in steps(made))
    value = json.loads(text)
    assert repr(value) == repr(made[-1])
    for draft in made:
        if isinstance(draft, dict):
            assert {key: value[key] for key in {"a", "kind"} & {*draft} if isinstance(value[key], str)} == {
                key: draft[key] for key in {"a", "kind"} & {*draft} if isinstance(value[key], str)
            }


@given(damaged(), st.data())
@settings(max_examples=500)
def test_text_is_refused_at_the_same_place_however_it_is_cut(text, data):
    """Cut anywhere, a text has the same error and the same last draft as in one piece."""
    one, failure = drafts([text])
    for pieces in [*text], data.draw(cut(text)):
        many, same = drafts(pieces)
        assert failure == same
        assert repr(one[-1:]) == repr(many[-1:])


@given(st.one_of(damaged(), st.text('{}[]",:\\0-1.e+tfn ', max_size=8)))
@settings(max_examples=500)
def test_text_is_valid_if_and_only_if_the_standard_says_so(text):
    """The values are those of `json.loads`, and text that is not JSON raises an error."""
    made, failure = drafts([text])
    try:
        expected = strictly(text)
    except ValueError:
        assert failure is not None
    else:
        assert failure is None
        assert repr(expected) == repr(made[-1])
