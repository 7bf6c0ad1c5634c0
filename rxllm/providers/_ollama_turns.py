"""The writer of Ollama's messages, which keep text, reasoning, images and tool calls in separate fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..misuse import MisuseError
from ..values.message import Message
from ..values.parts import (
    CachePoint,
    FilePart,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ._attachments import base64_of
from ._documents import arguments_of
from ._openai_turns import result_text
from ._refusals import check_fields, unsupported_part, unsupported_result

__all__ = ["conversation_of"]

MAKER = "ollama"


def conversation_of(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return the protocol's messages; each tool result becomes a message of its own.

    Raises:
        MisuseError: the protocol cannot carry a part or a field of the messages.
    """
    names: dict[str, str] = {}
    turns: list[dict[str, Any]] = []
    for message in messages:
        check_fields("Ollama", message)
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
            case FilePart() if message.role in ("user", "tool") or part.provider == MAKER:
                images.append(_image(part))
            case ToolCallPart() if is_answer:
                function = {"index": len(calls), "name": part.name, "arguments": arguments_of(part.arguments)}
                calls.append({**({"id": part.id} if part.id else {}), "function": function})
            case ReasoningPart() if is_answer:
                thoughts += [part.text] if part.provider == MAKER else []
            case RawPart() if is_answer:
                pass  # it belongs to another provider
            case CachePoint():
                pass  # the server caches prompts automatically
            case _:
                raise unsupported_part("Ollama", part, message.role)
    optional = {"thinking": "".join(thoughts), "images": images, "tool_calls": calls}
    fields = {name: value for name, value in optional.items() if value}
    if texts or fields or not has_results:
        yield {"role": message.role, "content": "".join(texts), **fields}


def _result(part: ToolResultPart, name: str) -> dict[str, Any]:
    images: list[str] = []
    for item in part.content:
        if isinstance(item, FilePart):
            images.append(_image(item))
        elif not isinstance(item, (TextPart, CachePoint)):
            raise unsupported_result("Ollama", item)
    return {
        "role": "tool",
        "content": result_text(part, part.text),
        "tool_call_id": part.id,
        **({"tool_name": name} if name else {}),
        **({"images": images} if images else {}),
    }


def _image(part: FilePart) -> str:
    if part.data is None:
        raise MisuseError("Ollama reads an image only from its data, not from a url or a file_id. Pass data.")
    if not part.media_type.startswith("image/"):
        raise MisuseError(f"Ollama accepts only images, not this {part.media_type} file.")
    return base64_of(part.data)
