"""`SQLiteHistory`: conversations in a SQLite database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..values.characters import json_of
from .database import path_of, transaction
from .history import History, Record

__all__ = ["SQLiteHistory"]

_TABLE = (
    "CREATE TABLE IF NOT EXISTS conversations (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, "
    "position INTEGER NOT NULL, record TEXT NOT NULL, UNIQUE (id, position))"
)


class SQLiteHistory(History):
    """Stores conversations in a SQLite database, which processes may share. It never changes or removes a record.

    A new file is readable by its owner only. Each call opens the file, so the object holds nothing open.

    Args:
        path: the file. It is created at the first use.

    Raises:
        MisuseError: `path` is not the path of a file.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path_of("SQLiteHistory", path, "A Conversation without a store is kept in memory.")

    def __repr__(self) -> str:
        return f"SQLiteHistory({str(self._path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)

    def ids(self) -> list[str]:
        """Return the ids of all conversations, the one that was written last first. This method blocks."""
        with transaction(self._path, _TABLE, private=True) as database:
            rows = database.execute("SELECT id FROM conversations GROUP BY id ORDER BY MAX(number) DESC")
            return [name for (name,) in rows]

    def read(self, id: str, start: int, /) -> Sequence[Record]:
        """Return the records of the conversation from position `start` on."""
        with transaction(self._path, _TABLE, private=True) as database:
            statement = "SELECT record FROM conversations WHERE id = ? AND position >= ? ORDER BY position"
            rows = database.execute(statement, (id, start)).fetchall()
        return [msgspec.json.decode(record, type=dict[str, Any]) for (record,) in rows]

    def write(self, id: str, position: int, records: Sequence[Record], /) -> bool:
        """Add records, if the conversation has exactly `position` records. Return whether it did."""
        rows = [(id, position + offset, json_of(record)) for offset, record in enumerate(records)]
        with transaction(self._path, _TABLE, private=True) as database:
            database.execute("BEGIN IMMEDIATE")  # so that no other process writes between the check and the end
            statement = "SELECT COALESCE(MAX(position) + 1, 0) FROM conversations WHERE id = ?"
            (length,) = database.execute(statement, (id,)).fetchone()
            if length != position:
                return False
            database.executemany("INSERT INTO conversations (id, position, record) VALUES (?, ?, ?)", rows)
        return True
