"""`Pool`: the worker processes of a job, which ask its models.

States of a worker: starting (its process has not said yet that it runs, but it may get requests already), running,
lost (its connection is closed, because its process has ended). The pool replaces a worker that was running. All states
change on the event loop of the job; threads only start processes, and wait for their ends.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from functools import partial

from reactivex import abc

from ..combinators.budgeted import ANSWER
from ..errors import TransportError
from ..llm import LLM
from ..operators.answering import CHARACTERS
from ..operators.attempts import RETRIED_ABOVE
from ..records import of_json
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from ..runtime.threads import in_thread
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.request import Request
from ..values.usage import Usage
from ..wire.rates import ON_RESPONSE
from ..wire.repeats import IDEMPOTENCY_KEY
from .exchange import (
    Ask,
    Drop,
    End,
    Load,
    Part,
    Peer,
    Ready,
    Response,
    error_of_record,
    line,
    request_record,
    to_parent,
)
from .models import Shipment
from .processes import NoWorker, Process, Processes, described

__all__ = ["Pool", "WorkerDied"]

_STILLBORN = 2  # processes in a row, beside the first ones, that may be killed before they are ready


class WorkerDied(TransportError):
    """The worker process that answered has died. The answer may have been paid: `partial` has the most that it took."""

    retryable = False  # the job itself asks again


class Pool:
    """Worker processes.

    Args:
        count: the number of processes.
        shipment: the models.
        failed: called with an error when a process cannot be started.
    """

    def __init__(self, count: int, shipment: Shipment, failed: Callable[[Exception], object]) -> None:
        self._count = count
        self._shipment = shipment
        self._failed = failed
        self._failure: Exception | None = None
        self._numbers = itertools.count()
        self._workers: list[_Worker] = []
        self._waiting: list[asyncio.Future[None]] = []  # of requests, while there is no worker
        self._replacing: list[abc.DisposableBase] = []
        self._stillborn = 0  # processes that died before they were ready, in a row
        self._is_closed = False
        self._processes = Processes()

    def started(self) -> Source[None]:
        """Start the processes, and emit None.

        Errors: `NoWorker`.
        """

        async def start(scheduler: Scheduler) -> AsyncIterator[None]:
            for _ in range(self._count):
                await self._add(scheduler)
            yield None

        return source(start)

    async def _add(self, scheduler: Scheduler) -> None:
        """Start a process, and connect to it.

        Raises:
            NoWorker: the system does not start it.
        """
        process, connection = await in_thread(scheduler, self._processes.start)
        make = partial(_Worker, scheduler, process, self._connected, self._lost)
        await scheduler.loop.create_unix_connection(make, sock=connection)

    def _connected(self, worker: _Worker) -> None:
        self._workers.append(worker)
        self._wake()

    def _wake(self) -> None:
        """Let the waiting requests look for a worker."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def ask(self, llm: LLM, request: Request) -> Source[Chunk]:
        """Return the answer of a model that a worker asks. `ELSEWHERE` carries this method."""

        async def answer(scheduler: Scheduler) -> AsyncIterator[Chunk]:
            record, model = request_record(request), self._shipment.number(llm)
            heard = scheduler.carried(ON_RESPONSE)
            ask = Ask(
                next(self._numbers),
                model,
                record,
                scheduler.carried(IDEMPOTENCY_KEY),
                scheduler.carried(RETRIED_ABOVE),
                heard is not ON_RESPONSE.default,
            )
            while True:
                worker = await self._least_busy(scheduler)
                news = worker.begin(ask, self._shipment.pickles[model])
                try:
                    while True:
                        match await news.get():
                            case Part(_, chunk):
                                yield of_json(chunk)
                            case Response(_, place, status, headers):
                                heard(place, status, headers)
                            case End(_, error):
                                if error is None:
                                    return
                                raise error_of_record(error)
                            case str(how):
                                if worker.is_running:
                                    raise _died(request, how)
                                break  # the worker did not get the request
                finally:
                    worker.leave(ask.number)

        return source(answer, first_at_once=False)

    async def _least_busy(self, scheduler: Scheduler) -> _Worker:
        while not self._workers:
            if self._failure is not None:
                raise NoWorker(str(self._failure))
            self._waiting.append(news := scheduler.loop.create_future())
            await news
        return min(self._workers, key=_Worker.load)

    def _lost(self, worker: _Worker, scheduler: Scheduler) -> None:
        """Replace a worker whose connection is closed."""
        self._workers.remove(worker)
        if self._is_closed:
            return

        async def replace(scheduler: Scheduler) -> AsyncIterator[None]:
            status = await in_thread(scheduler, partial(self._processes.end_of, worker.process))
            worker.end(described(status))
            self._stillborn = 0 if worker.is_running else self._stillborn + 1
            if self._stillborn and (status >= 0 or self._stillborn >= self._count + _STILLBORN):
                raise NoWorker(f"A worker process {described(status)}, before it was ready.")
            await self._add(scheduler)
            yield None

        self._replacing.append(source(replace).subscribe(on_error=self._fail, scheduler=scheduler))

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._failed(error)
        self._wake()

    def close(self) -> None:
        """Close the connections, so that the processes end, and start no further one."""
        self._is_closed = True
        self._processes.close()
        for replacing in self._replacing:
            replacing.dispose()
        for worker in self._workers:
            worker.close()

    def join(self) -> None:
        """Wait for the ends of all processes, after `close`. This method blocks."""
        self._processes.join()


