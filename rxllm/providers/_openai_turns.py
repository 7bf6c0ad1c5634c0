"""The writer of OpenAI's chat requests: messages, tools and response formats in the protocol's form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..misuse import MisuseError
from ..values.content import location_of
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
from ..values.tools import ResponseSchema, ToolSpec
from ..values.vocabulary import Role
from ._attachments import base64_of
from ._details import DETAILS, IN_DETAILS
from ._documents import object_text
from ._mistral_turns import MAKER as MISTRAL
from ._mistral_turns import thinking
from ._refusals import check_readable, foreign_tool, unsupported_part

__all__ = ["SUMMARY", "chat_choice", "chat_format", "chat_tool", "plain_content", "result_text", "turns"]

SUMMARY: Mapping[str, Any] = {"form": "summary"}
"""The `ReasoningPart.extra` of reasoning that goes back as a block of the content, as Databricks requires.

Source: https://docs.databricks.com/aws/en/machine-learning/model-serving/query-reason-models
"""

_REFUSING = ("openai", "azure.ai.openai")  # the makers whose protocol has refusals; other servers reject them
_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_PREFIXES = {
    "ok": "",
    "error": "Error: ",
    "denied": "Denied: ",
    "interrupted": "Interrupted, so that nobody knows whether the tool has run: ",
}


def turns(message: Message, maker: str) -> Iterator[dict[str, Any]]:
    """Yield the protocol's messages for one `Message`; each tool result becomes a message of its own.

    `maker` is the provider name of the server. Fields that belong to another provider are left out.

    Raises:
        MisuseError: the protocol cannot carry one of the parts.
    """
    calls: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    for part in message.parts:
        if isinstance(part, ToolResultPart) and message.role in ("tool", "user"):
            name = {"name": part.name} if part.name and maker == MISTRAL else {}
            yield {"role": "tool", "tool_call_id": part.id, "content": _result(part, maker), **name}
        elif isinstance(part, ToolCallPart) and message.role == "assistant":
            # OpenAI takes back what its models wrote. Other servers fail at arguments that are not a JSON object.
            arguments = part.arguments or "{}" if maker == "openai" else object_text(part.arguments)
            function = {"name": part.name, "arguments": arguments}
            extra: Mapping[str, Any] = (part.extra if part.provider in (None, maker) else None) or {}
            extra = {} if "item" in extra or "follows" in extra else extra  # fields of the Responses protocol
            calls.append({"id": part.id, "type": "function", "function": function, **extra})
        elif isinstance(part, ReasoningPart) and message.role == "assistant":
            _reasoning(part, content, fields, maker)
        elif isinstance(part, RawPart) and part.provider == maker and part.data and part.data.keys() <= {*DETAILS}:
            _detail(part.data, fields)
        elif isinstance(part, FilePart) and message.role == "assistant":
            _echo(part, fields, maker)
        else:
            content += _content(message.role, part, maker)
    if message.parts and not content and message.role in ("tool", "user"):
        return
    if message.role == "assistant" and not (calls or fields or message.extra or any(map(_says, content))):
        return  # some servers reject an answer without content
    turn: dict[str, Any] = {"role": message.role, "content": plain_content(message.role, content), **fields}
    if calls:
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = calls
    if message.name is not None:
        turn["name"] = message.name
    yield {**turn, **(message.extra or {})}


def plain_content(role: Role, content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return the content of a message; texts alone as one string, because some servers accept only a string.

    Several texts of the user stay a list, which all servers accept.
    """
    if all(item["type"] == "text" for item in content) and (len(content) < 2 or role != "user"):
        return "".join(item["text"] for item in content)
    return content


def _detail(data: Mapping[str, Any], fields: dict[str, Any]) -> None:
    """Write the details of reasoning into their own fields."""
    for name, details in data.items():
        fields[name] = details if isinstance(details, str) else [*fields.get(name, ()), *details]
    if "reasoning_opaque" in data and "reasoning_content" in fields:  # of GitHub Copilot, whose field has another name
        fields["reasoning_text"] = fields.pop("reasoning_content")


def _says(item: Mapping[str, Any]) -> bool:
    return item["type"] != "text" or bool(item["text"])


