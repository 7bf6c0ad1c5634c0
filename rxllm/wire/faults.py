"""Converts httpx's errors to rxllm's, and creates the errors for responses that are not answers."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..bounds import HEADER_BYTES
from ..errors import Interrupted, Timeout, TransportError
from .timeouts import Timeouts

if TYPE_CHECKING:
    import httpx

__all__ = ["HEADER_LIMIT", "header_too_long", "reason_of", "redirection", "transport_error"]

HEADER_LIMIT = HEADER_BYTES

# What OpenSSL reports if the other side does not speak TLS.
_NO_TLS = ("HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "WRONG_VERSION_NUMBER")


def transport_error(error: Exception, place: str, *, started: bool, timeouts: Timeouts) -> TransportError:
    """Return the error for one of httpx's; `started` is True once the response's header has arrived.

    Only the names of the classes count, because httpx2, which the SDKs of other libraries use, has the same names.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TimeoutException" in kinds:
        connecting = not started and "ReadTimeout" not in kinds
        limit = timeouts.connect if connecting else timeouts.read
        time = f"{limit:g} s" if limit else "the time limit of the client"
        return Timeout(
            f"No connection to {place} within {time}." if connecting else f"{place} sent nothing for {time}."
        )
    causes = [*_chain(error)]
    is_general = not kinds.isdisjoint({"ConnectError", "ReadError", "WriteError"})
    words = [_words(cause) for cause in reversed(causes)] if is_general else []
    reason = next(filter(None, words), "") or reason_of(error)
    if started:
        return Interrupted(f"The connection to {place} broke in the middle of the answer: {reason}.")
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return TransportError(
            f"No connection to {place}: {reason}. If you trust the issuer of its certificate, name the issuer's "
            "certificate file in the variable SSL_CERT_FILE.",
            retryable=False,
        )
    if any(getattr(cause, "error_status_hint", None) == 431 for cause in causes):  # the hint of h11, httpx's own parser
        return header_too_long(place)
    # Other errors of TLS than a closed connection come again with each attempt.
    is_lasting = any(isinstance(each, ssl.SSLError) and not isinstance(each, _CLOSED) for each in causes)
    return TransportError(f"No answer from {place}: {reason}.", retryable=not is_lasting)


_CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def reason_of(error: BaseException) -> str:
    """Describe in a few words why a connection failed."""
    text = _words(error) or str(error) or str(error.__cause__ or "") or type(error).__name__
    return " ".join(text.split()).rstrip(".")


def _words(error: BaseException) -> str:
    """Return the words for an error of the operating system or of TLS; empty for any other error."""
    match error:
        case ssl.SSLCertVerificationError(verify_message=str(message)):  # aiohttp's subclass has no message
            return f"its certificate is not trusted ({message})"
        case ssl.SSLError() if isinstance(error, _CLOSED):
            return "the server closed the connection"
        case ssl.SSLError(reason=str(reason)):
            if reason in _NO_TLS:
                return "the server does not speak TLS there, so its address may begin with http://"
            return f"TLS failed ({reason.lower().replace('_', ' ')})"
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError():
            return "the server closed the connection"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case OSError(strerror=str(text)):  # such as that of a host name
            return text
        case _:
            return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; httpcore passes causes as arguments."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        yield from (argument for argument in cause.args if isinstance(argument, BaseException))
        cause = cause.__cause__ or cause.__context__  # httpcore hides the context


def header_too_long(place: str) -> TransportError:
    """Return the error for a response whose header exceeds the limit."""
    return TransportError(
        f"The header of the answer from {place} is longer than {HEADER_LIMIT >> 10} KiB; is base_url right?",
        retryable=False,
    )


def redirection(place: str, status: int, target: httpx.URL | None, *, in_circle: bool) -> str:
    """Return the message for a redirect that is not followed, without secrets of the target."""
    if target is None:
        return f"{place} redirects the request without saying where to (HTTP {status}); is base_url right?"
    shown_target = target.copy_with(username=None, password=None, query=None, fragment=None)
    if in_circle:
        return (
            f"{place} redirects the request again and again, the last time to {shown_target} (HTTP {status}); "
            "is base_url right?"
        )
    return (
        f"{place} redirects the request to {shown_target} (HTTP {status}). rxllm does not follow that redirect. If you "
        "trust that address, set base_url to it."
    )
