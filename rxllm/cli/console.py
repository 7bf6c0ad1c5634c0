"""Parts that all commands share: their options, the choice of the model, messages, and standard input and output."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Generator, Sequence
from typing import NoReturn, TextIO, cast

from ..errors import RxllmError
from ..llm import LLM
from ..misuse import MisuseError
from ..providers import default_model, model
from ..terminal import one_line
from ..values.parameters import Settings

__all__ = [
    "FAILURE",
    "INTERRUPTED",
    "USAGE",
    "Parser",
    "abandon_stdout",
    "add_display_options",
    "add_model_options",
    "add_raw_option",
    "add_tool_options",
    "check_text",
    "chosen_model",
    "replace_closed_streams",
    "report",
    "show_on_stderr",
    "split_at_dashes",
    "standard_input",
]

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

_WIDTH = 100  # characters of a drawing that goes to no terminal


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line. Options cannot be shortened."""

    def __init__(self, *, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print one line instead of the whole usage."""
        program, _, command = self.prog.partition(" ")
        hint = f"; to ask with these words, write {program} -- {command} …" if command and "unrec" in message else ""
        self.exit(USAGE, f"{self.prog}: {one_line(message)}{hint}; see {self.prog} --help\n")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model answers, and how."""
    parser.add_argument("-m", "--model", metavar="NAME", help="provider:model, as in openai:gpt-5-mini")
    parser.add_argument("--system", metavar="TEXT", help="the system prompt: instructions for the model")
    parser.add_argument("--temperature", metavar="T", type=float, help="0 for the likeliest answer, larger for variety")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="end the answer after N tokens")
    parser.add_argument("--seed", metavar="N", type=int, help="ask for the same answer for the same seed")


def add_raw_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints an answer as it is."""
    parser.add_argument("--raw", action="store_true", help="send the answer's control characters to the terminal")


def add_display_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how an answer looks at a terminal."""
    parser.add_argument("--markdown", action="store_true", help="at a terminal, show the answer's Markdown as it grows")
    parser.add_argument("--live", action="store_true", help="at a terminal, draw what happens when, while it happens")


def add_tool_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that give the model tools."""
    parser.add_argument(
        "--tools",
        metavar="MODULE:NAME",
        action="append",
        help="a function, or a list of functions, that the model may call",
    )
    parser.add_argument(
        "--mcp", metavar="URL|COMMAND", action="append", help="an MCP server; each call of its tools needs an approval"
    )
    parser.add_argument("--yes", action="store_true", help="approve all calls without asking")


def chosen_model(options: argparse.Namespace) -> LLM:
    """Return the model that the options choose, with their parameters."""
    parameters = {name: getattr(options, name) for name in ("temperature", "max_tokens", "seed")}
    settings = cast("Settings", {name: value for name, value in parameters.items() if value is not None})
    return _model(options.model).bind(**settings)


def _model(name: str | None) -> LLM:
    if name is not None or os.environ.get("RXLLM_MODEL"):
        return model(name)
    if default := default_model():
        return model(default)
    report("the embedded toy model answers; for a real model set its key, as `rxllm models` lists, or use -m NAME.")
    return model("embedded")


def check_text(words: Sequence[str]) -> None:
    """Check that the arguments are text.

    Raises:
        MisuseError: an argument is not text in the encoding of the command line.
    """
    for argument in words:
        if any("\ud800" <= character <= "\udfff" for character in argument):  # Python's form of undecodable bytes
            raise MisuseError(f"The argument {argument!r} is not text in {sys.getfilesystemencoding()}.")


@contextlib.contextmanager
def standard_input() -> Generator[TextIO | None]:
    """Return standard input, or None if there is none. The body of ``with`` reads it.

    Raises:
        MisuseError: the body has read bytes that are not text in the encoding of the command line.
    """
    source = cast("TextIO | None", sys.stdin)
    if isinstance(source, io.TextIOWrapper):
        source.reconfigure(errors="strict")  # some locales pass undecodable bytes through
    try:
        yield source
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise MisuseError(
            f"Standard input is not text in {error.encoding}: it holds the byte 0x{wrong:02x}. Convert it first, for "
            "example with iconv."
        ) from None


def split_at_dashes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before the first ``--`` and those after it."""
    end = list(words).index("--") if "--" in words else len(words)
    return [*words[:end]], [*words[end + 1 :]]


def report(message: str | Exception) -> None:
    """Print a line on standard error."""
    sentence = one_line(str(message))
    if isinstance(message, Exception) and not (sentence and isinstance(message, (RxllmError, MisuseError))):
        sentence = f"{type(message).__name__}: {sentence}"
    if cast("object", sys.stderr) is not None:  # with None, print would write to standard output
        print(f"rxllm: {sentence}", file=sys.stderr, flush=True)


def show_on_stderr(drawn: Callable[[int], str]) -> None:
    """Print a drawing on standard error. `drawn` returns it for a number of columns."""
    stderr = cast("TextIO | None", sys.stderr)
    if stderr is not None:
        columns = _WIDTH
        with contextlib.suppress(OSError, ValueError):  # it is not a terminal
            columns = os.get_terminal_size(stderr.fileno()).columns - 1
        print(drawn(columns), file=stderr, flush=True)


def replace_closed_streams() -> None:
    """Open the null device for each standard stream that the parent process closed.

    Else a connection would get the number of standard error, and with it what others write there. uvloop's library
    aborts the process when it closes such a connection.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # standard error
        pass
    os.close(number)


def abandon_stdout() -> None:
    """Discard the rest of standard output: it is closed, and the flush at the process's end must not fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
