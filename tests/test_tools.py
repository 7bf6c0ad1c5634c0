"""`tool`: a function whose calls are seen."""

import asyncio
import threading

import pytest
from reactivex import operators as ops

import rxllm
from rxllm import MisuseError, ToolFinished, ToolStarted, tool


@tool
async def weather(city: str) -> str:
    """An async def."""
    await asyncio.sleep(0)
    if city == "Atlantis":
        raise KeyError(city)
    return f"rain in {city}"


@tool
def thread_of(_: object) -> str:
    """A def, which may block."""
    return threading.current_thread().name


async def test_it_is_asked_like_a_model():
    """One value in, one value out, on the whole surface."""
    assert "rain in Oslo" == await weather.ainvoke("Oslo")
    assert ["rain in Oslo", "rain in Rome"] == await weather.abatch(["Oslo", "Rome"])
    assert ["rain in Oslo"] == [result async for result in weather.astream("Oslo")]
    with pytest.raises(KeyError):
        await weather.ainvoke("Atlantis")


def test_what_blocks_runs_in_a_thread():
    """The loop goes on meanwhile."""
    assert "rxllm-worker" == thread_of.invoke(None)


async def test_its_calls_are_seen_within_what_called():
    """With input and output, as a run of their own."""
    agent = rxllm.pipe(rxllm.Embedded(seed=1, max_tokens=3), rxllm.message(), ops.map(str), ops.flat_map(weather))
    events = [event async for event in agent.events("hi").pipe(rxllm.astream())]
    root = events[0].run
    started = next(event for event in events if isinstance(event, ToolStarted))
    finished = next(event for event in events if isinstance(event, ToolFinished))
    assert ("weather", "tool", (root.id,)) == (started.name, started.run.kind, started.parent_ids)
    assert started.run is finished.run
    assert f"rain in {started.input}" == finished.output
    assert ["ToolStarted", "ToolFinished"] == [type(e).__name__ for e in events if e.run is started.run]


async def test_as_dicts():
    """Start, end and error."""
    dicts = [event async for event in weather.astream_events("Oslo")]
    assert [("on_tool_start", {"input": "Oslo"}), ("on_tool_end", {"output": "rain in Oslo"})] == [
        (event["event"], event["data"]) for event in dicts
    ]
    failed = []
    with pytest.raises(KeyError):
        failed.extend([event async for event in _noted(weather.astream_events("Atlantis"), failed)])
    assert ["on_tool_start", "on_tool_error"] == [event["event"] for event in failed]


async def _noted(events, heard):
    async for event in events:
        heard.append(event)
        yield event


def test_what_is_no_function_is_refused():
    """At once; and so are parameters, since no model takes them."""
    with pytest.raises(MisuseError, match="function must be a function of one value"):
        tool(5)
    with pytest.raises(MisuseError, match="A tool has no model to take temperature"):
        weather.bind(temperature=0)
    assert "named" == weather.with_config(run_name="named").run_name


class Forecast:
    """What can be called with one argument."""

    def __call__(self, city, *, days=1):
        """The city."""
        return city

    def of_two(self, city, days):
        """Needs both."""


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (lambda: "rain", r"<lambda>\(\)"),
        (lambda city, days: "rain", r"<lambda>\(city, days\)"),
        (lambda city, *, days: "rain", r"<lambda>\(city, days\)"),
        (lambda *, city: "rain", r"<lambda>\(city\)"),
        (Forecast().of_two, r"of_two\(city, days\)"),
    ],
)
def test_a_function_of_more_or_less_than_one_argument_is_refused(function, shown):
    """Where it is decorated, with what to write instead."""
    with pytest.raises(MisuseError, match=rf"of one argument, not {shown}\. Let it take one value .* such as a dict"):
        tool(function)


@pytest.mark.parametrize(
    "function", [lambda city: "Oslo", lambda city, days=1: "Oslo", lambda *a: a[0], Forecast(), str]
)
def test_what_can_be_called_with_one_argument_is_a_tool(function):
    """Whatever else it could take."""
    assert "Oslo" == tool(function).invoke("Oslo")


def test_what_is_written_in_c_may_not_tell_its_arguments():
    """Then it is taken at its word."""
    assert 3 == tool(max).invoke([1, 3])
