"""`message` and `usage`: what chunks add up to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from reactivex import Observable, abc
from reactivex import operators as ops

from ..errors import RxllmError
from ..misuse import MisuseError
from ..runtime.source import Source
from ..values.chunk import Chunk, join
from ..values.message import Message
from ..values.usage import Usage

__all__ = ["message", "no_chunk", "one_chunk", "usage"]


A = TypeVar("A")


def message() -> Callable[[Observable[Chunk]], Observable[Message]]:
    """The whole answer, once, at the end; of no chunks, an empty answer.

    ::

        -Hel-lo-(usage)-|
        message()
        ----------------(Message)|

    Shape: takes chunks. Errors: the source's; what had arrived is their `partial`. `MisuseError` for what is no chunk.
    """
    return _fold("message()", lambda chunks: join(chunks).message())


def usage() -> Callable[[Observable[Chunk]], Observable[Usage]]:
    """The tokens that the answer took, once, at the end; ``Usage()`` where the provider says nothing.

    ::

        -Hel-lo-(usage)-|
        usage()
        ----------------(Usage)|

    Shape: takes chunks. Errors: the source's; what had arrived is their `partial`. `MisuseError` for what is no chunk.
    """
    return _fold("usage()", lambda chunks: join(chunk for chunk in chunks if chunk.rest).usage or Usage())


def no_chunk(operator: str, value: object) -> MisuseError:
    """What is said where an operator of chunks is given something else."""
    earlier = {"str": "text", "Message": "message", "Usage": "usage"}.get(type(value).__name__)
    hint = f"; is {earlier}() before it?" if earlier else "."
    return MisuseError(f"{operator} takes chunks, but got {type(value).__name__}{hint}")


def _fold(name: str, finish: Callable[[list[Chunk]], A]) -> Callable[[Observable[Chunk]], Observable[A]]:
    """One value of all chunks. A list and one join at the end: reducing with ``+`` copies the text at each step.

    What came before a failure is its partial, unless it has one: nobody else has heard it.
    """

    def operator(source: Observable[Chunk]) -> Observable[A]:
        def subscribe(observer: abc.ObserverBase[A], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            chunks: list[Chunk] = []

            def on_error(error: Exception) -> None:
                if isinstance(error, RxllmError) and error.partial is None and chunks:
                    with suppress(MisuseError):
                        error.partial = _checked(name, join, chunks).message()
                observer.on_error(error)

            def on_completed() -> None:
                try:
                    value = _checked(name, finish, chunks)
                except MisuseError as error:
                    observer.on_error(error)
                    return
                observer.on_next(value)
                observer.on_completed()

            return source.subscribe(chunks.append, on_error, on_completed, scheduler=scheduler)

        return Source(subscribe)

    return operator


def _checked(name: str, finish: Callable[[list[Chunk]], A], chunks: list[Chunk]) -> A:
    """The value of them; what is no chunk is looked for only where it has failed."""
    try:
        return finish(chunks)
    except AttributeError:
        for value in chunks:
            if not isinstance(value, Chunk):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
                raise no_chunk(name, value) from None
        raise


def one_chunk(source: Observable[str | Message | Chunk]) -> Observable[Chunk]:
    """Everything as one chunk."""
    return source.pipe(ops.map(Chunk.of), _fold("one_chunk", join))
