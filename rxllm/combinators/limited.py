"""`limited`: requests wait for their turn at a `Limiter`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast, overload

from attrs import frozen
from reactivex import Observable

from ..llm import LLM
from ..misuse import MisuseError
from ..operators.attempts import Begin
from ..pipeline import Pipeline
from ..values.request import Request
from ._combined import In, Out, Stage, T, combined
from .limiter import Limiter, admitted

__all__ = ["limited"]


@frozen
class _Limited:
    name: ClassVar[str] = "limited"

    limiter: Limiter

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks when it may."""
        text = given.text if isinstance(given, Request) else str(given)
        answer = (given.max_tokens if isinstance(given, Request) else None) or 0
        return admitted(begins[0], self.limiter, len(text) // 4 + 1 + answer)


@overload
def limited(llm: LLM, limiter: Limiter) -> LLM: ...  # type: ignore[overload-overlap]


@overload
def limited(llm: Callable[[In], Observable[Out]], limiter: Limiter) -> Pipeline[In, Out]: ...


def limited(llm: Stage[Any], limiter: Limiter) -> Any:
    """Asks when the limiter lets it, first come, first served; who leaves while waiting makes room.

    ::

        llm                     ---a-b-|
        limited(llm, limiter)   -------a-b-|

    One `Limiter` may be shared by many models, loops and threads. Put ``limited`` inside of ``retry``, so that each
    attempt counts, and inside of ``cached``, so that nothing counts that isn't asked.

    Raises:
        MisuseError: this is no Limiter.
    """
    if not isinstance(cast("object", limiter), Limiter):
        raise MisuseError(f"limited takes a Limiter, as in rxllm.Limiter(concurrency=4), not {type(limiter).__name__}.")
    return combined(_Limited(limiter), llm)
