"""The messages within an agent's answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm import (
    Approval,
    Chunk,
    Message,
    Pending,
    RawPart,
    ReasoningPart,
    Request,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    join,
)
from rxllm.values.rounds import inserted, separated


def call(id, name="f"):
    """A call."""
    return ToolCallPart(id, name, "{}")


def result(id, text="r"):
    """The result of a call."""
    return ToolResultPart(id, text, name="f")


def answer(*parts, **facts):
    """An agent's answer."""
    return Message("assistant", parts, **facts)


HI, MORE = Message("user", "hi"), Message("user", "more")


def test_answer_becomes_a_message_for_each_round_and_one_for_its_results():
    """The results are in the order of the calls."""
    whole = answer(
        TextPart("a"),
        call("1"),
        call("2"),
        result("2"),
        result("1"),
        TextPart("b"),
        call("1"),
        result("1", "s"),
        TextPart("c"),
    )
    assert (
        HI,
        answer(TextPart("a"), call("1"), call("2")),
        Message("tool", [result("1"), result("2")]),
        answer(TextPart("b"), call("1")),
        Message("tool", [result("1", "s")]),
        answer(TextPart("c")),
        MORE,
    ) == separated((HI, whole, MORE))


def test_messages_without_rounds_stay_the_same_objects():
    """So do those of a conversation that was separated before."""
    plain = HI, answer(call("1")), Message("tool", [result("1")]), answer(TextPart("b"))
    assert all(one is other for one, other in zip(plain, separated(plain), strict=True))


def test_facts_of_the_answer_stay_with_its_last_message():
    """The usage, the id and the finish reason are those of the whole answer; the model is that of all rounds."""
    facts = {"usage": Usage(input_tokens=9), "finish_reason": "stop", "id": "x", "interrupted": True}
    first, _, last = separated((answer(call("1"), result("1"), TextPart("b"), model="m", provider="p", **facts),))
    assert (None, None, None, False, "m", "p") == (
        first.usage,
        first.finish_reason,
        first.id,
        first.interrupted,
        first.model,
        first.provider,
    )
    assert (Usage(input_tokens=9), "stop", "x", True, "m") == (
        last.usage,
        last.finish_reason,
        last.id,
        last.interrupted,
        last.model,
    )


def test_message_in_an_answer_becomes_a_message_of_the_user():
    """An agent got it while it ran."""
    whole = answer(TextPart("a"), inserted(MORE), TextPart("b"))
    assert (answer(TextPart("a")), MORE, answer(TextPart("b"))) == separated((whole,))
    foreign = answer(TextPart("a"), RawPart("anthropic", {"x": 1}))
    assert (foreign,) == separated((foreign,))


def test_result_of_an_approved_call_moves_to_its_call():
    """The approval and the pending call are left out, and what the user said beside the approval stays."""
    approve = Pending(call("2")).approve()
    history = (
        HI,
        answer(call("1"), call("2"), result("1"), Pending(call("2"))),
        Message("user", [approve, TextPart("and hurry")]),
        answer(approve, result("2", "s"), TextPart("done")),
    )
    assert (
        HI,
        answer(call("1"), call("2")),
        Message("tool", [result("1"), result("2", "s")]),
        Message("user", "and hurry"),
        answer(TextPart("done")),
    ) == separated(history)


def test_result_beside_an_approval_moves_to_its_call():
    """The caller runs one call and approves another in one message. The approval stays, because the agent reads it."""
    approve = Pending(call("1")).approve()
    said = answer(call("1"), call("2"), Pending(call("1")))
    both = Message("user", [approve, result("2"), TextPart("hurry")])
    sent = separated((HI, said, both))
    assert Message("tool", [result("2")]) in sent
    assert [Message("user", [approve, TextPart("hurry")])] == [message for message in sent if message.role == "user"][
        1:
    ]
    assert (
        HI,
        answer(call("1"), call("2")),
        Message("tool", [result("1"), result("2")]),
        Message("user", "hurry"),
        answer(TextPart("done")),
    ) == separated((HI, said, both, answer(approve, result("1"), TextPart("done"))))


