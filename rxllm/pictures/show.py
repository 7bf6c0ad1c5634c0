"""`show`: an answer in a notebook, while it grows.

The stream is read on an event loop, by `_ticks`, and drawn by the caller, between two ticks. So the caller of a
synchronous stream draws in its own thread, and Ctrl-C reaches it there.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing, suppress
from html import escape
from typing import Any, cast, overload

from attrs import frozen
from reactivex import Observable

from ..bridges import AsyncStream, SyncStream, from_aiter
from ..misuse import MisuseError
from ..notebook import Output, as_html, in_notebook, numbered
from ..operators.adding_up import BY_VALUE
from ..operators.observing import Observed
from ..terminal import printable
from ..values.message import Message

__all__ = ["Shown", "show"]

_PAUSE, _LONGEST = 0.1, 2.0  # seconds between two drawings
_SHARE = 5  # the pause after a drawing, as a multiple of the processor's time that it took
_BYTES = 250_000  # characters a second; jupyter_server drops messages of more than 1,000,000 bytes a second


@frozen
class Shown:
    """What `show` has shown. A notebook does not show it once more.

    Attributes:
        answer: what the stream added up to: what `invoke` returns.
    """

    answer: Any

    def _ipython_display_(self) -> None:
        pass


@overload
def show(stream: SyncStream[Any], /) -> Shown: ...
@overload
def show(stream: AsyncStream[Any], /) -> Awaitable[Shown]: ...


def show(stream: SyncStream[Any] | AsyncStream[Any], /) -> Shown | Awaitable[Shown]:
    """Show an answer in a notebook, as Markdown that grows.

    ::

        rxllm.show(llm.stream("Explain tea, in Markdown."))
        await rxllm.show(llm.astream("Explain tea, in Markdown."))
        recipe = rxllm.show(pipe(llm.bind(shape=Recipe), drafts(Recipe)).stream("Pancakes!")).answer

    The output appears with the first chunk and changes at most ten times a second, and less often for a long answer.
    The last text always appears, also when the stream fails or the cell is interrupted, which closes the request.
    The branches of `parallel` appear below each other, and the elements of `items` as a list.

    Nothing in the answer can run: HTML appears as text, and a picture as a link. Without the extra ``notebook`` (for
    markdown-it-py), the text appears as it is. Outside of a notebook, the text is printed as it arrives.

    Args:
        stream: a stream that has not begun, of a model or a pipeline.

    Errors: those of the stream, after its last value was shown.

    Raises:
        MisuseError: the argument is not a stream of chunks.
    """
    if isinstance(stream, AsyncStream):
        return _show_async(stream)
    if not isinstance(cast("object", stream), SyncStream):
        raise MisuseError(
            f"show takes a stream, such as llm.stream(prompt) or llm.astream(prompt), not {type(stream).__name__}."
        )
    board = _board(stream._take())  # pyright: ignore[reportPrivateUsage]
    try:
        with SyncStream(from_aiter(lambda: _ticks(board))) as ticks:
            for _ in ticks:
                time.sleep(max(board.due - time.monotonic(), 0))  # several ticks may have come while this thread drew
                board.draw()
    finally:
        board.end()
    return Shown(board.answer())


async def _show_async(stream: AsyncStream[Any]) -> Shown:
    board = _board(stream._take())  # pyright: ignore[reportPrivateUsage]
    try:
        async with aclosing(_ticks(board)) as ticks:
            async for _ in ticks:
                board.draw()
    finally:
        board.end()
    return Shown(board.answer())


async def _ticks(board: _Board) -> AsyncGenerator[None]:
    """Read the stream, and yield when it is time to draw what has arrived."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    async with AsyncStream(board.source) as stream:
        while True:
            alarm = loop.call_later(max(due - loop.time(), 0), stream.rouse) if board.arrived else None
            try:
                board.arrived.extend(await stream.burst())
            except StopAsyncIteration:
                return
            finally:
                if alarm is not None:
                    alarm.cancel()
            if board.arrived and loop.time() >= due:
                yield
                due = loop.time() + board.pause


class _Board:
    """The part of a stream that has arrived, and the place where it is drawn.

    Attributes:
        source: the stream.
        arrived: the values that are not drawn yet. The event loop adds them, and the caller takes them.
        values: the values that are drawn, or fewer values that add up to the same.
        pause: seconds between the last drawing and the next.
        due: when the next drawing may be made.
    """

    def __init__(self, source: Observable[Any]) -> None:
        self.source = source
        self.fold = source.fold if isinstance(source, Observed) else BY_VALUE
        self.arrived: deque[Any] = deque()
        self.values: list[Any] = []
        self.pause = _PAUSE
        self.due = 0.0

    def answer(self) -> Any:
        return self.fold.finish(self.values)

    def draw(self) -> None:
        """Draw the values that have arrived."""
        if not self.arrived:
            return
        before = time.thread_time()
        while self.arrived:
            self.values.append(self.arrived.popleft())
        if self.fold.shorten is not None:
            self.values = self.fold.shorten(self.values)
        size = 0
        with suppress(Exception):  # a program's own fold may need all values
            size = self.put(self.answer())
        self.pause = min(max(_PAUSE, _SHARE * (time.thread_time() - before), size / _BYTES), _LONGEST)
        self.due = time.monotonic() + self.pause

    def end(self) -> None:
        """Draw the last values."""
        self.draw()

    def put(self, value: Any) -> int:
        """Draw the value in place of the value before it. Return the number of characters that this took."""
        raise NotImplementedError


class _InNotebook(_Board):
    """An output of a notebook."""

    def __init__(self, source: Observable[Any]) -> None:
        super().__init__(source)
        self.output = Output()

    def put(self, value: Any) -> int:
        text, html = printable(str(value)), _html(value)
        self.output.put(text, html)
        return len(text) + len(html)


class _Printed(_Board):
    """Standard output. Text is printed as it grows, any other value at the end."""

    printed = ""
    last: Any = None

    def put(self, value: Any) -> int:
        if isinstance(value, (str, Message)):
            text = printable(str(value))
            more = text.removeprefix(self.printed) if text.startswith(self.printed) else f"\n{text}"
            self.printed = text
            sys.stdout.write(more)
            sys.stdout.flush()
        else:
            self.last = value
        return 0

    def end(self) -> None:
        self.draw()
        sys.stdout.write("" if self.last is None else printable(str(self.last)))
        sys.stdout.write("\n")


def _board(source: Observable[Any]) -> _Board:
    return _InNotebook(source) if in_notebook() else _Printed(source)


def _html(value: object) -> str:
    """Return HTML for a value of a stream."""
    if isinstance(value, str):
        return as_html(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return "".join(f"<p><b>{escape(str(name))}</b></p>{_html(item)}" for name, item in items)
    if isinstance(value, (list, tuple)):
        return numbered(map(_html, cast("list[object]", value)))
    return getattr(value, "_repr_html_", lambda: None)() or f"<pre>{escape(repr(value))}</pre>"
