"""`tool`: a function whose calls are seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar, overload

from attrs import field, frozen
from reactivex import Observable

from ._runtime import called, source
from .errors import MisuseError, must_be
from .messages import Settings
from .operators.observing import Identity, observed
from .surface import Surface

__all__ = ["Tool", "tool"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
A = TypeVar("A")
B = TypeVar("B")


@frozen
class Tool(Surface[In, Out, Out]):
    """A function of one value, as a stage: its calls are runs, which handlers hear as `ToolStarted`, `ToolFinished`.

    Attributes:
        function: ``async def``, or ``def`` for code that blocks, which runs in a thread.
    """

    function: Callable[[Any], Any] = field(validator=must_be("a function of one value", callable))

    def __call__(self, value: In, /) -> Observable[Out]:
        """The result, as an Observable of one value: each subscription calls the function."""
        return observed(source(lambda home: called(home, self.function, value)), value, self._identity, self.handlers)

    def answer(self, value: In, /) -> Observable[Out]:
        """The result."""
        return self(value)

    def _identity(self) -> Identity:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return Identity(self.run_name or name, "tool", self.tags, self.metadata, self.handlers)

    def _asking_with(self, parameters: Settings) -> NoReturn:
        raise MisuseError(f"A tool has no model to take {', '.join(parameters)}.")


@overload
def tool(function: Callable[[A], Awaitable[B]]) -> Tool[A, B]: ...
@overload
def tool(function: Callable[[A], B]) -> Tool[A, B]: ...


def tool(function: Callable[[Any], Any]) -> Tool[Any, Any]:
    """Makes a function a stage whose calls are seen: by handlers, in `events`, as spans.

    ::

        @rxllm.tool
        async def weather(city: str) -> str:
            return f"It rains in {city}."

        weather.invoke("Oslo")
        rxllm.pipe(llm, rxllm.message(), ops.map(city_of), ops.flat_map(weather))

    Errors: what the function raises. Raises: MisuseError: it is no function.
    """
    return Tool(function)
