"""`Limits`: the maximum sizes in one streamed answer. A larger `event_limit=` raises all of them in proportion."""

from __future__ import annotations

import sys
from typing import Final

import msgspec
from attrs import frozen

from ..bounds import ANSWER_VALUES, EVENT_BYTES, EVENT_BYTES_PER_VALUE
from ..errors import ProtocolError
from ..values.request import Request

__all__ = ["DEFAULT", "WHOLE", "Limits", "limits_of"]


@frozen
class Limits:
    """The limits of one answer that arrives in pieces.

    Attributes:
        size: the maximum size of one thing that grows over several events, in bytes: a block, audio, arguments.
        counts_logprobs: whether log probabilities count as values. They don't if the request asked for them: like the
            text, they are then bounded only by what the user asks for.
    """

    size: int = EVENT_BYTES
    counts_logprobs: bool = True

    @property
    def values(self) -> int:
        """The maximum number of values of one thing that grows over several events."""
        return self.size // EVENT_BYTES_PER_VALUE

    @property
    def answer_values(self) -> int:
        """The maximum number of values of the answer beside its text."""
        return ANSWER_VALUES * self.size // EVENT_BYTES

    def check_size(self, size: int, what: str) -> None:
        """Raise a ProtocolError if the thing, as named by `what`, has more than its maximum size."""
        if size > self.size:
            raise ProtocolError(
                f"{what} of the response is larger than {self.size:,} bytes; if that is expected, raise event_limit."
            )


DEFAULT: Final = Limits()
WHOLE: Final = Limits(sys.maxsize)
"""For an answer that is one document: the document's own limits hold."""


def limits_of(event_limit: int, request: Request) -> Limits:
    """Return the limits of the answer to a request. An `event_limit` below the default changes only its events."""
    extra = request.extra
    asks = bool(extra) and b"logprobs" in msgspec.json.encode(extra).lower()
    return Limits(max(event_limit, EVENT_BYTES), not asks) if asks or event_limit > EVENT_BYTES else DEFAULT
