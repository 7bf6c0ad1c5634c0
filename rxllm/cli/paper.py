"""`Paper`: what the text of an answer is printed on."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TypeVar, cast

from reactivex import Observable

__all__ = ["Paper"]

T = TypeVar("T")


class Paper:
    """Prints the text of an answer on standard output, as it arrives. The text is printed within ``with``."""

    def __init__(self) -> None:
        self.in_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def paced(self, answer: Observable[T]) -> Observable[T | None]:
        """Return the answer, with None whenever the paper wants to be refreshed."""
        return cast("Observable[T | None]", answer)

    def refresh(self) -> None:
        """Draw what has changed."""

    def write(self, text: str) -> None:
        """Print a piece of text."""
        self.in_line = not text.endswith("\n")  # set first: Ctrl-C may arrive between the two statements
        print(text, end="", flush=True)

    def end(self) -> None:
        """End the line."""
        if self.in_line:
            self.in_line = False
            print(flush=True)
