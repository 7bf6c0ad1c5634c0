"""The batch APIs of vendors, as a job uses them: `BatchAPI`. `batch_values` has what its methods take and return.

A vendor's module writes the requests, reads the states and the results, and says how a batch is found again whose
creation the vendor has not confirmed. The job decides what is sent, when, and how often.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, ClassVar, Literal, cast
from urllib.parse import urlencode

import msgspec

from ..bridges import AsyncStream
from ..errors import Interrupted, ProtocolError, RxllmError
from ..misuse import MisuseError
from ..operators.reading import read_files
from ..values.request import Request
from ..wire.error_documents import excerpt
from ..wire.ndjson import NDJSONDecoder
from ._documents import encoded, json_of, object_of, text_of
from ._http import HTTPProvider
from ._mending import mended
from .batch_values import BatchState, Draft, Lost, Match, Outcome

__all__ = ["BatchAPI"]

PAGES = 10_000  # of a list of batches, at most


class BatchAPI(ABC):
    """A vendor's batch API. A model's method ``batches()`` returns one.

    All methods but `line` raise an RxllmError if the vendor refuses or cannot be reached.

    Attributes:
        name: the vendor.
        max_requests: the largest number of requests in a batch.
        max_bytes: the largest size of a batch.
        mixes_models: whether the requests of a batch may have several models.
    """

    name: ClassVar[str]
    max_requests: int
    max_bytes: int
    mixes_models: ClassVar[bool] = False

    def __init__(self, llm: HTTPProvider) -> None:
        self._llm = llm
        self._blank = Request.ask("", llm.parameters.updated({"stream": False}))

    @abstractmethod
    def _entry(self, key: str, body: dict[str, Any]) -> Mapping[str, Any]:
        """Return a request as the vendor's batches contain it."""

    async def upload(self, draft: Draft) -> str:
        """Upload the requests, and return the id of their file; empty if they are sent with the creation.

        An upload costs nothing.
        """
        return ""

    @abstractmethod
    async def create(self, draft: Draft, file: str) -> str:
        """Create a batch, and return its id."""

    @abstractmethod
    async def find(self, lost: Lost) -> Match:
        """Look for a batch whose creation the vendor has not confirmed."""

    @abstractmethod
    async def state(self, batch: str) -> BatchState:
        """Return the state of a batch."""

    @abstractmethod
    def results(self, batch: str, state: BatchState) -> AsyncIterator[tuple[str, Outcome]]:
        """Yield the keys and the outcomes of the requests of a batch that has ended, in any order."""

    @abstractmethod
    async def cancel(self, batch: str) -> None:
        """Cancel a batch. Its results have the answers that the vendor has already given, and charged."""

    def model_of(self, request: Request) -> str:
        """Return the model by which the requests of batches are grouped; empty if a batch may have several."""
        return "" if self.mixes_models else request.model or self._llm.model

    def line(self, key: str, request: Request) -> bytes:
        """Return a request as the vendor's batches contain it, without a line end. This method reads files.

        Raises:
            MisuseError: the request cannot be sent in a batch.
        """
        llm = self._llm
        request = read_files(request.over(llm.parameters).updated({"stream": False}))
        if request.shape is not None:
            plan = llm._plan(request)  # pyright: ignore[reportPrivateUsage]
            if plan.mode != "native":
                raise MisuseError(
                    "A batch can ask for a shape only by the model's own field for JSON schemas, which this request "
                    "cannot use. Write via='stream', or leave the shape out and parse the answers."
                )
            request = plan.request
        _, _, fields = llm._written(request)  # pyright: ignore[reportPrivateUsage]
        line = encoded(self._entry(key, {name: value for name, value in fields.items() if name != "stream"}))
        if len(line) > self.max_bytes:
            raise MisuseError(
                f"The request has {len(line):,} bytes, and a batch of {self.name} at most {self.max_bytes:,}. Write "
                "via='stream', or send its files by their URL."
            )
        return line

    # What follows helps the vendors' modules.

    async def _send(
        self,
        method: Literal["POST", "GET"],
        url: str,
        body: bytes = b"",
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request, and return the object in its response.

        Raises:
            RxllmError: the request failed, or the response is no JSON object.
        """
        pieces = self._llm._fetched(url, body, media_type if body else "", method, headers)  # pyright: ignore[reportPrivateUsage]
        async with AsyncStream(pieces) as stream:
            whole = b"".join([piece async for piece in stream])
        document = json_of(whole)
        if not isinstance(document, dict):
            raise ProtocolError(f"The server's answer is no JSON object: {excerpt(whole)}", frame=whole)
        return cast("dict[str, Any]", document)

    def _id(self, fields: Mapping[str, Any], name: str = "id") -> str:
        """Return the id in a response.

        Raises:
            ProtocolError: it has none.
        """
        if found := text_of(fields.get(name)):
            return found
        body = encoded(fields)
        raise ProtocolError(f"The server's answer has no {name}: {excerpt(body)}", frame=body)

    async def _pages(
        self, url: str, first: Mapping[str, str], following: Callable[[dict[str, Any]], Mapping[str, str]]
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the pages of a list.

        Args:
            url: the URL of the list.
            first: the parameters of the first page.
            following: returns the further parameters of the page after this one; none after the last page.

        Raises:
            RxllmError: a request failed, or the list does not end.
        """
        more: Mapping[str, str] = {}
        for _ in range(PAGES):
            page = await self._send("GET", f"{url}?{urlencode({**first, **more})}")
            yield page
            more = following(page)
            if not more:
                return
        raise ProtocolError(f"The server's list of batches has more than {PAGES:,} pages.")

    async def _lines(self, url: str) -> AsyncGenerator[dict[str, Any]]:
        """Yield the objects in a file of JSON lines, as they arrive.

        Raises:
            RxllmError: the request failed, or a line is no JSON object.
        """
        lines, rest = NDJSONDecoder(limit=self._llm.event_limit), b""
        async with AsyncStream(self._llm._fetched(url)) as pieces:  # pyright: ignore[reportPrivateUsage]
            async for piece in pieces:
                for _, line in lines.feed(piece):
                    yield _object(line)
                rest = piece.rpartition(b"\n")[2]
                await asyncio.sleep(0)  # to read the answers takes longer than to receive them
        last = lines.flush()
        if rest.strip() and not last:
            raise Interrupted("The file of results ended in the middle of a line.")
        for _, line in last:
            yield _object(line)

    def _answer(self, body: object) -> Outcome:
        """Return the answer in a response of the model, or the error that it is."""
        try:
            message = self._llm._whole(msgspec.json.encode(body), self._blank).message()  # pyright: ignore[reportPrivateUsage]
        except RxllmError as error:
            return Outcome(error, is_paid=True)
        return Outcome(message, is_paid=True)

    def _failure(self, status: int, body: object) -> Outcome:
        """Return the error in a response with this status."""
        return Outcome(self._llm._error(status, msgspec.json.encode(body), {}))  # pyright: ignore[reportPrivateUsage]


def _object(line: bytes) -> dict[str, Any]:
    document = json_of(line)
    if document is None and (better := mended(line)) is not None:
        document = json_of(better)
    if fields := object_of(document):
        return fields
    raise ProtocolError(f"A line of the batch's results is no JSON object: {excerpt(line)}", frame=line)
