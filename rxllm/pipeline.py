"""`pipe`: stages in a row, with the surface of an LLM on top."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Self, TypeVar, cast, overload

from attrs import frozen
from reactivex import Observable
from reactivex import operators as ops

from .extensible import evolved
from .misuse import MisuseError
from .operators.observing import Identity, observed
from .surface import Surface
from .values.parameters import Settings

__all__ = ["Pipeline", "pipe"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


@frozen
class Pipeline(Surface[In, Out, Out]):
    """Stages in a row: plain function composition. A Pipeline is itself a stage.

    Its answer is the *last value* of its stream; fold first, with `message` for one, where that is not enough.

    Parameters of a call, as in ``talk.invoke(x, temperature=0)``, and those of `bind` reach the models among its
    stages, also those of pipelines among them. They don't reach a model within an operator or a function: there say
    ``ops.flat_map(llm.bind(temperature=0))``.
    """

    stages: tuple[Callable[[Any], Any], ...]

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """Calls each stage with what the one before returned.

        Raises:
            MisuseError: the last stage returned no Observable, or one before an operator did not, or a coroutine came.
            Exception: what a stage raises.
        """
        value: Any = prompt
        for number, stage in enumerate(self.stages):
            if _is_operator(stage) and not isinstance(value, Observable):
                came = f"{_name(self.stages[number - 1])} returned" if number else "the pipeline is given"
                raise MisuseError(
                    f"Stage {number + 1} is an operator, which takes an Observable, but {came} "
                    f"{type(value).__name__}. Is a model missing before it? A function may return rx.of(value)."
                )
            made = stage(value)
            if inspect.iscoroutine(made) and self._takes_no_coroutine(number + 1):
                made.close()
                awaited = f"rxllm.tool({_name(stage)})"
                raise MisuseError(
                    f"{_name(stage)} is async def, so that it returned a coroutine, which is no stream and no prompt; "
                    f"{f'ops.flat_map({awaited})' if isinstance(value, Observable) else awaited} is a stage that "
                    "awaits it."
                )
            value = made
        if not isinstance(value, Observable):
            raise MisuseError(
                f"The last stage of a pipeline must return an Observable; {_name(self.stages[-1])} returned "
                f"{type(value).__name__}. Functions of single values go in as ops.map(f)."
            )
        return observed(cast("Observable[Out]", value), prompt, self._identity, self.handlers)

    def _takes_no_coroutine(self, number: int) -> bool:
        """Whether this stage can't be anybody's who awaits; or there is none."""
        stage = self.stages[number] if number < len(self.stages) else None
        return stage is None or isinstance(stage, Surface) or _is_operator(stage)

    def _identity(self) -> Identity:
        return Identity(self.run_name or "Pipeline", "chain", self.tags, self.metadata, self.handlers)

    def answer(self, prompt: In, /) -> Observable[Out]:
        """The last value."""
        return self(prompt).pipe(ops.last())

    def _asking_with(self, parameters: Settings) -> Self:
        if not _has_model(self):
            names = ", ".join(parameters)
            raise MisuseError(
                f"This pipeline has no model to take {names} among its stages. To one within an operator or a function "
                f"say it there, as in ops.flat_map(llm.bind({'=…, '.join(parameters)}=…))."
            )
        stages = tuple(cast("Any", stage).bind(**parameters) if _has_model(stage) else stage for stage in self.stages)
        return evolved(self, stages=stages)


def _has_model(stage: object) -> bool:
    if isinstance(stage, Pipeline):
        return any(map(_has_model, stage.stages))
    return isinstance(stage, Surface)


_OPERATORS = ("rxllm.operators.", "reactivex.operators", "reactivex.internal.curry")  # modules


def _is_operator(stage: object) -> bool:
    """Whether it is one of ours or of reactivex's, as far as can be told."""
    return isinstance(stage, FunctionType) and stage.__module__.startswith(_OPERATORS)


def _makes_operator(stage: object) -> bool:
    """Whether it is what makes one."""
    return _is_operator(stage) and "<locals>" not in cast("FunctionType", stage).__qualname__


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

    A stage is a function of the input, an LLM, an operator or another Pipeline; nothing is coerced or guessed. A
    function that is ``async def`` becomes a stage by `tool`, as in ``pipe(tool(outline), llm)``.

    Raises:
        MisuseError: there is no stage, or one that can't be called, or an operator without its parentheses.
    """
    if not stages:
        raise MisuseError("A pipeline needs at least one stage, such as a model.")
    for stage in stages:
        if not callable(cast("object", stage)):
            raise MisuseError(
                f"A stage is a function, a model or an operator, not {type(stage).__name__}: {stage!r:.60}."
            )
        if _makes_operator(stage):
            raise MisuseError(f"{_name(stage)} makes an operator, and is called first: say {_name(stage)}(…).")
    return Pipeline(stages)
