"""Clients of Redis: one for each object and event loop, closed with the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from ..misuse import MisuseError, is_text, shown
from ..runtime.loop_local import loop_local

__all__ = ["check_arguments", "client_of"]

_CONNECTIONS = 64  # of a client; the package refuses commands beyond its own limit


def check_arguments(owner: str, url: str, **texts: str) -> None:
    """Check that redis is installed, that the address is valid, and that the texts are not empty.

    Raises:
        MisuseError: redis is not installed, or an argument is wrong.
    """
    try:
        from redis.asyncio import ConnectionPool
    except ImportError:
        raise MisuseError("redis is not installed: pip install 'rxllm[redis]'.") from None
    if not is_text(url):
        raise MisuseError(f"{owner} needs an address such as redis://localhost, not {shown(url)}.")
    pool: Any = ConnectionPool
    try:
        pool.from_url(url)
    except ValueError as error:  # its text is about the beginning of the address, and has no password
        raise MisuseError(f"{owner} needs an address such as redis://localhost: {error}.") from None
    for name, text in texts.items():
        if not is_text(text) or not text:
            raise MisuseError(f"The {name} of {owner} must be text, not {shown(text)}.")


async def client_of(owner: object, url: str, seconds: float) -> Any:
    """Return the client of an object on the running loop. It sends each command once, and waits for these seconds.

    Its attribute `turns` is a semaphore with a place for each connection.
    """

    def make() -> Any:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        pool: Any = BlockingConnectionPool
        limits = {"timeout": seconds, "socket_timeout": seconds, "socket_connect_timeout": seconds}
        of_redis: Any = Redis
        client = of_redis.from_pool(
            pool.from_url(url, max_connections=_CONNECTIONS, retry=Retry(NoBackoff(), 0), **limits)
        )
        client.turns = asyncio.Semaphore(_CONNECTIONS)
        return client

    return await loop_local(owner, make, _close)


async def _close(client: Any) -> None:
    await client.aclose()
