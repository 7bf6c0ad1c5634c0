"""`Chunk` is a monoid: however an answer is cut and its pieces grouped, the sum is the same."""

import functools
import operator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rxllm.values.chunk import Chunk, join
from rxllm.values.parts import FilePart, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from rxllm.values.usage import Usage

words = st.sampled_from(["", "", "a", "b", "Hel", "lo", "🐟"])
count = st.none() | st.integers(0, 9)
indices = st.integers(0, 2)
parts = st.one_of(
    st.builds(TextPart, words),
    st.builds(
        TextPart, words, st.lists(st.sampled_from([{"url": "a"}, {"url": "b"}]), max_size=2), st.none() | indices
    ),
    st.builds(RefusalPart, words),
    st.builds(ReasoningPart, words, st.sampled_from([None, None, "s1", "s2"]), st.none() | indices),
    st.builds(ToolCallPart, st.sampled_from(["", "", "A", "B"]), st.sampled_from(["", "f", "g"]), words, indices),
    st.sampled_from(
        [FilePart("image/png", b"1"), RawPart("anthropic", {"type": "redacted"}), ToolResultPart("A", "fine")]
    ),
)
usages = st.builds(
    Usage, input_tokens=count, output_tokens=count, cache_read_input_tokens=count, estimated=st.booleans()
)
chunks = st.one_of(
    st.builds(Chunk, words),
    st.builds(
        Chunk,
        words,
        parts=st.lists(parts, max_size=4),
        usage=st.none() | usages,
        finish_reason=st.sampled_from([None, "stop", "length"]),
        raw_finish_reason=st.sampled_from([None, "end_turn"]),
        model=st.sampled_from([None, "m", "n"]),
        id=st.sampled_from([None, "1", "2"]),
        reset=st.sampled_from([False, False, False, True]),
    ),
)


def total(pieces):
    """The sum by ``+``, from the left."""
    return functools.reduce(operator.add, pieces, Chunk())


@given(chunks)
def test_an_empty_chunk_changes_nothing(chunk):
    """``Chunk()`` is the unit, on either side."""
    assert chunk == Chunk() + chunk
    assert chunk == chunk + Chunk()
    assert chunk == join([chunk])


@given(chunks, chunks, chunks)
@example(  # a signature closes what came before it, whichever sum is made first
    Chunk(parts=[ReasoningPart("a", index=0)]),
    Chunk(parts=[ReasoningPart(signature="s", index=0)]),
    Chunk(parts=[ReasoningPart("b", index=0)]),
)
@example(  # a fragment without an id is nobody's until it meets its call
    Chunk(parts=[ToolCallPart("A", "f")]),
    Chunk(parts=[ToolCallPart(arguments="{")]),
    Chunk(parts=[ToolCallPart(arguments="}")]),
)
@example(Chunk("a"), Chunk("b", usage=Usage(input_tokens=1)), Chunk("c", reset=True))
def test_it_does_not_matter_which_sum_is_made_first(a, b, c):
    """``+`` is associative."""
    assert (a + b) + c == a + (b + c)


@given(st.lists(chunks, max_size=8))
def test_join_is_the_sum(pieces):
    """The linear `join` is what folding by ``+`` gives."""
    assert total(pieces) == join(pieces)


