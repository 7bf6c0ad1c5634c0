"""Tool calls whose id or name arrives late: no part of them is lost, however the answer ends."""

import json

import pytest
from models import made
from protocols import EVERY, ToolCall
from reactivex import operators as ops

import rxllm
from rxllm import OpenAI, RxllmError, ToolCallPart
from rxllm.testing import End, FakeServer, Reply

DONE = b"data: [DONE]\n\n"
WHOLE = [ToolCallPart("call_1", "f", '{"x":1}', 0)]


def event(*calls, finish=None, **fields):
    """One event, with fragments of calls."""
    choice = {"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": finish}
    return b"data: %s\n\n" % json.dumps({"choices": [choice], **fields}).encode()


def fragment(arguments="", *, name=None, **fields):
    """A fragment of the call at index 0, or of another one."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"index": 0, **fields, "function": function}


FINISH = event(finish="tool_calls")


def heard(*steps, **parameters):
    """The calls that are heard, those of the answer or of the error's partial, and the error, if there is one."""
    chunks = []
    with FakeServer(Reply(steps)) as server:
        source = OpenAI("m", base_url=server.url, max_retries=0).bind(**parameters)("hi")
        try:
            [answer] = source.pipe(ops.do_action(chunks.append), rxllm.message(), rxllm.stream())
            error = None
        except RxllmError as raised:
            answer, error = raised.partial, raised
    calls = [part for chunk in chunks for part in chunk.tool_calls]
    return calls, list(answer.tool_calls) if answer else [], error


@pytest.mark.parametrize(
    "fragments",
    [
        [fragment("", name="f"), fragment('{"x":1}', id="call_1")],
        [fragment("", id="call_1"), fragment('{"x":1}', name="f")],
        [fragment("", name="f", id=""), fragment('{"x":1}', name="f", id="call_1")],
        [
            fragment(None, name="f", id=None),
            {"index": 0, "id": "call_1", "function": {"name": None}},
            fragment('{"x":1}'),
        ],
        [fragment('{"x"', name="f"), fragment(":1"), fragment("}", id="call_1")],
        [fragment('{"x"', id="call_1"), fragment(":1", id="call_1", name="f"), fragment("}", name="f")],
        [fragment('{"x"'), fragment(":1", name="f"), fragment("}", id="call_1")],
    ],
)
def test_an_id_or_a_name_may_come_late(fragments):
    """The first id and the first name that are not empty count, in whatever fragment they arrive."""
    for ending in ([FINISH, DONE], [FINISH], [DONE]):
        calls, answered, error = heard(*map(event, fragments), *ending)
        assert (WHOLE, None) == (answered, error)
        assert [("call_1", "f")] == [(call.id, call.name) for call in calls if call.id or call.name]


def offered(*names):
    """Tools of these names."""
    return [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]


@pytest.mark.parametrize(
    ("tools", "heard_of"),
    [(offered("f", "g"), ["", '{"x"', ":1}"]), (offered("f", "f_2"), ['{"x"', ":1}"]), (None, ['{"x"', ":1}"])],
)
def test_call_is_emitted_as_soon_as_its_name_is_whole(tools, heard_of):
    """At once, if no other tool's name begins with it; else when the arguments show that the name has ended."""
    pieces = [fragment("", name="f", id="call_1"), fragment('{"x"'), fragment(":1}")]
    calls, answered, _ = heard(*map(event, pieces), FINISH, **({"tools": tools} if tools else {}))
    assert heard_of == [call.arguments for call in calls]
    assert WHOLE == answered


@pytest.mark.parametrize("tools", [None, offered("get_weather"), offered("get_wea", "get_weather")])
@pytest.mark.parametrize(
    "fragments",
    [
        [fragment("", name="get_wea", id="c"), fragment("", name="ther"), fragment("{}")],
        [fragment(None, name="get_wea", id="c"), fragment(None, name="ther", id="c"), fragment("{}")],
        [fragment("", name="get_wea", id="c"), fragment("{}", name="ther")],
        [fragment("", name="get_wea", id="c"), fragment("", name="get_weather"), fragment("{}")],
        [fragment("", name=name, **more) for name, more in zip("get_weather", [{"id": "c"}, *[{}] * 10], strict=True)],
        [
            fragment("", name="get_weather", id="c"),
            fragment("{}", name="get_weather"),
            fragment("", name="get_weather"),
        ],
    ],
    ids=["pieces", "id in each", "with arguments", "grown", "letters", "repeated"],
)
def test_a_name_may_come_in_pieces(fragments, tools):
    """Pieces are joined; a name that the server repeats, or sends again with more letters, is not doubled."""
    _, answered, error = heard(*map(event, fragments), FINISH, **({"tools": tools} if tools else {}))
    assert (["get_weather"], None) == ([call.name for call in answered], error)


