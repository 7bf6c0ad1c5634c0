"""The `httpx.AsyncClient` of each event loop: one's own, or the default."""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .._runtime import loop_local
from ..errors import MisuseError

if TYPE_CHECKING:
    import asyncio

    import aiohttp
    import httpx

    Client = httpx.AsyncClient | Callable[[], httpx.AsyncClient]

__all__ = ["client_on", "reused"]

_log = logging.getLogger("rxllm")

# Whether the latest connection that this task asked for had been used before, as far as can be told.
reused: contextvars.ContextVar[bool] = contextvars.ContextVar("rxllm_reused", default=False)


async def client_on(loop: asyncio.AbstractEventLoop, client: Client | None) -> httpx.AsyncClient:
    """The client to use on this loop: the given one, what the given function makes once, or the default.

    Raises:
        MisuseError: it is another loop's, closed, or none; or a proxy of the environment can't be used.
    """
    if client is None:
        return await loop_local(_default_client, _default_client, lambda http: http.aclose())
    if callable(client):
        return _open(await loop_local(client, lambda: _made(client), lambda http: http.aclose()))
    # An instance is its owner's to close; here it is only held to the loop that it was first used on.
    home = cast("Any", client).__dict__.setdefault("_rxllm_loop", loop)
    if home is not loop:
        raise MisuseError(
            "This client= was first used on another event loop, where its connections live. Give a function that "
            "makes one, client=lambda: httpx.AsyncClient(…): it is called once for each loop."
        )
    return _open(client)


def _made(factory: Callable[[], object]) -> httpx.AsyncClient:
    import httpx

    client = factory()
    if not isinstance(client, httpx.AsyncClient):
        if inspect.iscoroutine(client):
            client.close()
        raise MisuseError(f"The function client= must return an httpx.AsyncClient, not {type(client).__name__}.")
    return client


def _open(client: httpx.AsyncClient) -> httpx.AsyncClient:
    if client.is_closed:
        raise MisuseError("The client= is closed, so that nothing can be sent by it any more.")
    return client


def _check_proxies(proxies: Mapping[str, str]) -> None:
    own = "; for another, give client=lambda: httpx.AsyncClient(proxy=…)."
    for name in {"http", "https"} & proxies.keys():
        if not proxies[name].startswith(("http://", "https://")):
            raise MisuseError(f"The variable {name.upper()}_PROXY must be like http://host:port{own}")
    if "all" in proxies and "https" not in proxies:
        _log.warning("ALL_PROXY is not heeded: set HTTPS_PROXY and HTTP_PROXY%s", own)


@functools.cache
def _connector_class() -> type[aiohttp.TCPConnector]:
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        """Tells whether a connection is a kept one. A TraceConfig does, too, but costs each request dear."""

        async def connect(self, *arguments: Any, **named: Any) -> Any:
            reused.set(True)
            return await super().connect(*arguments, **named)

        async def _create_connection(self, *arguments: Any, **named: Any) -> Any:
            reused.set(False)
            return await super()._create_connection(*arguments, **named)

    return Connector


@functools.cache
def _client_class() -> type[httpx.AsyncClient]:
    import httpx

    class NoCookies(httpx.Cookies):
        """Neither keeps any nor looks for them, which would be most of what httpx costs a request."""

        def extract_cookies(self, response: httpx.Response) -> None:
            pass

    class Client(httpx.AsyncClient):
        """Keeps no cookies."""

        cookies = NoCookies()  # type: ignore[override]

    return Client


def _default_client() -> httpx.AsyncClient:
    from urllib.request import getproxies

    import aiohttp
    from httpx_aiohttp import AiohttpTransport

    proxies = {name: proxy for name, proxy in getproxies().items() if name != "no"}
    _check_proxies(proxies)
    transport = AiohttpTransport()
    # limit=0: no limit; how many streams run at once is the caller's business (`batch`, `limited`).
    # trust_env only where there is a proxy: it costs two hops to a thread for each request.
    transport.client = lambda: aiohttp.ClientSession(
        connector=_connector_class()(limit=0, ssl=transport.ssl_context),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=bool(proxies),
    )
    # What is compressed comes in lumps, and its size is bounded only after it is undone.
    headers = {"accept-encoding": "identity"}
    return _client_class()(transport=transport, headers=headers)
