"""POST a request and emit the response's bytes as they arrive: `post`.

The interface is httpx's; the default transport uses aiohttp's connections. With many streams, httpx's own pool costs
more than the rest of the client together, because each operation is linear in the number of connections.
"""

from __future__ import annotations

import base64
import functools
import logging
import string
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import unquote, urlsplit

from attrs import frozen

from ..misuse import MisuseError, is_text, shown
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from .clients import client_on
from .encodings import accepted_encodings
from .faults import transport_error
from .proxies import is_loopback
from .rates import ON_RESPONSE
from .repeats import keyed
from .responses import Failure, body_of, check, redirected
from .timeouts import Timeouts

if TYPE_CHECKING:
    import httpx

    from .clients import Client
    from .repeats import Sending

    Sent = tuple[httpx.Response, tuple[str, ...]]

__all__ = ["Failure", "Signing", "address", "check_headers", "post"]

OPENING = 1024  # bytes of the first emission, so that the first token does not wait for the rest of its packet
REDIRECTS = 5  # the maximum number of redirects that are followed
SECRET = ("auth", "key", "token", "secret", "password", "cookie")  # words in the names of headers with secrets
Headers = tuple[tuple[str, str], ...]
Signing = Callable[[str, bytes], Awaitable[Mapping[str, str]]]
"""Returns the headers that sign a request with this address and body."""


def post(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    failure: Failure,
    client: Client | None = None,
    timeouts: Timeouts = Timeouts(),
    sending: Sending = None,
    signing: Signing | None = None,
    method: Literal["POST", "GET"] = "POST",
    is_whole: bool = False,
) -> Source[bytes]:
    """Send `body` at each subscription; emit the bytes of the response as they arrive.

    ::

        subscribe ─POST─►
                         ──1K─15K──2K─16K──|     a burst is one piece, after its first 1 KiB
        dispose          ──1K─15K──x             closes the connection, before or after the headers

    Shape: unpacked bytes. Units: at most 16 KiB per piece; 64 KiB with httpx's own transport. With `is_whole`, nothing
    can be read from the first piece alone, so it is not cut, and the rest is read without a turn of the event loop.

    A redirect (307, 308) within the same server is followed. The request is sent once: see docs/retries.md. `signing`
    returns additional headers immediately before sending, because a signature is valid for minutes. `sending` is then
    called with the request and the user's client; an authentication of the client changes the same request later.

    Errors: `failure(status, body, headers)` for a status other than 2xx, with the beginning of the body;
    `TransportError` without a connection; `Timeout`; `Interrupted` if the connection breaks within the response;
    `ProtocolError` for a web page, or for a compression that the request did not accept; `MisuseError` for a client of
    another event loop.
    """
    place, target, credentials = address(url)
    every = tuple({**headers, **credentials}.items())
    _check_once(every)
    call = _Post(method, place, target, body, every, failure, client, timeouts, sending, signing, is_whole)
    return source(call.read, first_at_once=not is_whole)


@frozen
class _Post:
    """A request that is sent at each subscription.

    It is one object with methods, because each function within a function, and each of its variables, is an object that
    the garbage collector traverses as long as the stream is open.
    """

    method: str
    place: str
    target: str
    body: bytes
    headers: Headers
    failure: Failure
    client: Client | None
    timeouts: Timeouts
    sending: Sending
    signing: Signing | None
    is_whole: bool

    async def read(self, scheduler: Scheduler) -> AsyncIterator[bytes]:
        """Send the request, and yield the bytes of the response."""
        import httpx

        place = self.place
        http = await client_on(scheduler.loop, self.client)
        if self.target.startswith("http:"):
            _warn_of_plain_text(place, self.headers)
        opened: httpx.Response | httpx.AsyncByteStream | None = None
        try:
            response, accepted = await self.respond(http, keyed(self.sending, scheduler, self.body))
            opened = response
            scheduler.carried(ON_RESPONSE)(place, response.status_code, response.headers)
            encoding = await check(response, place, self.failure, self.timeouts.first_chunk)
            pieces = body_of(response, encoding, accepted, place)
            if self.client is None:  # else the response closes more than its stream
                opened = cast("httpx.AsyncByteStream", response.stream)
            del response  # its headers take as much memory as a third of the stream's objects
            beginning = not self.is_whole
            async for data in pieces:
                if beginning:
                    beginning = False
                    yield data[:OPENING]
                    data = data[OPENING:]
                if data:
                    yield data
        except (httpx.HTTPError, httpx.StreamError, UnicodeError) as error:
            raise transport_error(error, place, started=opened is not None, timeouts=self.timeouts) from error
        finally:
            if opened is not None:
                await opened.aclose()

    async def respond(self, http: httpx.AsyncClient, sending: Sending) -> Sent:
        """Send the request, and follow redirects; return the response and the encodings that the request accepts."""
        response, accepted = await self.send(http, _parsed(self.target), sending)
        for _ in range(REDIRECTS):
            target = redirected(response)
            if target is None:
                break
            await response.aclose()
            response, accepted = await self.send(http, target, sending)
        return response, accepted

    async def send(self, http: httpx.AsyncClient, url: httpx.URL, sending: Sending) -> Sent:
        """Send the request; return its response and the encodings that it accepts."""
        build = _own_request if self.client is not None else _default_request
        request, accepted = build(self.method, http, url, self.headers, self.body, self.timeouts)
        if self.signing is not None:  # immediately before sending
            request.headers.update(await self.signing(str(request.url), self.body))
        if sending is not None:
            sending(request, http if self.client is not None else None)
        if self.client is None:
            return await http.send(request), accepted
        return await _sent_by(http, request, self.place), accepted


