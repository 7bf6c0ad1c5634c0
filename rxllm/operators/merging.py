"""`merged`: several streams as one, and the fold of their values.

States of a merge: open, then ended. The first error of a stream, the completion of the last stream, or a dispose ends
it. Everything happens on the subscriber's event loop; events from other threads are handed to that loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

from reactivex import Observable, abc

from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.loops import in_loop
from ..runtime.scheduler import Scheduler, Timers, call, timers
from ..runtime.source import Source, connect
from .adding_up import BY_VALUE, LAST, SAME, Fold

__all__ = ["Item", "fold_by_key", "merged"]

Item = dict[str, Any]


def merged(begin: Callable[[], Mapping[str | None, Observable[Any]]]) -> Source[Item]:
    """Emit the values of several streams as they arrive, each as ``{key: value}``.

    ::

        a         -1---2-|
        b         --3-------4-|
        merged()  -13--2----4-|          as {'a': 1}, {'b': 3} …

    Each subscription calls `begin`, which makes the streams. The values of a stream under the key None are dicts, and
    are emitted as they are.

    Errors: the first error of a stream, after the other streams were disposed.
    """

    def subscribe(observer: abc.ObserverBase[Item], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        merge = _Merge(observer, timers(requested))
        merge.start(begin())
        return merge

    return Source(subscribe)


class _Merge(abc.DisposableBase):
    """One subscription to all streams.

    Attributes:
        open: the subscriptions to the streams that have not completed; empty once the merge has ended.
    """

    def __init__(self, observer: abc.ObserverBase[Item], scheduler: Timers) -> None:
        self.observer = observer
        self.scheduler = scheduler
        self.open: dict[_Branch, LockFreeSerialDisposable] = {}

    def start(self, streams: Mapping[str | None, Observable[Any]]) -> None:
        branches = {_Branch(self, key): stream for key, stream in streams.items()}
        self.open = {branch: LockFreeSerialDisposable() for branch in branches}
        for branch, stream in branches.items():
            subscription = self.open.get(branch)
            if subscription is None:  # an earlier stream has failed already
                return
            try:
                subscription.disposable = connect(stream, branch, self.scheduler)
            except Exception as error:  # such as a missing key
                branch.on_error(error)

    def is_here(self) -> bool:
        """Return whether this code runs on the event loop. On virtual time there is none."""
        return not isinstance(self.scheduler, Scheduler) or in_loop(self.scheduler.loop)

    def leave(self) -> None:
        """Dispose all streams."""
        subscriptions, self.open = self.open, {}
        for subscription in subscriptions.values():
            subscription.dispose()

    def dispose(self) -> None:
        call(self.scheduler, self.leave)


class _Branch(abc.ObserverBase[Any]):
    """The observer of one stream."""

    __slots__ = ("key", "merge")

    def __init__(self, merge: _Merge, key: str | None) -> None:
        self.merge = merge
        self.key = key

    def on_next(self, value: Any) -> None:
        if self.merge.is_here():
            self.emit(value)
        else:
            call(self.merge.scheduler, partial(self.emit, value))

    def on_error(self, error: Exception) -> None:
        call(self.merge.scheduler, partial(self.fail, error))

    def on_completed(self) -> None:
        call(self.merge.scheduler, self.complete)

    def emit(self, value: Any) -> None:
        merge = self.merge
        if self not in merge.open:
            return
        try:
            merge.observer.on_next(value if self.key is None else {self.key: value})
        except BaseException:  # the subscriber's, which ends its subscription to all streams
            merge.leave()
            raise

    def fail(self, error: Exception) -> None:
        """End with the error. The other streams are disposed first: the subscriber may handle the error slowly."""
        if self in self.merge.open:
            self.merge.leave()
            self.merge.observer.on_error(error)

    def complete(self) -> None:
        subscription = self.merge.open.pop(self, None)
        if subscription is not None:
            subscription.dispose()
            if not self.merge.open:
                self.merge.observer.on_completed()


def fold_by_key(folds: Mapping[str, Fold]) -> Fold:
    """The fold of ``{key: value}`` items to one dict of answers. For the same folds it is the same object.

    A key without a fold holds its only value, or what its values add up to. These keys come first, in the order of
    their first values; the keys with a fold follow in the order of `folds`. Where a fold needs a value and there is
    none, the answer is None.
    """
    return _fold_by_key(tuple(folds.items()))


@lru_cache(256)
def _fold_by_key(pairs: tuple[tuple[str, Fold], ...]) -> Fold:
    folds = dict(pairs)

    def finish(items: list[Any]) -> Item:
        values = _by_key(items)
        others = {key: _only(values[key]) for key in values if key not in folds}
        return {**others, **{key: _answer(fold, values.get(key, [])) for key, fold in folds.items()}}

    def shorten(items: list[Any]) -> list[Any]:
        shorter: list[Any] = []
        for key, values in _by_key(items).items():
            shorten_values = folds.get(key, BY_VALUE).shorten
            kept = shorten_values(values) if shorten_values is not None and len(values) > 1 else values
            shorter += [{key: value} for value in kept]
        return shorter

    return Fold(finish, shorten if all(fold.shorten for fold in folds.values()) else None)


def _by_key(items: Iterable[Item]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for item in items:
        for key, value in item.items():
            values.setdefault(key, []).append(value)
    return values


def _only(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else BY_VALUE.finish(values)


def _answer(fold: Fold, values: list[Any]) -> Any:
    return None if not values and fold in (BY_VALUE, LAST, SAME) else fold.finish(values)
