"""`Spending`: the batches of a job reserve in a `Budget` what they may cost, and give back what they did not take.

The record of a batch in `Intents` has its reservation, so the run that reads the batch settles it, also after a crash.
It is written before the upload, which may take minutes, and after the reservation: a crash in the milliseconds between
these two leaves the reservation as spent.
The record of the end is written first: a crash after it leaves the reservation as spent, and a reservation is never
given back twice.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from ..combinators.asked import asked
from ..combinators.budget import Budget, Reservation, Used
from ..combinators.budgeted import budgets_of, wanted_by
from ..errors import LimitReached
from ..llm import LLM
from ..prices import price_of
from ..providers.batch_values import Outcome
from ..runtime.scheduler import Scheduler
from ..runtime.threads import in_thread
from ..values.message import Message
from ..values.request import Request
from .intents import Intent, Intents
from .rows import Row

__all__ = ["Spending"]

_log = logging.getLogger("rxllm")


class Spending:
    """What the batches of a job reserve and take. It serves one subscription, whose event loop calls the methods.

    Args:
        llm: the model of the job. Without `budgeted` in it, nothing is counted.
        intents: the batches on the disk.
    """

    def __init__(self, llm: LLM, intents: Intents) -> None:
        self._llm = llm
        self._intents = intents
        self._budget = next(iter(budgets_of(llm)), None)
        self._held = 0  # the batches of this job that have not settled
        self._settled = asyncio.Event()  # set when a batch settles, and replaced
        self._turn = asyncio.Lock()  # so that `_held` has all reservations that the file has when a batch finds no room

    async def reserve(self, scheduler: Scheduler, intent: Intent, rows: Sequence[Row]) -> int:
        """Reserve what the first rows may take for a batch, and return how many have room: at least one.

        It waits while batches of this job hold the rest of the budget: they may give back a part of it.

        Raises:
            LimitReached: the budget has no room for the first row.
            MisuseError: the budget is in dollars, and the model has no price.
            OSError: the reservation cannot be written down.
        """
        budget = self._budget
        if budget is None:
            return len(rows)
        wanted = await in_thread(scheduler, partial(self._wanted, budget, rows))
        while True:
            async with self._turn:
                settled = self._settled
                try:
                    count, intent.reserved = await self._reserved(scheduler, budget, intent, wanted)
                except LimitReached:
                    if not self._held and not settled.is_set():
                        raise
                else:
                    self.hold(intent.reserved)
                    return count
            await settled.wait()

    async def _reserved(
        self, scheduler: Scheduler, budget: Budget, intent: Intent, wanted: Sequence[Used]
    ) -> tuple[int, Reservation]:
        """Reserve in a thread, and write it down. If this is cancelled, it is given back here, or later by the thread.

        Raises:
            LimitReached: the budget has no room for the first one.
            OSError: the reservation cannot be written down.
        """
        lock = threading.Lock()  # of the two variables
        is_left, taken = False, None

        def reserve() -> tuple[int, Reservation]:
            nonlocal taken
            count, reservation = budget.reserve_first(wanted)
            noted = msgspec.structs.replace(intent, reserved=reservation)
            try:
                self._intents.write(noted)
            except OSError:
                self._settle(budget, reservation, Used())
                raise
            with lock:
                taken, is_late = noted, is_left
            if is_late:
                self.end(noted, Used())
            return count, reservation

        try:
            return await in_thread(scheduler, reserve)
        except asyncio.CancelledError:
            with lock:
                is_left, early = True, taken
            if early is not None:
                with suppress(OSError):  # then the next run does it
                    self.end(early, Used())
            raise

    def _wanted(self, budget: Budget, rows: Sequence[Row]) -> list[Used]:
        return [wanted_by(self._llm, row.request, budget, in_batch=True) for row in rows]

    def hold(self, reservation: Reservation | None) -> None:
        """Note that a batch has a reservation: this run, or an earlier one, made it."""
        self._held += reservation is not None

    def end(self, intent: Intent, used: Used) -> None:
        """Write down that a batch is over, and replace its reservation by what it took. This blocks, in any thread.

        Raises:
            OSError: it cannot be written. The next run does it.
        """
        self._intents.write(Intent(intent.tag, intent.at, ended=True))
        if intent.reserved is not None and self._budget is not None:
            self._settle(self._budget, intent.reserved, used)

    def _settle(self, budget: Budget, reservation: Reservation, used: Used) -> None:
        try:
            budget.settle(reservation, used)
        except (sqlite3.Error, OSError) as error:  # the answers are paid and written
            _log.warning("The budget counts an estimate of a batch: it could not be written (%s).", error)

    def release(self, scheduler: Scheduler, reservation: Reservation | None) -> None:
        """Note, in any thread, that a batch gives nothing back any more, so that no other one waits for it."""
        if reservation is not None:
            scheduler.call(self._release)

    def _release(self) -> None:
        self._held -= 1
        self._settled.set()
        self._settled = asyncio.Event()

    def used(self, intent: Intent, outcomes: Mapping[str, Outcome]) -> Used:
        """Return what a batch took: nothing for the rows that it did not answer.

        An answer without a usage or a price takes its share of the reservation.
        """
        total, reservation = Used(), intent.reserved
        if reservation is None or self._budget is None:
            return total
        count, reserved = len(intent.rows), reservation.used
        share = Used(-(-reserved.tokens // count), reserved.cost / count)
        for row in intent.rows:
            outcome = outcomes.get(row.key, Outcome())
            if outcome.is_paid:
                total += self._taken(outcome, priced=self._budget.cost is not None) or share
        return total

    def _taken(self, outcome: Outcome, *, priced: bool) -> Used | None:
        """Return what an answer took; None if that is unknown."""
        answer = outcome.value
        if not isinstance(answer, Message) or answer.usage is None:
            return None
        counts = answer.usage.counts
        if not {"input_tokens", "output_tokens"} <= counts.keys():
            return None
        tokens = counts["input_tokens"] + counts["output_tokens"]
        if not priced:
            return Used(tokens)
        leaf, of_leaf = next(asked(self._llm, Request.ask("")))
        service = leaf.service(of_leaf)
        # The answer names the model more exactly than the request, but price lists may lack its newest name.
        for name in filter(None, (answer.model, service.model)):
            cost = price_of(name, counts, service.provider, service.address, time.time(), in_batch=True)
            if cost is not None:
                return Used(tokens, cost)
        return None
