"""`budgeted`: send requests while a `Budget` lasts.

States of a request: reserving (a thread reserves in the file), waiting (other requests have reserved the rest of the
budget; only in a job), running, settling (a thread writes what the request took), ended. They change on the event loop
of the request. A disposed request settles, too, after its dispose.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, cast

from attrs import frozen
from reactivex import Observable, abc

from ..errors import RxllmError
from ..llm import LLM
from ..misuse import MisuseError
from ..operators.answering import CHARACTERS
from ..operators.attempts import Begin
from ..prices import price_of
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Baggage, Scheduler, scheduler_for
from ..runtime.source import Source, connect
from ..runtime.threads import from_thread
from ..values.chunk import Chunk
from ..values.request import Request
from ._combined import CombinedLLM, combined, model_of, parts_of
from .asked import asked
from .budget import Budget, Reservation, Used
from .limits import Spent

__all__ = ["ANSWER", "MAY_WAIT", "budgeted", "budgets_of", "wanted_by"]

_log = logging.getLogger("rxllm")

MAY_WAIT = Baggage[bool](default=False)
"""Whether a request waits while the rest of a budget is only reserved, instead of failing at once."""
_HELD = Baggage[tuple[Budget, ...]](())
"""The budgets of which an enclosing request holds a part. A request must not wait for a request that encloses it."""

ANSWER = 500  # tokens of an answer without max_tokens, where it is estimated


@frozen
class _Budgeted:
    name: ClassVar[str] = "budgeted"

    budget: Budget

    def identity(self, of: tuple[str, ...]) -> str:
        """The identity of the model, because its answers do not change."""
        return of[0]

    def __call__(self, begins: tuple[Begin[Chunk], ...], request: Request) -> Observable[Chunk]:
        """Ask the model if the budget has enough left."""
        begin, budget = begins[0], self.budget

        def subscribe(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            wanted = wanted_by(model_of(begin), request, budget)
            return _Spending(observer, scheduler_for(requested), begin, budget, wanted, request)

        return Source(subscribe)


def budgets_of(llm: LLM) -> list[Budget]:
    """Return the budgets of a model and of the models in it."""
    hows = (part.how for part in parts_of(llm) if isinstance(part, CombinedLLM))
    return [how.budget for how in hows if isinstance(how, _Budgeted)]


def wanted_by(llm: LLM, request: Request, budget: Budget, *, in_batch: bool = False) -> Used:
    """Return what a request will take, `in_batch` by a vendor's batch API. Of several models it counts the dearest.

    Raises:
        MisuseError: the budget is in dollars, and a model has no price.
    """
    of_prompt, of_answer, cost = len(request.text) // CHARACTERS + 1, 0, Decimal(0)
    for leaf, of_leaf in asked(llm, request):
        output = of_leaf.max_tokens or ANSWER
        of_answer = max(of_answer, output)
        if budget.cost is None or (service := leaf.service(of_leaf)).model is None:
            continue
        tokens = {"input_tokens": of_prompt, "output_tokens": output}
        name, now = service.model or "", time.time()
        price = price_of(name, tokens, service.provider, service.address, now, in_batch=in_batch)
        if price is None:
            raise MisuseError(
                f"No price is known for {service.model}, so a Budget in dollars cannot count it. "
                "Limit the tokens instead."
            )
        cost = max(cost, price)
    return Used(of_prompt + of_answer, cost)


class _Spending(abc.ObserverBase[Chunk], abc.DisposableBase):
    """One request.

    Attributes:
        spent: the tokens and the cost of all models that take part.
        reservation: what the request has reserved; None before, and after it was settled.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Chunk],
        scheduler: Scheduler,
        begin: Begin[Chunk],
        budget: Budget,
        wanted: Used,
        request: Request,
    ) -> None:
        self.observer = observer
        self.scheduler = scheduler
        self.begin = begin
        self.budget = budget
        self.wanted = wanted
        self.request = request
        self.spent = Spent(priced=budget.cost is not None)
        self.reservation: Reservation | None = None
        self.current = LockFreeSerialDisposable()
        self.lock = threading.Lock()  # of `reservation` until the request is sent
        self.reservations = budget._reservations  # pyright: ignore[reportPrivateUsage]
        self.waits = scheduler.carried(MAY_WAIT) and budget not in scheduler.carried(_HELD)
        self.begin_reserving()

    def begin_reserving(self) -> None:
        """Reserve what the request will take, in a thread."""
        # The event loop's thread may reserve, and send the request, before `subscribe` returns here.
        self.current.disposable = reserving = LockFreeSerialDisposable()
        reserving.disposable = from_thread(self.reserve).subscribe(
            self.reserved, self.refused, scheduler=self.scheduler
        )

    def refused(self, error: Exception) -> None:
        """End with an error before the request is sent."""
        if isinstance(error, RxllmError):
            error.request = self.request.without_secrets()
        self.observer.on_error(error)

    def reserve(self) -> bool:
        """Return whether the request has a reservation. Give it back if the subscriber has left meanwhile."""
        reservation = self.reservations.take(
            partial(self.budget.reserve, self.wanted), self.woken if self.waits else None
        )
        if reservation is None:
            return False
        with self.lock:
            is_disposed = self.current.is_disposed
            self.reservation = None if is_disposed else reservation
        if is_disposed:
            self.write_used(reservation, Used())
        return True

    def woken(self) -> None:
        """Reserve again, because a request has settled. This method may be called from any thread."""
        self.scheduler.call(self.reserve_again)

    def reserve_again(self) -> None:
        """Reserve again, or let the next request do so if this one was disposed."""
        self.reservations.wake() if self.current.is_disposed else self.begin_reserving()

    def reserved(self, has_reservation: bool) -> None:
        """Send the request, if it has a reservation."""
        if not has_reservation:
            return
        self.current.disposable = upstream = LockFreeSerialDisposable()
        scheduler = self.spent.heard(self.scheduler)
        scheduler = scheduler.with_baggage(_HELD, (*scheduler.carried(_HELD), self.budget)).evolve(
            lifetime=scheduler.lifetime.handled_also_by(self.broken)
        )
        try:
            upstream.disposable = connect(self.begin(), self, scheduler)
        except Exception as error:
            self.on_error(error)

    def on_next(self, value: Chunk) -> None:
        self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        self.settle(lambda _: self.observer.on_error(error))

    def on_completed(self) -> None:
        self.settle(lambda _: self.observer.on_completed())

    def settle(self, then: Callable[[object], None]) -> None:
        """Write what the request took, and then go on."""
        reservation, self.reservation = self.reservation, None
        if reservation is None:
            then(None)
        else:
            self.current.disposable = from_thread(partial(self.write, reservation)).subscribe(
                then, partial(self.kept, then), scheduler=self.scheduler
            )

    def kept(self, then: Callable[[object], None], error: Exception) -> None:
        """Go on without settling, because the answer is paid."""
        _log.warning("The budget %r counts an estimate: it could not be written (%s).", self.budget.name, error)
        then(None)

    def write(self, reservation: Reservation) -> None:
        """Write what the request took. An answer without a price, which is paid, takes its estimate, too."""
        cost = self.spent.cost
        if self.spent.unpriced:
            names = ", ".join(sorted(self.spent.unpriced))
            _log.warning("No price is known for %s. The budget %r counts an estimate.", names, self.budget.name)
            cost += reservation.used.cost
        self.write_used(reservation, Used(self.spent.tokens, cost))

    def broken(self, error: BaseException) -> None:
        """Release the reservation if the event loop ends, because this request then never settles."""
        if isinstance(error, asyncio.CancelledError):
            reservation, self.reservation = self.reservation, None
            if reservation is not None:
                self.reservations.release()

    def write_used(self, reservation: Reservation, used: Used) -> None:
        """Replace the reservation in the file, and wake a waiting request."""
        try:
            self.budget.settle(reservation, used)
        finally:
            self.reservations.release()

    def dispose(self) -> None:
        """Stop the request, from any thread."""
        self.scheduler.call(self.leave)

    def leave(self) -> None:
        """Dispose the request, and settle what it has taken so far."""
        self.current.dispose()
        with self.lock:
            reservation, self.reservation = self.reservation, None
        if reservation is not None:
            from_thread(partial(self.write, reservation)).subscribe(on_error=self.lost, scheduler=self.scheduler)

    def lost(self, error: Exception) -> None:
        """Report that a disposed request could not be settled."""
        self.scheduler.report("The budget of a disposed request could not be settled.", error)


