"""`StdoutHandler`: the answer's text on the terminal, as it arrives."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

from ..events import Cancelled, Emitted, Event, Failed, Finished, Started
from ..misuse import MisuseError, shown
from ..runtime.forks import reset_in_child
from ..terminal import is_terminal, one_line, printable
from ..values.chunk import Chunk
from ..values.message import Message
from .local import LocalHandler

__all__ = ["StdoutHandler"]

_DIM, _RED = 2, 31


class StdoutHandler(LocalHandler):
    """Writes each piece of text as it arrives, and a newline after the answer; failures go to standard error.

    Attached to a pipeline, the handler writes the texts and messages that the pipeline emits, not those of the models
    inside, and no other values. Concurrent runs are written one after another: the first run as it arrives, each other
    run once the runs before it have ended.

    On a terminal, the reasoning appears dimmed before the answer, and failures appear in red. ``NO_COLOR`` and
    ``TERM=dumb`` disable both styles. Other files get the answer's text only. When a model starts its answer again
    after a failure, a line says so. Control characters in the text are made visible (see `rxllm.terminal.printable`).

    Args:
        file: the text file to write to; the default is standard output.

    Raises:
        MisuseError: `file` has no method ``write``.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        if file is not None and not callable(getattr(file, "write", None)):
            raise MisuseError(f"file must be a text file open for writing, such as sys.stderr, not {shown(file)}.")
        self._file = file
        self._in_line = False
        self._in_reasoning = False
        self._turns: dict[str, list[Event]] = {}
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Create a new lock: in a forked child no thread would release the parent's."""
        self._lock = threading.RLock()

    def on_event(self, event: Event) -> None:
        """Write the event, or keep it until the runs before its run have ended."""
        run = getattr(event, "run", None)
        with self._lock:
            if run is None or not run.id:
                self._write(event)
            elif not any(outer in self._turns for outer in run.parent_ids):
                self._take(run.id, event)

    def on_completed(self) -> None:
        """End the line."""
        with self._lock:
            self._end_line()

    def _take(self, run_id: str, event: Event) -> None:
        turns = self._turns
        if isinstance(event, Started):
            turns[run_id] = []
        if run_id not in turns:  # a handler subscribed to a part of a run's events may not get Started
            self._write(event)
            return
        turns[run_id].append(event)
        while turns:
            first, events = next(iter(turns.items()))
            ended = bool(events) and isinstance(events[-1], (Finished, Failed, Cancelled))
            if ended:
                del turns[first]
            kept = events.copy()
            events.clear()
            for each in kept:
                self._write(each)
            if not ended:
                break

    def _write(self, event: object) -> None:
        match event:
            case Chunk():
                self._chunk(event)
            case Emitted(value=value):
                self._write(value)
            case str():
                self._text(event)
            case Message(text=text):
                self._text(text)
            case Finished() | Cancelled():
                self._end_line()
            case Failed(error=error):
                self._end_line()
                print(_styled(one_line(f"{type(error).__name__}: {error}"), _RED, sys.stderr), file=sys.stderr)
            case _:
                pass

    def _chunk(self, chunk: Chunk) -> None:
        if chunk.rest is not None:
            out = self._file or sys.stdout
            if chunk.reset:
                self._end_line()
                print(_styled("[started again]", _DIM, out), flush=True, file=out)
            if is_terminal(out) and (reasoning := chunk.reasoning):
                if not self._in_reasoning:
                    self._end_line()
                self._print(reasoning, _DIM)
                self._in_reasoning = True
        self._text(chunk.text)

    def _text(self, text: str) -> None:
        if text:
            if self._in_reasoning:
                self._end_line()
            self._print(text)

    def _print(self, text: str, style: int | None = None) -> None:
        out = self._file or sys.stdout
        text = printable(text)
        print(text if style is None else _styled(text, style, out), end="", flush=True, file=out)
        self._in_line = not text.endswith("\n")

    def _end_line(self) -> None:
        self._in_reasoning = False
        if self._in_line:
            print(flush=True, file=self._file)
            self._in_line = False


def _styled(text: str, style: int, file: TextIO | None) -> str:
    """Return the text with a terminal style, where the file shows styles. Source: https://no-color.org."""
    shows_styles = is_terminal(file) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{style}m{text}\x1b[0m" if shows_styles else text
