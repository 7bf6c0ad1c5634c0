"""A worker process of a job: ``python -m rxllm.jobs.worker 5``, where 5 is the descriptor of a socket.

It asks models, and does nothing else: the parent reads the rows, keeps limits and budgets, and writes the journal. It
ends when the parent closes the socket, which the system does when the parent dies.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from functools import partial

from reactivex import abc

from ..errors import RxllmError
from ..llm import LLM
from ..misuse import MisuseError
from ..operators.attempts import RETRIED_ABOVE
from ..records import to_json
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.executor import start_thread
from ..runtime.portal import loop_factory
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect
from ..values.chunk import Chunk
from ..wire.rates import ON_RESPONSE
from ..wire.repeats import IDEMPOTENCY_KEY
from .exchange import (
    Ask,
    Drop,
    End,
    Failed,
    Load,
    Part,
    Peer,
    Ready,
    Response,
    error_record,
    line,
    request_of_record,
    to_worker,
)
from .models import unpickled

__all__ = ["PATIENCE", "Worker", "main"]

PATIENCE = 2.0  # seconds from the end of the parent to that of a worker whose event loop is blocked
_LIMITS = ("ratelimit", "retry-after")  # in the names of headers that a limiter reads
_GARBAGE = (50_000, 20, 100)  # as in the parent: many requests are many objects, and none of them is garbage


class Worker(Peer):
    """Asks the models for the parent at the other end of the connection.

    Attributes:
        ended: whether the connection is closed.
        running: the requests in flight, by their numbers.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler.loop)
        self.scheduler = scheduler
        self.ended = asyncio.Event()
        self.running: dict[int, _Request] = {}
        self._pickles: dict[int, bytes] = {}
        self._models: dict[int, LLM] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the parent that the worker runs."""
        super().connection_made(transport)
        self.send(line(Ready()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all requests: the parent has ended."""
        for request in list(self.running.values()):
            request.current.dispose()
        self.ended.set()

    def received(self, message: bytes) -> None:
        """Do what the parent asks for."""
        match to_worker(message):
            case Load(model, pickled):
                self._pickles[model] = pickled
            case Ask() as ask:
                self.running[ask.number] = request = _Request(self, ask.number)
                self._begin(ask, request)
            case Drop(number):
                if dropped := self.running.pop(number, None):
                    dropped.current.dispose()

    def _begin(self, ask: Ask, request: _Request) -> None:
        scheduler = self.scheduler.with_baggage(IDEMPOTENCY_KEY, ask.key).with_baggage(RETRIED_ABOVE, ask.is_retried)
        scheduler = scheduler.evolve(lifetime=scheduler.lifetime.handled_by(request.broken))
        if ask.is_heard:
            scheduler = scheduler.with_baggage(ON_RESPONSE, request.responded)
        try:
            answer = self._model(ask.model)(request_of_record(ask.request))
            request.current.disposable = connect(answer, request, scheduler)
        except Exception as error:
            request.on_error(error)

    def _model(self, number: int) -> LLM:
        model = self._models.get(number)
        if model is None:
            try:
                model = self._models[number] = unpickled(self._pickles[number])
            except Exception as error:
                raise MisuseError(
                    f"A worker process cannot make the model: {type(error).__name__}: {error}. The modules that the "
                    "model needs must be importable there."
                ) from error
        return model


class _Request(abc.ObserverBase[Chunk]):
    """A request in flight. It sends what its model emits."""

    def __init__(self, worker: Worker, number: int) -> None:
        self.worker = worker
        self.number = number
        self.current = LockFreeSerialDisposable()

    def responded(self, place: str, status: int, headers: Mapping[str, str]) -> None:
        """Send the beginning of a response, for a limiter in the parent."""
        about_limits = {name: value for name, value in headers.items() if any(word in name for word in _LIMITS)}
        self.worker.send(line(Response(self.number, place, status, about_limits)))

    def on_next(self, value: Chunk) -> None:
        try:
            message = line(Part(self.number, to_json(value)))
        except (TypeError, ValueError) as error:  # MisuseError is a TypeError
            self.current.dispose()
            self.on_error(RxllmError(f"The answer cannot leave its worker process, because it is not JSON: {error}"))
        else:
            self.worker.send(message)

    def on_error(self, error: Exception) -> None:
        self.end(error_record(error))

    def on_completed(self) -> None:
        self.end(None)

    def broken(self, error: BaseException) -> bool:
        """Fail the answer when code around its stream raised, since the stream then never ends."""
        if not isinstance(error, Exception):
            return False
        self.current.dispose()
        self.on_error(error)
        return True

    def end(self, error: Failed | None) -> None:
        """Send the end of the answer, unless it was sent already."""
        if self.worker.running.pop(self.number, None):
            self.worker.send(line(End(self.number, error)))


def main() -> None:
    """Work until the parent closes the socket."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent drains, and then ends this process
        signal.signal(number, signal.SIG_IGN)
    gc.set_threshold(*_GARBAGE)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        connection.set_inheritable(False)
        start_thread("rxllm-watch", partial(_end_with_parent, connection.fileno()))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_work(connection))


async def _work(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    _, worker = await loop.create_unix_connection(lambda: Worker(Scheduler(loop)), sock=connection)
    await worker.ended.wait()


def _end_with_parent(descriptor: int) -> None:
    """End the process when the parent has closed the socket, even if a model blocks the event loop."""
    closed = select.poll()
    closed.register(descriptor, 0)  # reports nothing but the end
    closed.poll()
    time.sleep(PATIENCE)
    os._exit(0)


if __name__ == "__main__":
    main()
