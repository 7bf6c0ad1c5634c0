"""Conversion of chunks and messages to plain JSON and back. The CLI, cassettes and caches use it.

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
from typing import Any, cast

import attrs
import msgspec

from .exact import digest
from .misuse import MisuseError
from .values.chunk import Chunk
from .values.message import FinishReason, Logprobs, Message, Role
from .values.parts import (
    CachePoint,
    FilePart,
    Outcome,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from .values.request import Request
from .values.usage import Usage

__all__ = ["VERSION", "fingerprint", "message_from_json", "message_to_json", "of_json", "to_json"]

VERSION = 1  # of the persisted form of messages

_KINDS: dict[str, type[Part]] = {
    "text": TextPart,
    "reasoning": ReasoningPart,
    "refusal": RefusalPart,
    "tool_call": ToolCallPart,
    "tool_result": ToolResultPart,
    "file": FilePart,
    "cache_point": CachePoint,
    "raw": RawPart,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_FACTS = ("usage", "finish_reason", "raw_finish_reason", "model", "id", "logprobs", "provider")


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
        "tool_calls": [_fields(call) for call in chunk.tool_calls],
    }
    record = {name: value for name, value in record.items() if value or name == "text"}
    if chunk.parts != _simple_parts(chunk.reasoning, chunk.text, chunk.refusal, chunk.tool_calls):
        record["parts"] = [_part_record(part) for part in chunk.parts]
    for name in _FACTS:
        if (fact := getattr(chunk, name)) is not None:
            record[name] = _fields(fact) if name == "usage" else msgspec.to_builtins(fact)
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
            parts = tuple(_part_of_record(part) for part in read.parts)
    except msgspec.ValidationError as error:
        raise MisuseError(f"The record does not describe a chunk: {error}.") from None
    facts = {name: getattr(read, name) for name in (*_FACTS, "reset")}
    return Chunk(parts=parts, **facts)


def fingerprint(request: Request) -> str:
    """Return a digest of a request: equal prompts with equal parameters have equal digests, in every process.

    The digest ignores ``stream`` and the facts of earlier answers in a conversation, such as their ids. Dict keys
    count as JSON writes them, and 0.0 equals 0.

    Raises:
        MisuseError: the request contains a value without a stable digest, such as a function.
    """
    fields = {name: getattr(request, name) for name in attrs.fields_dict(Request) if name != "stream"}
    try:
        if not isinstance(request.prompt, str):
            fields["prompt"] = [_exact_message(message) for message in request.prompt]
        return digest({name: value for name, value in fields.items() if value is not None and value != {}})
    except (TypeError, ValueError, RecursionError) as error:
        raise MisuseError(f"rxllm cannot derive a stable key for this request: {error}.") from None


def _exact_part(part: Part) -> dict[str, Any]:
    """Return the part's type and the fields that differ from their defaults. Bytes become base64."""
    record: dict[str, Any] = {"type": _NAMES[type(part)]}
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


def _message_record(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "parts": [_part_record(part) for part in message.parts]}
    if message.name is not None:
        record["name"] = message.name
    if message.extra:
        record["extra"] = message.extra
    return record


class _MessageRecord(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a persisted message."""

    rxllm: int
    role: Role
    parts: list[dict[str, Any]] = []
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    logprobs: Logprobs | None = None
    provider: str | None = None
    created: float | None = None
    interrupted: bool = False
    name: str | None = None
    extra: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


def message_to_json(message: Message) -> dict[str, Any]:
    """Return the message as a dict of plain values, with the version of the form.

    Raises:
        MisuseError: the message holds a value that JSON cannot express.
    """
    try:
        record = {"rxllm": VERSION, **_message_record(message)}
        for name in _MESSAGE_FACTS:
            if (fact := getattr(message, name)) not in (None, False):
                record[name] = _fields(fact) if name == "usage" else msgspec.to_builtins(fact)
    except (TypeError, ValueError) as error:
        raise MisuseError(f"The message can't be written as JSON: {error}.") from None
    return record


_MESSAGE_FACTS = (*_FACTS, "created", "interrupted", "metadata")


def message_from_json(record: Mapping[str, Any]) -> Message:
    """Return the message that `message_to_json` wrote.

    Raises:
        MisuseError: the record is malformed, or a later version of rxllm wrote it.
    """
    version = record.get("rxllm") if isinstance(cast("object", record), Mapping) else None
    if not isinstance(version, int):
        raise MisuseError(
            "The record has no version, as in {'rxllm': 1, …}, so Message.to_json did not write it. A dict with 'role' "
            "and 'content' is a prompt: pass it to the model as it is."
        )
    if version > VERSION:
        raise MisuseError(
            f"A later rxllm wrote this message, in form {version}; this version reads forms up to {VERSION}. "
            "Upgrade rxllm."
        )
    try:
        read = msgspec.convert(record, _MessageRecord)
        parts = tuple(_part_of_record(part) for part in read.parts)
    except msgspec.ValidationError as error:
        raise MisuseError(f"The record does not describe a message: {error}.") from None
    facts = {name: getattr(read, name) for name in (*_MESSAGE_FACTS, "name", "extra")}
    return Message(read.role, parts, **facts)


def _simple_parts(reasoning: str, text: str, refusal: str, tool_calls: tuple[ToolCallPart, ...]) -> tuple[Part, ...]:
    """Return these contents as parts, in the order that most answers have."""
    return (
        *([ReasoningPart(reasoning)] if reasoning else []),
        *([TextPart(text)] if text else []),
        *([RefusalPart(refusal)] if refusal else []),
        *tool_calls,
    )


def _part_record(part: Part) -> dict[str, Any]:
    record = {"type": _NAMES[type(part)], **_fields(part)}
    if isinstance(part, ToolResultPart):
        record["content"] = [_part_record(item) for item in part.content]
    return record


def _part_of_record(record: dict[str, Any]) -> Part:
    kind = _KINDS.get(str(record.get("type")))
    if kind is None:
        raise msgspec.ValidationError(f"a part has the type {record.get('type')!r}, not one of {', '.join(_KINDS)}")
    if kind is ToolResultPart:
        read = msgspec.convert(record, _ResultRecord)
        content = read.content if isinstance(read.content, str) else map(_part_of_record, read.content)
        return ToolResultPart(read.id, content, "error" if read.is_error else read.outcome, read.name)
    return attrs.evolve(msgspec.convert(record, kind))  # evolve runs the constructor, which freezes dicts and lists


class _ResultRecord(msgspec.Struct):
    """The record of a tool's result. Records from before version 1 have `is_error`, and their content may be text."""

    id: str
    content: str | list[dict[str, Any]]
    outcome: Outcome = "ok"
    name: str = ""
    is_error: bool = False


def _fields(value: Part | Usage) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    plain = msgspec.to_builtins(value)
    defaults = ((field.name, field.default) for field in attrs.fields(type(value)))
    return {name: plain[name] for name, default in defaults if plain[name] != default}