def test_a_call_without_arguments_does_not_hold_back_the_next():
    """The arguments of the next call show that the name before has ended."""
    calls, answered, _ = heard(
        event(fragment("", name="now", id="call_1")),
        event(fragment("", name="f", id="call_2", index=1)),
        event(fragment('{"x"', index=1)),
        event(fragment(":1}", index=1)),
        FINISH,
    )
    assert ["", '{"x"', ":1}"] == [call.arguments for call in calls]
    assert ["now", "f"] == [call.name for call in answered]


def test_numbers_are_ids():
    """As text; two calls at one index stay apart by them."""
    _, answered, _ = heard(event(fragment("{}", name="f", id=7), fragment("{}", name="f", id=8)), FINISH)
    assert ["7", "8"] == [call.id for call in answered]


@pytest.mark.parametrize("stream", [True, False])
def test_numbers_are_ids_of_whole_answers_too(stream):
    """The answer's own id as well."""
    call = {"id": 1.5, "function": {"name": "f", "arguments": "{}"}}
    choice = {
        "delta" if stream else "message": {"tool_calls": [call, {**call, "id": 2}]},
        "finish_reason": "tool_calls",
    }
    body = json.dumps({"id": 12, "choices": [choice]})
    with FakeServer(Reply(f"data: {body}\n\n".encode() if stream else body.encode())) as server:
        answer = OpenAI("m", base_url=server.url).invoke("hi", stream=stream)
    assert ("12", ["1.5", "2"]) == (answer.id, [each.id for each in answer.tool_calls])


def test_calls_keep_their_order():
    """A complete call waits for an earlier one that is incomplete."""
    _, answered, _ = heard(
        event(fragment("{}", name="f"), fragment("", name="g", index=1, id="call_2")),
        event(fragment('{"y":2}', index=1)),
        event(fragment(id="call_1")),
        DONE,
    )
    assert [ToolCallPart("call_1", "f", "{}", 0), ToolCallPart("call_2", "g", '{"y":2}', 1)] == answered


def test_two_calls_may_wait_for_their_ids():
    """Each gets its own id."""
    _, answered, _ = heard(
        event(fragment("{}", name="f"), fragment("{}", name="f", index=1)),
        event(fragment(index=1, id="call_2"), fragment(id="call_1")),
        DONE,
    )
    assert [ToolCallPart("call_1", "f", "{}", 0), ToolCallPart("call_2", "f", "{}", 1)] == answered


@pytest.mark.parametrize("finish", [[FINISH, DONE], [FINISH], [DONE], [DONE, End.HANG], [FINISH, End.FIN]])
def test_calls_without_ids_are_emitted_at_the_end(finish):
    """With what has arrived."""
    calls, answered, error = heard(event(fragment('{"x"', name="f")), event(fragment(":1}")), *finish)
    expected = [ToolCallPart("", "f", '{"x":1}', 0)]
    assert (expected, expected, None) == (calls, answered, error)


def test_finish_reason_comes_after_the_held_calls():
    """So that the last chunk ends a whole answer."""
    with FakeServer(Reply([event(fragment("{}", name="f")), FINISH, DONE])) as server:
        *_, last = OpenAI("m", base_url=server.url).stream("hi")
    assert ([ToolCallPart("", "f", "{}", 0)], "tool_call") == (list(last.tool_calls), last.finish_reason)


def test_the_older_form_never_has_an_id():
    """So its fragments need not wait for one."""
    pieces = [{"name": "f", "arguments": ""}, {"arguments": "{"}, {"arguments": "}"}]
    events = [
        b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"function_call": each}}]}).encode() for each in pieces
    ]
    calls, answered, _ = heard(*events, DONE)
    assert (["", "{", "}"], [ToolCallPart("", "f", "{}", 0)]) == ([call.arguments for call in calls], answered)


