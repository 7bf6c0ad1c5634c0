"""The tokens that a provider has counted."""

from __future__ import annotations

from ..values.usage import Usage

__all__ = ["counts"]


def counts(usage: Usage | None) -> dict[str, int]:
    """Return the provider's token counts by name; empty for an estimated usage, because nothing was reported."""
    return {} if usage is None or usage.estimated else usage.counts
