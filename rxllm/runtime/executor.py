"""The executor of the background event loop, whose daemon threads work until the process ends."""

from __future__ import annotations

import functools
import platform
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from ..misuse import MisuseError

__all__ = ["DaemonExecutor", "start_thread"]

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
            f"{platform.python_version()} starts no thread after that. The main thread can wait for yours with join()."
        ) from error
    return thread


class DaemonExecutor(ThreadPoolExecutor):
    """Runs the host-name lookups of the background loop, and other calls of its ``run_in_executor``.

    Python shuts down its own executors at the end of the main thread, when the streams of a script that only subscribed
    still run. Python 3.12.0 and 3.12.1 cannot start a thread at that time, so one is started at the beginning.
    """

    def __init__(self) -> None:
        super().__init__(MAX_THREADS)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = {start_thread("rxllm-executor", self._work)}  # pyright: ignore[reportIncompatibleVariableOverride]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call in a thread, as any executor does."""
        outcome: Future[T] = Future()
        self._jobs.put(functools.partial(_settle, outcome, functools.partial(fn, *args, **kwargs)))
        with self._lock:
            is_short = self._jobs.qsize() > self._idle and len(self._threads) < MAX_THREADS
        if is_short:
            with suppress(MisuseError):  # the present threads run the call
                self._threads.add(start_thread("rxllm-executor", self._work))
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after the queued jobs, without waiting for them."""
        for _ in range(len(self._threads)):
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                return
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
