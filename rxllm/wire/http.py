"""POST, and the answer's bytes as they come: `post`.

httpx is the interface, aiohttp's connections under it the default: with many streams httpx's own pool costs more than
all the rest of the client together (it is linear in the number of connections, at each operation).
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

OPENING = 1024  # bytes that are handed on first, so that the first token need not wait for all that came with it
REDIRECTS = 5  # that are followed, one after the other
SECRET = ("auth", "key", "token", "secret", "password", "cookie")  # in a header's name


Signing = Callable[[str, bytes], Awaitable[Mapping[str, str]]]
"""Gives the headers that sign a request to an address with a body."""


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
        first_chunk: for the first chunk, ``max_retries`` and the waits between attempts included.
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
    sending: Callable[[httpx.Request, httpx.AsyncClient], None] | None = None,
    signing: Signing | None = None,
    method: Literal["POST", "GET"] = "POST",
) -> Source[bytes]:
    """Sends `body` at each subscription; emits the bytes of the answer as they come.

    ::

        subscribe ─POST─►
                         ──1K─15K──2K─16K──|     a burst comes as one piece, but for its beginning
        dispose          ──1K─15K──x             closes the connection, before or after the headers

    Shape: unpacked bytes. Units: at most 16 KiB a piece; httpx's own transport gives up to 64.

    A redirect (307, 308) within the same server is followed. The request is sent once: see docs/retries.md.
    `signing` gives further headers for the request, as it is about to be sent: a signature holds for minutes. `sending`
    is called with the request and its client before; what the client's login adds later, it adds to the same request.

    Errors: `failure(status, body, headers)` for a status other than 2xx, with as much of the body as could be read;
    `TransportError` without a connection; `Timeout`; `Interrupted` when the connection breaks in the answer;
    `ProtocolError` for a web page, or a compression that the request did not ask for; `MisuseError` for a client of
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
                following = redirected(response)
                if following is None:
                    break
                await response.aclose()
                response, asked = await send(following)
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
    """Sign the request, and tell that it is about to be sent."""
    if signing is not None:
        request.headers.update(await signing(str(request.url), body))
    if sending is not None:
        sending(request, http)


def _own_request(
    method: str, http: httpx.AsyncClient, url: httpx.URL, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
) -> tuple[httpx.Request, tuple[str, ...]]:
    """The request that a client of one's own makes, and the encodings that it asks for."""
    import httpx

    limits = httpx.Timeout(None, connect=timeouts.connect, read=timeouts.read)
    try:
        request = http.build_request(method, url, content=body or None, headers=headers, timeout=limits)
    except (httpx.InvalidURL, UnicodeEncodeError, TypeError) as error:
        raise MisuseError(f"The request to {url.host} could not be built: {error}.") from None
    # It asks for all that httpx can unpack, but not in bounded steps.
    asked = asked_for(request.headers.get("accept-encoding", ""))
    request.headers["accept-encoding"] = ", ".join(asked) or "identity"
    return request, asked


def _default_request(
    method: str, _: httpx.AsyncClient, url: httpx.URL, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
) -> tuple[httpx.Request, tuple[str, ...]]:
    """The same of the default client: what all requests of a model share is prepared once."""
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
    """The header lines of a host's requests, but for the length, and the encodings that they ask for."""
    import httpx

    # What is compressed comes in lumps.
    merged = httpx.Headers({"accept": "*/*", "accept-encoding": "identity", "connection": "keep-alive"})
    merged["user-agent"] = f"python-httpx/{httpx.__version__}"
    merged.update(dict(headers))
    asked = asked_for(merged["accept-encoding"])
    merged["accept-encoding"] = ", ".join(asked) or "identity"
    return ((b"host", host), *merged.raw), asked


@functools.lru_cache(256)
def _warn_once(place: str) -> None:
    logging.getLogger("rxllm").warning(
        "A key is sent to %s without encryption, where whoever is on the way can read it; use https:// if you can.",
        place,
    )


@functools.lru_cache(256)
def _warn_of_plain_text(place: str, names: tuple[str, ...]) -> None:
    secret = any(word in name.lower() for name in names for word in SECRET)
    if secret and not is_loopback(urlsplit(place).hostname or ""):
        _warn_once(place)


_NO_URL = frozenset(' "<>\\^`{|}')  # RFC 3986 leaves them out; some are of a place that was not filled in
_HEADER_NAME = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuses what HTTP can't send.

    Raises:
        MisuseError: with the header's name, but not its value, which may be a secret.
    """
    for name, value in headers.items():
        if not is_text(name) or not is_text(value):
            wrong = value if is_text(name) else name
            raise MisuseError(f"The header {shown(name)} must be text, not {type(wrong).__name__}.")
        if ":" in name:  # what follows may be a secret
            name = name.partition(":")[0]
            raise MisuseError(f"The name of a header has no colon; say headers={{{name!r}: …}}.")
        if not name or not _HEADER_NAME.issuperset(name) or not value.isascii() or not value.isprintable():
            raise MisuseError(f"The header {name!r} has characters that HTTP does not allow.")


@functools.lru_cache(64)
def _parsed(url: str) -> httpx.URL:
    import httpx

    return httpx.URL(url)


def _place_of(url: str) -> str:
    """What an error may show of what should be an address: neither its login nor its query."""
    return url.rpartition("@")[2].partition("?")[0].partition("#")[0]


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
        raise MisuseError(f"base_url must be like https://host/v1, not {_place_of(url)!r}.")
    user, at, host = parts.netloc.rpartition("@")
    place = f"{parts.scheme}://{parts.hostname}{port}"
    if not at:
        return place, url, {}
    name, _, password = user.partition(":")
    basic = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return place, parts._replace(netloc=host).geturl(), {"authorization": f"Basic {basic}"}
