"""`loop_local`: one object for each event loop, closed with the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from .loops import Loop
from .scheduler import T

__all__ = ["loop_local"]


_loop_local: dict[tuple[Loop, object], Any] = {}


async def loop_local(key: object, make: Callable[[], T], close: Callable[[T], Any]) -> T:
    """What `make` returns, made once for the running loop and each `key`, and closed with the loop.

    An async generator that is parked on the loop does the closing: `shutdown_asyncgens`, which every runner calls,
    finalises it.
    """
    loop = asyncio.get_running_loop()
    if (loop, key) in _loop_local:
        return cast("T", _loop_local[loop, key][0])
    value = make()

    async def keep() -> AsyncIterator[None]:
        try:
            yield
        finally:
            _loop_local.pop((loop, key), None)
            await close(value)

    keeper = keep()
    for known in list(_loop_local):  # a copy, since other threads' loops come and go
        if known[0].is_closed():
            _loop_local.pop(known, None)
    _loop_local[loop, key] = value, keeper
    await anext(keeper)
    return value
