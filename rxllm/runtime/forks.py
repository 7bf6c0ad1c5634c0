"""What a forked child must not inherit: locks that nobody will release, and requests that run in the parent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["reset_in_child"]


class _Resettable(Protocol):
    def reset(self) -> None: ...


_owners: weakref.WeakSet[_Resettable] = weakref.WeakSet()


def reset_in_child(owner: _Resettable) -> None:
    """Resets the object now, and in each child of ``os.fork`` as long as the object lives."""
    owner.reset()
    _owners.add(owner)


def _reset() -> None:
    for owner in list(_owners):
        owner.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
