"""What comes back by the Responses protocol, from OpenAI and the servers compatible with it.

https://platform.openai.com/docs/api-reference/responses-streaming: an answer is a row of items (messages, reasoning,
calls, the work of the server's own tools), and each event names the item that it belongs to. OpenAI numbers the items
and the events. Some servers change an item's id from event to event; llama.cpp sends ids and no numbers. So an event
belongs to the item with its number, else to the item with its id, else to the item that was opened last.

What the server wants back of an item stands in `extra` as ``{"item": {…}}``, because the same vendor's chat protocol
has other fields. An item that no part of ours can hold is a `RawPart` of the same form.
It is one room because every event is read against the items that were opened before.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, text_chunk
from ..values.parts import FilePart, Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ._content import Tally, bounded, citations
from ._documents import (
    UNREADABLE,
    count,
    identity_of,
    json_of,
    list_of,
    object_of,
    provider_error,
    tells_error,
    text_of,
)
from ._finish import broken_off, finish_of, word_of

__all__ = ["ResponsesDecoder", "whole_response"]


class _Event(Struct, gc=False):
    """What is read of an event of text. All other events are decoded once more, as a whole."""

    type: Any = None
    delta: Any = None
    output_index: Any = None
    item_id: Any = None
    sequence_number: Any = None
    logprobs: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_TEXT = "response.output_text.delta"
_CITATION = "response.output_text.annotation.added"
_SUMMARY_PART = "response.reasoning_summary_part.added"
_KINDS = {  # of the items that events without an item of their own belong to
    _TEXT: "message",
    _CITATION: "message",
    "response.refusal.delta": "message",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    _SUMMARY_PART: "reasoning",
    "response.function_call_arguments.delta": "function_call",
    "response.custom_tool_call_input.delta": "custom_tool_call",
}
_BEGINNINGS = ("response.created", "response.queued", "response.in_progress")
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_IN_PARTS = {  # fields of items whose meaning has a place in our parts
    "type", "status", "role", "content", "arguments", "input", "call_id", "name", "summary", "encrypted_content",
}  # fmt: skip


class _Item:
    """An item that was opened.

    Attributes:
        kind: its type.
        place: its place among the items of the answer.
        said: the number of characters of it that were emitted.
        source: the field of a reasoning item whose text is emitted; a server may send both.
        facts: what its maker wants back besides the text; None until they are known.
        call: its place among the calls; None until it was emitted as one.
    """

    __slots__ = ("call", "facts", "has_citations", "has_gap", "kind", "place", "said", "source")

    def __init__(self, kind: str, place: int) -> None:
        self.kind = kind
        self.place = place
        self.said = 0
        self.source = ""
        self.facts: dict[str, Any] | None = None
        self.call: int | None = None
        self.has_citations = self.has_gap = False


class ResponsesDecoder:
    """One stream. Complete on ``response.completed`` or ``response.incomplete``.

    Attributes:
        id: the id of the response.
        background: whether the server goes on with the response when the connection breaks.
        seen: the number of the last event; None where the server does not number events.
    """

    __slots__ = (
        "_calls",
        "_custom",
        "_floor",
        "_index",
        "_is_plain",
        "_items",
        "_keeper",
        "_last",
        "_maker",
        "_model",
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

    def __init__(self, maker: str = "openai", custom: Collection[str] = (), keeper: str = "openai") -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.id = ""
        self.background = False
        self.seen: int | None = None
        self._maker = maker
        self._keeper = keeper  # provider name of the raw items; a gateway's maker may differ
        self._custom = custom  # names of the program's tools that take text; servers have such tools of their own, too
        self._model = ""
        self._items: dict[int | str, _Item] = {}  # by the server's number, or else its id
        self._last: _Item | None = None
        self._opened = self._calls = 0
        self._thought = ""  # id of the reasoning that the next item directly follows
        self._tally = Tally()
        self._spoken = False
        self._floor = -1  # events up to this number were read before the connection broke
        self._is_plain = False  # text of the item of the number `_index` continues the text that was emitted last
        self._index: Any = None

    @property
    def finished(self) -> bool:
        """Whether the end came, and no error."""
        return self.complete

    def chunk(self, data: bytes) -> Chunk | None:
        """What an event says."""
        try:
            event = _decode(data)
        except UNREADABLE as error:
            if self.ended or data.strip() in (b"", b"[DONE]"):  # OpenAI sends no such mark
                self.ended = self.complete
                return None
            raise ProtocolError(f"A frame is not an event of a response: {error}.", frame=data) from None
        if self._is_plain and event.type == _TEXT and event.output_index == self._index and not event.logprobs:
            text = event.delta
            if text and type(text) is str:
                self.seen = event.sequence_number
                return text_chunk(text)
        return None if self.ended or self._is_known(event.sequence_number) else self._read(event, data)

    def rest(self) -> Chunk | None:
        """Nothing is held back."""
        return None

    def resume(self) -> bool:
        """Prepare to go on in another stream of the same response; whether that is possible."""
        if not self.background or not self.id or type(self.seen) is not int:
            return False
        self._floor, self._is_plain = self.seen, False
        return True

    def _is_known(self, number: object) -> bool:
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
            return self._said(self._open(self._place(event, item), item))
        if kind == "response.output_item.done":
            item = object_of(fields.get("item"))
            known = self._place(event, item)
            logprobs = _logprobs(item) if not known.said else []
            return self._said(self._close(known, item), logprobs=logprobs)
        response = object_of(fields.get("response"))
        if kind in _BEGINNINGS:
            if self.complete:  # some gateways answer with several responses in a row, as the server runs its tools
                self.complete, self._last = False, None
                self._items.clear()
            self._identify(response)
        elif kind in _ENDS:
            chunk = self.end(text_of(response.get("status")) or kind.partition(".")[2], response, data)
            if chunk is None and self.failure:
                raise self.failure
            return chunk
        elif kind == "error" or (not kind and fields.get("error")):
            raise provider_error(document, data)
        return None

    def _identify(self, response: Mapping[str, Any]) -> None:
        self.id = self.id or identity_of(response.get("id"))
        self._model = self._model or text_of(response.get("model"))
        self.background = self.background or response.get("background") is True

    def _place(self, event: _Event, item: Mapping[str, Any] | None = None, kind: str = "") -> _Item:
        """The item that an event belongs to; a new one where none fits."""
        kind = kind or text_of((item or {}).get("type"))
        keys: list[int | str] = []
        if type(event.output_index) is int:
            keys = [event.output_index]
        else:
            names = (event.item_id, *((item or {}).get(name) for name in ("id", "call_id")))
            keys = [name for name in names if name and isinstance(name, str)]
        known = next((self._items[key] for key in keys if key in self._items), None)
        if known is None and not (keys and type(keys[0]) is int) and event.type != "response.output_item.added":
            known = self._last
        if known is None or known.kind != kind:
            self._opened += 1
            if self._opened > PARTS:
                raise ProtocolError(f"The response has more than {PARTS:,} items.")
            known = self._last = _Item(kind, self._opened - 1)
            self._is_plain = False
            self._items.update(dict.fromkeys(keys, known))
        return known

    def _grow(self, kind: str, event: _Event, data: bytes) -> Chunk | None:
        """What an event adds to an item."""
        item = self._place(event, kind=_KINDS[kind])
        text = text_of(event.delta)
        if kind == _CITATION:
            item.has_citations = True
            return self._said([*citations([object_of(json_of(data)).get("annotation")])])
        if kind == _SUMMARY_PART:
            item.has_gap = bool(item.said)
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
            text, item.has_gap = ("\n\n" if item.has_gap else "") + text, False
            part = ReasoningPart(text, index=item.place)
        elif item.call is None:  # its name is not known yet, or it is the server's own
            return None
        else:
            part = ToolCallPart("", "", text, item.call)
        item.said += len(text)
        return self._said([part], logprobs=list_of(event.logprobs) if kind == _TEXT else ())

    def _passage(self, item: _Item, text: str, cited: Sequence[Mapping[str, Any]] = ()) -> TextPart:
        """Some text of a message; the first carries what the maker wants back with it."""
        if item.said or not item.facts:
            apart = item.place if not item.said and self._tally.ends_in_text else None
            return TextPart(text, cited, index=apart)
        index = item.place if self._tally.ends_in_text else None
        return TextPart(text, cited, index=index, provider=self._maker, extra=item.facts)

    def _open(self, known: _Item, item: Mapping[str, Any]) -> list[Part]:
        """Note the facts of an item; a call is emitted as soon as its name is known."""
        if known.facts is None and known.kind != "reasoning":
            known.facts = self._facts(item)
        if known.kind == "function_call" or (known.kind == "custom_tool_call" and item.get("name") in self._custom):
            identity, name = identity_of(item.get("call_id") or item.get("id")), text_of(item.get("name"))
            if known.call is None and identity and name:
                if self._calls >= CALLS:
                    raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
                known.call, self._calls = self._calls, self._calls + 1
                arguments = _arguments(item)
                known.said = len(arguments)
                facts = known.facts
                if known.kind != "function_call":
                    facts = {**(facts or {}), "item": {"type": known.kind, **(facts or {}).get("item", {})}}
                return [
                    ToolCallPart(
                        identity,
                        name,
                        arguments,
                        known.call,
                        provider=self._maker if facts else None,
                        extra=facts or None,
                    )
                ]
        return []

    def _facts(self, item: Mapping[str, Any]) -> dict[str, Any]:
        facts = {name: fact for name, fact in item.items() if name not in _IN_PARTS and fact not in (None, "", [])}
        thought, self._thought = self._thought, ""
        if not thought:
            facts.pop("id", None)  # ids matter only together
        return {**({"item": facts} if facts else {}), **({"follows": thought} if thought else {})}

    def _close(self, known: _Item, item: Mapping[str, Any]) -> list[Part]:
        """What is known of an item at its end, and was not emitted yet."""
        if known.kind == "reasoning":
            return [self._reasoning(known, item)]
        opened = self._open(known, item)
        if known.call is not None:
            missing = _arguments(item)[known.said :]
            known.said += len(missing)
            return [*opened, ToolCallPart("", "", missing, known.call)] if missing else opened
        if known.kind == "message":
            return self._message(known, item)
        if known.kind == "image_generation_call" and (image := _image(item, self._keeper)):
            return [image]
        follows = {"follows": known.facts["follows"]} if known.facts and "follows" in known.facts else {}
        return [RawPart(self._keeper, {"item": item, **follows})]

    def _message(self, known: _Item, item: Mapping[str, Any]) -> list[Part]:
        parts: list[Part] = []
        was_silent = not known.said
        for content in map(object_of, bounded(list_of(item.get("content")), PARTS, "parts")):
            text, refusal = text_of(content.get("text")), text_of(content.get("refusal"))
            if was_silent and text:
                parts.append(self._passage(known, text))
                known.said += len(text)
            if was_silent and refusal:
                parts.append(RefusalPart(refusal))
            if not known.has_citations:
                parts += citations(content.get("annotations"))
        return parts

    def _reasoning(self, known: _Item, item: Mapping[str, Any]) -> ReasoningPart:
        """The end of a thought: its proof, and what its maker wants back that its text does not say."""
        texts = {
            name: [text_of(object_of(each).get("text")) for each in list_of(item.get(name))]
            for name in ("summary", "content")
        }
        source = known.source or ("summary" if any(texts["summary"]) else "content")
        whole = ("\n\n" if source == "summary" else "").join(texts[source])
        facts = {name: item[name] for name in ("summary", "content") if item.get(name)}
        if facts == {"summary": [{"type": "summary_text", "text": whole}]}:
            facts = {}
        facts |= {name: fact for name, fact in self._facts(item).get("item", {}).items() if name != "id"}
        self._thought = identity_of(item.get("id"))
        return ReasoningPart(
            whole if not known.said else "",
            signature=text_of(item.get("encrypted_content")) or None,
            index=known.place,
            id=self._thought or None,
            provider=self._maker,
            extra={"item": facts} if facts else None,
        )

    def end(self, status: str, response: Mapping[str, Any], data: bytes) -> Chunk | None:
        """The last event, or a whole answer."""
        self._identify(response)
        parts: list[Part] = []
        logprobs: list[object] = []
        if not self._opened:  # nothing was streamed
            for place, item in enumerate(map(object_of, list_of(response.get("output")))):
                known = self._place(_Event(output_index=place), item)
                parts += self._close(known, item)
                logprobs += _logprobs(item)
        self._is_plain = False
        raw = word_of(object_of(response.get("incomplete_details")).get("reason")) or status
        if response.get("error"):
            self.failure = provider_error({"error": response["error"]}, data)
        else:
            self.failure = broken_off(raw)
        self.complete = self.failure is None
        return self._said(parts, _usage(response.get("usage")), raw, logprobs)

    def _said(
        self,
        parts: Sequence[Part],
        usage: Usage | None = None,
        raw: str | None = None,
        logprobs: Sequence[object] = (),
    ) -> Chunk | None:
        """Return a chunk, or None if it would be empty. The first chunk has the id, the model and the provider."""
        if parts:
            self._is_plain = self._tally.add(parts)
        if not (parts or usage or raw or logprobs):
            return None
        first, self._spoken = not self._spoken, True
        finish = finish_of(raw) if raw else None
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason="tool_call" if finish == "stop" and self._calls else finish,
            raw_finish_reason=raw,
            logprobs={"content": tuple(logprobs)} if logprobs else None,
            id=(self.id or None) if first else None,
            model=(self._model or None) if first else None,
            provider=self._maker if first and (self.id or self._model) else None,
        )


def whole_response(body: bytes, maker: str = "openai", custom: Collection[str] = (), keeper: str = "openai") -> Chunk:
    """The answer that was not streamed.

    Raises:
        ProviderError: the body is an error, or the response failed; what else it says is the error's `partial`.
        ProtocolError: the body is neither.
    """
    document = json_of(body)
    response = object_of(document)
    status = text_of(response.get("status"))
    if not isinstance(response.get("output"), list):
        if list_of(document) or response.get("error") or tells_error(document):
            raise provider_error(document, body)
        raise ProtocolError("The body is not a response of the Responses protocol: it has no output.", frame=body)
    if status in ("queued", "in_progress"):
        raise ProtocolError(f"The answer is not finished: its status is {status}.", frame=body)
    decoder = ResponsesDecoder(maker, custom, keeper)
    chunk = decoder.end(status or "completed", response, body)
    if decoder.failure:
        decoder.failure.partial = chunk.message() if chunk else None
        raise decoder.failure
    return chunk or Chunk()


def _arguments(item: Mapping[str, Any]) -> str:
    arguments = item.get("arguments", item.get("input"))
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def _logprobs(item: Mapping[str, Any]) -> list[object]:
    contents = map(object_of, list_of(item.get("content")))
    return [each for content in contents for each in list_of(content.get("logprobs"))]


def _image(item: Mapping[str, Any], maker: str) -> FilePart | None:
    """A picture that the server's tool has made, which goes back by its id."""
    kind = f"image/{text_of(item.get('output_format')) or 'png'}"
    try:
        data = base64.b64decode(text_of(item.get("result")), validate=True)
    except binascii.Error:
        return None
    return FilePart(kind, data, file_id=identity_of(item.get("id")) or None, provider=maker) if data else None


def _usage(document: object) -> Usage | None:
    if not object_of(document):
        return None
    return Usage(
        input_tokens=count(document, "input_tokens"),
        output_tokens=count(document, "output_tokens"),
        cache_read_input_tokens=count(document, "input_tokens_details", "cached_tokens"),
        cache_creation_input_tokens=count(document, "input_tokens_details", "cache_write_tokens"),
        reasoning_output_tokens=count(document, "output_tokens_details", "reasoning_tokens"),
    )
