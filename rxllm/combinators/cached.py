"""`cached`: answers that are kept in a `Store`."""

from __future__ import annotations

import functools
import logging
from typing import Any, ClassVar, cast

from attrs import field, frozen
from reactivex import Observable

from ..llm import LLM
from ..misuse import MisuseError
from ..operators.attempts import Begin
from ..operators.caching import Running, Store, kept
from ..operators.message import one_chunk
from ..values.chunk import Chunk
from ..values.request import Request
from ._combined import combined

__all__ = ["cached"]


_log = logging.getLogger("rxllm")


_NAME = "name "  # begins what stands for an identity by the user's choice


def _asked(begin: Begin[Chunk]) -> LLM:
    """The model that a combinator was given."""
    return cast("LLM", cast("functools.partial[Any]", begin).func)


@frozen
class _Cached:
    name: ClassVar[str] = "cached"

    store: Store
    who: str = field(metadata={"shown": False})
    running: Running = field(factory=dict[Any, Any], repr=False, eq=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy joins no request of the original, and may ask with another key: keys are not copied."""
        return _Cached, (self.store, self.who if self.who.startswith(_NAME) else "")

    def identity(self, of: tuple[str, ...]) -> str:
        """The model's, or the name that stands for it."""
        return self.who or of[0]

    def __call__(self, begins: tuple[Begin[Chunk], ...], given: Request) -> Observable[Chunk]:
        """Asks what is not known yet."""
        from ..records import fingerprint

        try:
            key = f"{self.who or _asked(begins[0]).identity()}:{fingerprint(given)}"
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

    Answers are kept by the model's `LLM.identity` and all parameters of the request. Calls for the same that run at the
    same time on one event loop join one request. Only whole answers are kept: those that ended by themselves, at their
    length limit, or with a call of a tool. An answer that failed, was filtered, or was left before its end is not. A
    request that cannot be told from others is asked each time, and logged. A request with ``stream=False`` gets one
    chunk, however the answer is kept.

    The identity of a model over HTTP is its address, its key and all other headers, as they are when ``cached`` is
    called, so that nobody gets what another key, tenant or server was answered. To share answers across keys, or with a
    `client` of your own, give a `name`: models with the same name share the answers in the store.

    Handlers hear of a run of the kind ``chain``, which has the answer's chunks; the model's own run is within it, and
    only when it is asked. So what counts models' runs, as `UsageMeter` and the ``on_llm_…`` hooks of a
    `CallbackHandler`, does not count what was kept.

    Args:
        llm: a model.
        store: a `MemoryStore`, a `SQLiteStore`, or one's own `Store`.
        name: stands for the model's identity in the store.

    Raises:
        MisuseError: this is no model or no store; or the model's identity is not known.
    """
    if not isinstance(cast("object", llm), LLM):
        raise MisuseError(f"cached takes a model, not {type(llm).__name__}; cache the model within the pipeline.")
    if not isinstance(cast("object", store), Store):
        raise MisuseError(f"cached takes a Store, such as rxllm.MemoryStore(), not {type(store).__name__}.")
    return cast("LLM", combined(_Cached(store, llm.identity() if name is None else f"{_NAME}{name}"), llm))
