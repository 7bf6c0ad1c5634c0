"""The choices of a chat server's frames that are the answer."""

import json

import pytest

from rxllm import OpenAI
from rxllm.errors import ProviderError
from rxllm.testing import FakeServer, Reply

DONE = b"data: [DONE]\n\n"


def frame(*choices, **fields):
    """One event."""
    return b"data: %s\n\n" % json.dumps({"id": "1", "choices": list(choices), **fields}).encode()


def chat(index, text=None, finish=None):
    """A choice of a chat's chunk."""
    return {"index": index, "delta": {} if text is None else {"content": text}, "finish_reason": finish}


def completion(index, text=None, finish=None):
    """A choice of a completion's chunk."""
    return {"index": index, "text": text or "", "finish_reason": finish}


BOTH = pytest.mark.parametrize("choice", [chat, completion])


def asked(choice, *frames):
    """The answer."""
    with FakeServer(Reply(frames)) as server:
        api = "chat" if choice is chat else "completions"
        return OpenAI("m", base_url=server.url, api=api, max_retries=0).invoke("hi")


@BOTH
@pytest.mark.parametrize("ending", [[DONE], []], ids=["marked", "unmarked"])
@pytest.mark.parametrize("finish", ["alone", "with text"])
@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 30])
@pytest.mark.parametrize(
    "index",
    [lambda n: n, lambda n: n + 5, lambda n: n // 2, lambda n: 1, lambda n: -1, lambda n: None, lambda n: min(n, 1)],
    ids=["counts up", "counts from 5", "counts each second", "1", "-1", "none", "0, then 1"],
)
def test_one_choice_a_frame_is_the_answer(choice, index, count, finish, ending):
    """Whatever its index is; and its finish reason counts."""
    frames = [choice(index(n), f"{n},") for n in range(count)]
    if finish == "alone":
        frames.append(choice(index(count), finish="length"))
    else:
        frames[-1]["finish_reason"] = "length"
    answer = asked(choice, *map(frame, frames), *ending)
    assert ("".join(f"{n}," for n in range(count)), "length") == (answer.text, answer.finish_reason)


@BOTH
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("answers", [2, 3, 5])
@pytest.mark.parametrize("opening", [True, False], ids=["with roles", "without roles"])
def test_of_answers_in_turns_the_first_counts(choice, first, answers, opening):
    """When several answers that the request did not ask for alternate, the first one to have content counts."""
    order = [first, *(n for n in range(answers) if n != first)]
    turns = [choice(n, f"{n}{place}") for place in "abc" for n in order]
    ends = [choice(n, finish="stop" if n == first else "length") for n in reversed(order)]
    roles = [choice(n) for n in range(answers)] if opening else []
    answer = asked(choice, *map(frame, [*roles, *turns, *ends]), DONE)
    assert (f"{first}a{first}b{first}c", "stop") == (answer.text, answer.finish_reason)


@BOTH
def test_of_answers_one_after_another_the_first_counts(choice):
    """Frames after the end of the first answer belong to another answer."""
    frames = [choice(0, "a"), choice(0, finish="length"), choice(1, "b"), choice(1, "c"), choice(1, finish="stop")]
    answer = asked(choice, *map(frame, frames), DONE)
    assert ("a", "length") == (answer.text, answer.finish_reason)


@BOTH
def test_of_answers_in_one_frame_the_first_counts(choice):
    """Also when a later frame has only another one."""
    answer = asked(
        choice,
        frame(choice(0, "a"), choice(1, "x")),
        frame(choice(1, "y"), choice(0, "b")),
        frame(choice(1, "z")),
        frame(choice(0, "c", "length")),
        DONE,
    )
    assert ("abc", "length") == (answer.text, answer.finish_reason)


def test_frames_with_counted_indices_are_emitted_at_once():
    """Once the decoder knows that the server counts its frames up."""
    frames = [frame(chat(n, f"{n},")) for n in range(20)]
    with FakeServer(Reply([*frames, DONE])) as server:
        chunks = [chunk.text for chunk in OpenAI("m", base_url=server.url).stream("hi")]
    assert ["0,", "1,2,3,4,5,6,7,8,", *(f"{n}," for n in range(9, 20))] == chunks


def test_calls_and_reasoning_may_have_counted_indices():
    """They are held back, and emitted in their order."""
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    deltas = [{"reasoning": "Hm"}, {"reasoning": "m."}, {"content": "So"}, {"tool_calls": [call]}, {}]
    choices = [{"index": n, "delta": delta, "finish_reason": None} for n, delta in enumerate(deltas)]
    choices[-1]["finish_reason"] = "tool_calls"
    answer = asked(chat, *map(frame, choices))
    assert ("Hmm.", "So", "f", "tool_call") == (
        answer.reasoning,
        answer.text,
        answer.tool_calls[0].name,
        answer.finish_reason,
    )


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": 1}], ids=["no index", "0", "1"])
@pytest.mark.parametrize("order", [1, -1], ids=["text first", "call first"])
def test_choices_with_one_index_are_one_answer(index, order):
    """GitHub Copilot splits an answer of Claude into a choice with its text and a choice with its tool call.

    Source: https://github.com/HKUDS/nanobot/issues/1555
    """
    messages = [{"content": "So"}, {"tool_calls": [CALL]}][::order]
    choices = [{**index, "message": message, "finish_reason": "tool_calls"} for message in messages]
    choices[-1]["usage"] = {"prompt_tokens": 3, "completion_tokens": 5}
    with FakeServer(Reply.json({"id": "1", "choices": choices})) as server:
        whole = OpenAI("m", base_url=server.url, max_retries=0).invoke("hi", stream=False)
    deltas = [{**choice, "delta": choice["message"]} for choice in choices]
    for answer in (whole, asked(chat, frame(*deltas), DONE)):
        assert ("So", ["f"], "tool_call") == (
            answer.text,
            [call.name for call in answer.tool_calls],
            answer.finish_reason,
        )
        assert (3, 5) == (answer.usage.input_tokens, answer.usage.output_tokens)


def test_second_choice_of_a_later_frame_counts():
    """Also when the first choice of the frame continues a text; and the finish reason may come with either choice."""
    call = {"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}
    answer = asked(chat, frame(chat(0, "a")), frame(chat(0, "b")), frame(chat(0, "c"), call), DONE)
    assert ("abc", "f", "tool_call") == (answer.text, answer.tool_calls[0].name, answer.finish_reason)


def test_error_in_the_second_choice_is_raised():
    """The content of the first choice is its partial answer."""
    broken = {"index": 0, "delta": {}, "error": {"message": "boom"}}
    with pytest.raises(ProviderError, match="boom") as caught:
        asked(chat, frame(chat(0, "a"), broken), DONE)
    assert "a" == caught.value.partial.text
