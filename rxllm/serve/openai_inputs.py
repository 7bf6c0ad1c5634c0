"""The bodies of ``/v1/responses`` as `Request`s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from ..misuse import MisuseError, is_mapping, shown
from ..values.chat_body import parameters_in
from ..values.content import file_of_url
from ..values.message import Message
from ..values.parts import Part, ToolCallPart, ToolResultPart, parts_of
from ..values.request import Request
from .json_fields import object_of
from .openai_bodies import checked

__all__ = ["echoed", "response_request"]

_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_tokens",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
}
_STORED = ("previous_response_id", "conversation", "prompt", "background")
"""Fields that ask for content on the server, which keeps none."""


def response_request(body: Mapping[str, Any]) -> Request:
    """Return the request of a body. Parameters that rxllm does not have are ignored.

    Raises:
        MisuseError: the body requests a feature that rxllm does not have.
    """
    for name in _STORED:
        if body.get(name):
            raise MisuseError(
                f"{name!r} is not supported, because this server keeps no responses. Send the whole conversation as "
                "'input'."
            )
    fields: dict[str, Any] = {name: body.get(name) for name in _PARAMETERS}
    for field, inner, name in (("text", "format", "response_format"), ("reasoning", "effort", "effort")):
        if (options := body.get(field)) is not None:
            fields[name] = object_of(options, repr(field)).get(inner)
    conversation = [*_instructions(body.get("instructions")), *_conversation(body.get("input"))]
    names = {**_PARAMETERS, "response_format": "response_format", "effort": "effort"}
    return checked(Request(prompt=tuple(conversation), **parameters_in(fields, names)))


def echoed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that its response repeats."""
    return {
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "store": False,
        "temperature": body.get("temperature"),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p"),
        "max_output_tokens": body.get("max_output_tokens"),
        "truncation": "disabled",
    }


def _instructions(instructions: object) -> list[Message]:
    if instructions is None:
        return []
    if not isinstance(instructions, str):
        raise MisuseError(f"'instructions' must be text, not {shown(instructions)}.")
    return [Message("system", instructions)]


def _conversation(given: object) -> Iterator[Message]:
    """Yield the messages of ``input``. The items of one answer become one message."""
    if isinstance(given, str):
        yield Message("user", given)
        return
    if not isinstance(given, list) or not given:
        raise MisuseError("'input' must be text, or a list with at least one item.")
    role, parts = "", list[Part]()
    for item in cast("list[object]", given):
        if not is_mapping(item):
            raise MisuseError(f"Each item of 'input' must be an object, not {shown(item)}.")
        now, content = _item(item)
        if not now:
            continue
        if parts and (now != role or now not in ("assistant", "tool")):
            yield Message(cast("Any", role), parts)
            parts = []
        role = now
        parts += content
    if parts:
        yield Message(cast("Any", role), parts)


def _item(item: Mapping[str, Any]) -> tuple[str, Sequence[Part]]:
    """Return the role and the parts of an item. An item without content for a model has no role."""
    match item:
        case {"type": "function_call", "call_id": str(call_id), "name": str(name), "arguments": str(arguments)}:
            return "assistant", [ToolCallPart(call_id, name, arguments)]
        case {"type": "function_call_output", "call_id": str(call_id), "output": output} if _is_content(output):
            return "tool", [ToolResultPart(call_id, output)]
        case {"type": "reasoning"}:  # counts only with the proof of the vendor, which this server does not send
            return "", []
        case {"type": "image_generation_call", "result": str(result)}:
            form = item.get("output_format") or "png"
            return "assistant", [file_of_url(f"data:image/{form};base64,{result}", "image/png")]
        case {"type": "item_reference", "id": str(item_id)}:
            if item_id.startswith("rs_"):  # names a reasoning, which does not count either
                return "", []
            raise MisuseError(
                f"This server keeps no items, so it does not know {shown(item_id)}. Set store: false in the client, "
                "which then sends the items themselves."
            )
        case {"role": str(role), "content": content} if _is_content(content) and item.get("type") in (None, "message"):
            return "system" if role == "developer" else role, parts_of(content)
        case _:
            raise MisuseError(
                "An item of 'input' must be a message, a function_call with its call_id, name and arguments, or a "
                f"function_call_output with its call_id and output, not {shown(item)}."
            )


def _is_content(value: object) -> bool:
    return isinstance(value, str | list)