def test_another_name_at_the_same_index():
    """With an id of its own it is another call; without one the first name counts."""
    opening = event(fragment("{}", name="f"))
    _, answered, _ = heard(opening, event(fragment("{}", name="g", id="call_2")), DONE)
    assert [ToolCallPart("", "f", "{}", 0), ToolCallPart("call_2", "g", "{}", 1)] == answered
    _, answered, _ = heard(opening, event(fragment("", name="g")), DONE)
    assert [ToolCallPart("", "f", "{}", 0)] == answered


def test_call_after_the_finish_reason_is_emitted():
    """Some servers send their calls late."""
    _, answered, error = heard(event(finish="tool_calls"), event(fragment('{"x":1}', name="f")))
    assert ([ToolCallPart("", "f", '{"x":1}', 0)], None) == (answered, error)


@pytest.mark.parametrize(
    "ending",
    [
        [],
        [End.FIN],
        [End.RST],
        [b'data: {"error": {"message": "boom"}}\n\n'],
        [event(finish="error")],
        [b"data: {nonsense\n\n"],
    ],
    ids=["clean", "FIN", "RST", "error", "finish_reason error", "garbage"],
)
def test_broken_stream_emits_the_held_calls(ending):
    """Before the error, and its partial contains them."""
    calls, partial, error = heard(event(fragment('{"x"', name="f")), event(fragment(":1")), *ending)
    expected = [ToolCallPart("", "f", '{"x":1', 0)]
    assert (expected, expected, True) == (calls, partial, error is not None)


@pytest.mark.parametrize("repeats", [{}, {"name": "f", "id": "call_1"}])
@pytest.mark.parametrize(
    "written", ['{"city": "Paris"}', '{"a":{"a":1},"b":"{\\"a\\":"}', '{"n":[1,12],"t":"\\ud83d\\ude00"}']
)
def test_fragments_that_repeat_the_arguments_so_far_count_once(written, repeats):
    """Baidu's and other servers send in each fragment all that they have; nothing of it is doubled."""
    grown = [written[:end] for end in (2, 6, 6, 13, len(written), len(written))]
    calls, answered, error = heard(
        event(fragment("", name="f", id="call_1")), *[event(fragment(text, **repeats)) for text in grown], FINISH
    )
    assert ([ToolCallPart("call_1", "f", written, 0)], None) == (answered, error)
    assert written == "".join(call.arguments for call in calls)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("written", ['{"a":{"a":{"a":1}}}', '{"[{":"[{[{"}', '{"a":"{\\"a\\":{"}'])
def test_arguments_that_repeat_themselves_stay_as_they_are(written, size):
    """In pieces of any size: a nested object may begin as the arguments do."""
    pieces = [written[start : start + size] for start in range(0, len(written), size)]
    _, answered, _ = heard(event(fragment("", name="f", id="call_1")), *map(event, map(fragment, pieces)), FINISH)
    assert [ToolCallPart("call_1", "f", written, 0)] == answered


@pytest.mark.parametrize("ending", [[FINISH, DONE], [DONE], [FINISH], [End.FIN]])
@pytest.mark.parametrize("blank", ["{}", {}])
def test_empty_object_before_the_arguments_is_left_out(blank, ending):
    """Gateways to Bedrock send it first; a call without arguments keeps it."""
    opening = event(fragment(blank, name="f", id="call_1"))
    calls, answered, _ = heard(opening, event(fragment('{"x"')), event(fragment(":1}")), *ending)
    assert (WHOLE, ["", '{"x"', ":1}"]) == (answered, [call.arguments for call in calls])
    _, answered, _ = heard(opening, event(fragment(blank)), event(fragment("")), *ending)
    assert [ToolCallPart("call_1", "f", "{}", 0)] == answered


def test_arguments_at_an_index_of_their_own_belong_to_the_call_before():
    """DeepSeek's gateways send the name of a second call at index 0, and its arguments at index 1."""
    first, second = fragment('{"x":1}', name="f", id="call_1"), fragment("", name="g", id="call_2")
    pieces = [fragment('{"y":', index=1), fragment("2}", index=1)]
    _, answered, _ = heard(*map(event, [first, second, *pieces]), FINISH)
    assert [*WHOLE, ToolCallPart("call_2", "g", '{"y":2}', 1)] == answered


