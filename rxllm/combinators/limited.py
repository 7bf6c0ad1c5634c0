"""`limited`: send requests at the rate that a `Limiter` allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast, overload

from attrs import field, frozen
from reactivex import Observable

from ..llm import LLM
from ..misuse import MisuseError
from ..operators.answering import CHARACTERS
from ..operators.attempts import Begin
from ..pipeline import Answers, Pipeline
from ..values.request import Request
from ._combined import Answer, In, Out, Stage, T, combined, model_of, parts_of
from .admission import admitted, twice
from .asked import asked
from .limiter import Limiter
from .servers import Servers

__all__ = ["limited"]

_NO_REQUEST = Request(prompt="")  # for the models of a pipeline, whose prompts are not known yet


@frozen
class _Limited:
    name: ClassVar[str] = "limited"

    limiter: Limiter
    servers: Servers = field(eq=False, repr=False)

    def identity(self, of: tuple[str, ...]) -> str:
        """The identity of the model, because its answers do not change."""
        return of[0]

    def __call__(self, begins: tuple[Begin[T], ...], prompt: Any) -> Observable[T]:
        """Ask the model when the limiter admits the request."""
        request = prompt if isinstance(prompt, Request) else None
        text = str(prompt) if request is None else request.text
        requests = asked(model_of(begins[0]), request or _NO_REQUEST)
        tokens = len(text) // CHARACTERS + 1 + max((each.max_tokens or 0 for _, each in requests), default=0)
        return admitted(begins[0], self.limiter, tokens, servers=self.servers, request=request)


@overload
def limited(llm: LLM, limiter: Limiter) -> LLM: ...  # type: ignore[overload-overlap]
@overload
def limited(llm: Answers[In, Out, Answer], limiter: Limiter) -> Pipeline[In, Out, Answer]: ...
@overload
def limited(llm: Callable[[In], Observable[Out]], limiter: Limiter) -> Pipeline[In, Out]: ...


def limited(llm: Stage[Any], limiter: Limiter) -> Any:
    """Send each request when the limiter admits it, in the order of arrival. Disposing removes a waiting request.

    ::

        llm                     ---a-b-|
        limited(llm, limiter)   -------a-b-|

    Models, event loops and threads may share one `Limiter`. Use ``retry(limited(…))``, so that each attempt counts, and
    ``cached(limited(…))``, so that stored answers do not count.

    The wait counts towards each time limit around ``limited``: `first_chunk_timeout`, `deadline`,
    ``retry(…, timeout=…)`` and the `after` of ``hedge``. It does not count towards the limits of the model inside,
    ``OpenAI(…, timeout=…)``, which start when the request is sent.

    Errors: those of the model. `RateLimited`, before the request is sent, when a server asks for a wait of more than 60
        seconds, or after the limiter's `max_wait`; so ``fallback(limited(a, limiter), b)`` asks b.

    Raises:
        MisuseError: `limiter` is not a Limiter, or it already limits a part of `llm`.
    """
    if not isinstance(cast("object", limiter), Limiter):
        raise MisuseError(
            f"limited takes a Limiter, such as rxllm.Limiter(concurrency=4), not {type(limiter).__name__}."
        )
    parts = tuple(parts_of(llm))
    if any(isinstance(how := getattr(part, "how", None), _Limited) and how.limiter is limiter for part in parts):
        raise MisuseError(twice(limiter))
    services = (part.service(Request.ask("", part.parameters)) for part in parts if isinstance(part, LLM))
    places = {f"{service.address}:{service.port}" for service in services if service.address}
    return combined(_Limited(limiter, Servers(tuple(sorted(places)))), llm)
