"""What comes back from Amazon Bedrock's Converse API, whole or as a stream of events.

An answer is a list of blocks, each with an index. Text, reasoning, pictures and calls of the user's tools become parts
as they come. Any other block (redacted reasoning, server tools and their results) becomes a `RawPart` when it is whole,
because the next request must have it back untouched.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

import attrs
import msgspec
from msgspec import Struct

from ..bounds import CALLS, CITATIONS, EVENT_BYTES, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, part_chunk, text_chunk
from ..values.parts import FilePart, Part, RawPart, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ._bedrock_turns import MAKER
from ._content import Tally, bounded
from ._documents import UNREADABLE, count, identity_of, json_of, list_of, object_of, provider_error, text_of
from ._finish import broken_off, finish_of

__all__ = ["ConverseDecoder", "converse_error", "whole_answer"]

_PASSING = "modelstreamerrorexception"  # AWS says to send the request again


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
    """A block that is not yet whole: a call, whose arguments go out as they come, or one that is kept until its end."""

    __slots__ = ("data", "has_arguments", "kind", "pieces", "size")

    def __init__(self, kind: str, data: dict[str, Any]) -> None:
        self.kind = kind  # a field of the API's union of blocks
        self.data = data
        self.has_arguments = False
        self.pieces: list[Any] = []
        self.size = 0

    @property
    def is_call(self) -> bool:
        """Whether it is a call of one of the user's tools."""
        return self.kind == "toolUse" and not self.data.get("type")

    def add(self, piece: object, size: int) -> None:
        """Keep some of the block, from a frame of this size in bytes."""
        self.size += size
        if self.size > EVENT_BYTES:
            raise ProtocolError(f"A block of the answer is larger than {EVENT_BYTES:,} bytes.")
        self.pieces.append(piece)

    def close(self, index: int) -> Part | None:
        """The part that the block is."""
        match self.kind:
            case "toolUse" if self.is_call:
                return None if self.has_arguments else ToolCallPart(arguments="{}", index=index)
            case "toolUse":
                text = "".join(self.pieces)
                given = json_of(text.encode() or b"{}")
                return RawPart(MAKER, {"toolUse": {**self.data, "input": text if given is None else given}})
            case "toolResult":
                content = [item for piece in self.pieces for item in list_of(piece)]
                return RawPart(MAKER, {"toolResult": {**self.data, "content": content}})
            case "reasoningContent":
                redacted = base64.b64encode(b"".join(map(_bytes, self.pieces))).decode()
                return RawPart(MAKER, {"reasoningContent": {"redactedContent": redacted}})
            case "image":
                return _image({**self.data, "source": {"bytes": "".join(self.pieces)}} if self.pieces else self.data)
            case _:
                return RawPart(MAKER, {self.kind: self.data})


