"""`Lazy`: weights in memory, which the first request loads and all models with the same settings share.

The states of a `Lazy`: *new*, *loading* (`_loading` is a pending future), *loaded* (the future has a result). The lock
guards `_loading`. After a failed load, and after the death of a loaded engine, the next request loads again. The engine
is stopped when the `Lazy` is garbage-collected; its models and its running requests keep it alive.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ..errors import RxllmError
from ..exact import digest
from ..misuse import MisuseError
from ..runtime.executor import start_thread
from ..runtime.forks import reset_in_child

__all__ = ["Lazy", "Loaded", "shared"]


class Loaded(Protocol):
    """What a `Lazy` loads."""

    def is_alive(self) -> bool:
        """Return whether it can answer."""
        ...

    def stop(self) -> None:
        """Free everything. Blocks for a short time."""
        ...

    def disown(self) -> None:
        """Give it up in a forked child, whose parent keeps it."""
        ...


T = TypeVar("T", bound=Loaded)
L = TypeVar("L", bound="Lazy[Any]")


class Lazy(ABC, Generic[T]):
    """Loads something in a thread when it is first needed."""

    def __init__(self) -> None:
        self._loading: Future[T] | None = None
        reset_in_child(self._reset)

    @abstractmethod
    def load(self) -> T:
        """Load it. Blocks.

        Raises:
            MisuseError: a setting is wrong.
            RxllmError: it cannot be loaded.
        """

    def _reset(self) -> None:
        """Make it new in a forked child."""
        self._lock = threading.Lock()
        loading, self._loading = self._loading, None
        if loading is not None and loading.done() and loading.exception() is None:
            loading.result().disown()

    async def loaded(self) -> T:
        """Return what is loaded. The first call loads it in a thread; other calls wait for the same load.

        Raises:
            MisuseError: a setting is wrong.
            RxllmError: it cannot be loaded.
        """
        with self._lock:
            loading = self._loading
            if loading is None or (loading.done() and not loading.result().is_alive()):
                loading = self._loading = Future()
                loading.set_running_or_notify_cancel()  # a cancelled request does not cancel the load
                start_thread("rxllm-load", partial(self._load, loading))
        try:
            return await asyncio.wrap_future(loading)
        except (MisuseError, RxllmError) as error:
            raise copy.copy(error) from None  # each request adds its own facts to its error

    def _load(self, loading: Future[T]) -> None:
        try:
            result = self.load()
        except BaseException as error:
            with self._lock:
                self._loading = None
            loading.set_exception(error)
        else:
            weakref.finalize(self, _stop, result, os.getpid())
            loading.set_result(result)


def _stop(loaded: Loaded, owner: int) -> None:
    """Stop it, unless this is a fork of its owner."""
    if os.getpid() == owner:
        loaded.stop()


_shared: weakref.WeakValueDictionary[str, Lazy[Any]] = weakref.WeakValueDictionary()


def shared(make: Callable[[], L], *settings: object) -> L:
    """Return the `Lazy` with these settings: the same one as long as it lives.

    Raises:
        MisuseError: a setting is not a plain value.
    """
    try:
        json.dumps(settings, allow_nan=False)
        key = digest([*settings])
    except (TypeError, ValueError) as error:
        raise MisuseError(f"The options of a local model must be plain values: {error}.") from None
    return _shared.setdefault(key, make())  # type: ignore[return-value]
