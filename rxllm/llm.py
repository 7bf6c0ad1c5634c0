"""`LLM`: a function from a prompt to a cold Observable of chunks.

It is one room because its constructor, its parameters and its identity are read off the same fields.
"""

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
from .misuse import MisuseError, must_be, shown
from .operators.adding_up import MESSAGE, Fold
from .operators.answering import Answered, answering
from .operators.batch import MAX_CONCURRENCY
from .operators.message import message, one_chunk
from .operators.observing import Identity, observed
from .operators.serialising import serialised
from .runtime.disposable import LockFreeSerialDisposable
from .runtime.scheduler import Scheduler, scheduler_for
from .runtime.source import Source, source
from .runtime.threads import Worker, called, pull
from .surface import Surface
from .values.chunk import Chunk, join
from .values.message import Message
from .values.parameters import PARAMETERS, Parameters, Sampling, Settings
from .values.request import Prompt, Request

if TYPE_CHECKING:
    from .results import LLMResult

__all__ = ["LLM", "asking"]


_parameters = must_be("Parameters", lambda given: isinstance(given, Parameters))
_VALUES: tuple[type, ...] = (str, bytes, Mapping)  # that could be iterated, which nobody means


class Fields(Sampling, total=False):
    """Keywords of a shipped provider's constructor: parameters, and the config of its runs."""

    parameters: Parameters
    tags: Iterable[str]
    metadata: Mapping[str, Any]
    run_name: str | None
    handlers: Iterable[Listener]


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

    parameters: Parameters = field(factory=Parameters, validator=_parameters, metadata={"inline": True})

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        """The constructor that attrs makes takes parameters, too."""
        super().__attrs_init_subclass__()
        if "__attrs_init__" not in vars(cls) and "__init__" in vars(cls):
            made: Callable[..., None] = vars(cls)["__init__"]

            @functools.wraps(made)
            def init(self: LLM, *arguments: Any, **given: Any) -> None:
                made(self, *arguments, **_told_apart(cls, given))

            cls.__init__ = init  # type: ignore[method-assign]

    def _settle(self, **given: Any) -> None:
        """The rest of a constructor that takes parameters beside its fields."""
        self.__attrs_init__(**_told_apart(type(self), given))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

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

    def identity(self) -> str:
        """What tells this model from others whose answers may differ, as a digest; `cached` keeps answers under it.

        By default it is the class, the parameters, and all other fields but those with ``eq=False``. Override it where
        these do not tell who answers, or hold more than that.

        Raises:
            MisuseError: a field cannot be told from others, such as a function.
        """
        return self._digest({})

    def _digest(self, told: Mapping[str, Any]) -> str:
        """A digest of the class and the fields, where `told` says nothing else of a field; None leaves it out."""
        from .exact import class_name, digest  # only a cache pays for it

        kind: Any = type(self)
        names = [each.name for each in attrs.fields(kind) if each.eq and each.name not in _NO_MATTER]
        fields = {name: getattr(self, name) for name in (*names, *getattr(self, "__dict__", ()))}
        try:
            return digest([class_name(kind), {name: v for name, v in {**fields, **told}.items() if v is not None}], _of)
        except (TypeError, ValueError, RecursionError) as error:
            raise MisuseError(
                f"cached() cannot derive a key for this {kind.__name__}: {error}. Say cached(…, name='…'), with a name "
                "that no other model has in the same store."
            ) from None

    def _asking_with(self, parameters: Settings) -> Self:
        return evolved(self, parameters=self.parameters.updated(_known(type(self), parameters)))

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """The answer as a cold stream of chunks: nothing is sent before ``subscribe``; two subscriptions, two requests.

        Given an Observable it is an operator: it waits until that completes, and asks with what it added up to.
        Chunks join, strings join; one Message, list of messages or Request is taken as it is. An answer (chunks, an
        assistant's Message) is asked by its text, as the user.

        Raises:
            MisuseError: this is no prompt.
        """
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        request = Request.ask(prompt, self.parameters)

        def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            scheduler = scheduler_for(given)
            return answering(lambda: _made(self, request, scheduler), request, observer, scheduler)

        def identity() -> Identity:
            name = self.run_name or type(self).__name__
            service = self.service(request)
            return Identity(name, self.kind(request), self.tags, self.metadata, self.handlers, service)

        return observed(Source(subscribe), request, identity, self.handlers, MESSAGE)

    @property
    def _fold(self) -> Fold:
        return MESSAGE

    def answer(self, prompt: Prompt | Observable[Any], /) -> Observable[Message]:
        """The whole answer, as an Observable of one Message."""
        return self(prompt).pipe(message())


