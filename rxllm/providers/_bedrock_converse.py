"""The decoder of Amazon Bedrock's Converse API, for streams and for whole answers.

An answer is a list of blocks, each with an index. Text, reasoning and calls of the program's tools become parts as they
arrive. Every other block (pictures, redacted reasoning, server tools and their results) becomes a part when it is
complete. The next request must send redacted reasoning and server tools back unchanged, so they become `RawPart`s.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgspec
from msgspec import Struct

from ..bounds import CALLS, CITATIONS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, part_chunk, text_chunk
from ..values.parts import FilePart, Part, RawPart, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..wire.error_documents import provider_error
from ..wire.weights import check_weight
from ._bedrock_turns import MAKER
from ._content import Tally, bounded, bytes_of
from ._documents import (
    UNREADABLE,
    arguments_of,
    count,
    identity_of,
    json_of,
    list_of,
    object_of,
    text_of,
    unreadable,
)
from ._finish import broken_off, finish_with, word_of
from ._ids import call_name_of
from ._limits import DEFAULT, Limits

__all__ = ["ConverseDecoder", "converse_error", "whole_answer"]

_TRANSIENT = "modelstreamerrorexception"  # AWS documents that the client should retry


# A field is Any if a future kind of event may give it another type.
class _Delta(Struct, gc=False, rename="camel"):
    text: Any = None
    tool_use: Any = None
    tool_result: Any = None
    reasoning_content: Any = None
    citation: Any = None
    image: Any = None


class _Event(Struct, gc=False, rename="camel"):
    content_block_index: int = -1
    delta: _Delta | None = None
    start: Any = None
    role: Any = None
    stop_reason: Any = None
    usage: Any = None
    metrics: Any = None
    trace: Any = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class _Block:
    """An incomplete block. A tool call's arguments are emitted as they arrive; other blocks are kept until the end."""

    __slots__ = ("data", "has_arguments", "kind", "limits", "pieces", "size", "values")

    def __init__(self, kind: str, data: dict[str, Any], limits: Limits) -> None:
        self.kind = kind  # the name of the block's field in the protocol
        self.data = data
        self.limits = limits
        self.has_arguments = False
        self.pieces: list[Any] = []
        self.size = 0
        self.values = 0  # as the decoder's tally counts them

    @property
    def is_call(self) -> bool:
        """Whether the block is a call of one of the program's tools."""
        return self.kind == "toolUse" and _is_call(self.data)

    def add(self, piece: object, size: int) -> None:
        """Keep a piece of the block, from a frame of this size in bytes."""
        self.size += size
        self.limits.check_size(self.size, "A block")
        self.pieces.append(piece)

    def close(self, index: int) -> Part | None:
        """Return the block as a part; None if its content was emitted before."""
        match self.kind:
            case "toolUse" if self.is_call:
                return None if self.has_arguments else ToolCallPart(arguments="{}", index=index)
            case "toolUse":
                text = "".join(self.pieces)
                check_weight(text.encode(), self.limits.values)
                return RawPart(MAKER, {"toolUse": {**self.data, "input": arguments_of(text)}})
            case "toolResult":
                content = [item for piece in self.pieces for item in list_of(piece)]
                return RawPart(MAKER, {"toolResult": {**self.data, "content": content}})
            case "reasoningContent":
                redacted = base64.b64encode(b"".join(bytes_of(piece, "A block") for piece in self.pieces)).decode()
                return RawPart(MAKER, {"reasoningContent": {"redactedContent": redacted}})
            case "image":
                return _image({**self.data, "source": {"bytes": "".join(self.pieces)}} if self.pieces else self.data)
            case _:
                return RawPart(MAKER, {self.kind: self.data})


