"""``rxllm chat``: a conversation at the terminal, which is stored and can be continued.

Ctrl-C while an answer comes stops the answer. Ctrl-C or Ctrl-D at the prompt ends the program. If the conversation
becomes longer than the model takes, its oldest turns are no longer sent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sqlite3
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from ..combinators.conversation import Conversation
from ..combinators.remember import remember
from ..combinators.sqlite_history import SQLiteHistory
from ..combinators.trim import trim
from ..errors import ProviderError
from ..misuse import MisuseError
from ..terminal import is_terminal
from ..values.message import Message
from ..values.parts import Approval
from .console import (
    FAILURE,
    USAGE,
    Parser,
    add_display_options,
    add_model_options,
    add_raw_option,
    add_tool_options,
    chosen_model,
    report,
    standard_input,
)
from .screen import Screen, heard_by, paper_of, show_answer, timeline_of

__all__ = ["Newest", "run"]

# Parts of the errors of providers, in lower case, when the messages have more tokens than the model takes.
_TOO_LONG = (
    "context length",
    "context size",
    "context window",
    "context_length",
    "input is too long",
    "input length",
    "maximum prompt length",
    "prompt is too long",
    "prompt too long",
    "reduce the length",
    "token count",
    "token limit",
    "too many tokens",
)


def run(words: Sequence[str]) -> int:
    """Hold a conversation, and return the exit code."""
    options = _parser().parse_args(words)
    conversation = _conversation(options)
    newest = Newest()
    with _talk(options, conversation, newest) as talk:
        is_typed = is_terminal(sys.stdin)
        if is_typed:
            count = len(conversation.messages)
            known = f", which has {count} message{'s' * (count != 1)}" if count else ""
            report(f"conversation {conversation.id}{known}. Ctrl-C stops an answer, Ctrl-D ends.")
        failure = 0
        for line in _typed() if is_typed else _piped():
            if line.strip():
                failure = _ask(talk, line, newest, is_typed=is_typed)
                if failure and not is_typed:
                    break
    return 0 if is_typed else failure


@contextlib.contextmanager
def _talk(options: argparse.Namespace, conversation: Conversation, newest: Newest) -> Generator[Callable[[str], int]]:
    """Yield a function that prints the answer to a question, and returns the exit code."""
    llm = chosen_model(options)
    paper_of(options, None)  # refuses options that contradict each other before the first question
    if not (options.tools or options.mcp):
        remembering = remember(llm, conversation, view=newest)

        def answer(text: str) -> int:
            timeline = timeline_of(options)
            screen = Screen(as_json=False, raw=options.raw, paper=paper_of(options, timeline))
            return show_answer(heard_by(remembering, timeline)(text), screen, options.max_tokens)

        yield answer
        return
    from . import calls  # imported here, because agents take as long to import as everything else

    with calls.opened_tools(options) as tools:
        agent = calls.conversing(llm, tools, conversation, newest)

        def answer_with_tools(text: str) -> int:
            timeline = timeline_of(options)
            screen = calls.CallScreen(as_json=False, raw=options.raw, paper=paper_of(options, timeline))
            return calls.show_answer_with_tools(heard_by(agent, timeline), text, screen, options)

        yield answer_with_tools


def _parser() -> argparse.ArgumentParser:
    usual = str(_usual_path()).replace("%", "%%")  # argparse formats the help
    parser = Parser(
        prog="rxllm chat",
        description="Hold a conversation. Ctrl-C stops an answer; Ctrl-C or Ctrl-D at the prompt ends the program. "
        "Each line of text that is piped in is a question.",
        epilog="Conversations are stored in a file that only you can read, unless --no-history is given.",
    )
    parser.add_argument("--continue", dest="latest", action="store_true", help="go on with the latest conversation")
    parser.add_argument("--conversation", metavar="ID", help="go on with this conversation, or begin it")
    parser.add_argument("--history", metavar="FILE", type=Path, help=f"where conversations are stored: {usual}")
    parser.add_argument("--no-history", action="store_true", help="store nothing")
    add_model_options(parser)
    add_raw_option(parser)
    add_display_options(parser)
    add_tool_options(parser)
    return parser


def _conversation(options: argparse.Namespace) -> Conversation:
    """Return the conversation that the options choose, with the messages that are stored.

    Raises:
        MisuseError: the options contradict each other or the stored conversation, or the file cannot be used.
    """
    first = [] if options.system is None else [("system", options.system)]
    if options.latest and options.conversation is not None:
        raise MisuseError("--continue and --conversation exclude each other: each chooses a conversation.")
    if options.no_history:
        if options.latest or options.conversation is not None or options.history is not None:
            raise MisuseError("--no-history stores nothing, so it excludes the options that choose what is stored.")
        return Conversation(first)
    path: Path | None = options.history
    if path is None:
        path = _usual_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = SQLiteHistory(path)
    chosen: str | None = options.conversation
    try:
        if options.latest:
            chosen = next(iter(store.ids()), None)
            if chosen is None:
                report("no conversation is stored yet, so a new one begins.")
        conversation = Conversation(first, store, secrets.token_hex(4) if chosen is None else chosen)
        conversation.load()
    except (sqlite3.Error, OSError) as error:
        raise MisuseError(
            f"The history {str(path)!r} cannot be used: {error}. Pass another file with --history."
        ) from None
    return conversation


def _usual_path() -> Path:
    """Return the file of the conversations, in the place of the system for the data of applications."""
    configured = Path(os.environ.get("XDG_DATA_HOME") or ".")
    if configured.is_absolute():  # others are ignored, as the XDG specification says
        place = configured
    elif sys.platform == "darwin":
        place = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        place = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        place = Path.home() / ".local" / "share"
    return place / "rxllm" / "conversations.sqlite"


def _typed() -> Iterator[str]:
    """Yield the lines that the user types after a prompt."""
    with contextlib.suppress(ImportError):
        # With it, `input` edits lines and recalls earlier ones.
        import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]
    while True:
        try:
            if is_terminal(sys.stdout):
                line = input("> ")
            else:  # the prompt is not part of the answers, which go to a file
                print("> ", end="", file=sys.stderr, flush=True)
                line = input()
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            print(file=sys.stderr)
            raise
        yield line


def _piped() -> Iterator[str]:
    """Yield the lines of standard input."""
    with standard_input() as source:
        for line in source or ():
            yield line.rstrip("\r\n")


class Newest:
    """The view of the conversation: everything, or its newest turns after the model has refused everything.

    Attributes:
        left_out: the number of the oldest turns that are not sent.
        sent: the number of the turns that the latest request had.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self.sent = 0

    def __call__(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return the messages to send."""
        turns = sum(map(_is_question, messages))
        self.sent = max(turns - self.left_out, 1)
        return trim(self.sent, count=_is_question)(messages) if self.left_out else messages

    def shortens(self, error: Exception) -> bool:
        """Leave out half of the turns if they are the reason of the error. Return whether to ask again."""
        if not isinstance(error, ProviderError) or error.partial is not None or self.sent < 2:
            return False
        described = f"{error} {error.code} {error.body}".lower()
        if not any(part in described for part in _TOO_LONG):
            return False
        self.left_out += self.sent // 2
        report("the conversation is longer than the model takes, so its oldest turns are no longer sent.")
        return True


def _is_question(message: Message) -> int:
    return int(message.role == "user" and not any(isinstance(part, Approval) for part in message.parts))


def _ask(talk: Callable[[str], int], text: str, newest: Newest, *, is_typed: bool) -> int:
    """Print the answer, and return the exit code. If the question was typed, Ctrl-C stops only the answer."""
    while True:
        try:
            return talk(text)
        except KeyboardInterrupt:
            if not is_typed:
                raise
            report("interrupted.")
            return 0
        except BrokenPipeError:
            raise
        except Exception as error:
            if newest.shortens(error):
                continue
            report(error)
            return USAGE if isinstance(error, MisuseError) else FAILURE
