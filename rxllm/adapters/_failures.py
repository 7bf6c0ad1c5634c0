"""`rxllm_error`: the exception of another library as an error of rxllm.

The libraries have no common tree of errors. So the attributes and the names of an exception decide, and those of its
causes: most libraries pass on the exceptions of the vendors' SDKs, or keep them as causes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from ..errors import Interrupted, ProviderError, RxllmError, Timeout, TransportError
from ..misuse import MisuseError, is_mapping
from ..secrecy import blanked
from ..wire.rates import retry_after

__all__ = ["rxllm_error", "with_causes"]

_STATUSES = ("status_code", "status", "http_status", "code")
_DEPTH = 5  # causes
_BODY = 64 * 1024
_STATUS_OF = {  # the words in the type of an error that came in the middle of a stream
    "rate_limit": 429,
    "overloaded": 529,
    "authentication": 401,
    "permission": 403,
    "not_found": 404,
    "invalid_request": 400,
    "timeout": 504,
    "server_error": 500,
    "api_error": 500,
}
_SPENT = ("insufficient_quota", "billing_error")
_NETWORK = {  # classes of HTTP libraries and SDKs, by name, because the libraries need not be installed
    "APIConnectionError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "HTTPClientError",
    "TransportError",
}


def rxllm_error(error: Exception, *, started: bool, secrets: Iterable[str] = ()) -> Exception:
    """Return the error to raise for an exception of another library; the exception itself if it is not of a request.

    Args:
        error: the exception. It becomes the cause of the error: raise the error ``from`` it.
        started: whether a part of the answer had arrived.
        secrets: texts that the error must not show.
    """
    if isinstance(error, (RxllmError, MisuseError)):
        return error
    for each in with_causes(error):
        status = _status_of(each)
        if status is not None:
            return _provider_error(each, status, secrets)
    text = blanked(f"{type(error).__name__}: {error}", secrets).rstrip(".")
    for each in with_causes(error):
        names = {kind.__name__ for kind in type(each).__mro__}
        if "APIError" in names and not names & _NETWORK:  # an error in the middle of a stream has no status
            return _provider_error(each, None, secrets)
        if isinstance(each, TimeoutError) or any("Timeout" in name for name in names):
            return Timeout(f"The request timed out: {text}.")
        if isinstance(each, ConnectionError) or names & _NETWORK:
            kind = Interrupted if started else TransportError
            where = "in the middle of the answer" if started else "before an answer came"
            return kind(f"The connection broke {where}: {text}.")
    return error


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    cause: BaseException | None = error
    for _ in range(_DEPTH):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _status_of(error: object) -> int | None:
    """Return the HTTP status that an exception carries, or its response."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = cast("dict[str, Any]", response).get("ResponseMetadata", {})
        found: object = response.get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for owner in (error, response):
        for name in _STATUSES:
            status = getattr(owner, name, None)
            if isinstance(status, int) and 400 <= status < 600:
                return int(status)
    return None


def _provider_error(error: BaseException, status: int | None, secrets: Iterable[str]) -> ProviderError:
    response = getattr(error, "response", None)
    headers: object = getattr(response, "headers", None) or getattr(error, "headers", None)
    lower = {str(name).lower(): str(value) for name, value in cast("Mapping[Any, Any]", headers or {}).items()}
    details = _details_of(error)
    names = [details.get("code"), getattr(error, "code", None), details.get("type"), getattr(error, "type", None)]
    code = next((name for name in names if name and isinstance(name, str)), None)
    message = str(details.get("message") or error)
    if status is not None:
        message = f"{message} (HTTP {status})"
    else:
        status = next((number for word, number in _STATUS_OF.items() if word in (code or "")), None)
    passing = status is not None and (status in (408, 409, 429) or status >= 500)
    return ProviderError.class_for_status(status)(
        blanked(message, secrets),
        status=status,
        body=blanked(_text_of(response)[:_BODY], secrets),
        retry_after=retry_after(lower),
        code=code,
        retryable=passing and code not in _SPENT,
    )


def _details_of(error: BaseException) -> Mapping[str, Any]:
    """Return the fields of the vendor's error, which the SDKs keep as the body."""
    body: object = getattr(error, "body", None)
    inner: object = body.get("error", body) if is_mapping(body) else None
    return inner if is_mapping(inner) else {}


def _text_of(response: object) -> str:
    """Return the body of a response, if it has been read."""
    try:
        text = getattr(response, "text", "")
    except Exception:  # httpx raises if the body is still unread
        return ""
    return text if isinstance(text, str) else ""
