"""Values as JSON and back."""

import datetime as dt
import enum
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.test_monoid import chunks

import rxllm
from rxllm import Chunk, FilePart, Message, MisuseError, RawPart, Request, TextPart, ToolCallPart, Usage
from rxllm.records import fingerprint, of_json, to_json
from rxllm.values.parts import Approval, CachePoint, Pending, ReasoningPart, RefusalPart, ToolResultPart

TOKENS = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]}
WHOLE = Chunk(
    parts=[
        TextPart("Look: "),
        FilePart("image/png", bytes(range(256)), name="a.png"),
        FilePart("image/*", url="https://host.invalid/a.png"),
        RawPart("anthropic", {"type": "redacted_thinking", "data": ["x", 1, None]}),
        ReasoningPart("hm", "signed", 3, "rs_1", "openai", {"x": 1}),
        RefusalPart("no"),
        ToolCallPart("call_1", "now", '{"a": 1}', 2),
        ToolResultPart("call_1", ["noon", FilePart("image/png", b"clock")], "denied", name="now"),
        CachePoint("1h"),
        Pending(ToolCallPart("call_2", "pay", "{}"), "signed"),
        Approval(ToolCallPart("call_2", "pay", "{}"), True, "Yes.", "signed"),
    ],
    usage=Usage(input_tokens=1, output_tokens=0, cache_read_input_tokens=2, reasoning_output_tokens=3, estimated=True),
    finish_reason="tool_call",
    raw_finish_reason="tool_use",
    model="m",
    id="1",
    provider="p",
    reset=True,
    logprobs=TOKENS,
)


def again(chunk):
    """The chunk after a round trip through JSON."""
    return of_json(json.loads(json.dumps(to_json(chunk))))


@given(chunks, st.none() | st.just(TOKENS))
def test_chunk_survives_json(chunk, logprobs):
    """The chunk is equal, and its text is the same, in either form of the record."""
    chunk = Chunk(
        parts=chunk.parts,
        logprobs=logprobs,
        **{
            name: getattr(chunk, name)
            for name in ("usage", "finish_reason", "raw_finish_reason", "model", "id", "reset")
        },
    )
    assert chunk == again(chunk)
    assert chunk.text == to_json(chunk)["text"]


def test_parts_survive_json():
    """Each kind of part keeps all of its fields."""
    assert WHOLE == again(WHOLE)
    assert {type(part) for part in WHOLE.parts} == set(rxllm.values.parts.Part.__args__)
    assert all(getattr(WHOLE, field.name) for field in attrs.fields(type(WHOLE.rest)))


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (Chunk(), {"text": ""}),
        (Chunk("Hé"), {"text": "Hé"}),
        (Chunk(parts=[ReasoningPart("hm")]), {"text": "", "reasoning": "hm"}),
        (Chunk(parts=[RefusalPart("no")]), {"text": "", "refusal": "no"}),
        (
            Chunk(parts=[ToolCallPart("A", "now")], finish_reason="tool_call"),
            {"text": "", "tool_calls": [{"id": "A", "name": "now"}], "finish_reason": "tool_call"},
        ),
        (Chunk(model="", reset=True), {"text": "", "model": "", "reset": True}),
        (Chunk(usage=Usage(output_tokens=0)), {"text": "", "usage": {"output_tokens": 0}}),
        (
            Chunk(parts=[FilePart("image/png", b"1")]),
            {"text": "", "parts": [{"type": "file", "media_type": "image/png", "data": "MQ=="}]},
        ),
        (
            Chunk(parts=[TextPart("a"), ReasoningPart("b", index=0)]),
            {
                "text": "a",
                "reasoning": "b",
                "parts": [{"type": "text", "text": "a"}, {"type": "reasoning", "text": "b", "index": 0}],
            },
        ),
    ],
)
def test_record_has_only_set_fields(chunk, expected):
    """Parts are included only where the other fields do not determine them."""
    assert expected == to_json(chunk)
    assert chunk == again(chunk)


def test_unknown_fields_of_a_record_are_ignored():
    """A file may have fields of its own beside the chunk's."""
    assert Chunk("a") == of_json({"text": "a", "run": 5, "after": 0.1})


@pytest.mark.parametrize(
    ("record", "where"),
    [
        ([], "array"),
        ({"text": 5}, r"\$\.text"),
        ({"finish_reason": "tired"}, r"\$\.finish_reason"),
        ({"usage": {"input_tokens": "many"}}, r"\$\.input_tokens|\$\.usage"),
        ({"parts": [{"type": "song"}]}, "'song', not one of text, reasoning"),
        ({"parts": [{"type": ["file"]}]}, "not one of"),
        ({"parts": [{}]}, "None, not one of"),
        ({"parts": [{"type": "file"}]}, "media_type"),
        ({"parts": [{"type": "file", "media_type": "image/png", "data": "no base64!"}]}, "base64"),
    ],
)
def test_invalid_record_is_refused(record, where):
    """The message says where the record is wrong."""
    with pytest.raises(MisuseError, match=where):
        of_json(record)


