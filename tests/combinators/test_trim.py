"""`trim`: the newest whole turns of a conversation."""

import pytest
from combinators.scripted import Scripted, call
from hypothesis import given
from hypothesis import strategies as st

import rxllm
from rxllm import (
    Approval,
    Conversation,
    FilePart,
    Message,
    MisuseError,
    Pending,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
    remember,
    trim,
)
from rxllm.testing import on_virtual_time

SYSTEM = Message("system", "Be brief.")


def turn(name, answer=None, usage=None):
    """A question and its answer."""
    return Message("user", name), Message("assistant", answer or name.upper(), usage=usage)


def ten(message):
    """A count: each message has ten tokens."""
    return 10


def texts(messages):
    """The texts of messages."""
    return [message.text for message in messages]


def test_newest_whole_turns_are_sent_with_the_systems_messages():
    """As many as fit, in their order."""
    messages = (SYSTEM, *turn("a"), *turn("b"), *turn("c"), Message("user", "d"))
    for tokens, expected in [
        (80, ["Be brief.", "a", "A", "b", "B", "c", "C", "d"]),
        (79, ["Be brief.", "b", "B", "c", "C", "d"]),
        (60, ["Be brief.", "b", "B", "c", "C", "d"]),
        (59, ["Be brief.", "c", "C", "d"]),
        (39, ["Be brief.", "d"]),
        (1, ["Be brief.", "d"]),
    ]:
        assert expected == texts(trim(tokens, count=ten)(messages)), tokens


def test_turn_with_tools_is_sent_whole_or_not_at_all():
    """The sent turns never begin with a result or an answer."""
    tools = (
        Message("user", "b"),
        Message("assistant", [ToolCallPart("1", "now")]),
        Message("user", [ToolResultPart("1", "noon")]),
        Message("assistant", "Noon."),
    )
    messages = (*turn("a"), *tools, Message("user", "c"))
    assert ["c"] == texts(trim(49, count=ten)(messages))
    assert (*tools, messages[-1]) == trim(50, count=ten)(messages)


def test_approval_is_sent_with_the_call_that_it_decides():
    """It belongs to the turn of the question that led to the call."""
    waiting = ToolCallPart("1", "pay", "{}")
    decided = (
        Message("user", "b"),
        Message("assistant", [waiting, Pending(waiting)]),
        Message("user", [Approval(waiting, True)]),
    )
    assert decided == trim(1)((*turn("a"), *decided))


def test_messages_before_the_first_turn_go_first():
    """A conversation may begin with an answer, such as a greeting."""
    messages = (SYSTEM, Message("assistant", "Hello!"), *turn("a"), Message("user", "b"))
    assert messages == trim(50, count=ten)(messages)
    assert texts((SYSTEM, *messages[2:])) == texts(trim(49, count=ten)(messages))


def test_later_messages_of_the_system_stay():
    """In their places."""
    messages = (*turn("a"), SYSTEM, Message("user", "b"))
    assert ["Be brief.", "b"] == texts(trim(20, count=ten)(messages))


@given(
    st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), min_size=1, max_size=12),
    st.integers(1, 130),
)
def test_any_history_is_cut_at_a_turn(roles, tokens):
    """The sent turns begin with a user's message, are the end of the history, and fit if they are several."""
    messages = tuple(
        Message(role, [ToolResultPart("1", str(number))] if role == "tool" else str(number))
        for number, role in enumerate([*roles, "user"])
    )
    sent = trim(tokens, count=ten)(messages)
    others = [message for message in sent if message.role != "system"]
    assert [message for message in messages if message.role == "system"] == [m for m in sent if m.role == "system"]
    if sent != messages:
        assert "user" == others[0].role
        assert others == [message for message in messages if message.role != "system"][-len(others) :]
    if sum(message.role == "user" for message in sent) > 1:
        assert 10 * len(sent) <= tokens


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


NEWEST = Message("user", "")  # is always sent, and counts as 4 tokens


def needed(messages):
    """The least number of tokens at which all messages are sent, without those of the newest turn."""
    whole = (*messages, NEWEST)
    return next(tokens for tokens in range(1, 10**6) if trim(tokens)(whole) == whole) - 4


def test_estimate_is_a_token_for_four_bytes():
    """And four for each message. Chinese needs more tokens for a character than English."""
    assert 2 * 4 + 25 + 1 == needed((Message("user", "a" * 100), Message("assistant", "b")))
    assert 2 * 4 + 75 + 1 == needed((Message("user", "水" * 100), Message("assistant", "b")))


def test_calls_results_and_files_count():
    """A file counts as 1000 tokens, a text file as its bytes."""
    answer = Message("assistant", [ToolCallPart("1", "now", "x" * 397)])
    result = Message("tool", [ToolResultPart("1", "y" * 400)])
    picture = Message("user", [FilePart("image/png", b"x"), FilePart("text/plain", b"x" * 40)])
    assert (4 + 1) + (4 + 100) + (4 + 4 + 100) + (4 + 1010) == needed((Message("user", "a"), answer, result, picture))


def test_answer_counts_as_its_usage_says():
    """Without its reasoning, which is not sent again. An interrupted answer and an estimate do not."""
    usage = Usage(output_tokens=150, reasoning_output_tokens=50)
    assert (4 + 1) + (4 + 100) == needed(turn("a", usage=usage))
    for other in (
        Message("assistant", "A", usage=usage, interrupted=True),
        Message("assistant", "A", usage=Usage(output_tokens=150, estimated=True)),
    ):
        assert (4 + 1) + (4 + 1) == needed((Message("user", "a"), other))


