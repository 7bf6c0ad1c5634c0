"""`job`: answer many rows, each once, and write the results to a journal.

States of a job: opening (a thread opens the journal and reads it), running (`batch_as_completed` asks for the rows
that the journal does not hold), closing (a thread writes everything to the disk), ended. They change on the event loop
of the subscription. A job that stops early takes no more rows, waits for the answers in flight, and then closes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import reactivex as rx
from reactivex import Observable, abc
from reactivex import operators as ops

from ..llm import LLM
from ..misuse import MisuseError, shown
from ..operators.batch import MAX_CONCURRENCY, batch_as_completed
from ..operators.stage import makes_operator
from ..providers.batches import BatchAPI
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Scheduler, scheduler_for
from ..runtime.source import Source, source
from ..runtime.threads import from_thread
from ..values.request import Prompt
from .answered import NO_NUMBER, Answered
from .asking import Asking
from .batching import Batching, api_of
from .intents import Intents
from .journal import Journal, OpenJournal
from .models import Factory, Shipment, as_model, as_whole
from .parts import Parts
from .pool import Pool
from .processes import check_workers
from .result import Result
from .rows import Row, filled, prompt_of
from .spending import Spending

__all__ = ["OnError", "job"]

OnError = Literal["record", "stop"] | float
"""What a job does when a row fails."""
Via = Literal["stream", "batch-api"]
"""How a job asks."""


@makes_operator(adds_up="list")
def job(
    llm: LLM | Factory,
    journal: Journal,
    *,
    workers: int = 0,
    concurrency: int = MAX_CONCURRENCY,
    prompt: str | Callable[[Any], Prompt] = prompt_of,
    id: str = "custom_id",
    on_error: OnError = "record",
    retry_failed: bool = False,
    dedupe: bool = False,
    via: Via = "stream",
) -> Callable[[Observable[Any]], Observable[Result]]:
    """Answer each row once, at most `concurrency` at a time, and write each result to a journal as soon as it comes.

    ::

        -p-q-r-|
        job(llm, journal)
        -----Q-P---R-|      and the next time:   -|

    The same job continues where an earlier one ended: the rows that the journal holds are not asked again. It emits the
    results that it adds; `Journal.results` gives all. *What is written is never lost or asked again; a crash pays at
    most what was in flight again; with a server that honours idempotency keys, or a batch API, nothing
    twice.*

    Shape: one `Result` for each row that the journal does not hold. With `from_iter` and `from_aiter` a row is pulled
    only when its request can start, so the source may be endless. To end early without losing paid answers, end the
    rows: ``rows.pipe(ops.take_until(stop), job(…))``. Disposing the job cancels the requests in flight.

    Errors: MisuseError for a row without a prompt, for two rows with the same id, and for a row whose request differs
        from the one that its result in the journal answers. An error that every row would get: an
        `AuthenticationError`, or `LimitReached` of a spent `Budget`. `LimitReached` with the limit ``errors``. The job
        then takes no more rows, and errors when all answers in flight are written. An OSError if the journal was moved
        or deleted; the job ends in the same way, and copies the results to the journal's path, or beside the file that
        is there now. An OSError if the journal cannot be written; it cancels the other requests.

    Args:
        llm: a model. ``retry(limited(llm, limiter))`` sends requests again and keeps the limits of an account. For
            `workers` it must be picklable, or a function of a module that returns a model.
        journal: where the results are.
        concurrency: the maximum number of requests at the same time.
        prompt: a template of the columns, such as ``"Translate: {text}"``, or a function from a row to a prompt. By
            default a row is a prompt, a dict with ``messages`` or ``prompt``, or a line of OpenAI's batch input.
        id: the column that names a row. Rows without ``custom_id``, or with an empty name, are named by a digest of
            the model and the request.
        on_error: ``"record"`` writes the failure of a row and continues; ``"stop"`` stops at the first one; a number
            such as 0.05 stops when more than this share of the rows failed.
        retry_failed: whether to ask again for rows whose result in the journal is a failure.
        dedupe: whether to ask equal requests once. Each row gets a result of its own.
        workers: the number of processes that ask, for more requests a second than one processor can handle; 0 asks in
            this process. The combinators in `llm`, the rows and the journal stay in this process, so limits, budgets
            and retries count for all workers together.
        via: ``"stream"`` sends a request for each row. ``"batch-api"`` sends rows together to the batch API of OpenAI,
            Anthropic or Gemini, which answers within a day at a lower price; `concurrency` is then the number of
            batches at once. Both write the same journal. A job that stops early does not wait for its batches: the
            next run reads them.

    Raises:
        MisuseError: an argument has a wrong type or value.
    """
    model, factory = as_model(llm)
    if not isinstance(cast("object", journal), Journal):
        raise MisuseError(f"job takes a Journal, such as rxllm.Journal('answers.jsonl'), not {type(journal).__name__}.")
    is_share = isinstance(on_error, (int, float)) and not isinstance(on_error, bool) and 0 < on_error < 1
    if on_error not in ("record", "stop") and not is_share:
        raise MisuseError(f"on_error must be 'record', 'stop' or a share such as 0.05, not {shown(on_error)}.")
    if via not in get_args(Via):
        raise MisuseError(f"via must be 'stream' or 'batch-api', not {shown(via)}.")
    api = api_of(model) if via == "batch-api" else None
    if api is not None and dedupe:
        raise MisuseError("dedupe=True needs via='stream': a batch API is asked for each row.")
    check_workers(workers)
    if api is not None and workers:
        raise MisuseError("workers= needs via='stream': a batch API does its work at the vendor.")
    model = as_whole(model)
    shipment = Shipment(model, factory) if workers else None
    make = filled(prompt) if isinstance(prompt, str) else prompt
    limit = {"record": 1.0, "stop": 0.0}.get(cast("str", on_error), cast("float", on_error))

    def operator(rows: Observable[Any]) -> Source[Result]:
        def subscribe(observer: abc.ObserverBase[Result], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            asking = Asking(model, make, id, limit=limit, retry_failed=retry_failed, dedupe=dedupe)
            if shipment is not None:
                asking.pool = Pool(min(workers, concurrency), shipment, asking.stop)
            open_rows = asking.open_rows(rows)
            if api is None:
                each = batch_as_completed(asking, max_concurrency=concurrency, return_exceptions=True)
                answers: Observable[tuple[int, Any]] = open_rows.pipe(each)
            else:
                answers = _in_batches(open_rows, api, asking, journal, concurrency)
            return _Job(observer, scheduler_for(requested), asking, answers, journal)

        return Source(subscribe)

    batch_as_completed(model, max_concurrency=concurrency)  # raises for a wrong number now, not at the subscription
    return operator


def _in_batches(
    rows: Observable[Row], api: BatchAPI, asking: Asking, journal: Journal, concurrency: int
) -> Observable[tuple[int, Any]]:
    """Return the answers of the batches of earlier runs, and then those of new ones.

    A failure ends it at once: batches go on at the vendor, and the next run reads them.
    """
    parts = Parts(api, lambda: asking.failure)
    intents = Intents(journal.path)
    spending = Spending(asking.llm, intents)
    batching = Batching(api, intents, parts, asking.begin, lambda: asking.failure, spending)
    each = batch_as_completed(batching, max_concurrency=concurrency)

    def in_slices(answer: tuple[int, Answered]) -> Source[Answered]:
        return source(lambda _: answer[1].in_slices())

    answered = rx.concat(batching.earlier(asking.is_written), parts.of(rows).pipe(each, ops.concat_map(in_slices)))
    return answered.pipe(ops.map(lambda answer: (NO_NUMBER, answer)))


class _Job(abc.ObserverBase[tuple[int, Any]], abc.DisposableBase):
    """One subscription to a job.

    Attributes:
        file: the journal while it is open.
        read: the batches whose answers are in the journal, but maybe not on the disk.
        ending: held by the thread that writes down that they are read.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Result],
        scheduler: Scheduler,
        asking: Asking,
        answers: Observable[tuple[int, Any]],
        journal: Journal,
    ) -> None:
        self.observer = observer
        self.scheduler = scheduler
        self.asking = asking
        self.answers = answers
        self.journal = journal
        self.pool = asking.pool
        self.file: OpenJournal | None = None
        self.read: deque[Callable[[], None]] = deque()
        self.ending = threading.Lock()
        self.current = LockFreeSerialDisposable()
        # The event loop's thread may open the journal, and go on, before `subscribe` returns here.
        self.current.disposable = opening = LockFreeSerialDisposable()
        opening.disposable = from_thread(self.open).subscribe(self.opened, observer.on_error, scheduler=scheduler)

    def open(self) -> None:
        """Open the journal, in a thread; close it again if the subscriber has left meanwhile."""
        self.asking.file = self.file = file = self.journal.open(by_request=self.asking.dedupe)
        if self.current.is_disposed:
            file.close()

    def opened(self, _: object) -> None:
        """Start the worker processes, if the job has some."""
        if self.pool is None:
            self.begin(None)
        else:
            self.current.disposable = self.pool.started().subscribe(self.begin, self.on_error, scheduler=self.scheduler)

    def begin(self, _: object) -> None:
        """Ask for the open rows."""
        self.current.disposable = self.answers.subscribe(self, scheduler=self.scheduler)

    def on_next(self, value: tuple[int, Any]) -> None:
        """Write the answer to a row, or the answers of a batch, and emit them."""
        number, answer = value
        if not isinstance(answer, Answered):
            self.write(number, answer)
            return
        if all(self.write(*pair) for pair in answer.pairs) and answer.end is not None:
            self.read.append(answer.end)
            from_thread(self.end_batches).subscribe(on_error=self.asking.stop, scheduler=self.scheduler)

    def end_batches(self) -> None:
        """Write down, in a thread, which batches are read: after their answers are on the disk."""
        with self.ending:  # the thread that closes the journal waits for an earlier one
            while self.read:
                self.asking.file.flush()
                self.read.popleft()()

    def finish(self) -> None:
        """Close the journal, in a thread, and wait for the ends of the worker processes."""
        try:
            self.end_batches()
        finally:
            try:
                self.asking.file.close()
            finally:
                self.file = None
                if self.pool is not None:
                    self.pool.join()

    def write(self, number: int, answer: Any) -> bool:
        """Write an answer, and emit it. Return whether the job goes on."""
        result = self.asking.result(number, answer)
        if result is None:
            return True
        try:
            try:
                self.asking.file.append(result)
            except MisuseError as error:  # another attempt would hardly get an answer that JSON can express
                result = self.asking.failed(result, error)
                self.asking.file.append(result)
        except OSError as error:
            self.current.dispose()
            self.on_error(error)
            return False
        if self.asking.file.is_displaced:  # closing it saves the results, and says where they are
            self.asking.stop(OSError("The journal was moved or deleted."))
        self.observer.on_next(result)
        return True

    def on_error(self, error: Exception) -> None:
        self.close(lambda _: self.observer.on_error(error))

    def on_completed(self) -> None:
        failure = self.asking.failure
        if failure is None:
            self.close(lambda _: self.observer.on_completed())
        else:
            self.on_error(failure)

    def close(self, then: Callable[[object], None]) -> None:
        """Close the journal, and then go on."""
        if self.pool is not None:
            self.pool.close()
        self.current = LockFreeSerialDisposable()
        self.current.disposable = from_thread(self.finish).subscribe(
            then, self.observer.on_error, scheduler=self.scheduler
        )

    def dispose(self) -> None:
        """Stop the job, from any thread."""
        self.scheduler.call(self.leave)

    def leave(self) -> None:
        """Cancel the requests in flight, and close the journal in a thread."""
        self.current.dispose()
        if self.pool is not None:
            self.pool.close()
        if self.file is not None:
            from_thread(self.finish).subscribe(on_error=self.lost, scheduler=self.scheduler)

    def lost(self, error: Exception) -> None:
        """Report that the journal of a disposed job could not be closed."""
        self.scheduler.report("The journal of a disposed job could not be written to the disk.", error)
