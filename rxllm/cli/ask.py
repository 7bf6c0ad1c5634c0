"""``rxllm "Write me a song"``: ask once, and print the answer as it arrives."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from .. import __version__
from ..llm import LLM
from ..misuse import MisuseError
from ..terminal import printable
from ..values.message import Message
from ..values.request import Prompt
from ..values.usage import Usage
from .console import (
    Parser,
    add_display_options,
    add_model_options,
    add_raw_option,
    add_tool_options,
    chosen_model,
    report,
    show_on_stderr,
    split_at_dashes,
    standard_input,
)
from .screen import Screen, heard_by, paper_of, show_answer, timeline_of

if TYPE_CHECKING:
    from ..pictures.timeline import Timeline

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Ask with these arguments, print the answer, and return the exit code."""
    options = _options(words)
    text = options.prompt
    prompt = text if options.system is None else [Message("system", options.system), Message("user", text)]
    llm = chosen_model(options)
    timeline = None if options.preview else timeline_of(options)
    try:
        return _answer(llm, prompt, timeline, options)
    finally:  # after a failure, too
        if options.timeline and timeline is not None and timeline.runs:
            show_on_stderr(timeline.text)


def _answer(llm: LLM, prompt: Prompt, timeline: Timeline | None, options: argparse.Namespace) -> int:
    """Print the answer, or what --preview asks for, and return the exit code."""
    paper = paper_of(options, timeline)
    if options.tools or options.mcp:
        from . import calls  # imported here, because agents take as long to import as everything else

        with calls.opened_tools(options) as tools:
            if options.preview:
                return _preview(llm.bind(tools=tools), prompt)
            with_calls = calls.CallScreen(as_json=options.json, raw=options.raw, paper=paper)
            talk = heard_by(calls.conversing(llm, tools), timeline)
            code = calls.show_answer_with_tools(talk, prompt, with_calls, options)
        screen: Screen = with_calls
    elif options.preview:
        return _preview(llm, prompt)
    else:
        screen = Screen(as_json=options.json, raw=options.raw, paper=paper)
        code = show_answer(heard_by(llm, timeline)(prompt), screen, options.max_tokens)
    if options.usage:
        report(_summary(screen))
    return code


def _preview(llm: LLM, prompt: Prompt) -> int:
    """Print the request that would be sent, and return the exit code."""
    print(printable(str(llm.preview(prompt))), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rxllm",
        description="Ask a large language model and print its answer as it arrives.",
        epilog="Without -m, RXLLM_MODEL names the model. Without it, the first provider of `rxllm models` that has a "
        "default model and a key in the environment answers. Without a key, a toy model answers. "
        "`rxllm chat` holds a conversation, `rxllm batch` answers the rows of a file, `rxllm models` lists the "
        "providers, `rxllm serve` serves models over HTTP; "
        "each has its own --help.",
    )
    parser.add_argument(
        "prompt",
        nargs="*",
        help="the prompt; piped input goes before it, or replaces a - as its first or last word",
    )
    add_model_options(parser)
    add_raw_option(parser)
    add_display_options(parser)
    add_tool_options(parser)
    parser.add_argument("--json", action="store_true", help="print each chunk as one line of JSON")
    parser.add_argument("--usage", action="store_true", help="print the token usage on standard error")
    parser.add_argument("--timeline", action="store_true", help="draw on standard error what happened when")
    parser.add_argument("--preview", action="store_true", help="print the request that would be sent, and send nothing")
    parser.add_argument("--version", action="version", version=f"rxllm {__version__}")
    return parser


def _options(words: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments. Everything after ``--`` belongs to the prompt, even between options."""
    before, after = split_at_dashes(words)
    options = _parser().parse_intermixed_args(before)
    options.prompt = _prompt(options.prompt, after)
    return options


def _prompt(words: list[str], rest: list[str]) -> str:
    """Return the prompt: standard input, a space and the arguments, as in the command ``llm``.

    A ``-`` as the first or last word means standard input at its place. After ``--``, in `rest`, it is a word.
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
    with standard_input() as source:
        return source.read().removeprefix("\ufeff") if source else ""


def _summary(screen: Screen) -> str:
    usage = screen.usage or Usage()
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in usage.counts.items()] or [
        "the provider reported no usage"
    ]
    return ", ".join(filter(None, [*parts, "estimated" if usage.estimated else None, screen.finish_reason])) + "."
