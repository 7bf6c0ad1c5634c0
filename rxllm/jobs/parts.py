"""`Parts`: the rows of a job in groups, each of which a vendor answers as one batch.

A part is *open* from its emission until `done`. The stream completes when the rows have ended and no part is open, so
that rows that a batch did not answer can form another part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from reactivex import Observable, abc

from ..misuse import MisuseError
from ..operators.observer import RefusingObserver
from ..providers.batches import BatchAPI
from ..runtime.source import Source
from .rows import Row

__all__ = ["Part", "Parts", "request_line"]

ROWS = 10_000  # rows in a part, at most: they and their results are in memory


@frozen
class Part:
    """Rows that are sent together.

    Attributes:
        model: the model of all their requests; empty if they may have several.
        rows: the rows.
        attempt: how often these rows have been sent, with this time.
        refusals: how often the vendor refused them in this attempt, because its queue had no room for them alone.
    """

    model: str
    rows: Sequence[Row]
    attempt: int = 1
    refusals: int = 0


def request_line(api: BatchAPI, row: Row) -> bytes:
    """Return the request of a row as a batch contains it. This function reads files.

    Raises:
        MisuseError: the request cannot be sent in a batch.
    """
    try:
        return api.line(row.key, row.request)
    except MisuseError as error:
        raise MisuseError(f"Row {row.number + 1} of the input: {error}") from None


class Parts:
    """The parts of the rows. The event loop of the job calls all methods.

    Args:
        api: the vendor's API.
        failure: returns why the job stops early; None if it goes on.
    """

    def __init__(self, api: BatchAPI, failure: Callable[[], Exception | None]) -> None:
        self._api = api
        self._failure = failure
        self._grouping: _Grouping | None = None

    def of(self, rows: Observable[Row]) -> Source[Part]:
        """Return the parts of the rows. Only one subscription may be open."""

        def subscribe(observer: abc.ObserverBase[Part], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            self._grouping = _Grouping(observer, self._api, self._failure)
            return self._grouping.start(rows, scheduler)

        return Source(subscribe)

    def again(self, part: Part) -> None:
        """Emit one more part."""
        if self._grouping is not None:
            self._grouping.pass_on(part)

    def done(self) -> None:
        """Note that a part needs nothing more."""
        if self._grouping is not None:
            self._grouping.close()


class _Grouping(RefusingObserver[Row, Part]):
    """Collects rows until a part is full."""

    __slots__ = ("api", "failure", "full", "open", "rows", "rows_ended")

    def __init__(
        self, observer: abc.ObserverBase[Part], api: BatchAPI, failure: Callable[[], Exception | None]
    ) -> None:
        super().__init__(observer)
        self.api = api
        self.failure = failure
        self.full = min(ROWS, api.max_requests)
        self.rows: dict[str, list[Row]] = {}  # by model
        self.open = 0
        self.rows_ended = False

    def on_next(self, value: Row) -> None:
        model = self.api.model_of(value.request)
        rows = self.rows.setdefault(model, [])
        rows.append(value)
        if len(rows) >= self.full:
            self.pass_on(Part(model, self.rows.pop(model)))

    def on_completed(self) -> None:
        """Pass the last rows on. A job that stops early ends with its failure instead."""
        if (failure := self.failure()) is not None:
            self.refuse(failure)
            return
        self.rows_ended = True
        self.open += 1  # until the last parts are emitted
        for model, rows in self.rows.items():
            self.pass_on(Part(model, rows))
        self.close()

    def pass_on(self, part: Part) -> None:
        """Emit a part."""
        self.open += 1
        self.emit(part)

    def close(self) -> None:
        """Note that a part is done, and complete after the last one."""
        self.open -= 1
        if self.rows_ended and not self.open:
            super().on_completed()
