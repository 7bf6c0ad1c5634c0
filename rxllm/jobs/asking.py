"""`Asking`: the rows of a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops

from ..bounds import MAX_WAIT
from ..combinators.asked import Asked
from ..combinators.budgeted import MAY_WAIT
from ..errors import AuthenticationError, LimitReached, ProviderError, RateLimited
from ..llm import ELSEWHERE, LLM
from ..misuse import MissingKey, MisuseError
from ..operators.attempts import may_repeat
from ..operators.observer import RefusingObserver
from ..operators.share import Shared
from ..runtime.scheduler import scheduler_for
from ..runtime.source import Source, connect
from ..values.message import Message
from ..values.request import Prompt, Request
from ..wire.repeats import IDEMPOTENCY_KEY
from .intents import Noted
from .journal import OpenJournal
from .models import as_whole, digest_of
from .pool import Pool, WorkerDied
from .processes import NoWorker
from .result import Failure, Result
from .rows import Placed, Row, id_of

__all__ = ["Asking", "concerns_all"]

_DEATHS = 3  # of worker processes while they answered one row; the row may be the reason


class Asking:
    """The rows of a job: which are open, which are in flight, and why the job stops early. `batch` asks it.

    Attributes:
        file: the journal; `_Job` sets it.
        pool: the worker processes that ask; None if this process asks. `_Job` sets it.
        failure: the error with which the job ends; None while the job takes rows.
    """

    file: OpenJournal

    def __init__(
        self,
        llm: LLM,
        make: Callable[[Any], Prompt],
        id_column: str,
        *,
        limit: float = 1.0,
        retry_failed: bool = False,
        dedupe: bool = False,
    ) -> None:
        self.llm = as_whole(llm)
        self.models = Asked(self.llm)
        self.make = make
        self.id_column = id_column
        self.limit = limit
        self.retry_failed = retry_failed
        self.dedupe = dedupe
        self.pool: Pool | None = None
        self.failure: Exception | None = None
        self._read = 0
        self._begun = 0
        self._done: int = 0
        self._failed: int = 0
        self._in_flight: dict[int, Row | Noted] = {}  # by the numbers that batch gives
        self._shared: dict[str, Shared[Message]] = {}  # the answers in flight by their requests, to ask equal ones once
        self._repeats: dict[str, int] = {}  # how often an equal request without an id came, if more than once
        self._end: Callable[[], object] = lambda: None

    def open_rows(self, rows: Observable[Any]) -> Source[Row]:
        """Return the rows that have no result yet; none after `stop`."""

        def subscribe(observer: abc.ObserverBase[Row], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            reading = _Rows(observer, self)
            self._end = reading.stop
            return reading.start(rows if self.failure is None else rx.empty(), scheduler)

        return Source(subscribe)

    def stop(self, failure: Exception) -> None:
        """Take no more rows, and remember why."""
        self.failure = self.failure or failure
        self._end()

    def named(self, item: Any) -> Row:
        """Return the row of an item, and note that it came.

        Raises:
            MisuseError: the item has no prompt, half a character, or an id that came before.
        """
        number, self._read = self._read, self._read + 1
        if isinstance(item, Placed):
            item, number = item.item, item.number
        try:
            request = Request.ask(self.make(item), self.llm.parameters)
            of = digest_of(self.models, request)
            return Row(self._name(id_of(item, self.id_column), of), number, request, of)
        except MisuseError as error:
            raise _at(number, error) from None
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise _at(number, f"It has half a character, {half!r}, which no encoding can express.") from None
        except Exception as error:  # of the program's own function for prompts
            error.add_note(f"Row {number + 1} of the input.")
            raise

    def row(self, item: Any) -> Row | None:
        """Return the row of an item; None if the journal has its result.

        Raises:
            MisuseError: as for `named`; or the journal has a result of this id for another request.
        """
        row = self.named(item)
        known = self.file.find(row.id)
        if known is None:
            return row
        line, failed = known
        if line.rxllm.request != row.digest:
            raise _at(
                row.number,
                f"The journal has a result of {row.id!r} for another request: the row, the model or a parameter has "
                "changed. Undo the change, choose another output, or give the row another id.",
            )
        return attrs.evolve(row, attempt=line.rxllm.attempt + 1) if failed and self.retry_failed else None

    def _name(self, id: str | None, of: str) -> str:
        name = of[:32] if id is None else id
        if self.file.see(name):
            if id is not None:
                raise MisuseError(f"The id {id!r} came before. Each row needs an id of its own, or none.")
            self._repeats[name] = repeat = self._repeats.get(name, 1) + 1
            name = f"{name}-{repeat}"
            self.file.see(name)
        return name

    def begin(self, row: Row | Noted) -> int:
        """Return the number of a row among the answers."""
        number, self._begun = self._begun, self._begun + 1
        self._in_flight[number] = row
        return number

    def is_written(self, row: Noted) -> bool:
        """Return whether the journal has the result of this attempt, or a later one."""
        known = self.file.find(row.id)
        return known is not None and known[0].rxllm.attempt >= row.attempt

    def answer(self, row: Row, /) -> Observable[Message]:
        """Ask for a row. `batch` numbers the answers in the order of these calls."""
        self.begin(row)
        if not self.dedupe:
            return self._surely_asked(row)
        if (equal := self.file.answer_to(row.digest)) is not None:
            return rx.of(equal)
        shared = self._shared.get(row.digest)
        if shared is None:
            shared = self._shared[row.digest] = Shared(self._surely_asked(row))
        return shared.stream()

    def _surely_asked(self, row: Row, deaths: int = 0) -> Observable[Message]:
        """Return the answer of the model. If the worker process that asks dies, another one asks again."""

        def again(error: Exception, _: object) -> Observable[Message]:
            if isinstance(error, WorkerDied) and may_repeat(error) and deaths + 1 < _DEATHS:
                return self._surely_asked(row, deaths + 1)
            return rx.throw(error)

        answer = self._asked(row)
        return answer if self.pool is None else answer.pipe(ops.catch(again))

    def _asked(self, row: Row) -> Source[Message]:
        """Return the answer of the model. A server that honours idempotency keys is paid once for it."""
        key = row.key

        def subscribe(observer: abc.ObserverBase[Message], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            scheduler = scheduler_for(requested).with_baggage(IDEMPOTENCY_KEY, key).with_baggage(MAY_WAIT, True)
            if self.pool is not None:
                scheduler = scheduler.with_baggage(ELSEWHERE, self.pool.ask)
            return connect(self.llm.answer(row.request), observer, scheduler)

        return Source(subscribe)

    def result(self, index: int, answer: Message | Exception) -> Result | None:
        """Return the result that an answer is; None if it says nothing about its row."""
        row = self._in_flight.pop(index, None)
        if row is None:  # a batch failed as a whole, and its rows stay open
            self.stop(cast("Exception", answer))
            return None
        self._shared.pop(row.digest, None)
        if isinstance(answer, Message):
            self._done += 1
            return Result(row.id, answer, None, row.number, row.digest, row.attempt)
        if concerns_all(answer) or (isinstance(answer, MisuseError) and self._done == self._failed):
            self.stop(answer)
            return None
        self._done += 1
        return self.failed(Result(row.id, row=row.number, request=row.digest, attempt=row.attempt), answer)

    def failed(self, result: Result, error: Exception) -> Result:
        """Return the result of a row that failed after all, and stop if too many rows did."""
        self._failed += 1
        if self._failed > self.limit * self._done and (not self.limit or self._done >= 1 / self.limit):
            self.stop(
                LimitReached(
                    f"The job stopped, because {self._failed} of {self._done} rows failed. The last error: {error}",
                    limit="errors",
                )
            )
        return attrs.evolve(result, answer=None, failure=Failure.of(error))


def concerns_all(error: Exception) -> bool:
    """Return whether every row would fail with this error, so that it says nothing about its row."""
    spent = isinstance(error, RateLimited) and not error.retryable
    closed = isinstance(error, ProviderError) and (error.retry_after or 0) > MAX_WAIT  # such as a limit of a day
    over_budget = isinstance(error, LimitReached) and error.limit == "budget"
    return spent or closed or over_budget or isinstance(error, (AuthenticationError, MissingKey, NoWorker))


def _at(number: int, error: object) -> MisuseError:
    return MisuseError(f"Row {number + 1} of the input: {error}")


class _Rows(RefusingObserver[Any, Row]):
    """Passes on the rows that have no result yet. After an error of the rows the answers in flight still arrive."""

    __slots__ = ("asking",)

    def __init__(self, observer: abc.ObserverBase[Row], asking: Asking) -> None:
        super().__init__(observer)
        self.asking = asking

    def on_next(self, value: Any) -> None:
        if self.ended:
            return
        try:
            row = self.asking.row(value)
        except Exception as error:
            self.asking.stop(error)
            return
        if row is not None:
            self.emit(row)

    def on_error(self, error: Exception) -> None:
        """End the rows, and let the job end with the error."""
        self.asking.stop(error)

    def stop(self) -> None:
        """End the rows."""
        if not self.ended:
            self.upstream.dispose()
            self.on_completed()
