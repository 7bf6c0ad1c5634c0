"""`LockFreeSerialDisposable`: holds one disposable at a time, without a lock.

It is live until any thread disposes of it, then disposed for ever. `dispose` sets the flag before it takes the held
disposable, and the setter stores a disposable before it reads the flag. So one of two racing threads disposes of it.
"""

from __future__ import annotations

from reactivex import abc

__all__ = ["LockFreeSerialDisposable"]


class LockFreeSerialDisposable(abc.DisposableBase):
    """Holds one disposable, and disposes of it when a new one replaces it: reactivex's SerialDisposable without a lock.

    The lock is most of the cost of a disposable, in time and in objects that the garbage collector walks, and each
    stream has five of these. Any thread may dispose of it, any number of times.
    """

    __slots__ = ("_disposable", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._disposable: abc.DisposableBase | None = None

    @property
    def disposable(self) -> abc.DisposableBase | None:
        """The disposable that is held now."""
        return self._disposable

    @disposable.setter
    def disposable(self, disposable: abc.DisposableBase | None) -> None:
        before, self._disposable = self._disposable, disposable
        if before is not None:
            before.dispose()
        if self.is_disposed:
            self.dispose()

    def dispose(self) -> None:
        """Dispose of the held disposable, and of each one that is set later."""
        self.is_disposed = True
        current, self._disposable = self._disposable, None
        if current is not None:
            current.dispose()
