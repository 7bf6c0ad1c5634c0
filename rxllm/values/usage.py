"""`Usage`: the tokens that an answer took."""

from __future__ import annotations

import attrs
from attrs import frozen

from ..showing import brief

__all__ = ["Usage"]


@frozen(kw_only=True)
class Usage:
    """Counts of tokens; None where the provider did not say.

    ``a + b`` adds them up across answers.

    Attributes:
        input_tokens: of the prompt, those read from a cache or written to one included, at every provider.
        output_tokens: of the answer, reasoning included.
        cache_read_input_tokens: of the input, those read from a cache.
        cache_creation_input_tokens: of the input, those written to a cache.
        reasoning_output_tokens: of the output, the reasoning.
        estimated: whether rxllm has counted, not the provider.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    estimated: bool = False

    __repr__ = brief

    def __add__(self, other: Usage) -> Usage:
        def add(name: str) -> int | None:
            counts = [n for n in (getattr(self, name), getattr(other, name)) if n is not None]
            return sum(counts) if counts else None

        return Usage(**{name: add(name) for name in _COUNTS}, estimated=self.estimated or other.estimated)

    def updated(self, later: Usage) -> Usage:
        """The running total after `later` came: its known counts replace these."""
        counts = {name: n for name in _COUNTS if (n := getattr(later, name)) is not None}
        return attrs.evolve(self, **counts, estimated=later.estimated)


_COUNTS = [name for name in attrs.fields_dict(Usage) if name != "estimated"]
