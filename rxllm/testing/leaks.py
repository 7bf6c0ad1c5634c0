"""`nothing_left_behind`: checks that no thread, task or socket is left open."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..runtime.executor import EXECUTOR
from ..runtime.loop_local import _loop_local  # pyright: ignore[reportPrivateUsage]  (only tests close it early)
from ..runtime.portal import portal  # pyright: ignore[reportPrivateUsage]  (only tests close it early)

__all__ = ["nothing_left_behind"]

_DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def nothing_left_behind(patience: float = 5.0) -> Generator[None]:
    """Fail if the block leaves a thread, a task on rxllm's background loop or a socket open.

    ::

        with nothing_left_behind():
            for chunk in llm.stream("A long story"):
                break

    At the end, idle kept-alive connections are closed; they do not count. Sockets are checked on systems that list a
    process's files in ``/proc``, such as Linux.

    Args:
        patience: seconds to wait before a remaining resource counts as left behind.

    Raises:
        AssertionError: a resource is left; the message lists all of them.
    """
    portal()  # start it now: its thread and its sockets stay open on purpose
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    deadline = time.monotonic() + patience
    _close_clients(patience)
    if _left(threads, sockets):
        gc.collect()
    while (left := _left(threads, sockets)) and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    if left:
        raise AssertionError("left behind: " + "; ".join(left))


def _left(threads: set[threading.Thread], sockets: set[str]) -> list[str]:
    """Describe the resources that exist now and did not exist at the start."""
    loop = portal()
    lookups = EXECUTOR._threads  # they stay  # pyright: ignore[reportPrivateUsage]
    threads_left = [thread for thread in threading.enumerate() if thread not in threads and thread not in lookups]
    tasks = [
        task for task in asyncio.all_tasks(loop) if getattr(task.get_coro(), "__qualname__", "") != "_Portal._wait"
    ]
    return [*map(repr, threads_left), *map(repr, tasks), *(_sockets() - sockets)]


def _close_clients(patience: float) -> None:
    """Close the background loop's shared clients, which keep idle connections on purpose."""
    loop = portal()
    for (owner, _), (_, resource) in list(_loop_local.items()):
        if owner is loop:
            with suppress(RuntimeError):  # its function was garbage-collected, so it is closing already
                asyncio.run_coroutine_threadsafe(resource.aclose(), loop).result(patience)


def _sockets() -> set[str]:
    """Return the open sockets of this process; empty where the system does not list them."""
    links: set[str] = set()
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            links.add(str(entry.readlink()))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return {link for link in links if link.startswith("socket:")}
