"""What handlers hear: events, named by past participles. A `Chunk` is an event, too."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import Factory, field, frozen
from reactivex import abc

from .misuse import MisuseError
from .showing import brief
from .values.chunk import Chunk, thawed
from .values.message import Message
from .values.request import Request

__all__ = [
    "Cancelled",
    "Chunk",
    "Custom",
    "Emitted",
    "Event",
    "Failed",
    "Finished",
    "Handler",
    "Heard",
    "Kind",
    "Listener",
    "Retried",
    "Run",
    "RunChunk",
    "Service",
    "Started",
    "ToolFinished",
    "ToolStarted",
]

Kind = Literal["llm", "chat_model", "chain", "tool"]


@frozen
class Service:
    """Who answers a model's run.

    Attributes:
        provider: whose protocol it is, in lower case: ``openai``, ``anthropic``.
        model: the name that it is asked by, if it has one.
        address: the host it is on; None for what answers in this process.
        port: the port there.
        streaming: whether it is asked for chunks as the model makes them.
    """

    provider: str
    model: str | None = None
    address: str | None = None
    port: int | None = None
    streaming: bool = True

    __repr__ = brief


@frozen
class Run:
    """One call of a model, a pipeline or a tool.

    Attributes:
        id: its own, unlike all others.
        name: what it is called: the ``run_name`` of its config, else the class of what was called.
        kind: what was called; a model that continues a text is an ``llm``, one that converses a ``chat_model``.
        parent_ids: the runs that it is part of, the root first.
        tags: of its config and of the runs it is part of, sorted.
        metadata: likewise; the inner wins.
        service: who answers, if it is a model's.
    """

    id: str
    name: str
    kind: Kind
    parent_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(factory=dict[str, Any])
    service: Service | None = None

    __repr__ = brief


class _OfRun:
    """What every event tells of its run."""

    __slots__ = ()

    run: Run
    time: float

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run.id

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """The runs that it is part of, the root first."""
        return self.run.parent_ids

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.run.name

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        return self.run.tags

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The run's metadata."""
        return self.run.metadata


@frozen(kw_only=True)
class _Event(_OfRun):
    """What all events but chunks have.

    Attributes:
        run: whose event it is.
        time: when, in seconds since the epoch.
    """

    run: Run
    time: float = field(factory=time.time, eq=False)


@frozen
class Started(_Event):
    """A run began. `input` is a model's `Request`, or what a pipeline or a tool was given."""

    input: Any

    @property
    def request(self) -> Request:
        """A model's input."""
        if not isinstance(self.input, Request):
            raise MisuseError(f"{self.name} is no model, so it has no request; what it was given is `input`.")
        return self.input


class RunChunk(Chunk, _OfRun):
    """A chunk, as an event: it knows its run."""

    __slots__ = ("run", "time")

    run: Run
    time: float


_ThawedRunChunk = thawed(RunChunk)
_new: Callable[[Any], Any] = object.__new__
_now = time.time


def run_chunk(chunk: Chunk, run: Run) -> RunChunk:
    """The chunk as an event of the run, at the price of a slot each."""
    event = _new(_ThawedRunChunk)
    event.text = chunk.text
    event.rest = chunk.rest
    event.run = run
    event.time = _now()
    event.__class__ = RunChunk
    return event  # type: ignore[no-any-return]  # cast() is a call, and this is the per-token path


@frozen
class Emitted(_Event):
    """A pipeline gave a value."""

    value: Any


@frozen
class Finished(_Event):
    """A run is over. `output` is a model's Message, what a pipeline's values add up to, or a tool's result."""

    output: Any

    @property
    def message(self) -> Message:
        """A model's answer."""
        if not isinstance(self.output, Message):
            raise MisuseError(f"{self.name} is no model, so it has no message; what it gave is `output`.")
        return self.output


@frozen
class Failed(_Event):
    """A run failed; `partial` is what it had sent before, None if nothing."""

    error: Exception
    partial: Any = field(default=Factory(lambda self: getattr(self.error, "partial", None), takes_self=True))


@frozen
class Cancelled(_Event):
    """The subscriber left before the end; `partial` is what it had been sent, None if nothing."""

    partial: Any = None


@frozen
class Retried(_Event):
    """A model is asked again, in `delay` seconds: `attempt` is the number of the one that failed, counted from 1."""

    attempt: int
    error: Exception
    delay: float = 0.0


@frozen
class ToolStarted(_Event):
    """A tool was called with `input`."""

    input: Any


@frozen
class ToolFinished(_Event):
    """A tool gave `output`."""

    output: Any


@frozen
class Custom(_Event):
    """The program's own event, as it was given to `dispatch`."""

    topic: str
    data: Any = None


Event = Started | Chunk | Emitted | Finished | Failed | Cancelled | Retried | ToolStarted | ToolFinished | Custom
Heard = Callable[[Event], object]


def _told(error: BaseException) -> list[Handler]:
    """The handlers that have heard of this error as `Failed`. Who hears events and their end would hear it twice."""
    told: list[Handler] = error.__dict__.setdefault("_rxllm_told", [])
    return told


class Handler(abc.ObserverBase[Event]):
    """Whoever listens: an observer of events, with one method to write, in which ``match`` tells them apart.

    Attached to a model, a pipeline or a call (``handlers=[…]``) it hears each run from Started to one of Finished,
    Failed and Cancelled. It can also be subscribed, to `events` or to a model's answer itself, of which it then hears
    the chunks.

    Attributes:
        raise_error: whether what it raises fails the run. Otherwise it is logged, and disturbs nobody.
    """

    raise_error: bool = False

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Hears the next event."""

    def on_next(self, value: Event) -> None:
        """Hears the next event, as an observer."""
        if isinstance(value, Failed):
            _told(value.error).append(self)
        self.on_event(value)

    def on_error(self, error: Exception) -> None:
        """Hears, as an observer, that the answer failed."""
        if not any(handler is self for handler in _told(error)):
            self.on_event(Failed(error, run=_NO_RUN))

    def on_completed(self) -> None:
        """Hears, as an observer, that the answer is whole."""


_NO_RUN = Run("", "", "chain")

Listener = Handler | abc.ObserverBase[Any] | Heard