def _died(request: Request, how: str) -> WorkerDied:
    error = WorkerDied(f"The worker process that answered {how}.")
    of_prompt, of_answer = len(request.text) // CHARACTERS + 1, request.max_tokens or ANSWER
    usage = Usage(input_tokens=of_prompt, output_tokens=of_answer, estimated=True)
    error.partial = Message("assistant", "", usage=usage)
    return error


News = Part | Response | End | str
"""What a request hears of its worker; a text says how the worker died."""


class _Worker(Peer):
    """The connection to a worker process.

    Attributes:
        process: the process.
        is_running: whether it has said that it runs.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        process: Process,
        connected: Callable[[_Worker], object],
        lost: Callable[[_Worker, Scheduler], object],
    ) -> None:
        super().__init__(scheduler.loop)
        self.process = process
        self.is_running = False
        self._scheduler = scheduler
        self._connected = connected
        self._lost = lost
        self._loaded: set[int] = set()
        self._in_flight: dict[int, asyncio.Queue[News]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the pool."""
        super().connection_made(transport)
        self._connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the pool."""
        self._lost(self, self._scheduler)

    def load(self) -> int:
        """Return the number of requests in flight."""
        return len(self._in_flight)

    def begin(self, ask: Ask, pickled: bytes) -> asyncio.Queue[News]:
        """Send a request, and return the queue of the messages about it."""
        if ask.model not in self._loaded:
            self._loaded.add(ask.model)
            self.send(line(Load(ask.model, pickled)))
        self.send(line(ask))
        news: asyncio.Queue[News] = asyncio.Queue()
        self._in_flight[ask.number] = news
        return news

    def leave(self, number: int) -> None:
        """Drop a request, unless it has ended."""
        if self._in_flight.pop(number, None) is not None and not self._loop.is_closed():
            self.send(line(Drop(number)))

    def received(self, message: bytes) -> None:
        """Pass a message on to its request."""
        read = to_parent(message)
        if isinstance(read, Ready):
            self.is_running = True
            return
        ends = isinstance(read, End)
        news = self._in_flight.pop(read.number, None) if ends else self._in_flight.get(read.number)
        if news is not None:  # else the request was dropped
            news.put_nowait(read)

    def end(self, how: str) -> None:
        """Tell all requests how the worker died."""
        in_flight, self._in_flight = self._in_flight, {}
        for news in in_flight.values():
            news.put_nowait(how)
