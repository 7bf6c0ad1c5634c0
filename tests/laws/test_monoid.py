"""`Chunk` is a monoid: the sum of the pieces of an answer does not depend on the cuts or on the grouping."""

import functools
import operator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rxllm.misuse import MisuseError
from rxllm.values.chunk import Chunk, join
from rxllm.values.message import Message
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
def test_empty_chunk_is_the_unit(chunk):
    """Adding ``Chunk()`` on either side does not change a chunk."""
    assert chunk == Chunk() + chunk
    assert chunk == chunk + Chunk()
    assert chunk == join([chunk])


@given(chunks, chunks, chunks)
@example(  # a signature closes the reasoning before it, in either grouping
    Chunk(parts=[ReasoningPart("a", index=0)]),
    Chunk(parts=[ReasoningPart(signature="s", index=0)]),
    Chunk(parts=[ReasoningPart("b", index=0)]),
)
@example(  # a fragment without an id belongs to no call until it joins its call
    Chunk(parts=[ToolCallPart("A", "f")]),
    Chunk(parts=[ToolCallPart(arguments="{")]),
    Chunk(parts=[ToolCallPart(arguments="}")]),
)
@example(Chunk("a"), Chunk("b", usage=Usage(input_tokens=1)), Chunk("c", reset=True))
def test_addition_is_associative(a, b, c):
    """``(a + b) + c`` equals ``a + (b + c)``."""
    assert (a + b) + c == a + (b + c)


@given(st.lists(chunks, max_size=8))
def test_join_equals_the_sum(pieces):
    """The linear `join` gives the same chunk as repeated ``+``."""
    assert total(pieces) == join(pieces)


@given(st.lists(chunks, max_size=10), st.data())
def test_any_grouping_gives_the_same_message(pieces, data):
    """Groups of any size may be summed first, and then their sums."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pieces)), max_size=4)))
    groups = [pieces[start:end] for start, end in zip([0, *cuts], [*cuts, len(pieces)], strict=True)]
    assert join(pieces) == join(map(join, groups))
    assert join(pieces).message() == total(map(total, groups)).message()


@given(st.lists(chunks, max_size=6))
def test_text_of_the_sum_is_the_sum_of_texts(pieces):
    """Only a reset removes text."""
    last = max((i for i, chunk in enumerate(pieces) if chunk.reset), default=0)
    assert "".join(chunk.text for chunk in pieces[last:]) == join(pieces).text


@given(chunks)
def test_rebuilt_chunk_is_equal_and_message_keeps_all_but_reset(chunk):
    """A chunk rebuilt from its attributes is equal, with an equal hash. Its message loses only `reset`."""
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
    """Addition of usages is associative, and ``Usage()`` is the unit."""
    assert (a + b) + c == a + (b + c)
    assert a == a + Usage() == Usage() + a


def test_usage_adds_across_answers_and_replaces_within_one():
    """The usage of two answers is their sum. Within one answer, the later running total is the total."""
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
            id="a new id at the same index opens a call, which takes the following fragments",
        ),
        pytest.param(
            [call("A", "f", index=0), call("B", "g", index=1), call("", "", "0", 0), call("", "", "1", 1)],
            [ToolCallPart("A", "f", "0", 0), ToolCallPart("B", "g", "1", 1)],
            id="the index distinguishes interleaved calls",
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
    """The rules of `chunk` for tool calls, case by case."""
    assert tuple(expected) == join(fragments).parts


def thought(*arguments, **named):
    """A piece of reasoning, as a chunk."""
    return Chunk(parts=[ReasoningPart(*arguments, **named)])


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param(
            [thought("a"), thought("b")], [ReasoningPart("ab")], id="reasoning joins the reasoning directly before it"
        ),
        pytest.param(
            [thought("a"), Chunk("x"), thought("b")],
            [ReasoningPart("a"), TextPart("x"), ReasoningPart("b")],
            id="without an index, text in between separates reasoning",
        ),
        pytest.param(
            [thought("a", index=1), Chunk("x"), thought("b", index=1)],
            [ReasoningPart("ab", index=1), TextPart("x")],
            id="with an index, text in between does not separate reasoning",
        ),
        pytest.param(
            [thought("a", index=0), thought("b", index=1), thought("c", index=0)],
            [ReasoningPart("ac", index=0), ReasoningPart("b", index=1)],
            id="the index distinguishes interleaved reasoning",
        ),
        pytest.param(
            [thought("a"), thought(signature="s"), thought("b")],
            [ReasoningPart("a", "s"), ReasoningPart("b")],
            id="a signature closes reasoning",
        ),
        pytest.param(
            [thought("a", index=0), thought("", "s", 0), thought("b", index=0), thought("", "t", 0)],
            [ReasoningPart("a", "s", 0), ReasoningPart("b", "t", 0)],
            id="a signature closes reasoning with an index, too",
        ),
        pytest.param([thought(signature="s")], [ReasoningPart("", "s")], id="a signature alone is kept"),
        pytest.param([thought("")], [], id="empty reasoning is dropped"),
    ],
)
def test_reasoning_joins(pieces, expected):
    """The rules of `chunk` for reasoning, case by case."""
    assert tuple(expected) == join(pieces).parts


def test_reset_discards_everything_before_it():
    """A reset discards text, parts and attributes of the chunks before it. The sum keeps ``reset=True``."""
    before = Chunk("wrong", usage=Usage(output_tokens=9), model="m", id="1", finish_reason="stop")
    after = Chunk("right", reset=True)
    assert after + Chunk(model="n") == join([before, call("A"), after, Chunk(model="n")])
    assert Chunk("right!", reset=True) == before + after + Chunk("!")


def test_text_joins_only_with_adjacent_text():
    """Texts on both sides of another part stay separate."""
    expected = (TextPart("ab"), FilePart("image/png", b"1"), TextPart("cd"))
    chunk = Chunk("a") + Chunk("b", parts=[FilePart("image/png", b"1"), TextPart("c")]) + Chunk("d")
    assert expected == chunk.parts
    assert "abcd" == str(chunk)


@pytest.mark.parametrize("wrong", ["a text", None, Message("assistant", "hi")])
def test_only_chunks_are_joined(wrong):
    """Anything else is named."""
    with pytest.raises(MisuseError, match=r"join takes Chunks, not (None|'a text'|Message)"):
        join([Chunk("a"), wrong])
