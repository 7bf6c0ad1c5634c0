"""`route`: choose the model for each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

from attrs import frozen
from reactivex import Observable, abc

from ..llm import LLM
from ..misuse import MisuseError
from ..operators.attempts import Begin
from ..runtime.source import Source, connect
from ..values.request import Request
from ._combined import CombinedLLM, T

__all__ = ["route"]


def route(choose: Callable[[Request], LLM]) -> LLM:
    """Ask the model that `choose` returns for the request.

    ::

        small           --Hi-|
        large           -----Dear-friend-|
        route(choose)   -----Dear-friend-|

    For example ``route(lambda request: small if len(request.text) < 500 else large)``.

    `choose` is called at each subscription, on the event loop of the stream, so it must not block.

    Errors: those of the model, and those that `choose` raises; `MisuseError` if `choose` returns anything but a model.
    """
    return CombinedLLM((), _Route(choose))


@frozen
class _Route:
    name: ClassVar[str] = "route"

    choose: Callable[[Request], LLM]

    def identity(self, of: tuple[str, ...]) -> str:
        """Raise, because the model is unknown before `choose` is called.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(
            "cached() cannot derive a stable key for a route, whose model is unknown before the request. Cache the "
            "models that it chooses, or pass cached(…, name='…')."
        )

    def __call__(self, begins: tuple[Begin[T], ...], request: Request) -> Observable[Any]:
        """Ask the chosen model."""

        def subscribe(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            llm = self.choose(request)
            if not callable(cast("object", llm)):
                raise MisuseError(f"route's function must return a model, not {type(llm).__name__}: {llm!r:.60}.")
            return connect(llm(request), observer, scheduler)

        return Source(subscribe)
