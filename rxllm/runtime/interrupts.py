"""Steps that Ctrl-C cannot interrupt halfway: waiting for an item, closing a stream, and setting the exit status."""

from __future__ import annotations

import functools
import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from .loops import Loop

__all__ = [
    "INTERRUPTED",
    "ExitStatus",
    "close_elsewhere",
    "closing_dropped",
    "wait_for",
    "wait_until_closed",
    "when_dropped",
]

POLL_INTERVAL = 0.05  # seconds after which a waiting main thread looks whether Ctrl-C was pressed


def wait_for(wakeups: queue.SimpleQueue[None]) -> None:
    """Return when the queue has an item, or after a short time; the caller must check its condition again.

    An interrupt that arrives just before the main thread blocks does not wake it, so the main thread never blocks for
    long. Other threads are not interrupted.
    """
    if threading.current_thread() is threading.main_thread():
        with suppress(queue.Empty):
            wakeups.get(timeout=POLL_INTERVAL)
    else:
        wakeups.get()


INTERRUPTED = 130  # exit status of a program that Ctrl-C ended, by the convention of shells: 128 + the signal's number


class ExitStatus:
    """Ends the process with this status when the interpreter clears the module `sys`.

    After Ctrl-C at the end of the main thread, an exception can no longer set the exit status. When `sys` is cleared,
    the exit functions of the program have been called and its output is written.
    """

    def __init__(self, status: int) -> None:
        self._exit = functools.partial(os._exit, status)

    def __del__(self) -> None:
        self._exit()


class _Dropped(weakref.ref[Any]):
    """A weak reference to a stream, with the `close` to call when the stream is garbage-collected."""

    __slots__ = ("close",)

    close: Callable[[], object]


class _Closes(Protocol):
    def close(self) -> object: ...


_dropped: queue.SimpleQueue[Any] = queue.SimpleQueue()


def when_dropped(stream: weakref.ref[Any], close: Callable[[], object]) -> object:
    """Let another thread call `close` when the stream is garbage-collected, while the returned object is kept.

    A destructor would run in the thread that drops the stream. Ctrl-C could interrupt it there, and the request would
    stay open. The callback of this weak reference is a queue's ``put``, which cannot be interrupted.
    """
    dropped = _Dropped(stream(), _dropped.put)
    dropped.close = close
    return dropped


def close_elsewhere(closes: _Closes) -> None:
    """Let another thread call ``close()``; Ctrl-C cannot interrupt this step halfway."""
    _dropped.put(closes)


def wait_until_closed(loop: Loop, seconds: float) -> None:
    """Return when the streams on this loop that were dropped before are closed, at the latest after some seconds.

    The thread that closes streams works through its queue in order, and so does the loop. So a mark that passes both
    comes after all closes.
    """
    passed: queue.SimpleQueue[None] = queue.SimpleQueue()
    close_elsewhere(_Mark(loop, passed))
    with suppress(queue.Empty):
        passed.get(timeout=seconds)


class _Mark:
    def __init__(self, loop: Loop, passed: queue.SimpleQueue[None]) -> None:
        self.loop = loop
        self.passed = passed

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.passed.put, None)


@contextmanager
def closing_dropped() -> Generator[None]:
    """Run the thread that closes dropped streams."""
    dropped = _dropped

    def close() -> None:
        while (closes := dropped.get()) is not None:
            closes.close()

    threading.Thread(target=close, name="rxllm-closer", daemon=True).start()
    yield
    dropped.put(None)


def _forget_dropped() -> None:
    """Start a forked child with an empty queue: it must not close the streams of its parent."""
    global _dropped
    _dropped = queue.SimpleQueue[Any]()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_dropped)
