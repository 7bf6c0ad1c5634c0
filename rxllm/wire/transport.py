"""The default transport: httpx's interface over aiohttp's connections.

With many streams, httpx's own pool costs more than the rest of the client together: each of its operations is linear in
the number of connections. This module uses aiohttp's connector (name resolution, TLS, proxies, the pool) and protocol
(the response parser in C). It does without aiohttp's session, which would read ``~/.netrc``, keep cookies and follow
redirects.

The states of a connection: *new*, *busy* with one request, *idle* in the pool, *closed*. A connection becomes idle only
after its whole response has been read. It becomes busy again only if no unread bytes have arrived on it. The
connections belong to one event loop, whose thread alone changes their states.
"""

from __future__ import annotations

import asyncio
import functools
import select
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
import yarl
from aiohttp.http_exceptions import HttpProcessingError
from attrs import field, frozen

from .body import Body, Receiver, drop, silent
from .certificates import certificates
from .failures import raise_as_httpx
from .faults import HEADER_LIMIT
from .proxies import proxy_for
from .resolver import Resolver
from .slow_start import SlowStart
from .timeouts import limited

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

__all__ = ["Transport"]

HEADER_LINES = 256  # the maximum number of header lines, so that many long lines cannot fill the memory
ROUTES = 256  # the maximum number of cached addresses


@frozen
class _Route:
    """The route to an address: created once per address, and used for all its requests.

    Attributes:
        request: the object that aiohttp's connector reads: address, TLS context and proxy.
        target: the target of the request line.
        credentials: a header line for the proxy; empty without one.
        slow_start: opens the connections to the address.
    """

    request: aiohttp.ClientRequest
    target: bytes
    credentials: bytes
    slow_start: SlowStart = field(factory=SlowStart)


