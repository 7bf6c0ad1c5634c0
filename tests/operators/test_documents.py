"""`drafts` and `items`: JSON in the text of an answer, while it arrives."""

import asyncio
import copy
import datetime as dt
import enum
import json
import threading
import uuid
from decimal import Decimal
from typing import Any, Literal

import attrs
import pytest
import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st
from reactivex import operators as ops
from reactivex.subject import Subject

import rxllm
from rxllm import Chunk, MisuseError, ParseError, Usage, drafts, items
from rxllm.values.parts import ReasoningPart, RefusalPart

TIMEOUT = 5.0  # seconds for what comes at once


class Mood(enum.Enum):
    """An enum."""

    GOOD = "good"
    BAD = "bad"


@attrs.frozen
class Person:
    """A type with strings of all kinds."""

    name: str
    mood: Mood = Mood.GOOD
    size: Literal["small", "large"] | None = None
    born: dt.date | None = None
    id: uuid.UUID | None = None
    wealth: Decimal | None = None
    key: bytes | None = None


def outcome(operator, *values):
    """Return the values that the operator emits, each as it was then, and the error, if there is one."""
    emitted, errors = [], []
    rx.from_(values).pipe(operator).subscribe(lambda value: emitted.append(copy.deepcopy(value)), errors.append)
    return (emitted, *errors)


# ── drafts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_drafts_of_chunks_grow():
    """One draft for each chunk that changes the value."""
    chunks = map(Chunk, ['{"ti', 'tle":"Pan', "", 'cakes",', '"minutes":2', "0}", "\n"])
    expected = [{}, {"title": "Pan"}, {"title": "Pancakes"}, {"title": "Pancakes", "minutes": 20}]
    assert (expected,) == outcome(drafts(), *chunks)


def test_drafts_of_texts_and_whole_messages():
    """Texts and a Message of a model without streaming work, too."""
    assert ([[], [1]],) == outcome(drafts(), "[", "1]")
    assert ([[1]],) == outcome(drafts(), rxllm.Message("assistant", "[1]"))


def test_drafts_ignore_reasoning():
    """Only the text of the answer is JSON."""
    thinking = Chunk(parts=[ReasoningPart("{hm")])
    assert ([{}],) == outcome(drafts(), thinking, Chunk("{}"), Chunk(usage=Usage(output_tokens=3)))


def test_reset_starts_a_new_value():
    """The text of the chunk with the reset belongs to the new value."""
    chunks = Chunk('{"a":"x'), Chunk('{"b', reset=True), Chunk('":1}')
    assert ([{"a": "x"}, {}, {"b": 1}],) == outcome(drafts(), *chunks)


PERSON = {
    "name": "Ada",
    "mood": "good",
    "size": "small",
    "born": "1815-12-10",
    "id": "0" * 32,
    "wealth": "12.5",
    "key": "aGk=",
}


@pytest.mark.parametrize("shape", [Person, list[Person], dict[str, Person], Person | None])
def test_values_that_mean_nothing_in_part_appear_whole(shape):
    """With a type, only the name grows."""
    value = {"list": [PERSON], "dict": {"x": PERSON}}.get(getattr(shape, "__name__", ""), PERSON)
    emitted, *errors = outcome(drafts(shape), *json.dumps(value))
    assert [] == errors
    assert value == emitted[-1]

    def people(draft):
        if isinstance(draft, list):
            return draft
        return [draft.get("x", {})] if "x" in value else [draft]

    for draft in emitted:
        for person in people(draft):
            assert {key: text for key, text in person.items() if key != "name"} == {
                key: PERSON[key] for key in person if key != "name"
            }
    assert {"A", "Ad"} < {person["name"] for draft in emitted for person in people(draft) if "name" in person}