@given(st.lists(chunks, max_size=10), st.data())
def test_any_grouping_gives_the_same_message(pieces, data):
    """Pieces may be summed in groups of any size, and the sums joined."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pieces)), max_size=4)))
    groups = [pieces[start:end] for start, end in zip([0, *cuts], [*cuts, len(pieces)], strict=True)]
    assert join(pieces) == join(map(join, groups))
    assert join(pieces).message() == total(map(total, groups)).message()


@given(st.lists(chunks, max_size=6))
def test_the_text_of_a_sum_is_the_sum_of_texts(pieces):
    """Nothing but a reset takes text away."""
    last = max((i for i, chunk in enumerate(pieces) if chunk.reset), default=0)
    assert "".join(chunk.text for chunk in pieces[last:]) == join(pieces).text


@given(chunks)
def test_equal_chunks_have_equal_hashes_and_a_message_is_the_same_chunk(chunk):
    """A chunk rebuilt from its facts is the same value; as a message and back it loses only `reset`."""
    same = Chunk(
        parts=chunk.parts,
        usage=chunk.usage,
        finish_reason=chunk.finish_reason,
        raw_finish_reason=chunk.raw_finish_reason,
        model=chunk.model,
        id=chunk.id,
        reset=chunk.reset,
    )
    assert (chunk, hash(chunk)) == (same, hash(same))
    assert chunk.message() == Chunk.of(chunk.message()).message()


@given(usages, usages, usages)
def test_usage_is_a_monoid_across_answers(a, b, c):
    """Counts add up, None is none."""
    assert (a + b) + c == a + (b + c)
    assert a == a + Usage() == Usage() + a


def test_usage_across_answers_adds_and_within_one_replaces():
    """Two answers cost both; a later running total is the total."""
    early, late = Usage(input_tokens=5, output_tokens=1, estimated=True), Usage(output_tokens=9)
    assert Usage(input_tokens=5, output_tokens=10, estimated=True) == early + late
    assert Usage(input_tokens=5, output_tokens=9) == early.updated(late)
    assert Usage(input_tokens=5, output_tokens=9) == join([Chunk(usage=early), Chunk(usage=late)]).usage


def call(*arguments, **named):
    """A fragment of a call, as a chunk."""
    return Chunk(parts=[ToolCallPart(*arguments, **named)])


@pytest.mark.parametrize(
    ("fragments", "expected"),
    [
        pytest.param(
            [call("A", "f"), call(arguments='{"x"'), call(arguments=": 1}")],
            [ToolCallPart("A", "f", '{"x": 1}')],
            id="fragments without an id continue their call",
        ),
        pytest.param(
            [call("A", "f", "1"), call("A", "f", "2")],
            [ToolCallPart("A", "f", "12")],
            id="the id may be repeated in each fragment",
        ),
        pytest.param(
            [call("A", "f", "1"), call("B", "g", "2"), call(arguments="3")],
            [ToolCallPart("A", "f", "1"), ToolCallPart("B", "g", "23")],
            id="a new id at the same index opens a call, and what follows is its own",
        ),
        pytest.param(
            [call("A", "f", index=0), call("B", "g", index=1), call("", "", "0", 0), call("", "", "1", 1)],
            [ToolCallPart("A", "f", "0", 0), ToolCallPart("B", "g", "1", 1)],
            id="interleaved calls are told apart by their index",
        ),
        pytest.param(
            [call(name="f", arguments="1"), call("A", "g", "2")],
            [ToolCallPart("", "f", "1"), ToolCallPart("A", "g", "2")],
            id="a call without an id never absorbs a later id",
        ),
        pytest.param(
            [call("A"), call(name="f"), call(name="g")],
            [ToolCallPart("A", "f")],
            id="the name may come later, and once",
        ),
        pytest.param(
            [call("A", "f", "1"), Chunk("thinking"), call(arguments="2")],
            [ToolCallPart("A", "f", "12"), TextPart("thinking")],
            id="text between fragments does not end a call",
        ),
        pytest.param(
            [call("A", "f", "1"), call("B", "f", "2"), call("A", "f", "3")],
            [ToolCallPart("A", "f", "1"), ToolCallPart("B", "f", "2"), ToolCallPart("A", "f", "3")],
            id="an earlier id at the same index is a call of its own",
        ),
    ],
)
def test_fragments_of_tool_calls_join(fragments, expected):
    """The rule of `messages`, case by case."""
    assert tuple(expected) == join(fragments).parts


def thought(*arguments, **named):
    """A piece of reasoning, as a chunk."""
    return Chunk(parts=[ReasoningPart(*arguments, **named)])


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([thought("a"), thought("b")], [ReasoningPart("ab")], id="it joins what it follows"),
        pytest.param(
            [thought("a"), Chunk("x"), thought("b")],
            [ReasoningPart("a"), TextPart("x"), ReasoningPart("b")],
            id="without an index, text in between parts it",
        ),
        pytest.param(
            [thought("a", index=1), Chunk("x"), thought("b", index=1)],
            [ReasoningPart("ab", index=1), TextPart("x")],
            id="with an index it does not",
        ),
        pytest.param(
            [thought("a", index=0), thought("b", index=1), thought("c", index=0)],
            [ReasoningPart("ac", index=0), ReasoningPart("b", index=1)],
            id="interleaved thoughts are told apart by their index",
        ),
        pytest.param(
            [thought("a"), thought(signature="s"), thought("b")],
            [ReasoningPart("a", "s"), ReasoningPart("b")],
            id="a signature closes it",
        ),
        pytest.param(
            [thought("a", index=0), thought("", "s", 0), thought("b", index=0), thought("", "t", 0)],
            [ReasoningPart("a", "s", 0), ReasoningPart("b", "t", 0)],
            id="a signature closes it, also with an index",
        ),
        pytest.param([thought(signature="s")], [ReasoningPart("", "s")], id="a signature alone is kept"),
        pytest.param([thought("")], [], id="nothing is nothing"),
    ],
)
def test_reasoning_joins(pieces, expected):
    """The rule of `messages`, case by case."""
    assert tuple(expected) == join(pieces).parts


def test_a_reset_forgets_everything_before_it():
    """Text, parts and facts are gone; what comes after counts, and the sum still tells that it began anew."""
    before = Chunk("wrong", usage=Usage(output_tokens=9), model="m", id="1", finish_reason="stop")
    after = Chunk("right", reset=True)
    assert after + Chunk(model="n") == join([before, call("A"), after, Chunk(model="n")])
    assert Chunk("right!", reset=True) == before + after + Chunk("!")


def test_text_joins_only_at_the_seam():
    """Text that something else parts stays in its place."""
    expected = (TextPart("ab"), FilePart("image/png", b"1"), TextPart("cd"))
    chunk = Chunk("a") + Chunk("b", parts=[FilePart("image/png", b"1"), TextPart("c")]) + Chunk("d")
    assert expected == chunk.parts
    assert "abcd" == str(chunk)
