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
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
import yarl
from aiohttp.http_exceptions import HttpProcessingError
from attrs import frozen

from .certificates import certificates
from .failures import raise_as_httpx
from .faults import HEADER_LIMIT
from .proxies import proxy_for

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.streams import StreamReader

__all__ = ["Transport"]

HEADER_LINES = 256  # the maximum number of header lines, so that many long lines cannot fill the memory
PIECE = 16 * 1024  # bytes; with larger pieces a burst cost 1.7 times as much
ROUTES = 256  # the maximum number of cached addresses


@frozen
class _Route:
    """The route to an address: created once per address, and used for all its requests.

    Attributes:
        request: the object that aiohttp's connector reads: address, TLS context and proxy.
        target: the target of the request line.
        credentials: a header line for the proxy; empty without one.
    """

    request: aiohttp.ClientRequest
    target: bytes
    credentials: bytes


class Transport(httpx.AsyncBaseTransport):
    """Sends the requests of one event loop, with the environment's proxies and certificates.

    A request is sent once. Only if the server had closed an idle connection and not one byte was written to it, the
    request goes to another connection.
    """

    def __init__(self) -> None:
        # limit=0 means no limit: the caller bounds the number of concurrent streams (`batch`, `limited`).
        self._connector = _Connector(limit=0)
        self._routes: dict[str, _Route] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response once the header has arrived.

        Raises:
            httpx.TransportError: the request failed; the reason contains neither the request's content nor the
            response's. MisuseError: the environment's proxy or certificates cannot be used.
        """
        route = self._route(request)
        data = _serialized(request, route)
        connection: Connection | None = None
        try:
            connection = await self._send(route, data, request.extensions.get("timeout", {}))
            protocol = cast("ResponseHandler", connection.protocol)
            message, content = await protocol.read()
            while message.code < 200 and message.code != 101:
                message, content = await protocol.read()
        except BaseException as error:
            if connection is not None:
                _drop(connection)
            raise_as_httpx(error)
            raise
        return httpx.Response(
            message.code, headers=message.raw_headers, stream=_Body(connection, content), request=request
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connector.close()

    async def _send(self, route: _Route, data: bytes, timeouts: Mapping[str, float | None]) -> Connection:
        """Return a connection to which the request has been written."""
        while True:
            try:
                connection = await self._connector.connect(route.request, [], _limits(timeouts.get("connect")))
            except TimeoutError as error:
                raise httpx.ConnectTimeout("no connection in time") from error
            protocol = cast("ResponseHandler", connection.protocol)
            is_new = _parser_of(protocol) is None
            if not is_new and not _is_clean(protocol):
                _drop(connection)
                continue
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                read_timeout=timeouts.get("read"),
                max_line_size=HEADER_LIMIT,
                max_field_size=HEADER_LIMIT,
                max_headers=HEADER_LINES,
            )
            transport = protocol.transport
            if transport is not None:
                transport.write(data)
                # asyncio writes to the kernel at once. If that failed, the kernel has accepted nothing.
                if not transport.is_closing():
                    protocol.start_timeout()
                    return connection
            _drop(connection)
            if is_new:
                raise httpx.WriteError("the server closed the connection before the request was sent")

    def _route(self, request: httpx.Request) -> _Route:
        address = str(request.url)
        route = self._routes.get(address)
        if route is None:
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            route = self._routes[address] = _route_to(request.url)
        return route


def _route_to(url: httpx.URL) -> _Route:
    loop = asyncio.get_running_loop()
    place = yarl.URL(str(url), encoded=True).with_user(None).with_fragment(None)
    proxy = proxy_for(url.scheme, url.host, place.port or 0)
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
    return head + b"\r\n" + request.read()


class _Body(httpx.AsyncByteStream):
    """The body of a response, as it arrives. Received bytes are yielded before a connection error is raised."""

    def __init__(self, connection: Connection, content: StreamReader) -> None:
        self._connection: Connection | None = connection
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._content
        failure: BaseException | None = None
        try:
            while data := await content.read(PIECE):
                yield data
                if content.exception() is not None:
                    self._forgive_pause()
        except (aiohttp.ClientError, OSError, HttpProcessingError) as error:
            failure = error
        if failure is not None:
            content.set_exception(cast("Any", None))  # otherwise reading would raise it instead of returning the buffer
            while data := content.read_nowait(PIECE):
                yield data
            raise_as_httpx(failure)
            raise failure

    def _forgive_pause(self) -> None:
        """Forget a read timeout that ended while the reader was busy: its pause is not the server's silence."""
        connection = self._connection
        if isinstance(self._content.exception(), aiohttp.SocketTimeoutError) and connection is not None:
            self._content.set_exception(cast("Any", None))
            if connection.protocol is not None:
                connection.protocol.start_timeout()

    async def aclose(self) -> None:
        """Return the connection to the pool if the body has ended, else close it at once."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = connection.transport
        if self._content.is_eof() and transport is not None and not transport.get_write_buffer_size():
            connection.release()
        else:
            _drop(connection)

    def __del__(self) -> None:
        """Close the connection of an unclosed body, which happens only if its event loop was closed."""
        if self._connection is not None:
            with suppress(RuntimeError):  # the event loop is closed
                _drop(self._connection)


class _Connector(aiohttp.TCPConnector):
    """A connector without a warning at garbage collection after its event loop was closed."""

    def __del__(self, _: object = None) -> None:
        pass


def _drop(connection: Connection) -> None:
    """Close a connection at once, without writing the rest of its buffer."""
    protocol = connection.protocol
    if protocol is not None:
        protocol.abort()
    connection.close()


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
