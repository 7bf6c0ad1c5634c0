"""The command line: ``rxllm "Write me a song about sparkling water."``.

The answer goes to standard output as it arrives, everything else to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import select
import signal
import stat
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO, cast

import attrs
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from . import __version__
from .bridges import stream
from .errors import RxllmError
from .llm import LLM
from .misuse import MisuseError
from .providers import model
from .records import to_json
from .terminal import one_line, printable
from .values.chunk import Chunk
from .values.message import FinishReason, Message
from .values.parameters import Settings
from .values.usage import Usage

__all__ = ["main"]

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

_POLL_INTERVAL = 0.25  # seconds between two checks whether the reader of standard output has gone

_INCOMPLETE = {  # messages for finish reasons of incomplete answers
    "length": "the answer is cut short: the token limit was reached",
    "content_filter": "the answer is cut short: the provider's content filter stopped it",
    "tool_call": "the model called a tool, but this command cannot run tools",
    "error": "the answer is incomplete: the provider failed",
    "other": "the answer may be incomplete: it ended for a reason unknown to rxllm",
}

_DEFAULT_MODELS = {  # the default model for each environment variable that holds a key
    "OPENAI_API_KEY": "openai:gpt-5-mini",
    **dict.fromkeys(("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"), "anthropic:claude-sonnet-4-6"),
    **dict.fromkeys(("GOOGLE_API_KEY", "GEMINI_API_KEY"), "gemini:gemini-flash-latest"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the command's arguments; None uses those of the process.

    Returns:
        The exit code: 0, 1 after a failure, 2 after a usage error, 130 after Ctrl-C.

    Raises:
        SystemExit: argparse has printed its message, as for ``--help``.
    """
    if cast("object", sys.stdout) is None:  # the parent process closed it
        _report("standard output is closed.")
        return FAILURE
    for output in (sys.stdout, sys.stderr):
        # Print "?" for a character that the output's encoding lacks, instead of losing the answer.
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        if words == ["models"]:
            from .providers.listing import table

            print(table(), flush=True)
            return 0
        return _answer(_options(words))
    except KeyboardInterrupt:
        # While the connections close, a second Ctrl-C ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return 0
    except MisuseError as error:
        _report(error)
        return USAGE
    except Exception as error:
        if isinstance(error, OSError):
            _abandon_stdout()
        _report(error)
        return FAILURE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line instead of the whole usage."""
        self.exit(USAGE, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rxllm",
        description="Ask a large language model and print its answer as it arrives.",
        epilog="Without -m, RXLLM_MODEL names the model; else OPENAI_API_KEY or ANTHROPIC_API_KEY decides; "
        "else a toy model answers without a key.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "prompt",
        nargs="*",
        help="the prompt; piped input goes before it, or replaces a - as its first or last word",
    )
    parser.add_argument("-m", "--model", metavar="NAME", help="provider:model, as in openai:gpt-5-mini")
    parser.add_argument("--system", metavar="TEXT", help="the system prompt: instructions for the model")
    parser.add_argument("--temperature", metavar="T", type=float, help="0 for the likeliest answer, larger for variety")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="end the answer after N tokens")
    parser.add_argument("--seed", metavar="N", type=int, help="ask for the same answer for the same seed")
    parser.add_argument("--json", action="store_true", help="print each chunk as one line of JSON")
    parser.add_argument("--raw", action="store_true", help="send the answer's control characters to the terminal")
    parser.add_argument("--usage", action="store_true", help="print the token usage on standard error")
    parser.add_argument("--preview", action="store_true", help="print the request that would be sent, and send nothing")
    parser.add_argument("--version", action="version", version=f"rxllm {__version__}")
    return parser


def _options(arguments: list[str]) -> argparse.Namespace:
    """Return the parsed arguments. Everything after ``--`` belongs to the prompt, even between options.

    Raises:
        MisuseError: an argument is not text in the encoding of the command line.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):  # Python's form of undecodable bytes
            raise MisuseError(f"The argument {argument!r} is not text in {sys.getfilesystemencoding()}.")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_intermixed_args(arguments[:end])
    options.prompt = _prompt(options.prompt, arguments[end + 1 :])
    return options


def _answer(options: argparse.Namespace) -> int:
    """Print the answer and return the exit code."""
    text = options.prompt
    prompt = text if options.system is None else [Message("system", options.system), Message("user", text)]
    parameters = {name: getattr(options, name) for name in ("temperature", "max_tokens", "seed")}
    settings = cast("Settings", {name: value for name, value in parameters.items() if value is not None})
    llm = _model(options.model).bind(**settings)
    if options.preview:
        print(printable(str(llm.preview(prompt))), flush=True)
        return 0
    screen = _Screen(as_json=options.json, raw=options.raw)
    answer = llm(prompt)
    with answer.pipe(ops.take_until(_broken_pipe()), stream()) as chunks:
        try:
            for chunk in chunks:
                screen.show(chunk)
        finally:
            screen.end()
    reason = str(screen.finish_reason)
    if reason in _INCOMPLETE and not (reason == "length" and options.max_tokens is not None):
        raw_reason = screen.raw_finish_reason
        _report(_INCOMPLETE[reason] + (f" ({raw_reason})." if raw_reason and raw_reason != reason else "."))
    if options.usage:
        _report(_summary(screen))
    return FAILURE if reason == "error" else 0


