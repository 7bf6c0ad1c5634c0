"""`stop_at` and `split_reasoning`: they find texts across chunks, and hold nothing else back."""

import threading
import time

import pytest
import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxllm
from rxllm import Chunk, MisuseError, ReasoningPart, TextPart, ToolCallPart, Usage, split_reasoning, stop_at
from rxllm.runtime.source import Source, connect
from rxllm.values.chunk import join

on_next, on_error, on_completed = ReactiveTest.on_next, ReactiveTest.on_error, ReactiveTest.on_completed
FAILURE = ValueError("no")
CALL = ToolCallPart("1", "f", "{}")


def chunks(operator, items):
    """The values that the operator emits for these texts or chunks."""
    heard, errors = [], []
    rx.from_([Chunk.of(item) for item in items]).pipe(operator).subscribe(heard.append, errors.append)
    assert [] == errors
    return heard


def run(operator, *events):
    """The values that the operator emits for a hot source, and the times of its subscription."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(*events)
    observer = scheduler.start(lambda: source.pipe(operator))
    return observer.messages, [each.unsubscribe for each in source.subscriptions]


@st.composite
def chopped(draw, alphabet, beginnings=("",)):
    """A text, and the same text as a list of pieces, some of them empty."""
    text = draw(st.sampled_from(beginnings)) + "".join(draw(st.lists(st.sampled_from(alphabet), max_size=25)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=len(text) + 2)))
    return text, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


# ── stop_at ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(chopped("aaabbc"), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stream_ends_before_the_first_sequence(given, sequences):
    """Any split of the text gives the same answer as a search of the whole text, also for overlapping sequences."""
    text, pieces = given
    places = [place for sequence in sequences if (place := text.find(sequence)) >= 0]
    expected = text[: min(places)] if places else text
    for items in pieces, list(text), [text]:
        heard = join(chunks(stop_at(*sequences), items))
        assert (expected, "stop" if places else None) == (heard.text, heard.finish_reason)


@given(chopped("ab"), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_only_a_possible_beginning_is_held_back(given, sequences):
    """After each chunk, the emitted text is the part that every continuation leaves before the stop."""
    _, pieces = given
    source, heard = Subject(), []
    source.pipe(stop_at(*sequences)).subscribe(heard.append)
    fed = ""
    for piece in pieces:
        fed += piece
        source.on_next(Chunk(piece))
        if any(sequence in fed for sequence in sequences) and heard and heard[-1].finish_reason:
            break
        undecided = [
            fed[-size:]
            for size in range(1, len(fed) + 1)
            if any(sequence.startswith(fed[-size:]) for sequence in sequences)
        ]
        assert fed == "".join(map(str, heard)) + max(undecided, key=len, default="")


@pytest.mark.parametrize(("end", "expected"), [("c", ""), ("d", "a"), ("", "a")])
def test_earlier_possible_match_is_awaited(end, expected):
    """A complete sequence within a possible longer one does not stop the stream until the longer one is decided."""
    for items in ["ab", end], [f"ab{end}"], ["a", "b", end]:
        heard = join(chunks(stop_at("abc", "b"), items))
        if end:
            assert (expected, "stop") == (heard.text, heard.finish_reason)
        else:
            assert (expected, "stop") == (heard.text, heard.finish_reason), items


class Bare(rx.abc.ObserverBase):
    """A subscriber that does not enforce the Rx grammar."""

    def __init__(self):
        self.heard = []
        self.on_next = self.heard.append

    def on_next(self, value):
        """Replaced by the test."""

    def on_error(self, error):
        """Records the error."""
        self.heard.append(error)

    def on_completed(self):
        """Records the completion."""
        self.heard.append("end")


def test_stop_disposes_the_source_and_completes_once():
    """The operator disposes the source itself, even if a later operator delays the completion."""
    for again in (lambda source: source.on_completed(), lambda source: source.on_error(FAILURE)):
        source, observer, kept = Subject(), Bare(), []

        def subscribe(inner, scheduler=None, source=source, kept=kept):
            kept.append(inner)
            return source.subscribe(inner)

        upstream = Source(subscribe)
        connect(stop_at("b")(upstream), observer, None)
        source.on_next(Chunk("ab"))
        assert [] == source.observers
        again(kept[0])
        kept[0].on_next(Chunk("more"))
        assert [Chunk("a"), Chunk(finish_reason="stop"), "end"] == observer.heard


def test_stop_emits_the_finish_reason_and_disposes():
    """The stop emits a chunk with the finish reason, disposes the source, and drops the held text."""
    events = [on_next(210, Chunk("Fine.\nHu")), on_next(220, Chunk("man: why")), on_next(230, Chunk("?"))]
    heard, left = run(stop_at("\nHuman:"), *events, on_completed(300))
    assert [on_next(210, Chunk("Fine.")), on_next(220, Chunk(finish_reason="stop")), on_completed(220)] == heard
    assert [220] == left


@pytest.mark.parametrize("end", [on_completed(300), on_error(300, FAILURE)])
def test_held_text_is_emitted_before_the_end(end):
    """Before a completion and before an error."""
    heard, left = run(stop_at("abc"), on_next(210, Chunk("xab")), end)
    assert [on_next(210, Chunk("x")), on_next(300, Chunk("ab")), end] == heard
    assert [300] == left


def test_source_that_ignores_dispose_is_silenced():
    """A source that emits during the subscription cannot be disposed in time; its further values are dropped."""
    heard = []

    def subscribe(observer, scheduler=None):
        for letter in "abcd":
            observer.on_next(Chunk(letter))
        observer.on_completed()

    stop_at("b")(Source(subscribe)).subscribe(heard.append, on_completed=lambda: heard.append("end"))
    assert [Chunk("a"), Chunk(finish_reason="stop"), "end"] == heard


def test_other_parts_pass_in_order():
    """A sequence does not match across another part, but matches across chunks without content."""
    parts = chunks(stop_at("ab"), ["xa", Chunk(parts=[CALL]), "by", Chunk(usage=Usage(output_tokens=1)), "a", "b"])
    whole = join(parts)
    assert (TextPart("xa"), CALL, TextPart("by")) == whole.parts
    assert (Usage(output_tokens=1), "stop") == (whole.usage, whole.finish_reason)
    over_facts = join(chunks(stop_at("ab"), ["xa", Chunk(usage=Usage(output_tokens=1)), "b"]))
    assert ("x", "stop") == (over_facts.text, over_facts.finish_reason)


def test_whole_answer_in_one_chunk_is_cut():
    """The chunk keeps its facts, and loses the text after the stop."""
    answer = Chunk(
        parts=[ReasoningPart("ab"), TextPart("xaby"), CALL], model="m", id="i", finish_reason="length", usage=Usage()
    )
    whole = join(chunks(stop_at("ab"), [answer]))
    assert (ReasoningPart("ab"), TextPart("x")) == whole.parts
    assert ("m", "i", "stop") == (whole.model, whole.id, whole.finish_reason)


def test_reset_drops_the_held_text():
    """After a reset, the search starts again."""
    heard = chunks(stop_at("abc"), ["xa", "b", Chunk("c", reset=True), "a"])
    assert [Chunk("x"), Chunk("c", reset=True), Chunk("a")] == heard


def test_plain_chunks_pass_unchanged():
    """Chunks without a possible match are the same objects."""
    items = [Chunk("Hello"), Chunk(" world")]
    assert list(map(id, items)) == list(map(id, chunks(stop_at("</s>"), items)))


@pytest.mark.parametrize("wrong", [(), ("",), ("a", ""), (None,), (["a"],)])
def test_missing_sequences_are_refused(wrong):
    """stop_at raises MisuseError before anything is subscribed."""
    with pytest.raises(MisuseError, match="texts that are not empty"):
        stop_at(*wrong)


def test_stop_closes_the_models_connection():
    """The stop closes the provider's generator."""
    closed = threading.Event()

    class Endless(rxllm.LLM):
        async def chunks(self, request):
            try:
                while True:
                    yield "la "
                    yield "STO"
                    yield "P"
            finally:
                closed.set()

    answer = rxllm.pipe(Endless(), stop_at("STOP"), rxllm.message()).invoke("x")
    assert ("la ", "stop") == (answer.text, answer.finish_reason)
    assert closed.wait(30)


