"""`limited`: requests wait for their turn at a `Limiter`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast, overload

import attrs
from attrs import field, frozen
from reactivex import Observable

from ..llm import LLM
from ..misuse import MisuseError
from ..operators.attempts import Begin
from ..pipeline import Answers, Pipeline
from ..surface import Surface
from ..values.request import Request
from ._combined import Answer, In, Out, Stage, T, combined
from .admission import Servers, admitted, twice
from .limiter import Limiter

__all__ = ["limited"]


@frozen
class _Limited:
    name: ClassVar[str] = "limited"

    limiter: Limiter
    servers: Servers = field(eq=False, repr=False)

    def identity(self, of: tuple[str, ...]) -> str:
        """The model's: its answers are the same."""
        return of[0]

    def __call__(self, begins: tuple[Begin[T], ...], given: Any) -> Observable[T]:
        """Asks when it may."""
        request = given if isinstance(given, Request) else None
        text = str(given) if request is None else request.text
        tokens = len(text) // 4 + 1 + ((request and request.max_tokens) or 0)
        return admitted(begins[0], self.limiter, tokens, servers=self.servers, request=request)


@overload
def limited(llm: LLM, limiter: Limiter) -> LLM: ...  # type: ignore[overload-overlap]
@overload
def limited(llm: Answers[In, Out, Answer], limiter: Limiter) -> Pipeline[In, Out, Answer]: ...
@overload
def limited(llm: Callable[[In], Observable[Out]], limiter: Limiter) -> Pipeline[In, Out]: ...


def limited(llm: Stage[Any], limiter: Limiter) -> Any:
    """Asks when the limiter lets it, first come, first served. A request that is left while it waits makes room.

    ::

        llm                     ---a-b-|
        limited(llm, limiter)   -------a-b-|

    One `Limiter` may be shared by many models, loops and threads. Put ``limited`` inside of ``retry``, so that each
    attempt counts, and inside of ``cached``, so that nothing counts that isn't asked.

    The wait counts for every time limit around ``limited``: `first_chunk_timeout`, `deadline`, ``retry(…, timeout=…)``
    and ``hedge``'s `after`. It does not count for the time limits of the model inside, ``OpenAI(…, timeout=…)``, which
    begin when the request is sent.

    Errors: `RateLimited`, without a request being sent, when a server asks for a wait of more than 60 seconds, or
        after the limiter's `max_wait`; so ``fallback(limited(a, limiter), b)`` moves on to b.

    Raises:
        MisuseError: this is no Limiter, or the same limiter limits a part of `llm` already.
    """
    if not isinstance(cast("object", limiter), Limiter):
        raise MisuseError(f"limited takes a Limiter, as in rxllm.Limiter(concurrency=4), not {type(limiter).__name__}.")
    parts = tuple(_parts(llm))
    if any(isinstance(how := getattr(part, "how", None), _Limited) and how.limiter is limiter for part in parts):
        raise MisuseError(twice(limiter))
    services = (part.service(Request.ask("", part.parameters)) for part in parts if isinstance(part, LLM))
    places = {f"{service.address}:{service.port}" for service in services if service.address}
    return combined(_Limited(limiter, Servers(tuple(sorted(places)))), llm)


def _parts(stage: object) -> Iterator[object]:
    """A stage, and all models and stages that it is made of, as far as its fields show them."""
    yield stage
    if isinstance(stage, Surface):
        kind: Any = type(cast("object", stage))
        for each in attrs.fields(kind):
            held: object = getattr(cast("object", stage), each.name)
            for part in cast("tuple[object, ...]", held) if isinstance(held, tuple) else (held,):
                if isinstance(part, Surface):
                    yield from _parts(cast("object", part))
