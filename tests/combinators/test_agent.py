"""`agent`: rounds of a model and of tools, as one stream."""

import asyncio
import contextvars
import math
import threading
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from combinators.scripted import Scripted, call, collect, roles, timeline

import rxllm
from rxllm import (
    Chunk,
    FilePart,
    LimitReached,
    Message,
    MisuseError,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolFailure,
    ToolResultPart,
    ToolSpec,
    Usage,
    agent,
    tool,
)
from rxllm.testing import LLMContract, on_virtual_time


@tool
async def weather(city: str, days: int = 1) -> str:
    """Forecast the weather, which takes two seconds."""
    await asyncio.sleep(2)
    return f"rain in {city}"


@tool
async def quick(n: int) -> int:
    """Return the number at once."""
    return n


def results(parts):
    """Return the results among parts, as (id, text, outcome)."""
    return [(part.id, part.text, part.outcome) for part in parts if isinstance(part, ToolResultPart)]


TWO = [Chunk("See."), call("weather", '{"city":"Oslo"}', "a"), call("quick", '{"n":3}', "b", 1)]


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_chunks_of_all_rounds_and_results_pass_as_they_come():
    """Tools run in parallel. Results are emitted as they finish, and sent in the order of the calls."""
    model = Scripted([[1, *TWO, 1], [1, "It rains.", 1]])
    assert [
        (1, "See."),
        (1, 'weather{"city":"Oslo"}'),
        (1, 'quick{"n":3}'),
        (2, "=3"),
        (4, "=rain in Oslo"),
        (5, "It rains."),
        (6, "|"),
    ] == await timeline(agent(model, weather, quick)("hi"))
    assert [
        ("user", "hi"),
        ("assistant", 'See. weather{"city":"Oslo"} quick{"n":3}'),
        ("tool", "=rain in Oslo =3"),
    ] == roles(model.prompts[1])


@on_virtual_time
async def test_message_of_the_stream_is_the_history_that_the_model_got():
    """The answer goes back into a conversation as one Message, and the model gets the same messages as before."""
    model = Scripted([TWO, [call("quick", '{"n":4}', "c")], "It rains."])
    answer = await agent(model, weather, quick).ainvoke("hi")
    assert "See.It rains." == answer.text
    await model.ainvoke([("user", "hi"), answer, ("user", "And now?")])
    before, after = model.prompts[2:]
    assert [(m.role, m.parts) for m in before] == [(m.role, m.parts) for m in after[: len(before)]]
    assert [("assistant", "It rains."), ("user", "And now?")] == roles(after[len(before) :])


@on_virtual_time
async def test_agent_continues_a_conversation():
    """`remember` keeps the answer of all rounds as one Message."""
    conversation = rxllm.Conversation()
    model = Scripted([TWO, "It rains.", "Good."])
    talk = rxllm.remember(agent(model, weather, quick), conversation)
    await talk.ainvoke("hi")
    assert "Good." == (await talk.ainvoke("bye")).text
    assert ["user", "assistant", "user", "assistant"] == [message.role for message in conversation.messages]
    assert [*roles(model.prompts[1]), ("assistant", "It rains."), ("user", "bye")] == roles(model.prompts[2])


async def test_agent_without_tools_or_calls_is_the_model():
    """All chunks are those of the model."""
    chunks = [Chunk("a"), Chunk(parts=[ReasoningPart("b", "s", 0)]), Chunk("c", finish_reason="stop", model="m")]
    usage = Chunk(usage=Usage(input_tokens=1, output_tokens=2))
    for tools in (), (weather,):
        model = Scripted([[*chunks, usage]])
        assert ([*chunks, usage], None) == await collect(agent(model, *tools)("hi"))
        assert tuple(made.spec for made in tools) == (model.requests[0].tools or ())
    answer = await agent(Scripted(["a"])).ainvoke("hi", temperature=0)
    assert Message("assistant", "a") == answer


