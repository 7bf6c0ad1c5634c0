"""Requests of rxllm as the keywords of a call of LangChain's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.base import RunnableBindingBase

from ...misuse import MisuseError
from ...values.request import Request
from ...values.tools import ToolSpec

__all__ = ["bound_model", "keywords_of"]

# The parameters that the packages of all vendors take under one name. A vendor that lacks one refuses it itself.
_COMMON = ("model", "temperature", "top_p", "top_k", "max_tokens", "seed")


def bound_model(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the model within a binding, such as that of ``bind_tools`` or ``with_retry``; else the runnable itself."""
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    return runnable


def keywords_of(request: Request, model: Runnable[Any, Any]) -> dict[str, Any]:
    """Return the keywords of a call, for the parameters and the tools of a request.

    Raises:
        MisuseError: LangChain has no common word for a parameter, or the model takes no tools.
    """
    for name in ("effort", "response_format"):
        if getattr(request, name) is not None:
            remedy = "Ask for a shape, or pass" if name == "response_format" else "Pass"
            raise MisuseError(
                f"The models of LangChain have no common word for {name}. {remedy} the vendor's own word in extra, as "
                "in extra={'reasoning_effort': 'low'}."
            )
    keywords = {name: value for name in _COMMON if (value := getattr(request, name)) is not None}
    if request.stop_sequences:
        keywords["stop"] = list(request.stop_sequences)
    keywords.update(request.extra)
    if keywords.keys() - {"stop"} and not hasattr(model, "_llm_type"):
        raise MisuseError(
            f"A chain of LangChain passes no parameters on to its models, so {', '.join(sorted(keywords))} would have "
            "no effect. Bind them to the model in the chain, or pass the model itself to from_langchain."
        )
    if request.tools and request.tool_choice != "none":
        keywords.update(_tool_keywords(request, model))
    if request.stream is not False and _streams_without_usage(model):
        keywords.setdefault("stream_usage", True)
    return keywords


def _streams_without_usage(model: Any) -> bool:
    """Return whether a model of langchain-openai streams, and asks for the usage only if it is told."""
    if getattr(model, "stream_usage", False) is not None or getattr(model, "disable_streaming", False):
        return False
    return not ("streaming" in model.model_fields_set and model.streaming is False)


def _tool_keywords(request: Request, model: Runnable[Any, Any]) -> Mapping[str, Any]:
    if not isinstance(model, BaseChatModel):
        raise MisuseError(f"{type(model).__name__} of LangChain takes no tools. Pass the chat model to from_langchain.")
    tools = [_definition(tool) if isinstance(tool, ToolSpec) else dict(tool) for tool in request.tools or ()]
    choice = "any" if request.tool_choice == "required" else request.tool_choice
    words: dict[str, Any] = {"tool_choice": choice, "parallel_tool_calls": request.parallel_tool_calls}
    chosen = {name: value for name, value in words.items() if value is not None}
    try:
        bound = model.bind_tools(cast("Any", tools), **chosen)
    except NotImplementedError:
        raise MisuseError(f"{type(model).__name__} of LangChain takes no tools.") from None
    return cast("RunnableBinding[Any, Any]", bound).kwargs


def _definition(tool: ToolSpec) -> dict[str, Any]:
    """Return the definition of a tool in the form that every package of LangChain reads."""
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
