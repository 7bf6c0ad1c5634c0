"""Files of SQLite, as the stores open them."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork_within_a_transaction_does_not_wait_for_itself(tmp_path):
    """As a signal handler may fork. Later transactions work in the parent."""
    script = """
import os, sys
from pathlib import Path
from rxllm.combinators.database import transaction

for _ in range(2):
    with transaction(Path(sys.argv[1]), sys.argv[2]) as database:
        database.execute("INSERT INTO numbers VALUES (1)")
        child = os.fork()
        if child == 0:
            os._exit(0)
    print(os.waitpid(child, 0)[1])
"""
    path = tmp_path / "numbers.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), TABLE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (0, "0\n0\n", "") == (done.returncode, done.stdout, done.stderr)
    with closing(opened(path, TABLE)) as database:
        assert (2,) == database.execute("SELECT count(*) FROM numbers").fetchone()
