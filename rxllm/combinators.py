"""LLM to LLM: what changes how a model is called.

Each takes models, or anything else that makes a stream of a prompt, and returns the same again: of models a model, of
pipelines a pipeline. Parameters reach through, because they travel in the `Request`. Under observation a combinator
is a run of its own, of the kind ``chain``, and what it asks are runs within it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast, overload

import attrs
from attrs import field, frozen
from reactivex import Observable, abc

from ._runtime import Source, connect
from .errors import MisuseError
from .events import Listener
from .limiter import Limiter, admitted
from .llm import LLM, asking
from .messages import Chunk, Parameters, Prompt, Request
from .operators.attempts import Begin, retried, tried
from .operators.delays import USUAL_DELAY, Delay, is_no_misuse, is_retryable
from .operators.folds import one_chunk
from .operators.keeping import Running, Store, kept
from .operators.limits import check_seconds
from .operators.observing import Identity, observed
from .pipeline import Pipeline
from .surface import Surface

__all__ = ["cached", "fallback", "hedge", "limited", "observe", "retry", "route"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
Stage = Callable[[Any], Observable[T]]

_log = logging.getLogger("rxllm")


class How(Protocol):
    """What a combinator does with those it is made of.

    Attributes:
        name: what its runs are called.
    """

    name: ClassVar[str]

    def __call__(self, begins: tuple[Begin[Any], ...], given: Any, /) -> Observable[Any]:
        """The stream for what was given, of those that each of them would make of it."""
        ...


@frozen
class _CombinedLLM(LLM):
    """A model made of others."""

    of: tuple[Stage[Any], ...]
    how: How

    @property
    def streaming(self) -> Literal["native", "single emission"]:
        """As the first of them."""
        first = self.of[0] if self.of else None
        return first.streaming if isinstance(first, LLM) else "native"

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """As of every LLM."""
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        return _made(self, self.of, self.how, Request.ask(prompt, self.parameters))


@frozen
class _CombinedPipeline(Pipeline[In, Out]):
    """A pipeline made of others."""

    how: How

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """As of every Pipeline."""
        return _made(self, self.stages, self.how, prompt)


def _made(surface: Surface[Any, Any, Any], of: tuple[Stage[T], ...], how: How, given: Any) -> Observable[T]:
    def identity() -> Identity:
        return Identity(surface.run_name or how.name, "chain", surface.tags, surface.metadata, surface.handlers)

    made = how(tuple(functools.partial(stage, given) for stage in of), given)
    told = given.prompt if isinstance(given, Request) else given
    return observed(made, told, identity, surface.handlers)


def _combined(how: How, *of: Stage[Any]) -> Any:
    for stage in of:
        if not callable(cast("object", stage)):
            raise MisuseError(
                f"{how.name} takes models, pipelines and functions that return an Observable, not "
                f"{type(stage).__name__}: {stage!r:.60}."
            )
    if all(isinstance(stage, LLM) for stage in of):
        return _CombinedLLM(of, how)
    return cast("Any", _CombinedPipeline)(of, how)


# ── retry ────────────────────────────────────────────────────────────────────────────────────────────────────────


@frozen
class _Retry:
    name: ClassVar[str] = "retry"

    attempts: int
    when: Callable[[Exception], bool]
    delay: Delay
    mid_stream: Literal["restart"] | None

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks again."""
        restarts = self.mid_stream == "restart"
        return retried(begins[0], self.attempts, when=self.when, delay=self.delay, restarts=restarts)


# An LLM is such a function, too, and the first overload that fits is taken.
@overload
def retry(  # type: ignore[overload-overlap]
    llm: LLM,
    attempts: int = 3,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
    mid_stream: Literal["restart"] | None = None,
) -> LLM: ...
@overload
def retry(
    llm: Callable[[In], Observable[Out]],
    attempts: int = 3,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
) -> Pipeline[In, Out]: ...


