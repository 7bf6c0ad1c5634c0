"""`text`, `message`, `usage`: on virtual time, where every moment is exact."""

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
    """What comes of a hot source, and when it was subscribed to (200 is when, 1000 when all is left)."""
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


def test_text_comes_as_it_comes():
    """Each chunk's text at its moment; chunks without text are left out."""
    heard, subscribed = run(text(), *HELLO, on_completed(300))
    assert [on_next(210, "Hel"), on_next(230, "lo"), on_completed(300)] == heard
    assert [(200, 300)] == subscribed


def test_text_cannot_be_taken_back():
    """A reset after which the text would be wrong is an error at that moment, and the source is left."""
    heard, subscribed = run(
        text(), on_next(210, Chunk("Hel")), on_next(220, Chunk("Hi", reset=True)), on_completed(300)
    )
    assert on_next(210, "Hel") == heard[0]
    assert [(220, MisuseError)] == [(event.time, type(event.value.exception)) for event in heard[1:]]
    assert "message()" in str(heard[1].value.exception)
    assert [(200, 220)] == subscribed


def test_the_message_comes_at_the_end():
    """Once, with every fact."""
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
def test_what_is_no_chunk_is_told(fold, name, value, said):
    """As the stream's error, once, with what probably stands before it."""
    heard, _ = run(fold(), on_next(210, Chunk("Hel")), on_next(220, value), on_completed(300))
    assert [(300, "E")] == [(each.time, each.value.kind) for each in heard]
    assert isinstance(heard[0].value.exception, MisuseError)
    assert re.match(rf"{name}\(\) takes chunks, but {said}", str(heard[0].value.exception))


def test_a_pipeline_of_texts_that_is_folded_is_told():
    """The sentence reaches whoever asks."""
    with pytest.raises(MisuseError, match=r"remove text\(\) before it"):
        rxllm.pipe(rxllm.Embedded(seed=1, max_tokens=3), text(), message()).invoke("x")


def test_a_failure_after_what_is_no_chunk_comes_as_it_is():
    """With no partial, since there is no sum."""
    failure = rxllm.TransportError("gone")
    heard, _ = run(message(), on_next(210, "Hel"), on_error(300, failure))
    assert [on_error(300, failure)] == heard
    assert failure.partial is None


def test_what_fails_within_a_chunk_is_not_blamed_on_the_operators():
    """An AttributeError of a chunk itself is told as what it is."""
    broken = Chunk(parts=[RawPart("p", {})], usage=USAGE)
    object.__setattr__(broken, "rest", object())
    with pytest.raises(AttributeError, match="reset"):
        joined("message()", [broken])


def test_the_message_knows_resets():
    """What was taken back is not in it."""
    heard, _ = run(message(), on_next(210, Chunk("Hel")), on_next(220, Chunk("Hi", reset=True)), on_completed(300))
    assert on_next(300, Message("assistant", "Hi")) == heard[0]


def test_the_usage_comes_at_the_end():
    """The last total, not the sum of totals."""
    heard, _ = run(
        usage(), on_next(210, Chunk(usage=Usage(input_tokens=5, output_tokens=1))), *HELLO, on_completed(300)
    )
    assert [on_next(300, Usage(input_tokens=5, output_tokens=2)), on_completed(300)] == heard


@pytest.mark.parametrize(
    ("operator", "expected"), [(message(), [Message("assistant")]), (usage(), [Usage()]), (text(), [])]
)
def test_of_nothing(operator, expected):
    """An empty stream is an empty answer that cost nothing."""
    heard, _ = run(operator, on_completed(300))
    assert [*(on_next(300, value) for value in expected), on_completed(300)] == heard


@pytest.mark.parametrize("operator", [message(), usage()])
def test_a_fold_of_a_broken_stream_is_its_error(operator):
    """No value: half an answer is not presented as whole."""
    heard, subscribed = run(operator, *HELLO, on_error(300, FAILURE))
    assert [on_error(300, FAILURE)] == heard
    assert [(200, 300)] == subscribed


@pytest.mark.parametrize("operator", [message(), usage(), text()])
def test_a_fold_may_be_used_again(operator):
    """One operator, two subscriptions: nothing is left in it from the first."""
    first, _ = run(operator, *HELLO, on_completed(300))
    second, _ = run(operator, *HELLO, on_completed(300))
    assert first == second


def test_usage_after_a_reset():
    """The total begins anew with the answer, wherever the figures stand."""
    chunks = [Chunk("a", usage=Usage(output_tokens=9)), Chunk("b", reset=True), Chunk(usage=Usage(input_tokens=1))]
    events = [on_next(210 + number, chunk) for number, chunk in enumerate(chunks)]
    expected, _ = run(message(), *events, on_completed(300))
    heard, _ = run(usage(), *events, on_completed(300))
    assert expected[0].value.value.usage == heard[0].value.value


def test_the_answers_text_is_that_of_its_message():
    """Two ways to the same text."""

    class Hello(rxllm.LLM):
        async def chunks(self, request):
            for event in HELLO:
                yield event.value.value

    assert Hello().invoke("x").text == "".join(Hello()("x").pipe(text(), rxllm.stream()))


@pytest.mark.parametrize("operator", [message(), usage()])
def test_a_fold_tells_an_error_what_it_had_folded(operator):
    """Nobody else has heard it. What an error knows already is better; other errors have no place for it."""
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
def test_what_text_refuses_ends_it_at_once(value):
    """It leaves the source itself, and says nothing more, whoever is behind it."""
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


def test_text_that_is_refused_while_it_is_subscribed_to():
    """By a source that emits at once, and can be left only when it has."""
    heard = Bare()
    connect(text()(rx.from_([Chunk("Hel"), Chunk(reset=True), Chunk("lo")])), heard, None)
    assert ["Hel", MisuseError] == heard.events


class Bare(rx.abc.ObserverBase):
    """A subscriber without any guard of the grammar, which disposes of nothing."""

    def __init__(self):
        self.events = []

    def on_next(self, value):
        """Notes it."""
        self.events.append(value)

    def on_error(self, error):
        """Notes its kind."""
        self.events.append(type(error))

    def on_completed(self):
        """Notes it."""
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
def test_error_names_the_operator_that_came_before(value, hint):
    """Values of text(), message() and usage() tell where they come from; of others only the type is known."""
    heard, _ = run(message(), on_next(210, value), on_completed(300))
    assert [f"message() takes chunks, but got {hint}"] == [str(event.value.exception) for event in heard]
