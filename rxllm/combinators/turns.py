"""The operator behind `remember`: one turn of a conversation.

States of a turn, and what changes them::

    waiting ─► opening ─► running ─► answered        the model completed
       │          │          ├─────► failed          the model raised, or code around the stream did
       │          │          └─────► interrupted     the subscriber disposed
       │          └────────────────► failed          the store raised: nothing is sent
       └────────────────► withdrawn       the subscriber disposed before the turn was opened: nothing is kept

The line of the transcript begins a turn on the event loop of its subscriber, and all steps but one happen there. Any
thread may dispose the turn. The first of completion, error and disposal ends it and sets the answer of the transcript:
`_Turn.lock` guards `is_open` and the chunks that came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..operators.attempts import REPEATED
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.loops import do_nothing
from ..runtime.scheduler import Scheduler, Timers, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk, join
from ..values.message import Message
from ..values.request import Request
from .admission import admitted
from .history import answer_of
from .transcript import Transcript, Turn

__all__ = ["Ask", "remembered"]

Ask = Callable[[tuple[Message, ...], tuple[Message, ...]], Observable[Chunk]]
"""Asks the model. It gets the messages of the conversation, and those of them that the caller has just written."""

# The turns around a piece of code: a model or a tool that asks the same conversation would wait for itself.
_turns: ContextVar[tuple[_Turn, ...]] = ContextVar("rxllm_turns", default=())

PIECES = 0.25  # seconds after which a running answer is written; half of what a kill may cost
PATIENCE = 1.0  # seconds until an answer ends although its last piece is not written yet
_JOIN_AT = 1024  # chunks


def remembered(ask: Ask, transcript: Transcript, request: Request) -> Source[Chunk]:
    """Ask the model when all earlier turns of the conversation have ended, and keep the question and the answer.

    ::

        ask                  ---a-b-|
        remembered(ask, …)   ---a-b-|      the transcript then ends with the question and "ab"
    """

    def subscribe(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(requested)
        around = scheduler.context.get(_turns, ()) if isinstance(scheduler, Scheduler) else ()
        if any(turn.transcript is transcript and turn.is_open for turn in around):
            raise MisuseError(
                f"This turn of the Conversation {transcript.id!r} is asked within another turn of it, which would wait "
                "for this one, and this one for it. Ask with a Conversation of its own, such as "
                "Conversation(conversation.messages), or after the other turn has ended."
            )
        turn = _Turn(ask, transcript, request, around)
        inside = scheduler.with_variable(_turns, (*around, turn)) if isinstance(scheduler, Scheduler) else scheduler
        turn.place.disposable = connect(admitted(turn.stream, transcript.line, 1, request=request), observer, inside)
        return turn

    return Source(subscribe)


class _Turn(abc.ObserverBase[Chunk], abc.DisposableBase):
    """One turn, between the model and the line. The module describes its states.

    Attributes:
        is_open: whether the turn has not ended.
        turn: the question and the place of its answer, once the turn is opened.
        pieces: the joined pieces of the answer.
        chunks: the chunks since the last piece.
        place: the subscription to the line.
        alarm: the timer of the next piece, or of the end.
    """

    observer: abc.ObserverBase[Chunk]
    scheduler: Timers

    def __init__(self, ask: Ask, transcript: Transcript, request: Request, around: tuple[_Turn, ...]) -> None:
        self.ask = ask
        self.transcript = transcript
        self.request = request
        self.around = around
        self.lock = threading.Lock()
        self.is_open = True
        self.turn: Turn | None = None
        self.pieces: list[Chunk] = []
        self.chunks: list[Chunk] = []
        self.place = LockFreeSerialDisposable()
        self.upstream = LockFreeSerialDisposable()
        self.alarm: LockFreeSerialDisposable | None = None

    def stream(self) -> Source[Chunk]:
        """The answer; the line subscribes to it when the turn may begin."""
        return Source(self.begin)

    def begin(self, observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        self.observer = observer
        self.emit = observer.on_next
        scheduler = timers(requested)
        repeated = False
        if isinstance(scheduler, Scheduler):
            scheduler = scheduler.evolve(lifetime=scheduler.lifetime.handled_also_by(self.broken))
            repeated = scheduler.carried(REPEATED)
        self.scheduler = scheduler
        is_wanted = partial(getattr, self, "is_open")
        self.transcript.open(self.request.messages, scheduler, is_wanted, self.opened, repeated=repeated)
        return self.upstream

    def opened(self, turn: Turn | None, error: Exception | None) -> None:
        with self.lock:
            self.turn = turn
            if turn is not None and not self.is_open:  # disposed meanwhile
                turn.has_failed, turn.is_running = True, False
        if error is not None:
            self.on_error(error)
        if turn is None or not self.is_open:
            return
        if turn.count > 1:  # a repeated request discards the stored answer of the last attempt
            self.chunks.append(Chunk(reset=True))
        messages = self.transcript.entries.messages()
        try:
            self.upstream.disposable = connect(self.ask(messages, turn.question), self, self.scheduler)
        except Exception as raised:  # such as a missing key, or of the view
            self.on_error(raised)

    def on_next(self, value: Chunk) -> None:
        if not self.is_open:
            return
        chunks = self.chunks
        chunks.append(value)
        if self.alarm is None and self.transcript.store is not None:
            self.alarm = LockFreeSerialDisposable()
            self.alarm.disposable = self.scheduler.schedule_relative(PIECES, self.write_piece)
        elif len(chunks) >= _JOIN_AT and self.transcript.store is None:
            self.join()
        token = _turns.set(self.around)  # the subscriber is not part of the turn
        try:
            self.emit(value)
        finally:
            _turns.reset(token)

    def join(self) -> Chunk | None:
        """Join the new chunks to a piece, unless the turn has ended meanwhile."""
        with self.lock:
            if not self.is_open:
                return None
            chunks, self.chunks = self.chunks, []
            piece = join(chunks)
            self.pieces.append(piece)
            return piece

    def write_piece(self, *_: object) -> None:
        self.alarm = None
        piece = self.join()
        if piece is not None and self.turn is not None:
            self.transcript.write(self.turn, piece, scheduler=self.scheduler)

    def on_error(self, error: Exception) -> None:
        self.end(partial(self.observer.on_error, error), interrupted=True)

    def on_completed(self) -> None:
        self.end(self.observer.on_completed, interrupted=False)

    def end(self, notify: Callable[[], object], *, interrupted: bool) -> None:
        """End the turn, and call the subscriber when the answer is written, or when that takes too long."""
        waiting = LockFreeSerialDisposable()

        def tell(*_: object) -> None:
            if waiting.is_disposed:
                return
            waiting.dispose()
            token = _turns.set(self.around)  # the subscriber is not part of the turn
            try:
                notify()
            finally:
                _turns.reset(token)

        if self.transcript.store is not None and self.turn is not None:
            waiting.disposable = self.scheduler.schedule_relative(PATIENCE, tell)
        if not self.ends(tell, interrupted=interrupted):
            waiting.dispose()

    def ends(self, then: Callable[[], object] = do_nothing, *, interrupted: bool) -> bool:
        """End the turn: set the answer, write the last piece, and call `then`. Return whether it was open."""
        with self.lock:
            if not self.is_open:
                return False
            self.is_open = False
            turn = self.turn
            piece = join(self.chunks)
            if turn is not None:
                turn.answer.message = answer_of([*self.pieces, piece], interrupted=interrupted)
                turn.has_failed, turn.is_running = interrupted, False
        if self.alarm is not None:
            self.alarm.dispose()
        if turn is None:
            then()
        else:
            end = "interrupted" if interrupted else "whole"
            self.transcript.write(turn, piece, end, scheduler=self.scheduler, then=then)
        return True

    def broken(self, error: BaseException) -> None:
        """End the turn after an exception that reaches no observer: the subscriber raised, or the loop ends."""
        self.ends(interrupted=True)

    def dispose(self) -> None:
        self.ends(interrupted=True)
        self.place.dispose()
