"""`UsageMeter`: the tokens and the cost of each model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

from attrs import frozen

from ..errors import ProviderError
from ..events import Cancelled, Event, Failed, Finished, Run
from ..operators.observer import ignore
from ..prices import check_prices, has_prices, price_of
from ..runtime.forks import reset_in_child
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.usage import Usage
from ._counts import counts
from .local import LocalHandler

__all__ = ["UsageMeter"]

_MAX_UNPRICED = 1024  # answers to keep before the prices are loaded


@frozen
class _Answer:
    """The facts that determine the price of one answer."""

    name: str
    usage: Usage | None
    provider: str
    address: str | None
    time: float


class UsageMeter(LocalHandler):
    """Adds up the tokens and the cost of all runs that it receives, by model; runs may be in any threads.

    A cancelled or failed answer counts with the usage that had arrived.

    The cost comes from the list prices in the package genai-prices (extra ``prices``). Each answer has the price of its
    day and size; nothing is fetched. The request's address determines whose prices apply. For an unknown address, such
    as a gateway's, the protocol's vendor does.

    Attributes:
        requests: the number of models' runs that have ended.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._usage: dict[str, Usage] = {}
        reset_in_child(self._reset)
        self._has_prices = has_prices()
        self._answers: list[_Answer] = []  # without a price so far: loading the prices is slow and happens later
        self._costs: dict[str, Decimal] = {}
        self._unpriced: dict[str, int] = {}

    def _reset(self) -> None:
        """Create a new lock: in a forked child no thread would release the parent's."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        counts = ", ".join(f"{name!r}: {usage!r}" for name, usage in self.usage.items())
        return f"UsageMeter(requests={self.requests}, usage={{{counts}}})"

    @property
    def usage(self) -> dict[str, Usage]:
        """The tokens so far, by model: the name in the answer, else in the request, else the run's name."""
        with self._lock:
            return dict(self._usage)

    @property
    def total(self) -> Usage:
        """The tokens of all models."""
        return sum(self.usage.values(), Usage())

    @property
    def cost(self) -> Decimal | None:
        """The cost in US dollars of all answers with a price; None if no answer has one. `unpriced` counts the others.

        Raises:
            MisuseError: genai-prices is not installed.
        """
        costs = self.costs.values()
        return sum(costs, Decimal(0)) if costs or not self._unpriced else None

    @property
    def costs(self) -> dict[str, Decimal]:
        """The cost in US dollars by model; a model without a price is absent.

        Raises:
            MisuseError: genai-prices is not installed.
        """
        with self._lock:
            self._price_answers()
            return dict(self._costs)

    @property
    def unpriced(self) -> dict[str, int]:
        """The number of answers without a price, by model: the price or the token counts are unknown.

        Raises:
            MisuseError: genai-prices is not installed.
        """
        with self._lock:
            self._price_answers()
            return dict(self._unpriced)

    def _chunk_receiver(self, run: Run) -> Callable[[Chunk], object]:
        return ignore

    def on_event(self, event: Event) -> None:
        """Count an answer at its end."""
        match event:
            case Finished(run=run, output=output) | Cancelled(run=run, partial=output):
                self._count(run, output, event.time)
            case Failed(run=run, error=error, partial=partial):
                refused = isinstance(error, ProviderError) and partial is None
                self._count(run, partial, None if refused else event.time)
            case _:
                pass

    def _count(self, run: Run, answer: object, time: float | None) -> None:
        """Count one answer; `time` is None for a refused request, which costs nothing."""
        if run.kind not in ("llm", "chat_model"):
            return
        message = answer if isinstance(answer, Message) else None
        service = run.service
        name = (message.model if message else None) or (service.model if service else None) or run.name
        usage = message.usage if message else None
        with self._lock:
            self.requests += 1
            if usage:
                self._usage[name] = self._usage.get(name, Usage()) + usage
            if self._has_prices and time is not None:
                provider, address = (service.provider, service.address) if service else ("", None)
                self._answers.append(_Answer(name, usage, provider, address, time))
                if len(self._answers) >= _MAX_UNPRICED:
                    self._price_answers()

    def _price_answers(self) -> None:
        check_prices()
        answers, self._answers = self._answers, []
        for answer in answers:
            price = price_of(answer.name, counts(answer.usage), answer.provider, answer.address, answer.time)
            if price is None:
                self._unpriced[answer.name] = self._unpriced.get(answer.name, 0) + 1
            else:
                self._costs[answer.name] = self._costs.get(answer.name, Decimal(0)) + price
