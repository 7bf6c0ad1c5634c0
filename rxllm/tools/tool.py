"""`tool`: a function as a stage, whose calls emit events."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar, overload

from attrs import field, frozen
from reactivex import Observable

from ..misuse import MisuseError, must_be
from ..operators.adding_up import LAST, Fold
from ..operators.observing import Identity, observed
from ..runtime.source import source
from ..runtime.threads import result_of
from ..showing import shown_call, shown_code
from ..surface import Surface
from ..values.parameters import Settings

__all__ = ["Tool", "tool"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
A = TypeVar("A")
B = TypeVar("B")


def _check_signature(tool: object, attribute: Any, function: Callable[..., Any]) -> None:
    must_be("a function of one value", callable)(tool, attribute, function)
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions that are written in C have no signature
        return
    try:
        signature.bind(None)
    except TypeError:
        raise MisuseError(
            f"A tool must be a function of one argument, not {_name(function)}{_parameters(signature)}. Let it take "
            "one value that holds all arguments, such as a dict or an instance of an attrs class."
        ) from None


def _parameters(signature: inspect.Signature) -> str:
    return f"({', '.join(signature.parameters)})"


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


@frozen
class Tool(Surface[In, Out, Out]):
    """A function of one value, as a stage. Handlers receive `ToolStarted` and `ToolFinished` for each call.

    Attributes:
        function: a function of one argument: ``async def``, or ``def`` for blocking code, which runs in a thread.
    """

    function: Callable[[Any], Any] = field(validator=_check_signature)

    def __repr__(self) -> str:
        return shown_call("tool", [shown_code(self.function)], self)

    def __call__(self, value: In, /) -> Observable[Out]:
        """Return the result, as an Observable of one value. Each subscription calls the function."""
        result = source(lambda scheduler: result_of(scheduler, self.function, value))
        return observed(result, value, self._identity, self.handlers, LAST, whole=True)

    def answer(self, value: In, /) -> Observable[Out]:
        """Return the result, as an Observable of one value."""
        return self(value)

    @property
    def _fold(self) -> Fold:
        return LAST

    def _identity(self) -> Identity:
        return Identity(self.run_name or _name(self.function), "tool", self.tags, self.metadata, self.handlers)

    def _with_parameters(self, parameters: Settings) -> NoReturn:
        raise MisuseError(
            f"A tool has no model, so it cannot use {', '.join(parameters)}. Pass parameters to a model or a pipeline."
        )


@overload
def tool(function: Callable[[A], Awaitable[B]]) -> Tool[A, B]: ...
@overload
def tool(function: Callable[[A], B]) -> Tool[A, B]: ...


def tool(function: Callable[[Any], Any]) -> Tool[Any, Any]:
    """Make a function a stage whose calls emit events, for handlers, for `events` and for traces.

    ::

        @rxllm.tool
        async def weather(city: str) -> str:
            return f"It rains in {city}."

        weather.invoke("Oslo")
        rxllm.pipe(llm, rxllm.message(), ops.map(city_of), ops.flat_map(weather))

    The function must take exactly one argument. To pass several values, use a dict or an instance of an attrs class::

        @rxllm.tool
        async def route(trip: dict[str, str]) -> str:
            return f"From {trip['start']} to {trip['end']}."

        route.invoke({"start": "Oslo", "end": "Bergen"})

    Errors: the exception that the function raises.

    Raises:
        MisuseError: `function` is not callable, or it cannot be called with one argument.
    """
    return Tool(function)
