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
    """Return whether the function, also one that a decorator wraps, yields its results, plain or async."""
    function = inspect.unwrap(function)
    functions = function, type(function).__call__  # the second is that of a callable object
    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in functions)


async def results_of(
    function: Callable[..., Any], call: Callable[[], Any], scheduler: Scheduler
) -> AsyncGenerator[Any, None]:
    """Yield the result of a function; of a generator, each value, which handlers receive as `Emitted`.

    A function may be wrapped, so what it returns tells whether it is a coroutine or a generator.
    """
    runs_later = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    result = call() if any(each(function) for each in runs_later) else await in_thread(scheduler, call)
    if inspect.isawaitable(result):
        result = await result
    if not (inspect.isgenerator(result) or inspect.isasyncgen(result)):
        yield result
        return
    generator = pull(scheduler, lambda: result) if inspect.isgenerator(result) else result
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
