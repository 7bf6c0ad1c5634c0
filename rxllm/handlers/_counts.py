"""The tokens that a provider has counted."""

from __future__ import annotations

import attrs

from ..values.usage import Usage

__all__ = ["counts"]


def counts(usage: Usage | None) -> dict[str, int]:
    """Return the provider's token counts by name; empty for an estimated usage, because nothing was reported."""
    if usage is None or usage.estimated:
        return {}
    return attrs.asdict(usage, filter=lambda a, count: a.name != "estimated" and count is not None)
