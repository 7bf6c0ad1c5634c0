"""`StdoutHandler`: the answer's text on the terminal, as it comes."""

from __future__ import annotations

import sys
from typing import TextIO

from ..events import Cancelled, Event, Failed, Finished, Handler
from ..messages import Chunk

__all__ = ["StdoutHandler"]


class StdoutHandler(Handler):
    """Writes each chunk's text as it comes, and a line's end after the answer; failures go to standard error.

    Args:
        file: where to write instead of standard output.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._in_line = False

    def on_event(self, event: Event) -> None:
        """Writes it."""
        match event:
            case Chunk(text=text):
                if text:
                    print(text, end="", flush=True, file=self._file)
                    self._in_line = not text.endswith("\n")
            case Finished() | Cancelled():
                self._end_line()
            case Failed(error=error):
                self._end_line()
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
            case _:
                pass

    def on_completed(self) -> None:
        """Ends the line."""
        self._end_line()

    def _end_line(self) -> None:
        if self._in_line:
            print(flush=True, file=self._file)
            self._in_line = False
