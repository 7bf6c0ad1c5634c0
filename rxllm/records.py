"""Conversion of chunks to plain JSON and back. The CLI, cassettes and caches use it.

A chunk's record always has the field ``text``. It has ``reasoning``, ``refusal``, ``tool_calls``, ``usage``,
``finish_reason``, ``raw_finish_reason``, ``model``, ``id``, ``reset`` and ``logprobs`` where the chunk has a value for
them. If these fields cannot describe the chunk, for example a file or several parts in an unusual order, the record
also has ``parts``, each with its ``type``. Bytes are written as base64::

    {"text": "Hel"}
    {"text": "", "tool_calls": [{"id": "call_1", "name": "now"}]}
    {"text": "", "parts": [{"type": "file", "media_type": "image/png", "data": "iVBORw0KGgo="}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from .exact import digest
from .misuse import MisuseError
from .values.chunk import Chunk
from .values.message import Message
from .values.parts import FilePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from .values.persisted import FACTS, PART_NAMES, part_of_record, part_record, plain, plain_fields
from .values.request import Request
from .values.usage import Usage
from .values.vocabulary import FinishReason, Logprobs

__all__ = ["fingerprint", "of_json", "to_json"]


class _Record(msgspec.Struct):
    """The fields of a chunk's record."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[ToolCallPart] = []
    parts: list[dict[str, Any]] | None = None
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    reset: bool = False
    logprobs: Logprobs | None = None
    provider: str | None = None


def to_json(chunk: Chunk) -> dict[str, Any]:
    """Return the chunk as a dict of plain values. `of_json` turns the dict back into an equal chunk.

    The values within a `RawPart` and within ``logprobs`` must be plain, too. Their tuples come back as lists.
    """
    if chunk.rest is None:
        return {"text": chunk.text}
    record: dict[str, Any] = {
        "text": chunk.text,
        "reasoning": chunk.reasoning,
        "refusal": chunk.refusal,
        "tool_calls": [plain_fields(call) for call in chunk.tool_calls],
    }
    record = {name: value for name, value in record.items() if value or name == "text"}
    if chunk.parts != _simple_parts(chunk.reasoning, chunk.text, chunk.refusal, chunk.tool_calls):
        record["parts"] = [part_record(part) for part in chunk.parts]
    for name in FACTS:
        if (fact := getattr(chunk, name)) is not None:
            record[name] = plain_fields(fact) if name == "usage" else plain(name, fact)
    if chunk.reset:
        record["reset"] = True
    return record


def of_json(record: Mapping[str, Any]) -> Chunk:
    """Return the chunk that a record describes. Unknown fields are ignored.

    Raises:
        MisuseError: the record is malformed. The message names the wrong field.
    """
    try:
        read = msgspec.convert(record, _Record)
        if read.parts is None:
            parts = _simple_parts(read.reasoning, read.text, read.refusal, tuple(read.tool_calls))
        else:
            parts = tuple(part_of_record(part) for part in read.parts)
    except msgspec.ValidationError as error:
        raise MisuseError(f"The record does not describe a chunk: {error}.") from None
    facts = {name: getattr(read, name) for name in (*FACTS, "reset")}
    return Chunk(parts=parts, **facts)


_NAMES = [name for name in attrs.fields_dict(Request) if name != "stream"]


def fingerprint(request: Request) -> str:
    """Return a digest of a request: equal prompts with equal parameters have equal digests, in every process.

    The digest ignores ``stream`` and the facts of earlier answers in a conversation, such as their ids. Dict keys
    count as JSON writes them, and 0.0 equals 0.

    Raises:
        MisuseError: the request contains a value without a stable digest, such as a function.
    """
    fields = {name: value for name in _NAMES if (value := getattr(request, name)) is not None and value != {}}
    try:
        if not isinstance(request.prompt, str):
            fields["prompt"] = [_exact_message(message) for message in request.prompt]
        return digest(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise MisuseError(f"rxllm cannot derive a stable key for this request: {error}.") from None


def _exact_part(part: Part) -> dict[str, Any]:
    """Return the part's type and the fields that differ from their defaults. Bytes become base64."""
    if isinstance(part, FilePart) and part.path is not None:
        raise TypeError(f"the file {part.path!r} is not read yet")
    record: dict[str, Any] = {"type": PART_NAMES[type(part)]}
    for each in attrs.fields(type(part)):
        value = getattr(part, each.name)
        if value != each.default:
            record[each.name] = msgspec.to_builtins(value) if isinstance(value, bytes) else value
    if isinstance(part, ToolResultPart):
        record["content"] = [_exact_part(item) for item in part.content]
    return record


def _exact_message(message: Message) -> dict[str, Any]:
    """Return the fields of a message that a provider receives."""
    record = {"role": message.role, "parts": [_exact_part(part) for part in message.parts]}
    optional = {"name": message.name, "extra": message.extra}
    return {**record, **{name: value for name, value in optional.items() if value is not None}}


def _simple_parts(reasoning: str, text: str, refusal: str, tool_calls: tuple[ToolCallPart, ...]) -> tuple[Part, ...]:
    """Return these contents as parts, in the order that most answers have."""
    return (
        *([ReasoningPart(reasoning)] if reasoning else []),
        *([TextPart(text)] if text else []),
        *([RefusalPart(refusal)] if refusal else []),
        *tool_calls,
    )
