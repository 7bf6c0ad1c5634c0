"""`Journal`: the file that holds the results of a job.

The file is the only truth. A record is one line, and the next one follows only when it is whole. So a crash leaves at
most one incomplete line, the last one, and opening the journal removes it. One process at a time has the journal open:
a lock of the system says so, and ends with the process.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..misuse import MisuseError, shown
from ..public import Public
from ..runtime.executor import start_thread
from ..values.message import Message
from .index import Index, short_digest
from .lines import BEGINNING, Line, line_of, read_line, result_of
from .locking import is_at, lock, unlock
from .rescue import rescue
from .result import Result
from .writing import TO_APPEND, write_whole

__all__ = ["Journal", "OpenJournal"]

_BLOCK = 1 << 20  # bytes that are read at once
_FSYNC_INTERVAL = 1.0  # seconds; only a power failure needs it, a crash of the process does not
_SEEN, _FAILED = 1, 2  # the lower bits of a number in the index; the others are 1 + the offset of the line


class Journal(metaclass=Public):
    """The results of a job, one JSON line each, in the form of OpenAI's batch output.

    ::

        journal = rxllm.Journal("answers.jsonl")
        for result in rxllm.from_iter(rows).pipe(rxllm.job(llm, journal), rxllm.stream()):
            print(result.id, result.text)

    What is written is never lost or asked again. A new file is readable by its owner only.

    Args:
        path: the file. It is created at the first use.

    Raises:
        MisuseError: `path` is not the path of a file.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, (str, Path)) or "\0" in str(path) or str(path) == "":  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"A Journal needs the path of a file, as text or as a Path, not {shown(path)}.")
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r})"

    def results(self) -> Iterator[Result]:
        """Yield the results that the file holds, also while a job writes to it. This method blocks.

        A row that failed and was asked again has several results; the last one counts.

        Raises:
            MisuseError: a line is not one of a job.
        """
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):  # the line is being written, or a crash cut it
                    return
                try:
                    yield result_of(line)
                except ValueError as error:
                    raise _foreign(self.path, number, error) from None

    def open(self, *, by_request: bool = False) -> OpenJournal:
        """Open the file for a job, and read which rows it holds. This method blocks.

        Args:
            by_request: whether `OpenJournal.answer_to` must find answers; it takes as much memory again.

        Raises:
            MisuseError: another process has it open, a line is not one of a job, or the file cannot be opened.
        """
        while not is_at(self.path, descriptor := self._locked()):  # another process replaced the file meanwhile
            os.close(descriptor)
        try:
            return OpenJournal(self, descriptor, by_request=by_request)
        except BaseException:
            os.close(descriptor)
            raise

    def _locked(self) -> int:
        try:
            descriptor = os.open(self.path, TO_APPEND, 0o600)
        except OSError as error:
            raise MisuseError(f"The journal {str(self.path)!r} cannot be opened: {error.strerror}.") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise MisuseError(f"The journal {str(self.path)!r} is not a regular file. Choose a file.")
            lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise MisuseError(
                f"Another job writes to {str(self.path)!r}. Wait until it ends, or choose another output."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class OpenJournal:
    """A journal that a job has open. Its event loop calls all methods but `close`, which may be called twice.

    Attributes:
        failed: the number of rows whose last result is a failure.
        is_displaced: whether the file was moved or deleted. `close` saves what is written to it.
    """

    def __init__(self, journal: Journal, descriptor: int, *, by_request: bool) -> None:
        self.journal = journal
        self.failed = 0
        self.is_displaced = False
        self._path = journal.path.absolute()  # the program may change its working directory
        self._descriptor = descriptor
        self._index = Index()
        self._answers = Index() if by_request else None
        self._end = self._read()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._has_added = False
        self._written = False
        self._syncing: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    def unlock(self) -> None:
        """Let a job write to the file. This object must only read from now on, and knows what the file has now."""
        unlock(self._descriptor)

    def see(self, id: str) -> bool:
        """Note that the input has this row. Return whether it had the row before."""
        digest = short_digest(id)
        number = self._index.get(digest)
        self._index.set(digest, number | _SEEN)
        return bool(number & _SEEN)

    def find(self, id: str) -> tuple[Line, bool] | None:
        """Return the line of a row, and whether it holds a failure; None if the row has no result."""
        number = self._index.get(short_digest(id))
        if number < 1 << 2:
            return None
        line = read_line(self._line_at(number))
        return (line, bool(number & _FAILED)) if line.custom_id == id else None

    def answer_to(self, request: str) -> Message | None:
        """Return an answer to a request, by its digest; None if there is none."""
        number = 0 if self._answers is None else self._answers.get(short_digest(request))
        result = result_of(self._line_at(number)) if number else None
        return result.answer if result is not None and result.request == request else None

    def line(self, id: str) -> bytes:
        """Return the line of a row, with its end; empty if the row has no result."""
        number = self._index.get(short_digest(id))
        return b"" if number < 1 << 2 else self._line_at(number)

    def other_lines(self) -> Iterator[bytes]:
        """Yield the lines of the rows that the input has not had, in their order in the file."""
        for number in sorted(number for number in self._index.numbers() if not number & _SEEN):
            yield self._line_at(number)

    def _line_at(self, number: int) -> bytes:
        start, line = (number >> 2) - 1, b""
        while not line.endswith(b"\n"):
            line += (block := self._bytes_at(start + len(line), max(8192, len(line))))
            line = line[: line.find(b"\n") + 1] or line
            if not block:
                raise MisuseError(f"The journal {str(self.journal.path)!r} was changed while a job wrote to it.")
        return line

    def append(self, result: Result) -> None:
        """Write a result. If the disk is full, nothing of it stays.

        Raises:
            OSError: the line cannot be written.
            MisuseError: the answer holds a value that JSON cannot express.
        """
        line = line_of(result)
        write_whole(self._descriptor, line, self._end)
        self._note(result.id, self._end, result.request, failed=result.failure is not None)
        self._end += len(line)
        self._written = True
        if not self._has_added:
            self._has_added = True
            with suppress(MisuseError, RuntimeError):  # at the end of the process some Pythons start no thread
                self._syncing = start_thread("rxllm-journal", self._sync)

    def flush(self) -> None:
        """Write everything to the disk, unless the file is closed, which does it, too. This method blocks."""
        with self._lock:
            if self._descriptor >= 0:
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Write everything to the disk, and close the file. This method blocks.

        Raises:
            OSError: a write failed, or the file was moved or deleted.
        """
        self._closed.set()
        if self._syncing is not None:
            self._syncing.join()
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                try:
                    if self._has_added:
                        os.fsync(descriptor)
                        if not is_at(self._path, descriptor):
                            raise rescue(descriptor, self._path)
                finally:
                    os.close(descriptor)

    def _note(self, id: str, offset: int, request: str, *, failed: bool) -> None:
        digest = short_digest(id)
        before = self._index.get(digest)
        self.failed += failed - bool(before & _FAILED)
        number = (offset + 1) << 2 | _FAILED * failed
        self._index.set(digest, number | before & _SEEN)
        if self._answers is not None and not failed:
            self._answers.set(short_digest(request), number)

    def _bytes_at(self, start: int, count: int) -> bytes:
        os.lseek(self._descriptor, start, os.SEEK_SET)  # writes go to the end in any case
        return os.read(self._descriptor, count)

    def _read(self) -> int:
        """Read the whole file, and remove an incomplete last line. Return the length of the rest."""
        offset, rest, number = 0, b"", 0
        while block := self._bytes_at(offset + len(rest), _BLOCK):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                number += 1
                self._adopt(line, number, offset)
                offset += len(line) + 1
        if rest:
            offset += self._mend(rest, number + 1, offset)
        return offset

    def _adopt(self, line: bytes, number: int, offset: int) -> None:
        try:
            read = read_line(line)
        except ValueError as error:
            raise _foreign(self.journal.path, number, error) from None
        self._note(read.custom_id, offset, read.rxllm.request, failed=read.error is not None)

    def _mend(self, rest: bytes, number: int, offset: int) -> int:
        """Complete the last line if only its end is missing, else remove it. Return the number of bytes it has then.

        After a power failure a file may end in zeros.
        """
        try:
            read_line(rest)
        except ValueError as error:
            if not (rest.startswith(BEGINNING) or BEGINNING.startswith(rest) or not rest.strip(b"\0")):
                raise _foreign(self.journal.path, number, error) from None
            os.ftruncate(self._descriptor, offset)
            return 0
        os.write(self._descriptor, b"\n")
        self._adopt(rest, number, offset)
        return len(rest) + 1

    def _sync(self) -> None:
        """Write to the disk each second what was written to the file, so that a power failure costs a second."""
        while not self._closed.wait(_FSYNC_INTERVAL):
            with suppress(OSError):  # `close` reports it
                self.is_displaced = not is_at(self._path, self._descriptor)
                if self._written:
                    self._written = False
                    os.fsync(self._descriptor)


def _foreign(path: Path, number: int, error: Exception) -> MisuseError:
    return MisuseError(f"Line {number} of {str(path)!r} was not written by a job ({error}). Choose another output.")