def test_call_that_comes_again_at_another_index_counts_once():
    """LocalAI repeats it with its id, name and arguments; another call with the same id stays."""
    call = fragment('{"x":1}', name="f", id="call_1")
    _, answered, _ = heard(event(call), event({**call, "index": 1}), FINISH)
    assert WHOLE == answered
    _, answered, _ = heard(event(call), event(fragment('{"x":2}', name="f", id="call_1", index=1)), FINISH)
    assert ['{"x":1}', '{"x":2}'] == [each.arguments for each in answered]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("fields", [{"id": "call_1"}, {"id": "call_1", "name": "f"}])
@pytest.mark.parametrize("again", [' { "x" : 1 }\n', '"{\\"x\\": 1}"', '{"x":1}'])
@pytest.mark.parametrize("pieces", [['{"x":1}'], ['{"x', '":', "1}"], ['{"x": 1}\n']])
def test_whole_arguments_that_come_again_count_once(pieces, again, fields, index):
    """With other white space, or encoded twice, as LiteLLM's proxy sends them in a last fragment.

    Source: https://github.com/BerriAI/litellm/issues/20480
    """
    opening = fragment(pieces[0], name="f", id="call_1")
    later = [*map(fragment, pieces[1:]), fragment(again), fragment(again, **fields, index=index)]
    calls, answered, error = heard(*map(event, [opening, *later]), FINISH)
    assert ([ToolCallPart("call_1", "f", "".join(pieces), 0)], None) == (answered, error)
    assert "".join(pieces) == "".join(call.arguments for call in calls)


