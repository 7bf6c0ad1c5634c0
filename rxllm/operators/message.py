"""Operators that fold chunks: `message`, `usage`."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable

from ..values.chunk import Chunk, join
from ..values.message import Message
from ..values.usage import Usage
from .adding_up import folded, joined
from .stage import makes_operator

__all__ = ["message", "one_chunk", "usage"]


@makes_operator(adds_up="last")
def message() -> Callable[[Observable[Chunk]], Observable[Message]]:
    """Emit the whole answer at the end; an empty answer if there were no chunks.

    ::

        -Hel-lo-(usage)-|
        message()
        ----------------(Message)|

    Shape: takes chunks; emits one Message.

    Errors: those of the source, with the answer so far as their `partial`. `MisuseError` for a value that is not a
    Chunk.
    """
    return lambda source: folded(source, _message)


def _message(chunks: list[Chunk]) -> Message:
    return joined("message()", chunks).message()


@makes_operator(adds_up="last")
def usage() -> Callable[[Observable[Chunk]], Observable[Usage]]:
    """Emit the token usage of the answer at the end; ``Usage()`` if the provider sends none.

    ::

        -Hel-lo-(usage)-|
        usage()
        ----------------(Usage)|

    Shape: takes chunks; emits one Usage.

    Errors: those of the source, with the answer so far as their `partial`. `MisuseError` for a value that is not a
    Chunk.
    """
    return lambda source: folded(source, _usage)


def _usage(chunks: list[Chunk]) -> Usage:
    return joined("usage()", chunks).usage or Usage()


def one_chunk(source: Observable[str | Message | Chunk]) -> Observable[Chunk]:
    """Join texts, Messages and Chunks to one chunk."""
    return folded(source, join, read=Chunk.of)
