"""POST a request and emit the response's bytes as they arrive: `post`.

The interface is httpx's; the default transport uses aiohttp's connections. With many streams, httpx's own pool costs
more than the rest of the client together, because each operation is linear in the number of connections.
"""

from __future__ import annotations

import base64
import functools
import logging
import math
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from ..misuse import MisuseError, is_text, shown
from ..public import Public
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from .clients import client_on
from .encodings import asked_for
from .faults import transport_error
from .proxies import is_loopback
from .rates import ON_RESPONSE
from .responses import Failure, body_of, check, redirected

if TYPE_CHECKING:
    import httpx

    from .clients import Client

__all__ = ["Failure", "Signing", "Timeouts", "address", "check_headers", "post", "timeouts_of"]

OPENING = 1024  # bytes of the first emission, so that the first token does not wait for the rest of its packet
REDIRECTS = 5  # the maximum number of redirects that are followed
SECRET = ("auth", "key", "token", "secret", "password", "cookie")  # words in the names of headers with secrets


Signing = Callable[[str, bytes], Awaitable[Mapping[str, str]]]
"""Returns the headers that sign a request with this address and body."""


def _seconds(_: object, attribute: Any, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < math.inf):
        raise MisuseError(
            f"The timeout {attribute.name!r} must be a positive number of seconds, or None for ever, "
            f"not {shown(value)}."
        )


@frozen
class Timeouts(metaclass=Public):
    """Time limits in seconds; None waits without limit.

    Attributes:
        connect: the limit for a connection.
        read: the limit for the next bytes; keep-alive pings count as bytes.
        first_chunk: the limit for the first chunk, ``max_retries`` and the waits between attempts included.
        idle: the limit for the next chunk; pings are not chunks, and a pause of the consumer is not idle time.
    """

    connect: float | None = field(default=10.0, validator=_seconds)
    read: float | None = field(default=600.0, validator=_seconds)
    first_chunk: float | None = field(default=600.0, validator=_seconds)
    idle: float | None = field(default=300.0, validator=_seconds)


def timeouts_of(timeout: Timeouts | float | None) -> Timeouts:
    """Return the time limits for a number, which applies to every silence, or for None, which disables all limits."""
    return timeout if isinstance(timeout, Timeouts) else Timeouts(timeout, timeout, timeout, timeout)


def post(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    failure: Failure,
    client: Client | None = None,
    timeouts: Timeouts = Timeouts(),
    sending: Callable[[httpx.Request, httpx.AsyncClient], None] | None = None,
    signing: Signing | None = None,
    method: Literal["POST", "GET"] = "POST",
) -> Source[bytes]:
    """Send `body` at each subscription; emit the bytes of the response as they arrive.

    ::

        subscribe ─POST─►
                         ──1K─15K──2K─16K──|     a burst is one piece, after its first 1 KiB
        dispose          ──1K─15K──x             closes the connection, before or after the headers

    Shape: unpacked bytes. Units: at most 16 KiB per piece; 64 KiB with httpx's own transport.

    A redirect (307, 308) within the same server is followed. The request is sent once: see docs/retries.md. `signing`
    returns additional headers immediately before sending, because a signature is valid for minutes. `sending` is then
    called with the request and its client; an authentication of the client changes the same request later.

    Errors: `failure(status, body, headers)` for a status other than 2xx, with the beginning of the body;
    `TransportError` without a connection; `Timeout`; `Interrupted` if the connection breaks within the response;
    `ProtocolError` for a web page, or for a compression that the request did not accept; `MisuseError` for a client of
    another event loop.
    """
    place, target, credentials = address(url)
    headers = {**headers, **credentials}
    check_headers(headers)

    async def read(scheduler: Scheduler) -> AsyncIterator[bytes]:
        import httpx

        http = await client_on(scheduler.loop, client)
        if target.startswith("http:"):
            _warn_of_plain_text(place, tuple(headers))
        build = _own_request if client is not None else _default_request

        async def send(url: httpx.URL) -> tuple[httpx.Response, tuple[str, ...]]:
            request, asked = build(method, http, url, headers, body, timeouts)
            if signing is not None or sending is not None:
                await _prepare(request, http, body, signing, sending)
            return await http.send(request, stream=True, follow_redirects=False), asked

        response: httpx.Response | None = None
        try:
            response, asked = await send(_parsed(target))
            for _ in range(REDIRECTS):
                redirect_target = redirected(response)
                if redirect_target is None:
                    break
                await response.aclose()
                response, asked = await send(redirect_target)
            scheduler.carried(ON_RESPONSE)(place, response.status_code, response.headers)
            encoding = await check(response, place, failure, timeouts.first_chunk)
            beginning = True
            async for data in body_of(response, encoding, asked, place):
                if beginning:
                    beginning = False
                    yield data[:OPENING]
                    data = data[OPENING:]
                if data:
                    yield data
        except (httpx.HTTPError, httpx.StreamError, UnicodeError) as error:
            raise transport_error(error, place, started=response is not None, timeouts=timeouts) from error
        finally:
            if response is not None:
                await response.aclose()

    return source(read)


