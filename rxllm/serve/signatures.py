"""`Signer`: signatures of the calls and results that a server sends, and that a client sends back.

A signature covers the id, the name and the arguments of a call, and for a result also its content. It proves that this
server made the call or the result. It does not prove when.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, Literal

import msgspec

from ..combinators.approvals import canonical, has_signature, pending_of, secret_of
from ..values.parts import ToolCallPart

__all__ = ["Kind", "Signer"]

Kind = Literal["call", "result", "failed"]

_PROCESS = secrets.token_bytes(32)  # the secret of a server that has none: it counts in this process only


class Signer:
    """Signs calls and results, and checks signatures.

    Args:
        secret: text or bytes of at least 16 characters, the same in all processes of a server. Without a secret the
            signatures count only in the process that made them.
    """

    def __init__(self, secret: str | bytes | None = None) -> None:
        self._secret = secret_of(secret) or _PROCESS

    def pending(self, call: ToolCallPart) -> str:
        """Return the signature of a pending call: the one that an agent with the same secret gives it."""
        return pending_of(call, self._secret).signature or ""

    def is_pending(self, call: ToolCallPart, signature: str | None) -> bool:
        """Return whether this is the signature of a pending call."""
        return has_signature(call, signature, self._secret)

    def sign(self, kind: Kind, call: ToolCallPart, value: Any = None) -> str:
        """Return the signature of a call, or of its result `value` in the form in which a page gets it."""
        text = "" if kind == "call" else msgspec.json.encode(value).decode()
        facts = [kind, call.id, call.name, canonical(call.arguments or "{}"), canonical(text)]
        return hmac.new(self._secret, msgspec.json.encode(facts, order="deterministic"), hashlib.sha256).hexdigest()

    def made(self, kind: Kind, call: ToolCallPart, value: Any, signature: str | None) -> bool:
        """Return whether this is the signature of a call, or of its result. The comparison takes constant time."""
        return hmac.compare_digest(self.sign(kind, call, value).encode(), (signature or "").encode())
