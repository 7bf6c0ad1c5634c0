"""The `httpx.AsyncClient` of each event loop: the user's client, or the default client."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, cast

from ..misuse import MisuseError
from ..runtime.loop_local import forget, loop_local
from ..runtime.scheduler import T

if TYPE_CHECKING:
    import asyncio

    import httpx

    Client = httpx.AsyncClient | Callable[[], httpx.AsyncClient]

__all__ = ["client_on", "created", "of_loop"]


async def client_on(loop: asyncio.AbstractEventLoop, client: Client | None) -> httpx.AsyncClient:
    """Return the client for this event loop: `client` itself, the result of the function `client`, or the default.

    A function is called once per event loop.

    Raises:
        MisuseError: the client belongs to another event loop, is closed, or is not a client.
    """
    if client is None:
        return await loop_local(_default_client, _default_client, lambda http: http.aclose())
    return _checked_open(await of_loop(loop, client, _checked, lambda http: http.aclose()))


async def of_loop(
    loop: asyncio.AbstractEventLoop,
    client: T | Callable[[], T],
    check: Callable[[object], T],
    close: Callable[[T], Awaitable[object]],
    *,
    is_renewed: bool = False,
) -> T:
    """Return the user's client for this event loop, or the result of the user's function.

    Args:
        loop: the running loop.
        client: the client, or a function that returns one. The function is called once for each event loop.
        check: returns the result of the function, or raises MisuseError if it is not a client.
        close: closes a client that the function returned, at the end of the loop.
        is_renewed: whether a client object (not a function) works again after the end of the loop that used it.

    Raises:
        MisuseError: the client belongs to another event loop, or the function raised.
    """
    if callable(client):
        make = cast("Callable[[], object]", client)
        key = _key_of(make, functools.partial(forget, loop))
        return await loop_local(key, lambda: check(created(make)), close)
    # The user closes an instance. The attribute records the event loop that first used it.
    facts: dict[str, Any] = cast("Any", client).__dict__
    owner = facts.setdefault("_rxllm_loop", loop)
    if owner.is_closed() and is_renewed:
        owner = facts["_rxllm_loop"] = loop
    if owner is not loop:
        kind = type(client)
        raise MisuseError(
            "The client passed as client= belongs to another event loop, where it was first used. Pass a function "
            f"instead, client=lambda: {kind.__module__.partition('.')[0]}.{kind.__name__}(…), which is called once per "
            "event loop."
        )
    return client


def _key_of(factory: Callable[[], object], unused: Callable[[object], object]) -> object:
    """Return a key that does not keep the function alive; `unused` is called with it after the function's end.

    A key that kept the function would keep a client for each new function until the event loop ends. A running request
    keeps its function, so its client stays open.
    """
    try:
        return (_Method if inspect.ismethod(factory) else weakref.ref)(cast("Any", factory), unused)
    except TypeError:  # a callable with __slots__ has no weak references
        return factory


class _Method(weakref.ref[object]):
    """A weak reference to a method of an object.

    `weakref.WeakMethod` has a callback for the function, too, which raises if the garbage collector frees the function
    after the reference.
    """

    __slots__ = ("function",)
    function: Any

    def __new__(cls, method: Any, unused: Callable[[Any], object]) -> Self:
        reference = super().__new__(cls, method.__self__, unused)
        reference.function = method.__func__
        return reference

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Method) and self.function is other.function and super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__()


def created(factory: Callable[[], object]) -> object:
    """Return what the function `client=` of a program returns.

    Raises:
        MisuseError: the function raised.
    """
    try:
        return factory()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MisuseError(f"The function client= raised {reason}. It must return a client.") from error


def _checked(client: object) -> httpx.AsyncClient:
    import httpx

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