@pytest.mark.parametrize(
    ("later", "outcome"),
    [
        ((), None),
        ((Message("user", [Pending(call("1")).approve()]),), None),
        ((MORE,), "denied"),
        ((answer(TextPart("x")),), "denied"),
        (
            (Message("user", [Pending(call("1")).approve()]), answer(Pending(call("1")).approve(), interrupted=True)),
            "interrupted",
        ),
        ((Message("tool", [result("1")]),), "ok"),
    ],
)
def test_call_that_waits_in_vain_gets_a_result(later, outcome):
    """A call goes on to wait while nothing but its approval follows. Nobody knows whether an approved call has run."""
    sent = separated((HI, answer(call("1"), Pending(call("1"))), *later))
    outcomes = [part.outcome for message in sent for part in message.parts if isinstance(part, ToolResultPart)]
    assert ([outcome] if outcome else []) == outcomes
    assert (outcome is None) == any(message.pending for message in sent)


def test_later_call_with_the_same_id_changes_nothing_about_an_ignored_call():
    """Some servers restart ids in each answer. An approval and a pending call belong to the latest call before them."""
    waiting, approve = Pending(call("1")), Message("user", [Pending(call("1")).approve()])
    ignored = (HI, answer(call("1"), waiting), MORE, answer(TextPart("ok")), MORE)
    ran = approve, answer(waiting.approve(), result("1", "s"), TextPart("done"))
    again = approve, answer(waiting.approve(), interrupted=True)  # by a process that came too late
    for later in ((), (approve,), ran, ran + again):
        sent = separated((*ignored, answer(call("1"), waiting), *later))
        [denied, *others] = [part for message in sent for part in message.parts if isinstance(part, ToolResultPart)]
        assert ("denied", "Nobody approved this call, so it did not run.") == (denied.outcome, denied.text)
        assert [result("1", "s")] * (len(later) > 1) == others
        assert (len(later) < 2) == any(message.pending for message in sent)
        assert (approve,) * (len(later) == 1) == tuple(message for message in sent if message == approve)
        assert sent == separated(sent)


def test_approval_is_settled_by_the_result_of_its_own_call():
    """An earlier and a later call with the same id have no result. The approval of the answered call is left out."""
    approve = Pending(call("1")).approve()
    run = (
        answer(call("1"), Pending(call("1"))),
        Message("user", [approve]),
        answer(approve, result("1"), TextPart("b")),
    )
    sent = separated((HI, answer(call("1")), MORE, *run, MORE, answer(call("1"), Pending(call("1")))))
    assert not any(isinstance(part, Approval) for message in sent for part in message.parts)
    assert 1 == sum(len(message.pending) for message in sent)


def test_results_of_other_calls_stay_where_they_are():
    """This module leaves a result without a call as it is."""
    orphan = answer(TextPart("a"), result("9"), TextPart("b"))
    assert (answer(TextPart("a")), Message("tool", [result("9")]), answer(TextPart("b"))) == separated((orphan,))
    named = HI, answer(call("1"), call("2"), result("1")), Message("tool", [result("2")], name="f")
    assert named[2] is separated(named)[-1]


PARTS = st.one_of(
    st.sampled_from("ab").map(TextPart),
    st.sampled_from("12").map(call),
    st.sampled_from("12").map(result),
    st.sampled_from("12").map(call).map(Pending),
    st.sampled_from("12").map(lambda name: Approval(call(name), True)),
    st.just(ReasoningPart("t", index=0)),
    st.just(inserted(MORE)),
)
MESSAGES = st.lists(
    st.builds(
        lambda role, parts: Message(role, parts),
        st.sampled_from(["user", "assistant", "assistant"]),
        st.lists(PARTS, min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)


@given(MESSAGES)
def test_separating_twice_is_separating_once(messages):
    """A request is made of a request. No text and no result is lost."""
    once = separated(tuple(messages))
    assert once == separated(once)
    texts = [part.text for message in messages for part in message.parts if isinstance(part, TextPart)]
    assert texts == [
        part.text for message in once for part in message.parts if isinstance(part, TextPart) and part.text != "more"
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.permutations(range(3))), max_size=3))
def test_history_of_a_joined_stream_is_that_of_its_rounds(rounds):
    """However the results arrive, the joined answer gives the messages that the model got in each round."""
    chunks, expected = [Chunk("")], []
    for count, order in rounds:
        calls = [ToolCallPart(f"id{n}", "f", "{}", n) for n in range(count)]
        results = [ToolResultPart(made.id, str(n), name="f") for n, made in enumerate(calls)]
        if calls:
            expected += [answer(TextPart("t"), *calls), Message("tool", results)]
            chunks += [Chunk("t"), *(Chunk(parts=[each]) for each in calls)]
            chunks += [Chunk(parts=[results[n]]) for n in order if n < count]
    chunks.append(Chunk("end"))
    assert (HI, *expected, answer(TextPart("end"))) == Request(prompt=[HI, join(chunks).message()]).prompt
