"""Reading of files, and their media types. Below the parts, which call it."""

from __future__ import annotations

import mimetypes
import os
import stat
from pathlib import PurePath
from typing import IO

from ..bounds import FILE_BYTES, IMAGE_BYTES, MIB
from ..misuse import MisuseError

__all__ = ["TYPES", "UNKNOWN", "check_size", "content_of", "media_type_of", "type_of_bytes", "type_of_name"]

UNKNOWN = "*/*"  # the media type of a file, until it is read, if its name has no known ending

# Python's own table differs between versions and systems.
_TYPES = {
    **{end: f"image/{end}" for end in ("png", "gif", "webp", "bmp", "heic", "heif", "avif")},
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "image/jpeg"),
    **dict.fromkeys(("tif", "tiff"), "image/tiff"),
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "json": "application/json",
    "xml": "application/xml",
    "txt": "text/plain",
    **dict.fromkeys(("md", "markdown"), "text/markdown"),
    "csv": "text/csv",
    **dict.fromkeys(("html", "htm"), "text/html"),
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    **{end: f"audio/{end}" for end in ("flac", "aac", "aiff")},
    **dict.fromkeys(("ogg", "oga", "opus"), "audio/ogg"),
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    **dict.fromkeys(("mpg", "mpeg"), "video/mpeg"),
}

TYPES = frozenset(_TYPES.values())
"""The media types that rxllm knows by the ending of a name."""

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
    b"avif": "image/avif",
    b"M4A ": "audio/mp4",
    b"qt  ": "video/quicktime",
    **dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"avc1"), "video/mp4"),
}


def check_size(size: int, media_type: str, name: str | None, vendor: str = "", picture: int = IMAGE_BYTES) -> None:
    """Check that a file is not too large for a request.

    Args:
        size: its bytes.
        media_type: its media type.
        name: its name, for the error.
        vendor: the name of the provider, for the error.
        picture: the bytes of the largest picture that it reads.

    Raises:
        MisuseError: it has more bytes than the provider takes.
    """
    called = f" {name!r}" if name else ""
    taken = "rxllm sends" if picture == IMAGE_BYTES else f"{vendor} takes"
    if media_type.startswith("image/") and size > picture:
        raise MisuseError(
            f"The picture{called} has {size / MIB:.1f} MiB, but {taken} pictures up to {picture / MIB:g} MiB. "
            "Models see fewer pixels than that: scale the picture down, or pass its url or its file_id."
        )
    if size > FILE_BYTES:
        raise MisuseError(
            f"The file{called} has {size / MIB:.1f} MiB, but rxllm sends files up to {FILE_BYTES // MIB} MiB. Upload "
            "it to the provider, and pass its file_id or its url."
        )


def content_of(path: str) -> bytes:
    """Return the bytes of a file.

    Raises:
        MisuseError: the file does not exist, cannot be read, is not a regular file, is empty or is too large.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer.
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0))) as opened:
            return _content(opened, path)
    except FileNotFoundError:
        reason = "there is no such file"
    except IsADirectoryError:
        reason = "it is a directory"
    except PermissionError:
        # Path.is_dir raises for a file in a directory that this user may not enter.
        reason = "it is a directory" if os.path.isdir(path) else "this user may not read it"  # noqa: PTH112
    except OSError as error:
        reason = error.strerror or str(error)
    raise MisuseError(f"The file {path!r} cannot be sent: {reason}.") from None


def _content(opened: IO[bytes], path: str) -> bytes:
    facts = os.fstat(opened.fileno())
    if not stat.S_ISREG(facts.st_mode):
        raise MisuseError(f"The file {path!r} cannot be sent: it is not a regular file.")
    check_size(facts.st_size, "", path)
    data = opened.read(FILE_BYTES + 1)  # the file may have grown meanwhile
    if not data:
        raise MisuseError(f"The file {path!r} cannot be sent: it is empty.")
    return data


def media_type_of(path: str, declared: str, data: bytes) -> str:
    """Return the media type of a file by its first bytes, else by its name. A `declared` type wins over the name.

    Raises:
        MisuseError: the media type is unknown.
    """
    if declared not in (UNKNOWN, type_of_name(PurePath(path).name)):
        return declared
    found = type_of_bytes(data)
    if declared == UNKNOWN:
        return found or _text_type(data, path)
    return found if found and found != "video/mp4" else declared  # some sounds begin as videos do


def type_of_name(name: str) -> str | None:
    """Return the media type for the ending of a name; None if the ending is unknown."""
    end = PurePath(name).suffix[1:].lower()
    return _TYPES.get(end) or mimetypes.guess_type(f"a.{end}", strict=False)[0]


def type_of_bytes(data: bytes) -> str | None:
    """Return the media type of pictures, sounds, videos and PDF documents; None for everything else."""
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)


def _text_type(data: bytes, path: str) -> str:
    """Return the media type of text.

    Raises:
        MisuseError: it is not text.
    """
    try:
        if "\0" not in data.decode():
            return "text/plain"
    except UnicodeDecodeError:
        pass
    raise MisuseError(
        f"The media type of {path!r} is unknown: neither its name nor its bytes tell it. "
        "Pass it, as in rxllm.file('photo', 'image/png')."
    )
