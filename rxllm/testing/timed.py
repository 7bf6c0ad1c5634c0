"""LLMs with a fixed schedule of chunks, on an event loop or on virtual time: the base of `MarbleLLM` and `Replay`."""

from __future__ import annotations

import asyncio
import copy
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

from attrs import field, frozen
from reactivex import Notification, Observable, abc
from reactivex.disposable import CompositeDisposable
from reactivex.notification import OnError, OnNext
from reactivex.scheduler import VirtualTimeScheduler

from ..errors import RxllmError
from ..llm import LLM
from ..misuse import MisuseError
from ..operators.message import one_chunk
from ..runtime.source import Source, connect, source
from ..values.chunk import Chunk, join
from ..values.request import Prompt, Request

__all__ = ["Score", "Timed"]

Score = Sequence[tuple[float, Notification[Chunk]]]
"""The notifications of an answer, each with its time in seconds after the subscription."""


@frozen(kw_only=True)
class Timed(LLM):
    """An LLM whose answer is a schedule of chunks, on an event loop or on virtual time.

    On virtual time the model has no handlers, because handlers need an event loop, and accepts no Observable as its
    prompt.

    Attributes:
        requests: the requests to the model and its copies, in order: one per subscription.
    """

    requests: list[Request] = field(factory=list[Request], eq=False, repr=False)

    @abstractmethod
    def score(self, request: Request) -> Score:
        """Return the schedule of the answer; `requests` holds the earlier requests."""

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """Ask the model, like any LLM.

        Raises:
            MisuseError: the argument is not a prompt.
        """
        on_event_loop = super().__call__(prompt)
        if isinstance(prompt, Observable):
            return on_event_loop
        request = Request.ask(prompt, self.parameters)

        def subscribe(observer: abc.ObserverBase[Chunk], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            if not isinstance(scheduler, VirtualTimeScheduler):
                return connect(on_event_loop, observer, scheduler)
            if self.handlers:
                raise MisuseError("Handlers do not work on virtual time; attach them on an event loop.")
            chunks = self.chunks(request)
            return (one_chunk(chunks) if request.stream is False else chunks).subscribe(observer, scheduler=scheduler)

        return Source(subscribe)

    def chunks(self, request: Request) -> Source[Chunk]:
        """Return the answer as an observable with the schedule's times."""
        score = _of_request(self.score(request), request)
        self.requests.append(request)

        def play(scheduler: abc.SchedulerBase, observer: abc.ObserverBase[Chunk]) -> abc.DisposableBase:
            def emit(_: abc.SchedulerBase, notification: Notification[Chunk] | None = None) -> None:
                if notification is not None:
                    notification.accept(observer)

            return CompositeDisposable(*(scheduler.schedule_relative(at, emit, each) for at, each in score))

        def subscribe(observer: abc.ObserverBase[Chunk], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            if isinstance(scheduler, VirtualTimeScheduler):
                return play(scheduler, observer)
            return connect(source(lambda _: _paced(score)), observer, scheduler)

        return Source(subscribe)


def _of_request(score: Score, request: Request) -> Score:
    """Return the schedule with a copy of each error, which has this request and what had arrived.

    Two answers must not share one error object.
    """
    schedule: list[tuple[float, Notification[Chunk]]] = []
    for at, notification in score:
        if isinstance(notification, OnError):
            error = copy.copy(notification.exception)
            if isinstance(error, RxllmError):
                arrived = [earlier.value for _, earlier in schedule if isinstance(earlier, OnNext)]
                error.request = request.without_secrets()
                error.partial = join(arrived).message() if arrived else None
            schedule.append((at, OnError(error)))
        else:
            schedule.append((at, notification))
    return schedule


async def _paced(score: Score) -> AsyncIterator[Chunk]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for at, notification in score:
        if (remaining := start + at - loop.time()) > 0:
            await asyncio.sleep(remaining)
        if isinstance(notification, OnNext):
            yield notification.value
        elif isinstance(notification, OnError):
            raise notification.exception
        else:
            return
    await loop.create_future()  # the schedule has no end
