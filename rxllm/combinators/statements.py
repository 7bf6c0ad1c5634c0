"""`Statement`: an SQL statement of which the calls that wait together share one transaction.

A commit waits for the disk, so a commit for each call allows some hundred calls a second. While a transaction runs, new
calls wait in a line, and the next transaction takes them all.

States of a call: waiting (in the line), running (in the transaction of the thread), settled (after the commit, its
event loop gets the rows or the error). The thread runs while calls wait. `_lock` guards the line and `_is_running`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field

from ..runtime.executor import start_thread
from ..runtime.forks import reset_in_child
from ..runtime.loops import Loop, expect, raisable
from .database import transaction

__all__ = ["Statement"]

_MOST = 1000  # calls in a transaction: other processes wait for its end


@define(eq=False)
class _Call:
    """A call, and its result."""

    values: tuple[str, ...]
    loop: Loop
    outcome: asyncio.Future[list[Any]]
    rows: list[Any] = field(factory=list[Any])
    error: BaseException | None = None

    def settle(self) -> None:
        """Give the result to the caller, unless its event loop is closed."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if self.outcome.done():  # the caller was cancelled
            return
        if self.error is None:
            self.outcome.set_result(self.rows)
        else:
            self.outcome.set_exception(raisable(self.error))


class Statement:
    """A statement for a SQLite file. Any event loop of any thread may call it.

    Args:
        path: the file. Each transaction opens it.
        table: the statement that makes its table.
        text: the statement, with a ``?`` for each value of a call.
        writes: whether the statement writes.
    """

    def __init__(self, path: Path, table: str, text: str, *, writes: bool) -> None:
        self._path = path
        self._table = table
        self._text = text
        # A transaction that will write takes the lock of the file first, so it waits for other processes only once.
        self._begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the calls of the parent in a forked child, and its thread, which the child does not have."""
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._is_running = False

    async def __call__(self, *values: str) -> list[Any]:
        """Execute the statement with these values, and return its rows after the commit.

        A cancelled call is executed, but its result is dropped.

        Raises:
            MisuseError: a later version of rxllm wrote the file.
            sqlite3.Error: SQLite failed.
        """
        loop = asyncio.get_running_loop()
        call = _Call(values, loop, expect(loop.create_future()))
        with self._lock:
            self._waiting.append(call)
            is_first, self._is_running = not self._is_running, True
        if is_first:
            try:
                start_thread("rxllm-statements", self._run)
            except Exception as error:  # there are too many threads, or the process ends: nothing else ends the wait
                while group := self._next():
                    _settle(group, error)
        return await call.outcome

    def _run(self) -> None:
        while group := self._next():
            self._execute(group)

    def _next(self) -> list[_Call]:
        """Return the calls for the next transaction. After an empty list, the next call starts a thread."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
            self._is_running = bool(group)
        return group

    def _execute(self, group: list[_Call]) -> None:
        """Execute calls in one transaction, and settle them.

        SQLite usually takes back a statement that fails, and keeps the transaction. If it ends the transaction, as for
        a full disk, each call gets a transaction of its own, because the reason may be one large answer.
        """
        has_begun = False
        try:
            with transaction(self._path, self._table) as database:
                database.execute(self._begin)
                has_begun = True
                for call in group:
                    try:
                        call.rows = database.execute(self._text, call.values).fetchall()
                    except Exception as error:
                        if not database.in_transaction:
                            raise
                        call.error = error
        except BaseException as error:
            if has_begun and len(group) > 1:
                for call in group:
                    call.error = None
                    self._execute([call])
            else:
                _settle(group, error)
        else:
            _settle(group)


def _settle(group: list[_Call], error: BaseException | None = None) -> None:
    for call in group:
        call.error = error or call.error
        call.settle()
