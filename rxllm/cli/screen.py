"""`Screen`: prints the chunks of an answer."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Any

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from ..bridges import stream
from ..llm import LLM
from ..misuse import MisuseError
from ..records import to_json
from ..terminal import printable
from ..values.chunk import Chunk
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from .console import FAILURE, report
from .paper import Paper

if TYPE_CHECKING:
    from ..pictures.timeline import Timeline

__all__ = ["Screen", "heard_by", "paper_of", "show_answer", "timeline_of"]

_POLL_INTERVAL = 0.25  # seconds between two checks whether the reader of standard output has closed it

_INCOMPLETE = {  # messages for finish reasons of incomplete answers
    "length": "the answer is cut short: the token limit was reached",
    "content_filter": "the answer is cut short: the provider's content filter stopped it",
    "tool_call": "the model called a tool that it does not have here; --tools and --mcp give it tools",
    "error": "the answer is incomplete: the provider failed",
    "other": "the answer may be incomplete: it ended for a reason unknown to rxllm",
}


class Screen:
    """Prints chunks: their text with a final newline, or one line of JSON per chunk.

    `raw` sends the text's control characters to the terminal. A line of JSON always contains them as escapes.
    """

    def __init__(self, *, as_json: bool, raw: bool = False, paper: Paper | None = None) -> None:
        self.as_json = as_json
        self.raw = raw
        self.paper = Paper() if paper is None else paper
        self.refusal = ""
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason: str | None = None

    def show(self, chunk: Chunk) -> None:
        """Print a chunk, and note its facts."""
        if chunk.usage is not None:
            self.usage = self.usage.updated(chunk.usage) if self.usage else chunk.usage
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.raw_finish_reason = chunk.raw_finish_reason or self.raw_finish_reason
        if self.as_json:
            print(printable(json.dumps(to_json(chunk), ensure_ascii=False, separators=(",", ":"))), flush=True)
            return
        if chunk.reset:
            self.end()
            report("the answer starts again.")
        if chunk.text:
            self.paper.write(chunk.text if self.raw else printable(chunk.text))
        self.refusal += chunk.refusal

    def end(self) -> None:
        """End the line, and print the refusal on standard error."""
        self.paper.end()
        if self.refusal:
            report(f"the model refused: {self.refusal}")
            self.refusal = ""


def timeline_of(options: argparse.Namespace) -> Timeline | None:
    """Return the timeline that the options ask for."""
    if not (options.live or getattr(options, "timeline", False)):
        return None
    from ..pictures.timeline import Timeline  # imported here, because few calls need it

    return Timeline()


def heard_by(llm: LLM, timeline: Timeline | None) -> LLM:
    """Return the model with the timeline as a handler, if there is one."""
    return llm if timeline is None else llm.with_config(handlers=[timeline])


def paper_of(options: argparse.Namespace, timeline: Timeline | None) -> Paper:
    """Return what the options print an answer on.

    Raises:
        MisuseError: the options contradict each other, or rich is not installed.
    """
    if not (options.markdown or options.live):
        return Paper()
    if options.raw or getattr(options, "json", False):
        other = "--raw" if options.raw else "--json"
        raise MisuseError(f"{other} excludes --markdown and --live, which lay the text out themselves.")
    from .live import live_paper

    return live_paper(markdown=options.markdown, timeline=timeline if options.live else None)


def _broken_pipe() -> Observable[float]:
    """Return an observable that raises BrokenPipeError when the reader of standard output has closed it.

    Without it, a model that is silent would never write and so never notice.
    """
    with contextlib.suppress(OSError, ValueError):
        output = sys.stdout.fileno()
        kind = os.fstat(output).st_mode
        if hasattr(select, "poll") and (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            poll = select.poll()
            poll.register(output, 0)  # no events except errors, such as a pipe without a reader

            def check(_: object) -> None:
                if poll.poll(0):
                    raise BrokenPipeError

            return rx.interval(_POLL_INTERVAL).pipe(ops.do_action(check), ops.ignore_elements())
    return rx.never()


def show_answer(answer: Observable[Any], screen: Screen, max_tokens: int | None) -> int:
    """Print an answer as it arrives, and why it is incomplete, if it is. Return the exit code."""
    paper = screen.paper
    with paper.paced(answer.pipe(ops.take_until(_broken_pipe()))).pipe(stream()) as items, paper:
        try:
            for item in items:
                paper.refresh() if item is None else screen.show(item)
        finally:
            screen.end()
    _report_incomplete(screen, max_tokens)
    return FAILURE if screen.finish_reason == "error" else 0


def _report_incomplete(screen: Screen, max_tokens: int | None) -> None:
    """Print why an answer is incomplete, unless it reached the limit that --max-tokens sets."""
    reason, raw_reason = str(screen.finish_reason), screen.raw_finish_reason
    if reason in _INCOMPLETE and not (reason == "length" and max_tokens is not None):
        report(_INCOMPLETE[reason] + (f" ({raw_reason})." if raw_reason and raw_reason != reason else "."))
