"""Values as plain JSON, and back: what is printed, recorded and kept.

A record of a chunk has its ``text``, and of ``reasoning``, ``refusal``, ``tool_calls``, ``usage``, ``finish_reason``,
``raw_finish_reason``, ``model``, ``id``, ``reset`` and ``logprobs`` what there is. Where these do not say all, as of a
file or of the order of several parts, it has the ``parts``, too, each with its ``type``; bytes are base64::

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

VERSION = 1  # of the form in which messages are kept

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
    """A record of a chunk, as it is read."""

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
    """The chunk as a dict of plain values, which `of_json` makes the same chunk of.

    The values within a `RawPart` and within ``logprobs`` must be plain, too; their tuples come back as lists.
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
    """The chunk of a record. What it has besides is not looked at.

    Raises:
        MisuseError: this is no record of a chunk; the sentence says where it is wrong.
    """
    try:
        read = msgspec.convert(record, _Record)
        if read.parts is None:
            parts = _simple_parts(read.reasoning, read.text, read.refusal, tuple(read.tool_calls))
        else:
            parts = tuple(_part_of_record(part) for part in read.parts)
    except msgspec.ValidationError as error:
        raise MisuseError(f"This is no record of a chunk: {error}.") from None
    facts = {name: getattr(read, name) for name in (*_FACTS, "reset")}
    return Chunk(parts=parts, **facts)


def fingerprint(request: Request) -> str:
    """What tells a request from others: the same for the same prompt with the same parameters, in any process.

    Whether the answer was to be streamed makes no difference, nor do the facts of earlier answers in a conversation,
    such as their ids. Keys of dicts count as JSON writes them, and 0.0 is 0.

    Raises:
        MisuseError: a value in it cannot be told from others.
    """
    asked = {name: getattr(request, name) for name in attrs.fields_dict(Request) if name != "stream"}
    try:
        if not isinstance(request.prompt, str):
            asked["prompt"] = [_exact_message(message) for message in request.prompt]
        return digest({name: value for name, value in asked.items() if value is not None and value != {}})
    except (TypeError, ValueError, RecursionError) as error:
        raise MisuseError(f"The request can't be told from others: {error}.") from None


def _exact_part(part: Part) -> dict[str, Any]:
    """The part's type, and its fields but those that are as if nobody had set them."""
    record: dict[str, Any] = {"type": _NAMES[type(part)]}
    for each in attrs.fields(type(part)):
        value = getattr(part, each.name)
        if value != each.default:
            record[each.name] = msgspec.to_builtins(value) if isinstance(value, bytes) else value
    if isinstance(part, ToolResultPart):
        record["content"] = [_exact_part(item) for item in part.content]
    return record


def _exact_message(message: Message) -> dict[str, Any]:
    """What a provider is sent of a message."""
    record = {"role": message.role, "parts": [_exact_part(part) for part in message.parts]}
    sent = {"name": message.name, "extra": message.extra}
    return {**record, **{name: value for name, value in sent.items() if value is not None}}


def _message_record(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "parts": [_part_record(part) for part in message.parts]}
    if message.name is not None:
        record["name"] = message.name
    if message.extra:
        record["extra"] = message.extra
    return record


class _MessageRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A message as it is kept."""

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
    """The message as a dict of plain values, with the version of this form.

    Raises:
        MisuseError: it holds a value that JSON does not have.
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
    """The message that `message_to_json` has written.

    Raises:
        MisuseError: this is no such record, or one of a later version.
    """
    version = record.get("rxllm") if isinstance(cast("object", record), Mapping) else None
    if not isinstance(version, int):
        raise MisuseError("This is no message that rxllm has written: it has no version, as in {'rxllm': 1, …}.")
    if version > VERSION:
        raise MisuseError(f"This message was written by a later rxllm, in form {version}; this one reads {VERSION}.")
    try:
        read = msgspec.convert(record, _MessageRecord)
        parts = tuple(_part_of_record(part) for part in read.parts)
    except msgspec.ValidationError as error:
        raise MisuseError(f"This is no record of a message: {error}.") from None
    facts = {name: getattr(read, name) for name in (*_MESSAGE_FACTS, "name", "extra")}
    return Message(read.role, parts, **facts)


def _simple_parts(reasoning: str, text: str, refusal: str, tool_calls: tuple[ToolCallPart, ...]) -> tuple[Part, ...]:
    """The parts of most chunks, which have one of these or, whole answers, each in this order."""
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
    return attrs.evolve(msgspec.convert(record, kind))  # by its constructor, which freezes what it holds


class _ResultRecord(msgspec.Struct):
    """The result of a tool as it is kept; `is_error` and content as text are of records before version 1."""

    id: str
    content: str | list[dict[str, Any]]
    outcome: Outcome = "ok"
    name: str = ""
    is_error: bool = False


def _fields(value: Part | Usage) -> dict[str, Any]:
    """Its fields, but those that are as if nobody had set them."""
    plain = msgspec.to_builtins(value)
    defaults = ((field.name, field.default) for field in attrs.fields(type(value)))
    return {name: plain[name] for name, default in defaults if plain[name] != default}
