"""LLM to LLM: what changes how a model is called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Literal, cast

from attrs import field, frozen
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from ._runtime import Source, scheduler
from .errors import MisuseError
from .events import Cancelled, Event, Failed, Finished, Handler, Started
from .llm import LLM
from .messages import Chunk, Request, join

__all__ = ["observe"]

_log = logging.getLogger("rxllm")

Listener = Handler | Callable[[Event], object]


def observe(llm: LLM, *handlers: Listener) -> LLM:
    """The same model, with listeners: each hears every run from its Started to its Finished, Failed or Cancelled.

    ::

        llm:       ---Hel-lo-|
        subscriber ---Hel-lo-|
        handler    S--Hel-lo-F

    A handler is a `Handler` or a function of events. One that raises is logged, and disturbs neither the stream nor
    the other handlers. Handlers run where the stream does, so they must not block.

    Raises:
        MisuseError: a handler is neither.
    """
    for handler in handlers:
        if not isinstance(handler, Handler) and not callable(cast("object", handler)):
            raise MisuseError(f"A handler is a Handler or a function of events, not {type(handler).__name__}.")
    return _Observed(llm=llm, handlers=handlers, tags=llm.tags, metadata=llm.metadata, run_name=llm.run_name)


def _listeners(handlers: Iterable[Listener]) -> tuple[Callable[[Event], object], ...]:
    return tuple(handler.on_next if isinstance(handler, Handler) else handler for handler in handlers)


@frozen(kw_only=True)
class _Observed(LLM):
    llm: LLM
    handlers: tuple[Callable[[Event], object], ...] = field(converter=_listeners)

    @property
    def streaming(self) -> Literal["native", "single emission"]:
        return "single emission" if self.parameters.stream is False else self.llm.streaming

    def chunks(self, request: Request) -> Observable[Chunk]:
        name = self.run_name or type(self.llm).__name__

        def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            home = scheduler(given)
            arrived: list[Chunk] = []
            over = False

            def tell(event: Event) -> None:
                for handler in self.handlers:
                    try:
                        handler(event)
                    except Exception:
                        _log.exception("A handler failed at %s; the stream goes on.", type(event).__name__)

            def on_next(chunk: Chunk) -> None:
                arrived.append(chunk)
                tell(chunk)
                observer.on_next(chunk)

            def on_error(error: Exception) -> None:
                nonlocal over
                over = True
                tell(Failed(error))
                observer.on_error(error)

            def on_completed() -> None:
                nonlocal over
                over = True
                tell(Finished(join(arrived).message()))
                observer.on_completed()

            def leave() -> None:
                nonlocal over
                upstream.dispose()
                if not over:
                    over = True
                    tell(Cancelled(join(arrived).message() if arrived else None))

            tell(Started(request, name, self.tags, self.metadata))
            upstream = self.llm(request).subscribe(on_next, on_error, on_completed, scheduler=home)
            return Disposable(lambda: home.call(leave))

        return Source(subscribe)
