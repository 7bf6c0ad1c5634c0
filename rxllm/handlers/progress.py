"""`ProgressHandler`: the progress of many runs, as one live line on the terminal or in a notebook."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..events import Cancelled, Event, Failed, Finished, Run, Started
from ..misuse import MisuseError, shown
from ..notebook import Output, in_notebook
from ..operators.observer import ignore
from ..runtime.forks import reset_in_child
from ..values.chunk import Chunk
from ..values.message import Message
from .local import LocalHandler

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

__all__ = ["ProgressHandler"]


class ProgressHandler(LocalHandler):
    """Shows a live line for a batch: runs done, running and failed, tokens per second, and the time left.

    ::

        with rxllm.ProgressHandler(total=len(prompts)) as progress:
            answers = llm.batch(prompts, handlers=[progress])

        12/100 done, 8 running, 1 failed, 312 tokens/s, 0:01:23 left

    The handler counts only the outermost runs that it receives, of pipelines or of models. The tokens are the output
    tokens of all models that have ended, nested ones included. Runs may be in any number and in any threads. Without a
    terminal, the handler writes the last state once, at the end. Other output appears above the line. In a notebook the
    line is an output of its cell, and needs neither rich nor ipywidgets.

    Args:
        total: the expected number of runs. Without it, the line has no time left.
        console: the console to write to; the default writes to standard error, or to the notebook.
        get_time: the clock, in seconds.

    Raises:
        MisuseError: rich is not installed, or `total` is not a count.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        console: Console | None = None,
        get_time: Callable[[], float] = time.monotonic,
    ) -> None:
        if total is not None and (not isinstance(total, int) or isinstance(total, bool) or not 0 <= total < 2**63):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"total must be the expected number of runs, or None, not {shown(total)}.")
        self._total = total
        self._time = get_time
        reset_in_child(self._reset)
        self._running: set[str] = set()
        self._ended = {Finished: 0, Failed: 0, Cancelled: 0}
        self._tokens = 0
        self._first_start: float | None = None
        self._live = _InNotebook(self._line) if console is None and in_notebook() else _on(console, self._line)

    def _reset(self) -> None:
        """Create a new lock: in a forked child no thread would release the parent's."""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
        if isinstance(self._live, _InNotebook):
            return
        console = self._live.console
        if not console.is_terminal and not console.is_jupyter:  # for files, rich omits the final newline
            console.line()

    def _chunk_receiver(self, run: Run) -> Callable[[Chunk], object]:
        return ignore

    def on_event(self, event: Event) -> None:
        """Count the start or the end of an outermost run; count the tokens of every model's run."""
        match event:
            case Started(run=run):
                with self._lock:
                    if not any(ancestor in self._running for ancestor in run.parent_ids):
                        self._running.add(run.id)
                        self._first_start = self._time() if self._first_start is None else self._first_start
            case Finished(run=run, output=output) | Cancelled(run=run, partial=output):
                self._end(run, type(event), output)
            case Failed(run=run, partial=partial):
                self._end(run, Failed, partial)
            case _:
                pass

    def _end(self, run: Run, kind: type[Finished | Failed | Cancelled], output: object) -> None:
        with self._lock:
            if run.kind in ("llm", "chat_model") and isinstance(output, Message) and output.usage:
                self._tokens += output.usage.output_tokens or 0
            if run.id in self._running:
                self._running.remove(run.id)
                self._ended[kind] += 1

    def _line(self) -> str:
        with self._lock:
            done, failed, cancelled = self._ended.values()
            ended = done + failed + cancelled
            elapsed = 0.0 if self._first_start is None else self._time() - self._first_start
            facts = [
                f"{done} done" if self._total is None else f"{done}/{self._total} done",
                f"{len(self._running)} running",
                f"{failed} failed",
            ]
            if cancelled:
                facts.append(f"{cancelled} cancelled")
            if elapsed > 0:
                facts.append(f"{self._tokens / elapsed:.0f} tokens/s")
            if self._total is not None and ended:
                facts.append(f"{_clock(elapsed * max(self._total - ended, 0) / ended)} left")
        return ", ".join(facts)


class _InNotebook:
    """The line as an output of a notebook. A thread draws it four times a second, if it has changed."""

    def __init__(self, line: Callable[[], str]) -> None:
        self._line = line
        self._drawn = ""
        self._output = Output()
        self._stopped = threading.Event()
        # Its context tells the kernel to which cell the output belongs.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._run,), daemon=True)

    def start(self, *, refresh: bool) -> None:
        if refresh:
            self._draw()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._draw()

    def _run(self) -> None:
        while not self._stopped.wait(0.25):
            self._draw()

    def _draw(self) -> None:
        line = self._line()
        if line != self._drawn:
            self._drawn = line
            self._output.put(line)


def _on(console: Console | None, line: Callable[[], str]) -> Live:
    """Return the live line on a console.

    Raises:
        MisuseError: rich is not installed.
    """
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise MisuseError("rich is not installed: pip install 'rxllm[progress]'.") from None
    return Live(console=console or Console(stderr=True), get_renderable=line)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