class ConverseDecoder:
    """One stream. Complete on ``messageStop``; ``metadata`` with the usage follows it, and ends the stream."""

    __slots__ = ("_blocks", "_calls", "_spoken", "_tally", "_text", "complete", "ended", "failure", "finished")

    def __init__(self) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.finished = False  # a stopReason came
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._spoken = False
        self._tally = Tally()
        self._text = -1  # the index of the block that plain text continues; -1 after anything else

    def chunk(self, data: bytes) -> Chunk | None:
        """What an event says."""
        try:
            event = _decode_event(data)
        except UNREADABLE as error:
            raise ProtocolError(f"A frame is not an event of the Converse API: {error}.", frame=data) from None
        delta, index = event.delta, event.content_block_index
        if delta is not None:
            text = delta.text
            if type(text) is str and index == self._text:
                return text_chunk(text) if text else None
            unended = self._unended(index) if self._blocks else None
            grown = self._grown(index, delta, len(data))
            return unended + grown if unended and grown else unended or grown
        if event.start is not None:
            unended = self._unended(index) if self._blocks else None
            started = self._said(self._started(index, object_of(event.start)))
            return unended + started if unended and started else unended or started
        if event.stop_reason is not None:
            raw = text_of(event.stop_reason)
            self.complete = self.finished = True
            self.failure = broken_off(raw)
            return self._said(self._stopped(sorted(self._blocks)), raw=raw)
        if event.usage is not None or event.metrics is not None:
            self.ended = self.finished
            return self._said([], _usage(event.usage), model=_model(event.trace))
        if event.error is not None:
            self.complete = False
            raise converse_error(json_of(data), data)
        return self._said(self._stopped([index])) if index >= 0 else None

    def rest(self) -> Chunk | None:
        """Nothing: a block that is not whole cannot be sent back."""
        return None

    def _said(
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
            finish_reason=finish_of(raw) if raw else None,
            raw_finish_reason=raw or None,
            model=model,
            provider=MAKER if first else None,
        )

    def _started(self, index: int, start: dict[str, Any]) -> list[Part]:
        kind = next(iter(start), "")
        data = object_of(start.get(kind))
        if not data:
            return []
        self._text = -1
        block = _Block(kind, data)
        if len(self._blocks) >= PARTS:
            raise ProtocolError(f"The response has more than {PARTS:,} parts.")
        self._blocks[index] = block
        if not block.is_call:
            return []
        self._calls += 1
        if self._calls > CALLS:
            raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
        return [ToolCallPart(identity_of(data.get("toolUseId")), text_of(data.get("name")), "", index)]

    def _grown(self, index: int, delta: _Delta, size: int) -> Chunk | None:
        if type(delta.text) is str:
            if not delta.text:
                return None
            # A text that follows the text of another block stays apart, since each has its own citations.
            apart = index if self._tally.ends_in_text else None
            self._text = index
            return self._said([TextPart(delta.text, (), apart)])
        if reasoning := object_of(delta.reasoning_content):
            return self._thought(index, reasoning, size)
        block = self._blocks.get(index)
        if text := text_of(object_of(delta.tool_use).get("input")):
            if block is not None and not block.is_call:
                block.add(text, size)
                return None
            if block is not None:
                block.has_arguments = True
            return self._fragment(ToolCallPart(arguments=text, index=index))
        if citation := object_of(delta.citation):
            apart = None if self._text == index or not self._tally.ends_in_text else index
            self._text = index
            return self._said([TextPart("", (citation,), apart, provider=MAKER)])
        if block is not None and delta.tool_result is not None:
            block.add(delta.tool_result, size)
        elif block is not None and (image := object_of(delta.image)):
            data = text_of(object_of(image.get("source")).get("bytes"))
            if data:
                block.add(data, size)
        return None

    def _thought(self, index: int, reasoning: dict[str, Any], size: int) -> Chunk | None:
        text, signature = text_of(reasoning.get("text")), text_of(reasoning.get("signature"))
        if text or signature:
            return self._fragment(ReasoningPart(text, signature or None, index, provider=MAKER))
        if redacted := text_of(reasoning.get("redactedContent")):
            block = self._blocks.setdefault(index, _Block("reasoningContent", {}))
            block.add(redacted, size)
        return None

    def _unended(self, index: int) -> Chunk | None:
        """The blocks before this one that are kept and were never ended, as happens with results of server tools."""
        return self._said(self._stopped([i for i in sorted(self._blocks) if i < index and not self._blocks[i].is_call]))

    def _fragment(self, part: ReasoningPart | ToolCallPart) -> Chunk | None:
        self._text = -1
        if not self._spoken:
            return self._said([part])
        self._tally.add((part,))
        return part_chunk(part)

    def _stopped(self, indices: Iterable[int]) -> list[Part]:
        whole = [(index, self._blocks.pop(index)) for index in indices if index in self._blocks]
        return [part for index, block in whole if (part := block.close(index)) is not None]


