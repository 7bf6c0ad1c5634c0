"""The decoder of the Responses protocol, for OpenAI and compatible servers.

https://platform.openai.com/docs/api-reference/responses-streaming: an answer is a list of items (messages, reasoning,
tool calls, the work of the server's own tools), and each event names its item. OpenAI numbers the items and the events.
Some servers change an item's id from event to event, llama.cpp sends ids without numbers, and gateways give one number
to several items, or change the number of an item. So an event belongs to the item with its number and its id; else to
the item with its id; else to the item with its number; and if it has neither, to the latest item.

The server requires some fields of an item in the next request. `extra` keeps them as ``{"item": {…}}``, because the
same vendor's chat protocol has other fields. An item that no other part can hold becomes a `RawPart` of this form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, text_chunk
from ..values.parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..wire.error_documents import provider_error, stated_error, tells_error
from ._content import Tally, bounded, citations
from ._documents import UNREADABLE, identity_of, json_of, list_of, object_of, text_of, token_of, unreadable
from ._finish import broken_off, finish_with, word_of
from ._ids import call_name_of
from ._limits import DEFAULT, WHOLE, Limits
from ._responses_items import Item, arguments_in, image_of, keys_of, logprobs_of, usage_of

__all__ = ["ResponsesDecoder", "whole_response"]


class _Event(Struct, gc=False):
    """The fields of a text event. The decoder decodes every other event again, as a document."""

    type: Any = None
    delta: Any = None
    output_index: Any = None
    item_id: Any = None
    summary_index: Any = None
    sequence_number: Any = None
    logprobs: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_TEXT = "response.output_text.delta"
_CITATION = "response.output_text.annotation.added"
_SUMMARY_PART = "response.reasoning_summary_part.added"
_KINDS = {  # for each type of event, the type of its item
    _TEXT: "message",
    _CITATION: "message",
    "response.refusal.delta": "message",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning.delta": "reasoning",  # OpenRouter
    _SUMMARY_PART: "reasoning",
    "response.function_call_arguments.delta": "function_call",
    "response.custom_tool_call_input.delta": "custom_tool_call",
}
# The events that repeat a text when it is whole: the kind of the item, and the field of the text.
_WHOLE = {
    "response.output_text.done": ("message", "text"),
    "response.refusal.done": ("message", "refusal"),
    "response.function_call_arguments.done": ("function_call", "arguments"),
    "response.custom_tool_call_input.done": ("custom_tool_call", "input"),
}
_BEGINNINGS = ("response.created", "response.queued", "response.in_progress")
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done")
_IN_PARTS = {  # the fields of items that the attributes of parts carry
    "type", "status", "role", "content", "arguments", "input", "call_id", "name", "summary", "encrypted_content",
}  # fmt: skip


class ResponsesDecoder:
    """Decodes one stream, which is complete after ``response.completed`` or ``response.incomplete``.

    Attributes:
        id: the id of the response.
        background: whether the server continues the response after the connection broke.
        seen: the number of the last event; None if the server does not number events.
    """

    __slots__ = (
        "_calls",
        "_custom",
        "_entries",
        "_floor",
        "_index",
        "_is_plain",
        "_items",
        "_keeper",
        "_last",
        "_maker",
        "_model",
        "_named",
        "_opened",
        "_spoken",
        "_tally",
        "_thought",
        "background",
        "complete",
        "ended",
        "failure",
        "id",
        "seen",
    )

    def __init__(
        self,
        maker: str = "openai",
        custom: Collection[str] = (),
        keeper: str = "openai",
        limits: Limits = DEFAULT,
    ) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.id = ""
        self.background = False
        self.seen: int | None = None
        self._maker = maker
        self._keeper = keeper  # provider name of the raw items; a gateway's maker may differ
        self._custom = custom  # the names of the program's tools that take text instead of JSON
        self._model = ""
        self._named = False  # a chunk with the model's name was emitted; llama.cpp sends the name only at the end
        self._items: dict[object, Item] = {}  # the keys are each item's ids, its index, and both in pairs
        self._entries: list[Item] = []  # in order
        self._last: Item | None = None
        self._opened = self._calls = 0
        self._thought = ""  # the id of the reasoning directly before the next item
        self._tally = Tally(limits)
        self._spoken = False
        self._floor = -1  # events up to this number arrived before the connection broke
        self._is_plain = False  # the last part is the text of item `_index`, so text of this item continues it
        self._index: Any = None

    @property
    def finished(self) -> bool:
        """Whether the answer ended without an error."""
        return self.complete

    def chunk(self, data: bytes) -> Chunk | None:
        """Return the content of an event as a chunk; None if it has no content."""
        try:
            event = _decode(data)
        except UNREADABLE as error:
            if self.ended or data.strip() in (b"", b"[DONE]"):  # other servers send this marker
                self.ended = self.complete
                return None
            raise unreadable("an event of a response", error, data) from None
        if self._is_plain and event.type == _TEXT and event.output_index == self._index and not event.logprobs:
            text = event.delta
            if text and type(text) is str:
                self.seen = event.sequence_number
                return text_chunk(text)
        return None if self.ended or self._is_repeated(event.sequence_number) else self._read(event, data)

    def rest(self) -> Chunk | None:
        """Return None: the decoder holds back no content."""
        return None

    def resume(self) -> bool:
        """Prepare for another stream of the same response. Return False if the server cannot resume the response."""
        if not self.background or not self.id or type(self.seen) is not int:
            return False
        self._floor, self._is_plain = self.seen, False
        return True

    def _is_repeated(self, number: object) -> bool:
        if type(number) is not int:
            return False
        if number <= self._floor:
            return True
        self.seen, self._floor = number, -1
        return False

    def _read(self, event: _Event, data: bytes) -> Chunk | None:
        kind = text_of(event.type)
        if kind in _KINDS:
            return self._grow(kind, event, data)
        document = json_of(data)
        fields = object_of(document)
        if kind == "response.output_item.added":
            item = object_of(fields.get("item"))
            entry = self._place(event, item)
            if entry.kind == "function_call" and item.get("status") == "completed" and arguments_in(item):
                entry.held = item  # Perplexity begins its own search like this, and ends it as an item of another type
                return None
            return self._chunk_of(self._open(entry, item))
        if kind == "response.output_item.done":
            item = object_of(fields.get("item"))
            entry = self._place(event, item)
            logprobs = logprobs_of(item) if not entry.emitted else []
            return self._chunk_of(self._close(entry, item), logprobs=logprobs)
        if kind in _WHOLE:
            return self._chunk_of(self._unheard(*_WHOLE[kind], event, fields))
        response = object_of(fields.get("response"))
        if kind in _BEGINNINGS:
            if self.complete:  # some gateways send several responses in a row
                self.complete, self._last = False, None
                self._items.clear()
                self._entries.clear()
            self._identify(response)
        elif kind in _ENDS:
            return self.end(text_of(response.get("status")) or kind.partition(".")[2], response, data)
        elif kind == "error" or (not kind and tells_error(document)):
            raise provider_error(document, data)
        return None

    def _identify(self, response: Mapping[str, Any]) -> None:
        self.id = self.id or identity_of(response.get("id"))
        self._model = self._model or text_of(response.get("model"))
        self.background = self.background or response.get("background") is True

    def _place(self, event: _Event, item: Mapping[str, Any] | None = None, kind: str = "") -> Item:
        """Return the item of an event; a new item if no existing item matches."""
        kind = kind or text_of((item or {}).get("type"))
        is_added = event.type == "response.output_item.added"
        sure, keys = keys_of(event.output_index, event.item_id, item or {})
        # An item that is added is new even if another item has its number.
        found = map(self._items.get, sure if is_added else keys)
        entry = next((each for each in found if each is not None and each.kind == kind), None)
        if entry is None and not is_added and type(event.output_index) is not int:
            entry = self._last
        is_new = entry is None or (entry.is_done and is_added)
        if entry is None or is_new or entry.kind != kind:
            self._opened += 1
            if self._opened > PARTS:
                raise ProtocolError(f"The response has more than {PARTS:,} items.")
            entry = self._last = Item(kind, self._opened - 1)
            self._entries.append(entry)
            self._is_plain = False
            for before in filter(None, map(self._items.get, keys)):
                if before.kind != kind:
                    before.held = None  # this item takes its place
            self._items.update(dict.fromkeys(keys, entry))
        return entry

    def _grow(self, kind: str, event: _Event, data: bytes) -> Chunk | None:
        """Return the content that an event adds to an item."""
        item = self._place(event, kind=_KINDS[kind])
        text = token_of(event.delta)
        if kind == _CITATION:
            item.has_citations = True
            return self._chunk_of([*citations([object_of(json_of(data)).get("annotation")])])
        if kind == _SUMMARY_PART:
            item.has_gap = item.emitted
            return None
        if not text:
            return None
        part: Part
        if kind == _TEXT:
            part = self._passage(item, text)
            self._index = event.output_index
        elif item.kind == "message":
            part = RefusalPart(text)
        elif item.kind == "reasoning":
            source = "summary" if "summary" in kind else "content"
            item.source = item.source or source
            if item.source != source:
                return None
            has_gap = item.has_gap or (event.summary_index != item.section and item.emitted)
            item.has_gap, item.section = False, event.summary_index
            text = f"\n\n{text}" if has_gap else text
            part = ReasoningPart(text, index=item.place)
        elif item.call is None:  # the name has not arrived, or the server runs the call
            return None
        else:
            part = ToolCallPart("", "", text, item.call)
            item.arguments.append(text)
        item.emitted = True
        return self._chunk_of([part], logprobs=list_of(event.logprobs) if kind == _TEXT else ())

    def _unheard(self, kind: str, field: str, event: _Event, fields: Mapping[str, Any]) -> list[Part]:
        """Return the text that an event repeats, if it did not arrive in pieces."""
        item, text = self._place(event, kind=kind), text_of(fields.get(field))
        if item.call is not None:
            return item.rest(text)
        if item.emitted or kind != "message" or not text:
            return []
        part = RefusalPart(text) if field == "refusal" else self._passage(item, text)
        item.emitted = True
        return [part]

    def _passage(self, item: Item, text: str, cited: Sequence[Mapping[str, Any]] = ()) -> TextPart:
        """Return a piece of text. The first piece of a message carries the fields that the server requires back."""
        if item.emitted or not item.facts:
            apart = item.place if not item.emitted and self._tally.ends_in_text else None
            return TextPart(text, cited, index=apart)
        index = item.place if self._tally.ends_in_text else None
        return TextPart(text, cited, index=index, provider=self._maker, extra=item.facts)

    def _open(self, entry: Item, item: Mapping[str, Any]) -> list[Part]:
        """Keep the further fields of an item. Return what it adds to a tool call, which begins with its name."""
        if entry.facts is None and entry.kind != "reasoning":
            entry.facts = self._facts(item)
        if entry.call is not None:
            return entry.rest(arguments_in(item))
        if entry.kind == "function_call" or (entry.kind == "custom_tool_call" and item.get("name") in self._custom):
            identity, name = identity_of(item.get("call_id") or item.get("id")), call_name_of(item.get("name"))
            if identity and name:
                if self._calls >= CALLS:
                    raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
                entry.call, self._calls = self._calls, self._calls + 1
                facts = entry.facts
                if entry.kind != "function_call":
                    facts = {**(facts or {}), "item": {"type": entry.kind, **(facts or {}).get("item", {})}}
                arguments, provider = entry.missing(arguments_in(item)), self._maker if facts else None
                return [ToolCallPart(identity, name, arguments, entry.call, provider=provider, extra=facts or None)]
        return []

    def _facts(self, item: Mapping[str, Any]) -> dict[str, Any]:
        facts = {name: fact for name, fact in item.items() if name not in _IN_PARTS and fact not in (None, "", [])}
        thought, self._thought = self._thought, ""
        if not thought:
            facts.pop("id", None)  # the server needs the id only after reasoning
        return {**({"item": facts} if facts else {}), **({"follows": thought} if thought else {})}

    def _close(self, entry: Item, item: Mapping[str, Any]) -> list[Part]:
        """Return the content of a complete item that was not emitted yet."""
        entry.is_done = True
        if entry.kind == "reasoning":
            return [self._reasoning(entry, item)]
        opened = self._open(entry, item)
        if entry.call is not None:
            return opened
        if entry.kind == "message":
            return self._message(entry, item)
        if entry.kind == "image_generation_call" and (image := image_of(item, self._keeper)):
            return [image]
        follows = {"follows": entry.facts["follows"]} if entry.facts and "follows" in entry.facts else {}
        return [RawPart(self._keeper, {"item": item, **follows})]

    def _message(self, entry: Item, item: Mapping[str, Any]) -> list[Part]:
        parts: list[Part] = []
        was_silent = not entry.emitted
        for content in map(object_of, bounded(list_of(item.get("content")), PARTS, "parts")):
            text, refusal = text_of(content.get("text")), text_of(content.get("refusal"))
            if was_silent and text:
                parts.append(self._passage(entry, text))
                entry.emitted = True
            if was_silent and refusal:
                parts.append(RefusalPart(refusal))
                entry.emitted = True
            if not entry.has_citations:
                parts += citations(content.get("annotations"))
        return parts

    def _reasoning(self, entry: Item, item: Mapping[str, Any]) -> ReasoningPart:
        """Return the end of some reasoning: its signature and the further fields that the server requires back."""
        texts = {
            name: [text_of(object_of(each).get("text")) for each in list_of(item.get(name))]
            for name in ("summary", "content")
        }
        source = entry.source or ("summary" if any(texts["summary"]) else "content")
        whole = ("\n\n" if source == "summary" else "").join(texts[source])
        facts = {name: item[name] for name in ("summary", "content") if item.get(name)}
        if facts == {"summary": [{"type": "summary_text", "text": whole}]}:
            facts = {}
        facts |= {name: fact for name, fact in self._facts(item).get("item", {}).items() if name != "id"}
        self._thought = identity_of(item.get("id"))
        return ReasoningPart(
            whole if not entry.emitted else "",
            signature=text_of(item.get("encrypted_content")) or None,
            index=entry.place,
            id=self._thought or None,
            provider=self._maker,
            extra={"item": facts} if facts else None,
        )

    def end(self, status: str, response: Mapping[str, Any], data: bytes) -> Chunk:
        """Return the content of the last event, or of a whole answer."""
        self._identify(response)
        logprobs: list[object] = []
        parts = [part for entry in self._entries if entry.held for part in self._open(entry, entry.held)]
        self._tally.add(parts)
        for entry, item in self._unended(list_of(response.get("output"))):
            logprobs += logprobs_of(item) if not entry.emitted else []
            closed = self._close(entry, item)
            self._tally.add(closed)  # before the next item, whose text must stay apart
            parts += closed
        parts += [part for entry in self._entries for part in entry.end()]
        self._is_plain = False
        raw = word_of(object_of(response.get("incomplete_details")).get("reason")) or status
        if error := stated_error(response.get("error")):
            self.failure = provider_error({"error": error}, data)
        else:
            self.failure = broken_off(raw)
        self.complete = self.failure is None
        return self._new_chunk(parts, usage_of(response.get("usage")), raw, logprobs)

    def _unended(self, output: Sequence[object]) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Yield the items of the whole output that are not emitted, each with its entry, which may be new.

        The n-th item of a kind is the n-th entry of this kind, because some servers change ids, and numbers have gaps.
        A server may also end an item without its content. Then the item must have the id of its entry, because the
        output may lack items without content.
        """
        entries: dict[str, list[Item]] = {}
        for entry in reversed(self._entries):
            entries.setdefault(entry.kind, []).append(entry)
        for item in map(object_of, output):
            known = entries.get(text_of(item.get("type")))
            entry = known.pop() if known else self._place(_Event(type="response.output_item.added"), item)
            ids, _ = keys_of(None, None, item)
            if not entry.is_done or (entry.lacks_content and any(self._items.get(name) is entry for name in ids)):
                yield entry, item

    def _chunk_of(self, parts: Sequence[Part], *, logprobs: Sequence[object] = ()) -> Chunk | None:
        """Return a chunk, or None if it would be empty."""
        if parts:
            self._is_plain = self._tally.add(parts)
        return self._new_chunk(parts, logprobs=logprobs) if parts or logprobs else None

    def _new_chunk(
        self,
        parts: Sequence[Part],
        usage: Usage | None = None,
        raw: str | None = None,
        logprobs: Sequence[object] = (),
    ) -> Chunk:
        """Return a chunk of parts that are counted.

        The first chunk has the id and the provider. The first chunk after the model's name has arrived has the name.
        """
        if logprobs:
            self._tally.hold_logprobs(logprobs)
        first, self._spoken = not self._spoken, True
        model = None if self._named else self._model or None
        self._named = self._named or model is not None
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish_with(raw, calls=self._calls),
            raw_finish_reason=raw,
            logprobs={"content": tuple(logprobs)} if logprobs else None,
            id=(self.id or None) if first else None,
            model=model,
            provider=self._maker if first and (self.id or self._model) else None,
        )


def whole_response(body: bytes, maker: str = "openai", custom: Collection[str] = (), keeper: str = "openai") -> Chunk:
    """Return a whole answer as a chunk.

    Raises:
        ProviderError: the body is an error, or the response failed. `partial` has the content of a failed response.
        ProtocolError: the body is neither an answer nor an error.
    """
    document = json_of(body)
    response = object_of(document)
    status = text_of(response.get("status"))
    if not isinstance(response.get("output"), list):
        if tells_error(document):
            raise provider_error(document, body)
        raise ProtocolError("The body is not a response of the Responses protocol: it has no output.", frame=body)
    if status in ("queued", "in_progress"):
        raise ProtocolError(f"The answer is not complete: its status is {status!r}.", frame=body)
    decoder = ResponsesDecoder(maker, custom, keeper, WHOLE)
    chunk = decoder.end(status or "completed", response, body)
    if decoder.failure:
        decoder.failure.partial = chunk.message()
        raise decoder.failure
    return chunk