@on_virtual_time
async def test_usage_is_the_sum_of_the_rounds():
    """Each round reports a running total. The chunks report the running total of all rounds."""

    def used(input_tokens, output_tokens):
        return Chunk(usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens))

    model = Scripted([[used(10, 1), *TWO, used(10, 5)], [used(20, 1), "It", used(20, 7)]])
    chunks, _ = await collect(agent(model, weather, quick)("hi"))
    counts = [(c.usage.input_tokens, c.usage.output_tokens) for c in chunks if c.usage]
    assert [(10, 1), (10, 5), (30, 6), (30, 12)] == counts
    assert Usage(input_tokens=30, output_tokens=12) == rxllm.join(chunks).usage


@pytest.mark.parametrize("ids", [("x", "x"), ("", "")])
async def test_repeated_and_missing_ids_keep_the_calls_apart(ids):
    """Servers repeat ids in each round. A repeated id stays as it is. A missing one is added, for the result."""
    first = [Chunk(parts=[ToolCallPart(ids[0], "quick", '{"n"')]), Chunk(parts=[ToolCallPart("", "", ":1}")])]
    second = [Chunk(parts=[ToolCallPart(ids[1], "quick", '{"n"')]), Chunk(parts=[ToolCallPart("", "", ":2}")])]
    answer = await agent(Scripted([first, second, "Done."]), quick).ainvoke("hi")
    assert ['{"n":1}', '{"n":2}'] == [part.arguments for part in answer.tool_calls]
    assert [(made.id, text) for made, text in zip(answer.tool_calls, "12", strict=True)] == [
        (part_id, text) for part_id, text, _ in results(answer.parts)
    ]
    assert all(made.id for made in answer.tool_calls)
    assert not ids[0] or {"x"} == {made.id for made in answer.tool_calls}


async def test_reasoning_of_two_rounds_does_not_join():
    """Indices begin anew in each round."""
    think = [Chunk(parts=[ReasoningPart(text, index=0)]) for text in ("one", "two")]
    model = Scripted([[think[0], call("quick", '{"n":1}')], [think[1], "Done."]])
    answer = await agent(model, quick).ainvoke("hi")
    assert ["one", "two"] == [part.text for part in answer.parts if isinstance(part, ReasoningPart)]
    assert [("user", "hi"), ("assistant", '(one) quick{"n":1}'), ("tool", "=1")] == roles(model.prompts[1])


@on_virtual_time
async def test_reset_in_a_later_round_keeps_the_earlier_rounds():
    """A restart of the model takes back its own round only: the agent emits the earlier rounds again."""
    second = [
        Chunk("no", usage=Usage(output_tokens=50)),
        Chunk(reset=True),
        Chunk("yes"),
        Chunk(usage=Usage(output_tokens=2)),
    ]
    first = [call("quick", '{"n":1}'), Chunk(usage=Usage(output_tokens=5))]
    chunks, _ = await collect(agent(Scripted([first, second]), quick)("hi"))
    answer = rxllm.join(chunks).message()
    assert [("assistant", 'quick{"n":1} =1 yes'), Usage(output_tokens=7)] == [*roles([answer]), answer.usage]
    restarting = rxllm.retry(Scripted([["no", rxllm.Interrupted("cut")], ["ye", "s"]]), 2, mid_stream="restart")
    assert "yes" == (await agent(restarting, quick).ainvoke("hi")).text


@on_virtual_time
async def test_finish_reason_is_that_of_the_last_round():
    """The reasons of the earlier rounds are not emitted, because a reader could take them for the end."""
    first = [call("quick", '{"n":1}'), Chunk(finish_reason="tool_call", raw_finish_reason="tool_use")]
    for last, reason in ((["Done."], None), ([Chunk("Done.", finish_reason="stop")], "stop")):
        chunks, _ = await collect(agent(Scripted([first, last]), quick)("hi"))
        assert [reason] * bool(reason) == [chunk.finish_reason for chunk in chunks if chunk.finish_reason]
        assert (reason, None) == (rxllm.join(chunks).finish_reason, rxllm.join(chunks).raw_finish_reason)


@pytest.mark.parametrize("reason", ["stop", None])
async def test_calls_decide_and_not_the_finish_reason(reason):
    """Some servers end an answer with calls as ``stop``."""
    model = Scripted([[call("quick", '{"n":1}', finish_reason=reason)], "Done."])
    assert "Done." == (await agent(model, quick).ainvoke("hi")).text


