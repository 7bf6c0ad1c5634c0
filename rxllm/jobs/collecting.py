"""The results of a batch: `ended` waits for its end, `outcomes` reads what became of its requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..errors import ProtocolError, RxllmError
from ..providers.batch_values import BatchState, Outcome
from ..providers.batches import BatchAPI
from .patience import patiently, pause

__all__ = ["Refused", "ended", "outcomes"]

REREADS = 3  # further looks at results that are incomplete


class Refused(Exception):
    """The vendor refused a whole batch, and answered nothing of it.

    Attributes:
        error: the vendor's error.
        is_full: whether the only reason is that too many other batches wait.
    """

    def __init__(self, error: RxllmError, *, is_full: bool) -> None:
        super().__init__(error)
        self.error = error
        self.is_full = is_full


async def ended(api: BatchAPI, batch: str, advice: str) -> BatchState:
    """Wait for the end of a batch, and return its state.

    Args:
        api: the vendor's API.
        batch: the id of the batch.
        advice: what to do if the vendor does not know the batch any more.

    Raises:
        Refused: the vendor refused the whole batch.
        RxllmError: the vendor does not know the batch, or cannot be reached.
    """
    looks = 0
    while not (state := await patiently(lambda: api.state(batch), batch, advice)).ended:
        await pause(looks)
        looks += 1
    if state.refusal is not None:
        raise Refused(RxllmError(f"The vendor refused the batch {batch}: {state.refusal}"), is_full=state.is_full)
    return state


async def outcomes(
    api: BatchAPI, batch: str, state: BatchState, keys: Collection[str], advice: str
) -> dict[str, Outcome]:
    """Return what became of the requests of a batch that has ended, by their keys.

    A request whose answer is paid and missing gets an error, so that nothing pays for it again unasked.

    Raises:
        RxllmError: the vendor does not know the results any more, or cannot be reached.
    """

    async def read() -> dict[str, Outcome]:
        return {key: outcome async for key, outcome in api.results(batch, state) if key in keys}

    found, looks = await patiently(read, batch, advice), 0
    while _lacks(found, state) and looks < REREADS:
        await pause(looks)
        looks += 1
        found = await patiently(read, batch, advice)
    if not _lacks(found, state):
        return found
    missing = ProtocolError(
        f"The results of the batch {batch} lack this row: the vendor has answered {state.answered} rows, and sent "
        f"{_paid(found)}."
    )
    return {**dict.fromkeys(keys, Outcome(missing, is_paid=True)), **found}


def _lacks(found: Mapping[str, Outcome], state: BatchState) -> bool:
    """Return whether the results have fewer answers than the vendor has counted."""
    return state.answered is not None and _paid(found) < state.answered


def _paid(found: Mapping[str, Outcome]) -> int:
    return sum(outcome.is_paid for outcome in found.values())
