"""What a `Timeline` keeps of a run while it goes on: times, counts, and texts where they are asked for.

All events of a run happen on its event loop, so one thread writes a record. Any thread may read it.
"""

from __future__ import annotations

import re
from array import array
from itertools import pairwise
from typing import Literal

from attrs import define, field

from ..events import Run
from ..runtime.gate import Gate
from ..terminal import one_line, printable
from ..values.chunk import Chunk
from ..values.usage import Usage

__all__ = ["Outcome", "Record", "Times", "Wait", "excerpt", "plain"]

KEPT = 2048  # the latest chunks of a run, whose times are kept; older ones are kept in groups
_MARKS = 256  # waits and marks of a run
_SHORT = 0.001  # seconds; a pump waits for less at every full buffer
_TEXT = 200  # characters
_NONCHARACTERS = re.compile("[\ufffe\uffff]")  # not in XML, not even escaped: https://www.w3.org/TR/xml/#charsets

Outcome = Literal["running", "finished", "failed", "cancelled"]
Wait = tuple[Literal["queue", "retry", "pause"], float, float, str]
"""A kind of wait, its start, its end, and a label."""


def plain(text: str) -> str:
    """Return a text on one line, without characters that a terminal or XML cannot show."""
    return one_line(_NONCHARACTERS.sub("\ufffd", text))


def excerpt(value: object) -> str:
    """Return the first characters of a text, without characters that a terminal or XML cannot show."""
    return printable(_NONCHARACTERS.sub("\ufffd", str(value)[:_TEXT]))


@define
class Times:
    """The times of a run's chunks: one each for the latest, one for each group of older ones.

    Attributes:
        latest: the times of the latest chunks.
        older: the times of the first chunks of the older groups.
        numbers: the numbers of these chunks, counted from 0.
        merged: the number of chunks in older groups.
        texts: the texts of the groups and of the latest chunks; empty unless texts are kept.
    """

    latest: array[float] = field(factory=lambda: array("d"))
    older: array[float] = field(factory=lambda: array("d"))
    numbers: array[int] = field(factory=lambda: array("Q"))
    merged: int = 0
    texts: list[str] = field(factory=list[str])

    def merge(self) -> None:
        """Merge the latest chunks in pairs, and all groups again when there are too many."""
        latest, self.latest = self.latest, array("d")
        groups = len(self.older)
        count = self.merged + len(latest)
        self.older = self.older + latest[::2]
        self.numbers = self.numbers + array("Q", range(self.merged, count, 2))
        self.texts = [*self.texts[:groups], *_pairs(self.texts[groups:])]
        self.merged = count
        if len(self.older) > 2 * KEPT:
            self.older, self.numbers, self.texts = self.older[::2], self.numbers[::2], _pairs(self.texts)

    @property
    def count(self) -> int:
        """The number of chunks."""
        return self.merged + len(self.latest)

    @property
    def counts(self) -> list[int]:
        """The number of chunks of each group, and 1 for each of the latest."""
        return [later - first for first, later in pairwise([*self.numbers, self.merged])] + [1] * len(self.latest)

    @property
    def first(self) -> float | None:
        """The time of the first chunk."""
        for times in self.older, self.latest:
            if times:
                return times[0]
        return None

    @property
    def last(self) -> float | None:
        """The time of the last chunk or group."""
        for times in self.latest, self.older:
            if times:
                return times[-1]
        return None


def _pairs(texts: list[str]) -> list[str]:
    return [(one + other)[:_TEXT] for one, other in zip(texts[::2], [*texts[1::2], ""], strict=False)]


