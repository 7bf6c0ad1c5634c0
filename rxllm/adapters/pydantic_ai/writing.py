"""Messages, parameters and tools of rxllm as those of Pydantic AI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from ...values.request import Request
from ...values.tools import ResponseSchema, ToolSpec
from .reading import said_in

__all__ = ["history_of", "parameters_of", "settings_for"]

_SAME = (
    "max_tokens", "temperature", "top_p", "top_k", "seed", "parallel_tool_calls",
)  # fmt: skip
_OUTCOMES = {"ok": "success", "error": "failed", "denied": "denied", "interrupted": "interrupted"}


def settings_for(request: Request) -> dict[str, Any]:
    """Return the `ModelSettings` of a request. The fields of `extra` are settings of the model's own, too."""
    settings: dict[str, Any] = {name: value for name in _SAME if (value := getattr(request, name)) is not None}
    if request.stop_sequences is not None:
        settings["stop_sequences"] = [*request.stop_sequences]
    if request.effort is not None:
        settings["thinking"] = False if request.effort == "none" else request.effort
    if request.tool_choice is not None:
        choice = request.tool_choice
        if not isinstance(choice, str):
            raise MisuseError(f"Pydantic AI takes a tool choice by name, not {shown(choice)}.")
        settings["tool_choice"] = choice if choice in ("auto", "none", "required") else [choice]
    return {**settings, **request.extra}


def parameters_of(request: Request) -> Any:
    """Return the `ModelRequestParameters`: the tools, and the schema of the answer.

    Raises:
        MisuseError: a tool or the response format has the form of one vendor.
    """
    module = import_module("pydantic_ai")
    tools: list[Any] = []
    for tool in request.tools or ():
        if not isinstance(tool, ToolSpec):
            raise MisuseError(f"Pydantic AI takes tools with a name and a JSON schema, not {shown(tool)}.")
        tools.append(
            module.ToolDefinition(
                name=tool.name,
                description=tool.description or None,
                parameters_json_schema=_plain(tool.parameters),
                strict=tool.strict,
            )
        )
    form = request.response_format
    output: dict[str, Any] = {}
    if isinstance(form, ResponseSchema):
        definition = import_module("pydantic_ai.output").OutputObjectDefinition(
            json_schema=_plain(form.schema), name=form.name, description=form.description, strict=form.strict
        )
        output = {"output_mode": "native", "output_object": definition}
    elif form is not None:
        raise MisuseError("Pydantic AI takes a JSON schema as the response format. Use shape=…, or rxllm.shaped.")
    return import_module("pydantic_ai.models").ModelRequestParameters(function_tools=tools, **output)


def _plain(value: Any) -> Any:
    """Return a copy of a JSON value that Pydantic AI may change."""
    return msgspec.json.decode(msgspec.json.encode(value))


def history_of(messages: Iterable[Message]) -> list[Any]:
    """Return a conversation as a history.

    Raises:
        MisuseError: a part has no counterpart.
    """
    module = import_module("pydantic_ai.messages")
    names: dict[str, str] = {}  # the names of the tools, by the ids of their calls
    history: list[Any] = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        if message.role == "assistant":
            history.append(_response(module, message))
            continue
        parts = [*_request_parts(module, message, names)]
        if history and isinstance(history[-1], module.ModelRequest):
            history[-1].parts += parts
        else:
            history.append(module.ModelRequest(parts=parts))
    return history


def _request_parts(module: Any, message: Message, names: Mapping[str, str]) -> Iterator[Any]:
    if message.role == "system":
        yield module.SystemPromptPart(content=message.text)
        return
    content: list[Any] = []
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            items = [_content(module, item) for item in part.content]
            yield module.ToolReturnPart(
                tool_name=part.name or names.get(part.id, ""),
                content=part.text if all(isinstance(item, str) for item in items) else items,
                tool_call_id=part.id,
                outcome=_OUTCOMES[part.outcome],
            )
        else:
            content.append(_content(module, part))
    if content:
        yield module.UserPromptPart(content=content[0] if [*map(type, content)] == [str] else content)


def _content(module: Any, part: Part) -> Any:
    match part:
        case TextPart():
            return part.text
        case CachePoint():
            return module.CachePoint(**({"ttl": part.ttl} if part.ttl else {}))
        case FilePart(data=bytes(data)):
            return module.BinaryContent(data=data, media_type=part.media_type)
        case FilePart(file_id=str(file_id), provider=str(provider)):
            return module.UploadedFile(file_id=file_id, provider_name=provider, media_type=part.media_type)
        case FilePart(url=str(url)):
            kinds = {"image": module.ImageUrl, "audio": module.AudioUrl, "video": module.VideoUrl}
            kind = kinds.get(part.media_type.partition("/")[0], module.DocumentUrl)
            known = {} if part.media_type.endswith("/*") else {"media_type": part.media_type}
            return kind(url=url, **known)
        case _:
            raise MisuseError(f"Pydantic AI has no counterpart of {shown(part)} in a prompt.")


def _response(module: Any, message: Message) -> Any:
    for part in message.parts:
        if isinstance(part, RawPart) and part.provider == "pydantic_ai":
            kept = module.ModelMessagesTypeAdapter.validate_python([_plain(part.data["response"])])[0]
            said = message.text, [call.id for call in message.tool_calls]
            if said_in(kept) == said:  # otherwise the program has edited the message
                return kept
    parts = [*filter(None, (_answer_part(module, part) for part in message.parts))]
    return module.ModelResponse(parts=parts, model_name=message.model, provider_name=message.provider)


def _answer_part(module: Any, part: Part) -> Any:
    match part:
        case TextPart() | RefusalPart():
            return module.TextPart(content=part.text)
        case ReasoningPart(provider=str(provider)):
            return module.ThinkingPart(content=part.text, id=part.id, signature=part.signature, provider_name=provider)
        case ToolCallPart():
            return module.ToolCallPart(tool_name=part.name, args=part.arguments, tool_call_id=part.id)
        case FilePart(data=bytes(data)):
            content = module.BinaryContent(data=data, media_type=part.media_type)
            return module.FilePart(content=content)
        case _:
            return None  # only another vendor understands the part