def retry(
    llm: Stage[Any],
    attempts: int = 3,
    *,
    when: Callable[[Exception], bool] = is_retryable,
    delay: Delay = USUAL_DELAY,
    mid_stream: Literal["restart"] | None = None,
) -> Any:
    """Asks again after a failure that may pass, before the first chunk has come.

    ::

        llm             --x     --x         ---Hel-lo-|
        retry(llm, 3)   ---------------------Hel-lo-|

    A model over HTTP does so by itself (``max_retries=2``), which rests within `retry`: so many attempts are so many
    requests. This is for more, for other failures, and for others.
    What has begun is not asked for again, since its text has been read, unless ``mid_stream="restart"``: then
    ``Chunk(reset=True)`` comes before the new beginning. It folds as "forget what came before"; `text` refuses it,
    and handlers show it.

    Args:
        llm: a model, a pipeline, or any function from a prompt to an Observable.
        attempts: how many, with the first.
        when: whether to ask again after this error; by default what is ``retryable``, so never for a spent quota.
        delay: how long to wait, see `backoff`; by default as long as the provider asks, else 0.5 s, 1 s, 2 s … with
            jitter.
        mid_stream: ``"restart"`` for models only.

    Errors: the last attempt's, at once where asking again can't help or the provider asks for more than a minute.

    Raises:
        MisuseError: an argument that is none of these.
    """
    if not isinstance(cast("object", attempts), int) or attempts < 1:
        raise MisuseError(f"attempts must be a whole number of at least 1, not {attempts!r}.")
    if mid_stream not in (None, "restart"):
        raise MisuseError(f"mid_stream is 'restart' or None, not {mid_stream!r}.")
    if mid_stream and not isinstance(llm, LLM):
        raise MisuseError("Only a model can restart in the middle: its chunks can be taken back. Retry it within.")
    return _combined(_Retry(attempts, when, delay, mid_stream), llm)


# ── fallback and hedge ───────────────────────────────────────────────────────────────────────────────────────────


@frozen
class _Fallback:
    name: ClassVar[str] = "fallback"

    when: Callable[[Exception], bool]

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks the next when one has failed."""
        return tried(begins, self.when, None)


@overload
def fallback(  # type: ignore[overload-overlap]
    *llms: LLM, when: Callable[[Exception], bool] = is_no_misuse
) -> LLM: ...
@overload
def fallback(
    *llms: Callable[[In], Observable[Out]], when: Callable[[Exception], bool] = is_no_misuse
) -> Pipeline[In, Out]: ...


def fallback(*llms: Stage[Any], when: Callable[[Exception], bool] = is_no_misuse) -> Any:
    """Asks the next one when one fails before its first chunk.

    ::

        a                --x
        b                  ----Hel-lo-|
        fallback(a, b)   ------Hel-lo-|

    What has begun is not begun again. An empty answer is an answer. Mistakes of the program (`MisuseError`) are not
    got round. Only the last one asks again by itself (``max_retries``): the others' failures are not waited for.

    Args:
        llms: models; or pipelines and any other functions from a prompt to an Observable.
        when: whether to go on to the next after this error.

    Errors: the last one's; those of the others are its notes.
    """
    return _combined(_Fallback(when), *_some("fallback", llms))


@frozen
class _Hedge:
    name: ClassVar[str] = "hedge"

    after: float

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks the next when one is silent, or has failed."""
        return tried(begins, is_no_misuse, self.after)


@overload
def hedge(*llms: LLM, after: float) -> LLM: ...  # type: ignore[overload-overlap]
@overload
def hedge(*llms: Callable[[In], Observable[Out]], after: float) -> Pipeline[In, Out]: ...


def hedge(*llms: Stage[Any], after: float) -> Any:
    """Asks the next one, too, when one is silent for `after` seconds or fails; the first that says something is it.

    ::

        a                     ------------x      (left as soon as b speaks)
        b                        ---Hel-lo-|
        hedge(a, b, after=3)  ------Hel-lo-|

    The first part commits (reasoning counts), and so does an end without one: an empty answer is an answer. Losers
    are closed at once, which is what keeps the second request cheap. ``after=0`` is a race, which failures don't win.
    Only the last one asks again by itself (``max_retries``).

    `after` near the 95th percentile of the time to the first chunk costs 5 % more requests and cuts the tail.

    Args:
        llms: models, the preferred first; or pipelines and any other functions from a prompt to an Observable.
        after: seconds of silence.

    Errors: the last one's, if all fail; those of the others are its notes.
    Source: J. Dean and L. A. Barroso, "The Tail at Scale", 2013.
    """
    if after != 0:
        check_seconds("after", after)
    return _combined(_Hedge(after), *_some("hedge", llms))