async def _sent_by(http: httpx.AsyncClient, request: httpx.Request, place: str) -> httpx.Response:
    """Send the request with the user's client."""
    try:
        return await http.send(request, stream=True, follow_redirects=False)
    except RuntimeError as error:
        if threading.main_thread().is_alive():
            raise
        raise MisuseError(
            f"The client passed as client= cannot reach {place}: the main thread has ended, and with it Python's "
            "threads for host names. Leave client= out, or let the main thread wait for yours with join()."
        ) from error


def _own_request(
    method: str, http: httpx.AsyncClient, url: httpx.URL, headers: Headers, body: bytes, timeouts: Timeouts
) -> tuple[httpx.Request, tuple[str, ...]]:
    """Build the request with the user's client; return it with its accepted encodings."""
    import httpx

    limits = httpx.Timeout(None, connect=timeouts.connect, read=timeouts.read)
    try:
        request = http.build_request(method, url, content=body or None, headers=[*headers], timeout=limits)
    except (httpx.InvalidURL, UnicodeEncodeError, TypeError) as error:
        raise MisuseError(f"The request to {url.host} could not be built: {error}.") from None
    # httpx would accept every encoding that it can unpack, but it does not unpack in bounded steps.
    accepted = accepted_encodings(request.headers.get("accept-encoding", ""))
    request.headers["accept-encoding"] = ", ".join(accepted) or "identity"
    return request, accepted


def _default_request(
    method: str, _: httpx.AsyncClient, url: httpx.URL, headers: Headers, body: bytes, timeouts: Timeouts
) -> tuple[httpx.Request, tuple[str, ...]]:
    """Build the request for the default client, from the parts that all requests of a model share."""
    import httpx

    prepared, accepted = _prepared(url.netloc, headers)
    limits = {"timeout": {"connect": timeouts.connect, "read": timeouts.read}}
    request = httpx.Request(method, url, headers=prepared, stream=httpx.ByteStream(body), extensions=limits)
    if body:
        request.headers["content-length"] = str(len(body))
    return request, accepted


@functools.lru_cache(64)
def _prepared(host: bytes, headers: Headers) -> tuple[httpx.Headers, tuple[str, ...]]:
    """Return the headers of a host's requests, without the length, and the accepted encodings."""
    import httpx

    # Compression would delay tokens: compressed bytes arrive in blocks.
    merged = httpx.Headers({"accept": "*/*", "accept-encoding": "identity", "connection": "keep-alive"})
    merged["user-agent"] = f"python-httpx/{httpx.__version__}"
    merged.update(dict(headers))
    accepted = accepted_encodings(merged["accept-encoding"])
    merged["accept-encoding"] = ", ".join(accepted) or "identity"
    return httpx.Headers([(b"host", host), *merged.raw]), accepted


@functools.lru_cache(256)
def _warn_once(place: str) -> None:
    logging.getLogger("rxllm").warning(
        "A key is sent to %s without encryption, so others on the network can read it. Use https:// if possible.",
        place,
    )


@functools.lru_cache(256)
def _warn_of_plain_text(place: str, headers: Headers) -> None:
    secret = any(word in name.lower() for name, _ in headers for word in SECRET)
    if secret and not is_loopback(urlsplit(place).hostname or ""):
        _warn_once(place)


_NO_URL = frozenset(' "<>\\^`{|}')  # characters outside RFC 3986; some come from a template that was not filled in
_HEADER_NAME = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")


@functools.lru_cache(64)
def _check_once(headers: Headers) -> None:
    check_headers(dict(headers))


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
