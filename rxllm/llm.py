"""`LLM`: a function from a prompt to a cold Observable of chunks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast

import attrs
from attrs import field, frozen
from reactivex import Observable, abc

from .events import Listener, Service
from .extensible import evolved
from .keywords import check_names, collect_parameters
from .misuse import MisuseError, must_be
from .operators.adding_up import MESSAGE, Fold
from .operators.answering import Answered, answering
from .operators.batch import MAX_CONCURRENCY
from .operators.message import message, one_chunk
from .operators.observing import Identity, observed
from .operators.serialising import serialised
from .runtime.disposable import LockFreeSerialDisposable
from .runtime.scheduler import Scheduler, scheduler_for
from .runtime.source import Source, source
from .runtime.threads import Worker, pull, result_of
from .surface import Surface
from .values.chunk import Chunk, join
from .values.message import Message
from .values.parameters import Parameters, Sampling, Settings
from .values.request import Prompt, Request

if TYPE_CHECKING:
    from .providers.preview import Preview
    from .results import LLMResult

__all__ = ["LLM", "asking"]


_parameters = must_be("Parameters", lambda value: isinstance(value, Parameters))
_NOT_STREAMS: tuple[type, ...] = (str, bytes, Mapping)  # iterable types that a provider never means as a stream


class Fields(Sampling, total=False):
    """The keywords for the constructor of a shipped provider: parameters, and the config of its runs."""

    parameters: Parameters
    tags: Iterable[str]
    metadata: Mapping[str, Any]
    run_name: str | None
    handlers: Iterable[Listener]


@frozen(kw_only=True)
class LLM(Surface[Prompt | Observable[Any], Chunk, Message]):
    """A model. To write a provider, subclass LLM and override **one** of two methods; the base implements the rest.

    * `complete` returns whole answers. It is ``async def``, or ``def`` for blocking code, which runs in a thread.
    * `chunks` streams. It is an async generator, a plain generator (which runs in a thread), or a function that returns
      an Observable.

    ::

        @frozen
        class Parrot(rxllm.LLM):
            async def complete(self, request):
                return request.text

    Attributes:
        parameters: the parameters for requests that do not set their own.
    """

    parameters: Parameters = field(factory=Parameters, validator=_parameters, metadata={"inline": True})

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        """Let the constructor that attrs generates accept the parameters as keywords."""
        super().__attrs_init_subclass__()
        if "__attrs_init__" not in vars(cls) and "__init__" in vars(cls):
            generated: Callable[..., None] = vars(cls)["__init__"]

            @functools.wraps(generated)
            def init(self: LLM, *arguments: Any, **keywords: Any) -> None:
                generated(self, *arguments, **collect_parameters(cls, keywords))

            cls.__init__ = init  # type: ignore[method-assign]

    def _settle(self, **keywords: Any) -> None:
        """Set the fields, for a hand-written constructor that accepts parameters as keywords."""
        self.__attrs_init__(**collect_parameters(type(self), keywords))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def complete(self, request: Request) -> Any:
        """Return the whole answer: text, a Message or a Chunk. Override this method or `chunks`."""
        raise NotImplementedError

    def chunks(self, request: Request) -> Any:
        """Stream the answer: Chunks or texts. Override this method or `complete`."""
        raise NotImplementedError

    @property
    def streaming(self) -> bool:
        """True if the model emits chunks while it generates. False if it emits the whole answer as one chunk."""
        return type(self).chunks is not LLM.chunks and self.parameters.stream is not False

    def generate(
        self, prompts: Iterable[Prompt], *, max_concurrency: int = MAX_CONCURRENCY, **settings: Unpack[Settings]
    ) -> LLMResult:
        """Return the answers to all prompts, with the token usage, in one `LLMResult`."""
        from .results import LLMResult

        return LLMResult.of(self.batch(prompts, max_concurrency=max_concurrency, **settings))

    async def agenerate(
        self, prompts: Iterable[Prompt], *, max_concurrency: int = MAX_CONCURRENCY, **settings: Unpack[Settings]
    ) -> LLMResult:
        """Return what `generate` returns, without blocking the event loop."""
        from .results import LLMResult

        return LLMResult.of(await self.abatch(prompts, max_concurrency=max_concurrency, **settings))

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"llm"`` if the request continues a text, ``"chat_model"`` if it is a conversation."""
        return "llm"

    def preview(self, prompt: Prompt, **settings: Unpack[Settings]) -> Preview:
        """Return the request that a prompt becomes; only models over HTTP have one.

        Raises:
            MisuseError: this model sends no request of its own.
        """
        raise MisuseError(f"{type(self).__name__} sends no HTTP request of its own; preview the model inside of it.")

    def service(self, request: Request) -> Service:
        """Return the description of the service that answers, for handlers."""
        streaming = request.stream is not False and type(self).chunks is not LLM.chunks
        model = request.model or getattr(self, "model", None)
        name = model if isinstance(model, str) else None  # a local model may hold its weights in a field `model`
        return Service(type(self).__name__.lower(), name, streaming=streaming)

    def identity(self) -> str:
        """Return a digest that differs for models whose answers may differ. `cached` uses it as a part of its keys.

        By default it covers the class, the parameters, and all fields without ``eq=False``. Override this method if
        other data decides about the answers, or if a field does not.

        Raises:
            MisuseError: a field has no stable digest, for example a function.
        """
        return self._digest({})

    def _digest(self, overrides: Mapping[str, Any]) -> str:
        """Return a digest of the class and the fields. `overrides` replaces fields; None leaves a field out."""
        from .exact import class_name, digest  # imported here, because only caches need it

        kind: Any = type(self)
        names = [each.name for each in attrs.fields(kind) if each.eq and each.name not in _RUN_CONFIG]
        fields = {name: getattr(self, name) for name in (*names, *getattr(self, "__dict__", ()))}
        values = {name: value for name, value in {**fields, **overrides}.items() if value is not None}
        try:
            return digest([class_name(kind), values], _identity_of)
        except (TypeError, ValueError, RecursionError) as error:
            raise MisuseError(
                f"cached() cannot derive a stable key for this {kind.__name__}: {error}. Pass cached(…, name='…'), "
                "with a name that no other model uses in the same store."
            ) from None

    def _with_parameters(self, parameters: Settings) -> Self:
        return evolved(self, parameters=self.parameters.updated(check_names(type(self), parameters)))

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """Return the answer as a cold stream of chunks: each subscription sends a request, and nothing is sent before.

        If the prompt is an Observable, the model is an operator: it waits until the Observable completes, and its
        values become one prompt. Chunks join, and strings join. A single Message, list of messages or Request is used
        as it is. The text of an answer (chunks, or an assistant's Message) becomes a message of the user.

        Raises:
            MisuseError: the prompt has an unsupported type.
        """
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        request = Request.ask(prompt, self.parameters)

        def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            scheduler = scheduler_for(given)
            return answering(lambda: _answer_stream(self, request, scheduler), request, observer, scheduler)

        def identity() -> Identity:
            name = self.run_name or type(self).__name__
            service = self.service(request)
            return Identity(name, self.kind(request), self.tags, self.metadata, self.handlers, service)

        return observed(Source(subscribe), request, identity, self.handlers, MESSAGE)

    @property
    def _fold(self) -> Fold:
        return MESSAGE

    def answer(self, prompt: Prompt | Observable[Any], /) -> Observable[Message]:
        """Return the whole answer, as an Observable of one Message."""
        return self(prompt).pipe(message())


