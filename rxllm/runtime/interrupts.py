"""What Ctrl-C can't divide: waiting, closing, and the exit status, for the thread that it interrupts."""

from __future__ import annotations

import functools
import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

__all__ = ["INTERRUPTED", "ExitStatus", "close_elsewhere", "closing_dropped", "wait_for", "when_dropped"]

GLANCE = 0.05  # seconds between two looks of the main thread whether Ctrl-C was pressed


def wait_for(bell: queue.SimpleQueue[None]) -> None:
    """Returns when the bell has rung, or a little later without: the caller looks for itself why it was woken.

    An interrupt that comes just before the main thread blocks does not wake it, so it never blocks for long. Other
    threads get no interrupts.
    """
    if threading.current_thread() is threading.main_thread():
        with suppress(queue.Empty):
            bell.get(timeout=GLANCE)
    else:
        bell.get()


INTERRUPTED = 130  # the exit status of a program that Ctrl-C has ended, as shells count: 128 and the signal's number


class ExitStatus:
    """Ends the process with this status when the interpreter clears the module `sys`.

    Ctrl-C at the end of the main thread comes too late for an exception to set the exit status. When `sys` is cleared,
    all exit functions of the program have been called, and its output is written.
    """

    def __init__(self, status: int) -> None:
        self._exit = functools.partial(os._exit, status)

    def __del__(self) -> None:
        self._exit()


class _Dropped(weakref.ref[Any]):
    """A weak reference to a stream; `close` is to be called when the stream is dropped."""

    __slots__ = ("close",)

    close: Callable[[], object]


class _Closes(Protocol):
    def close(self) -> object: ...


_dropped: queue.SimpleQueue[Any] = queue.SimpleQueue()


def when_dropped(stream: weakref.ref[Any], close: Callable[[], object]) -> object:
    """Has another thread call `close` when the stream is collected, as long as the returned object is kept.

    A destructor would run in the thread that drops the stream. There, Ctrl-C could interrupt it, and the request would
    stay open. The callback of this weak reference is a queue's ``put``, which nothing interrupts.
    """
    dropped = _Dropped(stream(), _dropped.put)
    dropped.close = close
    return dropped


def close_elsewhere(closes: _Closes) -> None:
    """Has another thread call ``close()``, in one step that Ctrl-C can't divide."""
    _dropped.put(closes)


@contextmanager
def closing_dropped() -> Generator[None]:
    """Runs the thread that closes what is dropped."""
    dropped = _dropped

    def close() -> None:
        while (closes := dropped.get()) is not None:
            closes.close()

    threading.Thread(target=close, name="rxllm-closer", daemon=True).start()
    yield
    dropped.put(None)


def _forget_dropped() -> None:
    """A forked child has a thread of its own that closes, and closes nothing of its parent's."""
    global _dropped
    _dropped = queue.SimpleQueue[Any]()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_dropped)
