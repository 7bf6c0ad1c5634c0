"""`priced`: an answer with its list price at its end, for a page that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from attrs import frozen
from reactivex import Observable
from reactivex import operators as ops

from ..bridges import from_aiter
from ..handlers.usage import UsageMeter
from ..prices import has_prices
from ..surface import Surface
from ..values.request import Request
from .ui_messages import UIEvents

__all__ = ["PricedEvents", "priced"]

_HAS_PRICES = has_prices()  # looked up once, because the import system searches the disk for a missing package
_PATIENCE = 0.5  # seconds; the first answer of a process may end before the prices are loaded


@frozen
class _Price:
    """The list price of an answer in US dollars."""

    cost: float


def priced(model: Surface[Any, Any, Any], request: Request) -> Observable[Any]:
    """Return the answer, and after it its price, if genai-prices is installed and knows the model.

    ::

        model           -Hel-lo-|
        priced(model)   -Hel-lo-$|
    """
    if not _HAS_PRICES:
        return model(request)
    meter = UsageMeter()

    async def price() -> AsyncGenerator[_Price]:
        with suppress(TimeoutError):  # the thread goes on, for the next answer
            cost = await asyncio.wait_for(asyncio.to_thread(lambda: meter.cost), _PATIENCE)
            if cost is not None:
                yield _Price(float(cost))

    answer: Observable[Any] = model.with_config(handlers=[meter])(request)
    return answer.pipe(ops.concat(from_aiter(price)))


class PricedEvents(UIEvents):
    """Encodes the items of `priced`: the price is in the metadata of the message, beside the usage."""

    def encode(self, item: object) -> bytes:
        """Return the events of one item."""
        if isinstance(item, _Price):
            self.metadata["cost"] = item.cost
            return b""
        return super().encode(item)
