"""`cached`: keep answers in a `Store`."""

from __future__ import annotations

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
from ._combined import combined, model_of

__all__ = ["cached"]


_log = logging.getLogger("rxllm")


_NAME = "name "  # the prefix of an identity that the user chose by name=


@frozen
class _Cached:
    name: ClassVar[str] = "cached"

    store: Store
    chosen_identity: str = field(metadata={"shown": False})
    running: Running = field(factory=dict[Any, Any], repr=False, eq=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle no running request and no identity, because the copy may use another API key."""
        return _Cached, (self.store, self.chosen_identity if self.chosen_identity.startswith(_NAME) else "")

    def identity(self, of: tuple[str, ...]) -> str:
        """The name that the user chose, else the identity of the model."""
        return self.chosen_identity or of[0]

    def __call__(self, begins: tuple[Begin[Chunk], ...], request: Request) -> Observable[Chunk]:
        """Emit the stored answer, or ask the model."""
        from ..records import fingerprint

        try:
            key = f"{self.chosen_identity or model_of(begins[0]).identity()}:{fingerprint(request)}"
        except MisuseError as error:
            _log.warning("cached() did not cache an answer. %s", error)
            return begins[0]()
        answer = kept(begins[0], self.store, key, self.running)
        # The stored or shared answer may have several chunks.
        return one_chunk(answer) if request.stream is False else answer


def cached(llm: LLM, store: Store, *, name: str | None = None) -> LLM:
    """Ask the model once for each request, and later emit the stored answer, chunk by chunk.

    ::

        llm                  ---Hel-lo-|
        cached(llm, store)   ---Hel-lo-|     (and later)     (Hel)(lo)|

    The key is the model's `LLM.identity` with all parameters of the request. Concurrent calls with the same key on one
    event loop share one request. Only whole answers are stored: their finish reason is ``stop``, ``length`` or
    ``tool_call``. An answer that failed, was filtered or was disposed is not stored. A request without a stable key is
    sent each time, with a warning in the log. A request with ``stream=False`` gets one chunk, also of a stored stream.

    The identity of a model over HTTP consists of its address, its API key and all other headers at the time when
    ``cached`` is called. So an answer never reaches another key, tenant or server. To share answers across keys, or
    with a `client` of your own, pass a `name`: models with the same name share the answers in the store.

    Handlers get a run of the kind ``chain`` with the chunks of the answer. The model's own run is within it, and only
    exists when the model is asked. So `UsageMeter` and the ``on_llm_…`` hooks of a `CallbackHandler`, which count runs
    of models, do not count stored answers.

    Args:
        llm: a model.
        store: a `MemoryStore`, a `SQLiteStore`, or a `Store` of your own.
        name: replaces the model's identity in the key.

    Raises:
        MisuseError: `llm` is not a model, `store` is not a Store, or the model has no identity.
    """
    if not isinstance(cast("object", llm), LLM):
        raise MisuseError(f"cached takes a model, not {type(llm).__name__}. In a pipeline, cache the model within it.")
    if not isinstance(cast("object", store), Store):
        raise MisuseError(f"cached takes a Store, such as rxllm.MemoryStore(), not {type(store).__name__}.")
    return cast("LLM", combined(_Cached(store, llm.identity() if name is None else f"{_NAME}{name}"), llm))
