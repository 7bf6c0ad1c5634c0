"""The frames of Gemini's generateContent, and their decoder."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

__all__ = ["NO_COUNTS", "Counts", "Frame", "decode_frame"]


# The fields of the common frame, a piece of plain text. The decoder decodes every other frame again, as a document.
class _Part(Struct, gc=False):
    text: Any = None
    thought: Any = None
    thoughtSignature: Any = None  # noqa: N815 (the protocol's name)


class _Content(Struct, gc=False):
    parts: list[_Part | None] | None = None


class _Candidate(Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: Any = None
    grounding_metadata: Any = None
    citation_metadata: Any = None
    logprobs_result: Any = None
    index: Any = None


NO_COUNTS = msgspec.Raw()
"""The counts of a response without counts."""


class Frame(Struct, gc=False, rename="camel"):
    """A response of a stream."""

    candidates: list[_Candidate | None] | None = None
    usage_metadata: msgspec.Raw = NO_COUNTS
    error: Any = None


decode_frame = msgspec.json.Decoder(Frame).decode


class Counts(Struct, gc=False, rename="camel"):
    """The token counts of a response. Each count is a total."""

    prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    cached_content_token_count: Any = None
