"""Parameters that a vendor or a model is known to refuse. rxllm says so before it sends them.

Sources: https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-7 and
https://platform.claude.com/docs/en/about-claude/models/migration-guide (sampling),
https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5 (models that always think),
https://docs.claude.com/en/docs/build-with-claude/extended-thinking (feature compatibility),
https://platform.claude.com/docs/en/build-with-claude/effort (models with an effort),
https://platform.claude.com/docs/en/build-with-claude/prompt-caching (number of marks), and
https://platform.openai.com/docs/guides/latest-model (parameters of models that reason). A model that is not named here
gets what the request asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import attrs

from ..misuse import MisuseError
from ..values.request import Request
from ..values.tools import ToolSpec

__all__ = ["check_claude", "check_marks", "check_openai", "check_tools", "without_blanks"]

_CLAUDE_WITHOUT_SAMPLING = r"claude-(opus-4-[7-9]|(opus|sonnet|fable|mythos)-5)\b"
_CLAUDE_ALWAYS_THINKING = r"claude-(opus-5-5|fable-5-1)\b"
_CLAUDE_WITH_ONE_OF_BOTH = r"claude-(opus-4-[1-6]|sonnet-4-[5-9]|haiku-4-5)\b"
_CLAUDE_WITHOUT_EFFORT = r"claude-([23]\b|haiku-4-5\b|sonnet-4[-@](0|5|2\d{7})\b|opus-4[-@](0|1|2\d{7})\b)"
_MARKS = 4
_ALWAYS_REASONING = r"(ft:)?(o[134](-|$)|gpt-5(-(?!chat)|$))"
_REASONING_ON_REQUEST = r"(ft:)?gpt-5\.\d(-(?!chat)|$)"


def without_blanks(request: Request) -> Request:
    """Return the request without empty lists, and without what vendors accept only beside tools."""
    blank = [name for name in ("tools", "stop_sequences") if getattr(request, name) == ()]
    if not request.tools:
        blank += ["parallel_tool_calls"] if request.parallel_tool_calls is not None else []
        blank += ["tool_choice"] if request.tool_choice in ("auto", "none") else []
    changes: dict[str, Any] = dict.fromkeys(blank)
    return attrs.evolve(request, **changes) if changes else request


def check_tools(request: Request, vendor: str, names: str) -> None:
    """Check the names of the tools, and that the tool choice fits them.

    Args:
        request: the request.
        vendor: the name of the provider for error messages.
        names: a regular expression for the names that the vendor accepts; empty if this is unknown.

    Raises:
        MisuseError: the vendor would refuse the tools or the tool choice.
    """
    tools = request.tools or ()
    specs = [tool for tool in tools if isinstance(tool, ToolSpec)]
    for tool in specs:
        if names and not re.fullmatch(names, tool.name):
            raise MisuseError(
                f"{vendor} does not accept {tool.name!r} as the name of a tool. Use letters, digits, _ and -, at most "
                "64 of them."
            )
    choice = request.tool_choice
    if not isinstance(choice, str) or choice in ("auto", "none"):
        return
    if not tools:
        raise MisuseError(f"tool_choice={choice!r} forces a call, but the request has no tools. Pass tools=[…].")
    if choice != "required" and len(specs) == len(tools) and choice not in [tool.name for tool in specs]:
        raise MisuseError(f"tool_choice names the tool {choice!r}, but the request has no such tool.")


def check_claude(request: Request, model: str) -> None:
    """Check the parameters for a Claude model.

    Raises:
        MisuseError: the model refuses one of them.
    """
    temperature, top_p, top_k = request.temperature, request.top_p, request.top_k
    if temperature is not None and temperature > 1:
        raise MisuseError(f"Anthropic's temperature is a number from 0 to 1, not {temperature}.")
    changed = {"temperature": temperature not in (None, 1), "top_p": top_p not in (None, 1), "top_k": top_k is not None}
    if re.search(_CLAUDE_WITHOUT_SAMPLING, model):
        _refuse(model, [name for name, is_changed in changed.items() if is_changed])
    if temperature is not None and top_p is not None and re.search(_CLAUDE_WITH_ONE_OF_BOTH, model):
        raise MisuseError(f"{model} takes temperature or top_p, not both. Leave one out.")
    if "claude" in model and not all(map(str.strip, request.stop_sequences or ())):
        raise MisuseError(
            "Claude does not take white space alone as a stop sequence. Leave it out, or cut the answer with "
            "rxllm.stop_at."
        )
    if request.effort not in (None, "none") and re.search(_CLAUDE_WITHOUT_EFFORT, model):
        raise MisuseError(
            f"{model} has no effort. Leave it out, or let the model think with a budget: extra={{'thinking': {{…}}}}."
        )
    always = bool(re.search(_CLAUDE_ALWAYS_THINKING, model))
    if always and request.effort == "none":
        raise MisuseError(f"{model} always thinks, so it has no effort 'none'. Pass effort='low'.")
    if always and request.tool_choice not in (None, "auto", "none"):
        raise MisuseError(f"{model} always thinks, so it cannot be forced to call a tool. Use tool_choice='auto'.")
    thinking = request.extra.get("thinking")
    if isinstance(thinking, Mapping) and cast("Mapping[str, Any]", thinking).get("type") in ("enabled", "adaptive"):
        _refuse("A Claude model that thinks", [name for name in ("temperature", "top_k") if changed[name]])
        if request.tool_choice not in (None, "auto", "none"):
            raise MisuseError(
                "A Claude model that thinks cannot be forced to call a tool. Use tool_choice='auto', or switch "
                "thinking off."
            )


def check_marks(marks: int, model: str) -> None:
    """Check how many marks for the cache a request to a Claude model has.

    Raises:
        MisuseError: Claude refuses so many.
    """
    if marks > _MARKS and "claude" in model:
        raise MisuseError(
            f"Claude takes at most {_MARKS} CachePoints in a request, not {marks}. Leave some out: each caches all "
            "that comes before it."
        )


def check_openai(request: Request, model: str) -> None:
    """Check the parameters for a model at OpenAI's own host.

    Raises:
        MisuseError: the model refuses one of them.
    """
    reasons = re.match(_ALWAYS_REASONING, model) or (
        re.match(_REASONING_ON_REQUEST, model) and request.effort not in (None, "none")
    )
    if reasons:
        refused = [name for name in ("temperature", "top_p") if getattr(request, name) not in (None, 1)]
        _refuse(model, [*refused, *(["stop_sequences"] if request.stop_sequences else [])])


def _refuse(model: str, names: list[str]) -> None:
    if names:
        them = "it" if len(names) == 1 else "them"
        *first, last = names
        listed = f"{', '.join(first)} and {last}" if first else last
        raise MisuseError(f"{model} does not take {listed}. Leave {them} out.")
