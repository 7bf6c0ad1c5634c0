"""The header ``Idempotency-Key``: a server that honours it answers a request that comes again with the first answer.

Source: https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

from ..runtime.scheduler import Baggage, Scheduler

if TYPE_CHECKING:
    import httpx

    Sending = Callable[[httpx.Request, httpx.AsyncClient | None], None] | None

__all__ = ["IDEMPOTENCY_KEY", "key_for", "keyed"]

IDEMPOTENCY_KEY = Baggage[str](default="")
"""The name of an answer: requests that may be sent again for it carry a key that is made of it."""


def key_for(scheduler: Scheduler, body: bytes) -> str:
    """Return the key of a request; empty if the scheduler carries no name.

    The body is a part of the key, because a server refuses another request under the same key.
    """
    name = scheduler.carried(IDEMPOTENCY_KEY)
    return f"{name}-{sha256(body).hexdigest()[:16]}" if name else ""


def keyed(sending: Sending, scheduler: Scheduler, body: bytes) -> Sending:
    """Return `sending`, which also adds the key if the scheduler carries a name."""
    key = key_for(scheduler, body)
    if not key:
        return sending

    def send(request: httpx.Request, client: httpx.AsyncClient | None) -> None:
        if request.method == "POST":
            request.headers.setdefault("idempotency-key", key)
        if sending is not None:
            sending(request, client)

    return send