@pytest.mark.parametrize("reason", ["length", "content_filter", "other"])
async def test_calls_of_an_answer_that_broke_off_do_not_run(reason):
    """They get an error as their result, so that the answer is a valid history, and the stream completes."""
    model = Scripted([[call("quick", '{"n":1}'), call("quick", "{", "b", 1), Chunk(finish_reason=reason)]])
    answer = await agent(model, quick).ainvoke("hi")
    assert (reason, 1, ["error", "error"]) == (
        answer.finish_reason,
        len(model.requests),
        [outcome for _, _, outcome in results(answer.parts)],
    )
    assert "did not run, because the answer broke off" in answer.parts[-1].text


@pytest.mark.parametrize("reason", ["pause_turn", "compaction"])
async def test_paused_answer_goes_on(reason):
    """Anthropic's pauses do not end the answer: the answer is sent back, and the model goes on."""
    paused = Chunk(finish_reason="stop", raw_finish_reason=reason)
    model = Scripted([["Searching. ", paused], [Chunk("Found.", finish_reason="stop")]])
    answer = await agent(model).ainvoke("hi")
    assert ("Searching. Found.", "stop", None) == (answer.text, answer.finish_reason, answer.raw_finish_reason)
    assert [("user", "hi"), ("assistant", "Searching. ")] == roles(model.prompts[1])


@pytest.mark.parametrize(
    ("choice", "later"),
    [
        ("required", "auto"),
        ("quick", "auto"),
        ({"type": "tool", "name": "quick", "x": 1}, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        (None, None),
    ],
)
async def test_forced_tool_choice_holds_for_the_first_round(choice, later):
    """Otherwise the model would call the tool for ever."""
    model = Scripted([[call("quick", '{"n":1}')], "Done."])
    await agent(model, quick).ainvoke("hi", tool_choice=choice)
    assert [choice, later] == [request.tool_choice for request in model.requests]


def test_300_rounds_do_not_grow_the_stack():
    """Also if no tool runs, because the model calls one that does not exist."""
    depths = []

    @tool
    async def deep() -> int:
        depths.append(len(__import__("inspect").stack(0)))
        return 0

    for name in "deep", "missing":
        model = Scripted([*[[call(name)]] * 300, "Done."])
        assert "Done." == agent(model, deep, rounds=301).invoke("hi").text
        assert 301 == len(model.requests)
    assert depths[0] == depths[-1]


async def test_rounds_are_limited():
    """The calls of the last round do not run. The error has the content of all rounds, and the calls have results."""
    model = Scripted([[f"{n}", call("quick", f'{{"n":{n}}}'), Chunk(usage=Usage(output_tokens=n))] for n in (1, 2, 3)])
    chunks, error = await collect(agent(model, quick, rounds=3)("hi"))
    assert (LimitReached, "rounds", False) == (type(error), error.limit, error.retryable)
    assert "The agent has not ended within its limit of 3 rounds." == str(error)
    assert rxllm.join(chunks).message().parts == error.partial.parts
    assert (3, "123", Usage(output_tokens=6)) == (len(model.requests), error.partial.text, error.partial.usage)
    assert ["ok", "ok", "error"] == [outcome for _, _, outcome in results(error.partial.parts)]


async def test_error_of_a_later_round_has_the_content_of_all_rounds():
    """The partial answer is a valid history."""
    failing = ["It ra", rxllm.Interrupted("cut")]
    model = Scripted([[call("quick", '{"n":1}'), Chunk(usage=Usage(input_tokens=5, output_tokens=5))], failing])
    chunks, error = await collect(agent(model, quick)("hi"))
    assert (rxllm.Interrupted, 'quick{"n":1} =1 It ra') == (
        type(error),
        *[words for _, words in roles([error.partial])],
    )
    assert rxllm.join(chunks).message().parts == error.partial.parts
    assert 5 < error.partial.usage.input_tokens
    assert "hi" == error.request.messages[0].text


async def test_decimal_gets_all_digits_of_an_argument():
    """Other numbers are floats, also in plain data and for the function that decides about approvals."""
    got = []

    @tool(approve=lambda arguments: got.append(arguments) or False)
    async def pay(amount: Decimal, rate: float, more: dict[str, Any]) -> str:
        got.append((amount, rate, more))
        return "paid"

    arguments = '{"amount":12345678901234567.89,"rate":1.5,"more":{"tip":0.5}}'
    await agent(Scripted([[call("pay", arguments)], "Done."]), pay).ainvoke("hi")
    plain, (amount, rate, more) = got
    assert (Decimal("12345678901234567.89"), 1.5, {"tip": 0.5}) == (amount, rate, more)
    assert [float] * 4 == [*map(type, (rate, more["tip"], plain["amount"], plain["more"]["tip"]))]


async def test_arguments_within_a_json_text_reach_the_tool():
    """Some models write their JSON twice; the call stays as it came."""
    model = Scripted([[call("quick", '"{\\"n\\": 7}"', "a")], "Seven."])
    answer = await agent(model, quick).ainvoke("hi")
    assert [("a", "7", "ok")] == results(answer.parts)


# ── what the model is told ───────────────────────────────────────────────────────────────────────────────────────


@tool
async def fail(kind: str) -> str:
    """Fail."""
    errors = {"told": ToolFailure("No such city."), "secret": ValueError("sk-secret"), "time": TimeoutError("secret")}
    raise errors[kind]


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("wether", "{}", "There is no tool 'wether'. The tools are: quick, fail, trip."),
        ("quick", '{"n":', r"The arguments are not valid JSON: Input data was truncated. Write a JSON object."),
        ("quick", "[1]", "The arguments must be a JSON object, not list."),
        ("quick", "[" * 100_000 + "]" * 100_000, "The arguments are not valid JSON: "),
        (
            "quick",
            '{"n":"x"}',
            "The arguments do not fit: expected an integer, but got a string, at $.n. The parameters are: n",
        ),
        ("quick", '{"n":1,"m":2}', "The arguments do not fit: there is no field 'm', at $."),
        ("quick", "", "The arguments do not fit: the field 'n' is missing, at $."),
        ("quick", "null", "The arguments do not fit: the field 'n' is missing, at $."),
        ("fail", '{"kind":"told"}', "No such city."),
        ("fail", '{"kind":"secret"}', "The tool fail failed: ValueError."),
        ("trip", "{}", "The tool trip failed: KeyError."),
    ],
)
async def test_mistakes_and_failures_are_told_to_the_model(name, arguments, sentence):
    """The result of the call is an error. Of an exception the model is told the class only: its text may be secret."""

    @tool
    def trip():
        return {}["x"]

    model = Scripted([[call(name, arguments, "a")], "Sorry."])
    answer = await agent(model, quick, fail, trip).ainvoke("hi")
    [(part_id, text, outcome)] = results(model.prompts[1][-1].parts)
    assert ("a", "error", "Sorry.") == (part_id, outcome, answer.text)
    assert text.startswith(sentence)
    assert "secret" not in text