def _content(role: Role, part: Part, maker: str) -> Iterator[dict[str, Any]]:
    match part:
        case TextPart() if role != "tool":
            yield {"type": "text", "text": part.text}
        case RefusalPart() if role == "assistant":
            yield (
                {"type": "refusal", "refusal": part.text} if maker in _REFUSING else {"type": "text", "text": part.text}
            )
        case FilePart() if role == "user":
            yield _file(part, maker)
        case RawPart(provider=provider) if provider in ("openai", maker) and "item" not in part.data:
            yield dict(part.data)
        case CachePoint():
            pass  # servers of this protocol cache prompts automatically
        case RawPart() if role == "assistant":
            pass  # it belongs to another provider
        case _:
            raise unsupported_part("OpenAI's chat protocol", part, role)


def result_text(part: ToolResultPart, text: str) -> str:
    """Return the text of a tool's result. A prefix states the outcome, because the protocol has no field for it."""
    return text if text.lower().startswith(part.outcome) else _PREFIXES[part.outcome] + text


def _result(part: ToolResultPart, maker: str) -> str | list[dict[str, Any]]:
    if all(isinstance(item, (TextPart, CachePoint)) for item in part.content):
        return result_text(part, part.text)
    if maker == "openai":
        raise MisuseError(
            "OpenAI's chat protocol takes only text as the result of a tool. Send the file in a user message instead."
        )
    told = [item for content in part.content for item in _content("user", content, maker)]
    prefix = result_text(part, "")
    return [{"type": "text", "text": prefix.strip()}, *told] if prefix else told


def _reasoning(part: ReasoningPart, content: list[dict[str, Any]], fields: dict[str, Any], maker: str) -> None:
    """Write reasoning where its own server wants it back."""
    if part.provider not in (None, maker) or maker == "openai":  # OpenAI's chat has no place for it
        return
    if maker == MISTRAL:
        content += [thinking(part)] if part.text or part.signature else []
    elif part.extra == SUMMARY:
        signature = {"signature": part.signature} if part.signature else {}
        summary = {"type": "summary_text", "text": part.text, **signature}
        content.append({"type": "reasoning", "summary": [summary]})
    elif part.text and part.extra != IN_DETAILS:
        # A server that sends reasoning_content expects it back with tool calls.
        fields["reasoning_content"] = fields.get("reasoning_content", "") + part.text


def _echo(part: FilePart, fields: dict[str, Any], maker: str) -> None:
    """Write a file that the model made into the fields it arrived in: an image as it is, audio by its id."""
    if part.media_type.startswith("audio/") and part.file_id:
        fields["audio"] = {"id": part.file_id}
    elif part.media_type.startswith("image/") and maker != "openai":
        fields.setdefault("images", []).append(_file(part, maker))
    else:
        raise MisuseError(
            f"OpenAI takes no {part.media_type} file in an assistant message. Send the file in a user message instead."
        )


def _file(part: FilePart, maker: str) -> dict[str, Any]:
    kind, _, subtype = part.media_type.partition("/")
    check_readable(maker, part, maker)
    if part.file_id is not None:
        return {"type": "file", "file": {"file_id": part.file_id}}
    location = location_of(part)
    if kind == "image":
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": location, **detail}}
    if part.data is None and (maker == "openai" or kind == "audio"):
        raise MisuseError(f"OpenAI reads only images from a url. Pass the data of this {part.media_type} file.")
    if kind == "audio":
        form = _AUDIO_FORMATS.get(subtype, subtype)
        if maker == "openai" and form not in ("wav", "mp3"):
            raise MisuseError(f"OpenAI takes audio as WAV or MP3, not {part.media_type}. Convert it first.")
        return {"type": "input_audio", "input_audio": {"data": base64_of(part.data or b""), "format": form}}
    if kind == "video":
        raise MisuseError(
            "OpenAI's chat protocol has no place for a video. If the server has one, pass it in the server's own form, "
            "as in RawPart('openai', {'type': 'video_url', …})."
        )
    return {"type": "file", "file": {"filename": part.name or f"file.{subtype}", "file_data": location}}


def chat_tool(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition of a tool."""
    if not isinstance(tool, ToolSpec):
        if "input_schema" in tool or "functionDeclarations" in tool:
            raise foreign_tool(tool)
        return tool
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def chat_choice(choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """Return the tool choice."""
    if choice is None or not isinstance(choice, str) or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def chat_format(form: str | ResponseSchema | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the response format."""
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
