"""`Intents`: the batches of a job, in a file beside its journal.

A batch is written down before it is created, with its rows and its tag. So after a crash at any point the next run
finds the batch, instead of paying for another one. What it reserves in a budget is written down even before its
requests are uploaded, so that the next run gives it back. A record is one line of JSON; later records add to earlier
ones with the same tag.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from ..combinators.budget import Reservation
from ..misuse import MisuseError
from ..providers.batch_values import Lost
from .rows import Row
from .writing import TO_APPEND, write_whole

__all__ = ["Intent", "Intents", "Noted"]

_VERSION = 1  # of the form of a record


class Noted(msgspec.Struct, array_like=True):
    """The facts of a row that its result needs."""

    key: str
    id: str
    number: int
    digest: str
    attempt: int

    @classmethod
    def of(cls, row: Row) -> Noted:
        """Return the facts of a row."""
        return cls(row.key, row.id, row.number, row.digest, row.attempt)


class Intent(msgspec.Struct):
    """A batch that a job creates.

    Attributes:
        tag: its tag.
        at: when it was written down, in seconds since 1970.
        rows: its rows.
        batch: the vendor's id, once the vendor has answered.
        ended: whether its results are in the journal.
        version: the version of the form.
        api: the name of the vendor's API; empty in records of earlier versions.
        file: the id of the file that was uploaded for it; empty if there is none.
        reserved: what it has reserved in the budget of the job, if it has one.
    """

    tag: str
    at: float
    rows: list[Noted] = []
    batch: str = ""
    ended: bool = False
    version: int = _VERSION
    api: str = ""
    file: str = ""
    reserved: Reservation | None = None

    def lost(self, others: Collection[str] = ()) -> Lost:
        """Return what is known of the batch, for the search for it. `others` are ids of other batches."""
        return Lost(self.tag, self.file, self.at, frozenset(row.key for row in self.rows), others)


class Intents:
    """The file of intents. All methods block.

    Args:
        journal: the path of the journal.
    """

    def __init__(self, journal: Path) -> None:
        journal = journal.resolve()  # so that a link to the journal leads to the same batches
        self.path = journal.with_name(f"{journal.name}.batches")
        self._lock = threading.Lock()

    def open(self) -> list[Intent]:
        """Return the batches whose results are not in the journal.

        Raises:
            MisuseError: the file is not one of a job.
        """
        return [intent for intent in self._unended() if intent.rows or intent.batch]

    def reserved(self) -> list[Intent]:
        """Return the batches that have reserved something, and were not created.

        Raises:
            MisuseError: the file is not one of a job.
        """
        return [intent for intent in self._unended() if not (intent.rows or intent.batch)]

    def _unended(self) -> Collection[Intent]:
        found: dict[str, Intent] = {}
        for intent in self._records():
            if intent.ended:
                found.pop(intent.tag, None)
            elif intent.rows or intent.tag not in found:
                found[intent.tag] = intent
            else:
                found[intent.tag].batch = intent.batch
        return found.values()

    def batches(self) -> set[str]:
        """Return the ids of all batches of the job.

        Raises:
            MisuseError: the file is not one of a job.
        """
        return {intent.batch for intent in self._records() if intent.batch}

    def _records(self) -> Iterator[Intent]:
        for number, line in enumerate(self._lines(), 1):
            try:
                intent = msgspec.json.decode(line, type=Intent)
            except msgspec.DecodeError as error:
                raise MisuseError(f"Line {number} of {str(self.path)!r} was not written by a job ({error}).") from None
            if intent.version > _VERSION:
                raise MisuseError(f"A later rxllm wrote {str(self.path)!r}. Upgrade rxllm.")
            yield intent

    def mend(self) -> None:
        """Remove a last line that a crash has cut."""
        with suppress(FileNotFoundError):
            os.truncate(self.path, sum(map(len, self._lines())))

    def _lines(self) -> Iterator[bytes]:
        """Yield the whole lines, one at a time: those of a million rows would fill the memory."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # else a crash has cut it, before the batch was made
                    yield line

    def write(self, intent: Intent) -> None:
        """Add a record, and wait until it is on the disk. If the disk is full, nothing of it stays.

        Raises:
            OSError: the record cannot be written.
        """
        line = msgspec.json.encode(intent) + b"\n"
        with self._lock:
            descriptor = os.open(self.path, TO_APPEND, 0o600)
            try:
                write_whole(descriptor, line, os.fstat(descriptor).st_size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
