"""`sendable`: histories that vendors would refuse."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rxllm
from rxllm import (
    FilePart,
    Message,
    RawPart,
    ReasoningPart,
    RefusalPart,
    Request,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from rxllm.values.characters import whole
from rxllm.values.sendable import UNKNOWN_RESULT, sendable

USER = Message("user", "hi")
NEW = Message("user", "and now?")


def call(id="1", arguments="{}", name="now", **more):
    """A tool call."""
    return ToolCallPart(id, name, arguments, **more)


def cut(*parts):
    """An answer that was cut short."""
    return Message("assistant", parts, interrupted=True)


def results(message):
    """The results in a message, as (id, outcome)."""
    return [(part.id, part.outcome) for part in message.parts]


def test_whole_conversation_is_sent_as_it_is():
    """Message by message, the same objects."""
    messages = (
        Message("system", "Be brief."),
        USER,
        Message("assistant", [ReasoningPart("hm"), call()], finish_reason="tool_call"),
        Message("tool", [ToolResultPart("1", "noon")]),
        Message("assistant", [ReasoningPart("ah", signature="s"), TextPart("Noon.")]),
        NEW,
    )
    sent = sendable(messages, [NEW])
    assert all(one is other for one, other in zip(messages, sent, strict=True))


def test_empty_texts_and_empty_messages_are_left_out():
    """Vendors refuse a block without text."""
    messages = (
        USER,
        Message("assistant", [TextPart(""), call()]),
        Message("tool", [ToolResultPart("1", "")]),
        Message("assistant", [RefusalPart("")]),
        cut(),
        Message("user", [TextPart(""), TextPart("more")]),
        Message("user", ""),
    )
    sent = sendable(messages)
    assert ["user", "assistant", "tool", "user"] == [message.role for message in sent]
    assert ((call(),), (TextPart("more"),)) == (sent[1].parts, sent[3].parts)


def test_signed_text_without_a_character_stays():
    """Gemini sends a signature in such a part, and requires it back."""
    answer = Message("assistant", [TextPart("", signature="s", provider="gemini")])
    assert (USER, answer) == sendable((USER, answer))


def test_new_messages_are_sent_as_they_are():
    """They are the caller's own, and an error of the vendor's tells what is wrong with them."""
    new = (Message("user", ""), Message("tool", [ToolResultPart("unknown", "x")]))
    assert (USER, *new) == sendable((USER, *new), new)


@pytest.mark.parametrize(
    "tail",
    [
        [ReasoningPart("hm")],
        [ReasoningPart("hm", signature="s")],
        [ReasoningPart("hm", signature="s"), TextPart("\n\n")],
        [RawPart("anthropic", {"type": "server_tool_use", "id": "1"})],
        [ReasoningPart("hm", signature="s"), call(arguments='{"a')],
    ],
)
def test_end_of_an_interrupted_answer_that_something_must_follow_is_left_out(tail):
    """Reasoning, signed or not, and raw blocks; the text before them stays."""
    assert (USER, NEW) == sendable((USER, cut(*tail), NEW))
    assert (USER, NEW) == sendable((USER, Message("assistant", tail, finish_reason="length"), NEW))
    assert (TextPart("so"),) == sendable((USER, cut(TextPart("so"), *tail), NEW))[1].parts


def test_reasoning_before_a_text_stays():
    """Each provider decides what it sends of it."""
    parts = (ReasoningPart("hm", signature="s"), TextPart("so"))
    assert parts == sendable((USER, cut(*parts), NEW))[1].parts


def test_unanswered_call_gets_a_result_that_says_so():
    """After a crash between the call and its result, nobody knows whether the tool has run."""
    sent = sendable((USER, cut(TextPart("so"), call()), NEW), [NEW])
    assert ["user", "assistant", "tool", "user"] == [message.role for message in sent]
    (result,) = sent[2].parts
    assert ToolResultPart("1", UNKNOWN_RESULT, "interrupted", "now") == result
    assert result.is_error


@pytest.mark.parametrize("is_agent", [True, False], ids=["of an agent", "of a caller"])
@pytest.mark.parametrize("done", ["1", "2", "3", "13", "31", "21"])
def test_unknown_results_take_the_places_of_their_calls(done, is_agent):
    """The caller may send each result in a message of its own. The results that came stay as they are."""
    calls, found = [call("1"), call("2"), call("3")], [ToolResultPart(each, f"result {each}") for each in done]
    round_ = [cut(*calls, *found)] if is_agent else [cut(*calls), *(Message("tool", [each]) for each in found)]
    sent = sendable((USER, *round_, NEW), [NEW])
    assert ["user", "assistant", "tool", "user"] == [message.role for message in sent]
    assert [(each, "ok" if each in done else "interrupted") for each in "123"] == results(sent[2])
    assert all(each in sent[2].parts for each in found)


def test_results_that_a_provider_reads_otherwise_stay_after_the_unknown_one():
    """A message with other content or with further fields keeps its place, and so does a new message."""
    answer, result = Message("assistant", [call("1"), call("2")]), ToolResultPart("1", "a")
    for message in (
        Message("user", [result, TextPart("hm")]),
        Message("tool", [result], extra={"x": 1}),
        Message("tool", [result]),
    ):
        sent = sendable((USER, answer, message), [message] if message.extra is None else [])
        assert [("2", "interrupted")] == results(sent[2])
        assert message is sent[3]


def test_results_that_the_caller_has_just_written_answer_their_calls():
    """No result is made up for them."""
    answer = Message("assistant", [call()])
    new = Message("tool", [ToolResultPart("1", "noon")])
    assert (USER, answer, new) == sendable((USER, answer, new), [new])


def test_calls_without_ids_are_counted():
    """Some servers give no ids: the second of two calls has no result."""
    answer = Message("assistant", [call(""), call("")])
    sent = sendable((USER, answer, Message("tool", [ToolResultPart("", "a")]), NEW))
    assert [[("", "ok"), ("", "interrupted")]] == [results(message) for message in sent if message.role == "tool"]


def test_ids_may_repeat_in_later_rounds():
    """The result of the first round does not answer the call of the second."""
    round_ = (Message("assistant", [call("call_0")]), Message("tool", [ToolResultPart("call_0", "a")]))
    sent = sendable((USER, *round_, cut(call("call_0")), NEW))
    assert [("call_0", "interrupted")] == results(sent[4])


def test_pending_call_leaves_an_earlier_call_with_its_id_without_an_approval():
    """Only the latest call before the pending part waits. The interrupted one gets a result."""
    waiting = Message("assistant", [call("call_0"), rxllm.Pending(call("call_0"))])
    sent = sendable((USER, cut(call("call_0")), USER, waiting, NEW), [NEW])
    assert [("call_0", "interrupted"), ("call_0", "denied")] == [
        each for message in sent if message.role == "tool" for each in results(message)
    ]
    sent = sendable((USER, cut(call("call_0")), USER, waiting))
    assert ["user", "assistant", "tool", "user", "assistant", "assistant"] == [message.role for message in sent]
    assert [("call_0", "interrupted")] == results(sent[2])


@pytest.mark.parametrize("arguments", ['{"city": "Par', '{"a":1', "[1]", "nul", "1", "{} {}", '{"a": "\ud83d"}'])
def test_call_with_cut_arguments_is_no_call(arguments):
    """It was never run. An answered one stays: its result says what was wrong."""
    sent = sendable((USER, cut(TextPart("so"), call(arguments=arguments)), NEW))
    assert [(TextPart("so"),), NEW.parts] == [message.parts for message in sent[1:]]
    said, result = Message("assistant", [call(arguments=arguments)]), Message("tool", [ToolResultPart("1", "no")])
    sent = sendable((USER, said, result))
    assert [USER.parts, (call(arguments=whole(arguments)),), result.parts] == [message.parts for message in sent]


def test_call_that_was_cut_before_its_arguments_is_no_call():
    """But a whole call, or one that another part follows, may have none."""
    assert (USER, NEW) == sendable((USER, cut(call(arguments="")), NEW))
    assert 4 == len(sendable((USER, Message("assistant", [call(arguments="")]), NEW)))
    assert ["1"] == [each.id for each in sendable((USER, cut(call(arguments=""), call("2", "{")), NEW))[1].tool_calls]


def test_result_without_its_call_is_left_out():
    """A view of the last messages may begin in the middle of a turn."""
    messages = (Message("tool", [ToolResultPart("1", "noon")]), Message("assistant", "Noon."), NEW)
    assert messages[1:] == sendable(messages)
    mixed = Message("user", [ToolResultPart("1", "noon"), TextPart("and?")])
    assert (TextPart("and?"),) == sendable((mixed,))[0].parts


def test_answer_of_several_rounds_is_sent_round_by_round():
    """Results in the order of their calls, and the facts of the answer with each round."""
    answer = Message(
        "assistant",
        [
            TextPart("so"),
            call("1"),
            call("2"),
            ToolResultPart("2", "b"),
            ToolResultPart("1", "a"),
            TextPart("then"),
            call("3"),
            ToolResultPart("3", "c"),
            TextPart("done"),
        ],
        model="m",
    )
    sent = sendable((USER, answer, NEW))
    assert ["user", "assistant", "tool", "assistant", "tool", "assistant", "user"] == [each.role for each in sent]
    assert [("1", "ok"), ("2", "ok")] == results(sent[2])
    assert ["so", "then", "done"] == [each.text for each in sent if each.role == "assistant"]
    assert {"m"} == {each.model for each in sent if each.role == "assistant"}


def test_round_that_was_interrupted_between_call_and_result_is_mended():
    """Only the last round lacks its result."""
    answer = cut(call("1"), ToolResultPart("1", "a"), call("2"))
    sent = sendable((USER, answer, NEW))
    assert ["user", "assistant", "tool", "assistant", "tool", "user"] == [each.role for each in sent]
    assert [("2", "interrupted")] == results(sent[4])


# ── any history ──────────────────────────────────────────────────────────────────────────────────────────────────

IDS = st.sampled_from(["a", "b", "c"])
ANSWER_PARTS = st.one_of(
    st.builds(TextPart, st.sampled_from(["", " ", "so"])),
    st.builds(ReasoningPart, st.sampled_from(["", "hm"]), st.sampled_from([None, "s"])),
    st.builds(call, IDS, st.sampled_from(["", "{}", '{"a', '{"a":1}', "[]"])),
    st.builds(ToolResultPart, IDS, st.sampled_from(["", "noon"])),
    st.just(RefusalPart("no")),
)
ANSWERS = st.builds(
    lambda parts, end: Message("assistant", [*parts, *(() if end else [TextPart("so")])], **end),
    st.lists(ANSWER_PARTS, max_size=5),
    st.sampled_from([{}, {"interrupted": True}, {"finish_reason": "length"}]),
)
OTHERS = st.one_of(
    st.builds(lambda text: Message("user", text), st.sampled_from(["", "hi"])),
    st.builds(lambda ids: Message("tool", [ToolResultPart(each, "noon") for each in ids]), st.lists(IDS, max_size=2)),
)


@given(st.lists(st.one_of(ANSWERS, OTHERS), max_size=6))
def test_what_is_sent_has_one_result_for_each_call_and_nothing_empty(history):
    """For any history; and what is sent needs no further mending."""
    sent = sendable((*history, NEW), [NEW])
    assert sent == sendable(sent, [NEW])
    assert NEW is sent[-1]
    open_calls = []
    for message in sent:
        assert message.parts
        assert not any(isinstance(part, TextPart) and not part.text for part in message.parts)
        assert message.role != "assistant" or not any(isinstance(part, ToolResultPart) for part in message.parts)
        for part in message.parts:
            if isinstance(part, ToolResultPart) and part.id in open_calls:
                open_calls.remove(part.id)
            elif isinstance(part, ToolResultPart):
                assert part.id in {each.id for other in sent for each in other.tool_calls}
        if message.role in ("assistant", "user"):
            assert [] == open_calls or message.role == "user", "a call has no result"
        if message.role == "assistant":
            open_calls = [each.id for each in message.tool_calls]


MODELS = [
    rxllm.Anthropic("m", api_key="k"),
    rxllm.OpenAI("m", api_key="k", api="chat"),
    rxllm.OpenAI("m", api_key="k", api="responses"),
    rxllm.Gemini("m", api_key="k"),
    rxllm.Ollama("m"),
    rxllm.Cohere("m", api_key="k"),
]


@pytest.mark.parametrize("llm", MODELS, ids=lambda llm: f"{type(llm).__name__}-{getattr(llm, 'api', '')}")
@given(history=st.lists(st.one_of(ANSWERS, OTHERS), max_size=6))
def test_every_provider_can_send_it(llm, history):
    """Whatever was cut where; Anthropic's rules for turns hold in its body."""
    body = json.loads(str(llm.preview(Request(prompt=sendable((*history, NEW), [NEW])))).partition("\n\n")[2])
    if isinstance(llm, rxllm.Anthropic):
        open_calls = set()
        for turn in body["messages"]:
            kinds = [block["type"] for block in turn["content"]]
            answered = {block["tool_use_id"] for block in turn["content"] if block["type"] == "tool_result"}
            assert open_calls <= answered
            assert "tool_result" not in kinds or kinds[0] == "tool_result"
            open_calls = {block["id"] for block in turn["content"] if block["type"] == "tool_use"}
            assert kinds[-1] != "thinking"


def test_files_and_metadata_stay():
    """Only what is named above changes."""
    message = Message("user", [FilePart("image/png", b"x"), TextPart("")], metadata={"a": 1})
    (sent,) = sendable((message,))
    assert attrs.evolve(message, parts=[message.parts[0]]) == sent
