"""The events that handlers receive, named by past participles. A `Chunk` is an event, too."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import Factory, field, frozen
from reactivex import abc

from .extensible import mutable_class
from .misuse import MisuseError
from .public import Public
from .showing import brief
from .values.chunk import Chunk
from .values.message import Message
from .values.request import Request

__all__ = [
    "Cancelled",
    "Chunk",
    "Custom",
    "Emitted",
    "Event",
    "EventCallback",
    "Failed",
    "Finished",
    "Handler",
    "Kind",
    "Listener",
    "Queued",
    "Retried",
    "Reused",
    "Run",
    "RunChunk",
    "Service",
    "Started",
    "ToolFinished",
    "ToolStarted",
]

Kind = Literal["llm", "chat_model", "chain", "agent", "tool"]


@frozen
class Service(metaclass=Public):
    """The service that answers a model's run.

    Attributes:
        provider: the name of the protocol, in lower case: ``openai``, ``anthropic``.
        model: the model's name in the request, if it has one.
        address: the server's host; None for a model in this process.
        port: the server's port.
        streaming: whether the request asks for chunks while the model generates.
    """

    provider: str
    model: str | None = None
    address: str | None = None
    port: int | None = None
    streaming: bool = True

    __repr__ = brief


@frozen
class Run(metaclass=Public):
    """One call of a model, a pipeline or a tool.

    Attributes:
        id: the unique id of the run.
        name: the ``run_name`` of the config, else the class name of the model, pipeline or tool.
        kind: the kind of the called object; a text-completion model is an ``llm``, a chat model a ``chat_model``, a
            pipeline or a combinator a ``chain``.
        parent_ids: the ids of the enclosing runs, the root first.
        tags: the tags of the config and of the enclosing runs, sorted.
        metadata: the metadata of the config and of the enclosing runs; inner values win.
        service: the service that answers a model's run; None for a pipeline or a tool.
    """

    id: str
    name: str
    kind: Kind
    parent_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(factory=dict[str, Any])
    service: Service | None = None

    __repr__ = brief


class _RunFacts(metaclass=Public):
    """The run's facts, as properties of every event."""

    __slots__ = ()

    run: Run
    time: float

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run.id

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """The ids of the enclosing runs, the root first."""
        return self.run.parent_ids

    @property
    def name(self) -> str:
        """The run's name."""
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
class _Event(_RunFacts):
    """The fields of every event except a chunk.

    Attributes:
        run: the run that the event belongs to.
        time: the event's time, in seconds since the epoch.
    """

    run: Run
    time: float = field(factory=time.time, eq=False)


@frozen
class Started(_Event):
    """A run started. `input` is a model's `Request`, or the input of a pipeline or a tool."""

    input: Any

    @property
    def request(self) -> Request:
        """The request of a model's run.

        Raises:
            MisuseError: the run is not a model's.
        """
        if not isinstance(self.input, Request):
            raise MisuseError(f"{self.name} is not a model, so it has no request; read `input` instead.")
        return self.input


class RunChunk(Chunk, _RunFacts):
    """A chunk with its run, as an event."""

    __slots__ = ("run", "time")

    run: Run
    time: float


MutableRunChunk = mutable_class(RunChunk)
_now = time.time


def run_chunk(chunk: Chunk, run: Run) -> RunChunk:
    """Return the chunk as an event of the run, without copying more than its slots."""
    event = MutableRunChunk()
    event.text = chunk.text
    event.rest = chunk.rest
    event.run = run
    event.time = _now()
    event.__class__ = RunChunk
    return event  # type: ignore[no-any-return]  # cast() is a call, and this is the per-token path


@frozen
class Emitted(_Event):
    """A pipeline emitted a value, or a tool that is a generator function reported progress."""

    value: Any


@frozen
class Finished(_Event):
    """A run completed. `output` is a model's Message, a pipeline's combined values, or a tool's result."""

    output: Any

    @property
    def message(self) -> Message:
        """The answer of a model's run.

        Raises:
            MisuseError: the run is not a model's.
        """
        if not isinstance(self.output, Message):
            raise MisuseError(f"{self.name} is not a model, so it has no message; read `output` instead.")
        return self.output


@frozen
class Failed(_Event):
    """A run failed. `partial` is the part of the answer that had arrived, or None."""

    error: Exception
    partial: Any = field(default=Factory(lambda self: getattr(self.error, "partial", None), takes_self=True))


@frozen
class Cancelled(_Event):
    """The subscriber cancelled the run. `partial` is the part of the answer that had arrived, or None."""

    partial: Any = None


@frozen
class Retried(_Event):
    """A model is asked again in `delay` seconds. `attempt` is the number of the failed attempt, counted from 1."""

    attempt: int
    error: Exception
    delay: float = 0.0


@frozen
class Queued(_Event):
    """The request waits for a `Limiter`, or for an earlier turn of its `Conversation`.

    The wait ends with the next event of this run or of a run inside of it. A request that need not wait has no such
    event.
    """


@frozen
class Reused(_Event):
    """`cached` needs no request. The answer comes from its store or, with `running`, from a request of another call."""

    running: bool = False


@frozen
class ToolStarted(_Event):
    """A tool was called with `input`."""

    input: Any


@frozen
class ToolFinished(_Event):
    """A tool returned `output`."""

    output: Any


@frozen
class Custom(_Event):
    """An event of the program's own, from `dispatch`."""

    topic: str
    data: Any = None


Event = (
    Started
    | Chunk
    | Emitted
    | Finished
    | Failed
    | Cancelled
    | Retried
    | Queued
    | Reused
    | ToolStarted
    | ToolFinished
    | Custom
)
EventCallback = Callable[[Event], object]


def _receivers_of(error: BaseException) -> list[Handler]:
    """Return the handlers that have received this error as `Failed`, so that `on_error` does not report it again."""
    receivers: list[Handler] = error.__dict__.setdefault("_rxllm_receivers", [])
    return receivers


class Handler(abc.ObserverBase[Event]):
    """An observer of events. Implement `on_event`, and tell the events apart with ``match``.

    Attached to a model, a pipeline or a call (``handlers=[…]``), the handler receives the events of each run, from
    Started to one of Finished, Failed and Cancelled. It can also be subscribed: to `events`, or directly to a model's
    answer, whose chunks it then receives.

    Attributes:
        raise_error: whether an exception in the handler fails the run. By default the exception is logged.
    """

    raise_error: bool = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _chunk_receiver(self, run: Run) -> Callable[[Chunk], object] | None:
        """Return what receives the chunks of a run without their events; None to receive the events.

        To make an event takes half of the time that a handler takes for a chunk. A class overrides this method beside
        its `on_event`. It does not apply to a subclass that overrides `on_event` again.
        """
        return None

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Receive the next event."""

    def on_next(self, value: Event) -> None:
        """Receive the next event, as an observer."""
        if isinstance(value, Failed):
            _receivers_of(value.error).append(self)
        self.on_event(value)

    def on_error(self, error: Exception) -> None:
        """Receive the answer's failure, as an observer."""
        if not any(handler is self for handler in _receivers_of(error)):
            self.on_event(Failed(error, run=_NO_RUN))

    def on_completed(self) -> None:
        """Receive the answer's completion, as an observer."""


_NO_RUN = Run("", "", "chain")

Listener = Handler | abc.ObserverBase[Any] | EventCallback