@pytest.mark.parametrize(
    ("shape", "text", "expected"),
    [
        (list[int], '{"value":[1,2]}', [[], [1], [1, 2]]),
        (list[int], "[1,2]", [[], [1], [1, 2]]),
        (str, '{"value":"hi"}', ["", "h", "hi"]),
        (str, '"hi"', ["", "h", "hi"]),
        (Literal["hi"], '{"value":"hi"}', ["hi"]),
        (Literal["hi"], '"hi"', ["hi"]),
        (int, '{"value":12}', [12]),
        (bool | None, '{"value":null}', [None]),
        (list[int], '{"value":[1],"other":{"x":2}}', [[], [1]]),
        (str, '{"value":"hi","other":2,"third":[]}', ["", "h", "hi"]),
        (dict[str, int], '{"value":1}', [{}, {"value": 1}]),
    ],
)
def test_wrapper_of_a_value_is_taken_off(shape, text, expected):
    """Whether there is a wrapper depends on the type; the value may also come without it."""
    assert (expected,) == outcome(drafts(shape), *text)
    assert expected[-1:] == outcome(drafts(shape), text)[0]


def test_earlier_draft_is_never_changed():
    """A reader may keep all drafts."""
    kept, then = [], []
    text = json.dumps({"a": [{"b": "xyz"}, [1, [2]]], "c": {"d": {}}})
    rx.from_(text).pipe(drafts()).subscribe(lambda draft: (kept.append(draft), then.append(copy.deepcopy(draft))))
    assert then == kept
    assert len(kept) == len({json.dumps(draft) for draft in kept})


def test_last_draft_comes_even_if_its_copy_was_too_expensive_before():
    """A large value skips drafts, but never the last one."""
    value = {"list": [12345] * 10_000}
    text = json.dumps(value)
    emitted, *errors = outcome(
        ops.compose(drafts(), ops.take_last(1)), *(text[at : at + 9] for at in range(0, len(text), 9))
    )
    assert [] == errors
    assert [value] == emitted


@pytest.mark.parametrize(
    ("chunks", "reason", "sentence"),
    [
        ([Chunk('{"a":1')], "cut", "ended before its JSON did, at '{\"a\":1'"),
        ([Chunk("[1", finish_reason="length")], "cut", "Raise max_tokens"),
        ([Chunk("[1", finish_reason="content_filter")], "filtered", "content filter"),
        ([Chunk(parts=[RefusalPart("I won't.")])], "refused", "refused to answer: I won't."),
        ([Chunk(parts=[RefusalPart("No.")], finish_reason="content_filter")], "filtered", "before its JSON ended: No."),
        ([], "empty", "no text"),
        ([Chunk(" \n"), Chunk(usage=Usage(output_tokens=2))], "empty", "no text"),
        ([Chunk("Sure: {}")], "malformed", "After 0 characters it has 'Sure: {}' instead of a value"),
        ([Chunk("{} {")], "malformed", "instead of the end"),
    ],
)
@pytest.mark.parametrize("operator", [drafts(), drafts(list[int]), items(int)], ids=str)
def test_missing_end_is_a_parse_error(operator, chunks, reason, sentence):
    """It says why, and keeps what came and what it cost."""
    usage = Usage(output_tokens=2)
    *_, error = outcome(operator, Chunk(usage=usage), *chunks)
    assert isinstance(error, ParseError)
    assert reason == error.reason
    assert sentence in str(error)
    assert "".join(chunk.text for chunk in chunks) == error.text == error.partial.text
    assert usage == error.usage == error.partial.usage


def test_last_draft_comes_before_the_error():
    """In one piece or in many, a reader has seen the same when the error comes."""
    for values in ['{"a":"x"]'], [*'{"a":"x"]']:
        *_, last, error = (*outcome(drafts(), *values)[0], outcome(drafts(), *values)[1])
        assert ({"a": "x"}, "malformed") == (last, error.reason)
    interrupted = rx.of("[1,", '"a').pipe(ops.concat(rx.throw(rxllm.Interrupted("no"))))
    emitted, errors = [], []
    interrupted.pipe(drafts()).subscribe(emitted.append, errors.append)
    assert [1, "a"] == emitted[-1]
    assert [rxllm.Interrupted] == [*map(type, errors)]


def test_invalid_text_closes_the_request_at_once():
    """Otherwise the model would continue to write a useless answer."""
    source, seen = Subject(), []
    rx.defer(lambda _: source).pipe(drafts()).subscribe(
        lambda draft: seen.append((draft, len(source.observers))),
        lambda error: seen.append((error.reason, len(source.observers))),
    )
    source.on_next("[}")
    assert [([], 0), ("malformed", 0)] == seen


