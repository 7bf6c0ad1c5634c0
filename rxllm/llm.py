"""`LLM`: a function from a prompt to a cold Observable of chunks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack, cast

import attrs
from attrs import field, frozen
from reactivex import Observable, abc

from .events import Listener, Service
from .extensible import evolved
from .keywords import check_names, collect_parameters
from .misuse import MisuseError, must_be
from .operators.adding_up import MESSAGE, Fold, folded
from .operators.answering import Answered, answering
from .operators.batch import MAX_CONCURRENCY
from .operators.message import one_chunk
from .operators.observing import Identity, observed
from .operators.prompting import asking
from .operators.reading import with_files
from .operators.serialising import serialised
from .runtime.scheduler import Baggage, Scheduler, scheduler_for
from .runtime.source import Source, source
from .runtime.threads import pull, result_of
from .surface import Surface
from .values.chunk import Chunk
from .values.declaration import Declaration
from .values.message import Message
from .values.parameters import Parameters, Sampling, Settings
from .values.refusing import refusing
from .values.request import Prompt, Request

if TYPE_CHECKING:
    from .results import LLMResult
    from .shapes.modes import Offer, Plan
    from .values.preview import Preview

__all__ = ["ELSEWHERE", "LLM"]


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
        declaration: the facts about the provider: its environment variables, its default model and its features.
        parameters: the parameters for requests that do not set their own.
    """

    declaration: ClassVar[Declaration] = Declaration()

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
        raise MisuseError(f"{type(self).__name__} sends no HTTP request of its own. Preview the model inside it.")

    def service(self, request: Request) -> Service:
        """Return the description of the service that answers, for handlers."""
        streaming = request.stream is not False and type(self).chunks is not LLM.chunks
        model = request.model or getattr(self, "model", None)
        name = model if isinstance(model, str) else None  # a local model may hold its weights in a field `model`
        return Service(type(self).__name__.lower(), name, streaming=streaming)

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        """Return the ways in which the model can answer in a shape, best first. The prompt is always the last one."""
        return ()

    def _plan(self, request: Request) -> Plan:
        """Return how a request with a shape is sent."""
        from .shapes.modes import plan_of  # imported here, because few programs need it

        return plan_of(request, self._offers(request), type(self).__name__)

    def _shaped(self, request: Request, scheduler: Scheduler) -> Observable[Answered]:
        """Return the answer to a request with a shape; the JSON is its text."""
        from .operators.shaping import reshaped

        with refusing(request):
            plan = self._plan(request)
        is_whole = request.stream is False or type(self).chunks is LLM.chunks
        return reshaped(_answer_stream(self, plan.request, scheduler), plan, is_whole=is_whole)

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

        def subscribe(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            scheduler = scheduler_for(requested)

            def stream(whole: Request) -> Observable[Answered]:
                return self._shaped(whole, scheduler) if whole.shape else _answer_stream(self, whole, scheduler)

            return answering(lambda: with_files(request, stream), request, observer, scheduler)

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
        return folded(self(prompt), MESSAGE.finish)


LLM.__attrs_init_subclass__()  # attrs calls it for subclasses only


# The config of runs does not change an answer.
_RUN_CONFIG = frozenset(attrs.fields_dict(cast("Any", Surface)))


def _identity_of(value: object) -> str | None:
    """Return the identity of a model in a field of another model."""
    return value.identity() if isinstance(value, LLM) else None


ELSEWHERE: Baggage[Callable[[LLM, Request], Observable[Chunk]] | None] = Baggage(None)
"""Asks a model in place of its own method, in another process. Combinators still run in this process."""

_is_generator = functools.lru_cache(256)(inspect.isgeneratorfunction)


def _answer_stream(llm: LLM, request: Request, scheduler: Scheduler) -> Observable[Answered]:
    """Return what the overridden method emits; with ``stream=False``, as one chunk."""
    elsewhere = scheduler.carried(ELSEWHERE)
    if elsewhere is not None:
        return elsewhere(llm, request)
    if request.stream is False and type(llm).chunks is not LLM.chunks:
        return one_chunk(_streamed(llm, request, scheduler))
    return _streamed(llm, request, scheduler)


def _streamed(llm: LLM, request: Request, scheduler: Scheduler) -> Observable[Answered]:
    kind = type(llm)
    if kind.chunks is not LLM.chunks:
        if _is_generator(kind.chunks):
            return source(lambda scheduler: pull(scheduler, lambda: llm.chunks(request)))
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
            return source(lambda scheduler: pull(scheduler, lambda: items))
        raise MisuseError(
            f"{kind.__name__}.chunks must be a generator or an async generator, or return an Observable, "
            f"not {name}. To return whole answers, override complete."
        )
    if kind.complete is LLM.complete:
        raise MisuseError(f"{kind.__name__} must override complete (whole answers) or chunks (a stream).")

    return source(lambda scheduler: result_of(scheduler, llm.complete, request))
