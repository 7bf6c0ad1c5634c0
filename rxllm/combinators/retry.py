"""`retry`: ask the same model again after a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast, overload

from attrs import frozen
from reactivex import Observable

from ..llm import LLM
from ..misuse import MisuseError
from ..operators.attempts import Begin, retried
from ..operators.backoff import USUAL_DELAY, Delay, is_retryable
from ..operators.timeouts import check_seconds, first_chunk_timeout
from ..pipeline import Answers, Pipeline
from ._combined import Answer, In, Out, Stage, T, combined

__all__ = ["retry"]


@frozen
class _Retry:
    name: ClassVar[str] = "retry"

    attempts: int = 3
    when: Callable[[Exception], bool] = is_retryable
    delay: Delay = USUAL_DELAY
    mid_stream: Literal["restart"] | None = None
    timeout: float | None = None

    def identity(self, of: tuple[str, ...]) -> str:
        """The model's: its answers are the same."""
        return of[0]

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks again."""
        restarts = self.mid_stream == "restart"
        within = self.timeout
        again = retried(begins[0], self.attempts, when=self.when, delay=self.delay, restarts=restarts, within=within)
        return again if within is None else again.pipe(first_chunk_timeout(within))


# An LLM is such a function, too, and the first overload that fits is taken.
@overload
def retry(  # type: ignore[overload-overlap]
    llm: LLM,
    attempts: int = 3,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
    mid_stream: Literal["restart"] | None = None,
    timeout: float | None = None,
) -> LLM: ...


@overload
def retry(
    llm: Answers[In, Out, Answer],
    attempts: int = 3,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
    timeout: float | None = None,
) -> Pipeline[In, Out, Answer]: ...
@overload
def retry(
    llm: Callable[[In], Observable[Out]],
    attempts: int = 3,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
    timeout: float | None = None,
) -> Pipeline[In, Out]: ...


def retry(
    llm: Stage[Any],
    attempts: int = 3,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
    mid_stream: Literal["restart"] | None = None,
    timeout: float | None = None,
) -> Any:
    """Asks again after a failure that may pass, before the first chunk has come.

    ::

        llm             --x     --x         ---Hel-lo-|
        retry(llm, 3)   ---------------------Hel-lo-|

    A model over HTTP does so by itself (``max_retries=2``), which rests within `retry`: so many attempts are so many
    requests. This is for more, for other failures, and for others.
    What has begun is not asked for again, since its text has been read, unless ``mid_stream="restart"``: then
    ``Chunk(reset=True)`` comes before the new beginning. It folds as "forget what came before"; `text` refuses it,
    and handlers show it.

    Args:
        llm: a model, a pipeline, or any function from a prompt to an Observable.
        attempts: how many, with the first.
        when: whether to ask again after this error; by default what is ``retryable``, so never for a spent quota.
        delay: how long to wait, see `backoff`; by default as long as the provider asks, else 0.5 s, 1 s, 2 s … with
            jitter.
        mid_stream: ``"restart"`` for models only.
        timeout: seconds until the first chunk, for all attempts and the waits between them. A wait that does not fit is
            not begun. (The ``timeout=`` of a model within `retry` bounds each attempt; of a model that asks again by
            itself, its ``first_chunk`` bounds all attempts and waits.)

    Errors: the last attempt's, at once where asking again can't help, the provider asks for more than a minute, or the
        wait would pass `timeout`; `Timeout`.

    Raises:
        MisuseError: an argument that is none of these.
    """
    if not isinstance(cast("object", attempts), int) or attempts < 1:
        raise MisuseError(f"attempts must be a whole number of at least 1, not {attempts!r}.")
    if mid_stream not in (None, "restart"):
        raise MisuseError(f"mid_stream is 'restart' or None, not {mid_stream!r}.")
    if mid_stream and not isinstance(llm, LLM):
        raise MisuseError("Only a model can restart in the middle: its chunks can be taken back. Retry it within.")
    if timeout is not None:
        check_seconds("timeout", timeout)
    return combined(_Retry(attempts, when, delay, mid_stream, timeout), llm)
