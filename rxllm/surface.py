"""What users call on an LLM, a Pipeline, or whatever a combinator returns; written once.

Each method is sugar for an operator over the Observable that the object returns when called.

It is one room because the methods, each a line or two, share their parameters, their config and how they copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Literal, NoReturn, Protocol, Self, TypeVar, Unpack, cast, overload

from attrs import field, frozen
from attrs.validators import optional
from reactivex import Observable, abc

from .bridges import AsyncStream, SyncStream, from_aiter, from_iter
from .bridges.stream import CallerStream
from .events import Event, Listener
from .extensible import Extensible, evolved
from .misuse import MisuseError, is_text, must_be, shown
from .observation import BoundListener, observation_of, observed_by
from .operators.adding_up import Fold
from .operators.astream_events import SELECTIONS, as_dicts
from .operators.batch import MAX_CONCURRENCY, batch, batch_as_completed
from .operators.observing import bound_listeners
from .runtime.scheduler import scheduler_for
from .runtime.source import Source, connect
from .showing import brief
from .values.frozen import frozen_json
from .values.parameters import Settings
from .values.request import Request

__all__ = ["Surface"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Answer = TypeVar("Answer", covariant=True)


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise MisuseError(f"tags must be a list of texts: say tags=[{tags!r}].")
    given = tuple(tags) if isinstance(cast("object", tags), Iterable) else (None,)
    if not all(map(is_text, given)):
        raise MisuseError(f"tags must be a list of texts, not {shown(tags)}.")
    return tuple(sorted(set(cast("tuple[str, ...]", given))))


def _facts(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if metadata is not None and not isinstance(cast("object", metadata), Mapping):
        raise MisuseError(f"metadata must be a dict, not {shown(metadata)}.")
    return cast("Mapping[str, Any]", frozen_json(metadata or {}))


def _bound_listeners(handlers: Iterable[Listener | BoundListener]) -> tuple[BoundListener, ...]:
    if not isinstance(cast("object", handlers), Iterable):
        raise MisuseError(f"handlers must be a list, not {type(handlers).__name__}: say handlers=[…].")
    given = tuple(handlers)
    for handler in given:
        if isinstance(cast("object", handler), type):
            name = cast("type", handler).__name__
            raise MisuseError(f"{name} is a class, which hears nothing; attach an instance, as in {name}().")
    return bound_listeners(given)


@frozen(kw_only=True)
class Surface(Extensible, ABC, Generic[In, Out, Answer]):
    """A function from a prompt to a cold Observable, and the ways to use it.

    Its fields are frozen, see `Extensible`.

    Attributes:
        tags: names to find its runs by.
        metadata: facts to find its runs by.
        run_name: what to call its runs.
        handlers: who listens to its runs, and to the runs within them.
    """

    _shared_by_copies: ClassVar[tuple[str, ...]] = ("handlers",)

    tags: tuple[str, ...] = field(default=(), converter=_tags)
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], converter=_facts, hash=False)
    run_name: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    handlers: tuple[BoundListener, ...] = field(default=(), converter=_bound_listeners, repr=False)

    def __repr__(self) -> str:
        return brief(self)

    @abstractmethod
    def __call__(self, prompt: In, /) -> Observable[Out]:
        """The stream: cold, so that nothing is sent before `subscribe` and two subscriptions are two requests."""

    @abstractmethod
    def answer(self, prompt: In, /) -> Observable[Answer]:
        """The answer, as an Observable of one value."""

    @property
    @abstractmethod
    def _fold(self) -> Fold:
        """How its values add up to the answer."""

    @abstractmethod
    def _asking_with(self, parameters: Settings) -> Self:
        """A copy that asks with these parameters."""

    def bind(self, **settings: Unpack[Settings]) -> Self:
        """A copy that asks with these parameters, or under this config.

        Raises:
            MisuseError: there is no such parameter, or it can't have this value.
        """
        parameters: Any = dict(settings)
        config = {name: parameters.pop(name) for name in _CONFIG if name in parameters}
        configured = self.with_config(**config) if config else self
        return configured._asking_with(parameters) if parameters else configured

    def with_config(
        self,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        run_name: str | None = None,
        handlers: Iterable[Listener] = (),
    ) -> Self:
        """A copy under which runs are found and heard: tags and handlers are united, later metadata wins."""
        return evolved(
            self,
            tags=(*self.tags, *_tags(tags)),
            metadata={**self.metadata, **_facts(metadata)},
            run_name=self.run_name if run_name is None else run_name,
            handlers=(*self.handlers, *_bound_listeners(handlers)),
        )

    def _bound(self, settings: Settings) -> _Stage[In, Out, Answer]:
        """The stage of one call, whose parameters win over those that a Request brings."""
        if not settings:
            return self
        return _Called(self.bind(**settings), settings)

    def invoke(self, prompt: In, **parameters: Unpack[Settings]) -> Answer:
        """The answer, blocking until it is whole."""
        with SyncStream(self._bound(parameters).answer(prompt)) as answers:
            return next(answers)

    async def ainvoke(self, prompt: In, **parameters: Unpack[Settings]) -> Answer:
        """The answer, once it is whole."""
        async with AsyncStream(self._bound(parameters).answer(prompt)) as answers:
            return await anext(answers)

    def stream(self, prompt: In, **parameters: Unpack[Settings]) -> SyncStream[Out]:
        """What comes, as it comes, for a plain ``for`` loop. Nothing is sent before the first ``next``."""
        return SyncStream(self._bound(parameters)(prompt))

    def astream(self, prompt: In, **parameters: Unpack[Settings]) -> AsyncStream[Out]:
        """What comes, as it comes, for ``async for``. Nothing is sent before the first ``anext``."""
        return AsyncStream(self._bound(parameters)(prompt))

    def events(self, prompt: In, **parameters: Unpack[Settings]) -> Source[Event]:
        """All that happens while the prompt is answered, in every model and pipeline within, as it happens.

        ::

            -a--b--|
            (Started)-(RunChunk a)--(RunChunk b)--(Finished)|

        Who stops taking events stops the model. Errors: the stream's, after its `Failed`.
        """
        stream = self._bound(parameters)(prompt)

        def subscribe(observer: abc.ObserverBase[Event], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            scheduler = scheduler_for(given)
            listener = BoundListener(observer.on_next, scheduler.loop)
            observation = observation_of(scheduler)
            run, listeners = (observation.run, observation.listeners) if observation else (None, ())
            return connect(stream, _End(observer), observed_by(scheduler, run, (*listeners, listener)))

        return Source(subscribe)

    def astream_events(
        self, prompt: In, *, version: Literal["v1", "v2"] = "v2", **selection: Any
    ) -> AsyncStream[dict[str, Any]]:
        """The events as dicts of the shape that is known from `astream_events` elsewhere.

        Args:
            prompt: what to ask.
            version: ``"v1"`` is ``"v2"`` without custom events and with empty ``parent_ids``.
            selection: ``include_names``, ``include_types``, ``include_tags``: only events with any of these;
                ``exclude_names``, ``exclude_types``, ``exclude_tags``: none of those. What is no selection is a
                parameter of the models.
        """
        chosen = {name: selection.pop(name) for name in SELECTIONS if name in selection}
        for name in selection.keys() - Settings.__optional_keys__:
            import difflib  # only a mistake pays for it

            near = difflib.get_close_matches(name, (*SELECTIONS, *Settings.__optional_keys__), 1)
            if near and near[0] in SELECTIONS:
                raise MisuseError(f"There is no selection {name!r}. Did you mean {near[0]}=…?")
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
        """The answers to all prompts, in their order, at most `max_concurrency` (8) at once.

        Raises:
            Exception: the first failure, at once, which cancels the rest; with `return_exceptions` none, since
                exceptions then take the place of their answers.
        """
        stage = self._bound(parameters)
        asked = batch(stage, max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        with CallerStream(_some(prompts), asked) as answers:
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
        """As `batch`."""
        asked = batch(self._bound(parameters), max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        async with AsyncStream(_source(prompts).pipe(asked)) as answers:
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
        """``(index, answer)`` as they complete. Prompts are pulled in the calling thread, when there is room."""
        stage = self._bound(parameters)
        asked = batch_as_completed(stage, max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        return CallerStream(_some(prompts), asked)

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
        """``(index, answer)`` as they complete. Prompts are pulled when there is room."""
        stage = self._bound(parameters)
        asked = batch_as_completed(stage, max_concurrency=max_concurrency, return_exceptions=return_exceptions)
        return AsyncStream(_source(prompts).pipe(asked))

    def __or__(self, other: object) -> NoReturn:
        raise MisuseError("Stages are composed by rxllm.pipe(a, b), not by a | b.")

    def __ror__(self, other: object) -> NoReturn:
        raise MisuseError("Stages are composed by rxllm.pipe(a, b), not by a | b.")


class _Stage(Protocol[In, Out, Answer]):
    """What the methods ask."""

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """The stream."""
        ...

    def answer(self, prompt: In, /) -> Observable[Answer]:
        """The answer."""
        ...


@frozen
class _Called(Generic[In, Out, Answer]):
    """A stage with the parameters of one call."""

    stage: Surface[In, Out, Answer]
    settings: Settings

    def __call__(self, prompt: In, /) -> Observable[Out]:
        return self.stage(self.asked(prompt))

    def answer(self, prompt: In, /) -> Observable[Answer]:
        return self.stage.answer(self.asked(prompt))

    def asked(self, prompt: Any) -> Any:
        """The prompt; a Request has the call's parameters instead of its own."""
        return prompt.updated(self.settings) if isinstance(prompt, Request) else prompt


class _End(abc.ObserverBase[Any]):
    """Hears how a stream ends, whose values are heard as events."""

    def __init__(self, observer: abc.ObserverBase[Event]) -> None:
        self.observer = observer

    def on_next(self, value: Any) -> None:
        pass

    def on_error(self, error: Exception) -> None:
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.observer.on_completed()


_CONFIG = ("tags", "metadata", "run_name", "handlers")
T = TypeVar("T")


def _some(prompts: Iterable[T]) -> Iterable[T]:
    given = cast("object", prompts)
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping, Observable)):
        hint = "invoke takes one prompt"
        if isinstance(given, AsyncIterable):
            hint = "abatch and abatch_as_completed take async ones"
        elif isinstance(given, Observable):
            hint = "say prompts.pipe(rxllm.batch(llm))"
        raise MisuseError(f"batch takes an iterable of prompts, not {type(prompts).__name__}; {hint}.")
    return prompts


def _source(prompts: Iterable[T] | AsyncIterable[T]) -> Observable[T]:
    return from_aiter(prompts) if isinstance(prompts, AsyncIterable) else from_iter(_some(prompts))
