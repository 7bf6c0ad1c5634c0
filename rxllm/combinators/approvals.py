"""Approvals of tool calls: the waiting calls of a conversation, and the decision on each call.

An approval counts for a call before it in the conversation with the same id, the same name and the same arguments, that
has no result. It never counts for a later call with its id, because some servers restart the ids in each answer. With a
secret it must also carry the agent's signature of exactly this, which proves that the agent made the call, even if the
conversation comes from a stranger.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from attrs import frozen

from ..exact import exact
from ..misuse import MisuseError
from ..values.message import Message
from ..values.parts import Approval, Pending, ToolCallPart, ToolResultPart

__all__ = ["Decisions", "canonical", "decisions_of", "has_signature", "pending_of", "same_call", "secret_of"]

_SECRET_LENGTH = 16


@frozen
class Decisions:
    """The decisions on the waiting calls.

    Attributes:
        approvals: the decisions, in the order of their calls.
        undecided: the calls without a decision.
    """

    approvals: tuple[Approval, ...]
    undecided: tuple[ToolCallPart, ...]


def secret_of(secret: str | bytes | None) -> bytes | None:
    """Return a secret as bytes.

    Raises:
        MisuseError: the secret is too short, or neither text nor bytes.
    """
    if secret is None:
        return None
    if not isinstance(cast("object", secret), str | bytes) or len(secret) < _SECRET_LENGTH:
        raise MisuseError(f"A secret must be text or bytes of at least {_SECRET_LENGTH} characters.")
    return secret.encode() if isinstance(secret, str) else secret


def pending_of(call: ToolCallPart, secret: bytes | None) -> Pending:
    """Return a call as one that waits, signed if there is a secret."""
    return Pending(call, None if secret is None else _signature(call, secret))


def decisions_of(messages: Sequence[Message], secret: bytes | None) -> Decisions | None:
    """Return the decisions on the waiting calls; None if no call waits.

    Raises:
        MisuseError: calls wait and no decision came; or a decision is for a call that does not wait, for other
            arguments, or without the right signature.
    """
    given = _approvals_of(messages)
    pending = [part.call for message in messages for part in message.pending]
    if not given and not pending:
        return None
    waiting = _unanswered(messages)
    if not given:
        names = ", ".join(f"{call.name} ({call.id})" for call in pending)
        raise MisuseError(
            f"The conversation ends with calls that wait for an approval: {names}. Add a message with an Approval of "
            "each, as in Message('user', [pending.approve() for pending in answer.pending])."
        )
    for approval in given.values():
        _check(approval, {call.id: call for call in waiting}, secret)
    undecided = tuple(call for call in pending if call.id not in given)
    return Decisions(tuple(given[call.id] for call in waiting if call.id in given), undecided)


def _approvals_of(messages: Sequence[Message]) -> dict[str, Approval]:
    """Return the approvals after the latest call with their id, by this id."""
    approvals: dict[str, Approval] = {}
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, ToolCallPart):
            approvals.pop(part.id, None)
        elif isinstance(part, Approval):
            approvals[part.call.id] = part
    return approvals


def _unanswered(messages: Sequence[Message]) -> list[ToolCallPart]:
    """Return the calls without a result in the last message that has calls."""
    answered: set[str] = set()
    for message in reversed(messages):
        answered |= {part.id for part in message.parts if isinstance(part, ToolResultPart)}
        if message.tool_calls:
            return [call for call in message.tool_calls if call.id not in answered]
    return []


def _check(approval: Approval, waiting: dict[str, ToolCallPart], secret: bytes | None) -> None:
    call, named = waiting.get(approval.call.id), f"The approval of {approval.call.name} ({approval.call.id})"
    if call is None:
        raise MisuseError(
            f"{named} is for no call that waits in the conversation. It may have been decided before; then send the "
            "next message of the user. Otherwise the message with the call is missing."
        )
    if not same_call(call, approval.call):
        raise MisuseError(
            f"{named} is for another tool or for other arguments than those of the call in the conversation, so "
            "nothing was run. Approve the pending call as it is."
        )
    if secret is not None and not has_signature(call, approval.signature, secret):
        raise MisuseError(
            f"{named} has not the signature of this agent, so nothing was run. Send the signature of the pending call "
            "back with the approval."
        )


def has_signature(call: ToolCallPart, signature: str | None, secret: bytes) -> bool:
    """Return whether this is the signature of a pending call. The comparison takes constant time."""
    return hmac.compare_digest(_signature(call, secret).encode(), (signature or "").encode())


def same_call(one: ToolCallPart, other: ToolCallPart) -> bool:
    """Return whether two calls have the same id, name and arguments."""
    return _content(one) == _content(other)


def canonical(text: str) -> Any:
    """Return JSON text as a value that stays equal after a way through a browser, which writes 1.0 as 1.

    Text that is not JSON, or that has no exact form, stays text.
    """
    try:
        return exact(msgspec.json.decode(text))
    except (msgspec.DecodeError, TypeError, RecursionError):
        return text


def _content(call: ToolCallPart) -> bytes:
    """Return the name and the arguments in a canonical form, because a browser may write the same JSON otherwise."""
    return msgspec.json.encode([call.id, call.name, canonical(call.arguments or "{}")], order="deterministic")


def _signature(call: ToolCallPart, secret: bytes) -> str:
    return hmac.new(secret, _content(call), hashlib.sha256).hexdigest()
