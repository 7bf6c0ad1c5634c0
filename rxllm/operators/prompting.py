"""`asking`: a prompt that is a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import scheduler_for
from ..runtime.source import Source
from ..values.chunk import Chunk, join
from ..values.message import Message
from ..values.request import Prompt

__all__ = ["asking"]

T = TypeVar("T")


def asking(upstream: Observable[Any], ask: Callable[[Prompt], Observable[T]]) -> Observable[T]:
    """Return the answer of `ask` to the prompt that the values of `upstream` add up to."""

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = scheduler_for(requested)
        values: list[Any] = []
        current = LockFreeSerialDisposable()

        def begin() -> None:
            try:
                answer = ask(_prompt_of(values))
            except MisuseError as error:
                observer.on_error(error)
            else:
                current.disposable = answer.subscribe(observer, scheduler=scheduler)

        # Set before the subscription: `begin` may replace it at once, from any thread.
        current.disposable = waiting = LockFreeSerialDisposable()
        waiting.disposable = upstream.subscribe(values.append, observer.on_error, begin, scheduler=scheduler)
        return current

    return Source(subscribe)


def _prompt_of(values: list[Any]) -> Prompt:
    """Return the prompt that the values of an upstream add up to."""
    if values and all(isinstance(value, Chunk) for value in values):
        return join(values).text
    if values and all(isinstance(value, str) for value in values):
        return "".join(values)
    if len(values) == 1:
        value = values[0]
        return value.text if isinstance(value, Message) and value.role == "assistant" else value
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise MisuseError(
        f"The stage before a model emitted {f'{len(values)} values ({kinds})' if values else 'nothing'}, but a model "
        "needs one prompt. To send one request for each value, use ops.concat_map(llm) or ops.flat_map(llm)."
    )
