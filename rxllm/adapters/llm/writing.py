"""Messages of rxllm as those of `llm`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import msgspec

from ...misuse import MisuseError, shown
from ...values.message import Message
from ...values.parts import (
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
from .arguments import arguments_of
from .reading import MAKER, said_in

__all__ = ["Turn", "messages_for"]


def messages_for(messages: Iterable[Message]) -> list[Any]:
    """Return a conversation.

    Raises:
        MisuseError: a part has no counterpart.
    """
    module = import_module("llm.parts")
    names: dict[str, str] = {}  # the names of the tools, by the ids of their calls
    history: list[Any] = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        kept = _kept(module, message)
        history += kept or [module.Message(message.role, [*_parts(module, message, names)])]
    return history


def _kept(module: Any, message: Message) -> list[Any]:
    """Return the messages of llm that an answer came from; none if the program has edited it."""
    for part in message.parts:
        if isinstance(part, RawPart) and part.provider == MAKER:
            records = json.loads(msgspec.json.encode(part.data["messages"]))
            kept = [module.Message.from_dict(record) for record in records]
            if said_in(kept) == (message.text, [call.name for call in message.tool_calls]):
                return _with_ids(module, kept, [call.id for call in message.tool_calls])
    return []


def _with_ids(module: Any, kept: list[Any], ids: list[str]) -> list[Any]:
    """Give the calls the ids that their results name. Some plugins give them none."""
    calls = (part for message in kept for part in message.parts if isinstance(part, module.ToolCallPart))
    for call, identity in zip((call for call in calls if not call.server_executed), ids, strict=True):
        call.tool_call_id = identity
    return kept


def _parts(module: Any, message: Message, names: Mapping[str, str]) -> Iterable[Any]:
    for part in message.parts:
        match part:
            case TextPart() | RefusalPart():
                yield module.TextPart(part.text)
            case FilePart():
                yield module.AttachmentPart(_attachment(part))
            case ToolCallPart():
                yield module.ToolCallPart(part.name, arguments_of(part.arguments), part.id)
            case ToolResultPart():
                files = [_attachment(item) for item in part.content if isinstance(item, FilePart)]
                exception = part.outcome if part.is_error else None
                name = part.name or names.get(part.id, "")
                yield module.ToolResultPart(name, part.text, part.id, attachments=files, exception=exception)
            case ReasoningPart() | RawPart() | CachePoint():
                pass  # only another vendor understands it; a cache point is a hint
            case _:
                raise MisuseError(f"llm has no counterpart of {shown(part)} in a prompt.")


def _attachment(part: Part) -> Any:
    attachment = import_module("llm").Attachment
    match part:
        case FilePart(data=bytes(data)):
            return attachment(type=part.media_type, content=data)
        case FilePart(url=str(url)):
            return attachment(type=part.media_type, url=url)
        case _:
            raise MisuseError(f"llm takes the bytes or the URL of a file, not {shown(part)}.")


class Turn:
    """The last turn of a conversation, for plugins that read it instead of the messages.

    Attributes:
        system: the text of the system.
        text: the text of the user.
        attachments: the files of the user.
        results: the results of the tools.
    """

    def __init__(self, messages: list[Any]) -> None:
        library, module = import_module("llm"), import_module("llm.parts")
        last: list[Any] = []
        for message in messages:
            last = [] if message.role == "assistant" else [*last, *_if_not_system(message)]
        said = [part for message in messages for part in message.parts if message.role == "system"]
        texts = [part.text for part in said if isinstance(part, module.TextPart)]
        self.system = "\n\n".join(texts) or None
        self.text = "\n".join(part.text for part in last if isinstance(part, module.TextPart)) or None
        self.attachments = [part.attachment for part in last if isinstance(part, module.AttachmentPart)]
        self.results = [
            library.ToolResult(part.name, part.output, part.attachments, part.tool_call_id)
            for part in last
            if isinstance(part, module.ToolResultPart)
        ]


def _if_not_system(message: Any) -> list[Any]:
    return [] if message.role == "system" else message.parts
