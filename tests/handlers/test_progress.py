"""The live line: what it counts, what it reckons, and what it writes where there is no terminal."""

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
    """Stands where it is put."""

    now = 100.0

    def __call__(self):
        """The time."""
        return self.now


class Counted(LLM):
    """Answers, fails or waits, as it is asked; puts out ten tokens, and moves the clock by a second."""

    clock: Clock = Clock()

    async def chunks(self, request):
        """A chunk."""
        yield Chunk("a", usage=Usage(output_tokens=10))
        Counted.clock.now += 1
        if request.text == "fail":
            raise Interrupted("no")
        if request.text == "wait":
            await asyncio.Event().wait()


@pytest.fixture
def screen():
    """What is written to."""
    return io.StringIO()


@pytest.fixture
def progress(screen):
    """Makes a handler that writes there, with a clock of its own."""

    def make(total=None, *, terminal=False):
        clock = Counted.clock = Clock()
        console = Console(file=screen, force_terminal=terminal, width=100, no_color=True, highlight=False)
        return ProgressHandler(total, console=console, get_time=clock)

    return make


def test_a_batch_is_counted_and_reckoned(progress, screen):
    """Where there is no terminal, one line is left at the end: after three of four, a second each."""
    with progress(4) as handler:
        Counted(handlers=[handler]).batch(["x", "fail", "x"], max_concurrency=1, return_exceptions=True)
    assert "2/4 done, 0 running, 1 failed, 10 tokens/s, 0:00:01 left\n" == screen.getvalue()


def test_without_a_total_no_time_is_told(progress, screen):
    """Nor how many there will be."""
    with progress() as handler:
        Counted(handlers=[handler]).invoke("x")
    assert "1 done, 0 running, 0 failed, 10 tokens/s\n" == screen.getvalue()


def test_nothing_is_reckoned_before_anything_ends(progress, screen):
    """A batch of nothing."""
    with progress(3):
        pass
    assert "0/3 done, 0 running, 0 failed\n" == screen.getvalue()


def test_more_than_were_announced_take_no_negative_time(progress, screen):
    """They are counted all the same."""
    with progress(1) as handler:
        Counted(handlers=[handler]).batch(["x", "x"], max_concurrency=1)
    assert "2/1 done, 0 running, 0 failed, 10 tokens/s, 0:00:00 left\n" == screen.getvalue()


def test_long_times_are_told_in_hours(progress, screen):
    """Minutes and seconds have two digits."""
    with progress(3662) as handler:
        Counted(handlers=[handler]).invoke("x")
    assert screen.getvalue().endswith("1:01:01 left\n")


async def test_what_runs_and_what_was_left_is_told(progress, screen):
    """Who left is no failure; what it had put out counts."""
    with progress() as handler:
        llm = Counted(handlers=[handler])
        async with llm.astream("wait") as stream:
            await anext(stream)
            assert "0 done, 1 running, 0 failed" == handler._line().removesuffix(", 10 tokens/s")
    assert screen.getvalue().startswith("0 done, 0 running, 0 failed, 1 cancelled")


def test_a_pipeline_is_one_task_with_the_tokens_of_its_models(progress, screen):
    """Heard at the pipeline, whatever it gives; heard at a model within, that is the outermost that is heard."""
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


def test_threads_are_counted_together(progress, screen):
    """Runs on the portal, and on loops of their own."""

    def own_loop(handler):
        asyncio.run(Counted(handlers=[handler]).ainvoke("x"))

    with progress() as handler:
        callers = [rx.from_callable(lambda: own_loop(handler), rx.scheduler.NewThreadScheduler()) for _ in range(8)]
        rx.merge(*callers).run()
        Counted(handlers=[handler]).batch(["x"] * 8)
    assert screen.getvalue().startswith("16 done, 0 running, 0 failed")


def test_on_a_terminal_the_line_is_live(progress, screen):
    """It is drawn at the start and drawn over at the end; the cursor, which is hidden meanwhile, comes back."""
    with progress(1, terminal=True) as handler:
        Counted(handlers=[handler]).invoke("x")
    assert screen.getvalue().startswith("\x1b[?25l0/1 done, 0 running, 0 failed")
    assert "1/1 done, 0 running, 0 failed, 10 tokens/s, 0:00:00 left" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[?25h")


def test_the_line_goes_when_the_block_fails(progress, screen):
    """Its thread ends, and the last state is there to read."""
    with pytest.raises(Interrupted), progress() as handler:
        Counted(handlers=[handler]).invoke("fail")
    assert "0 done, 0 running, 1 failed, 10 tokens/s\n" == screen.getvalue()


def test_it_is_shown_on_standard_error(capsys):
    """Where no console is given."""
    with ProgressHandler():
        pass
    assert ("", "0 done, 0 running, 0 failed\n") == capsys.readouterr()


def test_without_rich_a_sentence_says_what_to_install(monkeypatch):
    """When the handler is made."""
    monkeypatch.setitem(sys.modules, "rich.live", None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[progress\]'"):
        ProgressHandler()
