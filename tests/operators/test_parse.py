"""`parse`: the value of an answer in JSON, at its end."""

from typing import Any, Literal

import attrs
import pytest
import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st
from reactivex.subject import Subject

import rxllm
from rxllm import Chunk, MisuseError, ParseError, Usage, drafts, items, parse
from rxllm.values.parts import ReasoningPart, RefusalPart, ToolCallPart

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=8,
)


@attrs.frozen
class Step:
    """A class to ask for."""

    text: str
    minutes: int = 1


@attrs.frozen
class Said(rxllm.LLM):
    """A model that streams these chunks."""

    said: tuple[Any, ...]

    async def chunks(self, request):
        """Emit them."""
        for chunk in self.said:
            yield chunk


def outcome(operator, *values):
    """Return what the operator emits for these values, and the error, if there is one."""
    emitted, errors = [], []
    rx.from_(values).pipe(operator).subscribe(emitted.append, errors.append)
    return (emitted, *errors)


def error_of(shape, *values):
    """Return the error of an answer, before which nothing is emitted."""
    emitted, error = outcome(parse(shape), *values)
    assert [] == emitted
    return error


def test_value_comes_at_the_end():
    """From chunks, from texts, or from a whole message; in any pieces."""
    expected = ([Step("Boil", 5)],)
    text = '{"text": "Boil", "minutes": 5}'
    assert expected == outcome(parse(Step), text)
    assert expected == outcome(parse(Step), *text)
    assert expected == outcome(parse(Step), *map(Chunk, text))
    assert expected == outcome(parse(Step), Chunk(text).message())
    assert expected == outcome(parse(Step), Chunk(parts=[ReasoningPart("Hm.")]), Chunk(text), Chunk(usage=Usage()))
    assert ([[1, 2]],) == outcome(parse(list[int]), ' {"value": [1, 2]}\n')
    assert (["b"],) == outcome(parse(Literal["a", "b"]), '"b"')


def test_nothing_comes_before_the_end():
    """The answer may still go on after a whole value."""
    source, emitted = Subject(), []
    source.pipe(parse(int)).subscribe(emitted.append)
    source.on_next("1")
    assert [] == emitted
    source.on_completed()
    assert [1] == emitted


def test_reset_begins_anew():
    """A chunk with ``reset`` takes back what came."""
    assert ([Step("B")],) == outcome(parse(Step), Chunk('{"text"'), Chunk('{"text": "B"}', reset=True))


@given(JSON, st.data())
def test_every_split_of_any_json_gives_the_same_value(value, data):
    """Strings, escapes, numbers and surrogate pairs may be split anywhere."""
    import json

    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    if not (isinstance(value, dict) and [*value] == ["value"]):
        assert ([value],) == outcome(parse(Any), *pieces)
    assert ([value],) == outcome(parse(Any), '{"value":', *pieces, "}")


@pytest.mark.parametrize(
    ("values", "reason", "message"),
    [
        (['{"text": "a"'], "cut", "ended before its JSON did"),
        (['{"text":"a"} ', Chunk(finish_reason="length")], "cut", "Raise max_tokens"),
        (['{"text": "a', Chunk(finish_reason="content_filter")], "filtered", "content filter"),
        ([Chunk(parts=[RefusalPart("I won't.")])], "refused", "refused to answer: I won't"),
        (['{"text": "a"}', Chunk(parts=[RefusalPart("I won't.")])], "refused", "refused to answer"),
        ([Chunk(parts=[ReasoningPart("Hm")]), Chunk(finish_reason="length")], "cut", "Raise max_tokens"),
        ([], "empty", "no text"),
        (["  \n"], "empty", "empty"),
        ([Chunk(parts=[ToolCallPart("1", "now", "{}")])], "empty", "The model called now instead of answering"),
        (['Here: {"text": "a"}'], "malformed", "not valid JSON"),
        (['```json\n{"text": "a"}\n```'], "malformed", "not valid JSON"),
        (['{"text": "a"}{"text": "b"}'], "malformed", "instead of the end"),
        (['{"text": "a",}'], "malformed", "not valid JSON"),
        (["{'text': 'a'}"], "malformed", "not valid JSON"),
        (['{"text": "\\ud800"}'], "malformed", "surrogate"),
        (["[" * 3000], "malformed", "levels deep"),
        (['{"text": 1}'], "mismatch", r"does not fit Step: expected a string, but got an integer, at \$\.text"),
        (['{"text": "a", "minuets": 3}'], "mismatch", "there is no field 'minuets'"),
    ],
)
def test_answer_without_a_value_is_a_parse_error_with_its_reason(values, reason, message):
    """A cut, filtered or refused answer is never taken for a whole one."""
    error = error_of(Step, *values)
    assert (ParseError, reason) == (type(error), error.reason)
    assert Step is error.shape
    with pytest.raises(ParseError, match=message):
        raise error