def budgeted(llm: LLM, budget: Budget) -> LLM:
    """Send requests while a budget lasts. A request that the budget cannot pay fails before it is sent.

    ::

        llm                     ---a-b-|
        budgeted(llm, budget)   ---a-b--|

    The request reserves an estimate: its prompt (one token for 4 characters), and its ``max_tokens`` or 500. When it
    ends, the budget gets what all models that took part report, also for an answer that failed or was disposed. Write
    ``cached(budgeted(…))``, so that stored answers cost nothing. In a `job`, a request that cannot reserve waits while
    running requests hold reservations through the same Budget object.

    If the price list lacks a model that took part, such as one that a tool asked, the estimate counts for it, and a
    warning is logged.

    If what a request took cannot be written, because the disk is full, its answer still arrives, its reservation stays,
    and a warning is logged.

    Errors: those of the model. `LimitReached` with the limit ``budget`` before the request is sent, also if the file of
        the budget cannot be used. MisuseError if the budget is in dollars and the model has no price; nothing is sent
        then.

    Raises:
        MisuseError: `llm` is not a model, or `budget` is not a Budget.
    """
    if not isinstance(cast("object", llm), LLM):
        raise MisuseError(f"budgeted takes a model, not {type(llm).__name__}.")
    if not isinstance(cast("object", budget), Budget):
        raise MisuseError(
            f"budgeted takes a Budget, such as rxllm.Budget('budgets.sqlite', cost=5), not {type(budget).__name__}."
        )
    return cast("LLM", combined(cast("Any", _Budgeted(budget)), llm))
