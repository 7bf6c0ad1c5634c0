"""`LockFreeSerialDisposable`: one disposable at a time, without a lock."""

from __future__ import annotations

from reactivex import abc

__all__ = ["LockFreeSerialDisposable"]


class LockFreeSerialDisposable(abc.DisposableBase):
    """One disposable at a time, which the next replaces and disposes of: reactivex's SerialDisposable without its lock.

    Locks are most of what a disposable costs, in time and in objects for the collector of garbage to walk, and each
    stream has five of these. Any thread may dispose; both sides look after they have written, so that one of them sees
    the other, and to dispose twice does no harm.
    """

    __slots__ = ("_disposable", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._disposable: abc.DisposableBase | None = None

    @property
    def disposable(self) -> abc.DisposableBase | None:
        """The current one."""
        return self._disposable

    @disposable.setter
    def disposable(self, disposable: abc.DisposableBase | None) -> None:
        before, self._disposable = self._disposable, disposable
        if before is not None:
            before.dispose()
        if self.is_disposed:
            self.dispose()

    def dispose(self) -> None:
        """Disposes of the current one, and of all that are still to come."""
        self.is_disposed = True
        current, self._disposable = self._disposable, None
        if current is not None:
            current.dispose()
