"""The portal: a background event loop for code that has none."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from ..misuse import MisuseError
from .executor import DaemonExecutor, start_thread
from .interrupts import INTERRUPTED, ExitStatus, closing_dropped, wait_for
from .loops import Loop, report

__all__ = ["portal"]


async def _nothing_to_shut_down(_: float | None = None) -> None:
    """Waits for nothing: the executor's threads end with the process. asyncio would start a thread that waits."""


class _Portal:
    """An event loop in a daemon thread, so that synchronous programs share connections and need no loop.

    The main thread can be interrupted by Ctrl-C between any two steps, so it takes no lock of this class: it adds to a
    set and puts into queues, and each of these is one step for the interpreter.
    """

    def __init__(self) -> None:
        self._held: set[object] = set()  # what keeps the process from ending
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._released: queue.SimpleQueue[None] = queue.SimpleQueue()  # has an item when nothing is held any more
        self._is_ending = False  # the main thread has ended, and waits
        self._is_patient = True  # until Ctrl-C
        self._is_abandoned = False  # Ctrl-C came before it was ready

    def start(self) -> None:
        """Returns when the loop runs."""
        try:
            self._thread = start_thread("rxllm-portal", self._run)
            self._ready.get()
        except BaseException:
            self._is_abandoned = True
            if hasattr(self, "_stop"):
                self.loop.call_soon_threadsafe(self._stop.set)
            raise
        # Not atexit: by then daemon threads may not start others any more.
        with suppress(RuntimeError):  # the main thread has ended already
            threading._register_atexit(self._hear_out)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        # But at exit it closes: threads that are no daemons may read on after the main thread's end.
        atexit.register(self._finish)

    def hold(self) -> Callable[[], None]:
        """Keeps the process from ending until the returned function is called."""
        token = object()
        self._held.add(token)
        return functools.partial(self._release, token)

    def _release(self, token: object) -> None:
        self._held.discard(token)
        if self._is_ending and not self._held:
            self._released.put(None)

    def _run(self) -> None:
        with asyncio.Runner() as runner, closing_dropped():
            self.loop = runner.get_loop()
            executor = DaemonExecutor()
            self.loop.set_default_executor(executor)
            self.loop.shutdown_default_executor = _nothing_to_shut_down  # type: ignore[method-assign]
            self._stop = asyncio.Event()
            self._ready.put(None)
            while not (self._stop.is_set() or self._is_abandoned):
                try:
                    runner.run(self._wait())
                except BaseException as error:  # a subscriber's SystemExit must not take the others' loop away
                    report(self.loop, "A task of rxllm's event loop raised.", error)
        executor.shutdown()

    async def _wait(self) -> None:
        await self._stop.wait()

    def _hear_out(self) -> None:
        """Waits, at the end of the main thread, for all that was only subscribed; a forked child waits for nothing."""
        if self is not _portal:
            return
        self._is_ending = True
        try:
            while self._held and self._is_patient:
                wait_for(self._released)
        except KeyboardInterrupt:
            self._is_patient = False  # `_finish` closes all requests
            sys._rxllm_exit_status = ExitStatus(INTERRUPTED)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    def _finish(self) -> None:
        """Closes the loop at the end of all threads but the daemons, which cancels what is left."""
        self._hear_out()  # those threads may have subscribed since
        if self is _portal:
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=2)


_portal: _Portal | None = None
_portal_lock = threading.Lock()


def _check_threads() -> None:
    """Refuses to start where what looks like threads are greenlets of one thread: the loop would block them all.

    Raises:
        MisuseError: gevent or eventlet has replaced Python's threads, queues or selectors.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    advice = None
    if gevent is not None and any(map(gevent.is_module_patched, ("threading", "queue", "select"))):
        advice = "gevent.monkey.patch_all(thread=False, queue=False, select=False)"
    elif eventlet is not None and any(map(eventlet.is_monkey_patched, ("thread", "select"))):
        advice = "eventlet.monkey_patch(thread=False, select=False)"
    if advice is not None:
        raise MisuseError(
            "Python's threads are replaced by greenlets here, and rxllm's background event loop needs a real thread. "
            f"Patch without them: {advice}. A synchronous call then blocks all greenlets of its thread while it waits."
        )


def _portal_instance() -> _Portal:
    return _portal or _start_portal()


def _start_portal() -> _Portal:
    global _portal
    with _portal_lock:
        if _portal is None:
            _check_threads()
            made = _Portal()
            made.start()
            _portal = made
        return _portal


def portal() -> Loop:
    """The process-wide background loop, started when it is first needed."""
    return _portal_instance().loop


def is_portal(loop: Loop) -> bool:
    """Whether this is the portal's loop."""
    return _portal is not None and loop is _portal.loop


def hold() -> Callable[[], None]:
    """Keeps the process from ending until the returned function is called."""
    return _portal_instance().hold()


def _forget_portal() -> None:
    """A forked child has the parent's portal without its threads: it needs one of its own."""
    global _portal, _portal_lock
    _portal, _portal_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_portal)
