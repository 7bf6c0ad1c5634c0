"""Tools of a prompt at the command line: their sources, the lines that show their calls, and their approvals."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from reactivex import Observable
from reactivex import operators as ops

from ..combinators.agent import agent
from ..combinators.conversation import Conversation
from ..combinators.remember import remember
from ..events import Emitted, Event, RunChunk, ToolStarted
from ..llm import LLM
from ..misuse import MisuseError
from ..terminal import is_terminal, one_line, shortened
from ..tools.mcp import MCPProgress, mcp
from ..tools.tool import Tool, tool
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.parts import Approval, Pending, ToolResultPart
from ..values.request import Prompt
from .console import report
from .paper import Paper
from .screen import Screen, show_answer

__all__ = ["CallScreen", "conversing", "opened_tools", "show_answer_with_tools"]

_TOOL_DEPTH = 2  # the run of a tool is within that of the agent, and this one is within that of `remember`
_PROGRESS_INTERVAL = 0.5  # seconds between two lines of progress
_WIDTH = 100  # characters of a line that shows a call or its failure


@contextmanager
def opened_tools(options: argparse.Namespace) -> Generator[list[Tool[Any, Any]]]:
    """Load the functions, connect to the MCP servers, and yield all tools.

    Raises:
        MisuseError: there is no such function.
    """
    with ExitStack() as stack:
        tools = [each for spec in options.tools or () for each in _loaded(spec)]
        for target in options.mcp or ():
            words = target if "://" in target else shlex.split(target)
            tools += stack.enter_context(mcp(words, approve=True))
        yield tools


def _loaded(spec: str) -> Iterator[Tool[Any, Any]]:
    """Yield the functions of this name. Modules in the working directory are found, too."""
    name, separator, attribute = spec.partition(":")
    if not (name and separator and attribute):
        raise MisuseError(f"--tools takes a module and a function of it, as in weather:forecast, not {spec!r}.")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise MisuseError(f"--tools {spec}: there is no module {error.name!r} here or in the Python path.") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise MisuseError(f"--tools {spec}: {name} has no {attribute!r}.")
        found = getattr(found, part)
    for each in cast("Iterable[Any]", found if isinstance(found, (list, tuple)) else (found,)):
        yield each if isinstance(each, Tool) else tool(each)


class CallScreen(Screen):
    """Prints chunks, and on standard error the calls of tools.

    Attributes:
        pending: the calls that wait for an approval.
        progressed: when the latest progress was printed, by the monotonic clock.
    """

    def __init__(self, *, as_json: bool, raw: bool = False, paper: Paper | None = None) -> None:
        super().__init__(as_json=as_json, raw=raw, paper=paper)
        self.pending: list[Pending] = []
        self.progressed = -math.inf

    def show(self, chunk: Chunk | ToolStarted | Emitted) -> None:
        """Print a chunk, that a tool begins to run, or how far it is."""
        if isinstance(chunk, ToolStarted):
            self.note(f"{chunk.name} {json.dumps(chunk.input, ensure_ascii=False, default=str)}")
            return
        if isinstance(chunk, Emitted):
            self.show_progress(chunk)
            return
        super().show(chunk)
        for part in chunk.parts:
            if isinstance(part, ToolResultPart) and part.outcome in ("error", "interrupted"):
                self.note(f"{part.name}: {part.text}")
            elif isinstance(part, Pending):
                self.pending.append(part)
                self.finish_reason = self.raw_finish_reason = None  # the answer goes on after the decision

    def show_progress(self, event: Emitted) -> None:
        """Print how far a tool is, unless the line before is too new: a server may send any number of reports."""
        now = time.monotonic()
        if now - self.progressed >= _PROGRESS_INTERVAL:
            self.progressed = now
            self.note(f"{event.run.name}: {event.value}")

    def note(self, text: str) -> None:
        """Print one line on standard error."""
        self.end()
        report(shortened(one_line(text), _WIDTH))


def conversing(
    llm: LLM,
    tools: Iterable[Tool[Any, Any]],
    conversation: Conversation | None = None,
    view: Callable[[tuple[Message, ...]], tuple[Message, ...]] | None = None,
) -> LLM:
    """Return an agent that remembers its calls, so that it can go on after their approval."""
    return remember(agent(llm, *tools), Conversation() if conversation is None else conversation, view=view)


def show_answer_with_tools(talk: LLM, prompt: Prompt, screen: CallScreen, options: argparse.Namespace) -> int:
    """Print the answer of an agent that `conversing` made, and let the user decide about calls. Return the exit code.

    The answers of all rounds count for the usage.
    """
    usage = None
    while True:
        code = show_answer(talk.events(prompt).pipe(_shown), screen, options.max_tokens)
        usage = usage + screen.usage if usage and screen.usage else screen.usage or usage
        if not screen.pending:
            screen.usage = usage
            return code
        prompt = Message("user", [_decision(pending, yes=options.yes) for pending in screen.pending])
        screen.pending.clear()
        screen.usage = None


def _shown(events: Observable[Event]) -> Observable[Event]:
    """Keep the chunks of the whole answer and what its tools do. A tool may have models and tools of its own."""

    def is_shown(event: Event) -> bool:
        match event:
            case RunChunk():
                return not event.parent_ids
            case ToolStarted() | Emitted(value=MCPProgress()):
                return len(event.parent_ids) == _TOOL_DEPTH
            case _:
                return False

    return events.pipe(ops.filter(is_shown))


def _decision(pending: Pending, *, yes: bool) -> Approval:
    """Return the decision of the user on a call. --yes approves it. If the user cannot be asked, it is denied."""
    call = pending.call
    if yes:
        return pending.approve()
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        report(
            f"{call.name} did not run: it needs an approval, and there is no terminal to ask at. --yes approves all "
            "calls."
        )
        return pending.deny("There is no terminal to ask the user at.")
    # The whole call, because the user must see what an approval runs.
    print(
        f"rxllm: {one_line(f'{call.name} {call.arguments}')}\nrxllm: run it? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    answer = sys.stdin.readline()
    if not answer:  # Ctrl-D
        print(file=sys.stderr)
    return pending.approve() if answer.strip().lower() in ("y", "yes") else pending.deny()
