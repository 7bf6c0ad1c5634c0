"""What ``os.fork`` does to objects: `reset_in_child` resets them in the child, and `fork_waits` postpones the fork.

An inherited lock is never released in a child, and an inherited request never ends.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import MethodType
from typing import cast

__all__ = ["fork_waits", "reset_in_child"]


_resets: weakref.WeakKeyDictionary[object, Callable[[object], None]] = weakref.WeakKeyDictionary()


def reset_in_child(reset: Callable[[], None]) -> None:
    """Call a method of an object now, and in each child of ``os.fork`` while the object lives."""
    reset()
    method = cast("MethodType", reset)
    _resets[method.__self__] = method.__func__


def _reset() -> None:
    for owner, reset in list(_resets.items()):
        reset(owner)


class _Gate:
    """Keeps forks and the blocks of `fork_waits` apart. A block that begins while a thread forks waits.

    A thread that forks within a block of its own, such as in a handler of a signal, does not wait for itself.
    """

    def __init__(self) -> None:
        reset_in_child(self.reset)

    def reset(self) -> None:
        """Forget, in a child, the blocks and the forks of the parent."""
        self._changed = threading.Condition()
        self._blocks: list[int] = []  # the threads that are in a block
        self._forks = 0

    def begin_fork(self) -> None:
        this = threading.get_ident()
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: all(thread == this for thread in self._blocks))

    def end_fork(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    @contextmanager
    def block(self) -> Generator[None]:
        this = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._forks or this in self._blocks)
            self._blocks.append(this)
        try:
            yield
        finally:
            with self._changed:
                if this in self._blocks:  # else this is a child, which was forked within the block
                    self._blocks.remove(this)
                self._changed.notify_all()


_gate = _Gate()
fork_waits = _gate.block
"""A block during which ``os.fork`` of other threads waits."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_gate.begin_fork, after_in_parent=_gate.end_fork, after_in_child=_reset)