@pytest.mark.parametrize(
    ("parameters", "text", "notes"),
    [
        ({}, "Sure! Here", ["Models answer with JSON only if you ask for it, as with llm.bind(shape=…)."]),
        ({"shape": Step}, "Sure! Here", ["A server that ignores schemas needs shape_mode='prompted'."]),
        ({"shape": Step, "shape_mode": "prompted"}, "Sure! Here", []),
        ({}, '{"text": "a"} Sure!', []),
        ({}, "[1, Sure", []),
    ],
)
@pytest.mark.parametrize("operator", [parse, drafts])
def test_advice_to_ask_for_json_comes_only_where_it_helps(parameters, text, notes, operator):
    """Prose at the beginning of an answer: the model was not asked for JSON, or its server ignores schemas."""
    with pytest.raises(ParseError) as caught:
        rxllm.pipe(Said((Chunk(text),)).bind(**parameters), operator(Step)).invoke("How?")
    assert notes == getattr(caught.value, "__notes__", [])


def test_last_value_of_a_key_counts():
    """As for `json.loads`, in the value itself, in its parts, and in the elements that `items` emits."""
    assert ([Step("b")],) == outcome(parse(Step), '{"text": "a", "te', '\\u0078t": "b"}')
    assert ([[{"a": 2}]],) == outcome(parse(list[dict[str, int]]), '[{"a": 1, "a": 2}]')
    assert ([{"a": 2}],) == outcome(items(dict[str, int]), '[{"a": 1, "a": 2}]')
    assert "malformed" == outcome(items(int, "a"), '{"a": [1], "a": [2]}')[-1].reason  # 1 can't be taken back


@pytest.mark.parametrize("size", range(len('{"text": "a", "minutes": 5}')))
def test_no_prefix_of_an_answer_passes(size):
    """Some libraries complete a cut answer, and so return a part of the value as the whole."""
    assert ("cut" if size else "empty") == error_of(Step, '{"text": "a", "minutes": 5}'[:size]).reason


def test_error_keeps_the_answer_its_usage_and_the_request():
    """The partial answer of a real run, also after the model has completed."""
    usage = Usage(input_tokens=3, output_tokens=5)
    llm = Said((Chunk('{"text"'), Chunk(": 7}"), Chunk(usage=usage, finish_reason="stop", model="m")))
    with pytest.raises(ParseError) as caught:
        rxllm.pipe(llm, parse(Step)).invoke("How?")
    error = caught.value
    assert ('{"text": 7}', usage, "How?") == (error.text, error.usage, error.request.prompt)
    assert ('{"text": 7}', "m", usage) == (error.partial.text, error.partial.model, error.partial.usage)
    assert (("expected a string, but got an integer, at $.text",), "$.text") == (error.problems, error.path)


def test_error_of_the_source_passes():
    """So does what arrived before."""
    failed = rx.concat(rx.of(Chunk('{"te')), rx.throw(rxllm.Interrupted("gone")))
    errors = []
    failed.pipe(parse(Step)).subscribe(on_error=errors.append)
    assert ["gone"] == [str(error) for error in errors]


def test_pipeline_with_parse_answers_with_the_value():
    """`invoke` and `batch` return what `parse` emits."""
    pipeline = rxllm.pipe(Said((Chunk('{"text": "a"}'),)), parse(Step))
    assert Step("a") == pipeline.invoke("?")
    assert [Step("a"), Step("a")] == pipeline.batch(["?", "?"])
    assert [Step("a")] == [*pipeline.stream("?")]


def test_wrong_use_is_refused():
    """A type without a shape is refused before the request is sent, and so are values other than text."""
    with pytest.raises(MisuseError, match="complex can't be the shape"):
        parse(complex)
    assert isinstance(error_of(int, 3), MisuseError)
    assert "parse(list[int])" == repr(parse(list[int]))
