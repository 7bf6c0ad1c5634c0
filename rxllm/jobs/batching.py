"""A job by a vendor's batch API: rows are sent together, and answered within a day at a lower price.

States of a batch: reserved (in a `Budget`), uploaded, written down (in `Intents`), created, ended (the vendor has
answered or given up), read (its results are in the journal). A crash leaves a record from which the next run goes on.
Requests that the vendor did not answer, because the day was over or its server failed, form the next batch.

A batch is written down just before its creation, because only the creation costs something. A creation without a clear
response may have succeeded, so the batch is looked for before it is created again: see `confirming`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
from reactivex import Observable

from ..combinators.asked import asked
from ..combinators.budget import Used
from ..combinators.budgeted import budgets_of
from ..errors import RxllmError
from ..llm import LLM
from ..misuse import MisuseError
from ..providers.batch_values import BatchState, Draft, Outcome
from ..providers.batches import BatchAPI
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from ..runtime.threads import in_thread
from ..values.request import Request
from .answered import NO_NUMBER, Answered
from .collecting import Refused, ended, outcomes
from .confirming import created, found
from .intents import Intent, Intents, Noted
from .parts import Part, Parts, request_line
from .patience import patiently
from .room import Room
from .rows import Row
from .spending import Spending

__all__ = ["Batching", "api_of"]

ATTEMPTS = 5  # batches for a row, at most
BYTES = 100_000_000  # of a batch, at most: it is in memory while it is sent


def api_of(llm: LLM) -> BatchAPI:
    """Return the batch API of a model.

    Raises:
        MisuseError: the model consists of several models, has several budgets, or has no batch API.
    """
    if len(budgets_of(llm)) > 1:
        raise MisuseError("via='batch-api' counts in one budget, but the model has several. Pass one budgeted(…).")
    leaves = [leaf for leaf, _ in asked(llm, Request.ask(""))]
    make: Callable[[], BatchAPI] | None = getattr(leaves[0], "batches", None) if len(leaves) == 1 else None
    if make is None:
        raise MisuseError(
            "via='batch-api' needs one model with a batch API: rxllm.OpenAI, rxllm.Anthropic or rxllm.Gemini."
        )
    return make()


class Batching:
    """Asks for parts of the rows, each in a batch. `batch_as_completed` asks it. It serves one subscription.

    Args:
        api: the vendor's API.
        intents: the batches on the disk.
        parts: takes the rows that must be sent again.
        begin: gives a row its number among the answers.
        failure: returns why the job stops early; None if it goes on.
        spending: reserves what the batches may cost.
    """

    def __init__(
        self,
        api: BatchAPI,
        intents: Intents,
        parts: Parts,
        begin: Callable[[Noted], int],
        failure: Callable[[], Exception | None],
        spending: Spending,
    ) -> None:
        self._api = api
        self._spending = spending
        self._intents = intents
        self._parts = parts
        self._begin = begin
        self._failure = failure
        self._batches: set[str] = set()  # the ids of all batches of the job
        self._room = Room()

    def answer(self, part: Part, /) -> Observable[Answered]:
        """Emit the answers to the rows of a part. Rows that the vendor did not answer form the next part."""

        async def run(scheduler: Scheduler) -> AsyncIterator[Answered]:
            lines = await in_thread(scheduler, lambda: self._lines(part.rows[: self._room.most]))
            intent = Intent(uuid.uuid4().hex, 0.0, api=self._api.name)
            count = await self._spending.reserve(scheduler, intent, part.rows[: len(lines)])
            del lines[count:]
            is_alone = not self._room.running
            now, later = part.rows[: len(lines)], part.rows[len(lines) :]
            if later:
                self._parts.again(attrs.evolve(part, rows=later))
            try:
                answered = await self._answered(scheduler, attrs.evolve(part, rows=now), lines, intent)
            except Refused as refused:
                if not refused.is_full:
                    raise refused.error from None
                again = attrs.evolve(part, rows=now, refusals=part.refusals + is_alone)
                await self._room.wait(again, refused.error, is_alone=is_alone)
                self._parts.again(again)
                answered = Answered([])
            self._parts.done()
            yield answered

        return source(run)

    def earlier(self, is_written: Callable[[Noted], bool]) -> Source[Answered]:
        """Emit the answers of the batches that an earlier run has created and not read."""

        async def run(scheduler: Scheduler) -> AsyncIterator[Answered]:
            await in_thread(scheduler, self._intents.mend)
            self._batches = await in_thread(scheduler, self._intents.batches)
            for intent in await in_thread(scheduler, self._intents.reserved):
                self._spending.hold(intent.reserved)
                await in_thread(scheduler, partial(self._end, scheduler, intent, Used()))
            for intent in await in_thread(scheduler, self._intents.open):
                self._check(intent)
                self._spending.hold(intent.reserved)
                results: dict[str, Outcome] = {}
                if not intent.batch and (batch := await found(self._api, intent, self._batches, self._advice)):
                    await self._confirm(scheduler, intent, batch)
                answers: list[tuple[int, Any]] = []
                if intent.batch:
                    try:
                        _, results = await self._results(scheduler, intent)
                    except Refused as refused:
                        if not refused.is_full:
                            raise refused.error from None
                        continue  # the job sends its rows again
                    answers = self._pairs((row for row in intent.rows if not is_written(row)), results)
                end = partial(self._end, scheduler, intent, self._spending.used(intent, results))
                async for some in Answered(answers, end).in_slices():
                    yield some
                if (failure := self._failure()) is not None:
                    raise failure

        return source(run)

    def _check(self, intent: Intent) -> None:
        """Check that the model can read a batch.

        Raises:
            MisuseError: the batch is at another vendor.
        """
        if intent.api not in ("", self._api.name):
            raise MisuseError(
                f"{str(self._intents.path)!r} has open batches at {intent.api}, and this model is one of "
                f"{self._api.name}. Run the job with a model of {intent.api} first."
            )

    def _lines(self, rows: Sequence[Row]) -> list[bytes]:
        """Return the requests of the first rows, as many as a batch may have. This method reads files.

        Raises:
            MisuseError: a request cannot be sent in a batch.
        """
        lines: list[bytes] = []
        left = min(self._api.max_bytes, BYTES)
        for row in rows:
            line = request_line(self._api, row)
            left -= len(line) + 1
            if lines and left < 0:
                break
            lines.append(line)
        return lines

    async def _answered(self, scheduler: Scheduler, part: Part, lines: list[bytes], intent: Intent) -> Answered:
        """Send a part as one batch, and return its answers.

        Raises:
            Refused: the vendor refused it.
        """
        draft = Draft(intent.tag, part.model, lines)
        try:
            intent.file = await patiently(lambda: self._api.upload(draft))
            intent.at, intent.rows = time.time(), [*map(Noted.of, part.rows)]
            await self._write(scheduler, intent)
        except BaseException as error:
            if intent.reserved is not None and (not intent.rows or isinstance(error, OSError)):
                with suppress(OSError):  # then the next run gives it back
                    self._end(scheduler, intent, Used())  # not in a thread: the process may end soon
            else:  # a cancelled write may have made the record, so the next run looks for the batch
                self._spending.release(scheduler, intent.reserved)
            raise
        self._room.enter()
        try:
            batch = await self._created(scheduler, draft, intent)
            lines.clear()  # a batch may take a day
            await self._confirm(scheduler, intent, batch)
            state, results = await self._results(scheduler, intent)
        except Refused:
            self._room.leave(has_room=False)
            raise
        self._room.leave(has_room=True)
        left = [row for row in part.rows if results.get(row.key, Outcome()).is_open]
        pairs = self._pairs(intent.rows, results)
        if left and state.cancelled:
            pairs.append((NO_NUMBER, _cancelled(intent.batch)))
        elif left and part.attempt < ATTEMPTS:
            self._parts.again(Part(part.model, left, part.attempt + 1))
        else:
            pairs += [
                (self._begin(Noted.of(row)), results.get(row.key, Outcome()).value or _unanswered()) for row in left
            ]
        return Answered(pairs, partial(self._end, scheduler, intent, self._spending.used(intent, results)))

    async def _created(self, scheduler: Scheduler, draft: Draft, intent: Intent) -> str:
        """Create a batch, and return its id.

        Raises:
            Refused: the vendor refused it.
        """
        try:
            return await created(self._api, draft, intent, self._batches, self._advice)
        except Refused:  # it does not exist, so a resumed job must not look for it
            await in_thread(scheduler, lambda: self._end(scheduler, intent, Used()))
            raise

    async def _results(self, scheduler: Scheduler, intent: Intent) -> tuple[BatchState, dict[str, Outcome]]:
        """Wait for the end of a batch, and return its outcomes by the keys of the rows.

        Raises:
            Refused: the vendor refused it.
        """
        try:
            state = await ended(self._api, intent.batch, self._advice)
        except Refused:  # nothing was answered, so the next run must send the rows again
            await in_thread(scheduler, lambda: self._end(scheduler, intent, Used()))
            raise
        keys = {row.key for row in intent.rows}
        return state, await outcomes(self._api, intent.batch, state, keys, self._advice)

    def _pairs(self, rows: Iterable[Noted], results: dict[str, Outcome]) -> list[tuple[int, Any]]:
        """Return the outcomes of the rows that need not be sent again."""
        found = ((row, results.get(row.key, Outcome())) for row in rows)
        return [(self._begin(row), outcome.value) for row, outcome in found if not outcome.is_open]

    async def _confirm(self, scheduler: Scheduler, intent: Intent, batch: str) -> None:
        """Write down the vendor's id of a batch."""
        intent.batch = batch
        self._batches.add(batch)
        await self._write(scheduler, Intent(intent.tag, intent.at, batch=batch))

    async def _write(self, scheduler: Scheduler, intent: Intent) -> None:
        await in_thread(scheduler, lambda: self._intents.write(intent))

    def _end(self, scheduler: Scheduler, intent: Intent, used: Used) -> None:
        """Write down that a batch is read, and what it took."""
        try:
            self._spending.end(intent, used)
        finally:  # without the record, the next run settles
            self._spending.release(scheduler, intent.reserved)

    @property
    def _advice(self) -> str:
        """What to do about a batch that the vendor does not know any more."""
        return (
            "Use the key that created it. To pay for the rows of open batches again, remove "
            f"{str(self._intents.path)!r}."
        )


def _unanswered() -> RxllmError:
    return RxllmError(f"The vendor did not answer the request in {ATTEMPTS} batches.")


def _cancelled(batch: str) -> RxllmError:
    return RxllmError(
        f"The batch {batch} was cancelled. Its answers are in the journal; run the same job to send the rest again."
    )
