"""The operators behind `retry`, `fallback` and `hedge`.

All three make attempts until one of them emits content. An attempt has four states:

* waiting: it has emitted only facts (usage, model, id), which it holds back. Its owner can drop it unnoticed.
* committed: it has emitted its first part. Its values go to the subscriber, and its owner drops all other attempts.
* failed or completed: it calls its owner, which starts the next attempt or ends the stream.
* dropped: it ignores all further events.

Only the event loop of the stream changes these states. A subscriber that disposes on another thread calls that loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar, cast

from reactivex import Observable, abc

from ..errors import RxllmError, Timeout
from ..events import Retried
from ..observation import notify
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Baggage, Scheduler, Timers, call, clock, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from ..values.message import Message
from .backoff import USUAL_DELAY, Delay, is_retryable
from .observer import ignore
from .serialising import serialised

__all__ = ["REPEATED", "RETRIED_ABOVE", "Begin", "may_repeat", "must_not_repeat", "retried", "tried"]

T = TypeVar("T")
Begin = Callable[[], Observable[T]]

RETRIED_ABOVE = Baggage(default=False)
"""Whether an outer combinator already retries a failure, so that inner levels must not."""

REPEATED = Baggage(default=False)
"""Whether this subscription is a further attempt of an outer `retry` at the same request."""

_DONE = "_rxllm_done"  # an attribute of an error


def must_not_repeat(error: Exception) -> None:
    """Mark the error of a request that must not be repeated, because it has had effects: tools have run."""
    vars(error)[_DONE] = True


def may_repeat(error: Exception) -> bool:
    """Return whether the request that failed with this error had no effects."""
    return _DONE not in vars(error)


def retried(
    begin: Begin[T],
    attempts: int,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
    restarts: bool = False,
    within: float | None = None,
) -> Source[T]:
    """Subscribe again after a failure, at most `attempts` times in all.

    ::

        ---x  ---a-b-|
        retried(begin, 2)
        ---------a-b-|

    After the first part it does not retry, unless `restarts` is true. Then a chunk with ``reset`` discards the earlier
    chunks.

    `within` limits the seconds until the first part, over all attempts and the waits between them. A wait that would
    pass this limit is not started. The first attempt must keep the limit by itself.

    Errors: the error of the last attempt; `Timeout` when `within` ends during a later attempt.
    """

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        return _Retrying(observer, begin, timers(requested), attempts, when, delay, restarts=restarts, within=within)

    return Source(subscribe)


def tried(begins: Sequence[Begin[T]], when: Callable[[Exception], bool], after: float | None) -> Source[T]:
    """Pass on the first of several streams that emits a part, or completes.

    ::

        ---x
            ----b-b-|
        tried([a, b])
        --------b-b-|

    The next stream starts when the latest one fails, and also when the latest one has emitted no part for `after`
    seconds.

    Errors: those of the chosen stream. When all streams fail, the last error, with the earlier errors as its notes.
    """

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        return _Trying(observer, begins, timers(requested), when, after)

    return Source(subscribe)


class _Trial(Protocol[T]):
    """The owner of attempts. It starts the next attempt or ends the stream."""

    def committed(self, attempt: _Attempt[T]) -> None:
        """The attempt has emitted its first part."""
        ...

    def failed(self, attempt: _Attempt[T], error: Exception) -> None:
        """The attempt has failed, before or after it committed."""
        ...


class _Attempt(abc.ObserverBase[T], Generic[T]):
    """One attempt. It holds back the facts before its first part, because a dropped attempt must emit nothing."""

    __slots__ = ("held", "is_committed", "observer", "on_next", "over", "subscription", "trial")

    # In a slot: a committed attempt replaces it by the subscriber's, and then costs nothing per chunk.
    on_next: Callable[[T], None]  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, trial: _Trial[T], observer: abc.ObserverBase[T]) -> None:
        self.trial = trial
        self.observer = observer
        self.held: T | None = None
        self.is_committed = self.over = False
        self.on_next = self.begun
        self.subscription = LockFreeSerialDisposable()

    def begin(self, begin: Begin[T], scheduler: Timers) -> None:
        try:
            source = begin()
            if not isinstance(source, Source) and isinstance(scheduler, Scheduler):
                source = serialised(source, scheduler)
            self.subscription.disposable = connect(source, self, scheduler)
        except Exception as error:
            self.on_error(error)

    def begun(self, value: T) -> None:
        """Handle values before the first part: hold facts back, and commit at a part."""
        if self.over or self.is_committed:  # while the source still calls the old method
            self.on_next(value)
        elif isinstance(value, Chunk) and not value.text and (value.rest is None or not value.rest.parts):
            # Joined, because a server may send any number of facts.
            self.held = value if self.held is None else cast("T", cast("Chunk", self.held) + value)
        else:
            self.commit()
            self.on_next(value)

    def commit(self) -> None:
        self.is_committed = True
        self.on_next = self.observer.on_next  # first, because the owner may dispose, raise, or cause the next value
        self.trial.committed(self)
        self.let_go()

    def let_go(self) -> None:
        """Emit the held facts, also those of a failed attempt that has no successor."""
        held, self.held = self.held, None
        if held is not None:
            self.observer.on_next(held)

    def leave(self) -> None:
        self.over = True
        self.on_next = ignore
        self.subscription.dispose()

    def on_error(self, error: Exception) -> None:
        if not self.over:
            self.leave()
            self.trial.failed(self, error)

    def on_completed(self) -> None:
        if not self.over:
            if not self.is_committed:  # an empty answer counts as an answer
                self.commit()
            self.leave()
            self.observer.on_completed()


def _with_others(scheduler: Timers) -> Timers:
    return scheduler.with_baggage(RETRIED_ABOVE, True) if isinstance(scheduler, Scheduler) else scheduler


class _Retrying(abc.DisposableBase, Generic[T]):
    """Makes one attempt after another at the same stream."""

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        begin: Begin[T],
        scheduler: Timers,
        attempts: int,
        when: Callable[[Exception], bool],
        delay: Delay,
        *,
        restarts: bool,
        within: float | None,
    ) -> None:
        self.observer = observer
        self.begin = begin
        self.scheduler = scheduler
        self.attempts = attempts
        self.when = when
        self.delay = delay
        self.restarts = restarts
        self.number = 0
        self.spoken = False  # a part was emitted, which the next attempt takes back by a reset
        self.partial: Message | None = None
        self.current = LockFreeSerialDisposable()
        self.within = within
        self.ends = 0.0 if within is None else clock(scheduler)() + within
        self.alarm = LockFreeSerialDisposable()
        call(scheduler, self.start)

    def start(self, *_: object) -> None:
        self.number += 1
        attempt = _Attempt(self, self.observer)
        self.current.disposable = attempt.subscription
        scheduler = _with_others(self.scheduler)
        if self.number > 1 and isinstance(scheduler, Scheduler):
            scheduler = scheduler.with_baggage(REPEATED, True)
        attempt.begin(self.begin, scheduler)

    def committed(self, attempt: _Attempt[T]) -> None:
        if self.spoken:
            self.observer.on_next(cast("T", Chunk(reset=True)))
        self.spoken = True
        self.alarm.dispose()
        if not self.restarts:
            del self.begin  # frees the prompt and the model

    def failed(self, attempt: _Attempt[T], error: Exception) -> None:
        if isinstance(error, RxllmError):
            self.partial = error.partial = error.partial or self.partial
        try:
            seconds = self.pause(attempt, error)
        except Exception as raised:  # by `when` or `delay`, or by a handler with raise_error
            error, seconds = raised, None
        if seconds is not None:
            self.current.disposable = self.scheduler.schedule_relative(seconds, self.start)
            if self.within is not None and not self.spoken:
                left = self.ends - clock(self.scheduler)()
                self.alarm.disposable = self.scheduler.schedule_relative(left, partial(self.late, error))
            return
        self.alarm.dispose()
        if not self.spoken:
            attempt.let_go()
        self.observer.on_error(error)

    def pause(self, attempt: _Attempt[T], error: Exception) -> float | None:
        """Return the seconds until the next attempt, and emit `Retried`. None means that no attempt follows."""
        if not may_repeat(error) or self.number >= self.attempts:
            return None
        if (attempt.is_committed and not self.restarts) or not self.when(error):
            return None
        seconds = self.delay(error, self.number)
        scheduler = self.scheduler
        if seconds is not None and self.within is not None and not self.spoken:
            seconds = seconds if clock(scheduler)() + seconds < self.ends else None
        if seconds is not None:
            notify(scheduler, lambda run: Retried(self.number, error, seconds, run=run))
        return seconds

    def late(self, error: Exception, *_: object) -> None:
        """Time out, because no attempt emitted a part within the limit."""
        self.current.dispose()
        late = Timeout(f"No first chunk came within {self.within:g} s, in {self.number} attempts.")
        late.add_note(f"An earlier attempt failed: {type(error).__name__}: {error}")
        if isinstance(error, RxllmError):
            late.request, late.partial = error.request, self.partial
        self.observer.on_error(late)

    def dispose(self) -> None:
        call(self.scheduler, self.leave)

    def leave(self) -> None:
        self.alarm.dispose()
        self.current.dispose()


class _Trying(abc.DisposableBase, Generic[T]):
    """Makes several attempts, possibly at once, until one commits."""

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        begins: Sequence[Begin[T]],
        scheduler: Timers,
        when: Callable[[Exception], bool],
        after: float | None,
    ) -> None:
        self.observer = observer
        self.begins = iter(begins)
        self.scheduler = scheduler
        self.when = when
        self.after = after
        self.left = len(begins)
        self.running: list[_Attempt[T]] = []
        self.errors: list[Exception] = []
        self.timer = LockFreeSerialDisposable()
        call(scheduler, self.start)

    def start(self, *_: object) -> None:
        self.left -= 1
        attempt = _Attempt(self, self.observer)
        self.running.append(attempt)
        self.timer.disposable = None  # the timer of the attempt before, which may have failed before the timer fired
        if self.after is not None and self.left:
            self.timer.disposable = self.scheduler.schedule_relative(self.after, self.start)
        attempt.begin(next(self.begins), _with_others(self.scheduler) if self.left else self.scheduler)

    def committed(self, attempt: _Attempt[T]) -> None:
        self.timer.dispose()
        running, self.running = self.running, [attempt]
        for other in running:
            if other is not attempt:
                other.leave()

    def failed(self, attempt: _Attempt[T], error: Exception) -> None:
        is_latest = attempt is self.running[-1]
        self.running.remove(attempt)
        self.errors.append(error)
        try:
            goes_on = not attempt.is_committed and may_repeat(error) and self.when(error)
        except Exception as raised:
            goes_on = False
            self.errors.append(raised)
        if goes_on and is_latest and self.left:
            self.start()
        elif not self.running:
            self.leave()
            *others, error = self.errors
            for other in others:
                error.add_note(f"Another model failed earlier: {type(other).__name__}: {other}")
            attempt.let_go()
            self.observer.on_error(error)

    def dispose(self) -> None:
        call(self.scheduler, self.leave)

    def leave(self) -> None:
        self.timer.dispose()
        for attempt in self.running:
            attempt.leave()
