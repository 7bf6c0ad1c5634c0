"""`LLM`: a function from a prompt to a cold Observable of chunks."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, MutableSequence
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast

import attrs
from attrs import field, frozen
from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable

from ._runtime import Scheduler, Source, Worker, connect, in_thread, pull, scheduler, source
from .errors import MisuseError, RxllmError
from .events import Service
from .messages import (
    Chunk,
    Message,
    Parameters,
    Prompt,
    ReasoningPart,
    RefusalPart,
    Request,
    Sampling,
    Settings,
    TextPart,
    ToolCallPart,
    join,
    text_chunk,
)
from .operators.batches import MAX_CONCURRENCY
from .operators.folds import message, one_chunk
from .operators.observing import Identity, observed
from .operators.serialising import serialised
from .surface import Surface

if TYPE_CHECKING:
    from .results import LLMResult

__all__ = ["LLM"]

Answered = str | Message | Chunk


class Fields(Sampling, total=False):
    """Keywords of a shipped provider's constructor: parameters, and what `evolve` hands on."""

    parameters: Parameters
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    run_name: str | None


PARTIAL_LIMIT = 4 * 2**20  # characters that are kept for an error's `partial`


@frozen(kw_only=True)
class LLM(Surface[Prompt | Observable[Any], Chunk, Message]):
    """A model. A provider of one's own overrides **one** of two methods; everything else comes free.

    * `complete`, for whole answers: ``async def``, or ``def`` for code that blocks, which runs in a thread;
    * `chunks`, for a stream: an async generator, a plain generator (in a thread), or a function that returns an
      Observable.

    ::

        @frozen
        class Parrot(rxllm.LLM):
            async def complete(self, request):
                return request.text

    Attributes:
        parameters: how to answer, where the request does not say.
    """

    parameters: Parameters = field(factory=Parameters)

    def _settle(self, **given: Any) -> None:
        """The rest of a constructor that takes parameters beside its fields: tells the two apart."""
        fields = attrs.fields_dict(type(self))
        sampling = {name: given.pop(name) for name in given.keys() - fields.keys()}
        if sampling:
            given["parameters"] = Parameters.of(sampling).over(given.get("parameters", Parameters()))
        self.__attrs_init__(**given)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def complete(self, request: Request) -> Any:
        """The whole answer: text, a Message or a Chunk. Override this or `chunks`."""
        raise NotImplementedError

    def chunks(self, request: Request) -> Any:
        """The answer as it comes: Chunks or texts. Override this or `complete`."""
        raise NotImplementedError

    @property
    def streaming(self) -> Literal["native", "single emission"]:
        """Whether chunks come as the model makes them, or the whole answer comes as one."""
        streams = type(self).chunks is not LLM.chunks and self.parameters.stream is not False
        return "native" if streams else "single emission"

    def generate(
        self, prompts: Iterable[Prompt], *, max_concurrency: int = MAX_CONCURRENCY, **settings: Unpack[Settings]
    ) -> LLMResult:
        """The answers to all prompts, with what it took, in one `LLMResult`."""
        from .results import LLMResult

        return LLMResult.of(self.batch(prompts, max_concurrency=max_concurrency, **settings))

    async def agenerate(
        self, prompts: Iterable[Prompt], *, max_concurrency: int = MAX_CONCURRENCY, **settings: Unpack[Settings]
    ) -> LLMResult:
        """As `generate`."""
        from .results import LLMResult

        return LLMResult.of(await self.abatch(prompts, max_concurrency=max_concurrency, **settings))

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Whether this continues a text, or converses."""
        return "llm"

    def service(self, request: Request) -> Service:
        """Who answers, as handlers are told."""
        streaming = request.stream is not False and type(self).chunks is not LLM.chunks
        model = request.model or getattr(self, "model", None)
        named = model if isinstance(model, str) else None  # a local model may keep its weights under this name
        return Service(type(self).__name__.lower(), named, streaming=streaming)

    def _asking_with(self, parameters: Settings) -> Self:
        return attrs.evolve(self, parameters=Parameters.of(parameters).over(self.parameters))

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """The answer as a cold stream of chunks: nothing is sent before ``subscribe``; two subscriptions, two requests.

        Given an Observable it is an operator: it waits until that completes, and asks with what it added up to.
        Chunks join, strings join; one Message, list of messages or Request is taken as it is. An answer (chunks, an
        assistant's Message) is asked by its text, as the user.

        Raises:
            MisuseError: this is no prompt.
        """
        if isinstance(prompt, Observable):
            return _asking(prompt, self)
        request = Request.ask(prompt, self.parameters)

        def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            home = scheduler(given)
            answer = _Answer(observer, request, home)
            try:
                answer.subscription.disposable = connect(_made(self, request, home), answer, home)
            except Exception as error:  # such as a missing key
                answer.on_error(error)
            return answer.subscription

        def identity() -> Identity:
            name = self.run_name or type(self).__name__
            service = self.service(request)
            return Identity(name, self.kind(request), self.tags, self.metadata, self.handlers, service)

        return observed(Source(subscribe), request, identity, self.handlers)

    def answer(self, prompt: Prompt | Observable[Any], /) -> Observable[Message]:
        """The whole answer, as an Observable of one Message."""
        return self(prompt).pipe(message())


def _made(llm: LLM, request: Request, home: Scheduler) -> Observable[Answered]:
    """What the provider's one method makes of the request."""
    kind = type(llm)
    if request.stream is False and kind.chunks is not LLM.chunks:
        return _streamed(llm, request, home).pipe(one_chunk)
    return _streamed(llm, request, home)


def _streamed(llm: LLM, request: Request, home: Scheduler) -> Observable[Answered]:
    kind = type(llm)
    if kind.chunks is not LLM.chunks:
        if inspect.isgeneratorfunction(kind.chunks):
            return source(lambda home: pull(Worker(home.loop, home.context), lambda: llm.chunks(request)))
        made = llm.chunks(request)
        if isinstance(made, Observable):
            made = cast("Observable[Answered]", made)
            return made if isinstance(made, Source) else serialised(made, home)
        if isinstance(made, AsyncIterable):
            return source(lambda _: aiter(cast("AsyncIterable[Answered]", made)))
        if isinstance(made, Iterable) and not isinstance(made, (str, bytes, Mapping)):
            return source(lambda home: pull(Worker(home.loop, home.context), lambda: cast("Iterable[Answered]", made)))
        if inspect.iscoroutine(made):
            made.close()
        raise MisuseError(
            f"{kind.__name__}.chunks must be a generator, an async generator or return an Observable, "
            f"not {type(made).__name__}; for whole answers override complete."
        )
    if kind.complete is LLM.complete:
        raise MisuseError(f"{kind.__name__} must override complete (whole answers) or chunks (a stream).")

    async def whole(home: Scheduler) -> AsyncIterator[Answered]:
        if inspect.iscoroutinefunction(llm.complete):
            yield await llm.complete(request)
        else:
            answer = await in_thread(home, lambda: llm.complete(request))
            yield await answer if inspect.isawaitable(answer) else answer

    return source(whole)


class _Answer(abc.ObserverBase[Answered]):
    """Stands between a provider and its subscriber: makes everything a Chunk, and gives errors what had arrived.

    What the subscriber raises ends here: the request is closed, and the provider never hears of it.
    """

    __slots__ = ("arrived", "bound", "emit", "home", "observer", "request", "size", "subscription")

    def __init__(self, observer: abc.ObserverBase[Chunk], request: Request, home: Scheduler) -> None:
        self.observer = observer
        self.emit: Callable[[Chunk], None] = observer.on_next
        self.request = request
        self.home = home
        # Plain text as its text alone: a string is nothing that the garbage collector has to look at.
        self.arrived: MutableSequence[Chunk | str] = []
        self.size = 0
        self.bound = 2**16
        self.subscription = SingleAssignmentDisposable()

    def on_next(self, value: Answered) -> None:
        try:
            chunk = value if type(value) is Chunk else Chunk.of(value)
        except MisuseError as error:
            self.observer.on_error(error)
            return
        if chunk.rest is None:
            self.arrived.append(chunk.text)
            self.size += len(chunk.text) + 1
        else:
            self.arrived.append(chunk)
            self.size += _size(chunk)
        if self.size > self.bound:
            self.compact()
        try:
            self.emit(chunk)
        except Exception as error:
            self.home.report("A subscriber, or an operator before it, raised; the request is closed.", error)
            self.emit = _unheard
            self.subscription.dispose()

    def joined(self) -> Chunk:
        return join(text_chunk(some) if isinstance(some, str) else some for some in self.arrived)

    def compact(self) -> None:
        """Keeps what arrived small: one chunk instead of many, and none beyond the limit."""
        folded = self.joined()
        self.size = _size(folded)
        self.arrived = [folded]
        self.bound = 2 * self.size + 2**16
        if self.size > PARTIAL_LIMIT:
            self.arrived = _Full([folded], maxlen=1)
            self.bound = 2**63

    def on_error(self, error: Exception) -> None:
        if isinstance(error, RxllmError):
            if error.request is None:
                error.request = self.request
            if error.partial is None and self.arrived:
                error.partial = self.joined().message()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.observer.on_completed()


def _size(chunk: Chunk) -> int:
    """The characters of all that may grow, and one for the chunk."""
    return 1 + sum(
        len(part.arguments if isinstance(part, ToolCallPart) else part.text)
        for part in chunk.parts
        if isinstance(part, (TextPart, ReasoningPart, RefusalPart, ToolCallPart))
    )


def _unheard(chunk: Chunk) -> None:
    """Nobody listens any more."""


class _Full(deque[Chunk | str]):
    """What was kept before the limit was reached; takes no more."""

    def append(self, item: Chunk | str, /) -> None:
        pass


def _asking(upstream: Observable[Any], llm: LLM) -> Observable[Chunk]:
    """The operator that an LLM is when it is given an Observable."""

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        home = scheduler(given)
        values: list[Any] = []
        current = SerialDisposable()

        def ask() -> None:
            try:
                answer = llm(_summed(values))
            except MisuseError as error:
                observer.on_error(error)
            else:
                current.disposable = answer.subscribe(observer, scheduler=home)

        current.disposable = waiting = SingleAssignmentDisposable()  # before it may be replaced, from any thread
        waiting.disposable = upstream.subscribe(values.append, observer.on_error, ask, scheduler=home)
        return current

    return Source(subscribe)


def _summed(values: list[Any]) -> Prompt:
    """What an upstream added up to, as a prompt."""
    if values and all(isinstance(value, Chunk) for value in values):
        return join(values).text
    if values and all(isinstance(value, str) for value in values):
        return "".join(values)
    if len(values) == 1:
        value = values[0]
        return value.text if isinstance(value, Message) and value.role == "assistant" else value
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise MisuseError(
        f"The stage before a model gave {f'{len(values)} values ({kinds})' if values else 'nothing'}, which is not one "
        "prompt. To ask once for each value, use ops.concat_map(llm) or ops.flat_map(llm)."
    )
