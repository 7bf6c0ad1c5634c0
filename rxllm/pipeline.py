"""`pipe`: stages in a row, with the surface of an LLM on top."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, Self, cast, overload

from attrs import frozen
from reactivex import Observable
from typing_extensions import TypeVar

from .extensible import evolved
from .misuse import MisuseError, shown
from .operators.adding_up import Fold, fold_of
from .operators.observing import Identity, observed
from .operators.stage import is_factory, is_operator
from .showing import shown_call, shown_code
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
    """Stages in a row: plain function composition. A Pipeline is itself a stage.

    `invoke`, `batch` and the others answer with what its stream *adds up to*, as its last stage declares: after `text`
    and the other operators of text one text, after a model or an operator of chunks a Message, after `lines` and
    `batch` a list of all values, after `message`, `usage` and `snapshots` the last value. `smooth`, `share` and the
    limits on time leave it to the stage before them. After a stage that declares nothing, such as an operator of
    reactivex, texts join, chunks become a Message, and of anything else the last value is the answer; `stage` declares
    it otherwise.

    Parameters of a call, as in ``talk.invoke(x, temperature=0)``, and those of `bind` reach the models among its
    stages, also those of pipelines among them. They don't reach a model within an operator or a function: there say
    ``ops.flat_map(llm.bind(temperature=0))``.
    """

    stages: tuple[Callable[[Any], Any], ...]

    def __repr__(self) -> str:
        return shown_call("pipe", map(shown_code, self.stages), self)

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """Calls each stage with what the one before returned.

        Raises:
            MisuseError: the last stage returned no Observable, or one before an operator did not, or a coroutine came.
            Exception: what a stage raises.
        """
        return observed(self._composed(prompt), prompt, self._identity, self.handlers, self._fold)

    def answer(self, prompt: In, /) -> Observable[Answer]:
        """What the stream adds up to, as an Observable of one value."""
        return observed(self._composed(prompt), prompt, self._identity, self.handlers, self._fold, whole=True)

    @property
    def _fold(self) -> Fold:
        return fold_of(self.stages)

    def _composed(self, prompt: In) -> Observable[Out]:
        value: Any = prompt
        for number, stage in enumerate(self.stages):
            if is_operator(stage) and not isinstance(value, Observable):
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
        return cast("Observable[Out]", value)

    def _takes_no_coroutine(self, number: int) -> bool:
        """Whether this stage can't be anybody's who awaits; or there is none."""
        stage = self.stages[number] if number < len(self.stages) else None
        return stage is None or isinstance(stage, Surface) or is_operator(stage)

    def _identity(self) -> Identity:
        return Identity(self.run_name or "Pipeline", "chain", self.tags, self.metadata, self.handlers)

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


def _name(stage: object) -> str:
    return shown_code(stage) if hasattr(stage, "__qualname__") else type(stage).__name__


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
    """A last stage that knows what its values add up to: a model, a Pipeline, an operator of ours."""

    def __call__(self, value: In, /) -> Observable[Out]:
        """The stream."""
        ...

    def answer(self, value: In, /) -> Observable[Answer]:
        """The answer."""
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
                f"A stage is a function, a model or an operator, not {type(stage).__name__}: {shown(stage)}."
            )
        if is_factory(stage):
            raise MisuseError(f"{_name(stage)} makes an operator, so call it first: say {_name(stage)}(…).")
    return Pipeline(stages)
