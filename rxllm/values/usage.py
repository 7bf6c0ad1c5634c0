"""`Usage`: the tokens that an answer took."""

from __future__ import annotations

import attrs
from attrs import field, frozen

from ..public import Public
from ..showing import brief

__all__ = ["Usage"]


@frozen(kw_only=True)
class Usage(metaclass=Public):
    """Token counts. A count is None if the provider did not report it.

    ``a + b`` adds the counts of two answers.

    Attributes:
        input_tokens: the tokens of the prompt. For every provider, they include the tokens that were read from a
            cache or written to one.
        output_tokens: the tokens of the answer, including reasoning.
        cache_read_input_tokens: the input tokens that were read from a cache.
        cache_creation_input_tokens: the input tokens that were written to a cache.
        reasoning_output_tokens: the output tokens that are reasoning.
        estimated: whether rxllm counted the tokens, not the provider.
        last_round: the usage of the last answer in a sum; None for one answer. After an agent's answer, its
            ``input_tokens`` and ``output_tokens`` tell how long the conversation is. Comparisons ignore it.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    estimated: bool = False
    last_round: Usage | None = field(default=None, eq=False, repr=False)

    __repr__ = brief

    @property
    def counts(self) -> dict[str, int]:
        """The counts that are known, by name."""
        return {name: n for name in _COUNTS if (n := getattr(self, name)) is not None}

    def __add__(self, other: Usage) -> Usage:
        def add(name: str) -> int | None:
            counts = [n for n in (getattr(self, name), getattr(other, name)) if n is not None]
            return sum(counts) if counts else None

        counts = {name: add(name) for name in _COUNTS}
        return Usage(**counts, estimated=self.estimated or other.estimated, last_round=other.last_round or other)

    def updated(self, later: Usage) -> Usage:
        """Return the running total after a later report: the counts that it contains replace these."""
        return attrs.evolve(self, **later.counts, estimated=later.estimated, last_round=later.last_round)


_COUNTS = [name for name in attrs.fields_dict(Usage) if name.endswith("_tokens")]
