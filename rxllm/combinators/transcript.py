"""`Transcript`: the messages of one `Conversation`, the line in which its turns wait, and the way to its store.

One turn at a time is at the head of the line. With a store, each of its steps is an errand, and errands run one after
another in a thread of their own. So the steps of a turn follow those of the turn before, even if that one was disposed
and its last piece is not written yet::

    open    read what other processes have added, then write the question
    write   write a piece of the answer
    end     write the last piece, with how the answer ended

`pending` holds the records that are not written: a failed write is repeated with the next step. If another process has
added records meanwhile, they are read first, and the pending ones are added after them. Only errands use `pending`,
`length` and `is_read`, and only errands and the turn at the head of the line add entries. The answer of a running turn
has an entry, whose message any thread may set by disposing the turn. Any thread may read the entries.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ..misuse import MisuseError
from ..runtime.errands import Errands
from ..runtime.interrupts import wait_until_closed
from ..runtime.loops import Loop, do_nothing, running_loop
from ..runtime.portal import is_portal
from ..runtime.scheduler import Scheduler, Timers
from ..values.chunk import Chunk
from ..values.message import Message
from .history import START, Entries, Entry, History, Record, key_of, messages_record, piece_record
from .limiter import Limiter

__all__ = ["Transcript", "Turn"]

PATIENCE = 1.0  # seconds for a dropped stream to be closed, before its turn is shown as running

_log = logging.getLogger("rxllm")


class Turn:
    """A question and the place of its answer.

    Attributes:
        question: the messages of the caller.
        key: the key of the records of the turn.
        count: the number of its records.
        loop: where it runs; None on virtual time.
        answer: the entry of the answer.
        is_running: whether the answer has not ended.
        has_failed: whether the answer ended by an error or a dispose.
    """

    __slots__ = ("answer", "count", "has_failed", "is_running", "key", "loop", "question")

    def __init__(self, question: tuple[Message, ...]) -> None:
        self.question = question
        self.key = uuid.uuid4().hex
        self.count = 1  # the question
        self.loop: Loop | None = None
        self.answer = Entry()
        self.has_failed = False
        self.is_running = True


class _Line(Limiter):
    """A queue with one place, in which the turns of a conversation wait."""

    def __init__(self, id: str) -> None:
        super().__init__(concurrency=1)
        self._id = id

    def __repr__(self) -> str:
        return f"an earlier turn of the Conversation {self._id!r}"


class Transcript:
    """The messages of one conversation.

    Attributes:
        id: the id of the conversation.
        first: the messages at the beginning.
        store: where the conversation is stored; None keeps it in memory.
        line: admits one turn at a time, in the order of their subscriptions, on any event loop.
        entries: the messages and the places of answers.
        last: the latest turn of this process, which a repeated request may replace.
        length: the number of the store's records that have been read.
        pending: the records that are not written yet.
    """

    def __init__(self, id: str, first: tuple[Message, ...], store: History | None) -> None:
        self.id = id
        self.first = first
        self.store = store
        self.line: Limiter = _Line(id)
        self.entries = _beginning(first)
        self.last: Turn | None = None
        self.length = 0
        self.pending: list[Record] = []
        self.is_read = False
        self.errands = Errands()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def settled(self) -> tuple[Message, ...]:
        """Return the messages, in a thread without a loop after the streams that it dropped have been closed.

        A ``for`` loop that breaks drops its stream, and another thread closes it.
        """
        last = self.last
        if last is not None and last.is_running and last.loop and is_portal(last.loop) and running_loop() is None:
            wait_until_closed(last.loop, PATIENCE)
        return self.entries.messages()

    def load(self) -> tuple[Message, ...]:
        """Read the store, after everything is written, and return the messages."""
        self.settled()  # so that the last piece of a dropped stream is written, too
        if self.store is not None:
            self.errands.wait(partial(self._read, self.store))
        return self.settled()

    # ── the steps of a turn ──────────────────────────────────────────────────────────────────────────────────────────

    def open(
        self,
        question: tuple[Message, ...],
        scheduler: Timers,
        is_wanted: Callable[[], bool],
        then: Callable[[Turn | None, Exception | None], object],
        *,
        repeated: bool,
    ) -> None:
        """Begin a turn, and call `then` with it, on the event loop of the scheduler.

        Args:
            question: the messages of the caller.
            scheduler: the scheduler of the turn.
            is_wanted: whether the turn is still wanted, when it is about to be written.
            then: called with the turn, or with the exception of the store; with neither if it is not wanted.
            repeated: whether the request is a further attempt of an outer `retry`.
        """

        def begin() -> Turn | None:
            if self.store is not None:
                self._read(self.store)
            if not is_wanted():
                return None
            if (turn := self._replaced(question, repeated=repeated)) is None:
                turn = Turn(question)
                if self.store is not None:
                    self._write_question(self.store, turn)
                self.entries.places += [*map(Entry, question), turn.answer]
                self.last = turn
            turn.loop = scheduler.loop if isinstance(scheduler, Scheduler) else None
            return turn

        if self.store is None:
            then(begin(), None)
        else:
            self.errands.call(scheduler, begin, then)

    def _replaced(self, question: tuple[Message, ...], *, repeated: bool) -> Turn | None:
        """Return the latest turn, if it had the same question and failed with nothing; in a `retry`, with anything."""
        turn = self.last
        if (
            turn is None
            or not turn.has_failed
            or turn.question != question
            or self.entries.places[-1] is not turn.answer
        ):
            return None
        if turn.answer.message is not None and not repeated:
            return None
        turn.has_failed, turn.is_running, turn.answer.message = False, True, None
        return turn

    def write(
        self,
        turn: Turn,
        piece: Chunk,
        end: str | None = None,
        *,
        scheduler: Timers,
        then: Callable[[], object] = do_nothing,
    ) -> None:
        """Write a piece of the answer; then call `then` on the event loop of the scheduler.

        A failure is logged, and the piece is written with the next one.
        """
        store = self.store
        if store is None:
            then()
            return
        number, turn.count = turn.count, turn.count + 1

        def work() -> None:
            try:
                self._write(store, [piece_record(turn.key, number, piece, end)])
            except Exception as error:
                _log.error(
                    "The store of the Conversation %r failed. The next piece or turn writes the missing messages, too.",
                    self.id,
                    exc_info=error,
                )

        def written(result: object, error: object) -> None:
            then()

        self.errands.call(scheduler, work, written)

    # ── errands ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self, store: History) -> None:
        """Add the records that other processes have written since."""
        records = store.read(self.id, self.length)
        if not self.is_read:
            self._read_first(records)
            return
        ours = {key_of(record) for record in self.pending}
        for record in records:
            if key_of(record) not in ours:  # else a write has failed after it had succeeded
                self.entries.add(record)
            self.length += 1
        written = {key_of(record) for record in records}
        self.pending = [record for record in self.pending if key_of(record) not in written]

    def _read_first(self, records: Sequence[Record]) -> None:
        """Take over the stored conversation; if there is none, begin it with the messages that were given.

        Raises:
            MisuseError: the stored conversation begins with other messages.
        """
        stored = Entries()
        for record in records:
            stored.add(record)
        if records:
            if stored.messages()[: len(self.first)] != self.first:
                raise MisuseError(
                    f"The stored Conversation {self.id!r} begins with other messages than the ones given here. Pass no "
                    "messages to go on with it, or another id to begin a new one."
                )
            self.entries = stored
        elif self.first:
            self.pending = [messages_record(START, self.first)]
        self.length = len(records)
        self.is_read = True

    def _write_question(self, store: History, turn: Turn) -> None:
        record = messages_record(turn.key, turn.question)
        try:
            self._write(store, [record])
        except Exception:
            self.pending = [other for other in self.pending if other is not record]  # the turn ends with this error
            raise

    def _write(self, store: History, records: Iterable[Record]) -> None:
        """Write the pending records and these. On a conflict it first reads the records of the other process."""
        self.pending += records
        while self.pending:
            if store.write(self.id, self.length, self.pending):
                self.length += len(self.pending)
                self.pending = []
                return
            known = self.length
            self._read(store)
            if self.length == known and self.pending:
                raise RuntimeError(
                    f"The store refused record {known} of the Conversation {self.id!r}, but has no record there. "
                    "Records of it have been removed."
                )


def _beginning(messages: Iterable[Message]) -> Entries:
    entries = Entries()
    entries.places += map(Entry, messages)
    return entries
