"""`batch`, `batch_as_completed`: answer many prompts concurrently.

A prompt has four states: queued, running, done (its answer waits to be emitted), emitted. `_Batch` holds them. Its
state changes on one event loop only; prompts from other threads are handed to that loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Literal, Protocol, TypeVar, cast, overload

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.gate import Gate
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from .adding_up import LAST, folded
from .stage import Operator, makes_operator

__all__ = ["MAX_CONCURRENCY", "Answering", "batch", "batch_as_completed"]

In = TypeVar("In")
In_contra = TypeVar("In_contra", contravariant=True)
Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)

MAX_CONCURRENCY = 8
AHEAD = 3  # the limit of answers that wait for an earlier one, as a multiple of max_concurrency


class Answering(Protocol[In_contra, Out_co]):
    """A stage that `batch` accepts: an LLM or a Pipeline."""

    def answer(self, prompt: In_contra, /) -> Observable[Out_co]:
        """The answer to one prompt, as an Observable of one value."""
        ...


@overload
def batch(
    stage: Answering[In, Out], *, max_concurrency: int = ..., return_exceptions: Literal[False] = False
) -> Operator[Observable[In], Out, list[Out]]: ...
@overload
def batch(
    stage: Answering[In, Out], *, max_concurrency: int = ..., return_exceptions: bool
) -> Operator[Observable[In], Out | Exception, list[Out | Exception]]: ...


@makes_operator(adds_up="list")
def batch(
    stage: Answering[In, Any], *, max_concurrency: int = MAX_CONCURRENCY, return_exceptions: bool = False
) -> Callable[[Observable[In]], Observable[Any]]:
    """Answer each prompt, at most `max_concurrency` at once, and emit the answers in the order of the prompts.

    ::

        -p-q-r-|
        batch(llm)
        -----------(P,Q)---R|      an answer that is early waits for the ones before it

    Shape: one answer for each prompt. A prompt starts as soon as one slot is free. With `from_iter` and `from_aiter`
    the next prompt is pulled only then, so the source may be endless. At most three times `max_concurrency` answers
    wait for an earlier one. While the consumer is full, no prompt starts.

    Errors: the first failure at once, which cancels the other requests. With `return_exceptions`, an exception is
    emitted in place of its answer, and the other requests continue.
    """

    def ordered(numbered: AsyncGenerator[tuple[int, Out], None], state: _Batch[In]) -> AsyncIterator[Out]:
        async def answers() -> AsyncIterator[Out]:
            turn = 0
            early: dict[int, Out] = {}
            async with aclosing(numbered):
                async for index, answer in numbered:
                    early[index] = answer
                    while turn in early:
                        state.waiting -= 1
                        yield early.pop(turn)
                        turn += 1

        return answers()

    return _operator(stage, max_concurrency, return_exceptions, ordered)


@overload
def batch_as_completed(
    stage: Answering[In, Out], *, max_concurrency: int = ..., return_exceptions: Literal[False] = False
) -> Operator[Observable[In], tuple[int, Out], list[tuple[int, Out]]]: ...
@overload
def batch_as_completed(
    stage: Answering[In, Out], *, max_concurrency: int = ..., return_exceptions: bool
) -> Operator[Observable[In], tuple[int, Out | Exception], list[tuple[int, Out | Exception]]]: ...


@makes_operator(adds_up="list")
def batch_as_completed(
    stage: Answering[In, Any], *, max_concurrency: int = MAX_CONCURRENCY, return_exceptions: bool = False
) -> Callable[[Observable[In]], Observable[tuple[int, Any]]]:
    """Like `batch`, but emits each answer as soon as it completes, with the index of its prompt.

    ::

        -p-q-r-|
        batch_as_completed(llm)
        -----(1,Q)-(0,P)---(2,R)|

    Shape: emits ``(index, answer)``, with indices from 0.

    Errors: as for `batch`.
    """

    def unordered(numbered: AsyncGenerator[tuple[int, Out], None], state: _Batch[In]) -> AsyncIterator[tuple[int, Out]]:
        async def answers() -> AsyncIterator[tuple[int, Out]]:
            async with aclosing(numbered):
                async for item in numbered:
                    state.waiting -= 1
                    yield item

        return answers()

    return _operator(stage, max_concurrency, return_exceptions, unordered)


A = TypeVar("A")


def _operator(
    stage: Answering[In, Out],
    max_concurrency: int,
    return_exceptions: bool,
    arrange: Callable[[AsyncGenerator[tuple[int, Out], None], _Batch[In]], AsyncIterator[A]],
) -> Callable[[Observable[In]], Observable[A]]:
    if not isinstance(cast("object", max_concurrency), int) or max_concurrency < 1:
        raise MisuseError(f"max_concurrency must be a whole number of at least 1, not {max_concurrency!r}.")
    if not callable(getattr(stage, "answer", None)):
        raise MisuseError(
            f"batch takes an LLM or a Pipeline, not {type(stage).__name__}. rxllm.pipe(f) makes one of f."
        )

    def operator(prompts: Observable[In]) -> Source[A]:
        def run(scheduler: Scheduler) -> AsyncIterator[A]:
            state = _Batch(stage, max_concurrency, return_exceptions, scheduler)
            return arrange(state.run(prompts), state)

        return source(run)

    return operator


class _Batch(abc.ObserverBase[In]):
    """The state of one batch: its queued, running and done prompts.

    Attributes:
        waiting: the number of answers that are done and not yet emitted.
    """

    def __init__(
        self, stage: Answering[In, object], max_concurrency: int, return_exceptions: bool, scheduler: Scheduler
    ) -> None:
        self.stage = stage
        self.max_concurrency = max_concurrency
        self.return_exceptions = return_exceptions
        self.scheduler = scheduler
        self.gate = Gate()
        self.prompts: deque[In] = deque()
        self.begun = 0
        self.waiting = 0
        self.running: dict[int, abc.DisposableBase] = {}
        self.done: deque[tuple[int, object]] = deque()
        self.failure: BaseException | None = None
        self.prompts_ended = False
        self.news = asyncio.Event()

    async def run(self, prompts: Observable[In]) -> AsyncGenerator[tuple[int, Any], None]:
        upstream_scheduler = self.scheduler.with_gate(self.gate)
        upstream_scheduler = upstream_scheduler.evolve(lifetime=upstream_scheduler.lifetime.handled_by(self.broken))
        upstream = prompts.subscribe(self, scheduler=upstream_scheduler)
        try:
            while True:
                self.news.clear()
                while self.done and self.failure is None:
                    self.fill()
                    yield self.done.popleft()
                self.fill()
                if self.failure is not None:  # a prompt that cannot be asked fails in `fill`
                    raise self.failure
                if self.prompts_ended and not self.prompts and not self.running and not self.done:
                    return
                await self.news.wait()
        finally:
            upstream.dispose()
            for subscription in list(self.running.values()):
                subscription.dispose()

    @property
    def room(self) -> int:
        """The number of prompts that can start."""
        running = len(self.running)
        return min(self.max_concurrency - running, AHEAD * self.max_concurrency - running - self.waiting + 1)

    def fill(self) -> None:
        """Start prompts while there is room."""
        while self.prompts and self.room > 0 and self.failure is None:
            self.ask(self.begun, self.prompts.popleft())
        self.pace()

    def pace(self) -> None:
        """Tell the source of the prompts how many more of them can start."""
        room = self.room - len(self.prompts)
        self.gate.room = max(1, room)
        if room > 0:
            self.gate.open()
        else:
            self.gate.close()

    def ask(self, index: int, prompt: In) -> None:
        self.begun += 1
        answers: list[object] = []

        scheduler = self.scheduler.with_gate(Gate())
        subscription = self.running[index] = LockFreeSerialDisposable()

        def finished(result: object, failure: BaseException | None = None) -> None:
            if self.running.pop(index, None) is None:
                return
            # A KeyboardInterrupt or SystemExit ends the batch, also with return_exceptions.
            if failure is not None and not (self.return_exceptions and isinstance(failure, Exception)):
                self.failure = self.failure or failure
            else:
                self.done.append((index, result if failure is None else failure))
                self.waiting += 1
            self.news.set()

        def broken(error: BaseException) -> bool:
            """Fail this answer, and not the others, when code of the pipeline raised."""
            if index not in self.running or not isinstance(error, Exception):
                return self.scheduler.lifetime.on_failure(error)
            subscription.dispose()
            finished(None, error)
            return True

        scheduler = scheduler.evolve(lifetime=scheduler.lifetime.handled_by(broken))
        try:
            # The fold turns an answer without a value into an error.
            subscription.disposable = folded(self.stage.answer(prompt), LAST.finish).subscribe(
                answers.append,
                lambda error: self.scheduler.call(lambda: finished(None, error)),
                lambda: self.scheduler.call(lambda: finished(answers[-1])),
                scheduler=scheduler,
            )
        except Exception as error:
            finished(None, error)

    def on_next(self, value: In) -> None:
        def enter() -> None:
            self.prompts.append(value)
            self.pace()
            self.news.set()

        self.scheduler.call(enter)  # prompts may come from any thread

    def on_error(self, error: Exception) -> None:
        def fail() -> None:
            self.failure = self.failure or error
            self.news.set()

        self.scheduler.call(fail)

    def broken(self, error: BaseException) -> bool:
        """Fail the batch when the code that emits the prompts raised."""
        if not isinstance(error, Exception):
            return self.scheduler.lifetime.on_failure(error)
        self.on_error(error)
        return True

    def on_completed(self) -> None:
        def end() -> None:
            self.prompts_ended = True
            self.news.set()

        self.scheduler.call(end)
