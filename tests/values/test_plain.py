"""Texts and numbers of a subclass, such as those of Jinja, Django, BeautifulSoup and numpy, become plain ones."""

import enum
import json

import pytest

from rxllm import Anthropic, Chunk, Gemini, Message, OpenAI
from rxllm.values.plain import encodable, plain


class Markup(str):
    """A text that holds more than its characters."""

    __slots__ = ("document",)

    def __str__(self):
        return "not the text"


class Whole(int):
    """An integer."""


class Fraction(float):
    """A number."""


class Colour(str, enum.Enum):  # noqa: UP042  (its str() is the name)
    """An enum of texts."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Markup("a"), "a"),
        (Colour.RED, "red"),
        (Whole(2), 2),
        (Level.LOW, 1),
        (Fraction(0.5), 0.5),
        ("a", "a"),
        (True, True),
        (None, None),
        ([1], [1]),
    ],
)
def test_subclass_becomes_its_base(value, expected):
    """Other values stay as they are."""
    found = plain(value)
    assert (type(expected), expected) == (type(found), found)


def test_value_that_json_lacks_is_refused():
    """As by the encoder itself."""
    with pytest.raises(TypeError, match="Encoding objects of type object is unsupported"):
        encodable(object())


@pytest.mark.parametrize("model", [OpenAI("gpt-4o"), Anthropic("claude-sonnet-4-6", max_tokens=9), Gemini("gemini-x")])
@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        (Markup("hi"), "hi"),
        ([(Markup("user"), Markup("hi"))], [("user", "hi")]),
        ({"role": Markup("user"), "content": Markup("hi")}, {"role": "user", "content": "hi"}),
    ],
)
def test_request_has_plain_texts_and_numbers(model, prompt, same, monkeypatch):
    """In the prompt, in the parameters and in `extra`."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "k")
    given = {
        "max_tokens": Whole(3),
        "temperature": Fraction(0.5),
        "stop_sequences": [Markup("END")],
        "extra": {"a": [Whole(1), {"b": Fraction(0.5)}], "c": Markup("d")},
    }
    plainly = {
        "max_tokens": 3,
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "extra": {"a": [1, {"b": 0.5}], "c": "d"},
    }
    assert model.preview(same, **plainly).json == model.preview(prompt, **given).json


def test_values_hold_plain_texts():
    """So JSON can express them, and they keep no document alive."""
    message = Message(Markup("user"), Markup("hi"), metadata={"score": Fraction(0.5)})
    assert (str, str, float) == (type(message.role), type(message.text), type(message.metadata["score"]))
    assert message == Message.from_json(json.loads(json.dumps(message.to_json())))
    assert str is type(Chunk(Markup("hi")).text) is type(Chunk.of(Markup("hi")).text)