@on_virtual_time
async def test_timeout_of_a_tool_is_told_as_interrupted():
    """Nobody knows whether the tool has done its work. A sibling goes on."""
    slow = tool(weather.function, name="slow", timeout=1)
    model = Scripted([[call("slow", '{"city":"Oslo"}', "a"), call("weather", '{"city":"Rome"}', "b", 1)], "Done."])
    answer = await agent(model, slow, weather).ainvoke("hi")
    told = [("a", "The tool slow timed out.", "interrupted"), ("b", "rain in Rome", "ok")]
    assert told == results(answer.parts)


@on_virtual_time
async def test_one_failure_of_five_leaves_the_others():
    """All five have a result, in the order of the calls."""

    @tool
    async def pick(n: int) -> int:
        await asyncio.sleep(5 - n)
        if n == 2:
            raise ValueError("two")
        return n

    model = Scripted([[call("pick", f'{{"n":{n}}}', f"id{n}", n) for n in range(5)], "Done."])
    await agent(model, pick).ainvoke("hi")
    texts = ["0", "1", "The tool pick failed: ValueError.", "3", "4"]
    assert texts == [text for _, text, _ in results(model.prompts[1][-1].parts)]


@on_virtual_time
async def test_errors_can_end_the_answer():
    """``errors="raise"`` cancels the siblings and raises the exception. A ToolFailure is still told."""
    cancelled = []

    @tool
    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(asyncio.get_running_loop().time())

    model = Scripted([[call("wait", id="w"), call("fail", '{"kind":"secret"}', "a", 1)]])
    chunks, error = await collect(agent(model, wait, fail, errors="raise")("hi"))
    assert ("sk-secret", [0], 2) == (str(error), cancelled, len(chunks))
    model = Scripted([[call("fail", '{"kind":"told"}')], "Sorry."])
    assert "Sorry." == (await agent(model, fail, errors="raise").ainvoke("hi")).text