async def _prepare(
    request: httpx.Request,
    http: httpx.AsyncClient,
    body: bytes,
    signing: Signing | None,
    sending: Callable[[httpx.Request, httpx.AsyncClient], None] | None,
) -> None:
    """Sign the request and call `sending`, immediately before sending."""
    if signing is not None:
        request.headers.update(await signing(str(request.url), body))
    if sending is not None:
        sending(request, http)


def _own_request(
    method: str, http: httpx.AsyncClient, url: httpx.URL, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
) -> tuple[httpx.Request, tuple[str, ...]]:
    """Build the request with the user's client; return it with its accepted encodings."""
    import httpx

    limits = httpx.Timeout(None, connect=timeouts.connect, read=timeouts.read)
    try:
        request = http.build_request(method, url, content=body or None, headers=headers, timeout=limits)
    except (httpx.InvalidURL, UnicodeEncodeError, TypeError) as error:
        raise MisuseError(f"The request to {url.host} could not be built: {error}.") from None
    # httpx would accept every encoding that it can unpack, but it does not unpack in bounded steps.
    asked = asked_for(request.headers.get("accept-encoding", ""))
    request.headers["accept-encoding"] = ", ".join(asked) or "identity"
    return request, asked


def _default_request(
    method: str, _: httpx.AsyncClient, url: httpx.URL, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
) -> tuple[httpx.Request, tuple[str, ...]]:
    """Build the request for the default client, from the parts that all requests of a model share."""
    import httpx

    prepared, asked = _prepared(url.netloc, tuple(headers.items()))
    return httpx.Request(
        method,
        url,
        headers=[*prepared, (b"content-length", b"%d" % len(body))] if body else prepared,
        stream=httpx.ByteStream(body),
        extensions={"timeout": {"connect": timeouts.connect, "read": timeouts.read}},
    ), asked


@functools.lru_cache(64)
def _prepared(
    host: bytes, headers: tuple[tuple[str, str], ...]
) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[str, ...]]:
    """Return the header lines of a host's requests, without the length, and the accepted encodings."""
    import httpx

    # Compression would delay tokens: compressed bytes arrive in blocks.
    merged = httpx.Headers({"accept": "*/*", "accept-encoding": "identity", "connection": "keep-alive"})
    merged["user-agent"] = f"python-httpx/{httpx.__version__}"
    merged.update(dict(headers))
    asked = asked_for(merged["accept-encoding"])
    merged["accept-encoding"] = ", ".join(asked) or "identity"
    return ((b"host", host), *merged.raw), asked


@functools.lru_cache(256)
def _warn_once(place: str) -> None:
    logging.getLogger("rxllm").warning(
        "A key is sent to %s without encryption, so others on the network can read it. Use https:// if possible.",
        place,
    )


@functools.lru_cache(256)
def _warn_of_plain_text(place: str, names: tuple[str, ...]) -> None:
    secret = any(word in name.lower() for name in names for word in SECRET)
    if secret and not is_loopback(urlsplit(place).hostname or ""):
        _warn_once(place)


_NO_URL = frozenset(' "<>\\^`{|}')  # characters outside RFC 3986; some come from a template that was not filled in
_HEADER_NAME = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")


def check_headers(headers: Mapping[str, str]) -> None:
    """Check that HTTP allows the headers.

    Raises:
        MisuseError: HTTP does not allow a header; the message contains its name, but never its value, which may be a
            secret.
    """
    for name, value in headers.items():
        if not is_text(name) or not is_text(value):
            invalid = value if is_text(name) else name
            raise MisuseError(f"The header {shown(name)} must be text, not {type(invalid).__name__}.")
        if ":" in name:  # the rest may be a secret
            name = name.partition(":")[0]
            raise MisuseError(f"A header's name must not contain a colon. Write headers={{{name!r}: …}}.")
        if not name or not _HEADER_NAME.issuperset(name) or not value.isascii() or not value.isprintable():
            raise MisuseError(f"The header {name!r} has characters that HTTP does not allow.")


@functools.lru_cache(64)
def _parsed(url: str) -> httpx.URL:
    import httpx

    return httpx.URL(url)


def _place_of(url: str) -> str:
    """Return the part of an invalid base_url that an error may show: neither credentials nor query."""
    return url.rpartition("@")[2].partition("?")[0].partition("#")[0]


@functools.lru_cache(64)
def address(url: str) -> tuple[str, str, Mapping[str, str]]:
    """Return the address for errors, the address for requests, and a header with the credentials before an ``@``.

    Raises:
        MisuseError: the text is not an HTTP address.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        (parts.hostname or "").encode("idna")  # as the look-up of its address does
    except ValueError:
        parts, port = urlsplit(""), ""
    is_well_formed = url.isprintable() and _NO_URL.isdisjoint(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_well_formed or port == ":0":
        raise MisuseError(f"base_url must be like https://host/v1, not {_place_of(url)!r}.")
    user, at, host = parts.netloc.rpartition("@")
    place = f"{parts.scheme}://{parts.hostname}{port}"
    if not at:
        return place, url, {}
    name, _, password = user.partition(":")
    basic = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return place, parts._replace(netloc=host).geturl(), {"authorization": f"Basic {basic}"}
