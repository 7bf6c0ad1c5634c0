"""Limits the number of values in a JSON document before it is decoded: `check_weight`.

A document of many small values takes ten to thirty times its size in memory, and its decoding blocks the event loop. So
the values of a long document are counted before it is decoded. The length of strings is limited only by the document's.
"""

from __future__ import annotations

import re

from ..bounds import LONG_BYTES
from ..errors import ProtocolError

__all__ = ["check_weight", "weight_of"]

BYTES = 64  # so many bytes of text count as one value
CONTAINER = 4  # an object or a list counts as so many values: it costs more time and memory than a number or a text


def weight_of(data: bytes) -> int:
    """Return about how many values some JSON has, in units that stand for up to 70 bytes of memory."""
    return _marks(data) + len(data) // BYTES


def check_weight(document: bytes, most: int, before: bytes = b"") -> None:
    """Raise for a JSON document with more than `most` values. Documents that are not JSON pass.

    Args:
        document: the document, possibly after the prefix `before`.
        most: the maximum number of values.
        before: a prefix that contains none of JSON's marks.

    Raises:
        ProtocolError: the document has more values.
    """
    if len(document) <= LONG_BYTES or not document[:100].lstrip().removeprefix(before).lstrip().startswith(
        (b"{", b"[")
    ):
        return
    if _marks(document) <= most:
        return
    # Marks within strings do not count. Without escaped quotes, a string is the text between two quotes.
    bare = document
    for escaped in (b"\\\\", b'\\"'):
        bare = bare.replace(escaped, b"")  # returns the same object if nothing is replaced
    if bare.count(b'"') <= 4 * most:  # more quotes mean too many strings
        bare = re.sub(rb'"[^"]*"', b"", bare)
    if _marks(bare) > most:
        raise ProtocolError(
            f"A JSON document of the answer has more than {most:,} values; if that is expected, raise event_limit.",
            frame=document,
        )


def _marks(document: bytes) -> int:
    return document.count(b",") + CONTAINER * (document.count(b"[") + document.count(b"{"))