async def test_misuse_in_a_tool_ends_the_answer():
    """It is a mistake in the program, so no model can repair it. So is a result that JSON cannot express."""

    @tool
    def strange() -> object:
        return object()

    @tool
    def raw() -> bytes:
        return b"x"

    @tool
    def mixed() -> list[object]:
        return [FilePart("image/png", b"x"), 3]

    @tool
    def nested() -> dict[str, object]:
        return {"picture": FilePart("image/png", b"x")}

    @tool
    def misuse() -> None:
        rxllm.pipe()

    for made, sentence in (
        (strange, "The tool strange returned object, which JSON cannot express"),
        (raw, "The tool raw returned bytes"),
        (mixed, "The tool mixed returned parts among other values"),
        (nested, "The tool nested returned parts among other values"),
        (misuse, "A pipeline needs at least one stage"),
    ):
        with pytest.raises(MisuseError, match=sentence):
            await agent(Scripted([[call(made.name)]]), made).ainvoke("hi")


class Number(float):
    """As numpy's."""


class Forecast(pydantic.BaseModel):
    """A result."""

    celsius: float = pydantic.Field(alias="temperatureInCelsius")


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("text", (TextPart("text"),)),
        ({"a": [1, None]}, (TextPart('{"a":[1,null]}'),)),
        (None, (TextPart("null"),)),
        ({"a": [Number(0.5)]}, (TextPart('{"a":[0.5]}'),)),
        ([Forecast(temperatureInCelsius=3.5)], (TextPart('[{"temperatureInCelsius":3.5}]'),)),
        ([], (TextPart("[]"),)),
        (FilePart("image/png", b"x"), (FilePart("image/png", b"x"),)),
        ([TextPart("see"), FilePart("image/png", b"x")], (TextPart("see"), FilePart("image/png", b"x"))),
        (["see", FilePart("image/png", b"x")], (TextPart("see"), FilePart("image/png", b"x"))),
        (["see", "it"], (TextPart('["see","it"]'),)),
        ({"a": msgspec.Raw(b'{"b": 1}')}, (TextPart('{"a":{"b":1}}'),)),
        ([math.inf, -math.inf, math.nan, 2**70], (TextPart("[Infinity,-Infinity,NaN,1180591620717411303424]"),)),
        ({1: "é", "d": Decimal("1.50"), "t": date(2026, 1, 2)}, (TextPart('{"1":"é","d":"1.50","t":"2026-01-02"}'),)),
        (Message("assistant", [ReasoningPart("hm"), TextPart("42")]), (TextPart("42"),)),
    ],
)
async def test_result_is_text_parts_or_json(value, content):
    """Text and parts are sent as they are. Of another agent's answer the text is the result."""
    model = Scripted([[call("give")], "Done."])
    await agent(model, tool(lambda: value, name="give")).ainvoke("hi")
    assert content == model.prompts[1][-1].parts[0].content


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: "caf\udce9", "caf\ufffd"),
        (lambda: ["caf\udce9", {"b\udce9": 1}], '["caf\ufffd",{"b\ufffd":1}]'),
        (lambda: [Forecast(temperatureInCelsius=3.5), "caf\udce9"], '[{"temperatureInCelsius":3.5},"caf\ufffd"]'),
        (lambda: [TextPart("caf\udce9")], "caf\ufffd"),
    ],
)
async def test_half_of_a_character_in_a_result_is_replaced(function, text):
    """`os.listdir` returns it in a name that is not UTF-8. No request can have it, so it would end the conversation."""
    model = Scripted([[call("give")], "Done."])
    answer = await agent(model, tool(function, name="give")).ainvoke("hi")
    assert [text] * 2 == [part.text for part in (answer.parts[1], model.prompts[1][-1].parts[0])]


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_blocking_and_async_tools_overlap_and_see_context_variables():
    """A plain ``def`` runs in a thread of its own, in a copy of the subscriber's context."""
    variable = contextvars.ContextVar("variable", default="unset")
    both = threading.Barrier(2, timeout=30)

    @tool
    def blocking() -> str:
        both.wait()
        return f"{variable.get()} {threading.current_thread().name}"

    @tool
    def other() -> str:
        both.wait()
        return variable.get()

    @tool
    async def coroutine() -> str:
        return f"{variable.get()} {threading.current_thread().name}"

    variable.set("here")
    names = ("blocking", "other", "coroutine")
    model = Scripted([[call(name, index=n) for n, name in enumerate(names)], "Done."])
    await agent(model, blocking, other, coroutine).ainvoke("hi")
    told = [text for _, text, _ in results(model.prompts[1][-1].parts)]
    assert ["here rxllm-worker", "here", "here MainThread"] == told


