"""The tokens that a provider has counted."""

from __future__ import annotations

import attrs

from ..values.usage import Usage

__all__ = ["counts"]


def counts(usage: Usage | None) -> dict[str, int]:
    """The counts by their names; none where nobody but rxllm has counted."""
    if usage is None or usage.estimated:
        return {}
    return attrs.asdict(usage, filter=lambda a, count: a.name != "estimated" and count is not None)
