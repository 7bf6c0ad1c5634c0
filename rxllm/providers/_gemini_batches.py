"""Gemini's batches: requests that are answered within a day, for half of the price.

A small batch carries its requests; the requests of a larger one are in an uploaded file. A batch has a display name, so
one whose creation was not confirmed is found by its tag; a second creation would be a second batch. A batch that waited
for more than 48 hours expires, and has no results. All requests of a batch have one model.

Google's servers collect the answers of a batch without a file whenever it is looked at, and fail if they are large. So
only few requests go without a file.

Source: https://ai.google.dev/gemini-api/docs/batch-api, https://ai.google.dev/api/batch-api,
https://ai.google.dev/gemini-api/docs/files. The failure:
https://discuss.ai.google.dev/t/174261.
"""

from __future__ import annotations

import secrets as random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ._documents import list_of, object_of, text_of
from .batch_values import BatchState, Draft, Lost, Match, Outcome
from .batches import BatchAPI

if TYPE_CHECKING:
    from .gemini import Gemini

__all__ = ["GeminiBatches"]

_ENDED = ("succeeded", "failed", "cancelled", "expired", "partially_succeeded")
_WITHOUT_FILE = 100, 10_000_000  # requests and bytes; Google takes 20 MB
# The HTTP statuses of the codes of gRPC; https://cloud.google.com/apis/design/errors#handling_errors.
_STATUS = {
    2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503,
    15: 500, 16: 401,
}  # fmt: skip
_CANCELLED = (1, 499)


class _Entry(msgspec.Struct):
    key: str
    request: msgspec.Raw


_read = msgspec.json.Decoder(_Entry).decode


class GeminiBatches(BatchAPI):
    """The batches of a project of Google AI Studio."""

    name = "gemini"
    max_requests = 100_000  # Google names no number
    max_bytes = 2_000_000_000

    def __init__(self, llm: Gemini) -> None:
        super().__init__(llm)
        self._base = llm._base  # pyright: ignore[reportPrivateUsage]

    def _entry(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"key": key, "request": body}

    async def upload(self, draft: Draft) -> str:
        """Upload the requests, and return the name of their file; empty if the batch carries them."""
        most, size = _WITHOUT_FILE
        if len(draft.lines) <= most and sum(map(len, draft.lines)) <= size:
            return ""
        boundary = f"rxllm-{random.token_hex(16)}"
        about = msgspec.json.encode({"file": {"displayName": draft.tag}})
        head = b"--%b\r\nContent-Type: application/json; charset=utf-8\r\n\r\n%b\r\n" % (boundary.encode(), about)
        middle, end = f"--{boundary}\r\nContent-Type: application/jsonl\r\n\r\n", f"\n\r\n--{boundary}--\r\n"
        body = b"".join([head, middle.encode(), b"\n".join(draft.lines), end.encode()])
        root, _, version = self._base.rpartition("/")
        url, media_type = f"{root}/upload/{version}/files", f"multipart/related; boundary={boundary}"
        headers = {"x-goog-upload-protocol": "multipart"}
        return self._id(object_of((await self._send("POST", url, body, media_type, headers)).get("file")), "name")

    async def create(self, draft: Draft, file: str) -> str:
        """Create a batch, and return its name."""
        place = {"fileName": file} if file else {"requests": {"requests": [*map(_carried, draft.lines)]}}
        body = msgspec.json.encode({"batch": {"displayName": draft.tag, "inputConfig": place}})
        model = draft.model if "/" in draft.model else f"models/{draft.model}"
        url = f"{self._url(*model.split('/'))}:batchGenerateContent"
        return self._id(await self._send("POST", url, body, headers={"idempotency-key": draft.tag}), "name")

    async def find(self, lost: Lost) -> Match:
        """Look for a batch whose display name is the tag."""
        async for page in self._pages(self._url("batches"), {"pageSize": "100"}, _after):
            for batch in map(object_of, list_of(page.get("operations"))):
                if object_of(batch.get("metadata")).get("displayName") == lost.tag:
                    return Match(self._id(batch, "name"))
        return Match()

    async def state(self, batch: str) -> BatchState:
        """Return the state of a batch."""
        fields = await self._operation(batch)
        about, error = object_of(fields.get("metadata")), object_of(fields.get("error"))
        status = text_of(about.get("state")).rpartition("_STATE_")[2].lower()
        file = text_of(_output(fields).get("responsesFile"))
        failed = status == "failed" or (bool(error) and status not in _ENDED)
        return BatchState(
            status,
            ended=fields.get("done") is True or status in _ENDED,
            cancelled=status == "cancelled",
            answered=_number(object_of(about.get("batchStats")).get("successfulRequestCount")),
            refusal=(text_of(error.get("message")) or "it names no reason") if failed else None,
            is_full=error.get("code") in (8, 429),
            places=(file,) if file else (),
        )

    async def cancel(self, batch: str) -> None:
        """Cancel a batch."""
        await self._send("POST", f"{self._url(*batch.split('/'))}:cancel", b"{}")

    async def results(self, batch: str, state: BatchState) -> AsyncIterator[tuple[str, Outcome]]:
        """Yield the keys and the outcomes in the file of results, or in the batch itself."""
        for file in state.places:
            async for fields in self._lines(f"{self._url(*file.split('/'))}:download?alt=media"):
                yield self._id(fields, "key"), self._outcome(fields)
        if not state.places:
            carried = _output(await self._operation(batch)).get("inlinedResponses")
            for fields in map(object_of, list_of(object_of(carried).get("inlinedResponses"))):
                yield self._id(object_of(fields.get("metadata")), "key"), self._outcome(fields)

    def _outcome(self, fields: dict[str, Any]) -> Outcome:
        error = object_of(fields.get("error"))
        if not error:
            return self._answer(fields.get("response"))
        code = error.get("code")
        if code in _CANCELLED:
            return Outcome()
        status = _STATUS.get(code, code) if isinstance(code, int) else 500
        return self._failure(status, {"error": error})

    async def _operation(self, batch: str) -> dict[str, Any]:
        return await self._send("GET", self._url(*batch.split("/")))

    def _url(self, *path: str) -> str:
        return "/".join((self._base, *(quote(part, safe="") for part in path)))


def _after(page: dict[str, Any]) -> dict[str, str]:
    """Return the parameters of the page after this one."""
    token = text_of(page.get("nextPageToken"))
    return {"pageToken": token} if token else {}


def _carried(line: bytes) -> dict[str, Any]:
    """Return a request as a batch carries it."""
    entry = _read(line)
    return {"request": entry.request, "metadata": {"key": entry.key}}


def _output(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a batch, or where they are."""
    return object_of(operation.get("response")) or object_of(object_of(operation.get("metadata")).get("output"))


def _number(value: object) -> int | None:
    """Return a number, which Google's JSON writes as text."""
    return int(value) if isinstance(value, (int, str)) and str(value).isdecimal() else None
