"""Messages, settings and tools of Pydantic AI as those of rxllm."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from ...misuse import MisuseError, shown
from ...values.message import Message
from ...values.parts import (
    CachePoint,
    FilePart,
    Outcome,
    Part,
    RawPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ...values.tools import ResponseSchema, ToolSpec
from .._echo import ECHO, restored

__all__ = ["messages_of", "raw_part", "said_in", "settings_of"]

_SAME = (  # settings that rxllm has under the same name
    "max_tokens", "temperature", "top_p", "top_k", "seed", "stop_sequences", "parallel_tool_calls",
)  # fmt: skip
_VENDORS = ("presence_penalty", "frequency_penalty", "logit_bias", "service_tier")  # fields of some vendors
_OUTCOMES: Mapping[str, Outcome] = {
    "success": "ok", "failed": "error", "retried": "error", "denied": "denied", "interrupted": "interrupted",
}  # fmt: skip


def settings_of(settings: Mapping[str, Any], parameters: Any) -> dict[str, Any]:
    """Return the parameters of a request.

    Args:
        settings: the `ModelSettings`.
        parameters: the `ModelRequestParameters`.
    """
    found: dict[str, Any] = {name: settings[name] for name in _SAME if settings.get(name) is not None}
    extra = {name: settings[name] for name in _VENDORS if settings.get(name) is not None}
    if isinstance(body := settings.get("extra_body"), Mapping):
        extra |= body
    if extra:
        found["extra"] = extra
    if isinstance(parameters.thinking, str):
        found["effort"] = parameters.thinking
    elif parameters.thinking is False:
        found["effort"] = "none"
    if parameters.output_mode == "native" and (output := parameters.output_object) is not None:
        names = {"name": output.name} if output.name else {}
        found["response_format"] = ResponseSchema(
            output.json_schema, strict=output.strict, description=output.description, **names
        )
    tools, choice = _tools_of(settings.get("tool_choice"), parameters)
    if tools:
        found["tools"] = [
            ToolSpec(tool.name, tool.description or "", tool.parameters_json_schema, tool.strict) for tool in tools
        ]
        if choice is not None:
            found["tool_choice"] = choice
    if parameters.native_tools:
        raise MisuseError(
            "A model of rxllm takes no native tools of Pydantic AI. Give the model a function, or pass the tool in the "
            "vendor's own form: rxllm.OpenAI(…, tools=[{'type': 'web_search'}])."
        )
    return found


def _tools_of(choice: Any, parameters: Any) -> tuple[list[Any], str | None]:
    """Return the tools that the model may call, and which of them it must call: ``required``, ``none`` or None."""
    tools: dict[str, Any] = parameters.declared_tool_defs
    output = [tool.name for tool in parameters.output_tools]
    must_call = "required" if not (parameters.allow_text_output or parameters.allow_image_output) else None
    if choice in (None, "auto"):
        return [*tools.values()], must_call
    if choice == "required":
        return [*tools.values()], "required"
    if choice in ("none", []):
        return ([tools[name] for name in output], must_call) if output else ([*tools.values()], "none")
    names: set[str] = {*choice} if isinstance(choice, list) else {*choice.function_tools, *output}
    chosen = [tool for name, tool in tools.items() if name in names]
    return chosen, "required" if isinstance(choice, list) else must_call


def messages_of(history: Iterable[Any], instructions: Iterable[Any]) -> list[Message]:
    """Return the messages of a history, with the instructions behind the first system prompts.

    Raises:
        MisuseError: a part has no counterpart.
    """
    module = import_module("pydantic_ai.messages")
    messages: list[Message] = []
    for message in history:
        messages += _of_response(message) if isinstance(message, module.ModelResponse) else _of_request(message)
    first = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
    messages[first:first] = [Message("system", part.content) for part in instructions]
    return messages


def _of_request(request: Any) -> Iterator[Message]:
    for part in request.parts:
        match part.part_kind:
            case "system-prompt":
                yield Message("system", part.content)
            case "user-prompt":
                content = [part.content] if isinstance(part.content, str) else part.content
                yield Message("user", [*map(_content, content)])
            case "tool-return":
                outcome = _OUTCOMES[part.outcome]
                yield Message("tool", [ToolResultPart(part.tool_call_id, _result(part), outcome, part.tool_name)])
            case "retry-prompt" if part.tool_name:
                response = part.model_response()
                yield Message("tool", [ToolResultPart(part.tool_call_id, response, "error", part.tool_name)])
            case "retry-prompt" | "retry-feedback":
                yield Message("user", part.model_response())
            case kind:
                raise MisuseError(f"rxllm knows no part of the kind {kind!r} in a request of Pydantic AI.")


def _result(part: Any) -> list[Part]:
    """Return the content of a tool's result: its text, and its files."""
    files = [*map(_content, part.files)]
    text = part.model_response_str()
    return [TextPart(text), *files] if text or not files else files


def _content(item: Any) -> Part:
    if isinstance(item, str):
        return TextPart(item)
    match item.kind:
        case "text-content" | "structured-content":
            return TextPart(item.content)
        case "image-url" | "audio-url" | "document-url" | "video-url":
            return FilePart(item.media_type, url=item.url)
        case "binary":
            return FilePart(item.media_type, item.data, name=item.identifier)
        case "uploaded-file":
            return FilePart(item.media_type, file_id=item.file_id, provider=item.provider_name)
        case "cache-point":
            return CachePoint(item.ttl)
        case kind:
            raise MisuseError(f"rxllm knows no content of the kind {kind!r}, as in {shown(item)}.")


def said_in(response: Any) -> tuple[str, list[str]]:
    """Return the text of a response, and the ids of its calls."""
    text = "".join(part.content for part in response.parts if part.part_kind == "text")
    return text, [part.tool_call_id for part in response.parts if part.part_kind == "tool-call"]


def _of_response(response: Any) -> Iterator[Message]:
    details: dict[str, Any] = response.provider_details or {}
    kept = restored(details.get(ECHO), *said_in(response))
    yield kept or Message(
        "assistant", [*filter(None, (_of_answer(part, response.provider_name) for part in response.parts))]
    )


def _of_answer(part: Any, provider: str | None) -> Part | None:
    """Return a part of an answer; None for a part that only another adapter of Pydantic AI can send back."""
    match part.part_kind:
        case "text":
            return TextPart(part.content)
        case "thinking":
            return ReasoningPart(part.content, part.signature, id=part.id, provider=part.provider_name or provider)
        case "tool-call":
            return ToolCallPart(part.tool_call_id, part.tool_name, part.args_as_json_str())
        case "file":
            return FilePart(part.content.media_type, part.content.data)
        case _:
            return None


def raw_part(response: Any) -> RawPart | None:
    """Return a whole response as a part for `from_pydantic_ai`; None if its texts and its calls are all it has."""
    module = import_module("pydantic_ai.messages")
    if all(_is_plain(part) for part in response.parts):
        return None
    dumped = module.ModelMessagesTypeAdapter.dump_json([response])
    return RawPart("pydantic_ai", {"response": json.loads(dumped)[0]})


def _is_plain(part: Any) -> bool:
    return part.part_kind in ("text", "tool-call") and not (part.id or part.provider_details)
