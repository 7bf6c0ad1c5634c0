"""What comes back by Anthropic's messages protocol, whole or as a stream of events.

An answer is a list of blocks, each with an index. Text, thinking and calls of the user's tools become parts as they
come; any other block (server tools and their results, redacted thinking, compaction, what is yet to be invented)
becomes a `RawPart` when it is whole, because the next request must have it back untouched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, text_chunk
from ..values.parts import Part, RawPart, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ._documents import UNREADABLE, count, json_of, list_of, object_of, provider_error, text_of
from ._finish import broken_off, finish_of

__all__ = ["ClaudeDecoder", "whole_answer"]


# Any, where a kind of delta or event that is yet to be invented may have something else under the same name.
class _Delta(Struct, gc=False):
    type: str = ""
    text: Any = None
    partial_json: Any = None
    thinking: Any = None
    signature: Any = None
    stop_reason: Any = None


class _Event(Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: Any = None
    message: Any = None
    usage: Any = None
    error: Any = None


_KNOWN_EVENTS = ("content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error")
_decode_event = msgspec.json.Decoder(_Event).decode


class _Block:
    """A block that is not yet whole: a call, whose arguments go out as they come, or a raw one, which is kept."""

    __slots__ = ("data", "json")

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.json: list[str] = []

    def add(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if name == "partial_json" and isinstance(value, str):
                self.json.append(value)
            elif name == "citation":  # one of citations_delta, to be listed
                self.data["citations"] = [*(self.data.get("citations") or ()), value]
            elif name != "type":
                known = self.data.get(name)
                if isinstance(known, str) and isinstance(value, str) and name != "signature":
                    value = known + value
                self.data[name] = value

    def close(self, index: int) -> Part | None:
        text = "".join(self.json)
        if self.data.get("type") == "tool_use":
            return None if text else ToolCallPart(arguments=_arguments(self.data.get("input")), index=index)
        if text:
            whole = json_of(text.encode())
            self.data["input"] = text if whole is None else whole
        return RawPart("anthropic", self.data)


class ClaudeDecoder:
    """One stream. Complete on ``message_stop``, if no error came."""

    __slots__ = ("_blocks", "_id", "_model", "_reset", "_spoken", "_usage", "complete", "ended", "failure", "finished")

    def __init__(self) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.finished = False  # a stop_reason came
        self._spoken = False  # something was emitted
        self._reset = False  # the next chunk is to take that back
        self._blocks: dict[int, _Block] = {}
        self._id: str | None = None
        self._model: str | None = None
        self._usage: Usage | None = None

    def chunk(self, data: bytes) -> Chunk | None:
        """What an event says."""
        if self.ended:
            return None
        try:
            event = _decode_event(data)
        except UNREADABLE as error:
            word = data.strip()
            if word == b"[DONE]":  # which some gateways send after message_stop, some instead of it
                self.ended, self.complete = True, self.finished and self.failure is None
                return None
            if not word or object_of(json_of(data)).get("type", "error") not in _KNOWN_EVENTS:
                return None  # some gateways' pings have no data
            raise ProtocolError(f"A frame is not an event of the messages protocol: {error}.", frame=data) from None
        delta = event.delta
        if event.type == "content_block_delta" and delta is not None:
            if delta.type == "text_delta" and self._spoken and event.index not in self._blocks:
                return text_chunk(delta.text) if delta.text and type(delta.text) is str else None
            part = self._grown(event.index, delta, data)
            return self._said([part]) if part else None
        return self._event(event, data)

    def rest(self) -> Chunk | None:
        """What the start told, if nothing came after it; a block that is not whole can't be sent back."""
        return None if self._spoken else self._said([], self._usage)

    def _event(self, event: _Event, data: bytes) -> Chunk | None:
        match event.type:
            case "content_block_start" if block := object_of(event.content_block):
                return self._said(self._started(event.index, block))
            case "content_block_stop":
                return self._said(self._stopped([event.index]))
            case "message_start":
                return self._begun(object_of(event.message))
            case "message_delta":
                raw = text_of(event.delta.stop_reason) if event.delta else None
                self.finished = self.finished or bool(raw)
                self.failure = broken_off(raw)
                return self._said([], _usage(event.usage), raw)
            case "message_stop":
                self.complete = self.ended = True
                return self._said(self._stopped(sorted(self._blocks)))
            case "error" | "" if event.error or event.type:
                self.complete = False
                raise provider_error(json_of(data), data)
            case _:  # ping, and what is yet to be invented
                return None

    def _begun(self, message: dict[str, Any]) -> Chunk | None:
        """The message starts; behind a proxy that asks again it may do so twice, and the second is the answer."""
        self._blocks.clear()
        self.complete = self.finished = False
        self._reset = self._spoken
        self._spoken = False
        self._id = text_of(message.get("id")) or None
        self._model = text_of(message.get("model")) or None
        self._usage = _usage(message.get("usage"))
        return self._said(_parts(message.get("content")), now=self._reset)

    def _said(
        self, parts: list[Part], usage: Usage | None = None, raw: str | None = None, *, now: bool = False
    ) -> Chunk | None:
        """A chunk, if there is anything to say. The first one also tells what ``message_start`` told."""
        if not (parts or usage or raw or now):
            return None
        first = not self._spoken
        if first and self._usage:
            usage = self._usage.updated(usage) if usage else self._usage
        chunk = Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish_of(raw) if raw else None,
            raw_finish_reason=raw or None,
            id=self._id if first else None,
            model=self._model if first else None,
            reset=self._reset,
        )
        self._spoken, self._reset = True, False
        return chunk

    def _started(self, index: int, block: dict[str, Any]) -> list[Part]:
        match block.get("type"):
            case "text" | "thinking":
                self._blocks.pop(index, None)
                return _whole(index, block)
            case "tool_use":
                self._blocks[index] = _Block(block)
                return [ToolCallPart(text_of(block.get("id")), text_of(block.get("name")), "", index)]
            case _:
                self._blocks[index] = _Block(block)
                return []

    def _grown(self, index: int, delta: _Delta, data: bytes) -> Part | None:
        block = self._blocks.get(index)
        if block and block.data.get("type") != "tool_use":
            block.add(object_of(object_of(json_of(data)).get("delta")))
            return None
        match delta:
            case _Delta(type="text_delta", text=str(text)) if text:
                return TextPart(text)
            case _Delta(type="thinking_delta", thinking=str(text)) if text:
                return ReasoningPart(text, index=index)
            case _Delta(type="signature_delta", signature=str(signature)) if signature:
                return ReasoningPart(signature=signature, index=index)
            case _Delta(type="input_json_delta", partial_json=str(json)) if json:
                if block:
                    block.json.append(json)
                return ToolCallPart(arguments=json, index=index)
            case _:  # citations of a text, and what is yet to be invented
                return None

    def _stopped(self, indices: Iterable[int]) -> list[Part]:
        open_blocks = [(index, self._blocks.pop(index)) for index in indices if index in self._blocks]
        return [part for index, block in open_blocks if (part := block.close(index)) is not None]


