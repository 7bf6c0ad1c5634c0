"""Calls of a tool's function: on the event loop or in a thread, with progress and with a time limit."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

from ..errors import Timeout
from ..events import Emitted
from ..observation import observation_of
from ..runtime.scheduler import Scheduler
from ..runtime.threads import in_thread, pull

__all__ = ["is_generator", "limited", "results_of"]


def is_generator(function: Callable[..., Any]) -> bool:
    """Return whether the function yields its results, plain or async."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


async def results_of(
    function: Callable[..., Any], call: Callable[[], Any], scheduler: Scheduler
) -> AsyncGenerator[Any, None]:
    """Yield the result of a function; of a generator function, each value, which handlers receive as `Emitted`."""
    if inspect.iscoroutinefunction(function):
        yield await call()
    elif not is_generator(function):
        result = await in_thread(scheduler, call)
        yield await result if inspect.isawaitable(result) else result
    else:
        is_async = inspect.isasyncgenfunction(function)
        generator = call() if is_async else pull(scheduler, call)
        values = cast("AsyncGenerator[Any, None]", generator)
        observation = observation_of(scheduler)
        async with aclosing(values):
            async for value in values:
                if observation is not None and observation.run is not None:
                    observation.notify(Emitted(value, run=observation.run))
                yield value


async def limited(results: AsyncGenerator[Any, None], seconds: float, name: str) -> AsyncGenerator[Any, None]:
    """Yield the results, at most for this number of seconds.

    Raises:
        Timeout: the time is over. A blocking function may still run in its thread.
    """
    ends = asyncio.get_running_loop().time() + seconds
    async with aclosing(results):
        while True:
            limit = asyncio.timeout_at(ends)
            try:
                async with limit:
                    value = await anext(results)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not limit.expired():  # the function raised it
                    raise
                raise Timeout(f"The tool {name} did not end within {seconds:g} s.", retryable=False) from None
            yield value