# ── split_reasoning ──────────────────────────────────────────────────────────────────────────────────────────────


def split(text, start, end):
    """Splits a whole text into reasoning and answer."""
    beginning = text.lstrip()
    if not beginning.startswith(start):
        return "", text
    reasoning, _, answer = beginning[len(start) :].partition(end) if start else text.partition(end)
    return reasoning, answer.lstrip()


TAGS = ["<think>", "</think>", "<think", "<", "think>", "</", " ", "\n", "a", "</thi"]


BEGINNINGS = ["", " ", "\n a", " <", "<think>", " <think>", "\n<thin"]


@given(chopped(TAGS, BEGINNINGS), st.sampled_from([("<think>", "</think>"), ("", "</think>"), ("<", "<<a")]))
def test_text_between_the_tags_becomes_reasoning(given, tags):
    """Any split of the text gives the same reasoning and answer as a search of the whole text."""
    text, pieces = given
    expected = split(text, *tags)
    for items in pieces, list(text), [text]:
        whole = join(chunks(split_reasoning(*tags), items))
        assert expected == (whole.reasoning, whole.text)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["<think>\nHm.\n</think>\n\nYes."], [ReasoningPart("\nHm.\n"), TextPart("Yes.")]),
        (["\n <thi", "nk>Hm", ".</", "think>", "\n", "\nYes", "."], [ReasoningPart("Hm."), TextPart("Yes.")]),
        (["Say <think>."], [TextPart("Say <think>.")]),
        ([" \n", "<th", "ick"], [TextPart(" \n<thick")]),
        (["<think></think>Yes"], [TextPart("Yes")]),
        (["<think>a</think>b<think>c</think>"], [ReasoningPart("a"), TextPart("b<think>c</think>")]),
        (["<think>Hm</thi"], [ReasoningPart("Hm</thi")]),
        ([" <thi"], [TextPart(" <thi")]),
        ([" "], [TextPart(" ")]),
        (["<think>a", Chunk("<think>b</think>c", reset=True)], [ReasoningPart("b"), TextPart("c")]),
        (["<think>a</think>b", Chunk("<think>", reset=True), "d"], [ReasoningPart("d")]),
        (
            ["<think>a<", Chunk(parts=[CALL]), "b</think>c"],
            [ReasoningPart("a<"), CALL, ReasoningPart("b"), TextPart("c")],
        ),
        ([Chunk(parts=[ReasoningPart("a")]), "b"], [ReasoningPart("a"), TextPart("b")]),
    ],
)
def test_reasoning_is_recognised_at_the_beginning_only(items, expected):
    """An opening tag at the beginning starts the reasoning; the tags and the whitespace after them are removed."""
    assert tuple(expected) == join(chunks(split_reasoning(), items)).parts


