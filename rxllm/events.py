"""What handlers hear: events, named by past participles. A `Chunk` is an event, too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from reactivex import abc

from .errors import RxllmError
from .messages import Chunk, Message, Request

__all__ = ["Cancelled", "Chunk", "Event", "Failed", "Finished", "Handler", "Started"]


@frozen
class Started:
    """A model was asked. `name`, `tags` and `metadata` are those of ``with_config``."""

    request: Request
    name: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(factory=dict[str, Any])


@frozen
class Finished:
    """The answer is whole."""

    message: Message


@frozen
class Failed:
    """The answer failed."""

    error: Exception

    @property
    def partial(self) -> Message | None:
        """What had arrived before, where the error knows."""
        return self.error.partial if isinstance(self.error, RxllmError) else None


@frozen
class Cancelled:
    """The subscriber left before the end; `partial` is what it had been sent, None if nothing."""

    partial: Message | None = None


Event = Started | Chunk | Finished | Failed | Cancelled


class Handler(abc.ObserverBase[Event]):
    """Whoever listens: an observer of events, with one method to write, in which ``match`` tells them apart.

    Attached by `observe` it hears a run from Started to one of Finished, Failed and Cancelled. It can also be
    subscribed to a model's answer itself, ``llm("A haiku").subscribe(handler)``, and then hears its chunks.
    """

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Hears the next event."""

    def on_next(self, value: Event) -> None:
        """Hears the next event, as an observer."""
        self.on_event(value)

    def on_error(self, error: Exception) -> None:
        """Hears, as an observer, that the answer failed."""
        self.on_event(Failed(error))

    def on_completed(self) -> None:
        """Hears, as an observer, that the answer is whole."""
