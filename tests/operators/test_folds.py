"""`text`, `message` and `usage`, on virtual time."""

import re

import pytest
import reactivex as rx
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxllm
from rxllm import Chunk, Message, MisuseError, RawPart, TextPart, ToolCallPart, Usage, message, text, usage
from rxllm.operators.adding_up import joined
from rxllm.runtime.source import connect

on_next, on_error, on_completed = ReactiveTest.on_next, ReactiveTest.on_error, ReactiveTest.on_completed
USAGE = Usage(output_tokens=2)
FAILURE = ValueError("no")


def run(operator, *events):
    """The notifications of a hot source, and its subscription times (200 is the start, 1000 the dispose)."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(*events)
    observer = scheduler.start(lambda: source.pipe(operator))
    return observer.messages, [(each.subscribe, each.unsubscribe) for each in source.subscriptions]


HELLO = (
    on_next(210, Chunk("Hel")),
    on_next(220, Chunk(parts=[ToolCallPart("1", "f")])),
    on_next(230, Chunk("lo")),
    on_next(240, Chunk(usage=USAGE)),
)


def test_text_is_emitted_as_it_arrives():
    """Each chunk's text is emitted at its time; chunks without text are left out."""
    heard, subscribed = run(text(), *HELLO, on_completed(300))
    assert [on_next(210, "Hel"), on_next(230, "lo"), on_completed(300)] == heard
    assert [(200, 300)] == subscribed


def test_text_refuses_a_reset():
    """A reset errors the stream at that moment, and disposes the source."""
    heard, subscribed = run(
        text(), on_next(210, Chunk("Hel")), on_next(220, Chunk("Hi", reset=True)), on_completed(300)
    )
    assert on_next(210, "Hel") == heard[0]
    assert [(220, MisuseError)] == [(event.time, type(event.value.exception)) for event in heard[1:]]
    assert "message()" in str(heard[1].value.exception)
    assert [(200, 220)] == subscribed


def test_message_is_emitted_at_the_end():
    """The Message is emitted once, and has every fact."""
    heard, _ = run(message(), *HELLO, on_completed(300))
    parts = [TextPart("Hel"), ToolCallPart("1", "f"), TextPart("lo")]
    assert [on_next(300, Message("assistant", parts, USAGE)), on_completed(300)] == heard


@pytest.mark.parametrize(("fold", "name"), [(message, "message"), (usage, "usage")])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("lo", r"got str; remove text\(\) before it"),
        (Message("assistant", "lo"), r"got Message; remove message\(\) before it"),
        (5, r"got int\.$"),
    ],
)
def test_value_that_is_no_chunk_errors_the_fold(fold, name, value, said):
    """The error names the operator that probably stands before the fold."""
    heard, _ = run(fold(), on_next(210, Chunk("Hel")), on_next(220, value), on_completed(300))
    assert [(300, "E")] == [(each.time, each.value.kind) for each in heard]
    assert isinstance(heard[0].value.exception, MisuseError)
    assert re.match(rf"{name}\(\) takes chunks, but {said}", str(heard[0].value.exception))


def test_fold_of_text_raises_to_the_caller():
    """A pipeline that folds text instead of chunks raises MisuseError."""
    with pytest.raises(MisuseError, match=r"remove text\(\) before it"):
        rxllm.pipe(rxllm.Embedded(seed=1, max_tokens=3), text(), message()).invoke("x")


def test_error_after_a_value_that_is_no_chunk_passes_unchanged():
    """The error has no partial, because the values have no sum."""
    failure = rxllm.TransportError("gone")
    heard, _ = run(message(), on_next(210, "Hel"), on_error(300, failure))
    assert [on_error(300, failure)] == heard
    assert failure.partial is None


def test_attribute_error_within_a_chunk_is_not_reinterpreted():
    """An AttributeError of a chunk's own code passes unchanged."""
    broken = Chunk(parts=[RawPart("p", {})], usage=USAGE)
    object.__setattr__(broken, "rest", object())
    with pytest.raises(AttributeError, match="reset"):
        joined("message()", [broken, broken])


def test_message_honours_resets():
    """The chunks before a reset are not part of the Message."""
    heard, _ = run(message(), on_next(210, Chunk("Hel")), on_next(220, Chunk("Hi", reset=True)), on_completed(300))
    assert on_next(300, Message("assistant", "Hi")) == heard[0]


def test_usage_is_emitted_at_the_end():
    """It is the last total, not the sum of totals."""
    heard, _ = run(
        usage(), on_next(210, Chunk(usage=Usage(input_tokens=5, output_tokens=1))), *HELLO, on_completed(300)
    )
    assert [on_next(300, Usage(input_tokens=5, output_tokens=2)), on_completed(300)] == heard


