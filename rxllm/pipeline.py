"""`pipe`: composition of stages to a `Pipeline`, which has the methods of an LLM."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, Self, cast, overload

from attrs import frozen
from reactivex import Observable
from typing_extensions import TypeVar

from .extensible import evolved
from .graph import Graph
from .misuse import MisuseError, shown
from .operators.adding_up import Fold, fold_of
from .operators.observing import Identity, observed
from .operators.stage import is_factory, is_operator
from .showing import shown_call, shown_code
from .stages import graph_of_parts, has_model, name_of, with_parameters
from .surface import Surface
from .values.chunk import Chunk
from .values.message import Message
from .values.parameters import Settings

__all__ = ["Pipeline", "pipe"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Answer = TypeVar("Answer", covariant=True, default=Out)


@frozen
class Pipeline(Surface[In, Out, Answer]):
    """A sequence of stages, composed as plain functions. A Pipeline is itself a stage.

    `invoke`, `batch` and the other methods return what the stream *adds up to*. The last stage declares this:

    * After `text` and the other text operators, the answer is one text.
    * After a model or a chunk operator, the answer is a Message.
    * After `lines` and `batch`, the answer is a list of all values.
    * After `message`, `usage` and `snapshots`, the answer is the last value.
    * `smooth`, `share` and the timeouts keep the declaration of the stage before them.
    * After a stage without a declaration, such as an operator of reactivex, texts join, chunks become a Message, and
      for other values the last value is the answer. `stage` adds a declaration.

    The parameters of a call, as in ``talk.invoke(x, temperature=0)``, and the parameters of `bind` apply to the models
    among the stages, and to the models in nested pipelines. They do not apply to a model within an operator or a
    function: write ``ops.flat_map(llm.bind(temperature=0))`` there.
    """

    stages: tuple[Callable[[Any], Any], ...]

    def __repr__(self) -> str:
        return shown_call("pipe", map(shown_code, self.stages), self)

    def _graph(self) -> Graph:
        return graph_of_parts("pipe", self, "sequence", (("", stage) for stage in self.stages))

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """Call each stage with the return value of the stage before it, and return the last stage's Observable.

        Raises:
            MisuseError: the last stage, or the stage before an operator, did not return an Observable; or a stage
                returned a coroutine.
            Exception: the exception that a stage raised.
        """
        return observed(self._composed(prompt), prompt, self._identity, self.handlers, self._fold)

    def answer(self, prompt: In, /) -> Observable[Answer]:
        """Return what the stream adds up to, as an Observable of one value."""
        return observed(self._composed(prompt), prompt, self._identity, self.handlers, self._fold, whole=True)

    @property
    def _fold(self) -> Fold:
        return fold_of(self.stages)

    def _composed(self, prompt: In) -> Observable[Out]:
        value: Any = prompt
        for number, stage in enumerate(self.stages):
            if is_operator(stage) and not isinstance(value, Observable):
                origin = f"{name_of(self.stages[number - 1])} returned" if number else "the input of the pipeline is"
                raise MisuseError(
                    f"Stage {number + 1} is an operator, which takes an Observable, but {origin} "
                    f"{type(value).__name__}. Put a model before it, or let a function return rx.of(value)."
                )
            result = stage(value)
            if inspect.iscoroutine(result) and self._rejects_coroutine(number + 1):
                result.close()
                awaiting = f"rxllm.tool({name_of(stage)})"
                raise MisuseError(
                    f"{name_of(stage)} is async def, so it returned a coroutine, but the next stage needs a stream or "
                    "a prompt. To await the coroutine, write "
                    f"{f'ops.flat_map({awaiting})' if isinstance(value, Observable) else awaiting}."
                )
            value = result
        if not isinstance(value, Observable):
            raise MisuseError(
                f"The last stage of a pipeline must return an Observable; {name_of(self.stages[-1])} returned "
                f"{type(value).__name__}. To apply a function to single values, write ops.map(f)."
            )
        return cast("Observable[Out]", value)

    def _rejects_coroutine(self, number: int) -> bool:
        """Return whether the stage with this number is missing or cannot await a coroutine."""
        stage = self.stages[number] if number < len(self.stages) else None
        return stage is None or isinstance(stage, Surface) or is_operator(stage)

    def _identity(self) -> Identity:
        return Identity(self.run_name or "Pipeline", "chain", self.tags, self.metadata, self.handlers)

    @property
    def _has_model(self) -> bool:
        return any(map(has_model, self.stages))

    def _with_parameters(self, parameters: Settings) -> Self:
        if not self._has_model:
            names = ", ".join(parameters)
            raise MisuseError(
                f"This pipeline has no model among its stages, so it cannot use {names}. Bind parameters to a model "
                f"within an operator or a function there, as in ops.flat_map(llm.bind({'=…, '.join(parameters)}=…))."
            )
        return evolved(self, stages=tuple(with_parameters(stage, parameters) for stage in self.stages))


A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
I = TypeVar("I")  # noqa: E741  (input)
O = TypeVar("O")  # noqa: E741  (output)
R = TypeVar("R")  # the answer
To = Callable[[A], B]


class Answers(Protocol[In, Out, Answer]):
    """A last stage that declares what its values add up to: a model, a Pipeline, or an operator of rxllm."""

    def __call__(self, value: In, /) -> Observable[Out]:
        """Return the stream."""
        ...

    def answer(self, value: In, /) -> Observable[Answer]:
        """Return the answer."""
        ...


@overload
def pipe(  # type: ignore[overload-overlap]
    a: Answers[I, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(a: To[I, Observable[Chunk]], /) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(a: To[I, Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(  # type: ignore[overload-overlap]
    a: To[I, A], b: Answers[A, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(a: To[I, A], b: To[A, Observable[Chunk]], /) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(a: To[I, A], b: To[A, Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(  # type: ignore[overload-overlap]
    a: To[I, A], b: To[A, B], c: Answers[B, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(a: To[I, A], b: To[A, B], c: To[B, Observable[Chunk]], /) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(a: To[I, A], b: To[A, B], c: To[B, Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(  # type: ignore[overload-overlap]
    a: To[I, A], b: To[A, B], c: To[B, C], d: Answers[C, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, Observable[Chunk]], /) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(  # type: ignore[overload-overlap]
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: Answers[D, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, Observable[Chunk]], /
) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, Observable[O]], /) -> Pipeline[I, O]: ...
@overload
def pipe(  # type: ignore[overload-overlap]
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, E], f: Answers[E, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, E], f: To[E, Observable[Chunk]], /
) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, E], f: To[E, Observable[O]], /
) -> Pipeline[I, O]: ...
@overload
def pipe(  # type: ignore[overload-overlap]
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, E], f: To[E, F], g: Answers[F, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, E], f: To[E, F], g: To[F, Observable[Chunk]], /
) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, E], f: To[E, F], g: To[F, Observable[O]], /
) -> Pipeline[I, O]: ...
@overload
def pipe(  # type: ignore[overload-overlap]
    a: To[I, A], b: To[A, B], c: To[B, C], d: To[C, D], e: To[D, E], f: To[E, F], g: To[F, G], h: Answers[G, O, R], /
) -> Pipeline[I, O, R]: ...
@overload
def pipe(
    a: To[I, A],
    b: To[A, B],
    c: To[B, C],
    d: To[C, D],
    e: To[D, E],
    f: To[E, F],
    g: To[F, G],
    h: To[G, Observable[Chunk]],
    /,
) -> Pipeline[I, Chunk, Message]: ...
@overload
def pipe(
    a: To[I, A],
    b: To[A, B],
    c: To[B, C],
    d: To[C, D],
    e: To[D, E],
    f: To[E, F],
    g: To[F, G],
    h: To[G, Observable[O]],
    /,
) -> Pipeline[I, O]: ...


@overload
def pipe(*stages: Callable[[Any], Any]) -> Pipeline[Any, Any]: ...


def pipe(*stages: Callable[[Any], Any]) -> Pipeline[Any, Any]:
    """Compose stages: each stage is called with the return value of the stage before it.

    ::

        talk = pipe(outline, llm, text())        # talk(x) is text()(llm(outline(x)))
        for piece in talk.stream("goldfish on the moon"): …

    A stage is a function, an LLM, an operator or another Pipeline. `pipe` does not convert values between stages. To
    use an ``async def`` function as a stage, wrap it in `tool`, as in ``pipe(tool(outline), llm)``.

    Raises:
        MisuseError: there is no stage, a stage is not callable, or an operator is missing its parentheses.
    """
    if not stages:
        raise MisuseError("A pipeline needs at least one stage, such as a model.")
    for stage in stages:
        if not callable(cast("object", stage)):
            raise MisuseError(
                f"A stage must be a function, a model or an operator, not {type(stage).__name__}: {shown(stage)}."
            )
        if is_factory(stage):
            raise MisuseError(
                f"{name_of(stage)} is a function that returns an operator. Call it: write {name_of(stage)}(…)."
            )
    return Pipeline(stages)
