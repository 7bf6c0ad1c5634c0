"""`fallback`: ask the next model after a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, overload

from attrs import frozen
from reactivex import Observable

from ..exact import digest
from ..llm import LLM
from ..operators.attempts import Begin, tried
from ..operators.backoff import is_no_misuse
from ..pipeline import Answers, Pipeline
from ._combined import Answer, In, Out, Stage, T, at_least_one, combined

__all__ = ["fallback"]


@frozen
class _Fallback:
    name: ClassVar[str] = "fallback"

    when: Callable[[Exception], bool] = is_no_misuse

    def identity(self, of: tuple[str, ...]) -> str:
        """The identities of all models in their order, because each of them may answer."""
        return digest([self.name, of])

    def __call__(self, begins: tuple[Begin[T], ...], prompt: Any) -> Observable[T]:
        """Ask the next model when one has failed."""
        return tried(begins, self.when, None)


@overload
def fallback(  # type: ignore[overload-overlap]
    *llms: LLM, when: Callable[[Exception], bool] = is_no_misuse
) -> LLM: ...


@overload
def fallback(
    *llms: Answers[In, Out, Answer], when: Callable[[Exception], bool] = is_no_misuse
) -> Pipeline[In, Out, Answer]: ...
@overload
def fallback(
    *llms: Callable[[In], Observable[Out]], when: Callable[[Exception], bool] = is_no_misuse
) -> Pipeline[In, Out]: ...


def fallback(*llms: Stage[Any], when: Callable[[Exception], bool] = is_no_misuse) -> Any:
    """Ask the next model when one fails before its first part.

    ::

        a                --x
        b                  ----Hel-lo-|
        fallback(a, b)   ------Hel-lo-|

    An answer that has started is never restarted. An empty answer counts as an answer. A mistake of the program
    (`MisuseError`) ends the request. Only the last model retries by itself (``max_retries``), so that the others fail
    without waiting.

    Args:
        llms: models, pipelines, or other functions from a prompt to an Observable.
        when: whether to ask the next model after this error.

    Errors: the error of the last model, with the errors of the others as its notes.
    """
    return combined(_Fallback(when), *at_least_one("fallback", llms))