class Transport(httpx.AsyncBaseTransport):
    """Sends the requests of one event loop, with the environment's proxies and certificates.

    A request is sent once. Only if the server had closed an idle connection and not one byte was written to it, the
    request goes to another connection.

    Args:
        is_direct: whether to ignore the environment's proxies.
    """

    def __init__(self, *, is_direct: bool = False) -> None:
        self._is_direct = is_direct
        self._connector = _Connector()
        self._routes: dict[str, _Route] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response once the header has arrived.

        Raises:
            httpx.TransportError: the request failed; the reason contains neither the request's content nor the
            response's. MisuseError: the environment's proxy or certificates cannot be used.
        """
        route = self._route(request)
        data = _serialized(request, route)
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout", {})
        silence = timeouts.get("read")
        connection: Connection | None = None
        try:
            connection = await self._send(route, data, timeouts.get("connect"))
            protocol = cast("Receiver", connection.protocol)
            while True:
                message, content = await limited(protocol.message(), silence, lambda: protocol.set_exception(silent()))
                if message.code >= 200 or message.code == 101:  # others come before the final response
                    break
        except BaseException as error:
            if connection is not None:
                drop(connection)
            raise_as_httpx(error)
            raise
        return httpx.Response(
            message.code, headers=message.raw_headers, stream=Body(connection, content, silence), request=request
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connector.close()

    async def _send(self, route: _Route, data: bytes, patience: float | None) -> Connection:
        """Return a connection to which the request has been written."""
        while True:
            try:
                connect = functools.partial(self._connector.connect, route.request, [], _limits(patience))
                connection = await route.slow_start.open(connect)
            except TimeoutError as error:
                raise httpx.ConnectTimeout("no connection in time") from error
            protocol = cast("ResponseHandler", connection.protocol)
            is_new = _parser_of(protocol) is None
            if not is_new and not _is_clean(protocol):
                drop(connection)
                continue
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                max_line_size=HEADER_LIMIT,
                max_field_size=HEADER_LIMIT,
                max_headers=HEADER_LINES,
            )
            transport = protocol.transport
            if transport is not None:
                transport.write(data)
                # asyncio writes to the kernel at once. If that failed, the kernel has accepted nothing.
                if not transport.is_closing():
                    return connection
            drop(connection)
            if is_new:
                raise httpx.WriteError("the server closed the connection before the request was sent")

    def _route(self, request: httpx.Request) -> _Route:
        address = str(request.url)
        route = self._routes.get(address)
        if route is None:
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            route = self._routes[address] = _route_to(request.url, is_direct=self._is_direct)
        return route


def _route_to(url: httpx.URL, *, is_direct: bool) -> _Route:
    loop = asyncio.get_running_loop()
    place = yarl.URL(str(url), encoded=True).with_user(None).with_fragment(None)
    proxy = None if is_direct else proxy_for(url.scheme, url.host, place.port or 0)
    # Loading certificates costs 20 ms and may fail, so plain connections do without.
    encrypts = url.scheme == "https" or (proxy is not None and proxy.url.startswith("https:"))
    context = certificates() if encrypts else True
    if proxy is None:
        return _Route(aiohttp.ClientRequest("POST", place, loop=loop, ssl=context), url.raw_path, b"")
    headers = {"Host": place.host_port_subcomponent or ""}
    if proxy.authorization is not None:
        headers["Proxy-Authorization"] = proxy.authorization
    request = aiohttp.ClientRequest(
        "POST", place, loop=loop, ssl=context, proxy=yarl.URL(proxy.url), proxy_headers=headers
    )
    if url.scheme == "https":  # the proxy gets the header with the CONNECT request
        return _Route(request, url.raw_path, b"")
    credentials = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return _Route(request, str(place).encode("ascii"), credentials.encode("latin-1"))


def _serialized(request: httpx.Request, route: _Route) -> bytes:
    """Return the request in HTTP/1.1 syntax."""
    lines = [b"%b: %b\r\n" % header for header in request.headers.raw]
    head = b"%b %b HTTP/1.1\r\n%b%b" % (
        request.method.encode("ascii"),
        route.target,
        b"".join(lines),
        route.credentials,
    )
    if head.count(b"\n") != len(lines) + 1 + bool(route.credentials):
        raise httpx.LocalProtocolError("a header of the request contains a line break")
    # `read` would do the same, and check the type of the stream for 3 µs.
    return b"".join([head, b"\r\n", *cast("httpx.SyncByteStream", request.stream)])


class _Connector(aiohttp.TCPConnector):
    """A connector of `Receiver`s, without a warning at garbage collection after its event loop was closed."""

    def __init__(self) -> None:
        # limit=0 means no limit: the caller bounds the number of concurrent streams (`batch`, `limited`).
        super().__init__(limit=0, resolver=Resolver())  # pyright: ignore[reportUnknownMemberType]
        self._factory = cast("functools.partial[ResponseHandler]", functools.partial(Receiver, loop=self._loop))

    def __del__(self, _: object = None) -> None:
        pass


@functools.lru_cache(32)
def _limits(connect: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=connect, sock_connect=connect)


# ── unread bytes on an idle connection ───────────────────────────────────────────────────────────────────────────


_PROBE = b"HTTP/1.1 204 \r\n\r\n"


def _parser_of(protocol: ResponseHandler) -> Any:
    """Return the parser of the latest response; None on a new connection."""
    return protocol._parser  # pyright: ignore[reportPrivateUsage]


def _is_clean(protocol: ResponseHandler) -> bool:
    """Return whether an idle connection has received nothing since the end of its latest response.

    An unsolicited response would be taken for the answer to the next request. It may be parsed already
    (`should_close`), wait in the kernel, or be parsed in part. In the last case the parser fails on the probe, a
    complete response.
    """
    if protocol.should_close or _is_readable(protocol.transport):
        return False
    try:
        messages, _, _ = _parser_of(protocol).feed_data(_PROBE)
    except HttpProcessingError:
        return False
    return [message.code for message, _ in messages] == [204]


def _is_readable(transport: asyncio.Transport | None) -> bool:
    """Return whether bytes, an end of stream or an error wait in the kernel."""
    number = -1 if transport is None else transport.get_extra_info("socket").fileno()
    if number < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([number], [], [], 0)[0])
