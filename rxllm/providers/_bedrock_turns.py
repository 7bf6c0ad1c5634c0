"""Requests of Amazon Bedrock's Converse API: conversations, tools and files as it writes them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..misuse import MisuseError, shown
from ..values.message import Message, Role
from ..values.parameters import Parameters
from ..values.parts import (
    CachePoint,
    FilePart,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ..values.tools import ResponseSchema, ToolSpec
from ._documents import UNREADABLE
from ._ids import valid_id

__all__ = ["MAKER", "Conversation", "output_config", "tool_config"]

MAKER = "aws.bedrock"
_ID = r"[a-zA-Z0-9_.:-]{1,64}"
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_NAME_CHARACTERS = 200  # of a document

# Formats by media type; of a type that is not here, the part behind the slash may be a format.
_FORMATS = {
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "audio/mpeg": "mp3",
    "audio/vnd.wave": "wav",
    "audio/wave": "wav",
    "audio/x-flac": "flac",
    "audio/x-m4a": "m4a",
    "audio/x-wav": "wav",
    "image/jpg": "jpeg",
    "text/markdown": "md",
    "text/plain": "txt",
    "text/x-markdown": "md",
    "video/3gpp": "three_gp",
    "video/quicktime": "mov",
    "video/x-flv": "flv",
    "video/x-matroska": "mkv",
    "video/x-ms-wmv": "wmv",
}
_KNOWN = {
    "image": ["png", "jpeg", "gif", "webp"],
    "document": ["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"],
    "video": ["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"],
    "audio": [
        "mp3",
        "opus",
        "wav",
        "aac",
        "flac",
        "mp4",
        "ogg",
        "mkv",
        "mka",
        "x-aac",
        "m4a",
        "mpeg",
        "mpga",
        "pcm",
        "webm",
    ],
}


class Conversation:
    """What a request says: the system's texts, and the turns of the user and the assistant.

    Attributes:
        system: the blocks of the system's messages, which the protocol keeps apart.
        turns: the other messages; turns of one role in a row are one turn.
        calls: whether a call of a tool, or its result, is in it.

    Raises:
        MisuseError: the protocol has no place for something in it.
    """

    def __init__(self, messages: tuple[Message, ...]) -> None:
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []
        self.calls = False
        self._names: set[str] = set()  # of documents, which must differ
        for message in messages:
            if message.extra:
                raise MisuseError(f"Bedrock's messages have no field {next(iter(message.extra))!r}.")
            blocks = [block for part in message.parts for block in self._blocks(message, part)]
            if message.role == "system":
                self.system += blocks
                continue
            if any("document" in block for block in blocks) and not any("text" in block for block in blocks):
                raise MisuseError("Bedrock takes a document only in a message that has a text, too.")
            role = "assistant" if message.role == "assistant" else "user"
            if blocks and self.turns and self.turns[-1]["role"] == role:
                self.turns[-1]["content"] += blocks
            elif blocks:  # the API refuses empty ones
                self.turns.append({"role": role, "content": blocks})
        if not self.turns:
            raise MisuseError("Bedrock needs at least one message that is not the system's, with something in it.")

    def _blocks(self, message: Message, part: Part) -> Iterator[dict[str, Any]]:
        role = message.role
        match part:
            case TextPart() | RefusalPart():
                if part.text and not part.text.isspace():  # the API refuses blank texts
                    yield _text(role, part)
            case ReasoningPart() if role == "assistant":
                yield from _reasoning(message, part)
            case ToolCallPart() if role == "assistant":
                self.calls = True
                yield {"toolUse": {"toolUseId": valid_id(part.id, _ID), "name": part.name, "input": _input(part)}}
            case ToolResultPart() if role in ("tool", "user"):
                self.calls = True
                yield {"toolResult": self._result(part)}
            case FilePart() if role in ("tool", "user") or (role == "assistant" and part.provider == MAKER):
                yield self._file(part)
            case CachePoint():
                yield {"cachePoint": {"type": "default", **({"ttl": part.ttl} if part.ttl else {})}}
            case RawPart(provider="aws.bedrock"):
                yield dict(part.data)
            case RawPart() if role == "assistant":
                pass  # another vendor made it, and only that vendor can read it
            case _:
                kind = f"{part.media_type} file" if isinstance(part, FilePart) else type(part).__name__
                raise MisuseError(f"Bedrock takes no {kind} in a message of the role {role!r}.")

    def _result(self, part: ToolResultPart) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for item in part.content:
            match item:
                case TextPart():
                    content += [{"text": item.text}] if item.text else []
                case FilePart() if not item.media_type.startswith("audio/"):
                    content.append(self._file(item))
                case RawPart(provider="aws.bedrock"):
                    content.append(dict(item.data))
                case _:
                    what = item.media_type + " file" if isinstance(item, FilePart) else type(item).__name__
                    raise MisuseError(f"Bedrock takes no {what} in the result of a tool.")
        failed = {"status": "error"} if part.is_error else {}  # some models know no status
        return {"toolUseId": valid_id(part.id, _ID), "content": content, **failed}

    def _file(self, part: FilePart) -> dict[str, Any]:
        if part.file_id is not None:
            raise MisuseError(f"Bedrock keeps no file {part.file_id!r}: give the FilePart's data, or an s3:// url.")
        if part.data is not None:
            source: dict[str, Any] = {"bytes": base64.b64encode(part.data).decode()}
        elif part.url is not None and part.url.startswith("s3://"):
            source = {"s3Location": {"uri": part.url}}
        else:
            raise MisuseError("Bedrock fetches files from s3:// urls only: give the FilePart's data.")
        kind, _, subtype = part.media_type.partition("/")
        block = kind if kind in _KNOWN else "document"
        form = _FORMATS.get(part.media_type, "txt" if kind == "text" and subtype not in _KNOWN["document"] else subtype)
        if form not in _KNOWN[block]:
            raise MisuseError(f"Bedrock takes {block} files in the formats {', '.join(_KNOWN[block])}, not {form}.")
        told: dict[str, Any] = {"format": form, "source": source}
        if block == "document":
            told["name"] = self._name(part.title or part.name or "document")
            if part.context is not None:
                told["context"] = part.context
            if part.citable:
                told["citations"] = {"enabled": True}
        return {block: told}

    def _name(self, given: str) -> str:
        """A name in the characters that the API allows, and that no other document has."""
        plain = (
            re.sub(r"\s+", " ", re.sub(r"[^A-Za-z0-9\s()\[\]-]", " ", given)).strip()[:_NAME_CHARACTERS] or "document"
        )
        name, number = plain, 1
        while name in self._names:
            number += 1
            name = f"{plain[: _NAME_CHARACTERS - 8]} ({number})"
        self._names.add(name)
        return name


def _text(role: Role, part: TextPart | RefusalPart) -> dict[str, Any]:
    if role == "assistant" and isinstance(part, TextPart) and part.citations and part.provider == MAKER:
        citations = [dict(citation) for citation in part.citations]
        return {"citationsContent": {"content": [{"text": part.text}], "citations": citations}}
    return {"text": part.text}


def _reasoning(message: Message, part: ReasoningPart) -> Iterator[dict[str, Any]]:
    """A thought goes back to its maker. One without a signature may be cut, unless the answer came to its end."""
    if part.provider not in (None, MAKER) or not (part.signature or (part.text and message.finish_reason)):
        return
    signature = {"signature": part.signature} if part.signature else {}
    yield {"reasoningContent": {"reasoningText": {"text": part.text, **signature}}}


def _input(part: ToolCallPart) -> dict[str, Any]:
    try:
        return msgspec.json.decode(part.arguments or "{}", type=dict[str, Any])
    except UNREADABLE:
        return {"INVALID_JSON": part.arguments}  # the protocol wants an object


def tool_config(parameters: Parameters, *, calls: bool) -> dict[str, Any] | None:
    """The tools, and which of them to call. `calls`: whether the conversation has calls.

    Raises:
        MisuseError: the protocol cannot say it.
    """
    choice, tools = parameters.tool_choice, parameters.tools
    if parameters.parallel_tool_calls is False:
        raise MisuseError("Bedrock's Converse API cannot forbid parallel calls of tools.")
    if choice == "none" and not calls:
        return None
    if not tools:
        if calls:
            raise MisuseError("Bedrock wants to be told the tools of a conversation that has calls: give tools=….")
        return None
    if choice == "none":
        raise MisuseError("Bedrock's Converse API cannot forbid calls in a conversation that has some.")
    told: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if isinstance(choice, str):
        named: dict[str, dict[str, str]] = {"auto": {}} if choice == "auto" else {"any": {}}
        told["toolChoice"] = named if choice in ("auto", "required") else {"tool": {"name": choice}}
    elif choice is not None:
        told["toolChoice"] = choice
    return told


def _tool(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tool, ToolSpec):
        if not tool.keys() & {"toolSpec", "systemTool", "cachePoint"}:
            raise MisuseError(f"This tool has fields that only another provider knows: {shown(tool)}.")
        return tool
    told: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": tool.parameters}}
    if tool.description:
        told["description"] = tool.description
    if tool.strict is not None:
        told["strict"] = tool.strict
    return {"toolSpec": told}


def output_config(parameters: Parameters) -> dict[str, Any] | None:
    """The form of the answer, and how hard to think.

    Raises:
        MisuseError: the protocol knows no such form or effort.
    """
    told: dict[str, Any] = {}
    form, effort = parameters.response_format, parameters.effort
    if form == "json":
        raise MisuseError("Bedrock's models answer in JSON by a schema only: give response_format one.")
    if isinstance(form, ResponseSchema):
        described = {"name": form.name, "description": form.description}
        schema = {"schema": msgspec.json.encode(form.schema).decode(), **{k: v for k, v in described.items() if v}}
        told["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    elif form is not None:
        told["textFormat"] = form
    if effort is not None and effort != "none":
        if effort not in _EFFORTS:
            raise MisuseError(f"Bedrock's models know the efforts {', '.join(_EFFORTS)}, not {effort!r}.")
        told["effort"] = effort
    return told or None
