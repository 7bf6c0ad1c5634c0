"""The `httpx.AsyncClient` of each event loop: one's own, or the default."""

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
    """The client to use on this loop: the given one, what the given function makes once, or the default.

    Raises:
        MisuseError: the client belongs to another loop, is closed, or is no client.
    """
    if client is None:
        return await loop_local(_default_client, _default_client, lambda http: http.aclose())
    if callable(client):
        key = _key_of(client, functools.partial(forget, loop))
        return _open(await loop_local(key, lambda: _made(client), lambda http: http.aclose()))
    # An instance is its owner's to close; here it is only held to the loop that it was first used on.
    scheduler = cast("Any", client).__dict__.setdefault("_rxllm_loop", loop)
    if scheduler is not loop:
        raise MisuseError(
            "This client= was first used on another event loop, where its connections live. Give a function that "
            "makes one, client=lambda: httpx.AsyncClient(…): it is called once for each loop."
        )
    return _open(client)


def _key_of(factory: Callable[[], object], unused: Callable[[object], object]) -> object:
    """What stands for a function without keeping it: `unused` is called with it once the function is gone.

    A function that is made anew for each model would leave a client for each, until the loop ends. A request in
    flight keeps its function, so no client is closed under it.
    """
    try:
        return (weakref.WeakMethod if inspect.ismethod(factory) else weakref.ref)(cast("Any", factory), unused)
    except TypeError:  # an object of a class with slots
        return factory


def _made(factory: Callable[[], object]) -> httpx.AsyncClient:
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


def _open(client: httpx.AsyncClient) -> httpx.AsyncClient:
    if client.is_closed:
        raise MisuseError("The client= is closed, so that nothing can be sent by it any more.")
    return client


@functools.cache
def _client_class() -> type[httpx.AsyncClient]:
    import httpx

    class Client(httpx.AsyncClient):
        """Sends a request as it is: cookies, redirects and authentication are most of what httpx costs a request."""

        async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
            return await self._transport.handle_async_request(request)

    return Client


def _default_client() -> httpx.AsyncClient:
    from .transport import Transport

    return _client_class()(transport=Transport())
