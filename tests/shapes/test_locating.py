"""The JSON value in an answer with prose around it: the last one that fits, whatever the split."""

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm.shapes.locating import Locator
from rxllm.shapes.shape import shape_of


@attrs.frozen
class Step:
    """A class to ask for."""

    text: str
    minutes: int = 1


def located(text, kind=Step, cuts=()):
    """Return the text that remains when a locator reads these pieces."""
    locator = Locator(shape_of(kind))
    places = [0, *cuts, len(text)]
    shown = "".join(locator.read(text[start:end]) for start, end in itertools.pairwise(places))
    value = locator.end()
    return shown if value is None else value


FENCED = '```json\n{"text": "a"}\n```'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"text": "a"}', '{"text": "a"}'),
        ('Here it is:\n{"text": "a"}', '{"text": "a"}'),
        ('{"text": "a"}\nI hope it helps.', '{"text": "a"}'),
        (FENCED, '{"text": "a"}'),
        (f"Sure!\n{FENCED}\nDone.", '{"text": "a"}'),
        ('{"text": "a } b { \\" c"} and {more}', '{"text": "a } b { \\" c"}'),
        ('Use {name} as in {"text": "a"}', '{"text": "a"}'),
        ('{"text": "```json {}```"}', '{"text": "```json {}```"}'),
        ('First {"text": "a"}, no: {"text": "b"}', '{"text": "b"}'),
        ('{"text": "a"} fits {"type": "object"}', '{"text": "a"}'),
        ('<think>{"text": "draft"}</think>{"text": "b"}', '{"text": "b"}'),
        ('{"text": 1} or {"text": 2}', '{"text": 2}'),
        ('{"text": "a"} {"text": "b', '{"text": "a"}'),
        ('{"text": "a', '{"text": "a'),
        ("I can't do that.", "I can't do that."),
        ("{'text': 'a'}", "{'text': 'a'}"),
        ("", ""),
        ('{ \n "text": "a"}', '{ \n "text": "a"}'),
        ("{", "{"),
        ('See [1]: {"text": "a"}', '{"text": "a"}'),
    ],
)
@pytest.mark.parametrize("each", [False, True])
def test_last_object_that_fits_is_the_value(text, value, each):
    """In one piece or in single characters."""
    assert value == located(text, cuts=range(1, len(text)) if each else ())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Here: {"value": [1, 2]}', '{"value": [1, 2]}'),
        ("Here: [1, 2]!", "[1, 2]"),
        ("See [1] and [2, 3].", "[2, 3]"),
        ('[1, {"a": 2}] no, {"value": [3]}', '{"value": [3]}'),
    ],
)
def test_list_may_come_without_its_wrapper(text, value):
    """Where the type takes lists, brackets begin a value, too."""
    assert value == located(text, list[int])


def test_value_is_passed_on_while_it_grows():
    """Drafts need it; prose before it is held back."""
    locator = Locator(shape_of(Step))
    assert ["", "", '{"te', 'xt": "a"', "}"] == [
        locator.read(piece) for piece in ["Hi", " {", '"te', 'xt": "a"', "} ok"]
    ]
    assert locator.end() is None


@given(st.data())
def test_every_split_gives_the_same_value(data):
    """Also within escapes."""
    prose = data.draw(st.text(st.sampled_from("ab {}[]\"'\\:\n"), max_size=12))
    text = f'{prose} {{"text": "x\\\\\\" {{"}} {data.draw(st.sampled_from(["", "bye", "{}", "{x}"]))}'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    assert located(text) == located(text, cuts=cuts)
