"""Files of SQLite, as the stores open them."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

from rxllm.combinators.database import opened

TABLE = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER)"


def test_new_file_is_opened_while_another_process_makes_it(tmp_path):
    """Opening waits. SQLite itself fails at once when one connection changes the mode of a file that another writes."""
    path = tmp_path / "new.sqlite"
    with closing(sqlite3.connect(path)) as other, ThreadPoolExecutor(1) as pool:
        other.execute(TABLE)
        other.execute("INSERT INTO numbers VALUES (1)")  # holds the lock of the file until the commit
        opening = pool.submit(lambda: opened(path, TABLE).close())
        wait([opening], 0.1)
        other.commit()
        opening.result()
    with closing(opened(path, TABLE)) as database:
        assert ("wal",) == database.execute("PRAGMA journal_mode").fetchone()
        assert (1,) == database.execute("SELECT count(*) FROM numbers").fetchone()
