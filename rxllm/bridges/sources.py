"""Into Rx: `from_iter` and `from_aiter`, sources with back-pressure."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable
from typing import TypeVar, cast

from ..misuse import MisuseError
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from ..runtime.threads import pull

__all__ = ["from_aiter", "from_iter"]

T = TypeVar("T")


def _itself(items: Iterable[T]) -> Iterable[T]:
    return items


def from_iter(items: Iterable[T] | Callable[[], Iterable[T]]) -> Source[T]:
    """Emit the items of an iterable or of a factory's result. Each item is pulled only when there is room for it.

    ::

        [a, b, c]  ──►  -a-b-c-|

    ``reactivex.from_`` pushes all items at once. This source waits while its consumer's buffer is full, so the iterable
    may be endless. A collection is read on the event loop. Any other iterable may block (a file, a cursor, a
    generator), so one thread advances and closes it, in a copy of the subscriber's context. The first subscription uses
    an *iterator* up; for several subscriptions pass a factory, such as a generator function.

    Errors: the exceptions of the iterable.
    """
    if not callable(items) and not isinstance(cast("object", items), Iterable):
        raise MisuseError(f"from_iter takes an iterable or a function that returns one, not {type(items).__name__}.")

    async def read(collection: Collection[T]) -> AsyncIterator[T]:
        for item in collection:
            yield item

    def begin(scheduler: Scheduler) -> AsyncIterator[T]:
        if isinstance(items, Collection):
            return read(cast("Collection[T]", items))
        make = items if callable(items) else functools.partial(_itself, items)
        return pull(scheduler, make)

    return source(begin)


def from_aiter(items: AsyncIterable[T] | Callable[[], AsyncIterable[T]]) -> Source[T]:
    """Emit the items of an async iterable, or of a factory's result. An async generator function is such a factory.

    ::

        async def: yield a; yield b  ──►  -a-b-|

    Each item is pulled only when there is room for it. Disposing closes the generator where it is suspended.

    Errors: the exceptions of the iterable.
    """
    if not callable(items) and not isinstance(cast("object", items), AsyncIterable):
        raise MisuseError(
            f"from_aiter takes an async iterable or a function that returns one, not {type(items).__name__}."
        )
    return source(lambda scheduler: aiter(items() if callable(items) else items))
