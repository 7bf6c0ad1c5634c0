"""The live line: its counts, its estimates, and its output without a terminal."""

import asyncio
import io
import sys

import pytest
import reactivex as rx
from reactivex import operators as ops
from rich.console import Console

import rxllm
from rxllm import LLM, Chunk, Interrupted, MisuseError, Usage
from rxllm.handlers.progress import ProgressHandler


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self):
        """Return the time."""
        return self.now


class Counted(LLM):
    """Answers, fails or waits, as the prompt says; emits ten tokens and advances the clock by one second."""

    clock: Clock = Clock()

    async def chunks(self, request):
        """Yield one chunk."""
        yield Chunk("a", usage=Usage(output_tokens=10))
        Counted.clock.now += 1
        if request.text == "fail":
            raise Interrupted("no")
        if request.text == "wait":
            await asyncio.Event().wait()


@pytest.fixture
def screen():
    """The output."""
    return io.StringIO()


@pytest.fixture
def progress(screen):
    """Return a function that creates a handler with a test clock, writing to `screen`."""

    def make(total=None, *, terminal=False):
        clock = Counted.clock = Clock()
        console = Console(file=screen, force_terminal=terminal, width=100, no_color=True, highlight=False)
        return ProgressHandler(total, console=console, get_time=clock)

    return make


def test_batch_shows_counts_and_the_time_left(progress, screen):
    """Without a terminal, one line is written at the end: three of four runs, one second each."""
    with progress(4) as handler:
        Counted(handlers=[handler]).batch(["x", "fail", "x"], max_concurrency=1, return_exceptions=True)
    assert "2/4 done, 0 running, 1 failed, 10 tokens/s, 0:00:01 left\n" == screen.getvalue()


def test_without_a_total_no_time_left_is_shown(progress, screen):
    """The line also has no total."""
    with progress() as handler:
        Counted(handlers=[handler]).invoke("x")
    assert "1 done, 0 running, 0 failed, 10 tokens/s\n" == screen.getvalue()


def test_nothing_is_estimated_before_the_first_end(progress, screen):
    """An empty batch shows neither a rate nor a time left."""
    with progress(3):
        pass
    assert "0/3 done, 0 running, 0 failed\n" == screen.getvalue()


def test_more_runs_than_the_total_leave_zero_time(progress, screen):
    """The runs beyond the total are counted, and the time left is never negative."""
    with progress(1) as handler:
        Counted(handlers=[handler]).batch(["x", "x"], max_concurrency=1)
    assert "2/1 done, 0 running, 0 failed, 10 tokens/s, 0:00:00 left\n" == screen.getvalue()


def test_long_times_are_shown_in_hours(progress, screen):
    """Minutes and seconds have two digits."""
    with progress(3662) as handler:
        Counted(handlers=[handler]).invoke("x")
    assert screen.getvalue().endswith("1:01:01 left\n")


async def test_running_and_cancelled_runs_are_shown(progress, screen):
    """A cancelled run is not a failure; its tokens count."""
    with progress() as handler:
        llm = Counted(handlers=[handler])
        async with llm.astream("wait") as stream:
            await anext(stream)
            assert "0 done, 1 running, 0 failed" == handler._line().removesuffix(", 10 tokens/s")
    assert screen.getvalue().startswith("0 done, 0 running, 0 failed, 1 cancelled")


def test_pipeline_counts_as_one_run_with_the_tokens_of_its_models(progress, screen):
    """The outermost received run counts: the pipeline's, or the model's where only the model is observed."""
    with progress() as handler:
        rxllm.pipe(Counted()).with_config(handlers=[handler]).invoke("x")
    assert "1 done, 0 running, 0 failed, 10 tokens/s\n" == screen.getvalue()
    with progress() as handler:
        pipeline = rxllm.pipe(Counted(), rxllm.message(), ops.flat_map(lambda _: Counted()("y")), rxllm.text())
        pipeline.with_config(handlers=[handler]).invoke("x")
    assert 2 * "1 done, 0 running, 0 failed, 10 tokens/s\n" == screen.getvalue()
    with progress() as handler:
        rxllm.pipe(Counted(handlers=[handler]), rxllm.text()).invoke("x")
    assert screen.getvalue().endswith("\n1 done, 0 running, 0 failed, 10 tokens/s\n")


def test_runs_in_several_threads_are_counted_together(progress, screen):
    """Runs on the portal and on other event loops share one line."""

    def own_loop(handler):
        asyncio.run(Counted(handlers=[handler]).ainvoke("x"))

    with progress() as handler:
        callers = [rx.from_callable(lambda: own_loop(handler), rx.scheduler.NewThreadScheduler()) for _ in range(8)]
        rx.merge(*callers).run()
        Counted(handlers=[handler]).batch(["x"] * 8)
    assert screen.getvalue().startswith("16 done, 0 running, 0 failed")


def test_line_is_live_on_a_terminal(progress, screen):
    """The line is drawn at the start and redrawn at the end; the hidden cursor comes back."""
    with progress(1, terminal=True) as handler:
        Counted(handlers=[handler]).invoke("x")
    assert screen.getvalue().startswith("\x1b[?25l0/1 done, 0 running, 0 failed")
    assert "1/1 done, 0 running, 0 failed, 10 tokens/s, 0:00:00 left" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[?25h")


def test_line_stops_when_the_block_raises(progress, screen):
    """The refresh thread ends, and the last state stays readable."""
    with pytest.raises(Interrupted), progress() as handler:
        Counted(handlers=[handler]).invoke("fail")
    assert "0 done, 0 running, 1 failed, 10 tokens/s\n" == screen.getvalue()


def test_default_console_is_standard_error(capsys):
    """Without `console`, the line goes to standard error."""
    with ProgressHandler():
        pass
    assert ("", "0 done, 0 running, 0 failed\n") == capsys.readouterr()


def test_missing_rich_is_named_in_the_error(monkeypatch):
    """The constructor raises MisuseError with the command to install the extra."""
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[progress\]'"):
        ProgressHandler()
