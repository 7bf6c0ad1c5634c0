"""The stores of `cached`: `MemoryStore` and `SQLiteStore`. A `Store` of your own has two methods."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..misuse import MisuseError
from ..operators.caching import Store
from ..records import of_json, to_json
from ..runtime.forks import reset_in_child
from ..values.characters import json_of
from ..values.chunk import Chunk
from .database import path_of
from .statements import Statement

__all__ = ["MemoryStore", "SQLiteStore", "Store"]


class MemoryStore(Store):
    """Keeps answers in memory. When it is full, it drops the least recently used answer. Any thread may use it.

    Args:
        size: the largest number of answers.
    """

    def __init__(self, size: int = 1024) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"size must be a whole number of at least 1, not {size!r}.")
        self._size = size
        self._answers: OrderedDict[str, tuple[Chunk, ...]] = OrderedDict()
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Replace the lock, because in a forked child a lock that the parent held is never released."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"MemoryStore(size={self._size})"

    def __getstate__(self) -> tuple[int, OrderedDict[str, tuple[Chunk, ...]]]:
        with self._lock:
            return self._size, self._answers.copy()

    def __setstate__(self, state: tuple[int, OrderedDict[str, tuple[Chunk, ...]]]) -> None:
        self._size, self._answers = state
        reset_in_child(self._reset)

    def get(self, key: str, /) -> tuple[Chunk, ...] | None:
        """Return the chunks under the key; None if there are none."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def put(self, key: str, chunks: Sequence[Chunk], /) -> None:
        """Store the chunks of a whole answer under the key."""
        with self._lock:
            self._answers[key] = tuple(chunks)
            self._answers.move_to_end(key)
            if len(self._answers) > self._size:
                self._answers.popitem(last=False)


_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, chunks TEXT NOT NULL)"
_SELECT = "SELECT chunks FROM answers WHERE key = ?"
_INSERT = "INSERT OR REPLACE INTO answers (key, chunks) VALUES (?, ?)"


class SQLiteStore(Store):
    """Keeps answers in a SQLite database, which processes may share. It never removes an answer.

    A thread opens the file, because a disk may be slow. Answers that wait for it at the same time share one commit.

    Args:
        path: the file. It is created at the first use.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path_of("SQLiteStore", path, "Use MemoryStore to keep answers in memory.")
        self._select = Statement(self._path, _TABLE, _SELECT, writes=False)
        self._insert = Statement(self._path, _TABLE, _INSERT, writes=True)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self._path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path.absolute(),)  # another process may have another working directory

    async def get(self, key: str, /) -> list[Chunk] | None:
        """Return the chunks under the key; None if there are none."""
        rows = await self._select(key)
        return (
            [of_json(record) for record in msgspec.json.decode(rows[0][0], type=list[dict[str, Any]])] if rows else None
        )

    async def put(self, key: str, chunks: Sequence[Chunk], /) -> None:
        """Store the chunks of a whole answer under the key. It is on the disk when this method returns."""
        await self._insert(key, json_of([to_json(chunk) for chunk in chunks]))
