"""Values as plain JSON, and back: what is printed, recorded and kept.

A record of a chunk has its ``text``, and of ``reasoning``, ``refusal``, ``tool_calls``, ``usage``, ``finish_reason``,
``raw_finish_reason``, ``model``, ``id``, ``reset`` and ``logprobs`` what there is. Where these do not say all, as of a
file or of the order of several parts, it has the ``parts``, too, each with its ``type``; bytes are base64::

    {"text": "Hel"}
    {"text": "", "tool_calls": [{"id": "call_1", "name": "now"}]}
    {"text": "", "parts": [{"type": "file", "media_type": "image/png", "data": "iVBORw0KGgo="}]}
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, cast

import attrs
import msgspec

from .misuse import MisuseError
from .values.chunk import Chunk
from .values.message import FinishReason, Logprobs, Message
from .values.parts import FilePart, Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from .values.request import Request
from .values.usage import Usage

__all__ = ["fingerprint", "of_json", "to_json"]

_KINDS: dict[str, type[Part]] = {
    "text": TextPart,
    "reasoning": ReasoningPart,
    "refusal": RefusalPart,
    "tool_call": ToolCallPart,
    "tool_result": ToolResultPart,
    "file": FilePart,
    "raw": RawPart,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_EXACT = 2**53  # up to here a float is any whole number
_FACTS = ("usage", "finish_reason", "raw_finish_reason", "model", "id", "logprobs")


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
        MisuseError: something in it is not the same in any process, or can't be written.
    """
    asked = {name: getattr(request, name) for name in attrs.fields_dict(Request) if name != "stream"}
    try:
        if not isinstance(request.prompt, str):
            asked["prompt"] = [_message_record(message) for message in request.prompt]
        asked = {name: value for name, value in asked.items() if value is not None and value != {}}
        plain = _plain_numbers(msgspec.to_builtins(asked, str_keys=True, enc_hook=_told))
        written = msgspec.json.encode(plain, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        raise MisuseError(f"The request can't be told from others: {error}.") from None
    return hashlib.sha256(written).hexdigest()


def _told(value: object) -> str:
    """What tells a value of any other kind from others."""
    told = repr(value)
    if _ADDRESS.search(told):
        raise TypeError(f"another {type(value).__name__} may have the same address later")
    return told


def _plain_numbers(value: Any) -> Any:
    """The same with whole numbers as integers: 0.0 asks for what 0 asks for."""
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain_numbers(item) for item in cast("list[Any]", value)]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value


def _message_record(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": [_part_record(part) for part in message.parts]}


def _simple_parts(reasoning: str, text: str, refusal: str, tool_calls: tuple[ToolCallPart, ...]) -> tuple[Part, ...]:
    """The parts of most chunks, which have one of these or, whole answers, each in this order."""
    return (
        *([ReasoningPart(reasoning)] if reasoning else []),
        *([TextPart(text)] if text else []),
        *([RefusalPart(refusal)] if refusal else []),
        *tool_calls,
    )


def _part_record(part: Part) -> dict[str, Any]:
    return {"type": _NAMES[type(part)], **_fields(part)}


def _part_of_record(record: dict[str, Any]) -> Part:
    kind = _KINDS.get(str(record.get("type")))
    if kind is None:
        raise msgspec.ValidationError(f"a part has the type {record.get('type')!r}, not one of {', '.join(_KINDS)}")
    return msgspec.convert(record, kind)


def _fields(value: Part | Usage) -> dict[str, Any]:
    """Its fields, but those that are as if nobody had set them."""
    plain = msgspec.to_builtins(value)
    defaults = ((field.name, field.default) for field in attrs.fields(type(value)))
    return {name: plain[name] for name, default in defaults if plain[name] != default}