def _broken_pipe() -> Observable[float]:
    """Return an observable that raises BrokenPipeError when the reader of standard output has gone.

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


def _prompt(words: list[str], rest: list[str]) -> str:
    """Return the prompt: standard input, a space and the arguments, as in the command ``llm``.

    A ``-`` as the first or last word stands for standard input at its place. After ``--``, in `rest`, it is a word.
    """
    everything = [*words, *rest]
    dashes = [place for place in (0, len(everything) - 1) if words[place : place + 1] == ["-"]]
    if dashes:
        everything[dashes[-1]] = _standard_input()
    elif cast("object", sys.stdin) is not None and not sys.stdin.isatty():
        try:
            piped = _standard_input()
        except OSError:
            if not everything:
                raise
            piped = ""  # standard input is unreadable; the arguments are the whole prompt
        everything = [piped, *everything] if piped.strip() else everything
    elif not everything:
        raise MisuseError('There is no prompt. Write one, as in rxllm "Write me a song", or pipe it in.')
    prompt = " ".join(everything).rstrip("\n")
    if not prompt.strip():
        raise MisuseError("The prompt is empty.")
    return prompt


def _standard_input() -> str:
    """Return the text on standard input."""
    source = cast("TextIO | None", sys.stdin)
    if source is None:
        return ""
    if isinstance(source, io.TextIOWrapper):
        source.reconfigure(errors="strict")  # some locales pass undecodable bytes through
    try:
        return source.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise MisuseError(
            f"Standard input is not text in {error.encoding}: it holds the byte 0x{wrong:02x}. Convert it first, for "
            "example with iconv."
        ) from None


def _model(name: str | None) -> LLM:
    if name is not None or os.environ.get("RXLLM_MODEL"):
        return model(name)
    for key, default in _DEFAULT_MODELS.items():
        if os.environ.get(key):
            return model(default)
    _report("the embedded toy model answers; for a real model set OPENAI_API_KEY or ANTHROPIC_API_KEY, or use -m NAME.")
    return model("embedded")


class _Screen:
    """Prints chunks: their text with a final newline, or one line of JSON per chunk.

    `raw` sends the text's control characters to the terminal. A line of JSON always contains them as escapes.
    """

    def __init__(self, *, as_json: bool, raw: bool = False) -> None:
        self.as_json = as_json
        self.raw = raw
        self.in_line = False
        self.refusal = ""
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason: str | None = None

    def show(self, chunk: Chunk) -> None:
        if chunk.usage is not None:
            self.usage = self.usage.updated(chunk.usage) if self.usage else chunk.usage
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.raw_finish_reason = chunk.raw_finish_reason or self.raw_finish_reason
        if self.as_json:
            print(printable(json.dumps(to_json(chunk), ensure_ascii=False, separators=(",", ":"))), flush=True)
            return
        if chunk.reset:
            self.end()
            _report("the answer starts again.")
        if chunk.text:
            self.in_line = not chunk.text.endswith("\n")  # set first: Ctrl-C may arrive between the two statements
            print(chunk.text if self.raw else printable(chunk.text), end="", flush=True)
        self.refusal += chunk.refusal

    def end(self) -> None:
        if self.in_line:
            self.in_line = False
            print(flush=True)
        if self.refusal:
            _report(f"the model refused: {self.refusal}")
            self.refusal = ""


def _summary(screen: _Screen) -> str:
    counts: dict[str, Any] = attrs.asdict(screen.usage or Usage(), filter=lambda _, count: count is not None)
    estimated = counts.pop("estimated")
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items()] or [
        "the provider reported no usage"
    ]
    return ", ".join(filter(None, [*parts, "estimated" if estimated else None, screen.finish_reason])) + "."


def _report(message: str | Exception) -> None:
    """Print a line on standard error."""
    sentence = one_line(str(message))
    if isinstance(message, Exception) and not (sentence and isinstance(message, (RxllmError, MisuseError))):
        sentence = f"{type(message).__name__}: {sentence}"
    if cast("object", sys.stderr) is not None:  # with None, print would write to standard output
        print(f"rxllm: {sentence}", file=sys.stderr, flush=True)


def _abandon_stdout() -> None:
    """Discard the rest of standard output: its reader has gone, and the flush at the process's end must not fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
