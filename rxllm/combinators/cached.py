"""`cached`: answers that are kept in a `Store`."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import attrs
from attrs import field, frozen
from reactivex import Observable

from ..llm import LLM
from ..misuse import MisuseError
from ..operators.attempts import Begin
from ..operators.caching import Running, Store, kept
from ..operators.message import one_chunk
from ..values.chunk import Chunk
from ..values.parameters import Parameters
from ..values.request import Request
from ._combined import combined

__all__ = ["cached"]


_log = logging.getLogger("rxllm")


@frozen
class _Cached:
    name: ClassVar[str] = "cached"

    store: Store
    who: str
    running: Running = field(factory=dict[Any, Any], repr=False, eq=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy joins no request of the original."""
        return _Cached, (self.store, self.who)

    def __call__(self, begins: tuple[Begin[Chunk], ...], given: Request) -> Observable[Chunk]:
        """Asks what is not known yet."""
        from ..records import fingerprint

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
    return cast("LLM", combined(_Cached(store, name or _who(llm)), llm))


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
