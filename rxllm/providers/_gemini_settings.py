"""The writer of the settings in Gemini's requests: tools, sampling, effort and response format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..misuse import MisuseError
from ..values.parameters import Parameters
from ..values.tools import ResponseSchema, ToolSpec
from ._refusals import check_effort, check_parallel, foreign_tool, foreign_value, tools_and_format

__all__ = ["generation_config", "is_older", "tool_config", "tools_of"]

_LEVELS = ("minimal", "low", "medium", "high")
# Gemini 2.5 takes a number of tokens instead. The numbers are those of Google's OpenAI-compatible endpoint.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}


def is_older(model: str) -> bool:
    """Return whether the model is older than Gemini 3, and takes neither own tools nor a format beside functions."""
    return bool(re.match(r"gemini-[12]\b", model.rpartition("/")[2]))


def tools_of(tools: tuple[ToolSpec | Mapping[str, Any], ...] | None) -> list[Mapping[str, Any]] | None:
    """Return the definitions of tools: one entry with all functions, then Gemini's own tools, unchanged."""
    if not tools:
        return None
    functions: list[dict[str, Any]] = []
    others: list[Mapping[str, Any]] = []
    for tool in tools:
        if isinstance(tool, ToolSpec):
            described = {"description": tool.description} if tool.description else {}
            functions.append({"name": tool.name, **described, "parametersJsonSchema": tool.parameters})
        elif tool.keys() & {"type", "function", "input_schema", "parameters"}:
            raise foreign_tool(tool)
        else:
            others.append(tool)
    return [*([{"functionDeclarations": functions}] if functions else []), *others]


def tool_config(parameters: Parameters, model: str, maker: str) -> dict[str, Any] | None:
    """Return the settings of the tools.

    Google AI Studio takes functions beside Gemini's own tools only if the request asks for the calls of its own tools,
    and then has no mode AUTO. Vertex AI has no such field, and older models have no such combination.
    Source: https://ai.google.dev/gemini-api/docs/generate-content/tool-combination,
    https://github.com/vercel/ai/issues/14655
    """
    tools = parameters.tools or ()
    own = [tool for tool in tools if not isinstance(tool, ToolSpec) and "functionDeclarations" not in tool]
    if not own or len(own) == len(tools) or maker != "gcp.gemini" or is_older(model):
        return _tool_choice(parameters)
    config = _tool_choice(parameters) or {}
    if config.get("functionCallingConfig") == {"mode": "AUTO"}:
        config["functionCallingConfig"] = {"mode": "VALIDATED"}
    return {"includeServerSideToolInvocations": True, **config}


def _tool_choice(parameters: Parameters) -> dict[str, Any] | None:
    """Return the tool choice. With a strict tool, Gemini validates arguments even if the model may call no tool."""
    choice = parameters.tool_choice
    check_parallel("Gemini", parameters)
    if choice is not None and not isinstance(choice, str):
        if "functionCallingConfig" in choice or "retrievalConfig" in choice:
            return dict(choice)
        if "mode" in choice:
            return {"functionCallingConfig": choice}
        raise foreign_value("tool_choice", choice)
    is_strict = any(isinstance(tool, ToolSpec) and tool.strict for tool in parameters.tools or ())
    match choice:
        case None if not is_strict:
            return None
        case None | "auto":
            config: dict[str, Any] = {"mode": "VALIDATED" if is_strict else "AUTO"}
        case "none":
            config = {"mode": "NONE"}
        case "required":
            config = {"mode": "ANY"}
        case name:
            config = {"mode": "ANY", "allowedFunctionNames": [name]}
    return {"functionCallingConfig": config}


def generation_config(parameters: Parameters, model: str) -> dict[str, Any]:
    """Return the sampling parameters, the effort and the response format.

    Raises:
        MisuseError: the model has no such effort, or takes no response format beside tools, or the format belongs to
            another vendor.
    """
    stops, form = parameters.stop_sequences, _form(parameters)
    if parameters.tools and form.get("responseMimeType") == "application/json" and is_older(model):
        raise tools_and_format(model)
    optional = {
        "temperature": parameters.temperature,
        "topP": parameters.top_p,
        "topK": parameters.top_k,
        "maxOutputTokens": parameters.max_tokens,
        "stopSequences": None if stops is None else list(stops),
        "seed": parameters.seed,
        "thinkingConfig": _thinking(parameters.effort, model),
    }
    return {**{name: value for name, value in optional.items() if value is not None}, **form}


def _form(parameters: Parameters) -> Mapping[str, Any]:
    form = parameters.response_format
    if form is None:
        return {}
    if isinstance(form, ResponseSchema):
        return {"responseMimeType": "application/json", "responseJsonSchema": form.schema}
    if isinstance(form, str):
        return {"responseMimeType": "application/json"}
    if not form.keys() <= {"responseMimeType", "responseSchema", "responseJsonSchema"}:
        raise foreign_value("response_format", form)
    return form


def _thinking(effort: str | None, model: str) -> dict[str, Any] | None:
    if effort is None:
        return None
    name = model.rpartition("/")[2]
    check_effort("Gemini", effort, ("none", *_LEVELS))
    if effort == "none":
        if name.startswith(("gemini-3", "gemini-2.5-pro")):
            raise MisuseError(f"{name} always thinks, so it has no effort 'none'. Pass effort='minimal'.")
        return {"thinkingBudget": 0}
    if name.startswith("gemini-2.5"):
        return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}
    return {"thinkingLevel": effort, "includeThoughts": True}