@define(eq=False)
class Record:
    """The record of one run. All times are those of its gate's clock.

    Attributes:
        run: the run.
        start: the time of its start.
        gate: the gate at which its source waits for the consumer.
        keeps_texts: whether the texts of the chunks are kept.
        opened: the time at which the gate had opened last, at the latest chunk.
        chunks: the chunks with text, and the values of a pipeline.
        asides: the chunks with reasoning, tool calls or files only.
        waits: the waits that have ended, and the planned ones.
        queued: the time since which the request waits for its turn; None when it does not.
        paused: the seconds for which the consumer has paused the source.
        marks: the times of other events, with their labels.
        end: the time of its end; None while it is running.
        error: the class of its error.
        usage: the tokens.
        model: the model's name in the answer.
        ended_at: the end in seconds since the epoch, for the price.
        texts: details by name; empty unless texts are kept.
    """

    run: Run
    start: float
    gate: Gate
    keeps_texts: bool = False
    opened: float = field(init=False)
    chunks: Times = field(factory=Times, init=False)
    asides: Times = field(factory=Times, init=False)
    waits: list[Wait] = field(factory=list[Wait], init=False)
    queued: float | None = field(default=None, init=False)
    paused: float = field(default=0.0, init=False)
    marks: list[tuple[float, str]] = field(factory=list[tuple[float, str]], init=False)
    end: float | None = field(default=None, init=False)
    outcome: Outcome = field(default="running", init=False)
    error: str = field(default="", init=False)
    usage: Usage | None = field(default=None, init=False)
    model: str | None = field(default=None, init=False)
    ended_at: float = field(default=0.0, init=False)
    texts: dict[str, str] = field(factory=dict[str, str], init=False)

    def __attrs_post_init__(self) -> None:
        self.opened = self.gate.opened_at

    @property
    def last(self) -> float:
        """The time of the last chunk, else of the start."""
        return max(self.chunks.last or self.start, self.asides.last or self.start)

    def take(self, chunk: Chunk) -> None:
        """Add a chunk, now."""
        now = self.gate.clock()
        if self.queued is not None:
            self.admitted(now)
        if chunk.rest is not None and chunk.rest.reset:
            self.mark(now, "starts again")
        if chunk.text:
            self.add(chunk.text, now)
        elif chunk.rest is not None and chunk.rest.parts:
            self.add(chunk.reasoning, now, self.asides)
        elif self.gate.opened_at != self.opened:  # facts only
            self.resumed()

    def add(self, value: object, now: float, times: Times | None = None) -> None:
        """Add a value to the chunks, or to other times."""
        if self.gate.opened_at != self.opened:
            self.resumed()
        times = times or self.chunks
        times.latest.append(now)
        if self.keeps_texts:
            times.texts.append(excerpt(value))
        if len(times.latest) > KEPT:
            times.merge()

    def wait(self, wait: Wait) -> None:
        """Add a wait. Of very many, the first are kept."""
        if len(self.waits) < _MARKS:
            self.waits.append(wait)

    def mark(self, time: float, label: str) -> None:
        """Add a mark. Of very many, the first are kept."""
        if len(self.marks) < _MARKS:
            self.marks.append((time, label))

    def admitted(self, time: float) -> None:
        """End the wait for the request's turn."""
        if self.queued is not None:
            self.wait(("queue", self.queued, time, "queued"))
            self.queued = None

    def resumed(self) -> None:
        """Add the pause that ended when the gate opened, after the last chunk."""
        self.opened = self.gate.opened_at
        self.paused += max(self.opened - self.last, 0.0)
        if self.opened - self.last >= _SHORT:
            self.wait(("pause", self.last, self.opened, "paused"))

    def waits_until(self, time: float) -> list[Wait]:
        """Return the waits, with those that go on."""
        waits = [*self.waits]
        if self.queued is not None:
            waits.append(("queue", self.queued, time, "queued"))
        if not self.gate.is_open and time - self.last >= _SHORT:
            waits.append(("pause", self.last, time, "paused"))
        return waits

    def paused_until(self, time: float) -> float:
        """Return the seconds for which the consumer has paused the source, with a pause that goes on."""
        return self.paused + (0.0 if self.gate.is_open else time - self.last)

    def finish(self, time: float, outcome: Outcome) -> None:
        """End the run."""
        if self.gate.opened_at != self.opened:
            self.resumed()
        self.waits, self.paused = self.waits_until(time), self.paused_until(time)
        self.queued = None
        self.end = time
        self.outcome = outcome
        self.gate = Gate(self.gate.clock)  # frees the consumer