class ConverseDecoder:
    """Decodes one stream, which is complete after ``messageStop``. ``metadata`` with the usage is the last event."""

    __slots__ = ("_blocks", "_calls", "_spoken", "_tally", "_text", "complete", "ended", "failure", "finished")

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.finished = False  # a stop reason arrived
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._spoken = False
        self._tally = Tally(limits)
        self._text = -1  # the index of the block that plain text continues; -1 after anything else

    def chunk(self, data: bytes) -> Chunk | None:
        """Return the content of an event as a chunk; None if it has no content."""
        try:
            event = _decode_event(data)
        except UNREADABLE as error:
            raise unreadable("an event of the Converse API", error, data) from None
        delta, index = event.delta, event.content_block_index
        if delta is not None:
            text = delta.text
            if type(text) is str and index == self._text:
                return text_chunk(text) if text else None
            unended = self._unended(index) if self._blocks else None
            grown = self._grown(index, delta, data)
            return unended + grown if unended and grown else unended or grown
        if event.start is not None:
            unended = self._unended(index) if self._blocks else None
            started = self._chunk_of(self._started(index, object_of(event.start), data))
            return unended + started if unended and started else unended or started
        if event.stop_reason is not None:
            raw = word_of(event.stop_reason)
            self.complete = self.finished = True
            self.failure = broken_off(raw)
            return self._chunk_of(self._stopped(sorted(self._blocks)), raw=raw)
        if event.usage is not None or event.metrics is not None:
            self.ended = self.finished
            return self._chunk_of([], _usage(event.usage), model=_model(event.trace))
        if event.error is not None:
            self.complete = False
            raise converse_error(json_of(data), data)
        return self._chunk_of(self._stopped([index])) if index >= 0 else None

    def rest(self) -> Chunk | None:
        """Return None: the API would reject an incomplete block in the next request."""
        return None

    def _chunk_of(
        self, parts: list[Part], usage: Usage | None = None, raw: str | None = None, model: str | None = None
    ) -> Chunk | None:
        """Return a chunk, or None if it would be empty. Only the first chunk names the provider."""
        if parts:
            self._tally.add(parts)
        if not (parts or usage or raw or model):
            return None
        first, self._spoken = not self._spoken, True
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish_with(raw, calls=self._calls),
            raw_finish_reason=raw or None,
            model=model,
            provider=MAKER if first else None,
        )

    def _started(self, index: int, start: dict[str, Any], data: bytes) -> list[Part]:
        kind = next(iter(start), "")
        told = object_of(start.get(kind))
        if not told:
            return []
        self._text = -1
        block = _Block(kind, told, self._tally.limits)
        if len(self._blocks) >= PARTS:
            raise ProtocolError(f"The response has more than {PARTS:,} parts.")
        self._blocks[index] = block
        if not block.is_call:
            block.values = self._tally.hold(data)
            return []
        self._calls += 1
        if self._calls > CALLS:
            raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
        return [ToolCallPart(identity_of(told.get("toolUseId")), call_name_of(told.get("name")), "", index)]

    def _grown(self, index: int, delta: _Delta, data: bytes) -> Chunk | None:
        if type(delta.text) is str:
            if not delta.text:
                return None
            # The text of a new block stays apart from the text before it, because each block has its own citations.
            apart = index if self._tally.ends_in_text else None
            self._text = index
            return self._chunk_of([TextPart(delta.text, (), apart)])
        if reasoning := object_of(delta.reasoning_content):
            return self._thought(index, reasoning, data)
        block = self._blocks.get(index)
        if text := text_of(object_of(delta.tool_use).get("input")):
            if block is not None and not block.is_call:
                self._keep(block, text, data)
                return None
            if block is not None:
                block.has_arguments = True
            return self._fragment(ToolCallPart(arguments=text, index=index))
        if citation := object_of(delta.citation):
            apart = None if self._text == index or not self._tally.ends_in_text else index
            self._text = index
            return self._chunk_of([TextPart("", (citation,), apart, provider=MAKER)])
        if block is not None and delta.tool_result is not None:
            self._keep(block, delta.tool_result, data)
        elif block is not None and (image := object_of(delta.image)):
            piece = text_of(object_of(image.get("source")).get("bytes"))
            if piece:
                self._keep(block, piece, data)
        return None

    def _thought(self, index: int, reasoning: dict[str, Any], data: bytes) -> Chunk | None:
        text, signature = text_of(reasoning.get("text")), text_of(reasoning.get("signature"))
        if text or signature:
            return self._fragment(ReasoningPart(text, signature or None, index, provider=MAKER))
        if redacted := text_of(reasoning.get("redactedContent")):
            block = self._blocks.setdefault(index, _Block("reasoningContent", {}, self._tally.limits))
            self._keep(block, redacted, data)
        return None

    def _keep(self, block: _Block, piece: object, data: bytes) -> None:
        """Keep a piece of a block, from a frame with this data."""
        block.values += self._tally.hold(data)
        block.add(piece, len(data))

    def _unended(self, index: int) -> Chunk | None:
        """Close the kept blocks before this one: the server sends no end for some, such as results of its own tools."""
        return self._chunk_of(
            self._stopped([i for i in sorted(self._blocks) if i < index and not self._blocks[i].is_call])
        )

    def _fragment(self, part: ReasoningPart | ToolCallPart) -> Chunk | None:
        self._text = -1
        if not self._spoken:
            return self._chunk_of([part])
        self._tally.add((part,))
        return part_chunk(part)

    def _stopped(self, indices: Iterable[int]) -> list[Part]:
        whole = [(index, self._blocks.pop(index)) for index in indices if index in self._blocks]
        self._tally.release(sum(block.values for _, block in whole))
        return [part for index, block in whole if (part := block.close(index)) is not None]