def test_questions_count_as_the_growth_of_the_input_tells():
    """The usage of two answers tells what stood between them."""
    first = turn("a" * 100, usage=Usage(input_tokens=40, output_tokens=6))
    second = turn("b" * 100, usage=Usage(input_tokens=100, output_tokens=6))
    in_first, in_second = 40, 100 - 40 - 10
    newest = -(-4 * (in_first + in_second) // (29 + 29)) - 4  # estimated, times the ratio so far
    assert in_first + 10 + in_second + 10 + newest == needed((*first, *second))


def test_usage_after_turns_were_left_out_is_ignored():
    """The input of the later request is smaller than that of the earlier one."""
    first = turn("a" * 100, usage=Usage(input_tokens=4000, output_tokens=6))
    second = turn("b" * 100, usage=Usage(input_tokens=50, output_tokens=6))
    assert 29 + 10 + 29 + 10 == needed((*first, *second))


def rounds(*parts, usage):
    """The answer of an agent, with a call and its result before its end."""
    call, result = ToolCallPart("1", "now", "x" * 397), ToolResultPart("1", "y" * 400)
    return Message("assistant", [call, result, *parts], usage=usage)


def test_agents_answer_counts_by_its_last_round():
    """Its usage is the sum of the rounds. The input of the last round has everything before it."""
    usage = Usage(input_tokens=40, output_tokens=100) + Usage(input_tokens=300, output_tokens=6)
    assert Usage(input_tokens=340, output_tokens=106) == usage
    first = Message("user", "a" * 100), rounds(TextPart("Noon."), usage=usage)
    estimate = 29 + 100 + 104
    in_first = -(-29 * 300 // estimate) + -(-204 * 300 // estimate)
    assert in_first + (6 + 4) + -(-4 * 300 // estimate) - 4 == needed(first)
    second = turn("b" * 100, usage=Usage(input_tokens=360, output_tokens=6))
    in_second = 360 - 300 - (6 + 4)
    newest = -(-4 * (300 + in_second) // (estimate + 29)) - 4
    assert in_first + 10 + in_second + 10 + newest == needed((*first, *second))


def test_agents_answer_without_the_last_rounds_usage_is_estimated():
    """The sum of the rounds tells nothing, and neither does a round whose results came after it."""
    total = Usage(input_tokens=340, output_tokens=106)
    question = Message("user", "a" * 100)
    assert 29 + 204 + (1 + 4) == needed((question, rounds(TextPart("Noo"), usage=total)))
    assert 29 + 204 + 4 == needed((question, rounds(usage=Usage(input_tokens=1) + total)))


@on_virtual_time
async def test_usage_of_the_last_round_survives_the_stream_and_the_store():
    """The answer of an agent has it, and its JSON, too."""
    usages = [Usage(input_tokens=10, output_tokens=5), Usage(input_tokens=30, output_tokens=7)]
    model = Scripted([[call("now"), rxllm.Chunk(usage=usages[0])], ["Noon.", rxllm.Chunk(usage=usages[1])]])
    answer = await rxllm.agent(model, rxllm.tool(lambda: 1, name="now")).ainvoke("hi")
    for message in answer, Message.from_json(answer.to_json()):
        assert (Usage(input_tokens=40, output_tokens=12), usages[1]) == (message.usage, message.usage.last_round)
    assert usages[1] == (usages[0] + usages[0] + usages[1]).last_round


@on_virtual_time
async def test_conversation_stays_within_the_limit():
    """Each request has the system's message, whole turns, and no more tokens than allowed."""
    heard = []

    class Counts(rxllm.LLM):
        async def complete(self, request):
            heard.append(request.messages)
            used = sum(len(message.text) for message in request.messages)
            answer = f"{len(heard)}" * 20
            return rxllm.Chunk(answer, usage=Usage(input_tokens=used, output_tokens=len(answer)), finish_reason="stop")

    conversation = Conversation([SYSTEM])
    llm = remember(Counts(), conversation, view=trim(200))
    for number in range(12):
        await llm.ainvoke(f"{number} " * 10)
    assert all(messages[0] == SYSTEM and messages[1].role == "user" for messages in heard)
    assert all(sum(len(message.text) for message in messages) <= 220 for messages in heard)
    assert 3 <= len(heard[-1]) < len(conversation.messages) == 25


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "4000", None, True])
def test_wrong_limits_are_refused(wrong):
    """Tokens are a whole number."""
    with pytest.raises(MisuseError, match="whole number of tokens"):
        trim(wrong)


def test_wrong_count_is_refused():
    """It must be a function."""
    with pytest.raises(MisuseError, match="count must be a function"):
        trim(4000, count=4)


def test_answer_directly_after_an_answer_has_no_messages_between():
    """Nothing is estimated between them, also if the second request had as many tokens as the first with its answer."""
    first, second = ((10, 2), (16, 2))
    history = (
        Message("user", "q"),
        *(Message("assistant", "a", usage=Usage(input_tokens=i, output_tokens=o)) for i, o in (first, second)),
        Message("user", "z"),
    )
    assert history == rxllm.trim(1000)(history)
    assert history[-1:] == rxllm.trim(10)(history)
