"""`PageEvents`: what the encoders for chat pages have in common: blocks, tool calls, ids and signatures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from attrs import evolve

from ..values.characters import json_bytes
from ..values.chat_answer import new_id
from ..values.content import location_of
from ..values.parts import (
    Approval,
    FilePart,
    Part,
    Pending,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    text_of,
)
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from .failures import HTTPFailure
from .signatures import Signer
from .wording import chunk_of, refuse_reset

__all__ = ["Event", "Kind", "PageEvents", "line"]

Event = dict[str, Any]
Kind = Literal["text", "reasoning"]


def line(event: Event) -> bytes:
    """Return an event as a server-sent event."""
    return b"data: " + json_bytes(event) + b"\n\n"


class PageEvents(ABC):
    """Encodes chunks as the events of a chat page's protocol.

    The stream has at most one open block, of text or of reasoning; a piece of another kind closes it. A tool call stays
    open until a result, a file or the end, since a vendor may send text between the fragments of its arguments. The
    first piece after tool results begins a new step. A subclass writes the events of its protocol.

    Attributes:
        signer: signs calls and results, so that the server knows them when the page sends them back.
        usage: the usage of the answer so far.
        reason: why the answer ended.
    """

    media_type = "text/event-stream"
    ping = b": ping\n\n"

    def __init__(self, secret: str | bytes | None = None) -> None:
        self.signer = Signer(secret)
        self.usage: Usage | None = None
        self.reason: FinishReason | None = None
        self._made: dict[str, ToolCallPart] = {}  # the whole calls, by the id that the page sees
        self._block: tuple[Kind, str] | None = None  # the kind and the id of the open block
        self._before, self._after = b"", b""  # the bytes around a text of the open block
        # The open calls by index: the vendor's id, the call with the id that the page sees, and its arguments.
        self._calls: dict[int, tuple[str, ToolCallPart, list[str]]] = {}
        self._ids: dict[str, str] = {}  # the ids that the page sees, by the vendor's id in this step
        self._used: set[str] = set()
        self._sources: set[str] = set()
        self._results = False  # whether the last piece was a tool's result
        self._spoken = False

    # ── what a protocol writes ───────────────────────────────────────────────────────────────────────────────────

    def again(self) -> Iterable[Event]:
        """Return the events for an answer that begins again.

        Raises:
            Interrupted: the protocol cannot take content back.
        """
        raise refuse_reset()

    @abstractmethod
    def new_step(self) -> Iterable[Event]:
        """Return the events between the results of a round and the next round."""

    @abstractmethod
    def open_block(self, kind: Kind) -> tuple[str, Iterable[Event]]:
        """Return the id of a new block, and the events that open the block."""

    @abstractmethod
    def add_to_block(self, kind: Kind, block: str, text: str) -> Event:
        """Return the event of a piece of a block. The text is its last value."""

    @abstractmethod
    def close_block(self, kind: Kind, block: str) -> Iterable[Event]:
        """Return the events that close a block."""

    @abstractmethod
    def open_call(self, call: str, name: str) -> Event:
        """Return the event that opens a call."""

    @abstractmethod
    def add_to_call(self, call: str, arguments: str) -> Event:
        """Return the event of a piece of the arguments."""

    @abstractmethod
    def close_call(self, call: ToolCallPart) -> Event:
        """Return the event of a whole call. Its id is that of the page."""

    @abstractmethod
    def result(self, call: ToolCallPart | None, shown_id: str, part: ToolResultPart, text: str) -> Event:
        """Return the event of a result. Its call is None if the call is unknown."""

    @abstractmethod
    def pending(self, call: ToolCallPart) -> Iterable[Event]:
        """Return the events of a call that waits for an approval."""

    @abstractmethod
    def source(self, number: int, url: str, title: str | None) -> Event:
        """Return the event of a web page that the answer cites."""

    @abstractmethod
    def data(self, name: str, value: Any, facts: Mapping[str, Any]) -> Event:
        """Return the event of a `data_part`. `facts` may have its ``id`` and ``transient``."""

    @abstractmethod
    def file(self, url: str, media_type: str) -> Event:
        """Return the event of a file."""

    # ── what all protocols share ─────────────────────────────────────────────────────────────────────────────────

    def refuse(self, failure: HTTPFailure) -> bytes:
        """Return the error as JSON; a page shows the body of such a response."""
        return json_bytes({"error": failure.message, "code": failure.code})

    def encode(self, item: object) -> bytes:
        """Return the events of one item."""
        chunk = chunk_of(item)
        if chunk.rest is None and self._block is not None and self._block[0] == "text":
            return self._before + json_bytes(chunk.text) + self._after if chunk.text else b""
        lines: list[bytes] = []
        if chunk.reset and self._spoken:
            lines = [*map(line, self.again())]
            self._block, self._results = None, False
            self._calls.clear()
            self._ids.clear()
        self.usage = chunk.usage or self.usage
        self.reason = chunk.finish_reason or self.reason
        lines += [line(event) for part in chunk.parts for event in self._events(part)]
        self._spoken = self._spoken or bool(lines)
        return b"".join(lines)

    def closed(self) -> Iterator[Event]:
        """Close the open block and the open calls."""
        yield from self._closed_block()
        for index in [*self._calls]:
            yield from self._closed_call(index)

    def _events(self, part: Part) -> Iterator[Event]:
        if isinstance(part, ToolResultPart):
            yield from self.closed()
            self._results = True
            shown_id = self._ids.get(part.id, part.id)
            yield self.result(self._made.get(shown_id), shown_id, part, text_of(part.content, TextPart))
            return
        if self._results:
            self._results = False
            self._ids.clear()  # servers repeat ids in each round
            yield from self.new_step()
        match part:
            case TextPart() | RefusalPart():
                yield from self._piece("text", part.text)
                if isinstance(part, TextPart):
                    yield from self._citations(part)
            case ReasoningPart():
                yield from self._piece("reasoning", part.text)
            case ToolCallPart():
                yield from self._call(part)
            case FilePart() if (url := part.url or location_of(part)) is not None:
                yield from self.closed()
                yield self.file(url, part.media_type)
            case Pending():
                yield from self.closed()
                shown_id = self._ids.get(part.call.id, part.call.id)
                yield from self.pending(evolve(part.call, id=shown_id))
            case RawPart(provider="page", data=data):  # of `data_part`
                yield from self.closed()
                facts = {name: fact for name, fact in data.items() if name not in ("name", "value")}
                yield self.data(data["name"], data["value"], facts)
            case Approval():  # of a call in the page's last message; its result follows
                self._made[part.call.id] = part.call
            case _:  # only the vendor reads these
                return

    def _piece(self, kind: Kind, text: str) -> Iterator[Event]:
        if not text:
            return
        block = self._block
        if block is None or block[0] != kind:
            yield from self._closed_block()
            identity, events = self.open_block(kind)
            yield from events
            block = self._block = kind, identity
            self._before, _, self._after = line(self.add_to_block(kind, identity, "")).rpartition(b'""')
        yield self.add_to_block(kind, block[1], text)

    def _call(self, part: ToolCallPart) -> Iterator[Event]:
        known = self._calls.get(part.index)
        if known is None or part.id not in ("", known[0]):
            if known is not None:
                yield from self._closed_call(part.index)
            yield from self._closed_block()
            known = part.id, ToolCallPart(self._new_call_id(part.id), part.name), list[str]()
            self._calls[part.index] = known
            yield self.open_call(known[1].id, part.name)
        _, call, arguments = known
        if part.arguments:
            arguments.append(part.arguments)
            yield self.add_to_call(call.id, part.arguments)

    def _new_call_id(self, vendors: str) -> str:
        shown_id = vendors or new_id("call_")
        while shown_id in self._used:
            shown_id = f"{vendors}~{len(self._used)}"
        self._used.add(shown_id)
        self._ids[vendors] = shown_id
        return shown_id

    def _citations(self, part: TextPart) -> Iterator[Event]:
        for citation in part.citations:
            url, title = citation.get("url"), citation.get("title")
            if isinstance(url, str) and url not in self._sources:
                self._sources.add(url)
                yield self.source(len(self._sources), url, title if isinstance(title, str) else None)

    def _closed_call(self, index: int) -> Iterator[Event]:
        _, call, arguments = self._calls.pop(index)
        made = self._made[call.id] = evolve(call, arguments="".join(arguments))
        yield self.close_call(made)

    def _closed_block(self) -> Iterator[Event]:
        block, self._block = self._block, None
        if block is not None:
            yield from self.close_block(*block)
