"""OpenAI's batch API, and that of the servers that speak its protocol: files of requests, answered within a day.

The answers cost half of the price. The list of batches shows their metadata, so a batch whose creation was not
confirmed is found by its tag; servers without metadata show the file of its requests, which no other batch has. Each
file has requests for one model.

Source: https://developers.openai.com/api/reference/resources/batches,
https://developers.openai.com/api/docs/guides/batch.
"""

from __future__ import annotations

import secrets as random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
import msgspec

from ..errors import ProviderError
from ._documents import count, list_of, object_of, text_of
from .batch_values import BatchState, Draft, Lost, Match, Outcome
from .batches import BatchAPI

if TYPE_CHECKING:
    from .openai import OpenAI


__all__ = ["OpenAIBatches"]

_ENDPOINT = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")
_UNANSWERED = ("batch_expired", "batch_cancelled", "batch_canceled")  # such a request costs nothing
_FULL = ("token_limit_exceeded",)  # tokens of all batches that wait
_TAG = "rxllm"


class OpenAIBatches(BatchAPI):
    """The batches of an account."""

    name = "openai"
    max_requests = 50_000
    max_bytes = 100_000_000  # OpenAI takes 200 MB, Groq 100

    def __init__(self, llm: OpenAI) -> None:
        super().__init__(attrs.evolve(llm, api="chat"))  # so that all requests have one endpoint
        self._base = llm._base  # pyright: ignore[reportPrivateUsage]

    def _entry(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": body}

    async def upload(self, draft: Draft) -> str:
        """Upload the requests, and return the id of their file."""
        boundary = f"rxllm-{random.token_hex(16)}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
            'Content-Disposition: form-data; name="file"; filename="batch.jsonl"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        body = b"".join([head.encode(), b"\n".join(draft.lines), f"\n\r\n--{boundary}--\r\n".encode()])
        return self._id(await self._send("POST", self._url("files"), body, f"multipart/form-data; boundary={boundary}"))

    async def create(self, draft: Draft, file: str) -> str:
        """Create a batch, and return its id."""
        fields = {
            "input_file_id": file,
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
            "metadata": {_TAG: draft.tag},
        }
        headers = {"idempotency-key": draft.tag}
        return self._id(await self._send("POST", self._url("batches"), msgspec.json.encode(fields), headers=headers))

    async def find(self, lost: Lost) -> Match:
        """Look for a batch with the tag, or with the file."""
        async for page in self._pages(self._url("batches"), {"limit": "100"}, _after):
            for batch in map(object_of, list_of(page.get("data"))):
                has_file = bool(lost.file) and batch.get("input_file_id") == lost.file
                if has_file or object_of(batch.get("metadata")).get(_TAG) == lost.tag:
                    return Match(self._id(batch))
        return Match()

    async def state(self, batch: str) -> BatchState:
        """Return the state of a batch."""
        fields = await self._send("GET", self._url("batches", batch))
        files = (text_of(fields.get(name)) for name in ("output_file_id", "error_file_id"))
        status = text_of(fields.get("status")).lower()  # Novita writes it in capitals
        code, reason = _reason(fields.get("errors"))
        return BatchState(
            status,
            ended=status in _ENDED,
            cancelled=status == "cancelled",
            answered=count(fields, "request_counts", "completed"),
            refusal=reason if status == "failed" else None,
            is_full=code in _FULL,
            places=tuple(filter(None, files)),
        )

    async def cancel(self, batch: str) -> None:
        """Cancel a batch. It takes up to ten minutes."""
        await self._send("POST", self._url("batches", batch, "cancel"), b"{}")

    async def results(self, batch: str, state: BatchState) -> AsyncIterator[tuple[str, Outcome]]:
        """Yield the keys and the outcomes in the files of results: one for answers, one for errors."""
        for file in state.places:
            async for fields in self._lines(self._url("files", file, "content")):
                yield self._id(fields, "custom_id"), self._outcome(fields)

    def _outcome(self, fields: dict[str, Any]) -> Outcome:
        error, response = object_of(fields.get("error")), object_of(fields.get("response"))
        code, status = text_of(error.get("code")), response.get("status_code")
        if code in _UNANSWERED:
            return Outcome()
        if error or not isinstance(status, int):
            message = text_of(error.get("message")) or "The batch has no answer for this request."
            return Outcome(ProviderError(message, code=code or None))
        return self._answer(response.get("body")) if status == 200 else self._failure(status, response.get("body"))

    def _url(self, *path: str) -> str:
        return "/".join((self._base, *(quote(part, safe="") for part in path)))


def _after(page: dict[str, Any]) -> dict[str, str]:
    """Return the parameters of the page after this one."""
    batches = list_of(page.get("data"))
    return {"after": text_of(object_of(batches[-1]).get("id"))} if page.get("has_more") is True and batches else {}


def _reason(errors: object) -> tuple[str, str]:
    """Return the code and the message of the first error of a batch."""
    first = object_of(next(iter(list_of(object_of(errors).get("data"))), None))
    code = text_of(first.get("code"))
    return code, text_of(first.get("message")) or code or text_of(errors) or "it names no reason"
