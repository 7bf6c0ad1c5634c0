"""`from_callable`: a function as a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Unpack, cast

from attrs import field, frozen

from ..llm import LLM, Fields
from ..misuse import must_be
from ..values.request import Request

__all__ = ["from_callable"]

_function = must_be("a function of a Request, such as lambda request: request.text", callable)


@frozen
class Function(LLM):
    """A model whose whole answers a function returns."""

    function: Callable[[Request], Any] = field(validator=_function)

    def complete(self, request: Request) -> Any:
        """Return what the function returns. It runs in a thread, because it may block."""
        return self.function(request)


@frozen
class Generator(LLM):
    """A model whose chunks a generator function yields."""

    function: Callable[[Request], Any] = field(validator=_function)

    def chunks(self, request: Request) -> Any:
        """Stream what the generator yields."""
        return self.function(request)


def from_callable(function: Callable[[Request], Any], **settings: Unpack[Fields]) -> LLM:
    """Return a model that answers with a function, such as a call of a library that rxllm does not know.

    ::

        shout = from_callable(lambda request: request.text.upper())

    A subclass of `rxllm.LLM` does the same, and may have fields, a name and features. Use this function for one line.

    Args:
        function: gets the `Request`, which has the messages, their `text` and the parameters. A generator function,
            plain or asynchronous, streams: it yields texts or Chunks. Any other function returns the whole answer:
            text, a Message or a Chunk. It may be a coroutine function; otherwise it runs in a thread.
        settings: parameters, and the config of the runs.

    Raises:
        MisuseError: the value is not a function.
    """
    streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    kind: Callable[..., LLM] = Generator if streams else Function
    model = kind(function, **cast("Any", settings))
    return model if model.run_name else model.with_config(run_name=getattr(function, "__name__", "function"))