@on_virtual_time
async def test_concurrency_limits_the_running_tools():
    """Queued calls start when a running one ends."""
    running, most = set(), []

    @tool
    async def work(n: int) -> int:
        running.add(n)
        most.append(len(running))
        await asyncio.sleep(1)
        running.remove(n)
        return n

    model = Scripted([[call("work", f'{{"n":{n}}}', f"id{n}", n) for n in range(7)], "Done."])
    seen = await timeline(agent(model, work, concurrency=3)("hi"))
    assert (3, [1, 1, 1, 2, 2, 2, 3]) == (max(most), [at for at, words in seen if words.startswith("=")])


def test_tools_can_be_functions_and_names_must_differ():
    """A function becomes a tool. Two tools of one name are refused before any request, and so is anything else."""

    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    model = Scripted([[call("add", '{"a":1,"b":2}')], "3"])
    assert "3" == agent(model, add).invoke("hi").text
    assert tool(add).spec == model.requests[0].tools[0]
    for tools, sentence in (
        ([weather, tool(add, name="weather")], "Two tools have the name 'weather'"),
        ([lambda x: x], "cannot call a tool with the name|has no type"),
        ([5], "An agent takes tools and functions, not 5"),
        ([rxllm.ToolSpec("x")], "the ToolSpec 'x' has no function"),
        ([model], "An agent takes tools and functions"),
    ):
        with pytest.raises(MisuseError, match=sentence):
            agent(model, *tools)
    with pytest.raises(MisuseError, match="Two tools have the name 'weather'"):
        agent(model, weather).invoke("hi", tools=[weather])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rounds": 0}, "rounds must be a whole number of at least 1, not 0"),
        ({"concurrency": 1.5}, "concurrency must be a whole number"),
        ({"errors": "ignore"}, "errors must be 'tell' or 'raise', not 'ignore'"),
        ({"approve": True}, "approve must be a function of the tool's name and arguments, not True"),
        ({"prepare": 5}, "prepare must be a function of the round and its request, not 5"),
    ],
)
def test_options_are_checked(options, sentence):
    """Before any request."""
    with pytest.raises(MisuseError, match=sentence):
        agent(Scripted(["x"]), **options)
    with pytest.raises(MisuseError, match="llm must be a model, not 'gpt'"):
        agent("gpt")


async def test_tools_of_the_server_are_sent_and_their_blocks_stay_raw():
    """Dicts that define tools of the server go out with the agent's tools. A raw part is not a call."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    raw = Chunk(parts=[rxllm.RawPart("anthropic", {"type": "server_tool_use", "name": "web_search"})])
    model = Scripted([[raw, call("quick", '{"n":1}')], "Done."])
    await agent(model, quick, search).ainvoke("hi", tools=[{"type": "code_execution"}])
    assert (quick.spec, search, {"type": "code_execution"}) == model.requests[0].tools
    assert [("user", "hi"), ("assistant", 'raw quick{"n":1}'), ("tool", "=1")] == roles(model.prompts[1])


async def test_tools_bound_to_the_model_are_sent_too():
    """The agent's tools do not replace them."""
    model = Scripted(["Done."], tools=[{"type": "web_search"}])
    await agent(model, quick).ainvoke("hi")
    assert (quick.spec, {"type": "web_search"}) == model.requests[0].tools


WHERE = ToolSpec("where", "The place of the user.")