LLM.__attrs_init_subclass__()  # attrs calls it for subclasses only


# The config of runs does not change an answer.
_RUN_CONFIG = frozenset(attrs.fields_dict(cast("Any", Surface)))


def _identity_of(value: object) -> str | None:
    """Return the identity of a model in a field of another model."""
    return value.identity() if isinstance(value, LLM) else None


def _answer_stream(llm: LLM, request: Request, scheduler: Scheduler) -> Observable[Answered]:
    """Return what the overridden method emits; with ``stream=False``, as one chunk."""
    if request.stream is False and type(llm).chunks is not LLM.chunks:
        return _streamed(llm, request, scheduler).pipe(one_chunk)
    return _streamed(llm, request, scheduler)


def _streamed(llm: LLM, request: Request, scheduler: Scheduler) -> Observable[Answered]:
    kind = type(llm)
    if kind.chunks is not LLM.chunks:
        if inspect.isgeneratorfunction(kind.chunks):
            return source(
                lambda scheduler: pull(Worker(scheduler.loop, scheduler.context), lambda: llm.chunks(request))
            )
        result: object = llm.chunks(request)
        name = type(result).__name__
        if inspect.iscoroutine(result):
            result.close()
        if isinstance(result, Observable):
            answer = cast("Observable[Answered]", result)
            return answer if isinstance(answer, Source) else serialised(answer, scheduler)
        if isinstance(result, AsyncIterable):
            return source(lambda _: aiter(cast("AsyncIterable[Answered]", result)))
        if isinstance(result, Iterable) and not isinstance(result, _NOT_STREAMS):
            items = cast("Iterable[Answered]", result)
            return source(lambda scheduler: pull(Worker(scheduler.loop, scheduler.context), lambda: items))
        raise MisuseError(
            f"{kind.__name__}.chunks must be a generator or an async generator, or return an Observable, "
            f"not {name}. To return whole answers, override complete."
        )
    if kind.complete is LLM.complete:
        raise MisuseError(f"{kind.__name__} must override complete (whole answers) or chunks (a stream).")

    return source(lambda scheduler: result_of(scheduler, llm.complete, request))


def asking(upstream: Observable[Any], llm: LLM) -> Observable[Chunk]:
    """Return the answer to the prompt that the values of `upstream` add up to."""

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = scheduler_for(given)
        values: list[Any] = []
        current = LockFreeSerialDisposable()

        def ask() -> None:
            try:
                answer = llm(_prompt_of(values))
            except MisuseError as error:
                observer.on_error(error)
            else:
                current.disposable = answer.subscribe(observer, scheduler=scheduler)

        # Set before the subscription: `ask` may replace it at once, from any thread.
        current.disposable = waiting = LockFreeSerialDisposable()
        waiting.disposable = upstream.subscribe(values.append, observer.on_error, ask, scheduler=scheduler)
        return current

    return Source(subscribe)


def _prompt_of(values: list[Any]) -> Prompt:
    """Return the prompt that the values of an upstream add up to."""
    if values and all(isinstance(value, Chunk) for value in values):
        return join(values).text
    if values and all(isinstance(value, str) for value in values):
        return "".join(values)
    if len(values) == 1:
        value = values[0]
        return value.text if isinstance(value, Message) and value.role == "assistant" else value
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise MisuseError(
        f"The stage before a model emitted {f'{len(values)} values ({kinds})' if values else 'nothing'}, but a model "
        "needs one prompt. To send one request for each value, use ops.concat_map(llm) or ops.flat_map(llm)."
    )
