"""POST, and the answer's bytes as they come: `post`.

httpx is the interface, aiohttp's connections under it the default: with many streams httpx's own pool costs more than
all the rest of the client together (it is linear in the number of connections, at each operation).
"""

from __future__ import annotations

import asyncio
import base64
import functools
import math
import ssl
import string
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from ..errors import Interrupted, ProtocolError, RxllmError, Timeout, TransportError
from ..misuse import MisuseError, is_text, shown
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from .clients import client_on

if TYPE_CHECKING:
    import httpx

    from .clients import Client

__all__ = ["Failure", "Timeouts", "address", "check_headers", "post", "timeouts_of"]

HEADER_LIMIT = 64 * 1024  # bytes of the header of an answer
OPENING = 1024  # bytes that are handed on first, so that the first token need not wait for all that came with it
ERROR_BODY_LIMIT = 64 * 1024  # bytes that are read of an error document
ERROR_BODY_PATIENCE = 2.0  # seconds that it may take

Failure = Callable[[int, bytes, Mapping[str, str]], RxllmError]
"""Makes an error of an HTTP status, a body and headers (their names in lower case)."""


def _seconds(_: object, attribute: Any, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < math.inf):
        raise MisuseError(
            f"The timeout {attribute.name!r} must be a positive number of seconds, or None for ever, "
            f"not {shown(value)}."
        )


@frozen
class Timeouts:
    """How long to wait, in seconds; None for ever.

    Attributes:
        connect: for a connection.
        read: for the next bytes, keep-alive pings included.
        first_chunk: for the first chunk after the request.
        idle: for the next chunk after the last; pings are no life, and a pause of the consumer is no idleness.
    """

    connect: float | None = field(default=10.0, validator=_seconds)
    read: float | None = field(default=600.0, validator=_seconds)
    first_chunk: float | None = field(default=600.0, validator=_seconds)
    idle: float | None = field(default=300.0, validator=_seconds)


def timeouts_of(given: Timeouts | float | None) -> Timeouts:
    """From what users write: one number bounds every silence, None bounds nothing."""
    return given if isinstance(given, Timeouts) else Timeouts(given, given, given, given)


def post(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    failure: Failure,
    client: Client | None = None,
    timeouts: Timeouts = Timeouts(),
) -> Source[bytes]:
    """Sends `body` at each subscription; emits the bytes of the answer as they come.

    ::

        subscribe ─POST─►
                         ──1K─15K──2K─16K──|     a burst comes as one piece, but for its beginning
        dispose          ──1K─15K──x             closes the connection, before or after the headers

    Shape: decoded bytes (gzip is undone). Units: at most 16 KiB a piece.

    Errors: `failure(status, body, headers)` for a status other than 2xx, with as much of the body as could be read;
    `TransportError` without a connection; `Timeout`; `Interrupted` when the connection breaks in the answer;
    `ProtocolError` for a web page; `MisuseError` for a client of another event loop.
    """
    place, target, credentials = address(url)
    headers = {**headers, **credentials}
    check_headers(headers)

    async def read(home: Scheduler) -> AsyncIterator[bytes]:
        import httpx

        http = await client_on(home.loop, client)
        try:
            request = http.build_request(
                "POST",
                _parsed(target),
                content=body,
                headers=headers,
                timeout=httpx.Timeout(None, connect=timeouts.connect, read=timeouts.read),
            )
        except (httpx.InvalidURL, UnicodeEncodeError, TypeError) as error:
            raise MisuseError(f"The request to {place} could not be built: {error}.") from None
        response: httpx.Response | None = None
        try:
            response = await http.send(request, stream=True, follow_redirects=False)
            home.answered(place, response.status_code, response.headers)
            if not response.is_success:
                raise failure(response.status_code, await _beginning(response, timeouts), response.headers)
            facts = {name.lower(): value for name, value in response.headers.raw}
            if b"html" in facts.get(b"content-type", b""):
                raise ProtocolError(
                    f"{place} answered with a web page instead of a stream; is base_url right?",
                    frame=await _beginning(response, timeouts),
                )
            # Usually there is nothing to undo, and nobody has read it before, as a hook of one's own client may.
            plain = facts.get(b"content-encoding", b"identity") == b"identity" and not response.is_stream_consumed
            pieces = cast("httpx.AsyncByteStream", response.stream) if plain else response.aiter_bytes()
            beginning = True
            async for data in pieces:
                if beginning:
                    beginning = False
                    yield data[:OPENING]
                    data = data[OPENING:]
                if data:
                    yield data
        except (httpx.HTTPError, httpx.StreamError, UnicodeError) as error:
            raise _transport_error(error, place, started=response is not None, timeouts=timeouts) from error
        finally:
            if response is not None:
                await response.aclose()

    return source(read)


