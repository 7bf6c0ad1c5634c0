"""`hedge`: ask a second model when the first is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, overload

from attrs import frozen
from reactivex import Observable

from ..exact import digest
from ..llm import LLM
from ..operators.attempts import Begin, tried
from ..operators.backoff import is_no_misuse
from ..operators.timeouts import check_seconds
from ..pipeline import Answers, Pipeline
from ._combined import Answer, In, Out, Stage, T, at_least_one, combined

__all__ = ["hedge"]


@frozen
class _Hedge:
    name: ClassVar[str] = "hedge"

    after: float

    def identity(self, of: tuple[str, ...]) -> str:
        """All of the models', in their order: any of them may answer."""
        return digest([self.name, of])

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks the next when one is silent, or has failed."""
        return tried(begins, is_no_misuse, self.after)


@overload
def hedge(*llms: LLM, after: float) -> LLM: ...  # type: ignore[overload-overlap]


@overload
def hedge(*llms: Answers[In, Out, Answer], after: float) -> Pipeline[In, Out, Answer]: ...
@overload
def hedge(*llms: Callable[[In], Observable[Out]], after: float) -> Pipeline[In, Out]: ...


def hedge(*llms: Stage[Any], after: float) -> Any:
    """Asks the next one, too, when one is silent for `after` seconds or fails; the first that says something is it.

    ::

        a                     ------------x      (left as soon as b speaks)
        b                        ---Hel-lo-|
        hedge(a, b, after=3)  ------Hel-lo-|

    The first part commits (reasoning counts), and so does an end without one: an empty answer is an answer. Losers
    are closed at once, which is what keeps the second request cheap. ``after=0`` is a race, which failures don't win.
    Only the last one asks again by itself (``max_retries``).

    `after` near the 95th percentile of the time to the first chunk costs 5 % more requests and cuts the tail.

    Args:
        llms: models, the preferred first; or pipelines and any other functions from a prompt to an Observable.
        after: seconds of silence.

    Errors: the last one's, if all fail; those of the others are its notes.
    Source: J. Dean and L. A. Barroso, "The Tail at Scale", 2013.
    """
    if after != 0:
        check_seconds("after", after)
    return combined(_Hedge(after), *at_least_one("hedge", llms))
