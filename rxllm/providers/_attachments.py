"""Files in requests: the checks before a request is sent, and the form of the data."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from attrs import evolve

from ..misuse import MisuseError
from ..values.disk import check_size, type_of_bytes
from ..values.parts import FilePart, Part, ToolResultPart
from ..values.request import Request

__all__ = ["base64_of", "check_files", "files_of"]


def check_files(request: Request, vendor: str, pictures: tuple[str, ...], largest: int) -> Request:
    """Check the sizes of all files, and the media types of pictures. Return the request with exact media types.

    A part with bytes may have a type such as ``image/*``, or that of another picture. The bytes tell the exact type.

    Args:
        request: the request.
        vendor: the name of the provider for error messages.
        pictures: the subtypes of ``image/`` that the provider reads; empty if this is unknown.
        largest: the bytes of the largest picture that the provider reads.

    Raises:
        MisuseError: the provider cannot read one of the files.
    """
    if isinstance(request.prompt, str):
        return request
    if any(_is_inexact(part) for message in request.prompt for part in files_of(message.parts)):
        turns = [evolve(message, parts=tuple(map(_exact, message.parts))) for message in request.prompt]
        request = evolve(request, prompt=tuple(turns))
    for message in request.messages:
        for part in files_of(message.parts):
            check_size(0 if part.data is None else len(part.data), part.media_type, part.name, vendor, largest)
            kind, _, subtype = part.media_type.partition("/")
            if kind == "image" and pictures and subtype not in (*pictures, "*") and part.file_id is None:
                called = f" ({part.name})" if part.name else ""
                raise MisuseError(
                    f"{vendor} reads pictures of the types {', '.join(pictures)}, not {part.media_type}{called}. "
                    "Convert the picture first."
                )
    return request


def _is_inexact(part: FilePart) -> bool:
    """Return whether the bytes must tell the type. Vendors refuse a picture of another type than the one it states."""
    if part.data is None or part.file_id is not None:
        return False
    if not part.media_type.startswith("image/") or "*" in part.media_type:
        return "*" in part.media_type
    found = type_of_bytes(part.data) or ""
    return found.startswith("image/") and found != part.media_type


def _exact(part: Part) -> Part:
    if isinstance(part, ToolResultPart):
        return evolve(part, content=tuple(map(_exact, part.content)))
    if not isinstance(part, FilePart) or not _is_inexact(part):
        return part
    kind = type_of_bytes(part.data or b"")
    if kind is None or kind.partition("/")[0] != part.media_type.partition("/")[0]:
        raise MisuseError(
            f"The exact media type of a file is unknown: it states {part.media_type}, and its bytes do not tell it. "
            "Pass a type such as image/png."
        )
    return evolve(part, media_type=kind)


def files_of(parts: Iterable[Part]) -> Iterator[FilePart]:
    """Yield the files among the parts, and those in the results of tools."""
    for part in parts:
        if isinstance(part, FilePart):
            yield part
        elif isinstance(part, ToolResultPart):
            yield from files_of(part.content)


def base64_of(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode()