def _some(name: str, llms: tuple[Stage[Any], ...]) -> tuple[Stage[Any], ...]:
    if not llms:
        raise MisuseError(f"{name} needs at least one model.")
    return llms


# ── route ────────────────────────────────────────────────────────────────────────────────────────────────────────


def route(choose: Callable[[Request], LLM]) -> LLM:
    """Asks the model that `choose` picks for the request.

    ::

        small           --Hi-|
        large           -----Dear-friend-|
        route(choose)   -----Dear-friend-|

    As in ``route(lambda request: small if len(request.text) < 500 else large)``.

    `choose` is called at each subscription, on the stream's loop, so it must not block.

    Errors: what `choose` raises; `MisuseError` if what it picks is no model.
    """
    return _CombinedLLM((), _Route(choose))


@frozen
class _Route:
    name: ClassVar[str] = "route"

    choose: Callable[[Request], LLM]

    def __call__(self, begins: tuple[Begin[T], ...], given: Request) -> Observable[Any]:
        """Asks the one that is picked."""

        def subscribe(observer: abc.ObserverBase[Any], home: abc.SchedulerBase | None) -> abc.DisposableBase:
            llm = self.choose(given)
            if not callable(cast("object", llm)):
                raise MisuseError(f"route must pick a model, not {type(llm).__name__}: {llm!r:.60}.")
            return connect(llm(given), observer, home)

        return Source(subscribe)


# ── limited ──────────────────────────────────────────────────────────────────────────────────────────────────────


