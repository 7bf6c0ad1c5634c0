"""`observe`: attach handlers to a model or a pipeline."""

from __future__ import annotations

from ..events import Listener
from ..llm import LLM

__all__ = ["observe"]


def observe(llm: LLM, *handlers: Listener) -> LLM:
    """Attach handlers to a model. Each gets the events of every run, from Started to Finished, Failed or Cancelled.

    ::

        llm                     ---Hel-lo-|
        observe(llm, handler)   ---Hel-lo-|
        handler                 S--Hel-lo-F

    A handler is a `Handler`, any observer of events, or a function of events. An exception of a handler is logged, and
    affects neither the stream nor other handlers. Handlers run on the event loop of the stream, so they must not block.

    Raises:
        MisuseError: a handler is something else.
    """
    return llm.with_config(handlers=handlers)
