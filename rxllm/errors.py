"""What can go wrong, as one tree.

::

    Exception
    └── RxllmError                  something failed while an answer was on its way
        ├── TransportError          no answer, or not all of it: the network
        │   ├── Timeout             too long without a connection, a first chunk, or the next one
        │   └── Interrupted         the stream ended before its protocol's end marker
        ├── ProviderError           the provider said no: status, body, retry_after
        │   ├── AuthenticationError 401, 403
        │   ├── BadRequest          400, 404, 405, 413, 415, 422
        │   ├── RateLimited         429
        │   └── Overloaded          503, 529
        ├── ProtocolError           bytes that the protocol does not allow: frame
        └── ParseError              text that does not have the shape asked for: text, shape
    TypeError
    └── MisuseError                 a mistake in the calling program, found before anything was sent
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .misuse import MisuseError
from .terminal import printable

if TYPE_CHECKING:
    from .values.message import Message
    from .values.request import Request

__all__ = [
    "AuthenticationError",
    "BadRequest",
    "Interrupted",
    "MisuseError",
    "Overloaded",
    "ParseError",
    "ProtocolError",
    "ProviderError",
    "RateLimited",
    "RxllmError",
    "Timeout",
    "TransportError",
]


class RxllmError(Exception):
    """An answer failed.

    Attributes:
        request: what was asked, without secrets; None before a model was involved.
        partial: the part of the answer that had arrived, None if nothing had. Its text is kept up to
            4 Mi characters, so that a stream without end does not fill the memory.
        retryable: whether asking again may help.
    """

    retryable: bool = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.request: Request | None = None
        self.partial: Message | None = None
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        """The message, with control characters shown instead of sent: a server may have written a part of it."""
        return printable(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickles, without the handlers that have been told of this error."""
        facts = {name: fact for name, fact in vars(self).items() if not name.startswith("_rxllm_")}
        return type(self), self.args, facts


class TransportError(RxllmError):
    """The network failed: no connection, or one that broke."""

    retryable = True


class Timeout(TransportError):
    """Nothing came for too long."""


class Interrupted(TransportError):
    """The stream ended before its protocol's end marker; ``partial`` is not the whole answer."""


class ProviderError(RxllmError):
    """The provider answered with an error, as an HTTP status or inside the stream.

    Attributes:
        status: the HTTP status; of an error inside a stream, the one that its type stands for, or None.
        body: the error document as it came (secrets blanked out), at most 64 KiB.
        retry_after: seconds that the provider asks to wait, None if it does not say.
        code: the provider's own name for the error (``insufficient_quota``, ``overloaded_error``), or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        body: str = "",
        retry_after: float | None = None,
        code: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.code = code

    _by_status: ClassVar[dict[int, type[ProviderError]]] = {}

    @classmethod
    def of_status(cls, status: int | None) -> type[ProviderError]:
        """The class of the tree that stands for an HTTP status."""
        return cls._by_status.get(status or 0, ProviderError)


class AuthenticationError(ProviderError):
    """The key is missing, wrong, or not allowed to do this."""


class BadRequest(ProviderError):
    """The provider does not accept this request; sending it again will not help."""


class RateLimited(ProviderError):
    """Too many requests or tokens, or the quota is spent (then ``retryable`` is False)."""

    retryable = True


class Overloaded(ProviderError):
    """The provider has no capacity at the moment."""

    retryable = True


ProviderError._by_status.update(  # pyright: ignore[reportPrivateUsage]
    {
        **dict.fromkeys((401, 403), AuthenticationError),
        **dict.fromkeys((400, 404, 405, 413, 415, 422), BadRequest),
        429: RateLimited,
        **dict.fromkeys((503, 529), Overloaded),
    }
)


class ProtocolError(RxllmError):
    """Bytes came that the protocol does not allow.

    Attributes:
        frame: the offending protocol unit, at most its first 1,000 bytes.
    """

    def __init__(self, message: str, *, frame: bytes = b"") -> None:
        super().__init__(message)
        self.frame = frame[:1000]


class ParseError(RxllmError):
    """The answer's text does not have the shape that was asked for.

    Attributes:
        text: the text as it came.
        shape: what it was to be read as.
    """

    def __init__(self, message: str, *, text: str = "", shape: object = None) -> None:
        super().__init__(message)
        self.text = text
        self.shape = shape
