"""`Frames` and `Decoder`: the two steps from the bytes of a stream to chunks, which each protocol provides."""

from __future__ import annotations

from typing import Protocol

from ..errors import ProviderError
from ..values.chunk import Chunk
from ..wire.sse import Frame

__all__ = ["Decoder", "Frames"]


class Decoder(Protocol):
    """The state of one stream: frames in, chunks out.

    Attributes:
        complete: whether the end of the answer arrived without an error.
        ended: whether the end marker arrived; the connection may still be open.
        failure: the error in the last frame. The reader raises it after the chunk of that frame.
    """

    complete: bool
    ended: bool
    failure: ProviderError | None

    @property
    def finished(self) -> bool:
        """Whether the finish reason arrived without an error; the end marker may still be missing."""
        ...

    def chunk(self, data: bytes) -> Chunk | None:
        """Decode one frame; return None if it has no content.

        Raises:
            ProviderError: the frame describes an error.
            ProtocolError: the frame violates the protocol.
        """
        ...

    def rest(self) -> Chunk | None:
        """Return the content that is still held back at the end of the stream, or None."""
        ...


class Frames(Protocol):
    """The framing of a stream: bytes in, frames out. The cuts between the bytes do not matter."""

    @property
    def may_flush(self) -> bool:
        """Whether the bytes after the last frame may be a frame that only lacks its end mark."""
        ...

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes.

        Raises:
            ProtocolError: the bytes violate the framing, or a frame exceeds its limit.
        """
        ...

    def flush(self) -> list[Frame]:
        """Return the last frame if only its end mark is missing, at the end of the stream or of the patience."""
        ...

    def begins(self, beginning: bytes) -> bool:
        """Return whether a stream may begin with these bytes, as opposed to a JSON document or something else."""
        ...
