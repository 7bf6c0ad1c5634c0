"""Requests of OpenAI's chat protocol: messages, tools and forms of answers as it writes them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from ..misuse import MisuseError, shown
from ..values.message import Message, Role
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

__all__ = ["result_text", "told_choice", "told_format", "told_tool", "turns"]

_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_PREFIXES = {
    "ok": "",
    "error": "Error: ",
    "denied": "Denied: ",
    "interrupted": "Interrupted, so that nobody knows whether the tool has run: ",
}


def turns(message: Message, maker: str) -> Iterator[dict[str, Any]]:
    """The protocol's messages for one of ours: each tool's result is a message of its own.

    What another maker wants back is left out: `maker` names the server that is asked.

    Raises:
        MisuseError: the protocol has no place for a part.
    """
    calls: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    for part in message.parts:
        if isinstance(part, ToolResultPart) and message.role in ("tool", "user"):
            name = {"name": part.name} if part.name and maker == "mistral_ai" else {}
            yield {"role": "tool", "tool_call_id": part.id, "content": _result(part, maker), **name}
        elif isinstance(part, ToolCallPart) and message.role == "assistant":
            function = {"name": part.name, "arguments": part.arguments or "{}"}
            extra: Mapping[str, Any] = (part.extra if part.provider in (None, maker) else None) or {}
            extra = {} if "item" in extra or "follows" in extra else extra  # which Responses wants back
            calls.append({"id": part.id, "type": "function", "function": function, **extra})
        elif isinstance(part, ReasoningPart) and message.role == "assistant":
            # Servers that think in reasoning_content want it back on turns that call tools; OpenAI knows no such field.
            if maker != "openai" and part.provider in (None, maker) and part.text:
                fields["reasoning_content"] = fields.get("reasoning_content", "") + part.text
        elif isinstance(part, RawPart) and part.provider == maker and [*part.data] == ["reasoning_details"]:
            fields["reasoning_details"] = [*fields.get("reasoning_details", ()), *part.data["reasoning_details"]]
        elif isinstance(part, FilePart) and message.role == "assistant":
            _echo(part, fields, maker)
        else:
            content += _content(message.role, part, maker)
    if message.parts and not content and message.role in ("tool", "user"):
        return
    turn: dict[str, Any] = {"role": message.role, "content": content, **fields}
    # Several texts of the user are kept apart. Elsewhere not all servers know lists.
    if all(item["type"] == "text" for item in content) and (len(content) < 2 or message.role != "user"):
        turn["content"] = "".join(item["text"] for item in content)
    if calls:
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = calls
    if message.name is not None:
        turn["name"] = message.name
    yield {**turn, **(message.extra or {})}


def _content(role: Role, part: Part, maker: str) -> Iterator[dict[str, Any]]:
    match part:
        case TextPart() if role != "tool":
            yield {"type": "text", "text": part.text}
        case RefusalPart() if role == "assistant":
            yield {"type": "refusal", "refusal": part.text}
        case FilePart() if role == "user":
            yield _file(part, maker)
        case RawPart(provider=provider) if provider in ("openai", maker) and "item" not in part.data:
            yield dict(part.data)
        case CachePoint():
            pass  # servers of this protocol find by themselves what they can keep
        case RawPart() if role == "assistant":
            pass  # what another vendor wants back is of no use here
        case _:
            raise MisuseError(f"OpenAI takes no {type(part).__name__} in a message of the role {role!r}.")


def result_text(part: ToolResultPart, text: str) -> str:
    """The text of a tool's result for a protocol that has no field for its outcome."""
    return text if part.outcome == "error" and text.lower().startswith("error") else _PREFIXES[part.outcome] + text


def _result(part: ToolResultPart, maker: str) -> str | list[dict[str, Any]]:
    if all(isinstance(item, (TextPart, CachePoint)) for item in part.content):
        return result_text(part, part.text)
    if maker == "openai":
        raise MisuseError(
            "OpenAI's chat protocol takes only text as the result of a tool: put the file into a message of the user."
        )
    return [item for content in part.content for item in _content("user", content, maker)]


def _echo(part: FilePart, fields: dict[str, Any], maker: str) -> None:
    """A file that the model has made, in the fields that it came in: a picture as it is, a sound by its id."""
    if part.media_type.startswith("audio/") and part.file_id:
        fields["audio"] = {"id": part.file_id}
    elif part.media_type.startswith("image/") and maker != "openai":
        fields.setdefault("images", []).append(_file(part, maker))
    else:
        raise MisuseError(
            f"OpenAI takes no {part.media_type} file in a message of the assistant; put it into one of the user's."
        )


def _file(part: FilePart, maker: str) -> dict[str, Any]:
    kind, _, subtype = part.media_type.partition("/")
    if part.file_id is not None:
        if part.provider not in (None, maker):
            raise MisuseError(f"The file {part.file_id!r} is kept by {part.provider}; {maker} can't read it.")
        return {"type": "file", "file": {"file_id": part.file_id}}
    data = "" if part.data is None else base64.b64encode(part.data).decode()
    location = f"data:{part.media_type};base64,{data}" if part.data is not None else part.url
    if location is None:
        raise MisuseError("A FilePart needs data, a url or a file_id.")
    if kind == "image":
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": location, **detail}}
    if part.data is None and (maker == "openai" or kind == "audio"):
        raise MisuseError(f"OpenAI takes the url of an image only; give the data of this {part.media_type} file.")
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": data, "format": _AUDIO_FORMATS.get(subtype, subtype)}}
    return {"type": "file", "file": {"filename": part.name or f"file.{subtype}", "file_data": location}}


def told_tool(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    """The definition of a tool."""
    if not isinstance(tool, ToolSpec):
        if "input_schema" in tool or "functionDeclarations" in tool:
            raise MisuseError(f"This tool has fields that only another provider knows: {shown(tool)}.")
        return tool
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def told_choice(choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """Which tool to call."""
    if choice is None or not isinstance(choice, str) or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def told_format(form: str | ResponseSchema | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The form of the answer."""
    if isinstance(form, str):
        return {"type": "json_object"}
    if not isinstance(form, ResponseSchema):
        return form
    described: dict[str, Any] = {"name": form.name, "schema": form.schema}
    if form.strict is not None:
        described["strict"] = form.strict
    if form.description:
        described["description"] = form.description
    return {"type": "json_schema", "json_schema": described}
