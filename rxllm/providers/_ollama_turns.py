"""Conversations as Ollama writes them: a message has its text, its thoughts, its images and its calls in fields."""

from __future__ import annotations

import base64
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
from ._documents import arguments_of
from ._openai_turns import result_text

__all__ = ["conversation_of"]

MAKER = "ollama"


def conversation_of(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The protocol's messages. Each result of a tool is a message of its own.

    Raises:
        MisuseError: the protocol has no place for something in it.
    """
    names: dict[str, str] = {}
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.extra:
            raise MisuseError(f"Ollama's messages have no field {next(iter(message.extra))!r}.")
        names.update((call.id, call.name) for call in message.tool_calls)
        turns += _turns(message, names)
    return turns


def _turns(message: Message, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    is_answer = message.role == "assistant"
    texts: list[str] = []
    thoughts: list[str] = []
    images: list[str] = []
    calls: list[dict[str, Any]] = []
    has_results = False
    for part in message.parts:
        match part:
            case TextPart() | RefusalPart() if message.role != "tool":
                texts.append(part.text)
            case ToolResultPart() if message.role in ("tool", "user"):
                has_results = True
                yield _result(part, part.name or names.get(part.id, ""))
            case FilePart() if message.role in ("user", "tool"):
                images.append(_image(part))
            case ToolCallPart() if is_answer:
                function = {"index": len(calls), "name": part.name, "arguments": arguments_of(part.arguments)}
                calls.append({**({"id": part.id} if part.id else {}), "function": function})
            case ReasoningPart() if is_answer:
                thoughts += [part.text] if part.provider == MAKER else []
            case RawPart() if is_answer:
                pass  # it belongs to another provider
            case CachePoint():
                pass  # the server finds by itself what it can keep
            case _:
                raise MisuseError(f"Ollama takes no {type(part).__name__} in a message of the role {message.role!r}.")
    fields = {"thinking": "".join(thoughts), "images": images, "tool_calls": calls}
    told = {name: value for name, value in fields.items() if value}
    if texts or told or not has_results:
        yield {"role": message.role, "content": "".join(texts), **told}


def _result(part: ToolResultPart, name: str) -> dict[str, Any]:
    images: list[str] = []
    for item in part.content:
        if isinstance(item, FilePart):
            images.append(_image(item))
        elif not isinstance(item, (TextPart, CachePoint)):
            raise MisuseError(f"Ollama takes text and images as the result of a tool, not {type(item).__name__}.")
    return {
        "role": "tool",
        "content": result_text(part, part.text),
        "tool_call_id": part.id,
        **({"tool_name": name} if name else {}),
        **({"images": images} if images else {}),
    }


def _image(part: Part) -> str:
    if not isinstance(part, FilePart) or part.data is None:
        raise MisuseError("Ollama takes the data of an image only, not its url or its id.")
    if not part.media_type.startswith("image/"):
        raise MisuseError(f"Ollama takes images only, not {part.media_type}.")
    return base64.b64encode(part.data).decode()
