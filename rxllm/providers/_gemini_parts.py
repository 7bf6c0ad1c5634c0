"""Readers for the files, the sources and the token counts in Gemini's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bounds import CITATIONS
from ..values.frozen import frozen_json
from ..values.parts import FilePart
from ..values.usage import Usage
from ._content import bounded, bytes_of
from ._documents import count, list_of, object_of, text_of
from ._gemini_frames import Counts

__all__ = ["MADE_ID", "file_of", "sources_of", "usage_of"]

MADE_ID = "call_"
"""The beginning of the ids that rxllm gives to calls without an id."""


def file_of(part: dict[str, Any], signature: str | None, maker: str | None) -> FilePart | None:
    """Return the file in a part of the answer; None if the part is not a file.

    Raises:
        ProtocolError: the data is not valid base64.
    """
    data, place = object_of(part.get("inlineData")), object_of(part.get("fileData"))
    media_type = text_of((data or place).get("mimeType"))
    if "/" not in media_type:
        return None
    if data:
        return FilePart(media_type, bytes_of(data.get("data"), "A file"), signature=signature, provider=maker)
    return FilePart(media_type, url=text_of(place.get("fileUri")) or None, signature=signature, provider=maker)


def sources_of(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sources of the text: each passage with its sources, or the sources alone."""
    grounding = object_of(candidate.get("groundingMetadata"))
    chunks = [
        frozen_json(object_of(each))
        for each in bounded(list_of(grounding.get("groundingChunks")), CITATIONS, "citations")
    ]
    sources: list[dict[str, Any]] = []
    for support in map(object_of, bounded(list_of(grounding.get("groundingSupports")), CITATIONS, "citations")):
        places = [place for place in list_of(support.get("groundingChunkIndices")) if isinstance(place, int)]
        sources.append({**support, "groundingChunks": [chunks[at] for at in places if 0 <= at < len(chunks)]})
    cited = object_of(candidate.get("citationMetadata"))
    return [*(sources or chunks), *map(object_of, list_of(cited.get("citationSources") or cited.get("citations")))]


def usage_of(counts: Counts) -> Usage:
    """Return the counts as `Usage`, whose output tokens include the reasoning."""
    thoughts = count(counts.thoughts_token_count)
    output = [each for each in (count(counts.candidates_token_count), thoughts) if each is not None]
    return Usage(
        input_tokens=count(counts.prompt_token_count),
        output_tokens=sum(output) if output else None,
        cache_read_input_tokens=count(counts.cached_content_token_count),
        reasoning_output_tokens=thoughts,
    )