@pytest.mark.parametrize(
    ("operator", "expected"), [(message(), [Message("assistant")]), (usage(), [Usage()]), (text(), [])]
)
def test_empty_stream_folds_to_an_empty_answer(operator, expected):
    """An empty stream gives an empty Message and Usage()."""
    heard, _ = run(operator, on_completed(300))
    assert [*(on_next(300, value) for value in expected), on_completed(300)] == heard


@pytest.mark.parametrize("operator", [message(), usage()])
def test_fold_of_a_failed_stream_emits_the_error_only(operator):
    """A partial answer is never emitted as a whole one."""
    heard, subscribed = run(operator, *HELLO, on_error(300, FAILURE))
    assert [on_error(300, FAILURE)] == heard
    assert [(200, 300)] == subscribed


@pytest.mark.parametrize("operator", [message(), usage(), text()])
def test_fold_keeps_no_state_between_subscriptions(operator):
    """One operator serves two subscriptions."""
    first, _ = run(operator, *HELLO, on_completed(300))
    second, _ = run(operator, *HELLO, on_completed(300))
    assert first == second


def test_usage_counts_from_the_last_reset():
    """The total starts again, wherever the usage stands."""
    chunks = [Chunk("a", usage=Usage(output_tokens=9)), Chunk("b", reset=True), Chunk(usage=Usage(input_tokens=1))]
    events = [on_next(210 + number, chunk) for number, chunk in enumerate(chunks)]
    expected, _ = run(message(), *events, on_completed(300))
    heard, _ = run(usage(), *events, on_completed(300))
    assert expected[0].value.value.usage == heard[0].value.value


def test_joined_text_equals_the_messages_text():
    """`text` and `message` give the same text."""

    class Hello(rxllm.LLM):
        async def chunks(self, request):
            for event in HELLO:
                yield event.value.value

    assert Hello().invoke("x").text == "".join(Hello()("x").pipe(text(), rxllm.stream()))


@pytest.mark.parametrize("operator", [message(), usage()])
def test_fold_sets_the_partial_of_an_error(operator):
    """An error that already has a partial keeps it; errors of other classes have none."""
    for error, expected in (
        (rxllm.TransportError("no"), "Hello"),
        (known := rxllm.TransportError("no"), "known"),
        (ValueError("no"), None),
    ):
        if error is known:
            error.partial = Message("assistant", "known")
        heard, _ = run(operator, *HELLO, on_error(300, error))
        assert [on_error(300, error)] == heard
        assert expected == (error.partial.text if expected else getattr(error, "partial", None))
    nothing = rxllm.TransportError("no")
    run(operator, on_error(300, nothing))
    assert nothing.partial is None


@pytest.mark.parametrize("value", [Chunk("Hi", reset=True), 5], ids=["reset", "no text"])
def test_refused_value_ends_text_at_once(value):
    """`text` disposes the source itself, and emits nothing more."""
    source, heard = Subject(), Bare()
    connect(text()(source), heard, None)
    source.on_next(Chunk("Hel"))
    kept = source.observers[0]
    source.on_next(value)
    assert [] == source.observers
    for again in Chunk("lo"), value:
        kept.on_next(again)
    kept.on_completed()
    kept.on_error(FAILURE)
    assert ["Hel", MisuseError] == heard.events


def test_value_refused_during_the_subscription_ends_text():
    """A source that emits during the subscription is disposed right after it."""
    heard = Bare()
    connect(text()(rx.from_([Chunk("Hel"), Chunk(reset=True), Chunk("lo")])), heard, None)
    assert ["Hel", MisuseError] == heard.events


class Bare(rx.abc.ObserverBase):
    """A subscriber that does not enforce the grammar, and disposes nothing."""

    def __init__(self):
        self.events = []

    def on_next(self, value):
        """Records the value."""
        self.events.append(value)

    def on_error(self, error):
        """Records the error's class."""
        self.events.append(type(error))

    def on_completed(self):
        """Records the completion."""
        self.events.append("end")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("a", "str; remove text() before it."),
        (Message("assistant", "a"), "Message; remove message() before it."),
        (Usage(), "Usage; remove usage() before it."),
        (1, "int."),
    ],
)
def test_error_names_the_operator_before(value, hint):
    """For text, Message and Usage it names the operator; for other values, their type."""
    heard, _ = run(message(), on_next(210, value), on_completed(300))
    assert [f"message() takes chunks, but got {hint}"] == [str(event.value.exception) for event in heard]
