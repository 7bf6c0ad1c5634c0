"""The command line: ``rxllm "Write me a song about sparkling water."``.

Text goes to standard output as it comes, everything else to standard error.
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

_GLANCE = 0.25  # seconds between two looks at whether anybody reads

_ENDINGS = {  # finish reasons of answers that are not whole, as standard error tells them
    "length": "the answer is cut short: the limit of tokens is reached",
    "content_filter": "the answer is cut short: the provider's content filter stopped it",
    "tool_call": "the model called a tool, and this command runs none",
    "error": "the answer is not whole: the provider failed",
    "other": "the answer may not be whole: it ended for a reason that rxllm does not know",
}

_KEYS = {  # what is asked where nobody named a model, by the key that is there
    "OPENAI_API_KEY": "openai:gpt-5-mini",
    "ANTHROPIC_API_KEY": "anthropic:claude-sonnet-4-6",
    "ANTHROPIC_AUTH_TOKEN": "anthropic:claude-sonnet-4-6",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: those of the command; None takes the process's own.

    Returns:
        The exit code: 0, 1 after a failure, 2 after a mistake in the call, 130 after Ctrl-C.

    Raises:
        SystemExit: argparse has said all there is to say, as after ``--help``.
    """
    if cast("object", sys.stdout) is None:  # closed by who started the program
        _tell("standard output is closed.")
        return FAILURE
    for output in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding has not is no reason to lose the answer.
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")
    try:
        return _answer(_options(list(sys.argv[1:] if arguments is None else arguments)))
    except KeyboardInterrupt:
        # A second Ctrl-C, while the connections are closed, ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return 0
    except MisuseError as error:
        _tell(error)
        return USAGE
    except Exception as error:
        if isinstance(error, OSError):
            _abandon_stdout()
        _tell(error)
        return FAILURE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(USAGE, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rxllm",
        description="Asks a large language model, and prints its answer as it comes.",
        epilog="Without -m the model is what RXLLM_MODEL names; else OPENAI_API_KEY or ANTHROPIC_API_KEY decides; "
        "else a toy model answers, which needs no key.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "prompt",
        nargs="*",
        help="the prompt; what is piped in goes before it, or where a - stands as its first or last word",
    )
    parser.add_argument("-m", "--model", metavar="NAME", help="provider:model, as in openai:gpt-5-mini")
    parser.add_argument("--system", metavar="TEXT", help="how the model is to behave")
    parser.add_argument("--temperature", metavar="T", type=float, help="0 for the likeliest answer, larger for variety")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="end the answer after so many tokens")
    parser.add_argument("--seed", metavar="N", type=int, help="the same seed asks for the same answer")
    parser.add_argument("--json", action="store_true", help="print each chunk as one line of JSON")
    parser.add_argument("--raw", action="store_true", help="send the answer's control characters to the terminal")
    parser.add_argument("--usage", action="store_true", help="tell the tokens that it took, on standard error")
    parser.add_argument("--version", action="version", version=f"rxllm {__version__}")
    return parser


