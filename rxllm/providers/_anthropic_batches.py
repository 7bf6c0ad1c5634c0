"""Anthropic's Message Batches: requests that are answered within a day, for half of the price.

A batch has no name of one's own, and shows its requests only when it has ended, by the ``custom_id`` of its results. So
a batch whose creation was not confirmed is looked for among those of the same size. One that still works may be it: the
job waits for its end. Nothing is created twice on a guess.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing,
https://platform.claude.com/docs/en/api/messages/batches. A ``custom_id`` has 1 to 64 letters, digits, hyphens and
underscores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import Interrupted
from ._documents import count, list_of, object_of, text_of
from .batch_values import BatchState, Draft, Lost, Match, Outcome
from .batches import BatchAPI

if TYPE_CHECKING:
    from .anthropic import Anthropic

__all__ = ["AnthropicBatches"]

_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_SKEW = 86_400.0  # seconds by which this machine's clock may be ahead of Anthropic's
_FRAME = b'{"requests":[%b]}'


class AnthropicBatches(BatchAPI):
    """The batches of a workspace."""

    name = "anthropic"
    max_requests = 100_000
    max_bytes = 256_000_000 - len(_FRAME)
    mixes_models = True

    def __init__(self, llm: Anthropic) -> None:
        super().__init__(llm)
        self._base = llm._base  # pyright: ignore[reportPrivateUsage]

    def _entry(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": key, "params": body}

    async def create(self, draft: Draft, file: str) -> str:
        """Create a batch, and return its id."""
        body = _FRAME % b",".join(draft.lines)
        return self._id(await self._send("POST", self._url(), body, headers={"idempotency-key": draft.tag}))

    async def find(self, lost: Lost) -> Match:
        """Look for a batch with one of the keys, among those of the same size that are not much older."""
        undecided: list[str] = []
        gone = ""
        async for batch in self._listed():
            if _seconds(batch.get("created_at")) < lost.at - _SKEW:
                break
            identity = self._id(batch)
            size = sum(count(batch, "request_counts", name) or 0 for name in _COUNTS)
            if size != len(lost.keys) or identity in lost.others:
                continue
            if batch.get("processing_status") != "ended":
                undecided.append(identity)
            elif batch.get("archived_at") is not None:
                gone = identity
            elif await self._first_key(identity) in lost.keys:
                return Match(identity)
        return Match(undecided=tuple(undecided), gone=gone)

    async def state(self, batch: str) -> BatchState:
        """Return the state of a batch."""
        fields = await self._send("GET", self._url(batch))
        status = text_of(fields.get("processing_status"))
        return BatchState(
            status,
            ended=status == "ended",
            cancelled=fields.get("cancel_initiated_at") is not None,
            answered=count(fields, "request_counts", "succeeded"),
        )

    async def cancel(self, batch: str) -> None:
        """Cancel a batch. Requests that are being answered may be finished."""
        await self._send("POST", self._url(batch, "cancel"), b"{}")

    async def results(self, batch: str, state: BatchState) -> AsyncIterator[tuple[str, Outcome]]:
        """Yield the keys and the outcomes in the file of results.

        Its address is not taken from the batch: a response must not decide which server gets the key.
        """
        async for fields in self._lines(self._url(batch, "results")):
            yield self._id(fields, "custom_id"), self._outcome(object_of(fields.get("result")))

    def _outcome(self, result: dict[str, Any]) -> Outcome:
        match result.get("type"):
            case "succeeded":
                return self._answer(result.get("message"))
            case "canceled" | "expired":
                return Outcome()
            case _:  # "errored", with the document of an error response
                return self._failure(200, result.get("error"))

    async def _first_key(self, batch: str) -> str:
        """Return the key of the first result of a batch that has ended.

        Raises:
            Interrupted: there is none, although each request has one.
        """
        async with aclosing(self._lines(self._url(batch, "results"))) as lines:
            async for fields in lines:
                return self._id(fields, "custom_id")
        raise Interrupted(f"The results of the batch {batch} are empty.")

    async def _listed(self) -> AsyncIterator[dict[str, Any]]:
        """Yield all batches, the newest first."""
        async for page in self._pages(self._url(), {"limit": "1000"}, _after):
            for batch in map(object_of, list_of(page.get("data"))):
                yield batch

    def _url(self, *path: str) -> str:
        base = f"{self._base}/v1/messages/batches"
        return "/".join((base, *(quote(part, safe="") for part in path)))


def _after(page: dict[str, Any]) -> dict[str, str]:
    """Return the parameters of the page after this one."""
    batches = list_of(page.get("data"))
    return {"after_id": text_of(object_of(batches[-1]).get("id"))} if page.get("has_more") is True and batches else {}


def _seconds(time: object) -> float:
    """Return a time in RFC 3339's form in seconds since 1970; of anything else, the end of time."""
    try:
        return datetime.fromisoformat(text_of(time)).timestamp()
    except ValueError:
        return float("inf")