def whole_answer(body: bytes) -> Chunk:
    """The answer that was not streamed: a document that could be read is whole, whether or not it says why it ended.

    Raises:
        ProviderError: the body is an error, although its status was 200, or tells that the server gave up.
        ProtocolError: the body is neither.
    """
    document = json_of(body)
    answer = object_of(document)
    if answer.get("error") or list_of(document):
        raise provider_error(document, body)
    if not isinstance(answer.get("content"), list):
        raise ProtocolError("The answer is not a message: it has no content.", frame=body)
    if not all(text_of(object_of(block).get("type")) for block in list_of(answer["content"])):
        raise ProtocolError("The answer is not a message: its content has what is no block.", frame=body)
    raw = text_of(answer.get("stop_reason")) or None
    chunk = Chunk(
        parts=_parts(answer["content"]),
        usage=_usage(answer.get("usage")),
        finish_reason=finish_of(raw) if raw else None,
        raw_finish_reason=raw,
        id=text_of(answer.get("id")) or None,
        model=text_of(answer.get("model")) or None,
    )
    if failure := broken_off(raw):
        failure.partial = chunk.message()
        raise failure
    return chunk


def _parts(content: object) -> list[Part]:
    return [part for index, block in enumerate(list_of(content)) for part in _whole(index, object_of(block))]


def _whole(index: int, block: dict[str, Any]) -> list[Part]:
    """The part that a whole block is; of an empty text or thought, none."""
    match block.get("type"):
        case "text":
            text = text_of(block.get("text"))
            return [TextPart(text)] if text else []
        case "thinking":
            text, signature = text_of(block.get("thinking")), text_of(block.get("signature")) or None
            return [ReasoningPart(text, signature, index)] if text or signature else []
        case "tool_use":
            arguments = _arguments(block.get("input"))
            return [ToolCallPart(text_of(block.get("id")), text_of(block.get("name")), arguments, index)]
        case _:
            return [RawPart("anthropic", block)] if block else []


def _arguments(given: object) -> str:
    return given if isinstance(given, str) else msgspec.json.encode(given or {}).decode()


def _usage(document: object) -> Usage | None:
    """The counts so far. Those of ``message_delta`` are totals, too, and what they omit stays as it was."""
    if not object_of(document):
        return None
    return Usage(
        input_tokens=count(document, "input_tokens"),
        output_tokens=count(document, "output_tokens"),
        cache_read_input_tokens=count(document, "cache_read_input_tokens"),
        cache_creation_input_tokens=count(document, "cache_creation_input_tokens"),
        reasoning_output_tokens=count(document, "output_tokens_details", "thinking_tokens"),
    )
