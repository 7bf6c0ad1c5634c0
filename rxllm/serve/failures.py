"""`failure_of`: the description of an error for a client."""

from __future__ import annotations

import logging
import math

from attrs import frozen

from ..errors import (
    BadRequest,
    Interrupted,
    LimitReached,
    Overloaded,
    ParseError,
    RateLimited,
    RxllmError,
    Timeout,
)
from .json_fields import WrongBody

__all__ = ["BUSY", "HTTPFailure", "Refused", "failure_of", "log"]

_logger = logging.getLogger("rxllm.serve")


@frozen
class HTTPFailure:
    """An error, as a client may see it.

    Attributes:
        status: the HTTP status of a response that failed before its headers were sent.
        kind: the name of the error in OpenAI's protocol: ``invalid_request_error``, ``rate_limit_error``,
            ``server_error``.
        code: the name of the error in rxllm, such as ``Timeout``.
        message: one sentence for the client.
        retry_after: the seconds after which another attempt may succeed, if known.
        again: whether the client should try again. It should not if rxllm has already tried again.
    """

    status: int
    kind: str
    code: str
    message: str
    retry_after: float | None = None
    again: bool = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response with this error. The OpenAI SDK reads ``x-should-retry``."""
        wait = [] if self.retry_after is None else [(b"retry-after", str(math.ceil(self.retry_after)).encode())]
        return [(b"x-should-retry", b"true" if self.again else b"false"), *wait]


BUSY = HTTPFailure(
    429,
    "rate_limit_error",
    "too_many_requests",
    "This server answers as many requests as it may. Try again later.",
    retry_after=1,
    again=True,
)


class Refused(Exception):
    """A request that fails as `failure` says, for a reason that needs no line in the log."""

    def __init__(self, failure: HTTPFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def failure_of(error: Exception) -> HTTPFailure:
    """Return the description of an error for a client.

    The client reads the error's own words only if the error is about the client's request. Every other error gets a
    fixed sentence, because its words are the business of the program that serves: so does a `MisuseError`, which is a
    mistake of that program unless it is a `WrongBody`. The vendor's 401 is not the client's: the client sees 502.
    """
    code = type(error).__name__
    if isinstance(error, Refused):
        return error.failure
    if isinstance(error, (BadRequest, WrongBody)):
        return HTTPFailure(400, "invalid_request_error", code, str(error))
    if isinstance(error, RateLimited):
        sentence = "The model has too many requests. Try again later."
        return HTTPFailure(429, "rate_limit_error", code, sentence, error.retry_after)
    if isinstance(error, LimitReached) and error.limit == "budget":
        return HTTPFailure(429, "insufficient_quota", code, "The budget for these requests is spent.")
    if isinstance(error, Overloaded):
        return HTTPFailure(503, "server_error", code, "The service is overloaded. Try again later.", error.retry_after)
    if isinstance(error, Timeout):
        return HTTPFailure(504, "server_error", code, "The model took too long.")
    if isinstance(error, Interrupted):
        return HTTPFailure(502, "server_error", code, "The answer broke off.")
    if isinstance(error, ParseError):
        return HTTPFailure(502, "server_error", code, "The answer of the model does not have the requested form.")
    if isinstance(error, RxllmError):
        return HTTPFailure(502, "server_error", code, "The request to the model failed.")
    return HTTPFailure(500, "server_error", "InternalError", "The server failed.")


def log(error: Exception, failure: HTTPFailure) -> None:
    """Log an error of a model as a line, and one of the program with its traceback. A client's error is not logged."""
    if isinstance(error, (Refused, WrongBody)):
        return
    if isinstance(error, RxllmError):
        _logger.warning("A response failed with %s (status %d): %s", failure.code, failure.status, error)
    else:
        _logger.error("A response failed (status %d)", failure.status, exc_info=error)