@frozen
class _Limited:
    name: ClassVar[str] = "limited"

    limiter: Limiter

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks when it may."""
        text = given.text if isinstance(given, Request) else str(given)
        answer = (given.max_tokens if isinstance(given, Request) else None) or 0
        return admitted(begins[0], self.limiter, len(text) // 4 + 1 + answer)


@overload
def limited(llm: LLM, limiter: Limiter) -> LLM: ...  # type: ignore[overload-overlap]
@overload
def limited(llm: Callable[[In], Observable[Out]], limiter: Limiter) -> Pipeline[In, Out]: ...


def limited(llm: Stage[Any], limiter: Limiter) -> Any:
    """Asks when the limiter lets it, first come, first served; who leaves while waiting makes room.

    ::

        llm                     ---a-b-|
        limited(llm, limiter)   -------a-b-|

    One `Limiter` may be shared by many models, loops and threads. Put ``limited`` inside of ``retry``, so that each
    attempt counts, and inside of ``cached``, so that nothing counts that isn't asked.

    Raises:
        MisuseError: this is no Limiter.
    """
    if not isinstance(cast("object", limiter), Limiter):
        raise MisuseError(f"limited takes a Limiter, as in rxllm.Limiter(concurrency=4), not {type(limiter).__name__}.")
    return _combined(_Limited(limiter), llm)


# ── cached ───────────────────────────────────────────────────────────────────────────────────────────────────────


@frozen
class _Cached:
    name: ClassVar[str] = "cached"

    store: Store
    who: str
    running: Running = field(factory=dict[Any, Any], repr=False, eq=False)

    def __call__(self, begins: tuple[Begin[Chunk], ...], given: Request) -> Observable[Chunk]:
        """Asks what is not known yet."""
        from .records import fingerprint

        try:
            key = f"{self.who}:{fingerprint(given)}"
        except MisuseError as error:
            _log.warning("An answer is not cached. %s", error)
            return begins[0]()
        answer = kept(begins[0], self.store, key, self.running)
        # What is kept, or asked by another just now, may be a stream.
        return answer.pipe(one_chunk) if given.stream is False else answer


def cached(llm: LLM, store: Store, *, name: str | None = None) -> LLM:
    """Asks once, and from then on gives the answer that the store has, chunk by chunk.

    ::

        llm                  ---Hel-lo-|
        cached(llm, store)   ---Hel-lo-|     (and later)     (Hel)(lo)|

    Answers are kept by the model and all parameters of the request. Calls for the same that run at the same time on one
    loop join one request. What failed, or was left before its end, is not kept, nor is what was taken back. A request
    that can't be told from others is asked each time, and logged. What is asked with ``stream=False`` comes as one
    chunk, however it is kept.

    A model is told from others by its class and its fields, but those with ``repr=False``, and not by what else it
    knows; one over HTTP also by where it asks, as the environment says when ``cached`` is called, and by its headers,
    but for credentials. Where that is not enough, say `name`.

    Handlers hear of a run of the kind ``chain``, which has the answer's chunks; the model's own run is within it, and
    only when it is asked. So what counts models' runs, as `UsageMeter` and the ``on_llm_…`` hooks of a
    `CallbackHandler`, does not count what was kept.

    Args:
        llm: a model.
        store: a `MemoryStore`, a `SQLiteStore`, or one's own `Store`.
        name: tells the model from others in the same store; by default its class and its fields do.

    Raises:
        MisuseError: this is no model or no store; or the model's fields don't tell it from others.
    """
    if not isinstance(cast("object", llm), LLM):
        raise MisuseError(f"cached takes a model, not {type(llm).__name__}; cache the model within the pipeline.")
    if not isinstance(cast("object", store), Store):
        raise MisuseError(f"cached takes a Store, such as rxllm.MemoryStore(), not {type(store).__name__}.")
    return cast("LLM", _combined(_Cached(store, name or _who(llm)), llm))


_NO_MATTER = {*attrs.fields_dict(LLM), "timeout", "event_limit", "max_retries", "when", "delay", "store", "limiter"}
_CREDENTIAL = re.compile(r"(.*[-_])?(authorization|cookie|api[-_]?key|token|secret|password)", re.IGNORECASE)


def _place(url: str, headers: Mapping[str, str]) -> str:
    """Who answers there, as a digest: an address and a header may say what no store should know."""
    public = re.sub("//[^/]*@", "//", url)
    told = sorted((name.lower(), value) for name, value in headers.items() if not _CREDENTIAL.fullmatch(name))
    return hashlib.sha256(repr((public, told)).encode()).hexdigest()


def _who(value: object) -> str:
    """What tells a model from others, by its class and those fields that may show in its answers."""
    kind = type(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return repr(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return f"{{{', '.join(sorted(f'{_who(key)}: {_who(item)}' for key, item in items))}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_who, cast('Sequence[object]', value)))}]"
    if attrs.has(kind):
        fields = {each.name: getattr(value, each.name) for each in attrs.fields(kind) if each.repr}
        fields |= getattr(value, "__dict__", {})
        if isinstance(value, LLM) and "HTTPProvider" in (base.__name__ for base in kind.__mro__):
            http: Any = value  # the name of its class says so; the class itself is private to its room
            fields["base_url"] = _place(http._url(Request.ask("", value.parameters)), http.headers or {})
        told = ", ".join(f"{name}={_who(fields[name])}" for name in sorted(fields.keys() - _NO_MATTER))
        parameters = f", {value.parameters!r}" if isinstance(value, LLM) and value.parameters != Parameters() else ""
        return f"{kind.__module__}.{kind.__qualname__}({told}{parameters})"
    raise MisuseError(
        f"A {kind.__name__} in the model does not tell whether another is the same; say cached(…, name='…')."
    )


# ── observe ──────────────────────────────────────────────────────────────────────────────────────────────────────


def observe(llm: LLM, *handlers: Listener) -> LLM:
    """The same model, with listeners: each hears every run from its Started to its Finished, Failed or Cancelled.

    ::

        llm                     ---Hel-lo-|
        observe(llm, handler)   ---Hel-lo-|
        handler                 S--Hel-lo-F

    A handler is a `Handler`, any observer of events or a function of events. One that raises is logged, and disturbs
    neither the stream nor the other handlers. Handlers run where the stream does, so they must not block.

    Raises:
        MisuseError: a handler is none of these.
    """
    return llm.with_config(handlers=handlers)
