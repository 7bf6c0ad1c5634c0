"""Ids of calls in the form that a protocol allows.

A conversation that moves between vendors carries ids that the next one refuses. An id is replaced only where it must
be, and always by the same one, so that the result of a call goes on naming its call.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["valid_id"]


def valid_id(identity: str, pattern: str) -> str:
    """The id itself where it matches the pattern, else one of 24 letters and digits that stands for it."""
    if re.fullmatch(pattern, identity):
        return identity
    return "call" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:20]
