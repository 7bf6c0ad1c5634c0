"""`observe`: attach handlers to a model or a pipeline."""

from __future__ import annotations

from ..events import Listener
from ..llm import LLM

__all__ = ["observe"]


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
