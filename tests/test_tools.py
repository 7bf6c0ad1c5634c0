"""`tool`: a function as a stage, whose calls emit events."""

import asyncio
import threading

import pytest
from reactivex import operators as ops

import rxllm
from rxllm import MisuseError, ToolFinished, ToolStarted, tool


@tool
async def weather(city: str) -> str:
    """Return the weather: an ``async def`` tool."""
    await asyncio.sleep(0)
    if city == "Atlantis":
        raise KeyError(city)
    return f"rain in {city}"


@tool
def thread_of(_: object) -> str:
    """Return the name of the thread: a plain ``def`` tool, which may block."""
    return threading.current_thread().name


async def test_tool_has_the_methods_of_a_model():
    """A tool takes one value and returns one value, by every method of Surface."""
    assert "rain in Oslo" == await weather.ainvoke("Oslo")
    assert ["rain in Oslo", "rain in Rome"] == await weather.abatch(["Oslo", "Rome"])
    assert ["rain in Oslo"] == [result async for result in weather.astream("Oslo")]
    with pytest.raises(KeyError):
        await weather.ainvoke("Atlantis")


def test_plain_def_runs_in_a_worker_thread():
    """A blocking function does not block the event loop."""
    assert "rxllm-worker" == thread_of.invoke(None)


async def test_tool_call_is_a_run_within_the_caller_run():
    """A tool call emits `ToolStarted` and `ToolFinished`; the pipeline's run is the parent of its run."""
    agent = rxllm.pipe(rxllm.Embedded(seed=1, max_tokens=3), rxllm.message(), ops.map(str), ops.flat_map(weather))
    events = [event async for event in agent.events("hi").pipe(rxllm.astream())]
    root = events[0].run
    started = next(event for event in events if isinstance(event, ToolStarted))
    finished = next(event for event in events if isinstance(event, ToolFinished))
    assert ("weather", "tool", (root.id,)) == (started.name, started.run.kind, started.parent_ids)
    assert started.run is finished.run
    assert f"rain in {started.input}" == finished.output
    assert ["ToolStarted", "ToolFinished"] == [type(e).__name__ for e in events if e.run is started.run]


async def test_astream_events_reports_start_end_and_error():
    """A tool call appears as start and end, or as start and error."""
    dicts = [event async for event in weather.astream_events("Oslo")]
    assert [("on_tool_start", {"input": "Oslo"}), ("on_tool_end", {"output": "rain in Oslo"})] == [
        (event["event"], event["data"]) for event in dicts
    ]
    failed = []
    with pytest.raises(KeyError):
        await _collect(weather.astream_events("Atlantis"), failed)
    assert ["on_tool_start", "on_tool_error"] == [event["event"] for event in failed]


async def _collect(stream, items):
    async for item in stream:
        items.append(item)


def test_tool_raises_misuse_error_for_non_function_and_parameters():
    """A tool needs a function. It has no model, so it accepts config but no parameters."""
    with pytest.raises(MisuseError, match="function must be a function of one value"):
        tool(5)
    with pytest.raises(MisuseError, match="A tool has no model, so it cannot use temperature"):
        weather.bind(temperature=0)
    assert "named" == weather.with_config(run_name="named").run_name


class Forecast:
    """An object that can be called with one argument."""

    def __call__(self, city, *, days=1):
        """Return the city."""
        return city

    def of_two(self, city, days):
        """Require two arguments."""


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
def test_tool_raises_misuse_error_unless_function_takes_one_argument(function, shown):
    """The decorator raises, and the message says what to write instead."""
    with pytest.raises(MisuseError, match=rf"of one argument, not {shown}\. Let it take one value .* such as a dict"):
        tool(function)


@pytest.mark.parametrize(
    "function", [lambda city: "Oslo", lambda city, days=1: "Oslo", lambda *a: a[0], Forecast(), str]
)
def test_tool_accepts_every_callable_of_one_argument(function):
    """Further optional parameters are allowed."""
    assert "Oslo" == tool(function).invoke("Oslo")


def test_tool_accepts_c_function_without_signature():
    """Some functions written in C have no signature; the decorator accepts them unchecked."""
    assert 3 == tool(max).invoke([1, 3])
