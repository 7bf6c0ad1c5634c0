"""The reader of Anthropic's responses, whole or as a stream of events.

A response is a list of blocks, each with an index. Text, thinking and calls of the program's tools become parts as
they arrive. Any other block (server tools and their results, redacted thinking, compaction, future kinds) becomes a
`RawPart` when it is complete, because the next request must send it back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, text_chunk
from ..values.parts import Part, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..wire.error_documents import provider_error, stated_error, tells_error
from ._anthropic_parts import Block, arguments_text, call_of, end_of, parts_of, parts_of_block, totals_of, whole_usage
from ._content import Tally
from ._documents import UNREADABLE, identity_of, json_of, list_of, object_of, text_of, unreadable
from ._finish import broken_off, finish_with, word_of
from ._limits import DEFAULT, Limits

__all__ = ["ClaudeDecoder", "whole_answer"]


# A field is Any if a future kind of delta or event may give it another type.
class _Delta(Struct, gc=False):
    type: str | None = None
    text: Any = None
    partial_json: Any = None
    thinking: Any = None
    signature: Any = None
    citation: Any = None
    stop_reason: Any = None
    stop_details: Any = None
    container: Any = None


class _Event(Struct, gc=False):
    type: str = ""
    index: int | None = 0
    delta: _Delta | None = None
    content_block: Any = None
    message: Any = None
    usage: Any = None
    error: Any = None


_KNOWN_EVENTS = ("content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error")
_decode_event = msgspec.json.Decoder(_Event).decode


class ClaudeDecoder:
    """The reader of one stream. The stream is complete after ``message_stop``, unless an error came."""

    __slots__ = (
        "_apart",
        "_blocks",
        "_calls",
        "_counts",
        "_id",
        "_is_plain",
        "_model",
        "_raw",
        "_reset",
        "_spoken",
        "_tally",
        "_usage",
        "complete",
        "ended",
        "failure",
        "finished",
    )

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.finished = False  # a stop_reason came
        self._spoken = False  # a chunk was emitted
        self._is_plain = False  # the last part is a text, and the next text continues it
        self._apart: int | None = None  # the index of an empty text block that follows another text block
        self._tally = Tally(limits)
        self._calls = 0
        self._reset = False  # the next chunk must discard all earlier chunks
        self._blocks: dict[int, Block] = {}
        self._id: str | None = None
        self._model: str | None = None
        self._raw = ""  # the stop_reason of message_start, which holds unless message_delta has one
        self._usage: Usage | None = None  # from message_start
        self._counts: Usage | None = None  # by the protocol's way of counting, see `whole_usage`

    def chunk(self, data: bytes) -> Chunk | None:
        """Return the content of an event as a chunk; None if it has no content."""
        if self.ended:
            return None
        try:
            event = _decode_event(data)
        except UNREADABLE as error:
            word = data.strip()
            if word == b"[DONE]":  # some gateways send it after message_stop, some instead of it
                self.ended, self.complete = True, self.finished and self.failure is None
                return None
            if not word or object_of(json_of(data)).get("type", "error") not in _KNOWN_EVENTS:
                return None  # some gateways send pings without data
            raise unreadable("an event of the messages protocol", error, data) from None
        delta = event.delta
        if event.type == "content_block_delta" and delta is not None:
            index = event.index or 0
            if delta.type == "text_delta" and self._is_plain and index not in self._blocks:
                return text_chunk(delta.text) if delta.text and type(delta.text) is str else None
            part = self._grown(index, delta, data)
            return self._chunk_of([part]) if part else None
        return self._event(event, data)

    def rest(self) -> Chunk | None:
        """Return the usage of ``message_start`` if no chunk was emitted.

        Incomplete blocks are dropped, because the API would reject them in the next request.
        """
        return None if self._spoken else self._chunk_of([], self._usage)

    def _event(self, event: _Event, data: bytes) -> Chunk | None:
        match event.type:
            case "content_block_start" if block := object_of(event.content_block):
                return self._chunk_of(self._started(event.index or 0, block, data))
            case "content_block_stop":
                return self._chunk_of(self._stopped([event.index or 0]))
            case "message_start":
                return self._begun(object_of(event.message))
            case "message_delta":
                raw = word_of(event.delta.stop_reason) if event.delta else None
                self.finished = self.finished or bool(raw)
                self.failure = broken_off(raw)
                return self._chunk_of(_ending(event.delta), self._counted(event.usage), raw)
            case "message_stop":
                self.complete = self.ended = True
                raw = None if self.finished else self._raw or None
                self.failure = self.failure or broken_off(raw)
                return self._chunk_of(self._stopped(sorted(self._blocks)), raw=raw)
            case "error" | "" if event.error or event.type:
                self.complete = False
                raise provider_error(json_of(data), data)
            case "" if not object_of(event.message) and tells_error(document := json_of(data)):
                self.complete = False
                raise provider_error(document, data)
            case _:  # ping, and future events
                return None

    def _begun(self, message: dict[str, Any]) -> Chunk | None:
        """Start a message. Behind a proxy that retries, a second message may start; it replaces the first."""
        self._blocks.clear()
        self.complete = self.finished = False
        self._reset = self._spoken
        self._spoken = self._is_plain = False
        self._apart, self._tally, self._calls = None, Tally(self._tally.limits), 0
        self._id = identity_of(message.get("id")) or None
        self._model = text_of(message.get("model")) or None
        self._raw = word_of(message.get("stop_reason"))
        self._counts = None
        self._usage = self._counted(message.get("usage"))
        return self._chunk_of([*parts_of(message.get("content")), *end_of(message)], now=self._reset)

    def _counted(self, document: object) -> Usage | None:
        """Return the totals so far; None if the event has no counts."""
        counts = totals_of(document, self._counts)
        self._counts = counts or self._counts
        return whole_usage(counts)

    def _chunk_of(
        self, parts: list[Part], usage: Usage | None = None, raw: str | None = None, *, now: bool = False
    ) -> Chunk | None:
        """Return a chunk, or None if it would be empty. The first chunk has the facts of ``message_start``.

        With `now`, the chunk is emitted even if it is empty.
        """
        if parts:
            self._is_plain = self._tally.add(parts) and self._apart is None
        if not (parts or usage or raw or now):
            return None
        first = not self._spoken
        if first and self._usage:
            usage = self._usage.updated(usage) if usage else self._usage
        chunk = Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish_with(raw, calls=self._calls),
            raw_finish_reason=raw or None,
            id=self._id if first else None,
            model=self._model if first else None,
            provider="anthropic" if first and (self._id or self._model) else None,
            reset=self._reset,
        )
        self._spoken, self._reset = True, False
        return chunk

    def _started(self, index: int, block: dict[str, Any], data: bytes) -> list[Part]:
        match block.get("type"):
            case "text" | "thinking" as kind:
                self._blocks.pop(index, None)
                follows = kind == "text" and self._tally.ends_in_text
                parts = parts_of_block(index, block, apart=follows)
                self._apart = index if follows and not parts else None
                self._is_plain = self._is_plain and not follows
                return parts
            case "tool_use":
                self._calls += 1
                if self._calls > CALLS:
                    raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
                self._blocks[index] = Block(block, self._tally.limits)
                return [call_of(block, "", index)]
            case _:
                if len(self._blocks) >= PARTS:
                    raise ProtocolError(f"The response has more than {PARTS:,} parts.")
                self._blocks[index] = Block(block, self._tally.limits, self._tally.hold(data))
                return []

    def _grown(self, index: int, delta: _Delta, data: bytes) -> Part | None:
        block = self._blocks.get(index)
        if block and block.data.get("type") != "tool_use":
            block.values += self._tally.hold(data)
            block.add(object_of(object_of(json_of(data)).get("delta")), len(data))
            return None
        match delta:
            case _Delta(type="text_delta", text=str(text)) if text:
                return self._text(text)
            case _Delta(type="citations_delta", citation=value) if citation := object_of(value):
                return self._text("", citation)
            case _Delta(type="thinking_delta", thinking=str(text)) if text:
                return ReasoningPart(text, index=index, provider="anthropic")
            case _Delta(type="signature_delta", signature=str(signature)) if signature:
                return ReasoningPart(signature=signature, index=index, provider="anthropic")
            case _Delta(type="input_json_delta", partial_json=piece) if piece:
                if block:
                    block.has_arguments = True
                return ToolCallPart(arguments=arguments_text(piece), index=index)
            case _:  # future deltas
                return None

    def _text(self, text: str, *citations: dict[str, Any]) -> TextPart:
        index, self._apart = self._apart, None
        return TextPart(text, citations, index)

    def _stopped(self, indices: Iterable[int]) -> list[Part]:
        open_blocks = [(index, self._blocks.pop(index)) for index in indices if index in self._blocks]
        self._tally.release(sum(block.values for _, block in open_blocks))
        return [part for index, block in open_blocks if (part := block.close(index)) is not None]


def whole_answer(body: bytes) -> Chunk:
    """Read a response that was not streamed. It counts as complete even without a stop_reason.

    Raises:
        ProviderError: the body reports an error, although its status was 200, or its stop_reason says that the server
            gave up.
        ProtocolError: the body is neither a message nor an error.
    """
    document = json_of(body)
    answer = object_of(document)
    if stated_error(answer.get("error")) or list_of(document) or ("content" not in answer and tells_error(document)):
        raise provider_error(document, body)
    content = answer.get("content")
    if type(content) not in (list, str) and not (content is None and answer.get("stop_reason")):
        raise ProtocolError("The response is not a message: it has no content.", frame=body)
    if not all(text_of(object_of(block).get("type")) for block in list_of(content)):
        raise ProtocolError("The response is not a message: its content has a block without a type.", frame=body)
    raw = word_of(answer.get("stop_reason")) or None
    identity, model = identity_of(answer.get("id")) or None, text_of(answer.get("model")) or None
    parts = [*parts_of(content), *end_of(answer)]
    chunk = Chunk(
        parts=parts,
        usage=whole_usage(totals_of(answer.get("usage"))),
        finish_reason=finish_with(raw, calls=any(isinstance(part, ToolCallPart) for part in parts)),
        raw_finish_reason=raw,
        id=identity,
        model=model,
        provider="anthropic" if identity or model else None,
    )
    if failure := broken_off(raw):
        failure.partial = chunk.message()
        raise failure
    return chunk


def _ending(delta: _Delta | None) -> list[Part]:
    return end_of({"stop_details": delta.stop_details, "container": delta.container}) if delta else []
