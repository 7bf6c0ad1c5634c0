"""The writer of the settings in requests for Amazon Bedrock's Converse API: tools, response format and effort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..misuse import MisuseError
from ..values.parameters import Parameters
from ..values.tools import ResponseSchema, ToolSpec
from ._refusals import check_effort, check_parallel, foreign_tool

__all__ = ["output_config", "tool_config"]

_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def tool_config(parameters: Parameters, *, calls: bool) -> dict[str, Any] | None:
    """Return the tools and the tool choice. `calls` states whether the conversation contains tool calls.

    Raises:
        MisuseError: the protocol has no such tool or tool choice.
    """
    choice, tools = parameters.tool_choice, parameters.tools
    check_parallel("Bedrock's Converse API", parameters)
    if choice == "none" and not calls:
        return None
    if not tools:
        if calls:
            raise MisuseError("Bedrock requires the tools of a conversation with tool calls. Pass tools=….")
        return None
    if choice == "none":
        raise MisuseError(
            "Bedrock's Converse API has no tool_choice 'none' for a conversation with tool calls. Pass 'auto'."
        )
    config: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if isinstance(choice, str):
        mode: dict[str, dict[str, str]] = {"auto": {}} if choice == "auto" else {"any": {}}
        config["toolChoice"] = mode if choice in ("auto", "required") else {"tool": {"name": choice}}
    elif choice is not None:
        config["toolChoice"] = choice
    return config


def _tool(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tool, ToolSpec):
        if not tool.keys() & {"toolSpec", "systemTool", "cachePoint"}:
            raise foreign_tool(tool)
        return tool
    definition: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": tool.parameters}}
    if tool.description:
        definition["description"] = tool.description
    if tool.strict is not None:
        definition["strict"] = tool.strict
    return {"toolSpec": definition}


def output_config(parameters: Parameters) -> dict[str, Any] | None:
    """Return the response format and the effort.

    Raises:
        MisuseError: the protocol does not have this response format or effort.
    """
    config: dict[str, Any] = {}
    form, effort = parameters.response_format, parameters.effort
    if form == "json":
        raise MisuseError("Bedrock's models answer in JSON by a schema only. Pass a ResponseSchema as response_format.")
    if isinstance(form, ResponseSchema):
        described = {"name": form.name, "description": form.description}
        schema = {"schema": msgspec.json.encode(form.schema).decode(), **{k: v for k, v in described.items() if v}}
        config["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    elif form is not None:
        config["textFormat"] = form
    if effort is not None and effort != "none":
        check_effort("Bedrock", effort, _EFFORTS)
        config["effort"] = effort
    return config or None
