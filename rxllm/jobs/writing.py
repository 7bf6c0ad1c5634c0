"""Writing of files: `write_whole` adds a line, `new_file` makes a file on the disk, `replaced` replaces a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["TO_APPEND", "new_file", "replaced", "write_whole"]

TO_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
"""The flags with which a file is opened for `write_whole`."""


def write_whole(descriptor: int, line: bytes, end: int) -> None:
    """Write a line at the end of a file. If the disk is full, nothing of it stays.

    Args:
        descriptor: the file.
        line: the line.
        end: the length of the file.

    Raises:
        OSError: the line cannot be written.
    """
    view = memoryview(line)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, end)
        raise


@contextmanager
def new_file(path: Path) -> Generator[IO[bytes]]:
    """Yield a new file that only its owner may read. It is on the disk when the block ends.

    Raises:
        FileExistsError: there is a file at the path.
        OSError: the file cannot be written.
    """
    with os.fdopen(os.open(path, TO_APPEND | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replaced(path: Path) -> Generator[Path]:
    """Yield the path of a file that takes the place of this one, at once, when the block ends.

    After an error the old file stays as it was. Its mode stays, and so does a link to it.
    """
    place = path.resolve()
    new = place.with_name(f"{place.name}.new")
    new.unlink(missing_ok=True)
    try:
        yield new
        if place.exists():
            shutil.copymode(place, new)
        new.replace(place)
    finally:
        new.unlink(missing_ok=True)  # it would fill the rest of a full disk