@pytest.mark.parametrize("tools", [None, offered("f")])
@pytest.mark.parametrize(
    ("objects", "whole"),
    [
        ([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ([{"a": "x"}, {"a": "x", "b": [1]}], {"a": "x", "b": [1]}),
        ([{"a": "x"}, {"a": "y"}, {"a": "z"}], {"a": "xyz"}),
        ([{"a": "x"}, {"a": "xy"}, {"a": "xyz"}], {"a": "xyz"}),
        ([{"a": {"b": "x", "c": [1]}}, {"a": {"b": "y", "c": [2]}}], {"a": {"b": "xy", "c": [1, 2]}}),
        ([{"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}, {"a": []}], {"a": [1, 2]}),
        ([{}, {"a": 1}, {"a": 2}], {"a": 2}),
        ([{"a": None}, {"a": "x"}], {"a": "x"}),
        ([{"a": "x"}, {"b": [], "c": {}}], {"a": "x", "b": [], "c": {}}),
        (["", {"a": "x"}, {"a": "y"}], {"a": "xy"}),
        ([{"a": "x"}, '{ "a": "x" }'], {"a": "x"}),
    ],
)
def test_arguments_that_are_objects_are_merged(objects, whole, tools):
    """MiniMax sends the next fields, the next pieces of fields, or all so far.

    Source: https://github.com/can1357/oh-my-pi/pull/2082
    """
    opening = fragment(objects[0], name="f", id="call_1")
    pieces = map(event, [opening, *map(fragment, objects[1:])])
    calls, answered, error = heard(*pieces, FINISH, **({"tools": tools} if tools else {}))
    arguments = json.dumps(whole, separators=(",", ":"))
    assert ([ToolCallPart("call_1", "f", arguments, 0)], None) == (answered, error)
    assert arguments == "".join(call.arguments for call in calls)


def test_long_arguments_in_several_objects_are_refused():
    """One object may be of any length. The text of two would be no JSON, and merging many would take too long."""
    long = fragment({"a": "x" * 70_000}, name="f", id="call_1")
    _, answered, error = heard(event(long), FINISH)
    assert (70_008, None) == (len(answered[0].arguments), error)
    _, _, error = heard(event(long), event(fragment({"b": 1})), FINISH)
    assert isinstance(error, rxllm.ProtocolError)
    assert "more than 65,536 characters in several objects" in str(error)


def test_text_of_a_custom_tool_is_no_object():
    """Lines of JSON are text: an equal line is not a repeat because of its white space."""
    pieces = ['{"a":1}\n', '{"a":1}', '\n{"b":2}']
    calls = [{"index": 0, "id": "call_1", "custom": {"name": "f", "input": pieces[0]}}]
    calls += [{"index": 0, "custom": {"input": piece}} for piece in pieces[1:]]
    _, answered, _ = heard(*map(event, calls), FINISH)
    assert ["".join(pieces)] == [call.arguments for call in answered]


@pytest.mark.parametrize("ending", [[DONE], [End.FIN]])
def test_arguments_that_are_objects_are_emitted_without_a_finish_reason(ending):
    """By the end marker, and when the stream breaks; a call after them does not wait."""
    opening = event(fragment({"x": 1}, name="f", id="call_1"), fragment("", name="g", id="call_2", index=1))
    calls, answered, _ = heard(opening, event(fragment('{"y":2}', index=1)), *ending)
    assert ["", '{"y":2}', '{"x":1}'] == [call.arguments for call in calls]
    assert [*WHOLE, ToolCallPart("call_2", "g", '{"y":2}', 1)] == answered


def test_calls_whose_arguments_are_objects_stay_apart():
    """By their ids, and without ids by their names, although they have the same index."""
    calls = [fragment({"x": 1}, name="f", id="call_1"), fragment({"y": 2}, name="f", id="call_2")]
    unnamed = [fragment({"x": 1}, name="f"), fragment({"y": 2}, name="f")]
    for events in (map(event, calls), [event(*calls)], map(event, unnamed)):
        _, answered, _ = heard(*events, FINISH)
        assert ['{"x":1}', '{"y":2}'] == [call.arguments for call in answered]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("other", ['{"x": 2}', '{"y": 1}', '{"x": 1, "y": 1}', '{"x": "1"}'])
def test_calls_with_one_id_and_other_arguments_stay_two(index, other):
    """Some servers give one id to all calls."""
    call = fragment('{"x": 1}', name="f", id="call_1")
    _, answered, _ = heard(event(call), event(fragment(other, name="f", id="call_1", index=index)), FINISH)
    assert ['{"x": 1}', other] == [each.arguments for each in answered]


@pytest.mark.parametrize("finish", ["tool_calls", None])
def test_a_whole_answer_may_have_a_call_without_an_id(finish):
    """With and without a finish reason."""
    call = {"function": {"name": "f", "arguments": '{"x":1}'}}
    document = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": finish}]}
    _, answered, error = heard(json.dumps(document).encode(), stream=False)
    assert ([ToolCallPart("", "f", '{"x":1}', 0)], None) == (answered, error)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{ "x": 1 }', '{ "x": 1 }'),
        ("", "{}"),
        ("null", "{}"),
        ('{"x":', '{"INVALID_JSON":"{\\"x\\":"}'),
        ("[1]", '{"INVALID_JSON":"[1]"}'),
        ('"{\\"x\\": 1}"', '{"x":1}'),
        ('""', "{}"),
        ('"x"', '{"INVALID_JSON":"\\"x\\""}'),
    ],
)
def test_arguments_go_back_as_an_object(written, sent):
    """Servers such as vLLM fail at anything else, and with it the conversation; OpenAI gets what its model wrote."""

    def arguments(base_url):
        prompt = [rxllm.Message("user", "hi"), rxllm.Message("assistant", [ToolCallPart("a", "f", written)])]
        body = OpenAI("m", base_url=base_url, api_key="k", api="chat").preview(prompt).json
        return body["messages"][1]["tool_calls"][0]["function"]["arguments"]

    assert sent == arguments("http://127.0.0.1:8000/v1")
    assert (written or "{}") == arguments(None)


GPT_OSS = [each for each in EVERY if each.name in ("chat", "responses", "ollama", "converse")]  # what serves this model


@pytest.mark.parametrize("protocol", GPT_OSS, ids=lambda protocol: protocol.name)
def test_special_tokens_are_not_in_the_name_of_a_call(protocol):
    """gpt-oss writes its channel after the name, and some servers leave it there."""
    call = ToolCall(name="get_weather<|channel|>commentary")
    with FakeServer(Reply(protocol.stream(tool_call=call)), Reply.json(protocol.whole(tool_call=call))) as server:
        llm = made(protocol, server.url)
        answers = [llm.invoke("hi"), llm.invoke("hi", stream=False)]
    assert [["get_weather"]] * 2 == [[each.name for each in answer.tool_calls] for answer in answers]
