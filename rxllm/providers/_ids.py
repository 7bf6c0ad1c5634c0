"""`valid_id` converts the ids of tool calls to the form that a protocol allows.

If a conversation moves to another vendor, that vendor may reject the ids of the first. `valid_id` replaces only such
ids, and always by the same id, so that the result of a call still names its call.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["valid_id"]


def valid_id(identity: str, pattern: str) -> str:
    """Return the id if it matches the pattern, else an id of 24 letters and digits that is derived from it."""
    if re.fullmatch(pattern, identity):
        return identity
    return "call" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:20]
