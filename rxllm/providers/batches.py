"""The batch APIs of vendors, as a job uses them: `BatchAPI`, and what its methods take and return.

A vendor's module writes the requests, reads the states and the results, and says how a batch is found again whose
creation the vendor has not confirmed. The job decides what is sent, when, and how often.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from typing import Any, ClassVar, Literal, cast
from urllib.parse import urlencode

import msgspec
from attrs import frozen

from ..bridges import AsyncStream
from ..errors import Interrupted, ProtocolError, RxllmError
from ..misuse import MisuseError
from ..operators.backoff import is_retryable
from ..operators.reading import read_files
from ..values.message import Message
from ..values.request import Request
from ..wire.error_documents import excerpt
from ..wire.ndjson import NDJSONDecoder
from ._documents import encoded, json_of, object_of, text_of
from ._http import HTTPProvider
from ._mending import mended

__all__ = ["BatchAPI", "BatchState", "Draft", "Lost", "Match", "Outcome"]

PAGES = 10_000  # of a list of batches, at most


@frozen
class Outcome:
    """What became of one request.

    Attributes:
        value: the answer, or an error; None if the vendor did not answer, because the batch expired or was cancelled.
        is_paid: whether the model has answered. The value may be an error nevertheless, if it cannot be read.
    """

    value: Message | Exception | None = None
    is_paid: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the request must be sent again."""
        if self.is_paid:
            return False
        return self.value is None or (isinstance(self.value, Exception) and is_retryable(self.value))


@frozen
class Draft:
    """A batch to be created.

    Attributes:
        tag: a random name, by which some vendors find the batch again.
        model: the model of all its requests; empty if the vendor takes several in one batch.
        lines: its requests, as `BatchAPI.line` returns them.
    """

    tag: str
    model: str
    lines: list[bytes]


@frozen
class Lost:
    """A batch whose creation the vendor has not confirmed: what the job knows of it.

    Attributes:
        tag: its tag.
        file: the id of the file that was uploaded for it; empty if there is none.
        at: when it was written down, just before its creation, in seconds since 1970.
        keys: the keys of its requests. Of all other batches, only those in `others` may have some of them.
        others: the ids of the other batches of the job.
    """

    tag: str
    file: str
    at: float
    keys: Collection[str]
    others: Collection[str] = ()


@frozen
class Match:
    """The result of a search for a lost batch.

    Attributes:
        batch: its id; empty if it was not found.
        undecided: the ids of batches that may be it; the vendor tells only when they have ended.
        gone: the id of a batch that may be it, and whose results the vendor does not keep any more; or empty.
    """

    batch: str = ""
    undecided: tuple[str, ...] = ()
    gone: str = ""


@frozen
class BatchState:
    """The state of a batch.

    Attributes:
        status: the vendor's word for it.
        ended: whether its results are complete.
        cancelled: whether somebody has cancelled it.
        answered: the number of requests that the vendor has answered; None if it does not say.
        refusal: why the vendor refused the whole batch; None if it did not.
        is_full: whether it refused the batch only because too many others wait in its queue.
        places: where the results are, in the vendor's terms.
    """

    status: str
    ended: bool = False
    cancelled: bool = False
    answered: int | None = None
    refusal: str | None = None
    is_full: bool = False
    places: tuple[str, ...] = ()


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
        """Cancel a batch. What it has answered is paid, and is among its results."""

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
