"""Runs the command line in this process: a process of its own costs a start of Python and an import of rxllm.

For tests in which the process matters, `COMMAND` and `environment` start one.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import rxllm
from rxllm import cli
from rxllm.testing import FakeServer

COMMAND = (sys.executable, "-W", "error", "-m", "rxllm")  # in it, a warning is an error


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, which `conftest` has cleared, with the package on the path."""
    return {**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1]), "PYTHONIOENCODING": "utf-8", **more}


def openai(server: FakeServer) -> dict[str, str]:
    """Return the environment variables that make the server OpenAI's."""
    return {"OPENAI_API_KEY": "a-secret-key", "OPENAI_BASE_URL": f"{server.url}/v1"}


class _Output(io.TextIOWrapper):
    """A standard stream without a file descriptor, in the encoding that the environment names."""

    def __init__(self, variables: Mapping[str, str], content: str = "") -> None:
        encoding = variables.get("PYTHONIOENCODING", "utf-8")
        super().__init__(io.BytesIO(content.encode(encoding)), encoding=encoding, newline=None)

    def written(self) -> str:
        """Return everything that was written."""
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


def run_here(arguments: Sequence[str], stdin: str, variables: Mapping[str, str]) -> CompletedProcess[str]:
    """Run the command to its end in this process, with this text on standard input.

    Args:
        arguments: the arguments of the command.
        stdin: the text on standard input.
        variables: changes of this process's environment during the command.
    """
    out, errors = _Output(variables), _Output(variables)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr("sys.stdin", _Output(variables, stdin))
        try:
            code = cli.main(arguments)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
    return CompletedProcess(arguments, code, out.written(), errors.written())
