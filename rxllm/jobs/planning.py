"""`plans`: what a job would do, without a request."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from attrs import frozen

from ..combinators.asked import Asked
from ..events import Service
from ..llm import LLM
from ..operators.answering import CHARACTERS
from ..prices import has_prices, price_of
from ..providers.batches import BatchAPI
from ..values.request import Prompt, Request
from .asking import Asking
from .journal import Journal, OpenJournal
from .parts import request_line

__all__ = ["STEP", "Plan", "plans"]

STEP = 1000  # rows between two plans
_REMEMBERED = 4096  # prices

Price = Callable[[Service, int, int], Decimal | None]
"""The price of a service for so many tokens of a prompt and its answer."""


@frozen
class Plan:
    """What a job would do with the rows that are read.

    Attributes:
        is_whole: whether all rows of the input are read.
        rows: the number of rows.
        open: the number of rows that would be asked.
        failed: the number of rows whose result in the journal is a failure.
        input_tokens: the estimated tokens of the prompts of the open rows.
        output_tokens: the most tokens that their answers may take; None if a row has no ``max_tokens``.
        cost: the most that the open rows may cost in US dollars, by this estimate; None if a price is unknown.
    """

    is_whole: bool
    rows: int
    open: int
    failed: int
    input_tokens: int
    output_tokens: int | None
    cost: Decimal | None


def plans(
    rows: Iterable[Any],
    llm: LLM,
    journal: Journal,
    make: Callable[[Any], Prompt],
    *,
    id_column: str,
    retry_failed: bool,
    api: BatchAPI | None = None,
) -> Iterator[Plan]:
    """Read all rows, as a job would. Yield what it would do: after each `STEP` rows, and at the end. This blocks.

    The job may begin after the first plan.

    Args:
        rows: the rows.
        llm: the model.
        journal: the journal.
        make: returns the prompt of a row.
        id_column: the column that names a row.
        retry_failed: whether to ask again for rows that failed.
        api: the batch API of a job that asks it. Each request is then written, and the prices are those of batches.

    Raises:
        MisuseError: a job with these rows would fail.
    """
    # A new journal is not made, since it would have to be removed, and a job that began meanwhile would lose it.
    exists = journal.path.exists()
    file = journal.open() if exists else OpenJournal(journal, os.open(os.devnull, os.O_RDWR), by_request=False)
    with file:
        file.unlock()
        yield from _plans(rows, llm, make, id_column, retry_failed, file, api)


def _plans(
    rows: Iterable[Any],
    llm: LLM,
    make: Callable[[Any], Prompt],
    id_column: str,
    retry_failed: bool,
    file: OpenJournal,
    api: BatchAPI | None,
) -> Iterator[Plan]:
    asking = Asking(llm, make, id_column, retry_failed=retry_failed)
    asking.file = file
    count = opened = inputs = outputs = 0
    bounded = True
    cost: Decimal | None = Decimal(0)
    price = functools.partial(_price, in_batch=api is not None)
    price_by = functools.lru_cache(_REMEMBERED)(price)  # a look-up takes as long as the rest of a row

    def planned(*, is_whole: bool) -> Plan:
        return Plan(is_whole, count, opened, file.failed, inputs, outputs if bounded else None, cost)

    for count, item in enumerate(rows, 1):
        row = asking.row(item)
        if row is not None:
            opened += 1
            if api is not None:
                request_line(api, row)
            tokens, most, each = _estimated(asking.models, row.request, price_by)
            inputs += tokens
            bounded = bounded and most is not None
            outputs += most or 0
            cost = None if cost is None or each is None else cost + each
        if not count % STEP:
            yield planned(is_whole=False)
    yield planned(is_whole=True)


def _estimated(models: Asked, request: Request, price_by: Price) -> tuple[int, int | None, Decimal | None]:
    """Return the tokens of a prompt, the most tokens of its answer, and the most that the dearest model costs."""
    input_tokens = -(-len(request.text) // CHARACTERS)
    output_tokens = 0
    dearest: Decimal | None = Decimal(0)
    for leaf, of_leaf in models.with_request(request):
        if of_leaf.max_tokens is None:
            return input_tokens, None, None
        output_tokens = max(output_tokens, of_leaf.max_tokens)
        price = price_by(leaf.service(of_leaf), input_tokens, of_leaf.max_tokens)
        dearest = None if dearest is None or price is None else max(dearest, price)
    return input_tokens, output_tokens, dearest


def _price(service: Service, input_tokens: int, output_tokens: int, *, in_batch: bool) -> Decimal | None:
    if service.model is None or not has_prices():
        return None
    tokens = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return price_of(service.model, tokens, service.provider, service.address, time.time(), in_batch=in_batch)
