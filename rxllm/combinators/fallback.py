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
        """All of the models', in their order: any of them may answer."""
        return digest([self.name, of])

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks the next when one has failed."""
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
    """Asks the next one when one fails before its first chunk.

    ::

        a                --x
        b                  ----Hel-lo-|
        fallback(a, b)   ------Hel-lo-|

    What has begun is not begun again. An empty answer is an answer. Mistakes of the program (`MisuseError`) are not
    got round. Only the last one asks again by itself (``max_retries``): the others' failures are not waited for.

    Args:
        llms: models; or pipelines and any other functions from a prompt to an Observable.
        when: whether to go on to the next after this error.

    Errors: the last one's; those of the others are its notes.
    """
    return combined(_Fallback(when), *at_least_one("fallback", llms))