def whole_answer(body: bytes) -> Chunk:
    """The answer that was not streamed.

    Raises:
        ProviderError: the body is an error, although its status was 200, or tells that the server gave up.
        ProtocolError: the body is neither.
    """
    document = json_of(body)
    answer = object_of(document)
    message = object_of(object_of(answer.get("output")).get("message"))
    if not isinstance(message.get("content"), list):
        if answer.get("message") or answer.get("Message") or answer.get("error"):
            raise converse_error(document, body)
        raise ProtocolError("The answer is not one of the Converse API: it has no output.message.content.", frame=body)
    parts: list[Part] = []
    for index, block in enumerate(bounded(list_of(message["content"]), PARTS, "parts")):
        parts += _whole(index, object_of(block), apart=bool(parts) and isinstance(parts[-1], TextPart))
    bounded([part for part in parts if isinstance(part, ToolCallPart)], CALLS, "tool calls")
    raw = text_of(answer.get("stopReason")) or None
    chunk = Chunk(
        parts=parts,
        usage=_usage(answer.get("usage")),
        finish_reason=finish_of(raw) if raw else None,
        raw_finish_reason=raw,
        model=_model(answer.get("trace")),
        provider=MAKER,
    )
    if failure := broken_off(raw):
        failure.partial = chunk.message()
        raise failure
    return chunk


def _whole(index: int, block: dict[str, Any], *, apart: bool) -> list[Part]:
    """The part that a whole block is; of an empty text, none. `apart`: it follows a text."""
    place = index if apart else None
    if isinstance(text := block.get("text"), str):
        return [TextPart(text, (), place)] if text else []
    if cited := object_of(block.get("citationsContent")):
        text = "".join([text_of(object_of(item).get("text")) for item in list_of(cited.get("content"))])
        told = bounded(list_of(cited.get("citations")), CITATIONS, "citations")
        citations = tuple([item for item in map(object_of, told) if item])
        return [TextPart(text, citations, place, provider=MAKER if citations else None)] if text else []
    if thought := object_of(object_of(block.get("reasoningContent")).get("reasoningText")):
        text, signature = text_of(thought.get("text")), text_of(thought.get("signature")) or None
        return [ReasoningPart(text, signature, index, provider=MAKER)] if text or signature else []
    call = object_of(block.get("toolUse"))
    if call and not call.get("type"):
        arguments = msgspec.json.encode(call.get("input") or {}).decode()
        return [ToolCallPart(identity_of(call.get("toolUseId")), text_of(call.get("name")), arguments, index)]
    image = _image(object_of(block.get("image")))
    return [image] if image else [RawPart(MAKER, block)] if block else []


def converse_error(document: object, body: bytes, *, name: str = "", **facts: Any) -> ProviderError:
    """The error that an exception tells of, in a frame or as the body of a response, whose header has the `name`."""
    fields = object_of(document)
    fields = object_of(fields.get("error")) or fields
    told = {"message": fields.get("Message"), "type": name or None, "status_code": fields.get("originalStatusCode")}
    told = {key: value for key, value in told.items() if value is not None}
    error = provider_error({"error": {**fields, **told}} if fields or told else None, body, **facts)
    if (error.code or "").lower() == _PASSING and "status_code" not in told:
        error.retryable = True
    return error


def _image(data: dict[str, Any]) -> FilePart | None:
    content = _bytes(text_of(object_of(data.get("source")).get("bytes")))
    return FilePart(f"image/{text_of(data.get('format')) or '*'}", content, provider=MAKER) if content else None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(f"A block of the answer is not valid base64: {error}.") from None


def _model(trace: object) -> str | None:
    """The model that a prompt router has chosen."""
    return text_of(object_of(object_of(trace).get("promptRouter")).get("invokedModelId")) or None


def _usage(document: object) -> Usage | None:
    """The counts, where the input includes what was read from a cache or written to one, as everywhere else."""
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
