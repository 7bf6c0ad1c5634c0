"""`Timeline`: a picture of what happened in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from ..errors import ProviderError
from ..events import (
    Cancelled,
    Custom,
    Emitted,
    Event,
    Failed,
    Finished,
    Queued,
    Retried,
    Reused,
    Run,
    RunChunk,
    Started,
    ToolFinished,
    ToolStarted,
)
from ..handlers.local import LocalHandler
from ..misuse import MisuseError, shown
from ..observation import current, observation_of
from ..operators.observer import ignore
from ..runtime.forks import reset_in_child
from ..runtime.gate import Gate
from ..runtime.loops import clock_of, running_loop
from ..values.chunk import Chunk
from ..values.message import Message
from .recording import Outcome, Record, excerpt, plain
from .rows import View, latest, view_of

__all__ = ["Timeline"]

RUNS = 1000  # runs that a timeline keeps
NO_RUN = Run("", "stream", "chain")


class Timeline(LocalHandler):
    """Draws what happened in time: the runs as a tree of rows, with each wait, chunk, retry, failure and cancellation.

    ::

        timeline = rxllm.Timeline()
        llm.invoke("Write me a song.", handlers=[timeline])
        print(timeline.text())

    A timeline may hear any number of runs, in any threads, and may be drawn at any time, also while they go on. It
    can also be subscribed: to `events`, or directly to an answer, whose picture then begins with its first chunk. It
    keeps the latest 1,000 runs, and of each run the times of its latest chunks. Older chunks are kept in groups, with
    their number. Times are those of the event loop's clock, which is monotonic, and virtual on a `VirtualLoop`.

    In a notebook, a timeline shows itself.

    Args:
        texts: whether to keep the texts of chunks and errors, and the inputs and outputs of tools, to show them in
            `html`. Without it, a picture has no text of a prompt or an answer.
    """

    def __init__(self, *, texts: bool = False) -> None:
        if not isinstance(texts, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"texts must be True or False, not {shown(texts)}.")
        self._texts = texts
        self._records: dict[str, Record] = {}
        self._hidden = 0
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Create a new lock: in a forked child no thread would release the parent's."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self._view().title}>"

    @property
    def runs(self) -> int:
        """The number of runs so far."""
        return len(self._records) + self._hidden

    @classmethod
    def of(cls, events: Iterable[Event], *, texts: bool = False) -> Timeline:
        """Return the timeline of recorded events, by their `time`.

        Args:
            events: the events of any number of runs in their order, such as
                ``list(llm.events(prompt).pipe(rxllm.stream()))``.
            texts: as for `Timeline`.
        """
        timeline = cls(texts=texts)
        clock = _Recorded()
        gate = Gate(clock)
        for event in events:
            clock.time = max(clock.time, getattr(event, "time", clock.time))
            timeline._hear(event, gate)
        return timeline

    @property
    def description(self) -> str:
        """What the picture shows, in words: each run and how it ended. It is the alternative text of `svg`."""
        return self._view().description

    def svg(self, width: int = 960) -> str:
        """Return the picture as an SVG document, for a file, a web page or a notebook. It has no text of any answer.

        Args:
            width: the width in pixels.
        """
        from .timeline_svg import Drawing

        return Drawing(self._view(), width).svg()

    def html(self, width: int = 1100) -> str:
        """Return the picture as a page of one file, which loads nothing: zoom, and point at a chunk for its time.

        With `texts`, the page also has the text of each chunk, and the inputs and outputs of tools.

        Args:
            width: the width in pixels.
        """
        from .timeline_html import page

        return page(self._view(), width)

    def trace(self) -> str:
        """Return the picture as a trace file in JSON, for https://ui.perfetto.dev or ``chrome://tracing``."""
        from .timeline_trace import traced

        return traced(self._view())

    def text(self, width: int = 100, height: int | None = None) -> str:
        """Return the picture as marble diagrams, for a terminal.

        Args:
            width: the length of the lines in characters, if the texts beside the diagrams leave enough room for them.
            height: the largest number of lines. Of more runs, those that go on and those that ended last are drawn.
                None draws all runs.
        """
        from .timeline_text import AROUND, written

        return written(self._view(None if height is None else max(height - AROUND, 1)), width)

    def _repr_mimebundle_(self, **_: object) -> Mapping[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": self.text()}

    def on_event(self, event: Event) -> None:
        """Keep the event's time."""
        if isinstance(event, RunChunk) and (record := self._records.get(event.run.id)) and record.end is None:
            record.take(event)  # the most frequent event has a short way
        else:
            self._hear(event, None)

    def _chunk_receiver(self, run: Run) -> Callable[[Chunk], object]:
        record = self._records.get(run.id)
        return ignore if record is None else record.take

    def on_completed(self) -> None:
        """End the stream to which the timeline is subscribed, if it has no events of runs."""
        if (record := self._records.get(NO_RUN.id)) is not None and record.end is None:
            record.finish(record.gate.clock(), "finished")

    def _view(self, most: int | None = None) -> View:
        with self._lock:
            records = list(self._records.values())
        drawn = records if most is None else latest(records, most)
        return view_of(drawn, self._hidden + len(records) - len(drawn))

    def _hear(self, event: Event, gate: Gate | None) -> None:
        if isinstance(event, Started | ToolStarted):
            self._begin(event.run, event.input, gate)
            return
        run: Run = getattr(event, "run", NO_RUN)
        if not run.id and run.id not in self._records:  # of an answer to which the timeline is subscribed
            self._begin(NO_RUN, None, gate)
        record = self._records.get(run.id)
        if record is None or record.end is not None:
            return
        now = record.gate.clock()
        if not isinstance(event, Retried | Custom):
            record.admitted(now)
        self._add(record, event, now)

    def _add(self, record: Record, event: Event, now: float) -> None:
        match event:
            case (Chunk() as chunk) | Emitted(value=Chunk() as chunk):
                record.take(chunk)
            case Emitted(value=value):
                record.add(value, now)
            case Finished(output=output) | ToolFinished(output=output):
                self._end(record, now, "finished", output, event.time)
            case Cancelled(partial=output):
                self._end(record, now, "cancelled", output, event.time)
            case Failed(error=error, partial=output):
                record.error = _kind_of(error)
                if self._texts:
                    record.texts["error"] = excerpt(error)
                refused = isinstance(error, ProviderError) and output is None
                self._end(record, now, "failed", output, 0.0 if refused else event.time)
            case Retried(delay=delay, error=error):
                record.wait(("retry", now, now + delay, f"{_kind_of(error)}, again in"))
            case Queued():
                record.queued = now
            case Reused(running=running):
                record.mark(now, "shared" if running else "cached")
            case Custom(topic=topic):
                record.mark(now, plain(topic)[:40])
            case _:
                pass

    def _end(self, record: Record, now: float, outcome: Outcome, output: object, ended_at: float) -> None:
        record.finish(now, outcome)
        record.ended_at = ended_at
        if isinstance(output, Message):
            record.usage, record.model = output.usage, output.model
            if output.pending:
                record.mark(now, "waits for approval")
        if self._texts and record.run.kind == "tool":
            record.texts["output"] = excerpt(output)

    def _begin(self, run: Run, value: object, gate: Gate | None) -> None:
        gate = gate or _gate_of(run)
        record = Record(run, gate.clock(), gate, self._texts)
        if self._texts and run.kind == "tool":
            record.texts["input"] = excerpt(value)
        with self._lock:
            records = self._records
            for outer in run.parent_ids:
                if outer in records:
                    records[outer].admitted(record.start)
            if run.id in records:
                return
            if len(records) >= RUNS:
                self._hidden += 1
                ended = next((other_id for other_id, other in records.items() if other.end is not None), None)
                if ended is None:
                    return
                del records[ended]
            records[run.id] = record


class _Recorded:
    """The clock of recorded events: the time of the latest one. It does not go back when the computer's clock does."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def _gate_of(run: Run) -> Gate:
    """Return the gate at which the run's source waits; its clock is that of the run's event loop."""
    scheduler = current()
    observation = scheduler and observation_of(scheduler)
    if scheduler is not None and observation and observation.run is run:
        return scheduler.gate
    loop = running_loop()
    return Gate() if loop is None else Gate(clock_of(loop))


def _kind_of(error: Exception) -> str:
    """Return the error's class, and a status; the error's text may contain the prompt."""
    status = error.status if isinstance(error, ProviderError) else None
    return plain(f"{type(error).__name__} {status or ''}")