_NO_URL = frozenset(' "<>\\^`{|}')  # RFC 3986 leaves them out; some are of a place that was not filled in
_HEADER_NAME = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuses what HTTP can't send.

    Raises:
        MisuseError: with the header's name, but not its value, which may be a secret.
    """
    for name, value in headers.items():
        if not is_text(name) or not is_text(value):
            raise MisuseError(f"The header {name!r} must be text, not {type(value).__name__}.")
        if not name or not _HEADER_NAME.issuperset(name) or not value.isascii() or not value.isprintable():
            raise MisuseError(f"The header {name!r} has characters that HTTP does not allow.")


@functools.lru_cache(64)
def _parsed(url: str) -> httpx.URL:
    import httpx

    return httpx.URL(url)


@functools.lru_cache(64)
def address(url: str) -> tuple[str, str, Mapping[str, str]]:
    """Whom to name in errors, where to ask, and the header for what stood before an ``@``, which no log must show.

    Raises:
        MisuseError: this is no address.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        (parts.hostname or "").encode("idna")  # as the look-up of its address does
    except ValueError:
        parts, port = urlsplit(""), ""
    written = url.isprintable() and _NO_URL.isdisjoint(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not written or port == ":0":
        raise MisuseError(f"base_url must be like https://host/v1, not {url.rpartition('@')[2]!r}.")
    user, at, host = parts.netloc.rpartition("@")
    place = f"{parts.scheme}://{parts.hostname}{port}"
    if not at:
        return place, url, {}
    name, _, password = user.partition(":")
    basic = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return place, parts._replace(netloc=host).geturl(), {"authorization": f"Basic {basic}"}


async def _beginning(response: httpx.Response, timeouts: Timeouts) -> bytes:
    """As much of an error document as is worth reading and can be read; without it the status says enough."""
    import httpx

    # Who set a limit for the first chunk must hear of the status before that.
    patience = min(ERROR_BODY_PATIENCE, (timeouts.first_chunk or math.inf) / 2)
    body = bytearray()
    with suppress(httpx.HTTPError, httpx.StreamError, TimeoutError):
        async with asyncio.timeout(patience):
            async for data in response.aiter_bytes():
                body += data
                if len(body) >= ERROR_BODY_LIMIT:
                    break
    return bytes(body[:ERROR_BODY_LIMIT])


def _transport_error(error: Exception, place: str, *, started: bool, timeouts: Timeouts) -> TransportError:
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
            f"No connection to {place}: {reason}. If you trust whoever signed it, name their certificate in the "
            "variable SSL_CERT_FILE.",
            retryable=False,
        )
    if any(getattr(cause, "error_status_hint", None) == 431 for cause in causes):  # as httpx's own parser says it
        return _too_long(place)
    return TransportError(f"No answer from {place}: {reason}.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _too_long(place: str) -> TransportError:
    return TransportError(
        f"The header of the answer from {place} is longer than {HEADER_LIMIT >> 10} KiB; is base_url right?",
        retryable=False,
    )
