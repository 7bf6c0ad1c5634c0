"""`SQLiteStore` commits answers that wait together in one transaction."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import wait_until

from rxllm import Chunk, SQLiteStore
from rxllm.combinators import database as files
from rxllm.combinators import statements


@pytest.fixture
def path(tmp_path):
    """The path of a file that has its table."""
    asyncio.run(SQLiteStore(tmp_path / "answers.db").get("x"))
    return tmp_path / "answers.db"


@pytest.fixture
def happened(monkeypatch):
    """What the thread does, in its order: "commit" and "settle"."""
    order, transaction, settle = [], statements.transaction, statements._Call.settle

    @contextlib.contextmanager
    def noted(*arguments):
        with transaction(*arguments) as database:
            yield database
        order.append("commit")

    def settled(call):
        order.append("settle")
        settle(call)

    monkeypatch.setattr(statements, "transaction", noted)
    monkeypatch.setattr(statements._Call, "settle", settled)
    return order


@contextlib.contextmanager
def locked(path):
    """A block during which another connection holds the lock of the file."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


def keys_in(path):
    """The keys that another process would see."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return {key for (key,) in database.execute("SELECT key FROM answers")}


async def put_together(store, path, keys):
    """Put answers so that the first one waits for the file, and all others wait for the first. Return the results."""
    with locked(path):
        first = asyncio.create_task(store.put("first", [Chunk("a")]))
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: not store._insert._waiting)
        others = [asyncio.create_task(store.put(key, [Chunk("b")])) for key in keys]
        await asyncio.sleep(0)
        assert not any(task.done() for task in (first, *others))
    return await asyncio.gather(first, *others, return_exceptions=True)


async def test_answers_that_wait_share_one_commit(path, happened):
    """Each put returns after the commit of its answer."""
    keys = [f"k{number}" for number in range(50)]
    assert [None] * 51 == await put_together(SQLiteStore(path), path, keys)
    assert ["commit", "settle", "commit", *["settle"] * 50] == happened
    assert {"first", *keys} == keys_in(path)


async def test_transaction_has_a_bounded_number_of_answers(path, happened, monkeypatch):
    """Other processes get their turn in between."""
    monkeypatch.setattr(statements, "_MOST", 20)
    await put_together(SQLiteStore(path), path, [f"k{number}" for number in range(50)])
    assert 1 + 3 == happened.count("commit")


async def test_get_does_not_wait_for_a_put(path):
    """SQLite reads a file while another process writes it."""
    store = SQLiteStore(path)
    await store.put("x", [Chunk("a")])
    with locked(path):
        waiting = asyncio.create_task(store.put("y", [Chunk("b")]))
        assert [Chunk("a")] == await store.get("x")
        assert not waiting.done()
    await waiting


@pytest.mark.parametrize("how", ["ABORT", "ROLLBACK", "encoding"])
async def test_failing_answer_fails_its_own_put_only(path, how):
    """Also when SQLite ends the transaction, as for a full disk, with the answers before it."""
    bad = "bad"
    if how == "encoding":
        bad = "bad \ud800"
    else:
        with contextlib.closing(sqlite3.connect(path)) as database:
            refuse = f"BEGIN SELECT RAISE({how}, 'refused'); END"
            database.execute(f"CREATE TRIGGER refuse BEFORE INSERT ON answers WHEN NEW.key = 'bad' {refuse}")
    results = await put_together(SQLiteStore(path), path, ["a", bad, "b"])
    assert [None, None, UnicodeEncodeError if how == "encoding" else sqlite3.IntegrityError, None] == [
        result and type(result) for result in results
    ]
    assert {"first", "a", "b"} == keys_in(path)


async def test_answers_wait_for_another_process_only_once(path, monkeypatch):
    """All that wait fail together. Each after the other, they would wait for minutes."""
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    store, times = SQLiteStore(path), 100
    with locked(path):
        puts = [store.put(f"k{number}", [Chunk("a")]) for number in range(times)]
        results = await asyncio.wait_for(asyncio.gather(*puts, return_exceptions=True), 0.2 * times / 4)
    assert ["database is locked"] * times == list(map(str, results))
    await store.put("x", [Chunk("a")])


async def test_cancelled_put_affects_no_other(path):
    """Its answer is stored nevertheless, because it is paid for."""
    store = SQLiteStore(path)
    with locked(path):
        one, other = (asyncio.create_task(store.put(key, [Chunk("a")])) for key in "ab")
        await asyncio.sleep(0)
        one.cancel()
    await other
    assert {"a", "b"} == keys_in(path)


def test_closed_event_loop_affects_no_other(path):
    """Puts of several loops wait together, and one loop ends meanwhile."""
    store = SQLiteStore(path)

    async def put(key, ends):
        task = asyncio.ensure_future(store.put(key, [Chunk("a")]))
        await asyncio.sleep(0)
        if not ends:
            await task

    with ThreadPoolExecutor(3) as pool:
        with locked(path):
            asyncio.run(put("ends", ends=True))
            others = [pool.submit(asyncio.run, put(key, ends=False)) for key in "abc"]
            wait_until(lambda: len(store._insert._waiting) >= 3)
        assert [None] * 3 == [other.result() for other in others]
    assert {"ends", "a", "b", "c"} == keys_in(path)


async def test_put_without_a_thread_fails_and_the_next_one_works(path, monkeypatch):
    """A line without a thread would wait forever."""

    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    store = SQLiteStore(path)
    with monkeypatch.context() as patch:
        patch.setattr(statements, "start_thread", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            await store.put("x", [Chunk("a")])
    await store.put("y", [Chunk("a")])
    assert "y" in keys_in(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork_waits_for_the_transaction(tmp_path):
    """A child that inherits an open connection damages the file: SQLite takes the parent's locks for the child's."""
    script = """
import asyncio, contextlib, os, sys, threading
from rxllm import Chunk, SQLiteStore
from rxllm.combinators import statements

store, transaction = SQLiteStore(sys.argv[1]), statements.transaction
began, release = threading.Event(), threading.Event()

@contextlib.contextmanager
def slow(*arguments):
    with transaction(*arguments) as database:
        yield database
        began.set()
        release.wait()

def put(key):
    asyncio.run(store.put(key, [Chunk("a")]))

def fork():
    child = os.fork()
    if child == 0:
        statements.transaction = transaction
        put("child")
        os._exit(0)
    print(os.waitpid(child, 0)[1])

statements.transaction = slow
putting, forking = threading.Thread(target=put, args=["parent"]), threading.Thread(target=fork)
putting.start()
began.wait()
forking.start()
forking.join(0.2)
print(forking.is_alive(), flush=True)
release.set()
putting.join()
forking.join()
put("later")
"""
    path = tmp_path / "answers.db"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (0, "True\n0\n", "") == (done.returncode, done.stdout, done.stderr)
    assert {"parent", "child", "later"} == keys_in(path)
