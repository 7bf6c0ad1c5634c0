"""`SQLiteLog`: the answers of a relay in a SQLite file, which the processes of one machine share.

One thread holds the connection, since SQLite blocks. A process hears of the writes of other processes by asking for
``PRAGMA data_version`` every few milliseconds while it has readers; the pragma costs no disk access.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from ..combinators.database import opened, path_of
from ..runtime.forks import fork_waits, reset_in_child
from .logs import END, PAGE, Ending, Entry, Heard, Key, Listeners, Log, LogLost, Position, next_epoch

__all__ = ["SQLiteLog"]

T = TypeVar("T")

_ANSWERS = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, epoch INTEGER NOT NULL, ended INTEGER NOT NULL, "
    "lease REAL NOT NULL, attended REAL NOT NULL)"
)
_ENTRIES = (
    "CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, "
    "epoch INTEGER NOT NULL, seq INTEGER NOT NULL, ending TEXT, data BLOB NOT NULL, UNIQUE (key, epoch, seq))"
)
_POLL = 0.02  # seconds between two looks for the writes of other processes
_WRITE = "INSERT OR IGNORE INTO entries (key, epoch, seq, ending, data) VALUES (?, ?, ?, ?, ?)"
_KEPT = "SELECT 1 FROM answers WHERE key = ? AND epoch = ?"
_OPEN = f"{_KEPT} AND NOT ended"


class SQLiteLog(Log):
    """Keeps the answers in a SQLite file, so that readers may come back to another process of the same machine.

    A new file is readable by its owner only, because it has the texts of all answers.

    Args:
        path: the file. It is created at the first use.
        lease: the seconds after which an answer counts as interrupted if its producer gives no sign of life.
        keep: the seconds for which an answer can be read after its end.

    Raises:
        MisuseError: `path` is not the path of a file.
    """

    def __init__(self, path: str | Path, *, lease: float = 5.0, keep: float = 600.0) -> None:
        self._path = path_of("SQLiteLog", path, "A Relay without a log keeps its answers in memory.")
        self.lease = lease
        self.keep = keep
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the connection in a forked child, with the thread and the task of the parent that use it.

        The child closes its copy of the connection here, before it opens one of its own: SQLite would take the locks of
        the parent for those of the child.
        """
        self._listeners = Listeners()
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None
        self._poller: asyncio.Task[None] | None = None
        self._version = -1
        self._seen = 0  # the number of the last entry that the listeners have heard of

    def __repr__(self) -> str:
        return f"SQLiteLog({str(self._path)!r})"

    async def begin(self, key: Key, attended: float) -> int:
        """Begin an answer."""
        name, now = _name(key), time.time()

        def write(database: sqlite3.Connection) -> int:
            database.execute("BEGIN IMMEDIATE")
            self._purge(database, now)
            row = database.execute("SELECT epoch, ended FROM answers WHERE key = ?", (name,)).fetchone()
            latest, ended = row or (0, True)
            if not ended:
                database.execute(_WRITE, (name, latest, END, "abort", b""))
            kept = (name, latest, END)  # other processes may not have heard of this end
            database.execute("DELETE FROM entries WHERE key = ? AND NOT (epoch = ? AND seq = ?)", kept)
            epoch = next_epoch(latest)
            values = (name, epoch, 0, now + self.lease, now + attended)
            database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values)
            return epoch

        return await self._call(write)

    async def append(self, key: Key, epoch: int, first: int, events: Sequence[bytes]) -> bool:
        """Add events."""
        name = _name(key)
        rows = [(name, epoch, first + offset, None, event) for offset, event in enumerate(events)]

        def write(database: sqlite3.Connection) -> bool:
            database.execute("BEGIN IMMEDIATE")
            if database.execute(_OPEN, (name, epoch)).fetchone() is None:
                return False
            database.executemany(_WRITE, rows)
            return True

        added = await self._call(write)
        self._listeners.tell(key)
        return added

    async def end(self, key: Key, epoch: int, ending: Ending, data: bytes = b"") -> None:
        """End an answer, unless it has ended."""
        await self._end(key, epoch, ending, data)

    async def settle(self, key: Key, epoch: int) -> bool:
        """End the answer as interrupted if its lease has run out."""
        return await self._end(key, epoch, "interrupted", b"", before=time.time())

    async def _end(self, key: Key, epoch: int, ending: Ending, data: bytes, before: float | None = None) -> bool:
        name = _name(key)

        def write(database: sqlite3.Connection) -> bool:
            database.execute("BEGIN IMMEDIATE")
            if database.execute(f"{_OPEN} AND lease < ?", (name, epoch, before or float("inf"))).fetchone() is None:
                return False
            database.execute(_WRITE, (name, epoch, END, ending, data))
            database.execute("UPDATE answers SET ended = 1, lease = ? WHERE key = ?", (time.time(), name))
            return True

        ended = await self._call(write)
        if ended:
            self._listeners.tell(key, epoch)
        return ended

    async def read(self, key: Key, after: Position) -> Sequence[Entry] | None:
        """Return the entries that follow."""
        name, epoch = _name(key), after.epoch

        def look(database: sqlite3.Connection) -> Sequence[Entry] | None:
            statement = (
                "SELECT seq, data, ending FROM entries JOIN answers USING (key, epoch) "
                "WHERE key = ? AND epoch = ? AND seq > ? ORDER BY seq LIMIT ?"
            )
            rows = database.execute(statement, (name, epoch, after.seq, PAGE)).fetchall()
            if not rows and database.execute(_KEPT, (name, epoch)).fetchone() is None:
                return None
            return [Entry(Position(epoch, seq), data, ending) for seq, data, ending in rows]

        return await self._call(look)

    async def latest(self, key: Key) -> Position | None:
        """Return the id of the last entry."""
        name = _name(key)

        def look(database: sqlite3.Connection) -> Position | None:
            statement = (
                "SELECT epoch, (SELECT COALESCE(MAX(seq), 0) FROM entries WHERE entries.key = answers.key AND "
                "entries.epoch = answers.epoch) FROM answers WHERE key = ?"
            )
            row = database.execute(statement, (name,)).fetchone()
            return Position(*row) if row else None

        return await self._call(look)

    async def attend(self, keys: Collection[Key], seconds: float) -> None:
        """Let the answers count as read."""
        until = time.time() + seconds
        rows = [(until, _name(key)) for key in keys]
        statement = "UPDATE answers SET attended = ? WHERE key = ?"
        if rows:
            await self._call(lambda database: database.executemany(statement, rows))

    async def renew(self, answers: Collection[tuple[Key, int]]) -> Collection[tuple[Key, int]]:
        """Renew the leases. Return the answers that have no reader, and those that have ended."""
        now = time.time()

        def write(database: sqlite3.Connection) -> list[tuple[Key, int]]:
            statement = "UPDATE answers SET lease = ? WHERE key = ? AND epoch = ? AND NOT ended AND attended > ?"
            return [
                (key, epoch)
                for key, epoch in answers
                if not database.execute(statement, (now + self.lease, _name(key), epoch, now)).rowcount
            ]

        return await self._call(write) if answers else []

    @asynccontextmanager
    async def listening(self, key: Key, heard: Heard) -> AsyncGenerator[None]:
        """Let a function hear the changes."""
        self._listeners.add(key, heard)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="rxllm log poller")
        try:
            yield
        finally:
            self._listeners.remove(key, heard)

    async def aclose(self) -> None:
        """Close the file, and end the thread."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        if self._thread is not None:
            if self._database is not None:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
            self._thread.shutdown()
            self._thread = self._database = None

    async def _poll(self) -> None:
        """Tell the listeners of the writes of other processes."""
        while self._listeners:
            with suppress(LogLost):
                for name, epoch, seq in await self._call(self._news):
                    self._listeners.tell(msgspec.json.decode(name, type=Key), epoch if seq == END else None)
            await asyncio.sleep(_POLL)

    def _news(self, database: sqlite3.Connection) -> list[tuple[str, int, int]]:
        (version,) = database.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return []
        self._version = version
        statement = "SELECT key, epoch, MAX(seq), MAX(number) FROM entries WHERE number > ? GROUP BY key, epoch"
        rows = database.execute(statement, (self._seen,)).fetchall()
        self._seen = max([self._seen, *(number for *_, number in rows)])
        return [(name, epoch, seq) for name, epoch, seq, _ in rows]

    def _purge(self, database: sqlite3.Connection, now: float) -> None:
        """Delete the answers that ended, or whose lease ran out, more than `keep` seconds ago.

        The end of an answer sets its ``lease`` to the time of the end.
        """
        database.execute(
            "DELETE FROM entries WHERE key IN (SELECT key FROM answers WHERE lease < ?)", (now - self.keep,)
        )
        database.execute("DELETE FROM answers WHERE lease < ?", (now - self.keep,))

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with the connection, in the thread, as one transaction.

        Raises:
            LogLost: SQLite failed.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "rxllm log")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)
        except sqlite3.Error as error:
            raise LogLost(str(error)) from error

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with fork_waits():
            if self._database is None:
                self._database = opened(self._path, _ANSWERS, _ENTRIES, private=True)
                (self._seen,) = self._database.execute("SELECT COALESCE(MAX(number), 0) FROM entries").fetchone()
            with self._database:
                return work(self._database)


def _name(key: Key) -> str:
    return msgspec.json.encode(key).decode()
