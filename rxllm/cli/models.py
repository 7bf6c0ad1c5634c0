"""``rxllm models``: the providers, and which of them have a key."""

from __future__ import annotations

from collections.abc import Sequence

from ..providers import providers
from ..values.provider_info import provider_table
from .console import Parser

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Print a table of the providers, and return the exit code."""
    parser = Parser(prog="rxllm models", description="List the providers, and how to use them.")
    parser.parse_args(words)
    print(provider_table(providers()), flush=True)
    return 0