LLM.__attrs_init_subclass__()  # which attrs calls for all others


_NO_MATTER = frozenset(
    attrs.fields_dict(cast("Any", Surface))
)  # to an answer: tags, metadata, name and handlers of its runs


def _of(value: object) -> str | None:
    """What stands for a model within another."""
    return value.identity() if isinstance(value, LLM) else None


def _told_apart(kind: type[LLM], given: dict[str, Any]) -> dict[str, Any]:
    """What a constructor was given, with the parameters in one."""
    fields = {each.alias for each in attrs.fields(kind)}
    sampling = {name: given.pop(name) for name in given.keys() - fields}
    if sampling:
        given["parameters"] = given.get("parameters", Parameters()).updated(_known(kind, sampling))
    return given


# What is said where a model is made, and not where it is asked; and the config of its runs.
_OF_MODELS = ("api", "api_key", "base_url", "client", "event_limit", "headers", "max_retries", "timeout")
_OF_RUNS = ("tags", "metadata", "run_name", "handlers")
_OTHER_NAMES = {
    "callbacks": "handlers",
    "functions": "tools",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "name": "run_name",
    "stop": "stop_sequences",
    "streaming": "stream",
}
_ABBREVIATION = 3  # letters, at least


def _known(kind: type[LLM], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters, all of whose names are known.

    Raises:
        MisuseError: there is no such parameter.
    """
    for name in given.keys() - PARAMETERS.keys():
        if name != "n" or given[name] != 1:
            raise MisuseError(_unknown(kind, name, given[name]))
    return given


def _unknown(kind: type[LLM], name: str, value: object) -> str:
    """The sentence for a keyword that is no parameter: where it belongs, or what may be meant."""
    import difflib  # only a mistake pays for it

    if name == "n":
        return f"n={value!r} asks for several answers, but a stream has one; call llm.batch([prompt] * {value!r})."
    fields = attrs.fields_dict(kind)
    if name in fields or name in _OF_MODELS:
        owner, of = (kind.__name__, "the model") if name in fields else ("OpenAI", "a model over HTTP")
        what = shown(value) if isinstance(value, (int, float)) else "…"  # which may be a secret
        return f"{name} belongs to {of}: {owner}(…, {name}={what})."
    known = (*PARAMETERS, *_OF_RUNS, *_OF_MODELS, *fields)
    begun = (other for other in known if other.startswith(name) and len(name) >= _ABBREVIATION)
    meant = _OTHER_NAMES.get(name) or next(begun, None)
    near = meant or next(iter(difflib.get_close_matches(name, known, 1)), None)
    sentence = f"There is no parameter {name!r}." + (f" Did you mean {near}=…?" if near else "")
    if meant is None and near in (None, *PARAMETERS):
        sentence += f" What only the provider knows goes into extra={{{name!r}: …}}."
    return sentence


def _made(llm: LLM, request: Request, scheduler: Scheduler) -> Observable[Answered]:
    """What the provider's one method makes of the request."""
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
        made: object = llm.chunks(request)
        name = type(made).__name__
        if inspect.iscoroutine(made):
            made.close()
        if isinstance(made, Observable):
            answer = cast("Observable[Answered]", made)
            return answer if isinstance(answer, Source) else serialised(answer, scheduler)
        if isinstance(made, AsyncIterable):
            return source(lambda _: aiter(cast("AsyncIterable[Answered]", made)))
        if isinstance(made, Iterable) and not isinstance(made, _VALUES):
            items = cast("Iterable[Answered]", made)
            return source(lambda scheduler: pull(Worker(scheduler.loop, scheduler.context), lambda: items))
        raise MisuseError(
            f"{kind.__name__}.chunks must be a generator, an async generator or return an Observable, "
            f"not {name}; for whole answers override complete."
        )
    if kind.complete is LLM.complete:
        raise MisuseError(f"{kind.__name__} must override complete (whole answers) or chunks (a stream).")

    return source(lambda scheduler: called(scheduler, llm.complete, request))


def asking(upstream: Observable[Any], llm: LLM) -> Observable[Chunk]:
    """The operator that an LLM is when it is given an Observable."""

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = scheduler_for(given)
        values: list[Any] = []
        current = LockFreeSerialDisposable()

        def ask() -> None:
            try:
                answer = llm(_summed(values))
            except MisuseError as error:
                observer.on_error(error)
            else:
                current.disposable = answer.subscribe(observer, scheduler=scheduler)

        current.disposable = waiting = LockFreeSerialDisposable()  # before it may be replaced, from any thread
        waiting.disposable = upstream.subscribe(values.append, observer.on_error, ask, scheduler=scheduler)
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
