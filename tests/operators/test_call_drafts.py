"""`call_drafts`: the arguments of tool calls while the model writes them."""

import copy
import json

import pytest
import reactivex as rx
from combinators.scripted import Scripted, call
from hypothesis import given
from hypothesis import strategies as st

import rxllm
from rxllm import CallDraft, Chunk, MisuseError, ToolCallPart, ToolResultPart, call_drafts


def fragment(arguments, index=0, id="", name=""):
    """A chunk with a fragment of a call."""
    return Chunk(parts=[ToolCallPart(id, name, arguments, index)])


def outcome(*chunks):
    """Return the values that the operator emits, each as it was then, and the error, if there is one."""
    emitted, errors = [], []
    rx.from_(chunks).pipe(call_drafts()).subscribe(lambda draft: emitted.append(copy.deepcopy(draft)), errors.append)
    return [emitted, *errors]


def test_arguments_grow_by_index():
    """Two calls are written at the same time. A call shows at once, and text does not pass."""
    chunks = [
        Chunk("I write."),
        fragment("", 0, "a", "mail"),
        fragment('{"to": "An', 0),
        fragment('{"n": 1', 1, "b", "count"),
        fragment('na"}', 0),
        fragment("2}", 1),
        Chunk(finish_reason="tool_call"),
    ]
    assert [
        [
            CallDraft(0, "a", "mail", {}),
            CallDraft(0, "a", "mail", {"to": "An"}),
            CallDraft(1, "b", "count", {}),
            CallDraft(0, "a", "mail", {"to": "Anna"}),
            CallDraft(1, "b", "count", {"n": 12}),
        ]
    ] == outcome(*chunks)


@given(st.dictionaries(st.text(max_size=3), st.lists(st.text(max_size=4)) | st.integers(), max_size=3), st.randoms())
def test_last_draft_is_the_whole_value(value, random):
    """However the text is split."""
    text = json.dumps(value)
    cuts = sorted(random.sample(range(len(text) + 1), min(4, len(text))))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    [drafts] = outcome(*(fragment(piece, 3, "x", "f") for piece in pieces))
    assert CallDraft(3, "x", "f", value) == drafts[-1]


def test_calls_of_two_rounds_stay_apart():
    """Servers repeat the index, and some repeat the id. A result ends the calls before it."""
    result = Chunk(parts=[ToolResultPart("a", "ok")])
    [drafts] = outcome(fragment('{"n":1}', 0, "a", "f"), result, fragment('{"m":2}', 0, "a", "f"))
    assert [{"n": 1}, {"m": 2}] == [draft.arguments for draft in drafts]
    [drafts] = outcome(fragment('{"n":1}', 0, "a", "f"), fragment('{"m":2}', 0, "b", "f"))
    assert [("a", {"n": 1}), ("b", {"m": 2})] == [(draft.id, draft.arguments) for draft in drafts]


def test_arguments_that_are_not_json_keep_the_last_draft():
    """The stream goes on, because an agent tells the model."""
    [drafts] = outcome(fragment('{"n":1,', 0, "a", "f"), fragment("oops"), fragment("}"), fragment("{}", 1, "b", "g"))
    assert [("a", {"n": 1}), ("b", {})] == [(draft.id, draft.arguments) for draft in drafts]


def test_name_may_come_late():
    """Some servers send the id first. A second name is ignored, as in `join`."""
    [drafts] = outcome(fragment("", 0, "a"), fragment('{"n":1', 0, "", "f"), fragment("}", 0, "", "g"))
    assert [CallDraft(0, "a", "", {}), CallDraft(0, "a", "f", {}), CallDraft(0, "a", "f", {"n": 1})] == drafts


def test_reset_begins_anew():
    """The model takes its calls back."""
    again = Chunk(parts=[ToolCallPart("a", "f", '{"m":2}')], reset=True)
    [drafts] = outcome(fragment('{"n":1}', 0, "a", "f"), again)
    assert [{"n": 1}, {"m": 2}] == [draft.arguments for draft in drafts]


def test_large_arguments_cost_linear_time_and_come_whole():
    """Drafts are skipped while they would cost too much. The last one comes with the result, or at the end."""
    text = json.dumps({"n": list(range(5_000))})
    pieces = [fragment(text[at : at + 20], 0, "a", "f") for at in range(0, len(text), 20)]
    for end in [Chunk(parts=[ToolResultPart("a", "ok")])], [fragment("{}", 0, "b", "f")], []:
        [drafts] = outcome(*pieces[:-10], *end)  # the answer breaks off
        mine = [draft.arguments for draft in drafts if draft.id == "a"]
        shown = mine[-1]["n"]
        assert (list(range(len(shown))), True) == (shown, len(mine) < len(pieces) / 4)
        assert len("".join(piece.parts[0].arguments for piece in pieces[:-10]).split(",")) - 1 == len(shown)
    [drafts] = outcome(*pieces)
    assert json.loads(text) == drafts[-1].arguments


def test_something_else_than_a_chunk_is_refused():
    """The error says where the operator belongs."""
    [drafts, error] = outcome("text")
    assert ([], MisuseError) == (drafts, type(error))
    assert "call_drafts takes chunks, not 'text'" in str(error)


async def test_agent_shows_its_calls():
    """The drafts come while the model writes, before the tool runs."""
    model = Scripted([[call("add", '{"a": 1, '), fragment('"b": 2}')], "3"])
    asked = rxllm.pipe(rxllm.agent(model, rxllm.tool(lambda: 1, name="add")), call_drafts())
    assert [{"a": 1}, {"a": 1, "b": 2}] == [draft.arguments async for draft in asked.astream("1 + 2?")]


@pytest.mark.parametrize("whole", [True, False])
async def test_answer_of_a_pipeline_is_the_last_draft(whole):
    """Also of a whole answer."""
    model = Scripted([[call("add", '{"a": 1}')]])
    asked = rxllm.pipe(model.bind(stream=not whole), call_drafts())
    assert CallDraft(0, "id-add-0", "add", {"a": 1}) == await asked.ainvoke("hi")
