"""`record`: write a model's answers to a file, for `Replay`."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, cast

import msgspec
from attrs import frozen
from reactivex import Observable, abc

from ..events import Listener
from ..llm import LLM
from ..misuse import MisuseError, shown
from ..operators.prompting import asking
from ..operators.reading import with_files
from ..records import fingerprint, to_json
from ..runtime.scheduler import Scheduler, Timers, call, clock, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from ..values.request import Prompt, Request
from .cassettes import VERSION, described, error_record, path_of

__all__ = ["record"]


def record(llm: LLM, path: str | os.PathLike[str]) -> LLM:
    """Return the same model; its answers are also appended to the file `path`, for `Replay`.

    ::

        llm:        ---Hel-lo-|
        subscriber: ---Hel-lo-|
        path:       H--Hel-lo-E

    Each line is written when its chunk arrives, in the thread that emits it: a few microseconds on a local disk. So a
    crash loses nothing but the end. Any number of answers may be recorded at the same time, also by several processes.
    The recorded pace is the model's: time in which the consumer's back-pressure pauses the model is left out.

    Errors: those of the model, and `OSError` if the file cannot be written, which ends the answer.

    Raises:
        MisuseError: the argument is not a model, or the path's directory does not exist.
    """
    if not isinstance(llm, LLM):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MisuseError(f"Only a model can be recorded, not {shown(llm)}.")
    file = path_of(path)
    if not file.parent.is_dir():
        raise MisuseError(f"{str(file)!r} cannot be written: there is no directory {str(file.parent)!r}.")
    return _Recorded(llm, file)


@frozen
class _Recorded(LLM):
    llm: LLM
    path: Path

    @property
    def streaming(self) -> bool:
        return self.llm.streaming

    def identity(self) -> str:
        """Return the identity of the recorded model with these parameters: its answers are the same."""
        return self._digest({"path": None})

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        request = Request.ask(prompt, self.parameters)
        # The run belongs to the recorded model, so that a handler counts runs and tokens once.
        handlers = cast("tuple[Listener, ...]", self.handlers)
        llm = self.llm.with_config(tags=self.tags, metadata=self.metadata, run_name=self.run_name, handlers=handlers)

        def recorded(whole: Request) -> Observable[Chunk]:
            def subscribe(observer: abc.ObserverBase[Chunk], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
                return _Recording(observer, timers(scheduler), self.path).start(llm, whole)

            return Source(subscribe)

        return with_files(request, recorded)


class _Recording(abc.ObserverBase[Chunk], abc.DisposableBase):
    """Records one answer.

    States: *open* until `over` is set by the answer's end, its cancellation or a failed write. The upstream's
        notifications and `leave` run one after another: on the event loop, or on the virtual-time scheduler's thread.

    Attributes:
        last: the time of the last line, later moved to the moment the consumer's gate opened.
    """

    __slots__ = ("clock", "last", "observer", "over", "path", "run", "scheduler", "upstream")

    def __init__(self, observer: abc.ObserverBase[Chunk], scheduler: Timers, path: Path) -> None:
        self.observer = observer
        self.scheduler = scheduler
        self.path = path
        self.run = uuid.uuid4().hex[:12]
        self.clock = clock(scheduler)
        self.last = self.clock()
        self.over = False
        self.upstream: abc.DisposableBase | None = None

    def start(self, llm: LLM, request: Request) -> abc.DisposableBase:
        self.write({"rxllm": VERSION, "request": fingerprint(request), "asked": described(request)})
        self.upstream = connect(llm(request), self, self.scheduler)
        return self

    def on_next(self, value: Chunk) -> None:
        if self.try_write(value):
            self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        if not self.over and self.try_write({"end": "error", "error": error_record(error)}):
            self.over = True
            self.observer.on_error(error)

    def on_completed(self) -> None:
        if not self.over and self.try_write({"end": "complete"}):
            self.over = True
            self.observer.on_completed()

    def dispose(self) -> None:
        if self.upstream is not None:
            self.upstream.dispose()
        call(self.scheduler, self.cancel)

    def cancel(self) -> None:
        if not self.over:
            self.over = True
            if isinstance(self.scheduler, Scheduler) and self.scheduler.opened_at() is None:
                self.last = self.clock()  # the consumer's gate is closed: the silence is the consumer's
            self.write_timed({"end": "cancelled"})

    def try_write(self, record: Chunk | dict[str, Any]) -> bool:
        """Write the record and return whether that succeeded. A failed write ends the answer with its error.

        An exception raised here would count as the subscriber's.
        """
        if self.over:
            return False
        try:
            self.write_timed(record)
        except (OSError, TypeError, ValueError) as error:
            self.over = True
            if self.upstream is not None:
                self.upstream.dispose()
            self.observer.on_error(error)
            return False
        return True

    def write_timed(self, record: Chunk | dict[str, Any]) -> None:
        now, scheduler = self.clock(), self.scheduler
        if isinstance(scheduler, Scheduler):  # the pause ended when the gate opened, even if the gate has closed again
            self.last = max(self.last, scheduler.gate.opened_at)
        record = to_json(record) if isinstance(record, Chunk) else record
        self.write({"after": round(now - self.last, 6), **record})
        self.last = now

    def write(self, record: dict[str, Any]) -> None:
        # Open the file for each line: an answer whose event loop ends early must not leave the file open.
        line = msgspec.json.encode({"run": self.run, **record}) + b"\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line)
        finally:
            os.close(file)
