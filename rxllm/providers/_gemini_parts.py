"""What Gemini's answers have beside text: files, the sources of the text, the counts of tokens."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..bounds import CITATIONS
from ..errors import ProtocolError
from ..values.frozen import frozen_json
from ..values.parts import FilePart
from ..values.usage import Usage
from ._content import bounded
from ._documents import count, list_of, object_of, text_of

__all__ = ["Counts", "file_of", "sources_of", "usage_of"]


def file_of(part: dict[str, Any], signature: str | None, maker: str | None) -> FilePart | None:
    """The file that a part of the answer is; None if it is none.

    Raises:
        ProtocolError: its data is not valid base64.
    """
    data, place = object_of(part.get("inlineData")), object_of(part.get("fileData"))
    media_type = text_of((data or place).get("mimeType"))
    if "/" not in media_type:
        return None
    if data:
        try:
            content = base64.b64decode(text_of(data.get("data")), validate=True)
        except binascii.Error as error:
            raise ProtocolError(f"A file of the answer is not valid base64: {error}.") from None
        return FilePart(media_type, content, signature=signature, provider=maker)
    return FilePart(media_type, url=text_of(place.get("fileUri")) or None, signature=signature, provider=maker)


def sources_of(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the text is based on: each passage with its sources, as the latest response has them."""
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


class Counts(Struct, gc=False, rename="camel"):
    """The counts of a response, each of which is a total."""

    prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    cached_content_token_count: Any = None


def usage_of(counts: Counts) -> Usage:
    """The same counts as `Usage`, whose output includes the thoughts."""
    thoughts = count(counts.thoughts_token_count)
    told = [each for each in (count(counts.candidates_token_count), thoughts) if each is not None]
    return Usage(
        input_tokens=count(counts.prompt_token_count),
        output_tokens=sum(told) if told else None,
        cache_read_input_tokens=count(counts.cached_content_token_count),
        reasoning_output_tokens=thoughts,
    )
