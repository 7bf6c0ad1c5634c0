"""Content encodings: the header ``accept-encoding``, and decompression in bounded steps."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator
from typing import Any

from ..errors import ProtocolError

__all__ = ["SUPPORTED", "accepted_encodings", "encoding_of", "unpacked"]

SUPPORTED = ("gzip", "deflate")  # Python's standard library unpacks only these in bounded steps
_PLAIN = ("", "identity", "utf-8", "utf8", "none")  # some servers write the charset into this header
STEP = 16 * 1024  # bytes per step; a compressed kilobyte may contain a megabyte


def accepted_encodings(accept: str) -> tuple[str, ...]:
    """Return the encodings of an ``accept-encoding`` header that `unpacked` supports."""
    entries = [entry.partition(";") for entry in accept.lower().split(",")]
    accepted = {name.strip() for name, _, weight in entries if weight.replace(" ", "").rstrip("0.") != "q="}
    return tuple(name for name in SUPPORTED if name in accepted)


def encoding_of(header: str, accepted: Collection[str], place: str) -> str | None:
    """Return the encoding in a ``content-encoding`` header; None for plain bytes.

    Raises:
        ProtocolError: the request did not ask for this encoding, or the header lists several.
    """
    names = [name for entry in header.lower().split(",") if (name := entry.strip()) not in _PLAIN]
    names = [name.removeprefix("x-") for name in names]
    if not names:
        return None
    if len(names) == 1 and names[0] in accepted:
        return names[0]
    raise ProtocolError(
        f"{place} compressed its answer ({header[:60]!r}), although the request accepts only "
        f"{' or '.join(accepted) or 'plain bytes'}. Turn compression off in the server or the gateway before it."
    )


async def unpacked(pieces: AsyncIterable[bytes], encoding: str, place: str) -> AsyncIterator[bytes]:
    """Yield the unpacked bytes in steps of at most `STEP` bytes, so that the consumer can stop in time.

    Raises:
        ProtocolError: the bytes are not in this encoding.
    """
    unpack = _Unpacking(encoding)
    async for data in pieces:
        try:
            for step in unpack(data):
                yield step
        except zlib.error:
            raise ProtocolError(f"The response from {place} is not {encoding}, contrary to its header.") from None


class _Unpacking:
    """The decompressor of one response."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.beginning = b""
        self.decompressor: Any = None  # a zlib decompressor, whose type has no public name

    def __call__(self, data: bytes) -> Iterator[bytes]:
        if self.decompressor is None:
            self.beginning += data
            if len(self.beginning) < 2:
                return
            data = self.beginning
            self.decompressor = zlib.decompressobj(self.window())
        while True:
            step = self.decompressor.decompress(data, STEP)
            if step:
                yield step
            data = self.decompressor.unconsumed_tail
            if self.decompressor.eof:
                data = self.decompressor.unused_data
                if self.encoding != "gzip" or not data.startswith(b"\x1f\x8b"):
                    return  # the rest is padding
                self.decompressor = zlib.decompressobj(self.window())  # a gzip stream may consist of several members
            elif not data and len(step) < STEP:
                return

    def window(self) -> int:
        """Return zlib's window bits; for ``deflate``, some servers omit the zlib header."""
        if self.encoding == "gzip":
            return 16 + zlib.MAX_WBITS
        first, second = self.beginning[:2]
        return zlib.MAX_WBITS if first & 15 == 8 and (first * 256 + second) % 31 == 0 else -zlib.MAX_WBITS
