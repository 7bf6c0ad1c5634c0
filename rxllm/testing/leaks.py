"""`nothing_left_behind`: no thread, no task and no socket."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Generator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..runtime.loop_local import _loop_local  # pyright: ignore[reportPrivateUsage]  (only tests close it early)
from ..runtime.portal import portal  # pyright: ignore[reportPrivateUsage]  (only tests close it early)

__all__ = ["nothing_left_behind"]

_DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def nothing_left_behind(patience: float = 5.0) -> Generator[None]:
    """Fails if what runs inside leaves a thread, a task on rxllm's background loop or an open socket behind.

    ::

        with nothing_left_behind():
            for chunk in llm.stream("A long story"):
                break

    Connections that are kept alive on purpose are closed at the end, and count for nothing. Sockets are seen where the
    system lists a process's files in ``/proc``, as Linux does.

    Args:
        patience: seconds until what is still there counts as left behind.

    Raises:
        AssertionError: something is left; the sentence says what.
    """
    portal()  # its thread and its sockets are there for good
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
    """What there is now and was not then, in words."""
    loop: Any = portal()
    pool = loop._default_executor  # its threads, which look up names, stay
    lookups: Set[threading.Thread] = pool._threads if isinstance(pool, ThreadPoolExecutor) else frozenset()
    ours = [thread for thread in threading.enumerate() if thread not in threads and thread not in lookups]
    tasks = [
        task for task in asyncio.all_tasks(loop) if getattr(task.get_coro(), "__qualname__", "") != "_Portal._wait"
    ]
    return [*map(repr, ours), *map(repr, tasks), *(_sockets() - sockets)]


def _close_clients(patience: float) -> None:
    """Closes what is kept for the background loop: its shared client holds idle connections on purpose."""
    loop = portal()
    for (owner, _), (_, keeper) in list(_loop_local.items()):
        if owner is loop:
            with suppress(RuntimeError):  # it closes already, because its function is gone
                asyncio.run_coroutine_threadsafe(keeper.aclose(), loop).result(patience)


def _sockets() -> set[str]:
    """The open sockets of this process; none where the system does not list them."""
    links: set[str] = set()
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            links.add(str(entry.readlink()))
        except FileNotFoundError:  # the descriptor that lists the others
            continue
    return {link for link in links if link.startswith("socket:")}
