"""Files of SQLite: how `SQLiteStore`, `SQLiteHistory` and `SQLiteLog` open theirs."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ..misuse import MisuseError, shown
from ..runtime.forks import fork_waits

__all__ = ["opened", "path_of", "transaction"]

_PATIENCE = 30.0  # seconds for which a transaction waits for others
_VERSION = 1  # of the file format, kept in the field user_version of SQLite


def path_of(name: str, path: str | Path, in_memory: str) -> Path:
    """Return the path of a database.

    Raises:
        MisuseError: it is not the path of a file.
    """
    if not isinstance(path, (str, Path)) or "\0" in str(path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MisuseError(f"{name} needs the path of a file, as text or as a Path, not {shown(path)}.")
    if str(path) in ("", ":memory:"):
        raise MisuseError(f"{name} needs the path of a file, not {str(path)!r}. {in_memory}")
    return Path(path)


@contextmanager
def transaction(path: Path, table: str, *, private: bool = False) -> Generator[sqlite3.Connection]:
    """Open the file for one transaction, and make its table at the first use.

    Forks of other threads wait for its end. A connection does not work in a forked child: SQLite would take the locks
    of the parent for the child's own, and damage the file.

    Args:
        path: the file.
        table: the statement that makes the table.
        private: whether only the owner may read a new file.

    Raises:
        MisuseError: a later version of rxllm wrote the file.
    """
    with fork_waits(), closing(opened(path, table, private=private)) as database, database:
        yield database


def opened(path: Path, *tables: str, private: bool = False) -> sqlite3.Connection:
    """Open the file, and make its tables at the first use. The arguments and the error are those of `transaction`."""
    if private:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, timeout=_PATIENCE)
    try:
        _prepare(database, path, tables)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path, tables: Sequence[str]) -> None:
    """Make the file ready. SQLite itself does not wait while another connection turns a new file to its WAL mode."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with database:
                database.execute("PRAGMA journal_mode=WAL")
                _check_version(database, path)
                for table in tables:
                    database.execute(table)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    """Write the version into a new file, and raise MisuseError for another version."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:  # a new file, or one from before the versions, which has the same format
        database.execute(f"PRAGMA user_version={_VERSION}")
    elif version != _VERSION:
        raise MisuseError(
            f"The file {str(path)!r} has format version {version}, but this rxllm reads version {_VERSION}. Use "
            "another file, or a later rxllm."
        )
