"""The writer of requests for Cohere's chat API, version 2: messages, tools and response formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..misuse import MisuseError
from ..values.content import location_of
from ..values.message import Message
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
from ._openai_turns import result_text
from ._refusals import (
    check_fields,
    check_parallel,
    check_readable,
    foreign_tool,
    foreign_value,
    unsupported_part,
    unsupported_result,
)

__all__ = ["MAKER", "PLAN", "response_format", "tools_and_choice", "turns"]

MAKER = "cohere"
PLAN: Mapping[str, Any] = {"kind": "tool_plan"}
"""The `ReasoningPart.extra` of a plan for tool calls. It distinguishes the plan from other reasoning."""


def turns(message: Message) -> Iterator[dict[str, Any]]:
    """Yield the API's messages for one `Message`; each tool result becomes a message of its own.

    Raises:
        MisuseError: the API cannot carry a part or a field of the message.
    """
    check_fields("Cohere", message)
    if message.role == "assistant":
        yield from _answer(message)
        return
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ToolResultPart) and message.role != "system":
            yield {"role": "tool", "tool_call_id": part.id, "content": _result(part)}
        else:
            content += _content(message, part)
    if content:  # the API rejects empty messages
        yield {"role": "system" if message.role == "system" else "user", "content": _plain(content)}


def _plain(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    is_text = len(content) == 1 and content[0]["type"] == "text"
    return str(content[0]["text"]) if is_text else content


def _content(message: Message, part: Part) -> Iterator[dict[str, Any]]:
    match part:
        case TextPart():
            if part.text:
                yield {"type": "text", "text": part.text}
        case FilePart() if message.role == "user":
            yield _image(part)
        case RawPart(provider="cohere"):
            yield dict(part.data)
        case CachePoint():
            pass  # the API caches prompts automatically
        case _:
            raise unsupported_part("Cohere", part, message.role)


def _answer(message: Message) -> Iterator[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    citations: list[dict[str, Any]] = []
    plan = ""
    for part in message.parts:
        match part:
            case ReasoningPart():  # only its own provider gets it back
                if part.provider == MAKER and part.extra == PLAN:
                    plan += part.text
                elif part.provider in (None, MAKER) and part.text:
                    content.append({"type": "thinking", "thinking": part.text})
            case ToolCallPart():
                function = {"name": part.name, "arguments": part.arguments or "{}"}
                calls.append({"id": part.id, "type": "function", "function": function})
            case TextPart() | RefusalPart():
                if part.text:
                    content.append({"type": "text", "text": part.text})
                if isinstance(part, TextPart) and part.provider == MAKER:
                    citations += map(dict, part.citations)
            case RawPart() if part.provider != MAKER:
                pass  # it belongs to another provider
            case _:
                content += _content(message, part)
    fields = {"content": _plain(content), "tool_plan": plan, "tool_calls": calls, "citations": citations}
    fields = {name: value for name, value in fields.items() if value}
    if fields:
        yield {"role": "assistant", **fields}


def _result(part: ToolResultPart) -> str | list[dict[str, Any]]:
    if all(isinstance(item, (TextPart, CachePoint)) for item in part.content):
        return result_text(part, part.text)
    content: list[dict[str, Any]] = []
    for item in part.content:
        match item:
            case TextPart():
                content.append({"type": "text", "text": item.text})
            case RawPart(provider="cohere"):
                content.append(dict(item.data))
            case FilePart(data=bytes(data)) if _is_text(item.media_type):
                content.append({"type": "document", "document": _document(item, data)})
            case _:
                raise unsupported_result("Cohere", item)
    if prefix := result_text(part, ""):
        content.insert(0, {"type": "text", "text": prefix.strip()})
    return content


def _is_text(media_type: str) -> bool:
    return media_type.startswith("text/") or media_type == "application/json"


def _document(part: FilePart, data: bytes) -> dict[str, Any]:
    fields = {"title": part.title or part.name, "context": part.context, "text": data.decode("utf-8", "replace")}
    document: dict[str, Any] = {"data": {name: value for name, value in fields.items() if value is not None}}
    return {**document, "id": part.name} if part.name else document


def _image(part: FilePart) -> dict[str, Any]:
    if not part.media_type.startswith("image/"):
        raise MisuseError(f"Cohere accepts text and images from the user, not this {part.media_type} file.")
    check_readable("Cohere", part, None)
    detail = {"detail": part.detail} if part.detail else {}
    return {"type": "image_url", "image_url": {"url": location_of(part), **detail}}


def tools_and_choice(parameters: Parameters) -> dict[str, Any]:
    """Return the fields for the tools and the tool choice.

    Raises:
        MisuseError: the API has no such tool or tool choice.
    """
    choice, tools = parameters.tool_choice, parameters.tools
    check_parallel("Cohere's API", parameters)
    fields: dict[str, Any] = {}
    if choice in ("required", "none"):
        fields["tool_choice"] = str(choice).upper()
    elif isinstance(choice, str) and choice != "auto":
        # The API has no choice by name, so the request offers only this tool.
        fields["tool_choice"] = "REQUIRED"
        tools = tuple(tool for tool in tools or () if isinstance(tool, ToolSpec) and tool.name == choice)
        if not tools:
            raise MisuseError(f"tool_choice names the tool {choice!r}, but the request has no such tool.")
    elif choice is not None and not isinstance(choice, str):
        raise foreign_value("tool_choice", choice)
    if tools:
        fields["tools"] = [_tool(tool) for tool in tools]
        strict = {tool.strict for tool in tools if isinstance(tool, ToolSpec)}
        if True in strict and strict != {True}:
            raise MisuseError("Cohere does not mix strict tools with others. Pass the same strict=… for all tools.")
        if True in strict:
            fields["strict_tools"] = True
    return fields


def _tool(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tool, ToolSpec):
        if "function" not in tool:
            raise foreign_tool(tool)
        return tool
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.parameters}}


def response_format(parameters: Parameters) -> Mapping[str, Any] | None:
    """Return the response format.

    Raises:
        MisuseError: the request has tools, too.
    """
    form = parameters.response_format
    if form is None:
        return None
    if parameters.tools:
        raise MisuseError("Cohere's models accept either tools or a response_format, not both. Leave one of them out.")
    if isinstance(form, ResponseSchema):
        return {"type": "json_object", "json_schema": form.schema}
    return {"type": "json_object"} if isinstance(form, str) else form
