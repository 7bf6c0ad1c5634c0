"""The body of a chat completion, as OpenAI's clients and batch files write it: its parameters and its messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..misuse import MisuseError, is_mapping, shown

__all__ = ["CHAT_PARAMETERS", "message_in", "parameters_in"]

CHAT_PARAMETERS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "seed": "seed",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
    "reasoning_effort": "effort",
    "response_format": "response_format",
}
"""rxllm's names of the parameters in a body."""


def parameters_in(body: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters in a body. `names` has rxllm's name of each field.

    Raises:
        MisuseError: two fields give one parameter different values.
    """
    parameters: dict[str, Any] = {}
    for field, name in names.items():
        value = body.get(field)
        if value is None:
            continue
        if parameters.setdefault(name, value) != value:
            fields = " and ".join(f"{each} {shown(body[each])}" for each in names if names[each] == name)
            raise MisuseError(f"The body has two values for one parameter: {fields}. Keep one of them.")
    if isinstance(tools := parameters.get("tools"), list):
        parameters["tools"] = [_tool_in(tool) for tool in cast("list[object]", tools)]
    if parameters.get("response_format") == {"type": "text"}:
        del parameters["response_format"]
    return parameters


def _tool_in(tool: object) -> object:
    """Return a tool of a body, in which a function may leave its fields out.

    Source: https://platform.openai.com/docs/api-reference/chat/create: a function without parameters has no arguments.
    """
    if not is_mapping(tool) or tool.get("type") != "function":
        return tool
    function = tool.get("function", tool)  # /v1/responses has no object around it
    if not is_mapping(function):
        return tool
    fields = {name: value for name, value in function.items() if name == "name" or _asks(name, value)}
    if not fields.keys() & {"parameters", "input_schema", "schema"}:
        fields["parameters"] = {"type": "object", "properties": {}}
    return fields if function is tool else {**tool, "function": fields}


def _asks(name: str, value: object) -> bool:
    """Return whether a field of a function asks for more than its absence does."""
    return value is not None and not (name == "defer_loading" and value is False)


def message_in(item: object) -> Mapping[str, Any]:
    """Return a message of a body. The newer role ``developer`` is what other vendors call ``system``.

    Raises:
        MisuseError: the item is not an object.
    """
    if not is_mapping(item):
        raise MisuseError(f"Each of the 'messages' must be an object, not {shown(item)}.")
    return {**item, "role": "system"} if item.get("role") == "developer" else item
