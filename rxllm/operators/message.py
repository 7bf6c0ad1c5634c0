"""Folds of chunks: `message`, `usage`."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable
from reactivex import operators as ops

from ..values.chunk import Chunk, join
from ..values.message import Message
from ..values.usage import Usage
from .adding_up import folded, joined
from .stage import makes_operator

__all__ = ["message", "one_chunk", "usage"]


@makes_operator(adds_up="last")
def message() -> Callable[[Observable[Chunk]], Observable[Message]]:
    """The whole answer, once, at the end; of no chunks, an empty answer.

    ::

        -Hel-lo-(usage)-|
        message()
        ----------------(Message)|

    Shape: takes chunks. Errors: of the source; what had arrived is their `partial`. `MisuseError` for anything but
    chunks.
    """
    return lambda source: folded(source, _message)


def _message(chunks: list[Chunk]) -> Message:
    return joined("message()", chunks).message()


@makes_operator(adds_up="last")
def usage() -> Callable[[Observable[Chunk]], Observable[Usage]]:
    """The tokens that the answer took, once, at the end; ``Usage()`` where the provider says nothing.

    ::

        -Hel-lo-(usage)-|
        usage()
        ----------------(Usage)|

    Shape: takes chunks. Errors: of the source; what had arrived is their `partial`. `MisuseError` for anything but
    chunks.
    """
    return lambda source: folded(source, _usage)


def _usage(chunks: list[Chunk]) -> Usage:
    return joined("usage()", chunks).usage or Usage()


def one_chunk(source: Observable[str | Message | Chunk]) -> Observable[Chunk]:
    """Everything as one chunk."""
    return folded(source.pipe(ops.map(Chunk.of)), join)
