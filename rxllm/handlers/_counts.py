"""Tokens, counted as others than the providers count them."""

from __future__ import annotations

import attrs

from ..values.usage import Usage

__all__ = ["counts"]

_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")


def counts(usage: Usage | None, provider: str) -> dict[str, int]:
    """What the provider counted, of which the input tokens include the cached ones; Anthropic's own do not."""
    if usage is None or usage.estimated:
        return {}
    known: dict[str, int] = attrs.asdict(usage, filter=lambda a, count: a.name != "estimated" and count is not None)
    if provider == "anthropic" and "input_tokens" in known:
        known["input_tokens"] += sum(known.get(name, 0) for name in _CACHED)
    return known
