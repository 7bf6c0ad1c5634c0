"""Adapts a request to a server that speaks OpenAI's protocol, by the server's row in `compatible.SERVERS`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from ..misuse import MisuseError
from ..values.message import Message
from ..values.parts import FilePart, ToolResultPart
from ..values.request import Request
from ..values.tools import ResponseSchema, ToolSpec
from ._attachments import files_of
from ._documents import object_of
from ._ids import valid_id
from ._mistral_turns import MAKER as MISTRAL
from ._mistral_turns import mistral_turns
from ._openai_turns import plain_content
from ._refusals import tools_and_format
from .compatible import OPENAI, Server

__all__ = ["check_support", "effort_fields", "fit_messages", "limit_field", "offers_tools", "tool_choice_for"]


_NOT_IN_NAMES = r"[\s<|\\/>]+"  # OpenAI rejects the name of an author with these characters


def check_support(server: Server, request: Request, model: str) -> None:
    """Check that the server has every feature that the request needs.

    Raises:
        MisuseError: the server or the model lacks a feature.
    """
    if request.stop_sequences and server.without_stop and re.match(server.without_stop, model):
        raise MisuseError(f"{model} has no stop sequences. Leave them out, or cut the answer with rxllm.stop_at.")
    if server.without_both and re.match(server.without_both, model) and _needs("tools_with_format", request):
        raise tools_and_format(model)
    if server.stops and len(request.stop_sequences or ()) > server.stops:
        raise MisuseError(
            f"{server.name} takes {server.stops} stop sequence{'s' * (server.stops > 1)}, not "
            f"{len(request.stop_sequences or ())}. Leave some out, or cut the answer with rxllm.stop_at."
        )
    if request.effort is not None and server.efforts and request.effort not in server.efforts:
        raise MisuseError(f"{server.name} knows the efforts {', '.join(server.efforts)}, not {request.effort!r}.")
    for lack in server.lacks:
        if lack == "top_k" and server is OPENAI and request.top_k is not None:
            raise MisuseError("OpenAI's models have no top_k. Use top_p or temperature.")
        if _needs(lack, request) and not (lack == "named" and _is_only_tool(server, request)):
            feature = _FEATURES.get(lack, lack)
            raise MisuseError(f"{server.name} does not support {feature}. Leave it out, or use another provider.")


_FEATURES = {
    "json_schema": "a JSON schema for answers (response_format='json' works)",
    "required": "the tool_choice 'required'",
    "named": "a tool_choice that forces a certain tool",
    "strict": "strict tools",
    "mixed_strict": "strict tools together with others (the same strict=… for all works)",
    "json": "response_format='json' (a JSON schema works)",
    "tools_with_format": "tools together with a response_format",
    "forced_while_thinking": "a tool_choice that forces a call while the model thinks (effort='none' works)",
    "files": "files in a conversation",
    "audio": "sound in a conversation",
    "images": "images in a conversation",
}


def _needs(lack: str, request: Request) -> bool:
    if lack in ("models", "batches"):
        return False
    choice, form = request.tool_choice, request.response_format
    is_forced = choice not in (None, "auto", "none")
    checks: dict[str, bool] = {
        "tool_choice": is_forced,
        "required": choice == "required",
        "named": is_forced and choice != "required",
        "strict": any(isinstance(tool, ToolSpec) and tool.strict for tool in request.tools or ()),
        "mixed_strict": len({*map(_is_strict, request.tools or ())}) > 1,
        "json": form == "json",
        "json_schema": isinstance(form, ResponseSchema),
        "tools_with_format": bool(request.tools) and form not in (None, {"type": "text"}),
        "forced_while_thinking": is_forced and request.effort != "none" and not _is_off(request.extra.get("thinking")),
    }
    if lack in checks:
        return checks[lack]
    if lack in ("files", "audio", "images"):
        messages = () if isinstance(request.prompt, str) else request.prompt
        return any(_kind(file) == lack for message in messages for file in _files(message))
    return getattr(request, lack) is not None


def _is_strict(tool: ToolSpec | Mapping[str, Any]) -> bool:
    return bool(tool.strict if isinstance(tool, ToolSpec) else object_of(tool.get("function")).get("strict"))


def _files(message: Message) -> Iterator[FilePart]:
    """Return the files of the user and those in the results of tools."""
    return files_of(part for part in message.parts if message.role == "user" or isinstance(part, ToolResultPart))


def _is_only_tool(server: Server, request: Request) -> bool:
    """Return whether to force any call is to force the call of the named tool."""
    return "required" not in server.lacks and len(request.tools or ()) == 1


def _is_off(thinking: object) -> bool:
    return isinstance(thinking, Mapping) and cast("Mapping[str, Any]", thinking).get("type") == "disabled"


def _kind(part: FilePart) -> str:
    kind = part.media_type.partition("/")[0]
    return {"audio": "audio", "image": "images"}.get(kind, "files")


def fit_messages(server: Server, turns: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages of a conversation in the form that the server accepts."""
    fit = [_fit(server, turn) for turn in turns]
    if server.maker == MISTRAL:
        return mistral_turns(fit)
    return _alternating(fit) if server.alternates else fit


