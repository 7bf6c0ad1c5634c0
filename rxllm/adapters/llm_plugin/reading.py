"""Messages, options and tools of `llm` as those of rxllm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from ...misuse import MisuseError
from ...values.disk import type_of_bytes
from ...values.file import file
from ...values.message import Message
from ...values.parts import FilePart, Part, TextPart, ToolCallPart, ToolResultPart
from ...values.tools import ResponseSchema, ToolSpec
from .._echo import ECHO, restored
from ..llm.arguments import text_of_arguments

__all__ = ["messages_of", "settings_of"]


def settings_of(prompt: Any, *, stream: bool) -> dict[str, Any]:
    """Return the parameters of a request.

    Args:
        prompt: the `llm.Prompt`, with its options, its tools and its schema.
        stream: whether the answer may come in pieces.
    """
    settings: dict[str, Any] = {name: value for name, value in prompt.options if value is not None}
    if prompt.schema:
        settings["response_format"] = ResponseSchema(prompt.schema)
    if prompt.tools:
        settings["tools"] = [_tool(tool, prompt.model) for tool in prompt.tools]
    if not stream:
        settings["stream"] = False
    return settings


def _tool(tool: Any, model: Any) -> Any:
    if isinstance(tool, import_module("llm").ServerSideTool):
        return tool.tool_spec(model)
    schema = {"parameters": tool.input_schema} if tool.input_schema else {}
    return ToolSpec(tool.name, tool.description or "", **schema)


def messages_of(history: Iterable[Any]) -> list[Message]:
    """Return the messages of a conversation, without the data that only another plugin's vendor understands.

    Raises:
        MisuseError: an attachment has no known media type.
    """
    ids = _CallIds()
    return [_message(message, ids) for message in history]


class _CallIds:
    """The ids of calls. Some vendors have none; then each result belongs to the first open call of its tool."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[tuple[str, str]] = []  # the names and ids of the calls without a result

    def of_call(self, call: Any) -> str:
        """Return the id of a call."""
        self._count += 1
        identity: str = call.tool_call_id or f"call_{self._count}"
        self._open.append((call.name, identity))
        return identity

    def of_result(self, result: Any) -> str:
        """Return the id of the call that a result is of."""
        given: str | None = result.tool_call_id
        found = next((each for each in self._open if given in (None, each[1]) and result.name == each[0]), None)
        if found is not None:
            self._open.remove(found)
        return given or (found[1] if found else "")


def _message(message: Any, ids: _CallIds) -> Message:
    parts = [*_parts(message, ids)]
    if message.role != "assistant":
        return Message(message.role, parts)
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    calls = [part.id for part in parts if isinstance(part, ToolCallPart)]
    kept = (restored(part.provider_metadata.get(ECHO), text, calls) for part in message.parts if part.provider_metadata)
    return next(filter(None, kept), Message("assistant", parts))


def _parts(message: Any, ids: _CallIds) -> Iterator[Part]:
    module = import_module("llm.parts")
    for part in message.parts:
        match part:
            case module.TextPart():
                if part.text:
                    yield TextPart(part.text)
            case module.AttachmentPart():
                yield _file(part.attachment)
            case module.ToolCallPart(server_executed=False):
                yield ToolCallPart(ids.of_call(part), part.name, text_of_arguments(part.arguments))
            case module.ToolResultPart(server_executed=False):
                content = [TextPart(part.output), *map(_file, part.attachments)]
                yield ToolResultPart(ids.of_result(part), content, "error" if part.exception else "ok", part.name)
            case _:
                pass  # reasoning and the calls of a vendor's own tools; an answer of rxllm has its record


def _file(attachment: Any) -> FilePart:
    if attachment.content:
        kind = attachment.type or type_of_bytes(attachment.content)
        if kind is None:
            raise MisuseError("The media type of an attachment is unknown: pass llm.Attachment(…, type='image/png').")
        return FilePart(kind, attachment.content)
    if attachment.path:
        return file(attachment.path, attachment.type)
    return FilePart(attachment.resolve_type(), url=attachment.url)
