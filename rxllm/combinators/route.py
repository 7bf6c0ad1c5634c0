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
    """Asks the model that `choose` picks for the request.

    ::

        small           --Hi-|
        large           -----Dear-friend-|
        route(choose)   -----Dear-friend-|

    As in ``route(lambda request: small if len(request.text) < 500 else large)``.

    `choose` is called at each subscription, on the stream's loop, so it must not block.

    Errors: what `choose` raises; `MisuseError` if what it picks is no model.
    """
    return CombinedLLM((), _Route(choose))


@frozen
class _Route:
    name: ClassVar[str] = "route"

    choose: Callable[[Request], LLM]

    def identity(self, of: tuple[str, ...]) -> str:
        """None: nobody knows before a request what `choose` picks.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(
            "cached() cannot derive a key for a route, whose models are known only when it is asked. Cache the models "
            "that it picks, or say cached(…, name='…')."
        )

    def __call__(self, begins: tuple[Begin[T], ...], given: Request) -> Observable[Any]:
        """Asks the one that is picked."""

        def subscribe(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            llm = self.choose(given)
            if not callable(cast("object", llm)):
                raise MisuseError(f"route must pick a model, not {type(llm).__name__}: {llm!r:.60}.")
            return connect(llm(given), observer, scheduler)

        return Source(subscribe)
