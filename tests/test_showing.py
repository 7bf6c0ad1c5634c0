"""The reprs of values: one line, only the fields that are set, no addresses and no secrets."""

import functools
import numbers

import pytest
from attrs import frozen
from reactivex import operators as ops

import rxllm
from rxllm import Chunk, Message, Request, TextPart, ToolCallPart, Usage


def outline(topic):
    """A template."""
    return topic


@frozen
class Parrot(rxllm.LLM):
    """A user's own provider."""

    url: str
    retries: int = 3


class Plain(rxllm.LLM):
    """A provider that is a plain class."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Usage(), "Usage()"),
        (Usage(input_tokens=3, estimated=True), "Usage(input_tokens=3, estimated=True)"),
        (Message("user"), "Message('user')"),
        (Message("user", "a\nb"), r"Message('user', 'a\nb')"),
        (
            Message("assistant", "a", usage=Usage(output_tokens=2), finish_reason="stop", model="m"),
            "Message('assistant', 'a', usage=Usage(output_tokens=2), finish_reason='stop', model='m')",
        ),
        (
            Message("assistant", [ToolCallPart("1", "f", "{}"), TextPart("a")]),
            "Message('assistant', (ToolCallPart('1', 'f', '{}'), TextPart('a')))",
        ),
        (rxllm.ReasoningPart(index=2), "ReasoningPart(index=2)"),
        (rxllm.FilePart("image/png", data=b"abc", name="a"), "FilePart('image/png', <3 bytes>, name='a')"),
        (Chunk("a", usage=Usage(input_tokens=1)), "Chunk('a', usage=Usage(input_tokens=1))"),
        (rxllm.Parameters(), "Parameters()"),
        (Request(prompt="x", temperature=0), "Request(prompt='x', temperature=0)"),
        (Request(prompt=[("user", "x")]), "Request(prompt=(Message('user', 'x'),))"),
        (rxllm.Run("1", "a", "llm", tags=("t",)), "Run('1', 'a', 'llm', tags=('t',))"),
        (rxllm.Service("openai", port=3), "Service('openai', port=3)"),
        (rxllm.Embedded(), "Embedded()"),
        (rxllm.Embedded()("hi"), "<Observable; to read it: .subscribe(print), or .pipe(rxllm.stream())>"),
        (rxllm.Embedded().stream("hi"), "<SyncStream; to read it: for item in …>"),
        (rxllm.Embedded().astream("hi"), "<AsyncStream; to read it: async for item in …>"),
        (rxllm.StdoutHandler(), "StdoutHandler()"),
        (rxllm.Embedded(seed=1, extra={"a": 1}, run_name="r"), "Embedded(run_name='r', seed=1, extra={'a': 1})"),
        (rxllm.OpenAI("m", api_key="sk-secret", headers={"a": "b"}, temperature=0), "OpenAI('m', temperature=0)"),
        (rxllm.OpenAI("m", base_url="http://u:secret@h/v1"), "OpenAI('m', base_url='http://***@h/v1')"),
        (rxllm.Anthropic("m", max_retries=0), "Anthropic('m', max_retries=0)"),
        (Parrot("u"), "Parrot('u')"),
        (Parrot("u", 5, temperature=1), "Parrot('u', 5, temperature=1)"),
        (Plain(tags=["a"]), "Plain(tags=('a',))"),
        (rxllm.retry(Plain()), "retry(Plain())"),
        (rxllm.retry(Plain(), 5, delay=rxllm.backoff(2)), "retry(Plain(), attempts=5, delay=backoff(2, 30.0))"),
        (rxllm.retry(Plain(), when=lambda _: True), "retry(Plain(), when=<lambda>)"),
        (rxllm.fallback(Plain(), Parrot("u")), "fallback(Plain(), Parrot('u'))"),
        (rxllm.hedge(Plain(), Plain(), after=3), "hedge(Plain(), Plain(), after=3)"),
        (rxllm.route(outline), "route(choose=outline)"),
        (
            rxllm.budgeted(Plain(), rxllm.Budget("b.sqlite", tokens=5)),
            "budgeted(Plain(), budget=Budget('b.sqlite', 'budget', tokens=5, period='day'))",
        ),
        (
            rxllm.limited(Plain(), rxllm.Limiter(concurrency=2)),
            "limited(Plain(), limiter=Limiter(concurrency=2))",
        ),
        (rxllm.cached(Plain(), rxllm.MemoryStore(), name="n"), "cached(Plain(), store=MemoryStore(size=1024))"),
        (rxllm.cached(Plain(), rxllm.SQLiteStore("a.db"), name="n"), "cached(Plain(), store=SQLiteStore('a.db'))"),
        (rxllm.tool(outline), "tool(outline)"),
        (rxllm.text(), "text()"),
        (rxllm.batch(Plain(), max_concurrency=3), "batch(Plain(), max_concurrency=3)"),
        (rxllm.stage(ops.map(len), adds_up="list"), "stage(ops.map(len), adds_up='list')"),
        (
            rxllm.pipe(outline, Plain(), rxllm.text(), ops.map(str.upper), ops.scan(max), rxllm.stop_at("END")),
            "pipe(outline, Plain(), text(), ops.map(str.upper), ops.scan(max), stop_at('END'))",
        ),
        (rxllm.pipe(functools.partial(outline, "a"), Plain()), "pipe(partial(outline, 'a'), Plain())"),
        (rxllm.pipe(Plain()).with_config(run_name="talk"), "pipe(Plain(), run_name='talk')"),
        (rxllm.retry(rxllm.pipe(Plain())), "retry(pipe(Plain()))"),
        (rxllm.UsageMeter(), "UsageMeter(requests=0, usage={})"),
        (numbers, repr(numbers)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr_shows_set_fields_as_a_call(value, expected):
    """The repr is the call that would make the value, if such a call exists."""
    assert expected == repr(value)


def test_repr_of_usage_meter_shows_counts_by_model():
    """The repr contains the number of requests and the usage of each model."""
    meter = rxllm.UsageMeter()
    rxllm.observe(rxllm.Embedded(seed=1, max_tokens=3), meter).invoke("tea")
    assert "UsageMeter(requests=1, usage={'embedded': Usage(input_tokens=1, output_tokens=3)})" == repr(meter)


def test_repr_shows_field_whose_comparison_raises():
    """For example, the comparison of an array with its default has no truth value."""

    class Array:
        def __eq__(self, other):
            raise ValueError("ambiguous")

        __hash__ = None

        def __repr__(self):
            return "Array()"

    @frozen(eq=False)
    class Weights(rxllm.LLM):
        weights: Array = Array()  # noqa: RUF009

    assert "Weights(Array())" == repr(Weights(Array()))