def test_empty_start_tag_begins_within_the_reasoning():
    """With start="" the answer begins within the reasoning."""
    whole = join(chunks(split_reasoning(start=""), ["Hm.", "</th", "ink> ", "Yes."]))
    assert (ReasoningPart("Hm."), TextPart("Yes.")) == whole.parts


@pytest.mark.parametrize("end", [on_completed(300), on_error(300, FAILURE)])
def test_held_reasoning_is_emitted_before_the_end(end):
    """An unclosed tag makes the whole answer reasoning."""
    heard, left = run(split_reasoning(), on_next(210, Chunk("<think>a</")), end)
    assert [
        on_next(210, Chunk(parts=[ReasoningPart("a")])),
        on_next(300, Chunk(parts=[ReasoningPart("</")])),
        end,
    ] == heard
    assert [300] == left


def test_facts_of_the_answer_are_kept():
    """Usage, model and other facts pass unchanged."""
    whole = join(chunks(split_reasoning(), [Chunk("<think>a</think>b", model="m", usage=Usage(output_tokens=3))]))
    assert ("a", "b", "m", Usage(output_tokens=3)) == (whole.reasoning, whole.text, whole.model, whole.usage)


def test_answer_after_the_reasoning_passes_unchanged():
    """Once the answer has begun, its chunks are the same objects."""
    items = ["<think>a</think>b", Chunk("c"), Chunk("<think>", usage=Usage())]
    assert list(map(id, items[1:])) == list(map(id, chunks(split_reasoning(), items)[1:]))


