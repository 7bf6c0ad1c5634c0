"""`record`: a model's answers, written down for `Replay`."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, cast

import msgspec
from attrs import frozen
from reactivex import Observable, abc

from ..events import Listener
from ..llm import LLM, asking
from ..misuse import MisuseError, shown
from ..records import fingerprint, to_json
from ..runtime.scheduler import Scheduler, Timers, call, clock, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from ..values.request import Prompt, Request
from .cassettes import VERSION, described, error_record, path_of

__all__ = ["record"]


def record(llm: LLM, path: str | os.PathLike[str]) -> LLM:
    """The same model, whose answers are also written to the end of the file `path`, for `Replay`.

    ::

        llm:        ---Hel-lo-|
        subscriber: ---Hel-lo-|
        path:       H--Hel-lo-E

    Each line is written as its chunk comes, by whoever hands the chunk on: a few microseconds on a local disk. So a
    crash loses nothing but the end, and any number of answers may be recorded at once, by several processes, too. The
    pace is the model's: while it has to wait for a consumer that is full, no time passes in the recording.

    Errors: the model's, and `OSError` if the file can't be written, which ends the answer.

    Raises:
        MisuseError: this is no model, or no path in a directory.
    """
    if not isinstance(llm, LLM):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MisuseError(f"Only a model can be recorded, not {shown(llm)}.")
    file = path_of(path)
    if not file.parent.is_dir():
        raise MisuseError(f"{str(file)!r} can't be recorded to: there is no directory {str(file.parent)!r}.")
    return _Recorded(llm, file)


@frozen
class _Recorded(LLM):
    llm: LLM
    path: Path

    @property
    def streaming(self) -> bool:
        return self.llm.streaming

    def identity(self) -> str:
        """The recorded model's, whose answers it gives, under these parameters."""
        return self._digest({"path": None})

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        request = Request.ask(prompt, self.parameters)
        # The run is the model's own: who counts runs, or their tokens, must not count them twice.
        heard = cast("tuple[Listener, ...]", self.handlers)
        llm = self.llm.with_config(tags=self.tags, metadata=self.metadata, run_name=self.run_name, handlers=heard)

        def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            return _Tape(observer, timers(given), self.path).start(llm, request)

        return Source(subscribe)


class _Tape(abc.ObserverBase[Chunk], abc.DisposableBase):
    """Writes down one answer."""

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
        if self.noted(value):
            self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        if not self.over and self.noted({"end": "error", "error": error_record(error)}):
            self.over = True
            self.observer.on_error(error)

    def on_completed(self) -> None:
        if not self.over and self.noted({"end": "complete"}):
            self.over = True
            self.observer.on_completed()

    def dispose(self) -> None:
        if self.upstream is not None:
            self.upstream.dispose()
        call(self.scheduler, self.leave)

    def leave(self) -> None:
        if not self.over:
            self.over = True
            if isinstance(self.scheduler, Scheduler) and self.scheduler.opened_at() is None:
                self.last = self.clock()  # the silence since then was the consumer's
            self.note({"end": "cancelled"})

    def noted(self, what: Chunk | dict[str, Any]) -> bool:
        """Whether it could be written. If not, that is what fails: raised here, it would count as a subscriber's."""
        if self.over:
            return False
        try:
            self.note(what)
        except (OSError, TypeError, ValueError) as error:
            self.over = True
            if self.upstream is not None:
                self.upstream.dispose()
            self.observer.on_error(error)
            return False
        return True

    def note(self, what: Chunk | dict[str, Any]) -> None:
        now, scheduler = self.clock(), self.scheduler
        if isinstance(scheduler, Scheduler):  # also where somebody has closed the gate again since
            self.last = max(self.last, scheduler.gate.opened_at)
        record = to_json(what) if isinstance(what, Chunk) else what
        self.write({"after": round(now - self.last, 6), **record})
        self.last = now

    def write(self, what: dict[str, Any]) -> None:
        # Opened for each line, so that an answer that its loop does not live to see the end of leaves no file open.
        line = msgspec.json.encode({"run": self.run, **what}) + b"\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line)
        finally:
            os.close(file)
