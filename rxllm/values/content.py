"""Content as other libraries write it, made into parts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

from ..misuse import MisuseError
from .parts import FilePart, Part, TextPart

__all__ = []


def parts_of(content: object) -> tuple[Part, ...]:
    """Parts from what people write as content: text, parts, or the usual content dicts."""
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    if isinstance(content, _PART_TYPES):
        return (cast("Part", content),)
    if content is None:
        return ()
    if isinstance(content, Mapping):
        return (_part_of(cast("Mapping[str, Any]", content)),)
    if isinstance(content, Iterable) and not isinstance(content, bytes):
        return tuple(part for item in cast("Iterable[object]", content) for part in parts_of(item))
    raise MisuseError(f"Content must be text, parts or content dicts, not {type(content).__name__}.")


def _part_of(item: Mapping[str, Any]) -> Part:
    match item:
        case {"type": "text" | "input_text", "text": str(text)}:
            return TextPart(text)
        case {"type": "image_url", "image_url": {"url": str(url)}} | {"type": "image_url", "image_url": str(url)}:
            return _file_of(url)
        case _:
            raise MisuseError(
                f"Content of type {item.get('type')!r} is not known here; use the parts of rxllm "
                "(TextPart, FilePart, …), or RawPart for what one provider alone understands."
            )


def _file_of(url: str) -> FilePart:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return FilePart("image/*", url=url)
    try:
        return FilePart(head[5:-7], data=base64.b64decode(data, validate=True))
    except ValueError as error:
        raise MisuseError(f"The data URL of an image is not valid base64: {error}.") from None


_PART_TYPES = get_args(Part)
