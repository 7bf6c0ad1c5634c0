"""httpx's errors as ours, and the errors of responses that are no answer."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..bounds import HEADER_BYTES
from ..errors import Interrupted, Timeout, TransportError

if TYPE_CHECKING:
    import httpx

    from .http import Timeouts

__all__ = ["HEADER_LIMIT", "header_too_long", "redirection", "transport_error"]

HEADER_LIMIT = HEADER_BYTES


def transport_error(error: Exception, place: str, *, started: bool, timeouts: Timeouts) -> TransportError:
    """The error for one of httpx's, or of a transport below it; `started` if the response's header had come."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        connecting = not started and not isinstance(error, httpx.ReadTimeout)
        limit = timeouts.connect if connecting else timeouts.read
        time = f"{limit:g} s" if limit else "as long as its client waits"
        return Timeout(
            f"No connection to {place} within {time}." if connecting else f"{place} sent nothing for {time}."
        )
    reason = " ".join((str(error) or str(error.__cause__ or "") or type(error).__name__).split())
    if started:
        return Interrupted(f"The connection to {place} broke in the middle of the answer: {reason}.")
    causes = [*_chain(error)]
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return TransportError(
            f"No connection to {place}: {reason}. If you trust whoever signed its certificate, name theirs in the "
            "variable SSL_CERT_FILE.",
            retryable=False,
        )
    if any(getattr(cause, "error_status_hint", None) == 431 for cause in causes):  # as httpx's own parser says it
        return header_too_long(place)
    return TransportError(f"No answer from {place}: {reason}.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes; httpcore hands its causes on as arguments."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        yield from (argument for argument in cause.args if isinstance(argument, BaseException))
        cause = cause.__cause__


def header_too_long(place: str) -> TransportError:
    """The error for a response whose header is over the limit."""
    return TransportError(
        f"The header of the answer from {place} is longer than {HEADER_LIMIT >> 10} KiB; is base_url right?",
        retryable=False,
    )


def redirection(place: str, status: int, target: httpx.URL | None) -> str:
    """The sentence for a redirect that is not followed; it leaves out what may be secret in the target."""
    if target is None:
        return f"{place} redirects the request without saying where to (HTTP {status}); is base_url right?"
    where = target.copy_with(username=None, password=None, query=None, fragment=None)
    return (
        f"{place} redirects the request to {where} (HTTP {status}). Nothing was sent there; if you trust that address, "
        "set base_url to it."
    )
