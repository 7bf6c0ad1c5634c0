"""The persisted form of messages and parts: dicts of plain values, with a version.

`message.Message` calls this module, and `rxllm.records` uses it for chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs
import msgspec

from ..misuse import MisuseError, check_numbers
from .parts import (
    Approval,
    CachePoint,
    FilePart,
    Outcome,
    Part,
    Pending,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from .usage import Usage
from .vocabulary import FinishReason, Logprobs, Role

if TYPE_CHECKING:
    from .message import Message

__all__ = [
    "FACTS",
    "PART_NAMES",
    "message_fields",
    "message_record",
    "part_of_record",
    "part_record",
    "plain",
    "plain_fields",
]

VERSION = 1  # of the persisted form

_KINDS: dict[str, type[Part]] = {
    "text": TextPart,
    "reasoning": ReasoningPart,
    "refusal": RefusalPart,
    "tool_call": ToolCallPart,
    "tool_result": ToolResultPart,
    "file": FilePart,
    "cache_point": CachePoint,
    "raw": RawPart,
    "pending": Pending,
    "approval": Approval,
}
PART_NAMES = {kind: name for name, kind in _KINDS.items()}
FACTS = ("usage", "finish_reason", "raw_finish_reason", "model", "id", "logprobs", "provider")
_MESSAGE_FACTS = (*FACTS, "created", "interrupted", "metadata")


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


def message_record(message: Message) -> dict[str, Any]:
    """Return the message as a dict of plain values, with the version of the form.

    Raises:
        MisuseError: the message holds a value that JSON cannot express, or a file cannot be read.
    """
    try:
        record: dict[str, Any] = {"rxllm": VERSION, "role": message.role, "parts": [*map(part_record, message.parts)]}
        if message.name is not None:
            record["name"] = message.name
        if message.extra:
            record["extra"] = plain("extra", message.extra)
        for name in _MESSAGE_FACTS:
            if (fact := getattr(message, name)) not in (None, False):
                record[name] = plain_fields(fact) if name == "usage" else plain(name, fact)
    except MisuseError:  # a file cannot be read, or a number is not finite
        raise
    except (TypeError, ValueError) as error:
        raise MisuseError(f"The message can't be written as JSON: {error}.") from None
    return record


def message_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the message that `message_record` wrote.

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
        parts = tuple(part_of_record(part) for part in read.parts)
    except msgspec.ValidationError as error:
        raise MisuseError(f"The record does not describe a message: {error}.") from None
    facts = {name: getattr(read, name) for name in (*_MESSAGE_FACTS, "name", "extra")}
    return {"role": read.role, "parts": parts, **facts}


def part_record(part: Part) -> dict[str, Any]:
    """Return a part as a dict: its type, and the fields that differ from their defaults."""
    if isinstance(part, FilePart):
        part = part.read()  # the record has the bytes, never the path
    record = {"type": PART_NAMES[type(part)], **plain_fields(part)}
    if isinstance(part, ToolResultPart):
        record["content"] = [part_record(item) for item in part.content]
    return record


def part_of_record(record: dict[str, Any]) -> Part:
    """Return the part that `part_record` wrote.

    Raises:
        msgspec.ValidationError: the record is malformed.
    """
    kind = _KINDS.get(str(record.get("type")))
    if kind is None:
        raise msgspec.ValidationError(f"a part has the type {record.get('type')!r}, not one of {', '.join(_KINDS)}")
    if kind is FilePart and record.get("path") is not None:
        raise msgspec.ValidationError("a file has a path, which is never read from a record; it needs its data or url")
    if kind is ToolResultPart:
        read = msgspec.convert(record, _ResultRecord)
        content = read.content if isinstance(read.content, str) else map(part_of_record, read.content)
        return ToolResultPart(read.id, content, "error" if read.is_error else read.outcome, read.name)
    return attrs.evolve(msgspec.convert(record, kind))  # evolve runs the constructor, which freezes dicts and lists


class _ResultRecord(msgspec.Struct):
    """The record of a tool's result. Records from before version 1 have `is_error`, and their content may be text."""

    id: str
    content: str | list[dict[str, Any]]
    outcome: Outcome = "ok"
    name: str = ""
    is_error: bool = False


def plain_fields(value: Part | Usage) -> dict[str, Any]:
    """Return the fields that differ from their defaults, as plain values.

    Raises:
        TypeError: a field holds an object that JSON cannot express.
        MisuseError: a field holds a number that JSON cannot express.
    """
    fields = msgspec.to_builtins(value)
    defaults = ((field.name, field.default) for field in attrs.fields(type(value)))
    differing = {name: fields[name] for name, default in defaults if fields[name] != default}
    for name, field in differing.items():
        check_numbers(name, field)
    return differing


def plain(name: str, value: object) -> Any:
    """Return the value of a field as plain values.

    Raises:
        TypeError: the value holds an object that JSON cannot express.
        MisuseError: the value holds a number that JSON cannot express.
    """
    builtins = msgspec.to_builtins(value)
    check_numbers(name, builtins)
    return builtins