def test_error_of_a_running_request_names_the_request_and_estimates_its_tokens():
    """The program pays for what the model had generated when its answer turned out to be invalid."""

    class Chatty(rxllm.LLM):
        async def chunks(self, request):
            yield "[1, 2, 3, "
            yield "and so on"
            await asyncio.Event().wait()

    for operator in drafts(), items(int):
        with pytest.raises(ParseError) as caught:
            rxllm.pipe(Chatty(), operator).invoke("count")
        assert "count" == caught.value.request.text
        assert "[1, 2, 3, and so on" == caught.value.text
        assert Usage(input_tokens=2, output_tokens=5, estimated=True) == caught.value.usage


def test_drafts_of_a_model_end_a_pipeline():
    """The answer is the last draft."""

    class Cook(rxllm.LLM):
        async def chunks(self, request):
            for piece in '{"title"', ':"Pan', 'cakes"}':
                yield piece

    pipeline = rxllm.pipe(Cook(), drafts())
    assert {"title": "Pancakes"} == pipeline.invoke("a recipe")
    assert [{}, {"title": "Pan"}, {"title": "Pancakes"}] == [*pipeline.stream("a recipe")]
    assert [{"title": "Pancakes"}] * 2 == pipeline.batch(["a", "b"])


# ── items ────────────────────────────────────────────────────────────────────────────────────────────────────────


def steps(operator, text):
    """For each character of the text, how many elements it completed."""
    source, seen, counts = Subject(), [], []
    source.pipe(operator).subscribe(seen.append)
    for character in text:
        before = len(seen)
        source.on_next(character)
        counts.append(len(seen) - before)
    return "".join(map(str, counts)), seen


@pytest.mark.parametrize(
    ("shape", "text", "when", "expected"),
    [
        (
            dict[str, int],
            '[{"a":1},{"b":2} ]',
            "000000010000000100",
            [{"a": 1}, {"b": 2}],
        ),
        (str, '["ab", "]"]', "00001000010", ["ab", "]"]),
        (int, "[1 ,23,4]", "001000101", [1, 23, 4]),
        (list[int], "[[],[1]]", "00100010", [[], [1]]),
        (Any, '[{"a":"}\\""}]', "0000000000010", [{"a": '}"'}]),
    ],
)
def test_element_comes_the_moment_it_closes(shape, text, when, expected):
    """Before its comma, unless it is a number, whose end only the next character shows."""
    assert (when, expected) == steps(items(shape), text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[{"name":"Ada"},{"name":"Bo"}]', None),
        ('{"value":[{"name":"Ada"},{"name":"Bo"}]}', None),
        ('{"people":[{"name":"Ada"},{"name":"Bo"}],"count":2}', "people"),
        ('{"x":[[{"name":"no"}]],"y":{"people":[1]},"people":[{"name":"Ada"},{"name":"Bo"}]}', "people"),
    ],
)
def test_list_is_the_answer_or_a_member_of_it(text, key):
    """Other lists are passed over, and elements are values of the type."""
    expected = [Person("Ada"), Person("Bo")]
    for values in [text], [*text]:
        assert (expected,) == outcome(items(Person, key), *values)


def test_reset_after_an_element_is_refused():
    """An element cannot be taken back; before the first element there is nothing to take back."""
    emitted, error = outcome(items(int), Chunk("[1,2"), Chunk("[3]", reset=True))
    assert [1] == emitted
    assert isinstance(error, MisuseError)
    assert "restarted its answer after items() had emitted" in str(error)
    assert ([3],) == outcome(items(int), Chunk("[1"), Chunk("[3]", reset=True))


