"""`pipe`: stages in a row, with the surface of an LLM on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar, cast, overload

from attrs import frozen
from reactivex import Observable
from reactivex import operators as ops

from .errors import MisuseError
from .messages import Settings
from .operators.observing import Identity, observed
from .surface import Surface

__all__ = ["Pipeline", "pipe"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


@frozen
class Pipeline(Surface[In, Out, Out]):
    """Stages in a row: plain function composition. A Pipeline is itself a stage.

    Its answer is the *last value* of its stream; fold first, with `message` for one, where that is not enough.
    """

    stages: tuple[Callable[[Any], Any], ...]

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """Calls each stage with what the one before returned.

        Raises:
            MisuseError: the last stage returned no Observable.
            Exception: what a stage raises.
        """
        value: Any = prompt
        for stage in self.stages:
            value = stage(value)
        if not isinstance(value, Observable):
            raise MisuseError(
                f"The last stage of a pipeline must return an Observable; {_name(self.stages[-1])} returned "
                f"{type(value).__name__}. Functions of single values go in as ops.map(f)."
            )
        return observed(cast("Observable[Out]", value), prompt, self._identity, self.handlers)

    def _identity(self) -> Identity:
        return Identity(self.run_name or "Pipeline", "chain", self.tags, self.metadata, self.handlers)

    def answer(self, prompt: In, /) -> Observable[Out]:
        """The last value."""
        return self(prompt).pipe(ops.last())

    def _asking_with(self, parameters: Settings) -> Self:
        if not any(isinstance(stage, Surface) for stage in self.stages):
            raise MisuseError(f"This pipeline has no model to take {', '.join(parameters)}.")
        stages = tuple(
            cast("Any", stage).bind(**parameters) if isinstance(stage, Surface) else stage for stage in self.stages
        )
        return self._copied(stages=stages)


def _name(stage: object) -> str:
    return getattr(stage, "__qualname__", type(stage).__name__)


A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
I = TypeVar("I")  # noqa: E741  (input)
O = TypeVar("O")  # noqa: E741  (output)


@overload
def pipe(a: Callable[[I], Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(a: Callable[[I], A], b: Callable[[A], Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(a: Callable[[I], A], b: Callable[[A], B], c: Callable[[B], Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(
    a: Callable[[I], A], b: Callable[[A], B], c: Callable[[B], C], d: Callable[[C], Observable[O]], /
) -> Pipeline[I, O]: ...
@overload
def pipe(
    a: Callable[[I], A],
    b: Callable[[A], B],
    c: Callable[[B], C],
    d: Callable[[C], D],
    e: Callable[[D], Observable[O]],
    /,
) -> Pipeline[I, O]: ...
@overload
def pipe(
    a: Callable[[I], A],
    b: Callable[[A], B],
    c: Callable[[B], C],
    d: Callable[[C], D],
    e: Callable[[D], E],
    f: Callable[[E], Observable[O]],
    /,
) -> Pipeline[I, O]: ...
@overload
def pipe(
    a: Callable[[I], A],
    b: Callable[[A], B],
    c: Callable[[B], C],
    d: Callable[[C], D],
    e: Callable[[D], E],
    f: Callable[[E], F],
    g: Callable[[F], Observable[O]],
    /,
) -> Pipeline[I, O]: ...
@overload
def pipe(
    a: Callable[[I], A],
    b: Callable[[A], B],
    c: Callable[[B], C],
    d: Callable[[C], D],
    e: Callable[[D], E],
    f: Callable[[E], F],
    g: Callable[[F], G],
    h: Callable[[G], Observable[O]],
    /,
) -> Pipeline[I, O]: ...
@overload
def pipe(*stages: Callable[[Any], Any]) -> Pipeline[Any, Any]: ...


def pipe(*stages: Callable[[Any], Any]) -> Pipeline[Any, Any]:
    """Composes stages: each is called with what the one before returned.

    ::

        talk = pipe(outline, llm, text())        # talk(x) is text()(llm(outline(x)))
        for piece in talk.stream("goldfish on the moon"): …

    A stage is a function of the input, an LLM, an operator or another Pipeline; nothing is coerced or guessed.

    Raises:
        MisuseError: there is no stage, or one that can't be called.
    """
    if not stages:
        raise MisuseError("A pipeline needs at least one stage, such as a model.")
    for stage in stages:
        if not callable(cast("object", stage)):
            raise MisuseError(
                f"A stage is a function, a model or an operator, not {type(stage).__name__}: {stage!r:.60}."
            )
    return Pipeline(stages)
