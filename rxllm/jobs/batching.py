"""A job by a vendor's batch API: rows are sent in files, and answered within a day at a lower price.

States of a batch: written down (in `Intents`), uploaded, created, ended (the vendor has answered or given up), read
(its results are in the journal). A crash at any point leaves a record from which the next run goes on. Requests that
the vendor did not answer, because the day was over or its server failed, form the next batch.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import frozen
from reactivex import Observable, abc

from ..combinators.asked import asked
from ..errors import ProviderError, RxllmError
from ..llm import LLM
from ..misuse import MisuseError
from ..operators.backoff import is_retryable
from ..operators.observer import RefusingObserver
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from ..runtime.threads import in_thread
from ..values.message import Message
from ..values.request import Request
from .intents import Intent, Intents, Noted
from .rows import Row

__all__ = ["Answered", "BatchAPI", "Batching", "api_of", "in_parts"]

POLL = (30.0, 60.0, 120.0, 300.0)  # seconds between two looks at a batch; the last one repeats
GRACE = 60.0  # seconds after which a batch that the vendor does not list was not made
FIND = 5.0  # seconds between two looks at the list
ROUNDS = 5  # batches for a row, at most
FAILURES = 20  # looks at a batch that may fail in a row

Outcomes = dict[str, Message | Exception | None]
Part = tuple[list[Row], list[bytes]]
"""Rows that make up a batch, and the lines of their requests."""


class BatchState(Protocol):
    """The state of a batch: whether it has ended, its files of results, and why it was refused as a whole."""

    @property
    def ended(self) -> bool:
        """Whether its results are complete."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """The ids of its files of results."""
        ...

    @property
    def error(self) -> str | None:
        """Why the vendor refused the whole batch."""
        ...


class BatchAPI(Protocol):
    """A vendor's batch API, as a provider's ``batches()`` returns it."""

    max_requests: int
    max_bytes: int

    def line(self, name: str, request: Request) -> bytes:
        """Return the line of a request."""
        ...

    async def upload(self, lines: Sequence[bytes]) -> str:
        """Upload a file."""
        ...

    async def create(self, file: str, tag: str) -> str:
        """Begin a batch."""
        ...

    async def find(self, tag: str) -> str | None:
        """Return the id of the batch with a tag."""
        ...

    async def state(self, batch: str) -> BatchState:
        """Return the state of a batch."""
        ...

    async def cancel(self, batch: str) -> None:
        """Cancel a batch."""
        ...

    def results(self, file: str) -> AsyncIterator[tuple[str, Message | Exception | None]]:
        """Yield the outcomes in a file."""
        ...


def api_of(llm: LLM) -> BatchAPI:
    """Return the batch API of a model.

    Raises:
        MisuseError: the model consists of several models, or has no batch API.
    """
    leaves = [leaf for leaf, _ in asked(llm, Request.ask(""))]
    make: Callable[[], BatchAPI] | None = getattr(leaves[0], "batches", None) if len(leaves) == 1 else None
    if make is None:
        raise MisuseError("via='batch-api' needs one model with a batch API, such as rxllm.OpenAI('gpt-5-mini').")
    return make()


def in_parts(rows: Observable[Row], api: BatchAPI) -> Source[Part]:
    """Group rows into batches, by their number and their size."""

    def subscribe(observer: abc.ObserverBase[Part], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        return _Grouping(observer, api).start(rows, scheduler)

    return Source(subscribe)


class _Grouping(RefusingObserver[Row, Part]):
    """Collects rows until a batch is full."""

    __slots__ = ("api", "lines", "rows", "size")

    def __init__(self, observer: abc.ObserverBase[Part], api: BatchAPI) -> None:
        super().__init__(observer)
        self.api = api
        self.rows: list[Row] = []
        self.lines: list[bytes] = []
        self.size = 0

    def on_next(self, value: Row) -> None:
        try:
            line = self.api.line(value.key, value.request)
        except MisuseError as error:
            self.refuse(MisuseError(f"Row {value.number + 1} of the input: {error}"))
            return
        if self.rows and (len(self.rows) >= self.api.max_requests or self.size + len(line) > self.api.max_bytes):
            self.pass_on()
        self.rows.append(value)
        self.lines.append(line)
        self.size += len(line)

    def on_completed(self) -> None:
        """Pass the last rows on, and complete."""
        if self.rows:
            self.pass_on()
        super().on_completed()

    def pass_on(self) -> None:
        """Emit the batch, and begin the next one."""
        part = self.rows, self.lines
        self.rows, self.lines, self.size = [], [], 0
        self.emit(part)


@frozen
class Answered:
    """The answers of batches.

    Attributes:
        pairs: the answers, with the numbers of their rows.
        end: writes down that they are in the journal. It blocks.
    """

    pairs: list[tuple[int, Any]]
    end: Callable[[], None]


class Batching:
    """Asks for parts of the rows, each in a batch. `batch_as_completed` asks it.

    Args:
        api: the vendor's API.
        intents: the batches on the disk.
        begin: gives a row its number among the answers.
    """

    def __init__(self, api: BatchAPI, intents: Intents, begin: Callable[[Noted], int]) -> None:
        self._api = api
        self._intents = intents
        self._begin = begin

    def answer(self, part: Part, /) -> Observable[Answered]:
        """Emit the answers to the rows of a part. Rows that the vendor did not answer form the next batch."""

        async def run(scheduler: Scheduler) -> AsyncIterator[Answered]:
            left = [*zip(map(Noted.of, part[0]), part[1], strict=True)]
            pairs: list[tuple[int, Any]] = []
            ended: list[Intent] = []
            for _ in range(ROUNDS):
                intent = Intent(uuid.uuid4().hex, time.time(), [row for row, _ in left])
                await self._write(scheduler, intent)
                file = await self._api.upload([line for _, line in left])
                await self._made(scheduler, intent, await self._created(file, intent.tag))
                outcomes = await self._outcomes(scheduler, intent)
                ended.append(intent)
                pairs += self._answers(intent.rows, outcomes)
                left = [(row, line) for row, line in left if _is_open(outcomes.get(row.key))]
                if not left:
                    break
            pairs += [(self._begin(row), _unanswered()) for row, _ in left]
            yield Answered(pairs, lambda: self._end(ended))

        return source(run)

    def open_batches(self, is_written: Callable[[Noted], bool]) -> Source[Answered]:
        """Emit the answers of the batches that an earlier run has made and not read."""

        async def run(scheduler: Scheduler) -> AsyncIterator[Answered]:
            await in_thread(scheduler, self._intents.mend)
            for intent in await in_thread(scheduler, self._intents.open):
                if not intent.batch and (batch := await self._found(intent)):
                    await self._made(scheduler, intent, batch)
                outcomes = await self._outcomes(scheduler, intent) if intent.batch else {}
                rows = [row for row in intent.rows if not is_written(row)]
                yield Answered(self._answers(rows, outcomes), partial(self._end, [intent]))

        return source(run)

    def _answers(self, rows: list[Noted], outcomes: Outcomes) -> list[tuple[int, Any]]:
        found = ((row, outcomes.get(row.key)) for row in rows)
        return [(self._begin(row), outcome) for row, outcome in found if not _is_open(outcome)]

    def _end(self, intents: list[Intent]) -> None:
        for intent in intents:
            self._intents.write(Intent(intent.tag, intent.at, ended=True))

    async def _write(self, scheduler: Scheduler, intent: Intent) -> None:
        await in_thread(scheduler, lambda: self._intents.write(intent))

    async def _made(self, scheduler: Scheduler, intent: Intent, batch: str) -> None:
        """Write down the vendor's id of a batch."""
        intent.batch = batch
        await self._write(scheduler, Intent(intent.tag, intent.at, batch=batch))

    async def _created(self, file: str, tag: str) -> str:
        """Create a batch. An error that leaves it open whether it was made is resolved by its tag."""
        try:
            return await self._api.create(file, tag)
        except RxllmError as error:
            if not is_retryable(error):
                raise
            found = await self._found(Intent(tag, time.time()))
            return found or await self._api.create(file, tag)

    async def _found(self, intent: Intent) -> str | None:
        """Return the id of a batch by its tag. The vendor may list it late."""
        while True:
            found = await self._api.find(intent.tag)
            if found is not None or time.time() - intent.at > GRACE:
                return found
            await asyncio.sleep(FIND)

    async def _outcomes(self, scheduler: Scheduler, intent: Intent) -> Outcomes:
        """Wait for the end of a batch, and return its outcomes by the keys of the rows.

        A batch that the vendor refused has ended, too: the next run sends its rows again.

        Raises:
            RxllmError: the vendor refused the whole batch, or does not answer any more.
        """
        batch, looks, failures = intent.batch, 0, 0
        while True:
            try:
                state = await self._api.state(batch)
                if state.error is not None:
                    await self._write(scheduler, Intent(intent.tag, intent.at, ended=True))
                    raise RxllmError(f"The vendor refused the batch {batch}: {state.error}")
                if state.ended:
                    return {name: outcome for file in state.files async for name, outcome in self._api.results(file)}
                failures = 0
            except RxllmError as error:
                if isinstance(error, ProviderError) and error.status == 404:
                    raise RxllmError(
                        f"The vendor has no batch {batch}, or no results of it any more: {error}. Use the key that "
                        f"made it. To pay for the rows of open batches again, remove {str(self._intents.path)!r}."
                    ) from error
                failures += 1
                if not is_retryable(error) or failures > FAILURES:
                    raise
            await asyncio.sleep(POLL[min(looks, len(POLL) - 1)])
            looks += 1


def _is_open(outcome: Message | Exception | None) -> bool:
    """Return whether the row must be asked again."""
    return outcome is None or (isinstance(outcome, Exception) and is_retryable(outcome))


def _unanswered() -> RxllmError:
    return RxllmError(f"The vendor did not answer the request in {ROUNDS} batches.")
