"""The creation of batches, each once: `created` creates a batch, `found` looks for one that may have been created.

A creation has three results: an id; a refusal, after which there is no batch; or neither, because the connection broke
or the server failed after it had begun. In the last case the batch is looked for, until the vendor's list must show it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

from ..errors import ProviderError, RateLimited, RxllmError
from ..operators.backoff import is_retryable
from ..providers.batch_values import Draft
from ..providers.batches import BatchAPI
from .collecting import Refused
from .intents import Intent
from .patience import FAILURES, patiently, pause

__all__ = ["created", "found"]

GRACE = 60.0  # seconds of a search, after which a batch that the vendor does not list was not created
FIND = 5.0  # seconds between two looks at the list
_UNCLEAR = (408, 409)  # statuses below 500 after which the batch may have been created

_log = logging.getLogger("rxllm")


async def created(api: BatchAPI, draft: Draft, intent: Intent, others: Collection[str], advice: str) -> str:
    """Create a batch, and return its id.

    Raises:
        Refused: the vendor refused it.
        RxllmError: the vendor cannot be reached, or its response does not describe a batch.
    """
    failures = 0
    while True:
        try:
            return await api.create(draft, intent.file)
        except RxllmError as error:
            if _is_refusal(error):
                raise Refused(error, is_full=isinstance(error, RateLimited) and error.retryable) from error
            if batch := await found(api, intent, others, advice):
                return batch
            failures += 1
            if not is_retryable(error) or failures > FAILURES:
                raise
            await pause(failures - 1, error)


async def found(api: BatchAPI, intent: Intent, others: Collection[str], advice: str) -> str:
    """Look for a batch that may have been created, and return its id; an empty text if it was not.

    Args:
        api: the vendor's API.
        intent: what is known of the batch.
        others: the ids of the other batches of the job. They may become more meanwhile.
        advice: what to do if the vendor cannot tell any more.

    Raises:
        RxllmError: the vendor cannot be reached, or cannot tell any more.
    """
    until = time.monotonic() + GRACE  # not since the intent: the request may have been on its way until a moment ago
    lost, waits = intent.lost(others), 0
    while True:
        match = await patiently(lambda: api.find(lost))
        if match.batch:
            return match.batch
        if match.undecided:
            if not waits:
                _log.warning(
                    "A batch at %s (rows: %d) is not confirmed. It may be %s; this shows when that has ended.",
                    api.name,
                    len(lost.keys),
                    " or ".join(match.undecided),
                )
            await pause(waits)
            waits += 1
        elif match.gone:
            raise RxllmError(
                f"The batch {match.gone} may have the answers to rows of this job, but the vendor keeps no results of "
                f"it any more. {advice}"
            )
        elif time.monotonic() >= until:
            return ""
        else:
            await asyncio.sleep(FIND)


def _is_refusal(error: RxllmError) -> bool:
    """Return whether an error says that the batch was not created."""
    status = error.status if isinstance(error, ProviderError) else None
    return status is not None and 400 <= status < 500 and status not in _UNCLEAR
