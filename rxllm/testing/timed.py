"""LLMs whose chunks come at given times, on an event loop or on virtual time: what `MarbleLLM` and `Replay` share."""

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
"""What comes, and when: seconds after the subscription."""


@frozen(kw_only=True)
class Timed(LLM):
    """An LLM that knows beforehand what comes when, on an event loop or on virtual time.

    On virtual time it has no handlers, as these hear from a loop, and no Observable as its prompt.

    Attributes:
        requests: what it and its copies have been asked, in order: one for each subscription.
    """

    requests: list[Request] = field(factory=list[Request], eq=False, repr=False)

    @abstractmethod
    def score(self, request: Request) -> Score:
        """What comes when `request` is asked, `requests` being those before it."""

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """As any LLM's.

        Raises:
            MisuseError: this is no prompt.
        """
        on_a_loop = super().__call__(prompt)
        if isinstance(prompt, Observable):
            return on_a_loop
        request = Request.ask(prompt, self.parameters)

        def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            if not isinstance(given, VirtualTimeScheduler):
                return connect(on_a_loop, observer, given)
            if self.handlers:
                raise MisuseError("Handlers hear nothing on virtual time; attach them where there is an event loop.")
            chunks = self.chunks(request)
            return (one_chunk(chunks) if request.stream is False else chunks).subscribe(observer, scheduler=given)

        return Source(subscribe)

    def chunks(self, request: Request) -> Source[Chunk]:
        """The answer at its times."""
        score = _of_request(self.score(request), request)
        self.requests.append(request)

        def play(scheduler: abc.SchedulerBase, observer: abc.ObserverBase[Chunk]) -> abc.DisposableBase:
            def emit(_: abc.SchedulerBase, notification: Notification[Chunk] | None = None) -> None:
                if notification is not None:
                    notification.accept(observer)

            return CompositeDisposable(*(scheduler.schedule_relative(at, emit, what) for at, what in score))

        def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            if isinstance(given, VirtualTimeScheduler):
                return play(given, observer)
            return connect(source(lambda _: _paced(score)), observer, given)

        return Source(subscribe)


def _of_request(score: Score, request: Request) -> Score:
    """The same with errors of their own, which tell of this request: one error must not fail two answers."""
    told: list[tuple[float, Notification[Chunk]]] = []
    for at, what in score:
        if isinstance(what, OnError):
            error = copy.copy(what.exception)
            if isinstance(error, RxllmError):
                arrived = [said.value for _, said in told if isinstance(said, OnNext)]
                error.request = request.without_secrets()
                error.partial = join(arrived).message() if arrived else None
            told.append((at, OnError(error)))
        else:
            told.append((at, what))
    return told


async def _paced(score: Score) -> AsyncIterator[Chunk]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for at, what in score:
        if (left := began + at - loop.time()) > 0:
            await asyncio.sleep(left)
        if isinstance(what, OnNext):
            yield what.value
        elif isinstance(what, OnError):
            raise what.exception
        else:
            return
    await loop.create_future()  # nobody said how it ends
