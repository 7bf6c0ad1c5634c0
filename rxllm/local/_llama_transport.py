"""`LlamaTransport`: sends the requests of an HTTP client to llama.cpp in this process."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import httpx

from ..wire.transport import Transport

if TYPE_CHECKING:
    from ._llama_server import LlamaProcess

__all__ = ["LlamaTransport"]


class LlamaTransport(httpx.AsyncBaseTransport):
    """Loads the model with the first request, and replaces the address and the key of each request.

    Args:
        loaded: a weak reference to `LlamaServer.loaded`. A running request keeps the server alive.
    """

    def __init__(self, loaded: weakref.WeakMethod[Callable[[], Awaitable[LlamaProcess]]]) -> None:
        self._loaded = loaded
        self._transport = Transport(is_direct=True)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; return its response once the header has arrived."""
        load = self._loaded()
        assert load is not None  # noqa: S101  (the request keeps it alive)
        server = await load()
        address = httpx.URL(server.address)
        request.url = request.url.copy_with(host=address.host, port=address.port)
        request.headers["host"] = request.url.netloc.decode()
        request.headers["authorization"] = f"Bearer {server.key}"
        request.headers["connection"] = "close"  # an idle connection would keep a thread of the server busy
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()