def test_element_that_does_not_fit_is_an_error_with_its_path():
    """The element is not skipped, and the elements before it are emitted."""
    emitted, error = outcome(items(Person), '[{"name":"Ada"},{"name":1},{"name":"Bo"}]')
    assert [Person("Ada")] == emitted
    assert ("mismatch", "$[1].name") == (error.reason, error.path)
    assert (
        "The element $[1] of the answer does not fit Person: expected a string, but got an integer, at $[1].name."
        == str(error)
    )
    assert ("expected a string, but got an integer, at $[1].name",) == error.problems
    _, error = outcome(items(int, "n"), '{"n":[1,"x"]}')
    assert ("mismatch", "$.n[1]") == (error.reason, error.path)


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        ("3", None, "should be a list, but it is a value of another type"),
        ('{"people":[1],"n":2}', None, "an object with the keys 'people', 'n'; items(…, key=…) names"),
        ("[1]", "people", "should be an object with a list under the key 'people'"),
        ('{"people":null}', "people", "an object with the keys 'people'"),
        ("{}", "people", "the keys none"),
    ],
)
def test_answer_without_the_list_is_a_mismatch(text, key, sentence):
    """The error names what came instead."""
    emitted, error = outcome(items(int, key), text)
    assert ([], "mismatch") == (emitted, error.reason)
    assert sentence in str(error)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"a":tru}]', "After 6 characters it has 'tru}]' instead of a number or a word of JSON"),
        ('[0,{"a":"x\n"}]', "After 10 characters it has '\\n\"}]' instead of an escape"),
        (f"[[{'1' * 5000}]]", "a smaller number"),
        ('[{"a":[1}]', "After 8 characters it has '}]' instead of the other closing bracket"),
        ("[1,]", "After 3 characters"),
        ("[{}]]", "After 4 characters it has ']' instead of the end"),
        ("[" * 200, "levels deep"),
    ],
)
def test_invalid_element_is_an_error(text, sentence):
    """However the text is cut."""
    for values in [text], [*text]:
        *_, error = outcome(items(Any), *values)
        assert "malformed" == error.reason
        assert sentence.split(" it has ")[0] in str(error)


def test_decimals_keep_their_digits():
    """Also beyond what a float holds."""
    assert ([Decimal("0.10000000000000000001"), Decimal("1.10")],) == outcome(
        items(Decimal), "[0.10000000000000000001,1.10]"
    )


def test_elements_after_a_dispose_are_not_decoded():
    """After the dispose at the first element, the other elements of the same chunk are not decoded."""
    made = []

    @attrs.define
    class Counted:
        number: int

        def __attrs_post_init__(self):
            made.append(self.number)

    rx.of('[{"number":1},{"number":2}]').pipe(items(Counted), ops.take(1)).subscribe()
    assert [1] == made


def test_break_closes_the_request():
    """A reader that disposes after enough elements stops the model."""
    closed = threading.Event()

    class Endless(rxllm.LLM):
        async def chunks(self, request):
            try:
                yield "["
                for number in range(10**9):
                    yield f"{number},"
            finally:
                closed.set()

    with rxllm.pipe(Endless(), items(int)).stream("count") as numbers:
        for number in numbers:
            if number == 3:
                break
    assert closed.wait(TIMEOUT)


def test_items_of_a_model_add_up_to_a_list():
    """Also in a batch."""

    class Lists(rxllm.LLM):
        async def chunks(self, request):
            yield "[1,"
            yield "2]"

    assert [1, 2] == rxllm.pipe(Lists(), items(int)).invoke("?")


elements = st.recursive(
    st.one_of(
        st.text(st.characters(codec="utf-8"), max_size=5),
        st.text('"\\\\[{x', max_size=6),
        st.integers(-9, 9),
        st.none(),
        st.booleans(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from('a"b\\'), inner, max_size=3)),
    max_leaves=8,
)


@given(st.lists(elements, max_size=5), st.sampled_from([None, "k"]), st.booleans(), st.data())
def test_items_are_the_elements_however_the_text_is_cut(values, key, ascii_only, data):
    """In one piece, in characters, or cut at random."""
    whole = values if key is None else {"before": values, key: values, "after": [values]}
    text = json.dumps(whole, ensure_ascii=ascii_only)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    for each in pieces, [*text], [text]:
        emitted, *errors = outcome(items(Any, key), *each)
        assert [] == errors
        assert repr(values) == repr(emitted)


@pytest.mark.parametrize("make", [drafts, items])
def test_type_that_cannot_be_a_shape_is_refused_at_once(make):
    """Before anything is sent."""
    with pytest.raises(MisuseError, match="can't be the shape"):
        make(set[complex])


def test_key_must_be_text():
    """A path or an index is not supported."""
    with pytest.raises(MisuseError, match=r"items\(Step, key='steps'\)"):
        items(int, 3)


def test_operators_show_the_call_that_made_them():
    """They can be pickled, as all operators."""
    assert ("drafts(Person)", "items(Person, key='people')") == (str(drafts(Person)), str(items(Person, key="people")))
