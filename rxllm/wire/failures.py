"""Converts aiohttp's errors to httpx's."""

from __future__ import annotations

import os
import ssl

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError

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
            raise httpx.ProxyError(f"no connection to the proxy: {_reason(error.os_error)}") from error
        case aiohttp.ClientConnectorCertificateError():
            raise httpx.ConnectError(_reason(error.certificate_error)) from error
        case aiohttp.ClientConnectorError():
            raise httpx.ConnectError(_reason(error.os_error)) from error
        case aiohttp.ClientPayloadError():
            raise httpx.ReadError("the connection closed before the end of the response") from None
        case aiohttp.ClientError() | OSError():
            raise httpx.ReadError(_reason(error)) from error
        case _:
            return


def _reason(error: BaseException) -> str:
    """Describe in one line why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if (
        isinstance(error, OSError)
        and error.errno is not None
        and error.errno > 0
        and not isinstance(error, ssl.SSLError)
    ):
        return os.strerror(error.errno)
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
