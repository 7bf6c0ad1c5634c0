"""`Limits`: the limits of an agent's tokens, cost and time."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

from ..events import Cancelled, Event, Failed, Finished, Started
from ..misuse import MisuseError, must_be
from ..observation import BoundListener, observation_of, observed_by
from ..operators.answering import estimated
from ..operators.observer import ignore
from ..prices import check_prices, price_of
from ..public import Public
from ..runtime.scheduler import Scheduler
from ..showing import brief
from ..values.message import Message
from ..values.parameters import number
from ..values.request import Request

__all__ = ["Limits", "Spent"]


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    return is_number and 0 < value < float("inf")


@frozen(kw_only=True)
class Limits(metaclass=Public):
    """The limits of one answer of an agent. None disables a limit.

    The tokens and the cost count for all models that take part, also for those that its tools ask. They are compared
    after each round, so the last round may exceed them. The tokens of an answer whose provider reports none are
    estimated.

    Attributes:
        tokens: the maximum number of tokens, of prompts and of answers.
        cost: the maximum cost in US dollars, by the list prices of the package genai-prices (extra ``prices``). A model
            without a price is an error.
        seconds: the maximum time. When it is over, the model and the tools are cancelled at once.
    """

    tokens: int | None = field(default=None, validator=optional(number(1, whole=True)))
    cost: float | Decimal | None = field(default=None, validator=optional(must_be("a positive number", _is_positive)))
    seconds: float | None = field(default=None, validator=optional(must_be("a positive number", _is_positive)))

    __repr__ = brief

    def __attrs_post_init__(self) -> None:
        if self.cost is not None:
            check_prices()

    @property
    def counts(self) -> bool:
        """Whether tokens or costs must be counted."""
        return self.tokens is not None or self.cost is not None

    def reached(self, spent: Spent) -> tuple[str, str] | None:
        """Return the name and the amount of a reached limit; None if no limit is reached.

        Raises:
            MisuseError: the cost is limited, and a model has no price.
        """
        if self.tokens is not None and spent.tokens >= self.tokens:
            return "tokens", f"{self.tokens:,} tokens"
        if self.cost is not None:
            if spent.unpriced:
                raise MisuseError(
                    f"The agent has a limit of cost, but no price is known for {', '.join(sorted(spent.unpriced))}. "
                    "Limit the tokens instead."
                )
            if spent.cost >= Decimal(str(self.cost)):
                return "cost", f"{self.cost} US dollars"
        return None


class Spent:
    """Adds up the tokens and the cost of the runs of models.

    Attributes:
        tokens: the tokens so far.
        cost: the cost so far, in US dollars; only if `priced`.
        unpriced: the names of the models without a price.
    """

    def __init__(self, *, priced: bool) -> None:
        self.priced = priced
        self.tokens = 0
        self.cost = Decimal(0)
        self.unpriced: set[str] = set()
        self._requests: dict[str, Request] = {}  # of the runs that have not ended, by id

    def heard(self, scheduler: Scheduler) -> Scheduler:
        """Return the scheduler for the streams to count."""
        observation = observation_of(scheduler)
        run, listeners = (observation.run, observation.listeners) if observation else (None, ())
        return observed_by(scheduler, run, (*listeners, BoundListener(self._hear, chunk_receiver=lambda run: ignore)))

    def _hear(self, event: Event) -> None:
        match event:
            case Started(run=run, input=Request() as request) if run.kind in ("llm", "chat_model"):
                self._requests[run.id] = request
            case Finished(output=answer) | Failed(partial=answer) | Cancelled(partial=answer):
                asked = self._requests.pop(event.run.id, None)
                if asked is not None and isinstance(answer, Message):
                    self._add(event, _counted(answer, asked), answer.model)
            case _:
                pass

    def _add(self, event: Finished | Failed | Cancelled, tokens: Mapping[str, int], model: str | None) -> None:
        self.tokens += tokens.get("input_tokens", 0) + tokens.get("output_tokens", 0)
        if self.priced:
            service = event.run.service
            provider, address = (service.provider, service.address) if service else ("", None)
            # The answer names the model more exactly than the request, but price lists may lack its newest name.
            names = [name for name in (model, service.model if service else None) if name] or [event.run.name]
            prices = (price_of(name, tokens, provider, address, event.time) for name in names)
            cost = next((price for price in prices if price is not None), None)
            if cost is None:
                self.unpriced.add(names[0])
            else:
                self.cost += cost


def _counted(answer: Message, request: Request) -> dict[str, int]:
    """Return the token counts of an answer, estimated if the provider did not report them."""
    usage = answer.usage
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        usage = estimated(answer, request).usage
    return usage.counts if usage else {}
