"""The portal: a background event loop for code that has none.

The portal is absent until the first call of `portal()` starts it, then it runs until the process ends. At the end of
the main thread it waits until nothing is held; at exit it stops, which cancels what is left. Only the thread that holds
`_portal_lock` starts a portal, only the portal's own thread runs its loop, and a forked child begins without one.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from ..misuse import MisuseError
from .executor import EXECUTOR, start_thread
from .interrupts import INTERRUPTED, ExitStatus, closing_dropped, wait_for
from .loops import Loop, report

__all__ = ["loop_factory", "portal"]


async def _nothing_to_shut_down(_: float | None = None) -> None:
    """Return at once: the executor's threads end with the process. asyncio would start a thread that waits for them."""


def loop_factory() -> Callable[[], Loop] | None:
    """Return uvloop's, if it is installed (the extra ``uvloop``): it needs a third less CPU for a packet."""
    try:
        return cast("Callable[[], Loop]", importlib.import_module("uvloop").new_event_loop)
    except ImportError:
        return None


class _Portal:
    """An event loop in a daemon thread, so that synchronous programs share connections and need no loop.

    Ctrl-C can interrupt the main thread between any two steps, so that thread takes no lock here. It only adds to a
    set and puts into queues, and the interpreter does each of these in one step.

    Attributes:
        loop: the event loop.
    """

    def __init__(self) -> None:
        self._held: set[object] = set()  # one token for each caller that keeps the process from ending
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._released: queue.SimpleQueue[None] = queue.SimpleQueue()  # gets an item when the last hold ends
        self._is_ending = False  # the main thread has ended and waits in `_wait_until_released`
        self._is_patient = True  # False after Ctrl-C: wait no longer
        self._is_abandoned = False  # Ctrl-C came before the loop ran

    def start(self) -> None:
        """Start the thread, and return when its event loop runs."""
        try:
            self._thread = start_thread("rxllm-portal", self._run)
            self._ready.get()
        except BaseException:
            self._is_abandoned = True
            if hasattr(self, "_stop"):
                self.loop.call_soon_threadsafe(self._stop.set)
            raise
        # Not atexit: at that time a daemon thread can no longer start others.
        with suppress(RuntimeError):  # the main thread has ended already
            threading._register_atexit(self._wait_until_released)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        # It stops at exit: non-daemon threads may still read after the main thread has ended.
        atexit.register(self._finish)

    def hold(self) -> Callable[[], None]:
        """Keep the process from ending until the returned function is called."""
        token = object()
        self._held.add(token)
        return functools.partial(self._release, token)

    def _release(self, token: object) -> None:
        self._held.discard(token)
        if self._is_ending and not self._held:
            self._released.put(None)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner, closing_dropped():
            self.loop = runner.get_loop()
            EXECUTOR.start()
            self.loop.set_default_executor(EXECUTOR)
            self.loop.shutdown_default_executor = _nothing_to_shut_down  # type: ignore[method-assign]
            self._stop = asyncio.Event()
            self._ready.put(None)
            while not (self._stop.is_set() or self._is_abandoned):
                try:
                    runner.run(self._wait())
                except BaseException as error:  # a subscriber's SystemExit must not end the loop of all other streams
                    report(self.loop, "A task on rxllm's background event loop raised.", error)

    async def _wait(self) -> None:
        await self._stop.wait()

    def _wait_until_released(self) -> None:
        """Wait, at the end of the main thread, until nothing is held. A forked child does not wait."""
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
        """Stop the loop when all non-daemon threads have ended, which cancels all tasks that are left."""
        self._wait_until_released()  # these threads may have subscribed since
        if self is _portal:
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=2)


_portal: _Portal | None = None
_portal_lock = threading.Lock()


def _check_threads() -> None:
    """Check that threads are real threads. If they are greenlets of one thread, the loop would block them all.

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
            portal = _Portal()
            portal.start()
            _portal = portal
        return _portal


def portal() -> Loop:
    """Return the process-wide background event loop, and start it at the first call."""
    return _portal_instance().loop


def is_portal(loop: Loop) -> bool:
    """Return whether this is the background event loop."""
    return _portal is not None and loop is _portal.loop


def hold() -> Callable[[], None]:
    """Keep the process from ending until the returned function is called."""
    return _portal_instance().hold()


def _forget_portal() -> None:
    """Drop the parent's portal in a forked child: its threads do not exist there."""
    global _portal, _portal_lock
    _portal, _portal_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_portal)
