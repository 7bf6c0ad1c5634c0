"""The writer of conversations for Amazon Bedrock's Converse API. `_bedrock_settings.py` writes the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..misuse import MisuseError
from ..values.message import Message
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
from ..values.vocabulary import Role
from ._attachments import base64_of
from ._documents import arguments_of
from ._ids import valid_id
from ._joining import joined
from ._refusals import (
    NO_DETAILS,
    check_fields,
    check_readable,
    no_messages,
    unsupported_part,
    unsupported_result,
)

__all__ = ["MAKER", "Conversation"]

MAKER = "aws.bedrock"
_ID = r"[a-zA-Z0-9_.:-]{1,64}"
_NAME_CHARACTERS = 200  # of a document

# The formats of media types whose part after the slash is not the format.
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
    "text/markdown": "md",
    "text/plain": "txt",
    "text/x-markdown": "md",
    "video/3gpp": "three_gp",
    "video/quicktime": "mov",
    "video/x-flv": "flv",
    "video/x-matroska": "mkv",
    "video/x-ms-wmv": "wmv",
}
_ACCEPTED = {
    "image": ["png", "jpeg", "gif", "webp"],
    "document": ["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"],
    "video": ["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"],
    "audio": [
        "mp3", "wav", "flac", "ogg", "opus", "aac", "x-aac", "m4a", "mka", "mkv", "mp4", "mpeg", "mpga", "pcm", "webm",
    ],
}  # fmt: skip


class Conversation:
    """The messages of a request in the protocol's form.

    Attributes:
        system: the blocks of the system's messages, which the protocol keeps apart.
        turns: the turns of the user and the assistant. Consecutive messages of one side become one turn.
        calls: whether the conversation contains a tool call or a tool result.

    Raises:
        MisuseError: the protocol cannot carry a part, a file or a field of the messages.
    """

    def __init__(self, messages: tuple[Message, ...]) -> None:
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []
        self.calls = False
        self._names: set[str] = set()  # the names of the documents, which must be unique
        for message in messages:
            check_fields("Bedrock", message)
            blocks = _marked([block for part in message.parts for block in self._blocks(message, part)])
            if message.role == "system":
                self.system += blocks
                continue
            if any("document" in block for block in blocks) and not any("text" in block for block in blocks):
                raise MisuseError("Bedrock accepts a document only in a message with text. Add a TextPart.")
            role = "assistant" if message.role == "assistant" else "user"
            self.turns.append({"role": role, "content": blocks})
        self.turns = joined(self.turns)
        if not self.turns:
            raise no_messages("Bedrock")
        for turn in self.turns:
            if turn["role"] == "user":
                turn["content"] = _results_first(turn["content"])
        if self.turns[-1]["role"] == "assistant" and "text" in (last := self.turns[-1]["content"][-1]):
            last["text"] = last["text"].rstrip()  # Claude rejects white space at the end of an answer to continue

    @property
    def marks(self) -> int:
        """How many cache points the messages have."""
        blocks = [*self.system, *(block for turn in self.turns for block in turn["content"])]
        return sum("cachePoint" in block for block in blocks)

    def _blocks(self, message: Message, part: Part) -> Iterator[dict[str, Any]]:
        role = message.role
        match part:
            case TextPart() | RefusalPart():
                if part.text and not part.text.isspace():  # the API rejects blank texts
                    yield _text(role, part)
            case ReasoningPart() if role == "assistant":
                yield from _reasoning(message, part)
            case ToolCallPart() if role == "assistant":
                self.calls = True
                yield {
                    "toolUse": {
                        "toolUseId": valid_id(part.id, _ID),
                        "name": part.name,
                        "input": arguments_of(part.arguments),
                    }
                }
            case ToolResultPart() if role in ("tool", "user"):
                self.calls = True
                yield {"toolResult": self._result(part)}
                if part.content and isinstance(part.content[-1], CachePoint):
                    yield _cache_point(part.content[-1])
            case FilePart() if role in ("tool", "user") or (role == "assistant" and part.provider == MAKER):
                yield self._file(part)
            case CachePoint():
                yield _cache_point(part)
            case RawPart(provider="aws.bedrock"):
                yield dict(part.data)
            case RawPart() if role == "assistant":
                pass  # it belongs to another provider
            case _:
                raise unsupported_part("Bedrock", part, role)

    def _result(self, part: ToolResultPart) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for item in part.content:
            match item:
                case TextPart():
                    content += [{"text": item.text}] if item.text and not item.text.isspace() else []
                case FilePart() if not item.media_type.startswith("audio/"):
                    content.append(self._file(item))
                case RawPart(provider="aws.bedrock"):
                    content.append(dict(item.data))
                case CachePoint() if item is part.content[-1]:
                    pass  # it comes after the result
                case CachePoint():
                    raise MisuseError("Bedrock has no CachePoint within the result of a tool. Put it at the end of it.")
                case _:
                    raise unsupported_result("Bedrock", item)
        content = content or ([{"text": NO_DETAILS}] if part.is_error else [])
        failed = {"status": "error"} if part.is_error else {}  # some models reject the status "success"
        return {"toolUseId": valid_id(part.id, _ID), "content": content, **failed}

    def _file(self, part: FilePart) -> dict[str, Any]:
        check_readable("Bedrock", part, None)
        if part.data is not None:
            source: dict[str, Any] = {"bytes": base64_of(part.data)}
        elif part.url is not None and part.url.startswith("s3://"):
            source = {"s3Location": {"uri": part.url}}
        else:
            raise MisuseError("Bedrock reads files only from s3:// urls. Pass the FilePart's data.")
        kind, _, subtype = part.media_type.partition("/")
        block = kind if kind in _ACCEPTED else "document"
        form = _FORMATS.get(
            part.media_type, "txt" if kind == "text" and subtype not in _ACCEPTED["document"] else subtype
        )
        if form not in _ACCEPTED[block]:
            raise MisuseError(
                f"Bedrock accepts {block} files in the formats {', '.join(_ACCEPTED[block])}, not {form}."
            )
        fields: dict[str, Any] = {"format": form, "source": source}
        if block == "document":
            fields["name"] = self._name(part.title or part.name or "document")
            if part.context is not None:
                fields["context"] = part.context
            if part.citable:
                fields["citations"] = {"enabled": True}
        return {block: fields}

    def _name(self, title: str) -> str:
        """Return a unique name for a document, in the characters that the API allows."""
        allowed = re.sub(r"\s+", " ", re.sub(r"[^A-Za-z0-9\s()\[\]-]", " ", title))
        plain = allowed.strip()[:_NAME_CHARACTERS] or "document"
        name, number = plain, 1
        while name in self._names:
            number += 1
            name = f"{plain[: _NAME_CHARACTERS - 8]} ({number})"
        self._names.add(name)
        return name


def _marked(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of a message with the cache points before reasoning, after which Claude rejects them.

    A cache point is left out if only reasoning comes before it.
    Source: https://github.com/0xPlaygrounds/rig/issues/1673
    """
    marked: list[dict[str, Any]] = []
    for block in blocks:
        at = len(marked)
        while "cachePoint" in block and at and "reasoningContent" in marked[at - 1]:
            at -= 1
        if at or not marked:
            marked.insert(at, block)
    return marked


def _results_first(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks with the results of tools first, as Claude requires. A cache point follows its block."""
    results: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    place = others
    for block in blocks:
        place = place if "cachePoint" in block else results if "toolResult" in block else others
        place.append(block)
    return [*results, *others]


def _cache_point(part: CachePoint) -> dict[str, Any]:
    return {"cachePoint": {"type": "default", **({"ttl": part.ttl} if part.ttl else {})}}


def _text(role: Role, part: TextPart | RefusalPart) -> dict[str, Any]:
    if role == "assistant" and isinstance(part, TextPart) and part.citations and part.provider == MAKER:
        citations = [dict(citation) for citation in part.citations]
        return {"citationsContent": {"content": [{"text": part.text}], "citations": citations}}
    return {"text": part.text}


def _reasoning(message: Message, part: ReasoningPart) -> Iterator[dict[str, Any]]:
    """Yield the reasoning, if Bedrock made it. Reasoning without a signature must come from a complete answer."""
    if part.provider not in (None, MAKER) or not (part.signature or (part.text and message.finish_reason)):
        return
    signature = {"signature": part.signature} if part.signature else {}
    yield {"reasoningContent": {"reasoningText": {"text": part.text, **signature}}}
