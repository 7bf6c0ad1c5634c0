"""The portal: a background event loop for code that has none."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport]  (its exit hook comes first)
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from .loops import Loop, report

__all__ = ["portal"]


class _Portal:
    """An event loop in a daemon thread, so that synchronous programs share connections and need no loop."""

    def __init__(self) -> None:
        ready: queue.SimpleQueue[Loop] = queue.SimpleQueue()
        self._held = 0
        self._is_patient = True  # until Ctrl-C
        self._quiet = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="rxllm-portal", daemon=True)
        self._thread.start()
        self.loop = ready.get()
        # Not atexit: by then concurrent.futures has shut down, and a request that is still to come could not look
        # up its host. These hooks run before that, last registered first.
        with suppress(RuntimeError):  # the main thread has ended already
            threading._register_atexit(self._hear_out)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        # But at exit it closes: threads that are no daemons may read on after the main thread's end.
        atexit.register(self._finish)

    def hold(self) -> Callable[[], None]:
        """Keeps the process from ending until the returned function is called."""
        with self._quiet:
            self._held += 1

        held = True

        def release() -> None:
            nonlocal held
            with self._quiet:
                self._held -= held
                held = False
                self._quiet.notify_all()

        return release

    def _run(self, ready: queue.SimpleQueue[Loop]) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            self._stop = asyncio.Event()
            ready.put(loop)
            while not self._stop.is_set():
                try:
                    runner.run(self._wait())
                except BaseException as error:  # a subscriber's SystemExit must not take the others' loop away
                    report(loop, "A task of rxllm's event loop raised.", error)

    async def _wait(self) -> None:
        await self._stop.wait()

    def _hear_out(self) -> None:
        """At the end of the main thread: waits for whoever has only subscribed. In a forked child that is nobody."""
        if self is _portal and self._is_patient:
            try:
                with self._quiet:
                    self._quiet.wait_for(lambda: not self._held)
            except KeyboardInterrupt:  # all requests are closed
                self._is_patient = False

    def _finish(self) -> None:
        """At the end of all threads but the daemons: closes the loop, which cancels what is left."""
        self._hear_out()  # those threads may have subscribed since
        if self is _portal:
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=2)


_portal: _Portal | None = None
_portal_lock = threading.Lock()


def _portal_instance() -> _Portal:
    global _portal
    with _portal_lock:
        if _portal is None:
            _portal = _Portal()
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
    """A forked child has the parent's portal without its thread: it needs one of its own."""
    global _portal, _portal_lock
    _portal, _portal_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_portal)
