"""Converts aiohttp's errors to httpx's."""

from __future__ import annotations

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError

from .faults import reason_of

__all__ = ["HeaderTooLong", "raise_as_httpx"]


class HeaderTooLong(httpx.RemoteProtocolError):
    """The header of a response exceeds the limit."""

    error_status_hint = 431  # the same hint as h11's, the parser of httpx's own transport


def raise_as_httpx(error: BaseException) -> None:
    """Raise httpx's error for an error of aiohttp; return for any other error.

    The reason contains no sent or received text, because a broken server may repeat the request with its key.
    """
    match error:
        case httpx.TransportError():
            return
        case HttpProcessingError():
            if error.message.startswith(("Got more than", "Too many headers")):
                raise HeaderTooLong("the header of the response is too long") from None
            raise httpx.RemoteProtocolError("the response is not HTTP") from None
        case aiohttp.SocketTimeoutError():
            raise httpx.ReadTimeout("no bytes arrived in time") from error
        case aiohttp.ServerDisconnectedError():
            raise httpx.RemoteProtocolError("the server closed the connection before it answered") from error
        case aiohttp.ClientHttpProxyError():
            raise httpx.ProxyError(f"the proxy answered with status {error.status}") from error
        case aiohttp.ClientProxyConnectionError():
            raise httpx.ProxyError(f"no connection to the proxy: {reason_of(error.os_error)}") from error
        case aiohttp.ClientConnectorCertificateError():
            raise httpx.ConnectError(reason_of(error.certificate_error)) from error
        case aiohttp.ClientConnectorError():
            raise httpx.ConnectError(reason_of(error.os_error)) from error
        case aiohttp.ClientPayloadError():
            raise httpx.ReadError("the connection closed before the end of the response") from None
        case aiohttp.ClientError() | OSError():
            raise httpx.ReadError(reason_of(error)) from error
        case _:
            return