def _alternating(turns: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with those of one role in a row as one, except for calls and results of tools."""
    alternating: list[dict[str, Any]] = []
    for turn in turns:
        last = alternating[-1] if alternating else turn
        has_calls = not (last.keys() | turn.keys()).isdisjoint(("tool_calls", "tool_call_id"))
        if last is turn or has_calls or last["role"] != turn["role"]:
            alternating.append(turn)
        else:
            items = [*_items(last.get("content")), *_items(turn.get("content"))]
            alternating[-1] = {**last, "content": plain_content(turn["role"], items)}
    return alternating


def _items(content: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else [*(content or ())]


def _fit(server: Server, turn: Mapping[str, Any]) -> dict[str, Any]:
    fit = dict(turn)
    if fit["role"] == "system":
        fit["role"] = server.system_role
    if fit.get("content", "") is None and not server.nulls:
        del fit["content"]
    if not server.names and fit["role"] != "tool":
        fit.pop("name", None)
    if "name" in fit:
        fit["name"] = re.sub(_NOT_IN_NAMES, "_", fit["name"])
    if fit["role"] == "assistant" and server.no_reasoning is not None:
        fit.setdefault("reasoning_content", server.no_reasoning)
    if "reasoning_content" in fit:
        fit[server.reasoning] = fit.pop("reasoning_content")
    if server.data_uris and isinstance(fit.get("content"), list):
        fit["content"] = [_with_uri(item) for item in fit["content"]]
    if server.ids and "tool_calls" in fit:
        fit["tool_calls"] = [{**call, "id": valid_id(call["id"], server.ids)} for call in fit["tool_calls"]]
    if server.ids and "tool_call_id" in fit:
        fit["tool_call_id"] = valid_id(fit["tool_call_id"], server.ids)
    return fit


def _with_uri(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type") != "input_audio":
        return item
    sound = item["input_audio"]
    return {**item, "input_audio": {**sound, "data": f"data:;base64,{sound['data']}"}}


def limit_field(server: Server, model: str) -> str:
    """Return the name of the field for the token limit. Mistral's models on Azure accept only the older field."""
    is_other = server.maker.startswith("azure.") and re.match("(?i)(mistral|ministral|codestral)", model)
    return "max_tokens" if is_other else server.limit


def tool_choice_for(server: Server, choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """Return the tool choice in the server's word; None if the server has no such field."""
    if "tool_choice" in server.lacks:
        return None
    # Of a server that forces no certain tool, `check_support` has let pass only a request with one tool.
    is_any = choice == "required" or (isinstance(choice, Mapping) and "named" in server.lacks)
    return server.required if is_any else choice


def offers_tools(server: Server, request: Request) -> bool:
    """Return whether the request offers its tools. For a server without a tool choice, "none" means to offer none."""
    return request.tools is not None and not ("tool_choice" in server.lacks and request.tool_choice == "none")


def effort_fields(server: Server, effort: str | None) -> dict[str, Any]:
    """Return the fields for an effort."""
    if effort is None:
        return {}
    if server.effort == "thinking" and effort == "none":
        return {"thinking": {"type": "disabled"}}
    if server.effort == "enable_thinking" and effort == "none":
        return {"enable_thinking": False}
    return {"reasoning": {"effort": effort}} if server.effort == "reasoning" else {"reasoning_effort": effort}
