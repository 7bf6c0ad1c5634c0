"""`UsageMeter`: how many tokens which model took, and what they cost."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

from attrs import frozen

from ..errors import ProviderError
from ..events import Cancelled, Event, Failed, Finished, Run
from ..misuse import MisuseError
from ..runtime.forks import reset_in_child
from ..values.message import Message
from ..values.usage import Usage
from ._counts import counts
from ._local import LocalHandler

__all__ = ["UsageMeter"]

_KEEP = 1024  # answers, until the prices are loaded for them


@frozen
class _Answer:
    """What the price of one answer depends on."""

    name: str
    usage: Usage | None
    provider: str
    address: str | None
    time: float


class UsageMeter(LocalHandler):
    """Adds up the tokens of all runs that it hears, by model; any number at once, in any threads.

    An answer that was cancelled or failed counts with what is known of it.

    What they cost is reckoned by the list prices that the package genai-prices brings along (extra ``prices``), each
    answer by those of its day and size; nothing is fetched. Whose prices they are is told by the address that was
    asked, and where that is nobody's in particular, such as a gateway's, by the protocol.

    Attributes:
        requests: how many runs of models have ended.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._usage: dict[str, Usage] = {}
        reset_in_child(self._reset)
        self._has_prices = importlib.util.find_spec("genai_prices") is not None
        self._answers: list[_Answer] = []  # which have no price yet: loading the prices takes a while
        self._costs: dict[str, Decimal] = {}
        self._unpriced: dict[str, int] = {}

    def _reset(self) -> None:
        """In a forked child nobody would release the parent's lock."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        told = ", ".join(f"{name!r}: {usage!r}" for name, usage in self.usage.items())
        return f"UsageMeter(requests={self.requests}, usage={{{told}}})"

    @property
    def usage(self) -> dict[str, Usage]:
        """The tokens by model, as of now: by the name that answered, else that was asked, else the run's."""
        with self._lock:
            return dict(self._usage)

    @property
    def total(self) -> Usage:
        """The tokens of all models."""
        return sum(self.usage.values(), Usage())

    @property
    def cost(self) -> Decimal | None:
        """US dollars for all answers that have a price, None if none of them has; `unpriced` tells of the others.

        Raises:
            MisuseError: genai-prices is not installed.
        """
        costs = self.costs.values()
        return sum(costs, Decimal(0)) if costs or not self._unpriced else None

    @property
    def costs(self) -> dict[str, Decimal]:
        """The same by model, without those that have no price.

        Raises:
            MisuseError: genai-prices is not installed.
        """
        with self._lock:
            self._reckon()
            return dict(self._costs)

    @property
    def unpriced(self) -> dict[str, int]:
        """How many answers `cost` lacks, by model: it has no known price, or its tokens were not told.

        Raises:
            MisuseError: genai-prices is not installed.
        """
        with self._lock:
            self._reckon()
            return dict(self._unpriced)

    def on_event(self, event: Event) -> None:
        """Counts an answer's end."""
        match event:
            case Finished(run=run, output=output) | Cancelled(run=run, partial=output):
                self._count(run, output, event.time)
            case Failed(run=run, error=error, partial=partial):
                refused = isinstance(error, ProviderError) and partial is None
                self._count(run, partial, None if refused else event.time)
            case _:
                pass

    def _count(self, run: Run, answer: object, time: float | None) -> None:
        """Counts it; without a time it took nothing."""
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
                if len(self._answers) >= _KEEP:
                    self._reckon()

    def _reckon(self) -> None:
        if not self._has_prices:
            raise MisuseError("genai-prices is not installed: pip install 'rxllm[prices]'.")
        answers, self._answers = self._answers, []
        for answer in answers:
            price = _price(answer)
            if price is None:
                self._unpriced[answer.name] = self._unpriced.get(answer.name, 0) + 1
            else:
                self._costs[answer.name] = self._costs.get(answer.name, Decimal(0)) + price


def _price(answer: _Answer) -> Decimal | None:
    """US dollars, None where the price or a count is not known."""
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price
    from genai_prices.data_snapshot import get_snapshot

    known = counts(answer.usage)
    if not {"input_tokens", "output_tokens"} <= known.keys():
        return None
    tokens = Tokens(
        input_tokens=known["input_tokens"],
        output_tokens=known["output_tokens"],
        cache_read_tokens=known.get("cache_read_input_tokens"),
        cache_write_tokens=known.get("cache_creation_input_tokens"),
    )
    provider = answer.provider
    if answer.address:
        with suppress(LookupError):
            provider = get_snapshot().find_provider(None, None, f"https://{answer.address}").id
    try:
        when = datetime.fromtimestamp(answer.time, UTC)
        return calc_price(tokens, answer.name, provider_id=provider, genai_request_timestamp=when).total_price
    except (LookupError, ValueError):
        return None
