"""Clients of Redis, and how long an event loop waits for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from ..misuse import MisuseError, is_text, shown
from ..secrecy import keeps_secrets

__all__ = ["check_arguments", "new_client", "pickled", "within"]

T = TypeVar("T")

_CONNECTIONS = 64  # of a client; the package refuses commands beyond its own limit
_SLICES = 10  # looks at the clock during a wait
_MOST = 10  # times the wait, for a loop that is always busy


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


def pickled(owner: str, url: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an object with an address.

    Raises:
        MisuseError: the address contains a password.
    """
    if ("@" in url or "password=" in url) and not keeps_secrets():
        raise MisuseError(
            f"This {owner} cannot be pickled: its address contains a password. Construct it in the process that uses "
            "it."
        )
    return dict(fields)


def new_client(url: str) -> Any:
    """Return a client for the running loop. It sends each command once, and limits no time; see `within`.

    Its attribute `turns` is a semaphore with a place for each connection.
    """
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool: Any = BlockingConnectionPool
    limits = {"timeout": None, "socket_timeout": None, "socket_connect_timeout": None}
    of_redis: Any = Redis
    client = of_redis.from_pool(pool.from_url(url, max_connections=_CONNECTIONS, retry=Retry(NoBackoff(), 0), **limits))
    client.turns = asyncio.Semaphore(_CONNECTIONS)
    return client


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Return the result of the work. Time in which this event loop was busy does not count.

    When thousands of requests begin at once, an answer of Redis may lie unread for a second.

    Raises:
        TimeoutError: the work took longer, and was cancelled.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    part = seconds / _SLICES
    idle = 0
    try:
        for _ in range(_SLICES * _MOST):
            began = loop.time()
            done, _ = await asyncio.wait({task}, timeout=part)
            if done:
                return task.result()
            idle += loop.time() - began < 2 * part
            if idle == _SLICES:
                break
        raise TimeoutError
    finally:
        task.cancel()
