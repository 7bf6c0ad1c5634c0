"""The messages that reach an agent while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from ..misuse import MisuseError, shown
from ..runtime.scheduler import Scheduler
from ..values.message import Message

__all__ = ["Inbox"]


class Inbox:
    """Collects the messages of an Observable until the agent takes them.

    The Observable may emit on any thread. The list of messages changes on the event loop of the scheduler only.
    """

    def __init__(self, scheduler: Scheduler, on_failure: Callable[[Exception], object]) -> None:
        self.scheduler = scheduler
        self.on_failure = on_failure
        self.messages: list[Message] = []
        self.subscription: abc.DisposableBase = Disposable()

    def open(self, source: Observable[Any] | None) -> None:
        """Subscribe to the messages."""
        if source is not None:
            self.subscription = source.subscribe(self._received, self._failed, scheduler=self.scheduler)

    def take(self) -> list[Message]:
        """Return the messages that came since the last time."""
        taken, self.messages = self.messages, []
        return taken

    def _received(self, item: object) -> None:
        if isinstance(item, str):
            item = Message("user", item)
        if isinstance(item, Message) and item.role in ("user", "system"):
            message = item
            self.scheduler.call(lambda: self.messages.append(message))
        else:
            self._failed(
                MisuseError(f"The inbox of an agent must emit texts or messages of the user, not {shown(item)}.")
            )

    def _failed(self, error: Exception) -> None:
        self.scheduler.call(lambda: self.on_failure(error))

    def close(self) -> None:
        """Unsubscribe."""
        self.subscription.dispose()
