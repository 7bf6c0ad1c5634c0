"""`Surface`: the methods that an LLM, a Pipeline, a tool and every combinator share, such as `stream` and `batch`.

Each method applies an operator to the Observable that the object returns when called.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Literal, NoReturn, Protocol, Self, TypeVar, Unpack, cast, overload

import attrs
from attrs import field, frozen
from attrs.validators import optional
from reactivex import Observable, abc

from .bridges import AsyncStream, SyncStream, from_aiter, from_iter
from .bridges.stream import CallerStream
from .events import Event, Listener
from .extensible import Extensible, evolved
from .graph import Graph
from .misuse import MisuseError, is_text, must_be, shown
from .observation import BoundListener, observation_of, observed_by
from .operators.adding_up import Fold
from .operators.astream_events import SELECTIONS, as_dicts
from .operators.batch import MAX_CONCURRENCY, batch, batch_as_completed
from .operators.observer import ignore
from .operators.observing import bound_listeners
from .public import PublicABC
from .runtime.scheduler import scheduler_for
from .runtime.source import Source, connect
from .showing import brief
from .values.frozen import frozen_json
from .values.parameters import Settings
from .values.request import Request

__all__ = ["Surface", "stages_in"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Answer = TypeVar("Answer", covariant=True)


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise MisuseError(f"tags must be a list of texts, not one text. Write tags=[{tags!r}].")
    items = tuple(tags) if isinstance(cast("object", tags), Iterable) else (None,)
    if not all(map(is_text, items)):
        raise MisuseError(f"tags must be a list of texts, not {shown(tags)}.")
    return tuple(sorted(set(cast("tuple[str, ...]", items))))


def _metadata(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if metadata is not None and not isinstance(cast("object", metadata), Mapping):
        raise MisuseError(f"metadata must be a dict, not {shown(metadata)}.")
    return cast("Mapping[str, Any]", frozen_json(metadata or {}))


def _bound_listeners(handlers: Iterable[Listener | BoundListener]) -> tuple[BoundListener, ...]:
    if not isinstance(cast("object", handlers), Iterable):
        raise MisuseError(f"handlers must be a list, not {type(handlers).__name__}. Pass handlers=[…].")
    listeners = tuple(handlers)
    for handler in listeners:
        if isinstance(cast("object", handler), type):
            name = cast("type", handler).__name__
            raise MisuseError(f"{name} is a class, not a handler. Attach an instance, as in {name}().")
    return bound_listeners(listeners)


@frozen(kw_only=True)
class Surface(Extensible, Generic[In, Out, Answer], metaclass=PublicABC):
    """A function from a prompt to a cold Observable, with methods to run it.

    The fields are frozen; see `Extensible`.

    Attributes:
        tags: labels on the runs, by which handlers and tracing tools filter.
        metadata: a dict on the runs, by which handlers and tracing tools filter.
        run_name: the name of the runs.
        handlers: the handlers that receive the events of the runs and of all runs within them.
    """

    _shared_by_copies: ClassVar[tuple[str, ...]] = ("handlers",)

    tags: tuple[str, ...] = field(default=(), converter=_tags)
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], converter=_metadata, hash=False)
    run_name: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    handlers: tuple[BoundListener, ...] = field(default=(), converter=_bound_listeners, repr=False)

    def __repr__(self) -> str:
        return brief(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        graph = self.graph()
        return {"text/vnd.mermaid": graph.mermaid()} if graph.parts else {}

    def graph(self) -> Graph:
        """Return what the model or the pipeline consists of, to print or to draw it. Nothing is sent.

        A model that a function uses is not a part of the graph, because only a call would show it.
        """
        return self._graph()

    def _graph(self) -> Graph:
        parts = tuple(("", part.graph()) for part in stages_in(self))
        return Graph(type(self).__name__, "parallel", parts) if parts else Graph(repr(self), "model")

    @abstractmethod
    def __call__(self, prompt: In, /) -> Observable[Out]:
        """Return the stream. It is cold: each subscription sends a request, and nothing is sent before."""

    @abstractmethod
    def answer(self, prompt: In, /) -> Observable[Answer]:
        """Return the answer, as an Observable of one value."""

    @property
    @abstractmethod
    def _fold(self) -> Fold:
        """The rule by which the values add up to the answer."""

    @property
    def _has_model(self) -> bool:
        """Whether parameters apply to a model in it."""
        return True

    @abstractmethod
    def _with_parameters(self, parameters: Settings) -> Self:
        """Return a copy with these parameters."""

    def bind(self, **settings: Unpack[Settings]) -> Self:
        """Return a copy with these parameters and this config.

        Raises:
            MisuseError: a parameter is unknown or has an invalid value.
        """
        parameters: Any = dict(settings)
        config = {name: parameters.pop(name) for name in _CONFIG if name in parameters}
        configured = self.with_config(**config) if config else self
        return configured._with_parameters(parameters) if parameters else configured

    def with_config(
        self,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        run_name: str | None = None,
        handlers: Iterable[Listener] = (),
    ) -> Self:
        """Return a copy with this config for its runs.

        The new tags and handlers are added to the present ones. New metadata replaces present metadata of equal keys.
        """
        return evolved(
            self,
            tags=(*self.tags, *_tags(tags)),
            metadata={**self.metadata, **_metadata(metadata)},
            run_name=self.run_name if run_name is None else run_name,
            handlers=(*self.handlers, *_bound_listeners(handlers)),
        )

    def _bound(self, settings: Settings) -> _Stage[In, Out, Answer]:
        """Return the stage for one call. The parameters of the call win over those of a Request."""
        if not settings:
            return self
        return _Called(self.bind(**settings), settings)

    def invoke(self, prompt: In, **parameters: Unpack[Settings]) -> Answer:
        """Return the whole answer. This method blocks; `ainvoke` is its async form."""
        with SyncStream(self._bound(parameters).answer(prompt)) as answers:
            return next(answers)

    async def ainvoke(self, prompt: In, **parameters: Unpack[Settings]) -> Answer:
        """Return the whole answer, without blocking the event loop."""
        async with AsyncStream(self._bound(parameters).answer(prompt)) as answers:
            return await anext(answers)

    def stream(self, prompt: In, **parameters: Unpack[Settings]) -> SyncStream[Out]:
        """Return an iterator for a plain ``for`` loop that yields each value as it arrives.

        The first ``next`` sends the request.
        """
        return SyncStream(self._bound(parameters)(prompt))

    def astream(self, prompt: In, **parameters: Unpack[Settings]) -> AsyncStream[Out]:
        """Return an iterator for ``async for`` that yields each value as it arrives.

        The first ``anext`` sends the request.
        """
        return AsyncStream(self._bound(parameters)(prompt))

    def events(self, prompt: In, **parameters: Unpack[Settings]) -> Source[Event]:
        """Return the events of the answer, from every model and pipeline that takes part, as an Observable.

        ::

            -a--b--|
            (Started)-(RunChunk a)--(RunChunk b)--(Finished)|

        Disposing the subscription cancels the model. Errors: the error of the stream, after its `Failed` event.
        """
        stream = self._bound(parameters)(prompt)

        def subscribe(observer: abc.ObserverBase[Event], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            scheduler = scheduler_for(requested)
            listener = BoundListener(observer.on_next, scheduler.loop)
            observation = observation_of(scheduler)
            run, listeners = (observation.run, observation.listeners) if observation else (None, ())
            return connect(stream, _End(observer), observed_by(scheduler, run, (*listeners, listener)))

        return Source(subscribe)

    def astream_events(
        self, prompt: In, *, version: Literal["v1", "v2"] = "v2", **selection: Any
    ) -> AsyncStream[dict[str, Any]]:
        """Return the events as dicts in LangChain's ``astream_events`` format.

        Args:
            prompt: the prompt.
            version: ``"v1"`` is ``"v2"`` without custom events and with empty ``parent_ids``.
            selection: ``include_names``, ``include_types`` and ``include_tags`` select the events with any of these.
                ``exclude_names``, ``exclude_types`` and ``exclude_tags`` remove events. Other keywords are parameters
                of the models.
        """
        chosen = {name: selection.pop(name) for name in SELECTIONS if name in selection}
        for name in selection.keys() - Settings.__optional_keys__:
            import difflib  # imported here, because only the error message needs it

            near = difflib.get_close_matches(name, (*SELECTIONS, *Settings.__optional_keys__), 1)
            if near and near[0] in SELECTIONS:
                raise MisuseError(f"astream_events has no selection {name!r}. Did you mean {near[0]}=…?")
        return AsyncStream(as_dicts(version, **chosen)(self.events(prompt, **selection)))

    @overload
    def batch(
        self,
        prompts: Iterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = False,
        **parameters: Unpack[Settings],
    ) -> list[Answer]: ...
    @overload
    def batch(
        self,
        prompts: Iterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: bool,
        **parameters: Unpack[Settings],
    ) -> list[Answer | Exception]: ...

    def batch(
        self,
        prompts: Iterable[In],
        *,
        max_concurrency: int = MAX_CONCURRENCY,
        return_exceptions: bool = False,
        **parameters: Unpack[Settings],
    ) -> list[Any]:
        """Return the answers to all prompts, in the order of the prompts.

        Args:
            prompts: the prompts.
            max_concurrency: the maximum number of requests at the same time, 8 by default.
            return_exceptions: True puts an exception in the place of its answer and continues.
            parameters: parameters and config for all requests.

        Raises:
            Exception: the first failure, immediately; the other requests are cancelled. `return_exceptions` prevents
                this.
        """
        stage = self._bound(parameters)
        operator = batch(stage, max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        with CallerStream(_checked(prompts), operator) as answers:
            return list(answers)

    @overload
    async def abatch(
        self,
        prompts: Iterable[In] | AsyncIterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = False,
        **parameters: Unpack[Settings],
    ) -> list[Answer]: ...
    @overload
    async def abatch(
        self,
        prompts: Iterable[In] | AsyncIterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: bool,
        **parameters: Unpack[Settings],
    ) -> list[Answer | Exception]: ...

    async def abatch(
        self,
        prompts: Iterable[In] | AsyncIterable[In],
        *,
        max_concurrency: int = MAX_CONCURRENCY,
        return_exceptions: bool = False,
        **parameters: Unpack[Settings],
    ) -> list[Any]:
        """Return the answers to all prompts, as `batch` does. `prompts` may be an async iterable."""
        stage = self._bound(parameters)
        operator = batch(stage, max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        async with AsyncStream(_source(prompts).pipe(operator)) as answers:
            return [answer async for answer in answers]

    @overload
    def batch_as_completed(
        self,
        prompts: Iterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = False,
        **parameters: Unpack[Settings],
    ) -> SyncStream[tuple[int, Answer]]: ...
    @overload
    def batch_as_completed(
        self,
        prompts: Iterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: bool,
        **parameters: Unpack[Settings],
    ) -> SyncStream[tuple[int, Answer | Exception]]: ...

    def batch_as_completed(
        self,
        prompts: Iterable[In],
        *,
        max_concurrency: int = MAX_CONCURRENCY,
        return_exceptions: bool = False,
        **parameters: Unpack[Settings],
    ) -> SyncStream[tuple[int, Any]]:
        """Return an iterator of ``(index, answer)`` in the order of completion.

        The iterator takes the prompts in the calling thread, and takes the next one only when it can start it.
        """
        stage = self._bound(parameters)
        operator = batch_as_completed(stage, max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        return CallerStream(_checked(prompts), operator)

    @overload
    def abatch_as_completed(
        self,
        prompts: Iterable[In] | AsyncIterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: Literal[False] = False,
        **parameters: Unpack[Settings],
    ) -> AsyncStream[tuple[int, Answer]]: ...
    @overload
    def abatch_as_completed(
        self,
        prompts: Iterable[In] | AsyncIterable[In],
        *,
        max_concurrency: int = ...,
        return_exceptions: bool,
        **parameters: Unpack[Settings],
    ) -> AsyncStream[tuple[int, Answer | Exception]]: ...

    def abatch_as_completed(
        self,
        prompts: Iterable[In] | AsyncIterable[In],
        *,
        max_concurrency: int = MAX_CONCURRENCY,
        return_exceptions: bool = False,
        **parameters: Unpack[Settings],
    ) -> AsyncStream[tuple[int, Any]]:
        """Return an async iterator of ``(index, answer)`` in the order of completion.

        The iterator takes the next prompt only when it can start it. `prompts` may be an async iterable.
        """
        stage = self._bound(parameters)
        operator = batch_as_completed(stage, max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        return AsyncStream(_source(prompts).pipe(operator))

    def __or__(self, other: object) -> NoReturn:
        raise MisuseError("The operator | does not compose stages. Write rxllm.pipe(a, b) instead of a | b.")

    def __ror__(self, other: object) -> NoReturn:
        raise MisuseError("The operator | does not compose stages. Write rxllm.pipe(a, b) instead of a | b.")


class _Stage(Protocol[In, Out, Answer]):
    """The part of a Surface that its methods use."""

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """Return the stream."""
        ...

    def answer(self, prompt: In, /) -> Observable[Answer]:
        """Return the answer."""
        ...


@frozen
class _Called(Generic[In, Out, Answer]):
    """A stage with the parameters of one call."""

    stage: Surface[In, Out, Answer]
    settings: Settings

    def __call__(self, prompt: In, /) -> Observable[Out]:
        return self.stage(self._updated(prompt))

    def answer(self, prompt: In, /) -> Observable[Answer]:
        return self.stage.answer(self._updated(prompt))

    def _updated(self, prompt: Any) -> Any:
        """Return the prompt. In a Request, the call's parameters replace the Request's own."""
        return prompt.updated(self.settings) if isinstance(prompt, Request) else prompt


def stages_in(stage: object) -> Iterator[Surface[Any, Any, Any]]:
    """Yield the models and pipelines in the fields of a model or pipeline, but not those within them."""
    kind: Any = type(stage)
    if not isinstance(stage, Surface):
        return
    for each in attrs.fields(kind):
        held: object = getattr(cast("object", stage), each.name)
        for part in cast("tuple[object, ...]", held) if isinstance(held, tuple) else (held,):
            if isinstance(part, Surface):
                yield part


class _End(abc.ObserverBase[Any]):
    """Forwards the end of a stream. It ignores the values, because they already arrive as events."""

    only_keeps = True  # as in `Sink`
    on_next = staticmethod(ignore)  # pyright: ignore[reportAssignmentType]  (a method would cost a call for each chunk)

    def __init__(self, observer: abc.ObserverBase[Event]) -> None:
        self.observer = observer

    def on_error(self, error: Exception) -> None:
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.observer.on_completed()


_CONFIG = ("tags", "metadata", "run_name", "handlers")
T = TypeVar("T")


def _checked(prompts: Iterable[T]) -> Iterable[T]:
    value = cast("object", prompts)
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping, Observable)):
        hint = "For one prompt, call invoke"
        if isinstance(value, AsyncIterable):
            hint = "For an async iterable, call abatch or abatch_as_completed"
        elif isinstance(value, Observable):
            hint = "Write prompts.pipe(rxllm.batch(llm))"
        raise MisuseError(f"batch takes an iterable of prompts, not {type(prompts).__name__}. {hint}.")
    return prompts


def _source(prompts: Iterable[T] | AsyncIterable[T]) -> Observable[T]:
    return from_aiter(prompts) if isinstance(prompts, AsyncIterable) else from_iter(_checked(prompts))
