"""`tool`: a function as a stage, whose calls emit events."""

import asyncio
import functools
import pickle
import threading

import pytest
from combinators.scripted import Scripted
from reactivex import operators as ops

import rxllm
import rxllm.testing
from rxllm import Chunk, MisuseError, ToolCallPart, ToolFinished, ToolStarted, tool


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
    with pytest.raises(MisuseError, match="function must be a function"):
        tool(5)
    with pytest.raises(MisuseError, match="A tool has no model, so it cannot use temperature"):
        weather.bind(temperature=0)
    assert "named" == weather.with_config(run_name="named").run_name


@tool
async def route(start: str, end: str, stops: int = 0) -> str:
    """Return the way: a tool of several arguments."""
    return f"{start} to {end} with {stops}"


class Forecast:
    """An object that can be called with one argument."""

    def __call__(self, city, *, days=1):
        """Return the city."""
        return city


@pytest.mark.parametrize(
    "function", [lambda city: "Oslo", lambda city, days=1: "Oslo", lambda *a: a[0], Forecast(), str]
)
def test_tool_passes_one_value_as_the_argument(function):
    """Further parameters with defaults are allowed."""
    assert "Oslo" == tool(function).invoke("Oslo")


def test_tool_of_several_arguments_takes_a_dict_as_a_stage():
    """The keys are the names of the parameters. The tool of a function without parameters takes an empty dict."""
    assert "Oslo to Bergen with 0" == route.invoke({"start": "Oslo", "end": "Bergen"})
    assert ["a to b with 2"] == rxllm.pipe(route, rxllm.lines()).invoke({"start": "a", "end": "b", "stops": 2})
    assert "rain" == tool(lambda: "rain").invoke({})


async def test_tool_can_be_called_like_its_function():
    """Each subscription calls the function. The input of the run is a dict of the arguments."""
    calls = route("Oslo", "Bergen", stops=1), route(start="Oslo", end="Bergen", stops=1)
    for call in calls:
        assert ["Oslo to Bergen with 1"] == [value async for value in call.pipe(rxllm.astream())]
    heard = []
    await route.with_config(handlers=[heard.append]).ainvoke({"start": "a", "end": "b"})
    assert [{"start": "a", "end": "b"}, "a to b with 0"] == [heard[0].input, heard[1].output]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: route("Oslo"),
            r"route\(start, end, stops\) cannot be called .* one dict of its arguments, not 'Oslo'",
        ),
        (lambda: route.invoke({"start": "a", "ende": "b"}), "missing a required argument: 'end'"),
        (lambda: route("a", "b", stop=1), "unexpected keyword argument 'stop'"),
        (lambda: tool(lambda: "rain").invoke("Oslo"), "too many positional arguments"),
    ],
)
def test_wrong_arguments_raise_misuse_error_before_the_call(call, sentence):
    """The message has the tool's parameters."""
    with pytest.raises(MisuseError, match=sentence):
        call()


def test_tool_accepts_c_function_without_signature():
    """Some functions written in C have no signature; the decorator accepts them unchecked."""
    assert 3 == tool(max).invoke([1, 3])


@tool
async def download(url: str):
    """Report progress, as an async generator."""
    for percent in 50, 100:
        yield percent
    yield f"{url} is there"


@tool
def count(to: int):
    """Report progress, as a plain generator, which runs in a thread."""
    for number in range(to):
        yield number, threading.current_thread().name


@pytest.mark.parametrize(
    ("reporting", "value", "values"),
    [(download, "a", [50, 100, "a is there"]), (count, 2, [(0, "rxllm-worker"), (1, "rxllm-worker")])],
)
async def test_generator_tool_reports_progress(reporting, value, values):
    """Each value is an `Emitted` event of the tool's run. The last value is the result."""
    assert values[-1] == await reporting.ainvoke(value)
    assert values == [item async for item in reporting.astream(value)]
    events = [event async for event in reporting.events(value).pipe(rxllm.astream())]
    assert values == [event.value for event in events[1:-1] if event.run is events[0].run]
    assert ("ToolFinished", values[-1]) == (type(events[-1]).__name__, events[-1].output)
    dicts = [event async for event in reporting.astream_events(value)]
    assert values == [event["data"]["chunk"] for event in dicts if event["event"] == "on_tool_stream"]


