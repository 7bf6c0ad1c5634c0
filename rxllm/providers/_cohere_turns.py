"""Requests of Cohere's chat API, version 2: messages, tools and forms of answers as it writes them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from ..misuse import MisuseError, shown
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

__all__ = ["MAKER", "PLAN", "response_format", "tools_and_choice", "turns"]

MAKER = "cohere"
PLAN: Mapping[str, Any] = {"kind": "tool_plan"}
"""What tells a plan of calls from other reasoning, in `ReasoningPart.extra`."""


def turns(message: Message) -> Iterator[dict[str, Any]]:
    """The API's messages for one of ours: each tool's result is a message of its own.

    Raises:
        MisuseError: the API has no place for a part.
    """
    if message.extra:
        raise MisuseError(f"Cohere's messages have no field {next(iter(message.extra))!r}.")
    if message.role == "assistant":
        yield from _answer(message)
        return
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ToolResultPart) and message.role != "system":
            yield {"role": "tool", "tool_call_id": part.id, "content": _result(part)}
        else:
            content += _content(message, part)
    if content:  # the API refuses empty ones
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
            pass  # the API finds by itself what it can keep
        case _:
            kind = f"{part.media_type} file" if isinstance(part, FilePart) else type(part).__name__
            raise MisuseError(f"Cohere takes no {kind} in a message of the role {message.role!r}.")


def _answer(message: Message) -> Iterator[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    citations: list[dict[str, Any]] = []
    plan = ""
    for part in message.parts:
        match part:
            case ReasoningPart():  # only to its maker
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
                pass  # another vendor made it, and only that vendor can read it
            case _:
                content += _content(message, part)
    told = {"content": _plain(content), "tool_plan": plan, "tool_calls": calls, "citations": citations}
    told = {name: value for name, value in told.items() if value}
    if told:
        yield {"role": "assistant", **told}


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
                kind = f"{item.media_type} file" if isinstance(item, FilePart) else type(item).__name__
                raise MisuseError(f"Cohere takes text and text documents as the result of a tool, and no {kind}.")
    if prefix := result_text(part, ""):
        content.insert(0, {"type": "text", "text": prefix.strip()})
    return content


def _is_text(media_type: str) -> bool:
    return media_type.startswith("text/") or media_type == "application/json"


def _document(part: FilePart, data: bytes) -> dict[str, Any]:
    fields = {"title": part.title or part.name, "context": part.context, "text": data.decode("utf-8", "replace")}
    told: dict[str, Any] = {"data": {name: value for name, value in fields.items() if value is not None}}
    return {**told, "id": part.name} if part.name else told


def _image(part: FilePart) -> dict[str, Any]:
    if not part.media_type.startswith("image/"):
        raise MisuseError(f"Cohere takes text and images from the user, and no {part.media_type} file.")
    if part.file_id is not None:
        raise MisuseError(f"Cohere keeps no file {part.file_id!r}: give the FilePart's data or url.")
    if part.data is None and part.url is None:
        raise MisuseError("This FilePart has no content. Pass data or url.")
    data = (
        f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}" if part.data is not None else part.url
    )
    detail = {"detail": part.detail} if part.detail else {}
    return {"type": "image_url", "image_url": {"url": data, **detail}}


def tools_and_choice(parameters: Parameters) -> dict[str, Any]:
    """The fields for tools, and which of them to call.

    Raises:
        MisuseError: the API cannot say it.
    """
    choice, tools = parameters.tool_choice, parameters.tools
    if parameters.parallel_tool_calls is False:
        raise MisuseError("Cohere's API cannot forbid parallel calls of tools.")
    told: dict[str, Any] = {}
    if choice in ("required", "none"):
        told["tool_choice"] = str(choice).upper()
    elif isinstance(choice, str) and choice != "auto":  # the API knows no names: the tool is offered alone
        told["tool_choice"] = "REQUIRED"
        tools = tuple(tool for tool in tools or () if isinstance(tool, ToolSpec) and tool.name == choice)
        if not tools:
            raise MisuseError(f"tool_choice names {choice!r}, but there is no such tool.")
    elif choice is not None and not isinstance(choice, str):
        raise MisuseError(f"Cohere's tool_choice is 'auto', 'none', 'required' or a tool's name, not {shown(choice)}.")
    if tools:
        told["tools"] = [_tool(tool) for tool in tools]
        strict = {tool.strict for tool in tools if isinstance(tool, ToolSpec)}
        if True in strict and strict != {True}:
            raise MisuseError("At Cohere all tools are strict or none is: give all of them the same strict=….")
        if True in strict:
            told["strict_tools"] = True
    return told


def _tool(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tool, ToolSpec):
        if "function" not in tool:
            raise MisuseError(f"This tool has fields that only another provider knows: {shown(tool)}.")
        return tool
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.parameters}}


def response_format(parameters: Parameters) -> Mapping[str, Any] | None:
    """The form of the answer.

    Raises:
        MisuseError: tools are offered, too.
    """
    form = parameters.response_format
    if form is None:
        return None
    if parameters.tools:
        raise MisuseError("Cohere's models take either tools or a response_format, not both.")
    if isinstance(form, ResponseSchema):
        return {"type": "json_object", "json_schema": form.schema}
    return {"type": "json_object"} if isinstance(form, str) else form
