"""`loop_local`: one object for each event loop and key, closed with the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, cast

from .loops import Loop
from .scheduler import T

__all__ = ["forget", "loop_local"]


_loop_local: dict[tuple[Loop, object], Any] = {}


async def loop_local(key: object, make: Callable[[], T], close: Callable[[T], Any]) -> T:
    """Return the running loop's object for `key`; `make` makes it at the first call, and it is closed with the loop.

    An async generator that is suspended on the loop closes it: every runner calls `shutdown_asyncgens`, which
    finalises the generator.
    """
    loop = asyncio.get_running_loop()
    if found := _loop_local.get((loop, key)):
        return cast("T", found[0])
    value = make()

    async def keep() -> AsyncIterator[None]:
        try:
            yield
        finally:
            _loop_local.pop((loop, key), None)
            await close(value)

    keeper = keep()
    for other in list(_loop_local):  # a copy, since other threads' loops come and go
        if other[0].is_closed():
            _loop_local.pop(other, None)
    _loop_local[loop, key] = value, keeper
    await anext(keeper)
    return value


def forget(loop: Loop, key: object) -> None:
    """Close the loop's object for a key before the loop ends. Any thread may call it, also in a finaliser."""

    def close() -> None:
        _, keeper = _loop_local.get((loop, key), (None, None))
        if keeper is not None:
            task = loop.create_task(keeper.aclose())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    with suppress(RuntimeError):  # the loop is closed, and its objects with it
        loop.call_soon_threadsafe(close)


_closing: set[asyncio.Task[None]] = set()  # keeps the tasks alive, since a loop holds its tasks weakly
