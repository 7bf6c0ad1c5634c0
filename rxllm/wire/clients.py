"""The `httpx.AsyncClient` of each event loop: the user's client, or the default client."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..misuse import MisuseError
from ..runtime.loop_local import forget, loop_local

if TYPE_CHECKING:
    import asyncio

    import httpx

    Client = httpx.AsyncClient | Callable[[], httpx.AsyncClient]

__all__ = ["client_on"]


async def client_on(loop: asyncio.AbstractEventLoop, client: Client | None) -> httpx.AsyncClient:
    """Return the client for this event loop: `client` itself, the result of the function `client`, or the default.

    A function is called once per event loop.

    Raises:
        MisuseError: the client belongs to another event loop, is closed, or is not a client.
    """
    if client is None:
        return await loop_local(_default_client, _default_client, lambda http: http.aclose())
    if callable(client):
        key = _key_of(client, functools.partial(forget, loop))
        return _checked_open(await loop_local(key, lambda: _created(client), lambda http: http.aclose()))
    # The user closes an instance. The attribute records the event loop that first used it.
    scheduler = cast("Any", client).__dict__.setdefault("_rxllm_loop", loop)
    if scheduler is not loop:
        raise MisuseError(
            "The client passed as client= belongs to another event loop, where it was first used. Pass a function "
            "instead, client=lambda: httpx.AsyncClient(…), which is called once per event loop."
        )
    return _checked_open(client)


def _key_of(factory: Callable[[], object], unused: Callable[[object], object]) -> object:
    """Return a key that does not keep the function alive; `unused` is called with it once the function is gone.

    A key that kept the function would keep a client for each new function until the event loop ends. A running request
    keeps its function, so its client stays open.
    """
    try:
        return (weakref.WeakMethod if inspect.ismethod(factory) else weakref.ref)(cast("Any", factory), unused)
    except TypeError:  # a callable with __slots__ has no weak references
        return factory


def _created(factory: Callable[[], object]) -> httpx.AsyncClient:
    import httpx

    try:
        client = factory()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MisuseError(f"The function client= raised {reason}. It must return an httpx.AsyncClient.") from error
    if not isinstance(client, httpx.AsyncClient):
        if inspect.iscoroutine(client):
            client.close()
        raise MisuseError(f"The function client= must return an httpx.AsyncClient, not {type(client).__name__}.")
    return client


def _checked_open(client: httpx.AsyncClient) -> httpx.AsyncClient:
    if client.is_closed:
        raise MisuseError(
            "The client passed as client= is closed. Pass an open client, or a function that creates one."
        )
    return client


@functools.cache
def _client_class() -> type[httpx.AsyncClient]:
    import httpx

    class Client(httpx.AsyncClient):
        """Sends a request without cookies, redirects and authentication, which are most of httpx's cost per request."""

        async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
            return await self._transport.handle_async_request(request)

    return Client


def _default_client() -> httpx.AsyncClient:
    from .transport import Transport

    return _client_class()(transport=Transport())
