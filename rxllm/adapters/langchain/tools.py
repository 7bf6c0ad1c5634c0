"""Tools and tool choices of LangChain as rxllm's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from langchain_core.utils.function_calling import convert_to_openai_tool

from ...misuse import is_mapping
from ...values.tools import ToolSpec

__all__ = ["choice_of", "tools_of"]


def tools_of(tools: Iterable[object], strict: bool | None = None) -> list[ToolSpec | Mapping[str, Any]]:
    """Return the definitions of tools. `strict` is whether the arguments must fit exactly, None for no statement."""
    return [_tool_of(tool, strict) for tool in tools]


def _tool_of(tool: object, strict: bool | None) -> ToolSpec | Mapping[str, Any]:
    spec: object = tool if isinstance(tool, ToolSpec) else getattr(tool, "spec", None)
    if isinstance(spec, ToolSpec):
        return spec if strict is None else attrs.evolve(spec, strict=strict)
    if is_mapping(tool) and not _is_schema(tool):
        return tool  # in the form of a vendor
    return convert_to_openai_tool(tool, strict=strict)  # type: ignore[arg-type]


def _is_schema(tool: Mapping[str, Any]) -> bool:
    """Return whether a dict is a JSON schema, whose title is the name of the tool."""
    return "title" in tool and not tool.keys() & {"name", "function"}


def choice_of(choice: object) -> Any:
    """Return a tool choice in rxllm's words: LangChain also says True, for any of the tools."""
    return {True: "required", False: None}.get(choice) if isinstance(choice, bool) else choice