def _options(arguments: list[str]) -> argparse.Namespace:
    """The parsed arguments. Everything after ``--`` belongs to the prompt; argparse forgets that between options.

    Raises:
        MisuseError: an argument is not text in the encoding of the command line.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):  # how Python keeps undecodable bytes
            raise MisuseError(f"The argument {argument!r} is not text in {sys.getfilesystemencoding()}.")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_intermixed_args(arguments[:end])
    options.prompt = _prompt(options.prompt, arguments[end + 1 :])
    return options


def _answer(options: argparse.Namespace) -> int:
    """Prints the answer; returns the exit code."""
    text = options.prompt
    prompt = text if options.system is None else [Message("system", options.system), Message("user", text)]
    given = {name: getattr(options, name) for name in ("temperature", "max_tokens", "seed")}
    settings = cast("Settings", {name: value for name, value in given.items() if value is not None})
    screen = _Screen(as_json=options.json, raw=options.raw)
    asked = _model(options.model).bind(**settings)(prompt)
    with asked.pipe(ops.take_until(_unread()), stream()) as chunks:
        try:
            for chunk in chunks:
                screen.show(chunk)
        finally:
            screen.end()
    reason = str(screen.finish_reason)
    if reason in _ENDINGS and not (reason == "length" and options.max_tokens is not None):
        own_word = screen.raw_finish_reason
        _tell(_ENDINGS[reason] + (f" ({own_word})." if own_word and own_word != reason else "."))
    if options.usage:
        _tell(_summary(screen))
    return FAILURE if reason == "error" else 0


def _unread() -> Observable[float]:
    """Fails when nobody reads standard output any more; a model that is silent writes nothing that would tell."""
    with contextlib.suppress(OSError, ValueError):
        output = sys.stdout.fileno()
        kind = os.fstat(output).st_mode
        if hasattr(select, "poll") and (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            poll = select.poll()
            poll.register(output, 0)  # which leaves the errors, such as that the pipe has no other end

            def look(_: object) -> None:
                if poll.poll(0):
                    raise BrokenPipeError

            return rx.interval(_GLANCE).pipe(ops.do_action(look), ops.ignore_elements())
    return rx.never()


def _prompt(words: list[str], rest: list[str]) -> str:
    """The prompt: what standard input says, then what the command line says, joined by a space as the tool llm does.

    A ``-`` as the first or last word stands for standard input in its place. After ``--``, in `rest`, it is a word.
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
            piped = ""  # the arguments are the whole prompt
        everything = [piped, *everything] if piped.strip() else everything
    elif not everything:
        raise MisuseError('There is no prompt; say rxllm "Write me a song", or pipe it in.')
    prompt = " ".join(everything).rstrip("\n")
    if not prompt.strip():
        raise MisuseError("The prompt is empty.")
    return prompt


def _standard_input() -> str:
    """The text on standard input."""
    source = cast("TextIO | None", sys.stdin)
    if source is None:
        return ""
    if isinstance(source, io.TextIOWrapper):
        source.reconfigure(errors="strict")  # some locales pass undecodable bytes on
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
    for key, default in _KEYS.items():
        if os.environ.get(key):
            return model(default)
    _tell("this is the embedded toy model; for a real one set OPENAI_API_KEY or ANTHROPIC_API_KEY, or say -m NAME.")
    return model("embedded")


class _Screen:
    """Prints chunks: their text and a newline after the last; or each as a line of JSON.

    `raw` sends the text's control characters to the terminal; a line of JSON holds them as escapes either way.
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
            _tell("the answer begins anew.")
        if chunk.text:
            self.in_line = not chunk.text.endswith("\n")  # first, for Ctrl-C may come between the two
            print(chunk.text if self.raw else printable(chunk.text), end="", flush=True)
        self.refusal += chunk.refusal

    def end(self) -> None:
        if self.in_line:
            self.in_line = False
            print(flush=True)
        if self.refusal:
            _tell(f"the model refuses: {self.refusal}")
            self.refusal = ""


def _plain(value: Any) -> dict[str, Any]:
    return attrs.asdict(value, filter=lambda _, known: known is not None and known is not False and known != "")


def _summary(screen: _Screen) -> str:
    counts = {} if screen.usage is None else _plain(screen.usage)
    estimated = counts.pop("estimated", False)
    told = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items()] or ["the provider told no usage"]
    return ", ".join(filter(None, [*told, "estimated" if estimated else None, screen.finish_reason])) + "."


def _tell(what: str | Exception) -> None:
    """A line on standard error."""
    sentence = one_line(str(what))
    if isinstance(what, Exception) and not (sentence and isinstance(what, (RxllmError, MisuseError))):
        sentence = f"{type(what).__name__}: {sentence}"
    if cast("object", sys.stderr) is not None:  # else print would take standard output
        print(f"rxllm: {sentence}", file=sys.stderr, flush=True)


def _abandon_stdout() -> None:
    """Nobody can read it any more; what is still in its buffer must not fail again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
