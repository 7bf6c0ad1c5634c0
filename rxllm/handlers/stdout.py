"""`StdoutHandler`: the answer's text on the terminal, as it comes."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

from ..events import Cancelled, Emitted, Event, Failed, Finished, Started
from ..misuse import MisuseError, shown
from ..runtime.forks import reset_in_child
from ..terminal import one_line, printable
from ..values.chunk import Chunk
from ..values.message import Message
from ._local import LocalHandler

__all__ = ["StdoutHandler"]

_DIM, _RED = 2, 31


class StdoutHandler(LocalHandler):
    """Writes each piece of text as it comes, and a line's end after the answer; failures go to standard error.

    Attached to a pipeline, it writes what the pipeline gives, not what the models within give to it. Runs at the same
    time are written one after another: the first as it comes, the others as soon as it has ended.

    On a terminal reasoning comes before the answer, dimmed, and failures are red; not so where ``NO_COLOR`` is set or
    ``TERM`` is ``dumb``. Elsewhere there is text alone. Where an answer starts again, because it failed in its midst,
    a line says so. Control characters in the text are shown, not sent (see `rxllm.terminal.printable`).

    Args:
        file: where to write instead of standard output.

    Raises:
        MisuseError: nothing can be written to it.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        if file is not None and not callable(getattr(file, "write", None)):
            raise MisuseError(f"file must be open for text, as sys.stderr is, not {shown(file)}.")
        self._file = file
        self._in_line = False
        self._thinking = False
        self._turns: dict[str, list[Event]] = {}
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """In a forked child nobody would release the parent's lock."""
        self._lock = threading.RLock()

    def on_event(self, event: Event) -> None:
        """Writes it, or keeps it until it is its run's turn."""
        run = getattr(event, "run", None)
        with self._lock:
            if run is None or not run.id:
                self._write(event)
            elif not any(outer in self._turns for outer in run.parent_ids):
                self._take(run.id, event)

    def on_completed(self) -> None:
        """Ends the line."""
        with self._lock:
            self._end_line()

    def _take(self, run_id: str, event: Event) -> None:
        turns = self._turns
        if isinstance(event, Started):
            turns[run_id] = []
        if run_id not in turns:  # who is subscribed to some of a run's events may have missed its start
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
            if _is_terminal(out) and (thought := chunk.reasoning):
                if not self._thinking:
                    self._end_line()
                self._print(thought, _DIM)
                self._thinking = True
        self._text(chunk.text)

    def _text(self, text: str) -> None:
        if text:
            if self._thinking:
                self._end_line()
            self._print(text)

    def _print(self, text: str, style: int | None = None) -> None:
        out = self._file or sys.stdout
        text = printable(text)
        print(text if style is None else _styled(text, style, out), end="", flush=True, file=out)
        self._in_line = not text.endswith("\n")

    def _end_line(self) -> None:
        self._thinking = False
        if self._in_line:
            print(flush=True, file=self._file)
            self._in_line = False


def _is_terminal(file: TextIO | None) -> bool:
    return file is not None and file.isatty()


def _styled(text: str, style: int, file: TextIO | None) -> str:
    """In colour where that is wanted. Source: https://no-color.org."""
    wanted = _is_terminal(file) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{style}m{text}\x1b[0m" if wanted else text
