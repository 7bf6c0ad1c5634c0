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
        """The identities of all models in their order, because each of them may answer."""
        return digest([self.name, of])

    def __call__(self, begins: tuple[Begin[T], ...], prompt: Any) -> Observable[T]:
        """Ask the next model when one is slow or has failed."""
        return tried(begins, is_no_misuse, self.after)


@overload
def hedge(*llms: LLM, after: float) -> LLM: ...  # type: ignore[overload-overlap]


@overload
def hedge(*llms: Answers[In, Out, Answer], after: float) -> Pipeline[In, Out, Answer]: ...
@overload
def hedge(*llms: Callable[[In], Observable[Out]], after: float) -> Pipeline[In, Out]: ...


def hedge(*llms: Stage[Any], after: float) -> Any:
    """Ask the next model, too, when one emits nothing for `after` seconds or fails. The first to emit content wins.

    ::

        a                      ------/      disposed as soon as b emits
        b                         ---Hel-lo-|
        hedge(a, b, after=3)   ------Hel-lo-|

    The first part decides (reasoning counts), and so does a completion: an empty answer counts as an answer. The other
    requests are closed at once, which keeps hedging cheap. With ``after=0`` all models start at once; a failed model
    does not win. Only the last model retries by itself (``max_retries``).

    With `after` near the 95th percentile of the time to the first chunk, 5 % more requests remove the slowest answers.

    Args:
        llms: models, pipelines, or other functions from a prompt to an Observable; the preferred one first.
        after: seconds without content after which the next model is asked.

    Errors: if all models fail, the error of the last one, with the errors of the others as its notes.

    Source: J. Dean and L. A. Barroso, "The Tail at Scale", 2013.
    """
    if after != 0:
        check_seconds("after", after)
    return combined(_Hedge(after), *at_least_one("hedge", llms))