def whole_answer(body: bytes) -> Chunk:
    """Return a whole answer as a chunk.

    Raises:
        ProviderError: the body is an error although its status is 200, or the server stopped the answer.
        ProtocolError: the body is neither an answer nor an error.
    """
    document = json_of(body)
    answer = object_of(document)
    message = object_of(object_of(answer.get("output")).get("message"))
    if not isinstance(message.get("content"), list):
        if answer.get("message") or answer.get("Message") or answer.get("error") or list_of(document):
            raise converse_error(document, body)
        raise ProtocolError("The answer is not a response of the Converse API: it has no message.", frame=body)
    parts: list[Part] = []
    for index, block in enumerate(bounded(list_of(message["content"]), PARTS, "parts")):
        parts += _whole(index, object_of(block), apart=bool(parts) and isinstance(parts[-1], TextPart))
    bounded([part for part in parts if isinstance(part, ToolCallPart)], CALLS, "tool calls")
    raw = word_of(answer.get("stopReason")) or None
    chunk = Chunk(
        parts=parts,
        usage=_usage(answer.get("usage")),
        finish_reason=finish_with(raw, calls=any(isinstance(part, ToolCallPart) for part in parts)),
        raw_finish_reason=raw,
        model=_model(answer.get("trace")),
        provider=MAKER,
    )
    if failure := broken_off(raw):
        failure.partial = chunk.message()
        raise failure
    return chunk


def _whole(index: int, block: dict[str, Any], *, apart: bool) -> list[Part]:
    """Return the parts of a complete block. `apart` states that the part before it is text."""
    place = index if apart else None
    if isinstance(text := block.get("text"), str):
        return [TextPart(text, (), place)] if text else []
    if cited := object_of(block.get("citationsContent")):
        text = "".join([text_of(object_of(item).get("text")) for item in list_of(cited.get("content"))])
        items = bounded(list_of(cited.get("citations")), CITATIONS, "citations")
        citations = tuple([item for item in map(object_of, items) if item])
        return [TextPart(text, citations, place, provider=MAKER if citations else None)] if text else []
    if thought := object_of(object_of(block.get("reasoningContent")).get("reasoningText")):
        text, signature = text_of(thought.get("text")), text_of(thought.get("signature")) or None
        return [ReasoningPart(text, signature, index, provider=MAKER)] if text or signature else []
    call = object_of(block.get("toolUse"))
    if call and _is_call(call):
        arguments = msgspec.json.encode(call.get("input") or {}).decode()
        return [ToolCallPart(identity_of(call.get("toolUseId")), call_name_of(call.get("name")), arguments, index)]
    image = _image(object_of(block.get("image")))
    return [image] if image else [RawPart(MAKER, block)] if block else []


def _is_call(block: Mapping[str, Any]) -> bool:
    """Return whether a ``toolUse`` block is a call of one of the program's tools, not of a tool of the server."""
    return block.get("type") in (None, "", "tool_use")


def converse_error(document: object, body: bytes, *, name: str = "", **facts: Any) -> ProviderError:
    """Return the error for an exception in a frame or in a body. `name` is the exception's name in a header."""
    fields = object_of(next(iter(list_of(document)), document))
    fields = object_of(fields.get("error")) or fields
    more = {"message": fields.get("Message"), "type": name or None, "status_code": fields.get("originalStatusCode")}
    more = {key: value for key, value in more.items() if value is not None}
    error = provider_error({"error": {**fields, **more}} if fields or more else None, body, **facts)
    if (error.code or "").lower() == _TRANSIENT and "status_code" not in more:
        error.retryable = True
    return error


def _image(data: dict[str, Any]) -> FilePart | None:
    content = bytes_of(object_of(data.get("source")).get("bytes"), "A block")
    return FilePart(f"image/{text_of(data.get('format')) or '*'}", content, provider=MAKER) if content else None


def _model(trace: object) -> str | None:
    """Return the model that a prompt router chose."""
    return text_of(object_of(object_of(trace).get("promptRouter")).get("invokedModelId")) or None


def _usage(document: object) -> Usage | None:
    """Return the counts. AWS excludes cached tokens from the input tokens; `Usage` includes them."""
    if not object_of(document):
        return None
    usage = Usage(
        input_tokens=count(document, "inputTokens"),
        output_tokens=count(document, "outputTokens"),
        cache_read_input_tokens=count(document, "cacheReadInputTokens"),
        cache_creation_input_tokens=count(document, "cacheWriteInputTokens"),
    )
    kept = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return attrs.evolve(usage, input_tokens=(usage.input_tokens or 0) + kept) if kept else usage
