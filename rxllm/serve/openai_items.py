"""The usage and the pictures of an answer, with the names of ``/v1/responses``."""

from __future__ import annotations

import base64
from typing import Any

from ..values.parts import FilePart
from ..values.usage import Usage
from .wording import refuse_file

__all__ = ["picture_fields", "response_usage"]


def picture_fields(part: FilePart) -> dict[str, Any]:
    """Return the fields of a complete ``image_generation_call``, which has the bytes of the picture.

    Raises:
        Refused: the file is no picture, or has no bytes.
    """
    kind, _, form = part.media_type.partition("/")
    if kind != "image" or part.data is None:
        raise refuse_file(part)
    return {"status": "completed", "result": base64.b64encode(part.data).decode(), "output_format": form}


def response_usage(usage: Usage) -> dict[str, Any]:
    """Return the counts under the names of responses. A count that no provider reported is 0."""
    counted, answered = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": counted,
        "input_tokens_details": {"cached_tokens": usage.cache_read_input_tokens or 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens or 0},
        "total_tokens": counted + answered,
    }
