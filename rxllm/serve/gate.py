"""`Gate`: what a server believes of the history that a client sends.

A client can write any history: a system prompt, a tool call with its approval, the result of a tool, the path of a
file. Each reader of a client's protocol asks the gate for every part that is not plain text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from attrs import define, frozen

from ..combinators.approvals import same_call
from ..combinators.calling import denied
from ..misuse import MisuseError, shown
from ..values.content import file_of_url
from ..values.message import Message
from ..values.parts import Approval, FilePart, Outcome, Part, Pending, ToolCallPart, ToolResultPart
from ..values.sendable import UNKNOWN_RESULT
from .json_fields import is_web_address
from .signatures import Kind, Signer

__all__ = ["Believed", "Claim", "Gate", "State", "turns_of"]

_logger = logging.getLogger("rxllm.serve")


State = Literal["open", "pending", "approved", "refused", "denied", "result", "failed"]
"""How far a call is, as its client says. ``approved`` and ``refused`` are decisions on a call that waits. The agent has
already seen the refusal of a ``denied`` call."""


@frozen
class Claim:
    """A client's statement about a tool call.

    Attributes:
        call: the call.
        state: how far the call is.
        value: the result, in the form in which the client got it.
        note: the reason of the client's decision.
        call_signature: the signature of the call.
        pending_signature: the signature of the call as one that waits for an approval.
        result_signature: the signature of the result.
    """

    call: ToolCallPart
    state: State
    value: Any = None
    note: str = ""
    call_signature: str | None = None
    pending_signature: str | None = None
    result_signature: str | None = None


@frozen
class Believed:
    """The facts of a call: the call, its result or that it waits, and the client's decision on it."""

    call: ToolCallPart
    outcome: ToolResultPart | Pending
    decision: Approval | None = None


@define
class Gate:
    """Decides what counts of one client's history.

    Attributes:
        signer: checks the signatures of calls and results.
        held: the pending calls that the server itself holds, by id. None if it holds none and trusts signatures.
        tools: the names of the tools that run in the client, whose results the client may send.
        system: whether the client may send system turns.
        urls: whether a file may be a URL, which the model's vendor downloads.
        omitted: how many turns and calls were left out.
    """

    signer: Signer
    held: Mapping[str, Pending] | None
    tools: frozenset[str] = frozenset()
    system: bool = False
    urls: bool = False
    omitted: int = 0

    def file(self, url: object, media_type: object, name: object = None) -> FilePart:
        """Return a file of the client. It must be a data URL, unless the server allows web addresses.

        Raises:
            MisuseError: the URL is neither a data URL nor an allowed web address.
        """
        if not isinstance(url, str) or not isinstance(media_type, str):
            got = f"{shown(url)} and {shown(media_type)}"
            raise MisuseError(f"A file needs a 'url' and a 'mediaType' as text, not {got}.")
        kind = media_type if "/" in media_type else f"{media_type}/*"
        part = file_of_url(url, kind, name=name if isinstance(name, str) else None)
        if part.url is not None and not (self.urls and is_web_address(part.url)):
            raise MisuseError(f"A file must be a base64 data URL here, not {shown(url)}. Send its bytes.")
        return part

    def call(self, claim: Claim, *, last: bool) -> Believed | None:
        """Return what counts of a call; None for a call that this server did not make.

        `last` says whether the call is in the last message. Only there a decision counts, because the conversation
        has gone on after an earlier call.

        Raises:
            MisuseError: the client decided on a call that this server neither holds as pending nor has signed.
        """
        call = claim.call
        match claim.state:
            case "approved" | "refused" if last:
                pending = self._pending(claim)
                if pending is None:
                    raise MisuseError(
                        f"The decision on {call.name} ({call.id}) does not count, because this server did not ask for "
                        "it: the call is neither waiting here nor signed by this server. Ask the question again."
                    )
                decide = pending.approve if claim.state == "approved" else pending.deny
                return Believed(pending.call, pending, decide(claim.note))
            case "pending" if (pending := self._pending(claim)) is not None:
                return Believed(pending.call, pending)
            case "refused" | "denied" if self._pending(claim) is not None:
                return Believed(call, denied(call, claim.note))
            case "approved" if self._pending(claim) is not None:
                return Believed(call, _unknown(call))
            case "result" | "failed" if self._is_result(claim):
                text = claim.value if isinstance(claim.value, str) else msgspec.json.encode(claim.value).decode()
                return Believed(call, ToolResultPart(call.id, text, _OUTCOMES[claim.state], call.name))
            case "open" if self._is_call(claim):
                return Believed(call, _unknown(call))
            case _:
                self.omitted += 1
                return None

    def system_turn(self, text: str) -> Sequence[Message]:
        """Return a system turn of the client, if the server takes these."""
        if self.system:
            return [Message("system", text)]
        self.omitted += 1
        return []

    def report(self) -> None:
        """Log how much was left out."""
        if self.omitted:
            _logger.info("Left out %d parts of a client's history that this server did not make", self.omitted)

    def _pending(self, claim: Claim) -> Pending | None:
        if self.held is not None:
            held = self.held.get(claim.call.id)
            return held if held is not None and same_call(held.call, claim.call) else None
        is_ours = self.signer.is_pending(claim.call, claim.pending_signature)
        return Pending(claim.call, claim.pending_signature) if is_ours else None

    def _is_call(self, claim: Claim) -> bool:
        return self.signer.made("call", claim.call, None, claim.call_signature)

    def _is_result(self, claim: Claim) -> bool:
        if claim.call.name in self.tools:
            return self._is_call(claim)
        kind: Kind = "result" if claim.state == "result" else "failed"
        return self.signer.made(kind, claim.call, claim.value, claim.result_signature)


_OUTCOMES: Mapping[str, Outcome] = {"result": "ok", "failed": "error"}


def turns_of(
    content: Iterable[Part], outcomes: Iterable[ToolResultPart | Pending], decisions: Sequence[Approval]
) -> list[Message]:
    """Return an answer as a message, and after it the decisions on its calls. A waiting call stands at its end."""
    parts = [*content, *sorted(outcomes, key=lambda outcome: isinstance(outcome, Pending))]
    messages = [Message("assistant", parts)] if parts else []
    return [*messages, Message("user", decisions)] if decisions else messages


def _unknown(call: ToolCallPart) -> ToolResultPart:
    return ToolResultPart(call.id, UNKNOWN_RESULT, "interrupted", call.name)
