"""Resets objects in a forked child, where an inherited lock is never released and an inherited request never ends."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import MethodType
from typing import cast

__all__ = ["reset_in_child"]


_resets: weakref.WeakKeyDictionary[object, Callable[[object], None]] = weakref.WeakKeyDictionary()


def reset_in_child(reset: Callable[[], None]) -> None:
    """Call a method of an object now, and in each child of ``os.fork`` while the object lives."""
    reset()
    method = cast("MethodType", reset)
    _resets[method.__self__] = method.__func__


def _reset() -> None:
    for owner, reset in list(_resets.items()):
        reset(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
