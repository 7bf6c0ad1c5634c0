"""Daemon threads: `start_thread`, and `EXECUTOR` for the look-ups of host names."""

from __future__ import annotations

import functools
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from ..misuse import MisuseError
from .forks import reset_in_child

__all__ = ["EXECUTOR", "start_thread"]

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 32


def start_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        MisuseError: the main thread has ended, and this Python can no longer start a thread.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        if threading.main_thread().is_alive():  # too many threads, or too little memory
            raise
        raise MisuseError(
            "This call needs a new thread, but the main thread has ended, and Python "
            f"{sys.version.split()[0]} starts no thread after that. The main thread can wait for yours with join()."
        ) from error
    return thread


class DaemonExecutor(ThreadPoolExecutor):
    """Runs blocking calls in a few daemon threads, which work until the process ends.

    Python shuts down its own executors at the end of the main thread, when threads and the streams of a script that
    only subscribed may still run. A thread of an executor of its own also keeps the process alive until its call ends.

    Ctrl-C can interrupt a call of `submit` between any two steps, so it takes no lock, only puts into queues.
    """

    def __init__(self) -> None:
        super().__init__(MAX_THREADS)
        reset_in_child(self._forget_threads)

    def _forget_threads(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle: queue.SimpleQueue[None] = queue.SimpleQueue()  # one item for each thread that waits for a job
        self._threads: set[threading.Thread] = set()  # pyright: ignore[reportIncompatibleVariableOverride]

    def start(self) -> None:
        """Start the first thread. Python 3.12.0 and 3.12.1 could not start it after the end of the main thread."""
        if not self._threads:
            self._add_thread()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call in a thread, as any executor does.

        Raises:
            MisuseError: there is no thread yet, and this Python can no longer start one.
        """
        outcome: Future[T] = Future()
        self._jobs.put(functools.partial(_settle, outcome, functools.partial(fn, *args, **kwargs)))
        try:
            self._idle.get_nowait()
        except queue.Empty:
            if len(self._threads) < MAX_THREADS:
                try:
                    self._add_thread()
                except (MisuseError, RuntimeError):
                    if not self._threads:
                        outcome.cancel()
                        raise
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the closing loop calls this, but other loops share the threads."""

    def _add_thread(self) -> None:
        self._threads.add(start_thread("rxllm-executor", self._work))

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                self._idle.put(None)
                job = self._jobs.get()
            job()
            del job


def _settle(outcome: Future[Any], call: Callable[[], Any]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)


EXECUTOR = DaemonExecutor()
"""Looks up host names for all event loops, and is the default executor of the background loop."""