def wrapped(function):
    """Decorate a function with a plain function, as a decorator that logs calls does."""

    @functools.wraps(function)
    def wrapper(*arguments, **keywords):
        return function(*arguments, **keywords)

    return wrapper


class Counting:
    """A callable object whose values come from a generator of the given kind."""

    def __call__(self, to: int):
        """Count, as a plain generator."""
        yield from range(to)


class AsyncCounting:
    """The same, as an async generator."""

    async def __call__(self, to: int):
        """Count, as an async generator."""
        for number in range(to):
            yield number


async def counting_later(to: int):
    """Return an async generator, as an async function."""
    return AsyncCounting()(to)


@pytest.mark.parametrize(
    "function",
    [wrapped(Counting().__call__), wrapped(AsyncCounting().__call__), Counting(), AsyncCounting()],
)
async def test_generator_behind_a_decorator_or_in_an_object_reports_progress(function):
    """The returned generator is read, as a returned awaitable is awaited: here, as a stage, and in an agent."""
    counting = tool(function, name="counting")
    assert [0, 1, 2] == [item async for item in counting.astream(3)]
    events = [event async for event in counting.events(3).pipe(rxllm.astream())]
    assert [0, 1, 2] == [event.value for event in events[1:-1] if event.run is events[0].run]
    asked = Chunk(parts=[ToolCallPart("c", "counting", '{"to": 3}')])
    answer = await rxllm.agent(Scripted([[asked], "Done."]), counting).ainvoke("Count.")
    assert ("2", "Done.") == (answer.parts[1].text, answer.text)


async def test_generator_that_a_function_returns_is_read():
    """The last value is the result, and the function need not be marked as wrapped."""
    for function in lambda to: Counting()(to), lambda to: AsyncCounting()(to), counting_later:
        assert 2 == await tool(function, name="counting").ainvoke(3)


def test_generator_that_a_wrapper_returns_runs_in_a_thread_and_is_closed():
    """The event loop goes on meanwhile, and a reader that leaves closes the generator."""
    threads, closed = [], threading.Event()

    @tool
    @wrapped
    def endless(start: int):
        try:
            while True:
                threads.append(threading.current_thread().name)
                yield start
        finally:
            closed.set()

    with endless.stream(5) as values:
        assert 5 == next(values)
    assert closed.wait(10)
    assert {"rxllm-worker"} == {*threads}


def test_generator_tool_without_values_returns_none():
    """As a function without ``return`` does."""
    assert None is count.invoke(0)


@rxllm.testing.on_virtual_time
async def test_tool_times_out():
    """The timeout cancels an async function and holds for all values of a generator together."""
    cancelled = []

    @tool(timeout=5)
    async def slow(seconds: float):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            cancelled.append(seconds)
            raise

    @tool(timeout=5)
    async def steps(seconds: float):
        for _ in range(3):
            await asyncio.sleep(seconds)
            yield seconds

    @tool(timeout=5)
    async def own(seconds: float):
        raise TimeoutError("my own")

    assert None is await slow.ainvoke(4)
    with pytest.raises(rxllm.Timeout, match=r"The tool slow did not end within 5 s\."):
        await slow.ainvoke(6)
    assert [6] == cancelled
    assert 1 == await steps.ainvoke(1)
    with pytest.raises(rxllm.Timeout):
        await steps.ainvoke(2)
    with pytest.raises(TimeoutError, match="my own"):
        await own.ainvoke(1)


def test_timeout_drops_the_result_of_a_blocking_tool():
    """The thread runs on, and its result reaches nobody."""
    release = threading.Event()
    blocking = tool(lambda _: release.wait(), timeout=0.05)
    with pytest.raises(rxllm.Timeout):
        blocking.invoke(0)
    release.set()


def test_options_are_validated():
    """A wrong option raises before any call."""
    with pytest.raises(MisuseError, match="timeout must be a positive number of seconds, not 0"):
        tool(str, timeout=0)
    with pytest.raises(MisuseError, match="approve must be True, False or a function of the arguments, not 'yes'"):
        tool(str, approve="yes")
    with pytest.raises(MisuseError, match="name must be text, not 5"):
        tool(name=5)(str)


def test_decorated_function_can_be_pickled():
    """Its name in the module is the tool, so the tool is pickled by this name, with its config."""
    for made in route, route.with_config(tags=["a"]), tool(route.function, timeout=3):
        assert made == pickle.loads(pickle.dumps(made))  # noqa: S301
