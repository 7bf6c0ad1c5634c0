"""OpenAI's batch API: files of requests that are answered within a day, at half the price.

Source: https://platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

import secrets as random
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

import attrs
import msgspec
from attrs import frozen
from reactivex import Observable

from ..bridges import AsyncStream
from ..errors import ProtocolError, ProviderError, RxllmError
from ..values.message import Message
from ..values.request import Request
from ._documents import json_of, object_of, text_of

if TYPE_CHECKING:
    from .openai import OpenAI

from ..wire.error_documents import excerpt

__all__ = ["OpenAIBatches"]

_ENDPOINT = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")
_OUT_OF_TIME = ("batch_expired", "batch_cancelled", "batch_canceled")  # the request was not answered, and costs nothing
_PAGES = 100
_TAG = "rxllm"


@frozen
class _Batch:
    """A batch as the server describes it.

    Attributes:
        ended: whether its results are complete.
        files: the ids of its files of results.
        error: why the server refused the whole batch; None if it did not.
    """

    ended: bool
    files: tuple[str, ...]
    error: str | None


class OpenAIBatches:
    """The batches of an account, as a job uses them.

    Attributes:
        max_requests: the largest number of requests in a batch.
        max_bytes: the largest size of its file.
    """

    max_requests = 10_000  # the server takes 50,000; all results of a batch are in memory for a moment
    max_bytes = 100 << 20  # the server takes 200 MB

    def __init__(self, llm: OpenAI) -> None:
        self._llm: OpenAI = attrs.evolve(llm, api="chat")  # so that all requests have one endpoint

    def line(self, name: str, request: Request) -> bytes:
        """Return a line of the file.

        Raises:
            MisuseError: the request cannot be sent.
        """
        _, _, fields = self._llm._written(self._asked(request))  # pyright: ignore[reportPrivateUsage]
        body = {field: value for field, value in fields.items() if field != "stream"}
        return msgspec.json.encode({"custom_id": name, "method": "POST", "url": _ENDPOINT, "body": body}) + b"\n"

    async def upload(self, lines: Sequence[bytes]) -> str:
        """Upload a file, and return its id."""
        boundary = f"rxllm-{random.token_hex(16)}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
            'Content-Disposition: form-data; name="file"; filename="batch.jsonl"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        body = b"".join([head.encode(), *lines, f"\r\n--{boundary}--\r\n".encode()])
        return self._id(await self._send("POST", "files", body, f"multipart/form-data; boundary={boundary}"))

    async def create(self, file: str, tag: str) -> str:
        """Begin a batch, and return its id. The tag finds it again."""
        fields = {
            "input_file_id": file,
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
            "metadata": {_TAG: tag},
        }
        return self._id(await self._send("POST", "batches", msgspec.json.encode(fields)))

    async def find(self, tag: str) -> str | None:
        """Return the id of the batch with this tag; None if there is none."""
        after: dict[str, str] = {}
        for _ in range(_PAGES):
            page = object_of(json_of(await self._send("GET", f"batches?{urlencode({'limit': '100', **after})}")))
            batches = [object_of(item) for item in page.get("data") or ()]
            for batch in batches:
                if object_of(batch.get("metadata")).get(_TAG) == tag:
                    return text_of(batch.get("id"))
            if page.get("has_more") is not True or not batches:
                break
            after = {"after": text_of(batches[-1].get("id"))}
        return None

    async def state(self, batch: str) -> _Batch:
        """Return the state of a batch."""
        fields = object_of(json_of(await self._send("GET", f"batches/{quote(batch, safe='')}")))
        files = tuple(file for name in ("output_file_id", "error_file_id") if (file := text_of(fields.get(name))))
        status = text_of(fields.get("status"))
        errors: Any = object_of(fields.get("errors")).get("data") or [{}]
        message = text_of(object_of(errors[0]).get("message")) or text_of(object_of(errors[0]).get("code"))
        return _Batch(status in _ENDED, files, (message or "it names no reason") if status == "failed" else None)

    async def cancel(self, batch: str) -> None:
        """Cancel a batch; the answers so far are paid."""
        await self._send("POST", f"batches/{quote(batch, safe='')}/cancel")

    async def results(self, file: str) -> AsyncIterator[tuple[str, Message | Exception | None]]:
        """Yield the names and the outcomes in a file of results; None is a request that the server did not answer."""
        rest = b""
        async with AsyncStream(self._pieces("GET", f"files/{quote(file, safe='')}/content")) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield self._outcome(line)
        if rest.strip():
            yield self._outcome(rest)

    def _outcome(self, line: bytes) -> tuple[str, Message | Exception | None]:
        fields = object_of(json_of(line))
        name = text_of(fields.get("custom_id"))
        if not name:
            raise ProtocolError(f"A line of the batch's results has no custom_id: {excerpt(line)}", frame=line)
        error = object_of(fields.get("error"))
        if text_of(error.get("code")) in _OUT_OF_TIME:
            return name, None
        response = object_of(fields.get("response"))
        status, body = response.get("status_code"), msgspec.json.encode(response.get("body"))
        if error or not isinstance(status, int):
            message = text_of(error.get("message")) or "The batch has no answer for this request."
            return name, ProviderError(message, code=text_of(error.get("code")) or None)
        if status != 200:
            return name, self._llm._error(status, body, {})  # pyright: ignore[reportPrivateUsage]
        try:
            return name, self._llm._whole(body, self._asked(Request.ask(""))).message()  # pyright: ignore[reportPrivateUsage]
        except RxllmError as wrong:
            return name, wrong

    def _asked(self, request: Request) -> Request:
        return request.over(self._llm.parameters).updated({"stream": False})

    def _id(self, body: bytes) -> str:
        if name := text_of(object_of(json_of(body)).get("id")):
            return name
        raise ProtocolError(f"The server's answer has no id: {excerpt(body)}", frame=body)

    async def _send(
        self, method: Literal["POST", "GET"], path: str, body: bytes = b"", media_type: str = "application/json"
    ) -> bytes:
        async with AsyncStream(self._pieces(method, path, body, media_type)) as pieces:
            return b"".join([piece async for piece in pieces])

    def _pieces(
        self, method: Literal["POST", "GET"], path: str, body: bytes = b"", media_type: str = "application/json"
    ) -> Observable[bytes]:
        url = f"{self._llm._base}/{path}"  # pyright: ignore[reportPrivateUsage]
        return self._llm._fetched(url, body, media_type if body else "", method)  # pyright: ignore[reportPrivateUsage]
