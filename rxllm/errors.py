"""The errors of rxllm, as one tree.

::

    Exception
    └── RxllmError                  a request failed
        ├── TransportError          the network failed before the answer was complete
        │   ├── Timeout             the connection, the first chunk or the next chunk took too long
        │   └── Interrupted         the stream ended before its protocol's end marker
        ├── ProviderError           the provider answered with an error: status, body, retry_after
        │   ├── AuthenticationError 401, 403
        │   ├── BadRequest          400, 404, 405, 413, 415, 422
        │   ├── RateLimited         429
        │   └── Overloaded          503, 529
        ├── ProtocolError           the response violates its protocol: frame
        ├── LimitReached            an agent reached one of its limits, or a budget is spent: limit
        ├── ToolFailure             a tool failed, and the model gets the text
        └── ParseError              the answer's text does not fit the requested shape: reason, path, text, shape, usage
    TypeError
    └── MisuseError                 the calling program made a mistake; rxllm found it before it sent anything
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .misuse import MisuseError
from .terminal import printable

if TYPE_CHECKING:
    from .values.message import Message
    from .values.request import Request
    from .values.usage import Usage

__all__ = [
    "AuthenticationError",
    "BadRequest",
    "Interrupted",
    "LimitReached",
    "MisuseError",
    "Overloaded",
    "ParseError",
    "ProtocolError",
    "ProviderError",
    "RateLimited",
    "RxllmError",
    "Timeout",
    "ToolFailure",
    "TransportError",
]

ParseFailure = Literal["malformed", "mismatch", "cut", "refused", "filtered", "empty"]
"""Why an answer does not fit the requested shape; see `ParseError`."""


class RxllmError(Exception):
    """A request failed.

    Attributes:
        request: the request, without secrets; None if no model was involved.
        partial: the part of the answer that arrived before the error; None if nothing arrived. rxllm keeps at most
            4 Mi characters of its text, so that an endless stream cannot fill the memory.
        retryable: whether another attempt may succeed.
    """

    retryable: bool = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.request: Request | None = None
        self.partial: Message | None = None
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        """The message, with control characters escaped, because a server may have written a part of it."""
        return printable(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error without its ``_rxllm_`` attributes, which record the handlers that already received it."""
        state = {name: value for name, value in vars(self).items() if not name.startswith("_rxllm_")}
        return type(self), self.args, state


class TransportError(RxllmError):
    """The network failed: rxllm could not connect, or the connection broke."""

    retryable = True


class Timeout(TransportError):
    """A wait exceeded its time limit."""


class Interrupted(TransportError):
    """The stream ended before its protocol's end marker; ``partial`` is not the whole answer."""


class ProviderError(RxllmError):
    """The provider answered with an error, as an HTTP status or inside the stream.

    Attributes:
        status: the HTTP status. For an error inside a stream, the status that the error's type stands for, or None.
        body: the error document, at most 64 KiB, with secrets replaced by ``***``.
        retry_after: how many seconds the provider asks the program to wait; None if the provider names no time.
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
    def class_for_status(cls, status: int | None) -> type[ProviderError]:
        """Return the error class for an HTTP status: ProviderError itself if the tree lists no class for it."""
        return cls._by_status.get(status or 0, ProviderError)


class AuthenticationError(ProviderError):
    """The API key is missing or wrong, or it does not permit this request."""


class BadRequest(ProviderError):
    """The provider rejected the request as invalid. Another attempt with the same request will fail, too."""


class RateLimited(ProviderError):
    """The program exceeded a rate limit, or its quota is spent (then ``retryable`` is False)."""

    retryable = True


class Overloaded(ProviderError):
    """The provider currently lacks capacity."""

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
    """The response violates its protocol.

    Attributes:
        frame: the first 1,000 bytes of the offending frame.
    """

    def __init__(self, message: str, *, frame: bytes = b"") -> None:
        super().__init__(message)
        self.frame = frame[:1000]


class LimitReached(RxllmError):
    """An agent reached one of its limits before it had its answer, or a `Budget` is spent.

    For an agent, `partial` has the content of all rounds.

    Attributes:
        limit: which limit: ``rounds``, ``tokens``, ``cost`` or ``seconds`` of an agent, or ``budget``.
    """

    def __init__(self, message: str, *, limit: str = "rounds") -> None:
        super().__init__(message)
        self.limit = limit


class ToolFailure(RxllmError):
    """A tool failed. Raise it in a tool to report the failure to the model: its text becomes the result of the call.

    For any other exception the model gets only the class's name, because the text may contain a secret.
    """


class ParseError(RxllmError):
    """The answer's text does not fit the requested shape.

    Attributes:
        reason: the kind of mismatch. ``"malformed"``: the text is not one JSON value. ``"mismatch"``: the value does
            not fit the shape. ``"cut"``: the answer ended too early. ``"refused"``: the model refused to answer.
            ``"filtered"``: the provider's content filter stopped the answer. ``"empty"``: there is no text.
        path: the place of the first mismatch, such as ``$.steps[2].minutes``; empty for other reasons.
        problems: each mismatch with its path, of many the first 20; empty for other reasons.
        text: the text of the answer.
        shape: the requested type.
        usage: the tokens that the answer took, in all attempts; None if the provider did not report them.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: ParseFailure = "malformed",
        path: str = "",
        problems: Iterable[str] = (),
        text: str = "",
        shape: object = None,
    ) -> None:
        super().__init__(message)
        self.reason: ParseFailure = reason
        self.path = path
        self.problems = tuple(problems)
        self.text = text
        self.shape = shape
        self.usage: Usage | None = None
