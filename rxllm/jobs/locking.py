"""The lock of a file: one process at a time holds it, and it ends with the process.

A process that waited for the lock may get that of a file which was replaced meanwhile: `is_at` tells.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["is_at", "lock", "unlock"]

_PATIENCE = 2.0  # seconds for another job to close the file
_LOOK = 0.05  # seconds between two attempts


def lock(descriptor: int) -> None:
    """Lock a file. A job that was disposed a moment ago may still be closing it.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK)
        else:
            return


def unlock(descriptor: int) -> None:
    """Unlock a file that stays open."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_at(path: Path, descriptor: int) -> bool:
    """Return whether the path leads to this open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
