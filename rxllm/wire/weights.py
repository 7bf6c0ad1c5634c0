"""How much a JSON document weighs once it is decoded: `check_weight`.

A document of many small values takes ten to thirty times its bytes in memory, and one decode of it holds up the event
loop. So the values of a long document are counted before it is decoded. Strings may be as long as the document may be.
"""

from __future__ import annotations

import re

from ..bounds import LONG_BYTES
from ..errors import ProtocolError

__all__ = ["check_weight"]

_OPENERS = (b",", b"[", b"{")  # each value but the outermost follows one of them


def check_weight(document: bytes, most: int, before: bytes = b"") -> None:
    """Refuse a JSON document of more than `most` values; others, and documents that are not JSON, pass.

    Args:
        document: the document, after what may stand `before` it.
        most: how many values it may have.
        before: without any of the marks of JSON.

    Raises:
        ProtocolError: it has more.
    """
    if len(document) <= LONG_BYTES or not document[:100].lstrip().removeprefix(before).lstrip().startswith(
        (b"{", b"[")
    ):
        return
    if _marks(document) <= most:
        return
    # Marks within strings do not count. Without escaped quotes, a string is all between two quotes.
    bare = document
    for escaped in (b"\\\\", b'\\"'):
        bare = bare.replace(escaped, b"")  # gives the same object where there are none
    if bare.count(b'"') <= 4 * most:  # else there are too many strings
        bare = re.sub(rb'"[^"]*"', b"", bare)
    if _marks(bare) > most:
        raise ProtocolError(
            f"A JSON document of the answer has more than {most:,} values; if that is meant, raise event_limit.",
            frame=document,
        )


def _marks(document: bytes) -> int:
    return sum(map(document.count, _OPENERS))
