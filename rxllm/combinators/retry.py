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
        """The identity of the model, because its answers do not change."""
        return of[0]

    def __call__(self, begins: tuple[Begin[T], ...], prompt: Any) -> Observable[T]:
        """Retry the stream."""
        restarts = self.mid_stream == "restart"
        within = self.timeout
        again = retried(begins[0], self.attempts, when=self.when, delay=self.delay, restarts=restarts, within=within)
        return again if within is None else again.pipe(first_chunk_timeout(within))


# An LLM is such a function, too; type checkers take the first overload that fits.
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
    """Ask the model again after a failure that may pass, if the first chunk has not come yet.

    ::

        llm             --x   --x       ---Hel-lo-|
        retry(llm, 3)   -------------------Hel-lo-|

    A model over HTTP retries by itself (``max_retries=2``). Within `retry` this is switched off, so N attempts send at
    most N requests. Use `retry` for more attempts, for other failures, for models of your own, and for pipelines.

    An answer that has started is not retried, because its text has been read already. With ``mid_stream="restart"`` it
    is: ``Chunk(reset=True)`` comes before the new answer, and means "forget the chunks before". `message` honours it,
    `text` raises `MisuseError`, and handlers show it.

    Args:
        llm: a model, a pipeline, or any function from a prompt to an Observable.
        attempts: the number of attempts, including the first.
        when: whether to retry after this error; by default if the error is ``retryable``, which a spent quota is not.
        delay: how long to wait, see `backoff`; by default as long as the provider asks, else 0.5 s, 1 s, 2 s … with
            jitter.
        mid_stream: ``"restart"`` retries an answer that has started; for models only.
        timeout: seconds until the first chunk, over all attempts and the waits between them. A wait that would pass
            this limit is not started. (The ``timeout=`` of a model within `retry` limits each attempt. For a model that
            retries by itself, its ``first_chunk`` limits all attempts and waits.)

    Errors: the error of the last attempt. There is no further attempt when `when` is false, when the provider asks for
        more than a minute, or when the wait would pass `timeout`. `Timeout` when `timeout` ends during an attempt.

    Raises:
        MisuseError: an argument has a wrong type or value.
    """
    if not isinstance(cast("object", attempts), int) or attempts < 1:
        raise MisuseError(f"attempts must be a whole number of at least 1, not {attempts!r}.")
    if mid_stream not in (None, "restart"):
        raise MisuseError(f"mid_stream must be 'restart' or None, not {mid_stream!r}.")
    if mid_stream and not isinstance(llm, LLM):
        raise MisuseError(
            f"mid_stream='restart' needs a model, whose chunks can be taken back, not {type(llm).__name__}. "
            "Retry the model within the pipeline."
        )
    if timeout is not None:
        check_seconds("timeout", timeout)
    return combined(_Retry(attempts, when, delay, mid_stream, timeout), llm)
