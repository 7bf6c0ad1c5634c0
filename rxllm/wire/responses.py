"""Classifies a response before its body is read: an answer, an error, a redirect or a web page."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from ..bounds import ERROR_BYTES, ERROR_SECONDS
from ..errors import ProtocolError, RxllmError
from .encodings import SUPPORTED, encoding_of, unpacked
from .faults import HEADER_LIMIT, header_too_long, redirection

if TYPE_CHECKING:
    import httpx

__all__ = ["Failure", "body_of", "check", "redirected"]

ERROR_BODY_LIMIT = ERROR_BYTES
ERROR_BODY_PATIENCE = ERROR_SECONDS
REDIRECTS = (301, 302, 303, 307, 308)

Failure = Callable[[int, bytes, Mapping[str, str]], RxllmError]
"""Creates an error from an HTTP status, a body and headers (names in lower case)."""


async def check(response: httpx.Response, place: str, failure: Failure, patience: float | None) -> str:
    """Return the encoding of an answer's body from its header ``content-encoding``.

    `patience` is the time limit of the first chunk, in seconds: the status must be reported before that limit.

    Raises:
        RxllmError: the response is not an answer.
    """
    size, kind, encodings = 0, b"", list[bytes]()
    for name, value in response.headers.raw:
        size += len(name) + len(value) + 4
        name = name.lower()
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding":
            encodings.append(value)
    if size > HEADER_LIMIT:
        raise header_too_long(place)
    encoding = b",".join(encodings).decode("latin-1")
    status = response.status_code
    if not 200 <= status < 300:
        error = failure(status, await _beginning(response, encoding, place, patience), response.headers)
        if status in REDIRECTS:
            in_circle = redirected(response) is not None
            error.args = (redirection(place, status, _target(response), in_circle=in_circle),)
        raise error
    if b"html" in kind:
        raise ProtocolError(
            f"{place} answered with a web page instead of a stream; is base_url right?",
            frame=await _beginning(response, encoding, place, patience),
        )
    return encoding


async def _beginning(response: httpx.Response, encoding: str, place: str, patience: float | None) -> bytes:
    """Return the beginning of an error's body, as far as it can be read; the status suffices without it."""
    import httpx

    body = bytearray()
    with suppress(httpx.HTTPError, httpx.StreamError, ProtocolError, TimeoutError):
        async with asyncio.timeout(min(ERROR_BODY_PATIENCE, (patience or math.inf) / 2)):
            async for data in body_of(response, encoding, SUPPORTED, place):
                body += data
                if len(body) >= ERROR_BODY_LIMIT:
                    break
    return bytes(body[:ERROR_BODY_LIMIT])


def body_of(response: httpx.Response, encoding: str, accepted: Collection[str], place: str) -> AsyncIterable[bytes]:
    """Return the unpacked bytes of a response.

    Raises:
        ProtocolError: the request did not accept the response's compression.
    """
    if response.is_stream_consumed:  # an event hook of the user's client has read and unpacked it
        return response.aiter_bytes()
    pieces = cast("httpx.AsyncByteStream", response.stream)
    name = encoding_of(encoding, accepted, place) if encoding else None
    return unpacked(pieces, name, place) if name else pieces


def redirected(response: httpx.Response) -> httpx.URL | None:
    """Return the target of a redirect to follow; None otherwise, and for another server, which must get no key.

    Redirects with 301, 302 and 303 turn the request into a GET, so they never lead to an answer.
    """
    if response.status_code not in (307, 308):
        return None
    target = _target(response)
    return target if target is not None and _is_same_server(response.request.url, target) else None


def _target(response: httpx.Response) -> httpx.URL | None:
    """Return the target of a redirect, without credentials; None if the response has no target."""
    import httpx

    location = response.headers.get("location")
    with suppress(httpx.InvalidURL, ValueError):
        if location:
            return response.request.url.join(location).copy_with(username=None, password=None, fragment=None)
    return None


def _is_same_server(url: httpx.URL, other: httpx.URL) -> bool:
    """Return whether two addresses belong to one server; https instead of http on the same host does."""
    if (url.scheme, url.host, url.port) == (other.scheme, other.host, other.port):
        return True
    return (url.scheme, other.scheme, url.port, other.port) == ("http", "https", None, None) and url.host == other.host