def test_fast_reasoning_chunk_equals_a_regular_one():
    """The fast path sets every field of the part, and holds a possible closing tag back."""
    heard = chunks(split_reasoning(), ["<think>", "Hm", "", " a < b", " </", "i>", "</"])
    expected = [Chunk(parts=[ReasoningPart(text)]) for text in ("Hm", " a < b", " ", "</i>", "</")]
    assert (expected, repr(expected), [*map(hash, expected)]) == (heard, repr(heard), [*map(hash, heard)])


def test_empty_closing_tag_is_refused():
    """split_reasoning raises MisuseError for an empty closing tag."""
    with pytest.raises(MisuseError, match="closes the reasoning"):
        split_reasoning(end="")


@pytest.mark.parametrize(
    ("operator", "text"),
    [
        (stop_at("aaaab"), "a"),
        (stop_at("ab", "aab"), "aac"),
        (split_reasoning(), " "),
        (split_reasoning(start=""), "</think"),
        (split_reasoning(start=""), "<"),
    ],
)
def test_time_is_linear_in_the_text(operator, text):
    """Eight times the text takes about eight times as long. A new search of all text at each chunk takes 64 times."""

    def seconds(count):
        items = list(text * (count // len(text)))
        begun = time.process_time()
        chunks(operator, items)
        chunks(operator, ["".join(items)])
        return time.process_time() - begun

    small = min(seconds(2_000) for _ in range(3))
    assert any(30 * small > seconds(16_000) for _ in range(4)), "a busy machine may be slow once"


# ── values that are not chunks ───────────────────────────────────────────────────────────────────────────────────

CUTTERS = [(lambda: stop_at("x"), "stop_at"), (split_reasoning, "split_reasoning")]
cutters = pytest.mark.parametrize(("make", "name"), CUTTERS, ids=[name for _, name in CUTTERS])


@cutters
@pytest.mark.parametrize("before", [[], ["<think>hm"], ["<think>hm</think>Fine."], ["Fine."], ["<th"]])
def test_value_that_is_no_chunk_errors_the_stream(make, name, before):
    """The stream errors once, at once, and disposes the source."""
    values = [Chunk(text) for text in before]
    events = [on_next(210 + index, value) for index, value in enumerate(values)]
    late = [on_next(221, "o"), on_next(222, Chunk("o")), on_completed(300)]
    heard, left = run(make(), *events, on_next(220, "hell"), *late)
    assert [(220, "E")] == [(each.time, each.value.kind) for each in heard if each.time >= 220]
    said = heard[-1].value.exception
    assert isinstance(said, MisuseError)
    assert f"{name}() takes chunks, but got str; remove text() before it." == str(said)
    assert [220] == left


@cutters
def test_operator_disposes_the_source_before_the_error(make, name):
    """The operator disposes the source itself, before the subscriber gets the error."""
    source, bare = Subject(), Bare()
    connect(source.pipe(make()), bare, None)
    source.on_next("a")
    assert [MisuseError] == [type(heard) for heard in bare.heard]
    assert [] == source.observers


@cutters
def test_values_after_a_refusal_are_dropped(make, name):
    """Neither the source nor the subscriber enforces the grammar; the subscriber gets the error only."""

    def subscribe(observer, _):
        for value in "a", "b", Chunk("c"):
            observer.on_next(value)
        observer.on_completed()
        return rx.disposable.Disposable()

    bare = Bare()
    connect(Source(subscribe).pipe(make()), bare, None)
    assert [MisuseError] == [type(heard) for heard in bare.heard]
