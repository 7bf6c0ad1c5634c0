"""Converts httpx's errors to rxllm's, and creates the errors for responses that are not answers."""

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
    """Return the error for one of httpx's; `started` is True once the response's header has arrived."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        connecting = not started and not isinstance(error, httpx.ReadTimeout)
        limit = timeouts.connect if connecting else timeouts.read
        time = f"{limit:g} s" if limit else "the time limit of the client"
        return Timeout(
            f"No connection to {place} within {time}." if connecting else f"{place} sent nothing for {time}."
        )
    reason = " ".join((str(error) or str(error.__cause__ or "") or type(error).__name__).split())
    if started:
        return Interrupted(f"The connection to {place} broke in the middle of the answer: {reason}.")
    causes = [*_chain(error)]
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return TransportError(
            f"No connection to {place}: {reason}. If you trust the issuer of its certificate, name the issuer's "
            "certificate file in the variable SSL_CERT_FILE.",
            retryable=False,
        )
    if any(getattr(cause, "error_status_hint", None) == 431 for cause in causes):  # the hint of h11, httpx's own parser
        return header_too_long(place)
    return TransportError(f"No answer from {place}: {reason}.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; httpcore passes causes as arguments."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        yield from (argument for argument in cause.args if isinstance(argument, BaseException))
        cause = cause.__cause__


def header_too_long(place: str) -> TransportError:
    """Return the error for a response whose header exceeds the limit."""
    return TransportError(
        f"The header of the answer from {place} is longer than {HEADER_LIMIT >> 10} KiB; is base_url right?",
        retryable=False,
    )


def redirection(place: str, status: int, target: httpx.URL | None) -> str:
    """Return the message for a redirect that is not followed, without secrets of the target."""
    if target is None:
        return f"{place} redirects the request without saying where to (HTTP {status}); is base_url right?"
    shown_target = target.copy_with(username=None, password=None, query=None, fragment=None)
    return (
        f"{place} redirects the request to {shown_target} (HTTP {status}). Nothing was sent there. If you "
        "trust that address, set base_url to it."
    )
