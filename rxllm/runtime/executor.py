"""The portal's executor: threads that work until the process ends."""

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

MOST = 32  # threads


def start_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Starts a daemon thread.

    Raises:
        MisuseError: the main thread has ended, and this Python starts no thread any more.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        if threading.main_thread().is_alive():  # too many threads, or too little memory
            raise
        raise MisuseError(
            f"The main thread has ended, and Python {platform.python_version()} starts no thread after that, but this "
            "call needs one. Have the main thread wait for yours, with thread.join()."
        ) from error
    return thread


class DaemonExecutor(ThreadPoolExecutor):
    """Looks up host names for the portal's loop, and runs what is given to its ``run_in_executor``.

    Python ends its own executors with the main thread, when a script that has only subscribed is still to be heard out.
    Python 3.12.0 and 3.12.1 start no thread any more by then, so one is there from the beginning.
    """

    def __init__(self) -> None:
        super().__init__(MOST)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = {start_thread("rxllm-executor", self._work)}  # pyright: ignore[reportIncompatibleVariableOverride]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As of any executor."""
        outcome: Future[T] = Future()
        self._jobs.put(functools.partial(_settle, outcome, functools.partial(fn, *args, **kwargs)))
        with self._lock:
            is_short = self._jobs.qsize() > self._idle and len(self._threads) < MOST
        if is_short:
            with suppress(MisuseError):  # those that are there do it
                self._threads.add(start_thread("rxllm-executor", self._work))
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the threads when they have done their jobs; waits for none."""
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