async def test_call_of_a_tool_of_the_caller_ends_the_answer():
    """The siblings of the call run first. The next request continues with the result of the caller."""
    model = Scripted([[call("where", "{}", "w"), call("quick", '{"n":1}', "q")], "Done."])
    caller = agent(model, quick).bind(tools=[WHERE])
    answer = await caller.ainvoke("hi")
    assert ["quick", "where"] == [spec.name for spec in model.requests[0].tools]
    assert ("tool_call", [("q", "1", "ok")]) == (answer.finish_reason, results(answer.parts))
    found = Message("tool", [ToolResultPart("w", "Rome", name="where")])
    assert "Done." == (await caller.ainvoke([Message("user", "hi"), answer, found])).text
    assert {"q": "1", "w": "Rome"} == {
        part.id: part.text for message in model.prompts[1] for part in message.parts if isinstance(part, ToolResultPart)
    }


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "where", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
        {"type": "function", "function": {"name": "where", "parameters": {"type": "object"}}, "x": 1},
        {"type": "bash_20250124", "name": "where"},
    ],
)
async def test_tool_of_the_caller_can_be_a_dict_in_the_form_of_a_provider(spec):
    """Its call ends the answer, as that of a ToolSpec. Tools without a name run on the provider's server."""
    caller = agent(Scripted([[call("where", "{}", "w")]]), quick).bind(tools=[spec, {"type": "web_search"}])
    answer = await caller.ainvoke("hi")
    assert ("tool_call", []) == (answer.finish_reason, results(answer.parts))


async def test_call_of_a_tool_of_the_caller_needs_no_further_round():
    """A limit of rounds forbids only the next round."""
    model = Scripted([[call("where", "{}", "w")]])
    answer = await agent(model, quick, rounds=1).bind(tools=[WHERE]).ainvoke("hi")
    assert ("tool_call", "where") == (answer.finish_reason, answer.tool_calls[0].name)


async def test_prepare_changes_the_request_of_one_round():
    """It may drop tools, switch the model or shorten the history. A dropped tool does not run."""
    seen = []

    def prepare(number, request):
        seen.append((number, len(request.messages)))
        if number == 2:
            return request.updated({"tools": [weather], "model": "small"})
        return None

    model = Scripted([[call("quick", '{"n":1}')], [call("quick", '{"n":2}')], "Done."])
    await agent(model, quick, weather, prepare=prepare).ainvoke("hi")
    assert [(1, 1), (2, 3), (3, 5)] == seen
    assert [None, "small", None] == [request.model for request in model.requests]
    assert [("id-quick-0", "There is no tool 'quick'. The tools are: weather.", "error")] == results(
        model.prompts[2][-1].parts
    )
    with pytest.raises(MisuseError, match="prepare must return a Request or None, not int"):
        await agent(model, prepare=lambda number, request: 5).ainvoke("hi")


async def test_calls_of_tools_are_runs_within_the_run_of_the_agent():
    """Handlers hear them between the runs of the model, with the id of the call in the metadata."""
    heard = []
    model = Scripted([TWO[1:], "It rains."])
    await agent(model, tool(weather.function, name="weather"), quick).ainvoke("hi", handlers=[heard.append])
    root = heard[0].run
    events = [(type(event).__name__, event.name) for event in heard if type(event).__name__ != "RunChunk"]
    assert [
        ("Started", "agent"),
        ("Started", "Scripted"),
        ("Finished", "Scripted"),
        ("ToolStarted", "weather"),
        ("ToolStarted", "quick"),
        ("ToolFinished", "quick"),
        ("ToolFinished", "weather"),
        ("Started", "Scripted"),
        ("Finished", "Scripted"),
        ("Finished", "agent"),
    ] == events
    assert all(event.parent_ids == (root.id,) for event in heard if event.run is not root)
    started = [event for event in heard if isinstance(event, rxllm.ToolStarted)]
    assert [({"city": "Oslo"}, "a"), ({"n": 3}, "b")] == [(e.input, e.metadata["tool_call_id"]) for e in started]
    assert "It rains." == heard[-1].message.text


class TestAgentIsAModel(LLMContract):
    """An agent passes the tests of every model."""

    @pytest.fixture
    def llm(self):
        """An agent that calls a tool."""
        return agent(rxllm.Embedded(seed=1, max_tokens=5), quick)
