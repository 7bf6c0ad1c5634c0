"""The history that ``@ag-ui/client`` sends.

Source: https://docs.ag-ui.com/concepts/messages: each run gets all messages of the thread. The calls of a round are in
the assistant's message, and each result is a message of its own. ``resume`` has the decisions on the waiting calls,
which are named by the ids of interrupts; `AGUIEvents` takes the signature of the waiting call as the id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..misuse import MisuseError, shown
from ..values.message import Message
from ..values.parts import Approval, Part, Pending, TextPart, ToolCallPart, ToolResultPart
from .gate import Claim, Gate, State, turns_of
from .json_fields import object_of, objects_of, optional_text, signature_in, text_in

__all__ = ["ag_ui_history"]

_FILES = {"image": "image/*", "audio": "audio/*", "video": "video/*", "document": "application/*"}


def ag_ui_history(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], gate: Gate) -> Iterator[Message]:
    """Yield the conversation in the messages of a thread."""
    decisions: dict[object, Mapping[str, Any]] = {
        _text(entry, "interruptId"): entry for entry in objects_of(body.get("resume") or [], "'resume'")
    }
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        role = message.get("role")
        match role:
            case "user":
                yield Message("user", [*_content(message.get("content"), gate)])
            case "assistant":
                results: dict[object, Mapping[str, Any]] = {}
                while position < len(messages) and messages[position].get("role") == "tool":
                    results[_text(messages[position], "toolCallId")] = messages[position]
                    position += 1
                open_decisions = decisions if position == len(messages) else {}
                yield from _answer(message, results, open_decisions, gate)
            case "system" | "developer":
                yield from gate.system_turn(str(message.get("content") or ""))
            case "tool":  # a result without its call
                gate.omitted += 1
            case "reasoning" | "activity":  # no model gets these back
                pass
            case _:
                raise MisuseError(f"The 'role' of a message is unknown: {shown(role)}.")
    if decisions:
        raise MisuseError(
            f"'resume' has the decision {shown(next(iter(decisions)))}, but no call of the last answer waits for it. "
            "Ask the question again."
        )


def _text(fields: Mapping[str, Any], name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str):
        raise MisuseError(f"The {name!r} must be text, not {shown(text)}.")
    return text


def _content(content: object, gate: Gate) -> Iterator[Part]:
    if isinstance(content, str):
        yield TextPart(content)
        return
    for part in objects_of(content, "the 'content' of a message"):
        kind = part.get("type")
        if kind == "text":
            yield TextPart(text_in(part))
            continue
        if not isinstance(kind, str) or kind not in _FILES:
            raise MisuseError(f"A message of a user has texts and files, not a part of the type {shown(kind)}.")
        source = object_of(part.get("source"), "the 'source' of a file")
        media_type = source.get("mimeType") or _FILES[kind]
        value = source.get("value")
        url = f"data:{media_type};base64,{value}" if source.get("type") == "data" else value
        yield gate.file(url if source.get("type") in ("data", "url") else None, media_type)


def _answer(
    message: Mapping[str, Any],
    results: Mapping[object, Mapping[str, Any]],
    decisions: dict[object, Mapping[str, Any]],
    gate: Gate,
) -> Sequence[Message]:
    """Return the message of a round, with the outcomes of its calls and the decisions on them."""
    text = message.get("content")
    parts: list[Part] = [TextPart(text)] if isinstance(text, str) and text else []
    outcomes: list[ToolResultPart | Pending] = []
    decided: list[Approval] = []
    for item in objects_of(message.get("toolCalls") or [], "'toolCalls'"):
        believed = gate.call(_claim(item, results, decisions, gate), last=True)
        if believed is not None:
            parts.append(believed.call)
            outcomes.append(believed.outcome)
            decided += [] if believed.decision is None else [believed.decision]
    return turns_of(parts, outcomes, decided)


def _claim(
    item: Mapping[str, Any],
    results: Mapping[object, Mapping[str, Any]],
    decisions: dict[object, Mapping[str, Any]],
    gate: Gate,
) -> Claim:
    """Return what the client says about a call."""
    call_id, function = item.get("id"), object_of(item.get("function"), "the 'function' of a tool call")
    name, arguments = function.get("name"), function.get("arguments")
    if not (isinstance(call_id, str) and isinstance(name, str) and isinstance(arguments, str)):
        raise MisuseError("A tool call needs an 'id', and its 'function' a 'name' and 'arguments' as text.")
    call = ToolCallPart(call_id, name, arguments)
    signed = signature_in(item.get("metadata"))
    result = results.get(call_id)
    if result is not None:
        metadata = result.get("metadata")
        state: State = "failed" if result.get("error") or _has_failed(metadata) else "result"
        content = "".join(part.text for part in _content(result.get("content"), gate) if isinstance(part, TextPart))
        return Claim(call, state, content, call_signature=signed, result_signature=signature_in(metadata))
    signature = gate.signer.pending(call)
    if (decision := decisions.pop(signature, None)) is None:
        return Claim(call, "open", call_signature=signed)
    options = object_of(decision.get("payload") or {}, "the 'payload' of a decision")
    approved = decision.get("status") == "resolved" and options.get("approved") is True
    note = optional_text(options.get("reason")) or ""
    return Claim(call, "approved" if approved else "refused", note=note, pending_signature=signature)


def _has_failed(metadata: object) -> bool:
    match metadata:
        case {"rxllm": {"failed": True}}:
            return True
        case _:
            return False
