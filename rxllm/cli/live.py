"""What ``--markdown`` and ``--live`` show at a terminal: text that is finished once, and a region that is drawn again.

The region is the end of the output. It holds the text that is not finished, such as half a line or a block of Markdown
that may grow, and with ``--live`` the timeline. It is drawn at most ten times a second, and less often if drawing takes
long. One thread reads the answer, prints what is finished above the region, and draws the region: rich's own thread
would draw while a line is printed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from ..bridges import from_aiter
from ..misuse import MisuseError
from ..terminal import is_terminal
from .paper import Paper

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.segment import Segment

    from ..pictures.timeline import Timeline

__all__ = ["live_paper"]

_INTERVAL = 0.1  # seconds between two drawings, at least
_PAUSES = 4  # the pause after a drawing, as a multiple of the time that it took
_PICTURE = 12  # lines of a timeline, at most
_END: Any = object()  # follows the last item of an answer

T = TypeVar("T")

Drawing = Callable[[int, int], str]
"""Returns a text of this number of columns and lines."""


class Form(Protocol):
    """The form in which a text is printed."""

    def split(self, text: str) -> tuple[str, str]:
        """Return the finished part of a text, and the rest."""
        ...

    def show(self, console: Console, text: str) -> None:
        """Print a finished part."""
        ...

    def drawn(self, console: Console, text: str) -> RenderableType:
        """Return the rest for the region: at least those of its last lines that the terminal can show."""
        ...


def live_paper(*, markdown: bool, timeline: Timeline | None) -> Paper:
    """Return what the answer is printed on. Where there is no terminal, it is plain.

    Args:
        markdown: whether the text is Markdown.
        timeline: what is drawn below the text; None draws nothing.

    Raises:
        MisuseError: rich is not installed.
    """
    has_text = is_terminal(sys.stdout)
    if not has_text and (timeline is None or not is_terminal(sys.stderr)):
        return Paper()
    try:
        from rich.console import Console
    except ImportError:
        raise MisuseError(
            "--markdown and --live need rich, which is not installed: pip install 'rxllm[progress]'."
        ) from None
    console = Console(file=sys.stdout if has_text else sys.stderr, highlight=False)
    if not console.is_interactive:
        return Paper()
    form: Form | None = None
    if has_text and markdown:
        from .markdown import Blocks

        form = Blocks()
    elif has_text:
        form = _Lines()
    return LivePaper(console, form, None if timeline is None else timeline.text)


class _Lines:
    """Plain text, which is finished line by line."""

    def split(self, text: str) -> tuple[str, str]:
        """Return the whole lines, and the begun one."""
        end = text.rfind("\n") + 1
        return text[:end], text[end:]

    def show(self, console: Console, text: str) -> None:
        """Print lines as they are. The terminal breaks long ones."""
        from rich.segment import Segment, Segments

        console.print(Segments([Segment(text if text.endswith("\n") else f"{text}\n")]), end="")

    def drawn(self, console: Console, text: str) -> RenderableType:
        """Return the end of the begun line."""
        from rich.text import Text

        return Text(text[-console.width * console.height :], overflow="fold")


class LivePaper(Paper):
    """Prints what is finished of a text once, and draws the rest and a picture below it, while ``with`` lasts.

    Args:
        console: the terminal.
        form: the form of the text; None prints it plainly on standard output, which is not this terminal.
        drawing: draws the picture; None draws none.

    Attributes:
        rest: the text that is not printed yet.
    """

    def __init__(self, console: Console, form: Form | None, drawing: Drawing | None) -> None:
        super().__init__()
        self.console = console
        self.form = form
        self.drawing = drawing
        self.rest = ""
        self._drawn = ""  # the latest rest that was drawn
        self._due = 0.0  # when to draw again

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(
            _Region(self),
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=is_terminal(sys.stderr),  # so that its lines come above the region
            vertical_overflow="crop",
        )
        self._live.start()
        self.console.show_cursor()  # a process that is killed must not leave it hidden
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _whole():
            self._live.stop()

    def paced(self, answer: Observable[T]) -> Observable[T | None]:
        """Return the answer, with None whenever it is time to draw."""
        items: Observable[Any] = rx.merge(answer.pipe(ops.concat(rx.of(_END))), from_aiter(_ticks))
        return items.pipe(ops.take_while(lambda item: item is not _END))

    def refresh(self) -> None:
        """Print what is finished, and draw the region, unless the last time took long and was a short time ago."""
        began = time.monotonic()
        if began < self._due or (self.drawing is None and self.rest == self._drawn):
            return
        with _whole():
            finished, self.rest = ("", "") if self.form is None else self.form.split(self.rest)
            if finished:
                self._print(finished)  # which draws the region, too
            else:
                self._live.refresh()
        self._drawn = self.rest
        now = time.monotonic()
        self._due = now + _PAUSES * (now - began)

    def write(self, text: str) -> None:
        """Add a piece of text."""
        if self.form is None:
            super().write(text)
        else:
            self.rest += text

    def end(self) -> None:
        """Print the rest, because the text is over or a line of another kind follows."""
        if self.form is None:
            super().end()
        elif self.rest:
            with _whole():
                rest, self.rest = self.rest, ""
                self._print(rest)

    def _print(self, text: str) -> None:
        if self.form is not None:
            self.form.show(self.console, text)


@contextmanager
def _whole() -> Generator[None]:
    """Let Ctrl-C wait for the end of the block: half a drawing could not be erased."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed and callable(handler):
            handler(pressed[0], None)


async def _ticks() -> AsyncIterator[None]:
    while True:
        await asyncio.sleep(_INTERVAL)
        yield None


class _Region:
    """The last lines of the text, and the picture below them."""

    def __init__(self, paper: LivePaper) -> None:
        self.paper = paper

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment
        from rich.text import Text

        columns, lines = options.size
        rest, form, drawing = self.paper.rest, self.paper.form, self.paper.drawing
        text: list[list[Segment]] = []
        picture: list[list[Segment]] = []
        if drawing is not None:
            drawn = drawing(columns - 1, min(_PICTURE, lines // 2))
            picture = console.render_lines(Text(drawn, "dim", no_wrap=True, overflow="ellipsis"), options, pad=False)
        if rest and form is not None:
            text = console.render_lines(form.drawn(console, rest), options, pad=False)
        for line in [*text[len(picture) - lines + 1 :], *picture]:
            yield from line
            yield Segment.line()
