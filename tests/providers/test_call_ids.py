"""Calls without ids of their own, or with names that vendors refuse: the request has valid ones."""

import itertools

import pytest

from rxllm import Anthropic, Gemini, Message, Ollama, OpenAI, Request, ToolCallPart, ToolResultPart

HOW = {"api_key": "none"}
MODELS = {
    "chat": OpenAI("m", base_url="http://127.0.0.1:1/v1", **HOW),
    "responses": OpenAI("m", base_url="http://127.0.0.1:1/v1", api="responses", **HOW),
    "messages": Anthropic("m", **HOW),
    "generate": Gemini("m", **HOW),
    "ollama": Ollama("m"),
}


def conversation(*ids):
    """Rounds of calls with these ids, whose tools have these numbers as names and as results."""
    number = itertools.count()
    for each in ids:
        calls = [ToolCallPart(identity, f"f{next(number)}", "{}", index) for index, identity in enumerate(each)]
        yield Message("assistant", calls)
        yield Message("tool", [ToolResultPart(call.id, call.name) for call in calls])
    yield Message("user", "Go on.")


def items(value):
    """All dicts in a JSON document."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from items(item)


def sent(name, *ids):
    """The ids of the calls in the request, and the ids of the results, by the name of the tool."""
    calls, results = {}, {}
    for item in items(MODELS[name].preview([*conversation(*ids)]).json):
        match item:
            case {"type": "function", "id": str(identity), "function": {"name": tool}}:
                calls[tool] = identity
            case {"type": "function_call", "call_id": str(identity), "name": tool}:
                calls[tool] = identity
            case {"type": "tool_use", "id": str(identity), "name": tool}:
                calls[tool] = identity
            case {"id": str(identity), "name": tool, "args": _} | {"id": str(identity), "function": {"name": tool}}:
                calls[tool] = identity
            case (
                {"tool_call_id": str(identity), "content": tool}
                | {"call_id": str(identity), "output": tool}
                | {"tool_use_id": str(identity), "content": tool}
                | {"id": str(identity), "response": {"output": tool}}
            ):
                results[tool] = identity
    return calls, results


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "ids",
    [
        [["", ""]],
        [["", ""], [""]],
        [["a", "a"]],
        [["a", "a"], ["b", "a", "a_2"]],
        [["call_2"], ["", "call_3"], ["call_4", ""]],
    ],
    ids=str,
)
def test_each_call_gets_an_id_of_its_own(name, ids):
    """Vendors reject a conversation whose calls share an id, and a result without one answers no call."""
    calls, results = sent(name, *ids)
    assert [f"f{n}" for n in range(sum(map(len, ids)))] == list(calls)
    assert calls == results
    numbers = itertools.count()
    for each in ids:
        own = [calls[f"f{next(numbers)}"] for _ in each]
        assert "" not in own
        assert len({*own}) == len(own)


@pytest.mark.parametrize("name", MODELS)
def test_calls_of_two_rounds_share_an_id_only_where_the_vendor_allows_it(name):
    """A server that begins again in each round may know its ids again; Claude refuses them."""
    calls, results = sent(name, ["a"], ["a"], ["a", "b"])
    expected = ["a", "a_2", "a_3", "b"] if name == "messages" else ["a", "a", "a", "b"]
    assert [*expected] == [*calls.values()] == [*results.values()]


@pytest.mark.parametrize("name", MODELS)
def test_ids_that_differ_stay(name):
    """The server may know them again."""
    calls, results = sent(name, ["a", "b"], ["c"])
    assert {"f0": "a", "f1": "b", "f2": "c"} == calls == results


def test_results_in_another_order_find_their_calls():
    """Within a round, calls with the same id are answered in order; a late result belongs to its own round."""
    a, b = ToolCallPart("a", "f", "{}"), ToolCallPart("b", "g", "{}", 1)
    rounds = [
        *(Message("assistant", [a]), Message("user", "No.")),  # no result
        *(Message("assistant", [a, b]), Message("tool", [ToolResultPart("b", "2"), ToolResultPart("a", "1")])),
    ]
    blocks = [block for turn in MODELS["messages"].preview(rounds).json["messages"] for block in turn["content"]]
    assert ["a", "a_2", "b"] == [block["id"] for block in blocks if block["type"] == "tool_use"]
    results = [(block["tool_use_id"], block["content"]) for block in blocks if block["type"] == "tool_result"]
    assert [("b", "2"), ("a_2", "1")] == results


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("made_up", "valid"),
    [
        ("functions.f", "functions_f"),
        ("f<|channel|>commentary", "f__channel__commentary"),
        ("", "unknown"),
        ("f" * 200, "f" * 60),
        ("f", "f"),
    ],
    ids=str,
)
def test_name_that_a_model_made_up_is_sent_in_a_valid_form(name, made_up, valid):
    """Vendors refuse the conversation otherwise. A name that the request offers stays as it is."""
    valid = made_up if (name, made_up) == ("generate", "functions.f") else valid  # Gemini allows dots
    call, result = ToolCallPart("a", made_up, "{}"), ToolResultPart("a", "There is no such tool.", "error", made_up)
    prompt = [Message("user", "hi"), Message("assistant", [call]), Message("tool", [result])]
    sent = [*items(MODELS[name].preview(prompt).json)]
    assert {valid} == {each[key] for each in sent for key in ("name", "tool_name") if key in each}


@pytest.mark.parametrize("name", MODELS)
def test_result_without_a_name_gets_that_of_its_call_or_none(name):
    """Most providers need no name in a result."""
    prompt = [Message("user", "hi"), Message("assistant", [ToolCallPart("a", "f", "{}")])]
    sent = [*items(MODELS[name].preview([*prompt, Message("tool", [ToolResultPart("a", "1")])]).json)]
    assert {"f"} == {each[key] for each in sent for key in ("name", "tool_name") if key in each}


def test_name_of_a_tool_that_the_request_offers_stays():
    """A server of one's own may allow more characters than vendors do."""
    definition = {"type": "function", "function": {"name": "a.b", "parameters": {"type": "object"}}}
    prompt = [Message("user", "hi"), Message("assistant", [ToolCallPart("a", "a.b", "{}")])]
    assert "a_b" not in str(MODELS["chat"].preview(prompt, tools=[definition]).json)
    assert "a_b" in str(MODELS["chat"].preview(prompt).json)


def test_call_that_a_message_dict_contains_twice_is_one_call():
    """Proxies write the calls of Anthropic's content once more as those of OpenAI."""
    function = {"name": "f", "arguments": "{}"}
    answer = {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}],
        "tool_calls": [{"id": "a", "function": function}, {"id": "b", "function": function}],
    }
    [message] = Request.ask([answer]).messages
    assert ["a", "b"] == [call.id for call in message.tool_calls]
