"""`rescue`: the content of a journal that was moved or deleted while a job wrote to it.

The open file still has everything, and loses it when it is closed.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .writing import new_file

__all__ = ["rescue"]


def rescue(descriptor: int, path: Path) -> OSError:
    """Copy an open file to its path, or beside the file that has its place now. Return the error that says so.

    If the copy cannot be written, the error says why.
    """
    what = f"The journal {str(path)!r} was moved or deleted while the job wrote to it"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = next(each for each in _places(path) if _copied(descriptor, each))
    except OSError as error:
        return OSError(f"{what}, and its results cannot be written again: {error}.")
    if copy == path:
        return OSError(f"{what}. Its results are there again. Run the same job to continue.")
    return OSError(
        f"{what}, and another file has its place. Its results are in {str(copy)!r}. Move that file to {str(path)!r}, "
        "and run the same job to continue."
    )


def _places(path: Path) -> Iterator[Path]:
    beside = (path.with_name(f"{path.name}.rescued{number or ''}") for number in itertools.count())
    return itertools.chain([path], beside)


def _copied(descriptor: int, path: Path) -> bool:
    """Copy an open file; return False if there is a file at the path."""
    try:
        with new_file(path) as target, os.fdopen(os.dup(descriptor), "rb") as source:
            source.seek(0)
            shutil.copyfileobj(source, target)
    except FileExistsError:
        return False
    return True