PROMPTS = [
    "hi",
    [("user", "hi")],
    [("user", "hi"), ("assistant", "hi")],
    [Message("user", (FilePart("image/png", b"1"),))],
]


def test_different_requests_have_different_fingerprints():
    """Prompts and parameters count; a text differs from a conversation of one message."""
    asked = [Request.ask(prompt) for prompt in PROMPTS]
    asked += [
        attrs.evolve(asked[0], **one) for one in ({"temperature": 0}, {"seed": 0}, {"model": "m"}, {"extra": {"a": 1}})
    ]
    asked += [attrs.evolve(asked[0], tools=[rxllm.ToolSpec(name)]) for name in "ab"]
    assert len({fingerprint(request) for request in asked}) == len(asked)


def test_equal_requests_have_equal_fingerprints():
    """Streaming, the usage of earlier answers and the order of a mapping do not count."""
    question, answer = Message("user", "hi"), Message("assistant", "hello")
    later = attrs.evolve(answer, id="1", usage=Usage(output_tokens=1), model="m", finish_reason="stop")
    one = Request.ask([question, answer])
    assert fingerprint(one) == fingerprint(attrs.evolve(Request.ask([question, later]), stream=False))
    ab, ba = ({"extra": dict.fromkeys(names, 1)} for names in ("ab", "ba"))
    assert fingerprint(attrs.evolve(one, **ab)) == fingerprint(attrs.evolve(one, **ba))


def asked(**extra):
    """The fingerprint of a request with additional fields."""
    return fingerprint(Request(prompt="hi", extra=extra))


def test_fingerprint_treats_keys_and_numbers_like_json():
    """JSON has only text keys, and most servers treat 0.0 as 0."""
    assert asked(logit_bias={50256: -100, 11: 1}) == asked(logit_bias={"11": 1.0, "50256": -100})
    assert asked(logit_bias={50256: -100}) != asked(logit_bias={50256: -99})
    zero, nought, little = (Request(prompt="hi", temperature=number) for number in (0, 0.0, 0.1))
    assert fingerprint(zero) == fingerprint(nought) != fingerprint(little)
    assert asked(a=[1.0, {"b": (2.0,)}]) == asked(a=[1, {"b": [2]}])
    assert asked(a=1e300) != asked(a=2e300)
    assert asked(a=True) != asked(a=1)
    assert asked(stop={"a", "b", "c"}) == asked(stop={"c", "b", "a"})


class Color(enum.Enum):
    """An enum of two values."""

    RED = 1
    BLUE = 2


@attrs.frozen
class Point:
    """A class of the user's own."""

    x: object
    seen: int = attrs.field(default=0, eq=False)


@attrs.frozen
class Other:
    """Another class with the same fields."""

    x: object


def test_fingerprint_distinguishes_types_and_fields():
    """All of a value counts, and its type."""
    values = [
        *(1, "1", b"1", [1], {1}, None, True, 1.5, float("nan"), 2**70, -(2**70), {"a": 1}),
        *(Color.RED, Color.BLUE, Point(1), Point(2), Other(1), Point([1]), FilePart("image/png", b"1")),
        *(Decimal(1), Decimal("1.0"), dt.date(2026, 1, 1), dt.timedelta(1), UUID(int=1), Path("1")),
        *(dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    ]
    assert len(values) == len({asked(a=value) for value in values})
    assert asked(a=Point(1, seen=2)) == asked(a=Point(1)) == asked(a=Point(1.0))
    assert asked(a=FilePart("image/png", b"1")) == asked(a=FilePart("image/png", b"1"))
    assert asked(a=frozenset("abc")) == asked(a=frozenset("cba"))


class Shortened:
    """A class whose repr omits a difference."""

    def __repr__(self):
        return "array([0., 0., ..., 0.])"


@pytest.mark.parametrize(
    "value",
    ["\ud800", object(), [print], {None: 1}, {(1, 2): 3}, {1: 2, "1": 3}, Shortened(), slice(1), Point(Shortened())],
    ids=["surrogate", "object", "function", "none", "tuple", "twice", "repr", "slice", "within"],
)
def test_values_without_a_fingerprint_are_refused(value):
    """A memory address changes between processes, and an unwritable value has no key."""
    with pytest.raises(MisuseError, match="cannot derive a stable key for this request"):
        asked(a=value)
    with pytest.raises(MisuseError, match="cannot derive a stable key for this request"):
        fingerprint(Request.ask([Message("user", (RawPart("x", {"a": value}),))]))


def test_fingerprint_is_the_same_in_every_process():
    """So it can be stored."""
    program = "import rxllm; from rxllm.records import fingerprint; print(fingerprint(rxllm.Request.ask('hi', )))"
    environment = {**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert fingerprint(Request.ask("hi")) == done.stdout.strip()
