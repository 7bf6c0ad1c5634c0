"""The history that ``useChat`` of Vercel's AI SDK sends.

Source: https://ai-sdk.dev/docs/reference/ai-sdk-core/ui-message: each request has all messages of the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..misuse import MisuseError, shown
from ..values.message import Message
from ..values.parts import Approval, Part, Pending, TextPart, ToolCallPart, ToolResultPart
from .gate import Claim, Gate, State, turns_of
from .json_fields import object_of, objects_of, optional_text, signature_in, text_in
from .large_numbers import same_in_a_browser

__all__ = ["ui_history"]

_SILENT = ("reasoning", "reasoning-file", "source-url", "source-document", "custom", "file")
"""Parts of an answer that no model gets back: reasoning counts only with the vendor's proof, which pages don't have."""

_STATES: Mapping[object, State] = {
    "input-available": "open",
    "approval-requested": "pending",
    "output-available": "result",
    "output-error": "failed",
    "output-denied": "denied",
}


def ui_history(messages: Sequence[Mapping[str, Any]], gate: Gate) -> Iterator[Message]:
    """Yield the conversation in UI messages. An answer is followed by the decisions on its calls."""
    for message in messages:
        yield from _message(message, gate, last=message is messages[-1])


def _message(message: Mapping[str, Any], gate: Gate, *, last: bool) -> Sequence[Message]:
    role, fields = message.get("role"), objects_of(message.get("parts"), "'parts'")
    match role:
        case "user":
            content = [part for each in fields if (part := _user_part(each, gate)) is not None]
            return [Message("user", content)] if content else []
        case "assistant":
            return _answer(fields, gate, last=last)
        case "system":
            return gate.system_turn("".join(text_in(each) for each in fields if each.get("type") == "text"))
        case _:
            raise MisuseError(f"The 'role' of a message must be user, assistant or system, not {shown(role)}.")


def _user_part(part: Mapping[str, Any], gate: Gate) -> Part | None:
    kind = part.get("type")
    if kind == "text":
        return TextPart(text_in(part))
    if kind == "file":
        return gate.file(part.get("url"), part.get("mediaType"), part.get("filename"))
    if isinstance(kind, str) and kind.startswith("data-"):  # the page's own
        return None
    raise MisuseError(f"A message of a user has text and files, not a part of the type {shown(kind)}.")


def _answer(parts: Sequence[Mapping[str, Any]], gate: Gate, *, last: bool) -> Sequence[Message]:
    """Return an answer of an agent. In a page's message, a call and its result are one part."""
    content: list[Part] = []
    outcomes: list[ToolResultPart | Pending] = []  # of the calls of this round: a vendor takes them after all calls
    decisions: list[Approval] = []
    for part in parts:
        kind = part.get("type")
        if kind == "dynamic-tool" or (isinstance(kind, str) and kind.startswith("tool-")):
            believed = gate.call(_claim(part), last=last) if part.get("state") != "input-streaming" else None
            if believed is not None:
                content.append(believed.call)
                outcomes.append(believed.outcome)
                decisions += [] if believed.decision is None else [believed.decision]
            continue
        content += outcomes
        outcomes.clear()
        if kind == "text":
            content.append(TextPart(text_in(part)))
        elif kind != "step-start" and kind not in _SILENT and not str(kind).startswith("data-"):
            raise MisuseError(f"rxllm does not know parts of the type {shown(kind)} in an answer.")
    return turns_of(content, outcomes, decisions)


def _claim(part: Mapping[str, Any]) -> Claim:
    """Return what the client says about a call."""
    kind = str(part.get("type"))
    name = part.get("toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
    call_id, state = part.get("toolCallId"), part.get("state")
    approval = object_of(part.get("approval") or {}, "an approval")
    if not isinstance(call_id, str) or not isinstance(name, str):
        raise MisuseError("A tool call needs a 'toolCallId' and the name of the tool.")
    if state == "approval-responded":
        known: State | None = "approved" if approval.get("approved") is True else "refused"
    else:
        known = _STATES.get(state) if isinstance(state, str) else None
    if known is None:
        raise MisuseError(f"The 'state' of a tool call is unknown: {shown(state)}.")
    preliminary = part.get("preliminary") is True
    return Claim(
        ToolCallPart(call_id, name, _arguments(part)),
        "open" if preliminary else known,
        part.get("errorText") if known == "failed" else part.get("output"),
        str(approval.get("reason") or ""),
        signature_in(part.get("callProviderMetadata")),
        optional_text(approval.get("signature")),
        signature_in(part.get("resultProviderMetadata")),
    )


def _arguments(part: Mapping[str, Any]) -> str:
    """Return the arguments of a call: those that the server sent as text, if the page did no more than round them."""
    text = msgspec.json.encode(part.get("input")).decode()
    match part.get("callProviderMetadata"):
        case {"rxllm": {"arguments": str(arguments)}} if same_in_a_browser(arguments, text):
            return arguments
        case _:
            return text
