"""`usage_of`: the token counts in OpenAI's chat protocol, by the names that OpenAI and compatible servers give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..values.usage import Usage
from ._documents import count, object_of

__all__ = ["usage_of"]

# The names of the counts: those of the protocol, then those of gateways and of other protocols.
_INPUT = ("prompt_tokens",), ("input_tokens",)
_OUTPUT = ("completion_tokens",), ("output_tokens",)
_READ = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),  # DeepSeek
    ("cached_tokens",),  # Moonshot
    ("num_cached_tokens",),  # Mistral
    ("prompt_token_details", "cached_tokens"),  # Mistral
    ("cache_read_input_tokens",),  # LiteLLM's proxy, for models of Anthropic
)
_WRITTEN = (
    ("prompt_tokens_details", "cache_write_tokens"),
    ("prompt_tokens_details", "cache_creation_tokens"),
    ("prompt_tokens_details", "cache_creation_input_tokens"),
    ("cache_creation_input_tokens",),
)
_REASONED = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
)


def usage_of(document: object, *, thinks_apart: bool) -> Usage | None:
    """Return the counts of an answer; None if there are none.

    `thinks_apart` is True if the server counts the reasoning beside the output tokens, only in the total.
    """
    document = object_of(document)
    if not document:
        return None
    asked, answered, reasoned = _first(document, _INPUT), _first(document, _OUTPUT), _first(document, _REASONED)
    if thinks_apart and asked is not None and answered is not None:
        apart = (count(document, "total_tokens") or 0) - asked - answered
        if apart > 0 and reasoned in (None, apart):  # Gemini does not name this count
            answered, reasoned = answered + apart, apart
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cache_read_input_tokens=_first(document, _READ),
        cache_creation_input_tokens=_first(document, _WRITTEN),
        reasoning_output_tokens=reasoned,
    )


def _first(document: Mapping[str, object], names: Iterable[tuple[str, ...]]) -> int | None:
    """Return the first of these counts that the document has."""
    for path in names:
        # Few of the names occur in one document, and `count` takes ten times as long as the look at the first name.
        if path[0] in document and (number := count(document, *path)) is not None:
            return number
    return None
