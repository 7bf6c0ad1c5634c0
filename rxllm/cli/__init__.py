"""The command line: ``rxllm "Write me a song about sparkling water."``.

The answer goes to standard output as it arrives, everything else to standard error. If the first argument is the name
of a command, that command runs; otherwise the arguments are a prompt. ``rxllm -- models`` asks with the word "models".
A command is a module with a function `run`, which gets the arguments after the name and returns the exit code.
"""

from __future__ import annotations

import importlib
import io
import signal
import sys
from collections.abc import Sequence
from typing import cast

from ..misuse import MisuseError
from .console import FAILURE, INTERRUPTED, USAGE, abandon_stdout, check_text, replace_closed_streams, report

__all__ = ["main"]

COMMANDS = ("batch", "chat", "models", "serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the command's arguments; None uses those of the process.

    Returns:
        The exit code: 0, 1 after a failure, 2 after a usage error, 130 after Ctrl-C.

    Raises:
        SystemExit: argparse has printed its message, as for ``--help``.
    """
    replace_closed_streams()
    if cast("object", sys.stdout) is None:  # the parent process closed it
        report("standard output is closed.")
        return FAILURE
    for output in (sys.stdout, sys.stderr):
        # Print "?" for a character that the output's encoding lacks, instead of losing the answer.
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        check_text(words)
        command, rest = (words[0], words[1:]) if words and words[0] in COMMANDS else ("ask", words)
        return cast("int", importlib.import_module(f".{command}", __name__).run(rest))
    except KeyboardInterrupt:
        # While the connections close, a second Ctrl-C ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return INTERRUPTED
    except BrokenPipeError:
        abandon_stdout()
        return 0
    except MisuseError as error:
        report(error)
        return USAGE
    except Exception as error:
        if isinstance(error, OSError):
            abandon_stdout()
        report(error)
        return FAILURE
