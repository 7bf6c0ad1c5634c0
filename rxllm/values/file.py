"""`file`: a FilePart for a file on disk, whose bytes are read when a request needs them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePath

from ..misuse import MisuseError, shown
from .disk import UNKNOWN, type_of_name
from .leaf_parts import FilePart

__all__ = ["file"]


def file(
    path: str | os.PathLike[str],
    media_type: str | None = None,
    *,
    name: str | None = None,
    detail: str | None = None,
    title: str | None = None,
    context: str | None = None,
    citable: bool = False,
) -> FilePart:
    """Return a part for a file on disk: a picture, a document, a sound or a video.

    ::

        llm.invoke([("user", [rxllm.file("photo.jpg"), "What is this?"])])

    This function does not touch the file. Each request reads it once, in a thread, before it is sent; retries of the
    request send the same bytes. `FilePart.read` reads it at once, for example to send the same bytes with each turn of
    a conversation.

    The first bytes of the file decide its media type; if rxllm does not know them, its name decides. The providers get
    the bytes and the name of the file, never its path, and `Message.to_json` writes the bytes.

    Args:
        path: the path of the file. A relative path starts at the directory in which the process is now.
        media_type: the media type, such as ``image/png``, if neither the bytes nor the name have a known type.
        name: the name that the providers get, if it differs from the file's own.
        detail: see `FilePart`.
        title: see `FilePart`.
        context: see `FilePart`.
        citable: see `FilePart`.

    Errors: a request fails with MisuseError before it is sent if the file does not exist, cannot be read, is a
    directory, is empty, is too large, or has an unknown media type.

    Raises:
        MisuseError: the path is not a path.
    """
    place: object = None
    with suppress(TypeError):
        place = os.fspath(path)
    if not isinstance(place, str) or not place or "\0" in place:
        raise MisuseError(f"file takes the path of a file, as in rxllm.file('photo.jpg'), not {shown(path)}.")
    own_name = PurePath(place).name
    return FilePart(
        media_type or type_of_name(own_name) or UNKNOWN,
        name=name or own_name or None,
        detail=detail,
        title=title,
        context=context,
        citable=citable,
        path=str(Path(place).absolute()),
    )
