"""A wrong argument of a public constructor raises MisuseError with one sentence, before anything else happens."""

import pytest

import rxllm
from rxllm import Embedded, LoggingHandler, Message, MisuseError, OpenAI, ProgressHandler, StdoutHandler
from rxllm.handlers.opentelemetry import OpenTelemetryHandler
from rxllm.testing import Cassette, Replay, record

HUGE = 10**5000  # Python raises ValueError for the repr of so many digits
NO_TEXTS = [0, True, 1.5, float("nan"), b"x", [], {}, object(), HUGE]
NO_NUMBERS = ["", "1", b"x", [], object(), True, float("nan"), -1]

CASES = {
    "StdoutHandler": (StdoutHandler, [*NO_TEXTS, "a.txt"]),
    "LoggingHandler": (LoggingHandler, [1, "rxllm", object(), HUGE]),
    "ProgressHandler": (ProgressHandler, [*NO_NUMBERS, 1.5, HUGE]),
    "tracer_provider": (lambda value: OpenTelemetryHandler(tracer_provider=value), [0, "x", object(), HUGE]),
    "meter_provider": (lambda value: OpenTelemetryHandler(meter_provider=value), [0, "x", object(), HUGE]),
    "capture_content": (lambda value: OpenTelemetryHandler(capture_content=value), [0, 1, "x", None, HUGE]),
    "record's model": (lambda value: record(value, "tape.jsonl"), [None, "openai:m", Embedded, HUGE]),
    "record's path": (lambda value: record(Embedded(), value), [None, *NO_TEXTS]),
    "Cassette": (Cassette.read, [None, *NO_TEXTS, "\ud800", "\x00", "/nowhere/at/all"]),
    "Replay": (Replay, [None, *NO_TEXTS, "\ud800", "\x00"]),
    "speed": (lambda value: Replay(Cassette("x", []), speed=value), [None, *NO_NUMBERS, 0]),
    "api": (lambda value: OpenAI("m", api=value), ["", "response", 0, HUGE]),
    "role": (lambda value: Message(value, "hi"), [None, "human", *NO_TEXTS]),
    "parts of a chunk": (
        lambda value: rxllm.Chunk(parts=value),
        [None, "x", 0, True, 1.5, b"x", {"a": 1}, ["x"], HUGE],
    ),
    "file of a store": (rxllm.SQLiteStore, [None, *NO_TEXTS, "a\x00b"]),
    "concurrency": (lambda value: rxllm.Limiter(concurrency=value), [*NO_NUMBERS, 0, 1.5, HUGE]),
    "requests per minute": (lambda value: rxllm.Limiter(requests_per_minute=value), [*NO_NUMBERS, 0, 1.5, HUGE]),
    "requests per second": (lambda value: rxllm.Limiter(requests_per_second=value), [*NO_NUMBERS, 0, 5e-324, HUGE]),
    "tokens per minute": (lambda value: rxllm.Limiter(tokens_per_minute=value), [*NO_NUMBERS, 0, 1.5, HUGE]),
    "burst": (lambda value: rxllm.Limiter(burst=value, requests_per_minute=1), [*NO_NUMBERS, 0, 1.5, HUGE]),
    "max_wait": (lambda value: rxllm.Limiter(max_wait=value), [*NO_NUMBERS, float("inf"), HUGE]),
    "stage": (rxllm.pipe, [None, "x", 0, HUGE]),
    "combinator": (rxllm.retry, [None, "x", 0, HUGE]),
    "keyword of another model": (lambda value: Embedded(max_retries=value), [0, HUGE]),
}


@pytest.mark.parametrize(
    "value", [(name, value) for name in CASES for value in CASES[name][1]], ids=lambda each: each[0]
)
def test_wrong_argument_raises_misuse_error_on_one_line(value):
    """The message is one line and ends with a full stop, for every kind of value."""
    name, wrong = value
    with pytest.raises(MisuseError) as caught:
        CASES[name][0](wrong)
    assert str(caught.value).endswith(".")
    assert 1 == len(str(caught.value).splitlines())
