"""Declarations of stages: `makes_operator` marks an operator, `stage` declares what a stage's values add up to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from reactivex import Observable

from ..misuse import MisuseError, shown
from ..showing import called, shown_code
from ..values.chunk import Chunk
from ..values.message import Message
from .adding_up import FOLDS, Fold, folded

__all__ = ["Operator", "is_factory", "is_operator", "makes_operator", "stage"]

P = ParamSpec("P")
B = TypeVar("B")
S = TypeVar("S")
R = TypeVar("R", bound=Callable[[Any], Any])
Answer = TypeVar("Answer")
Source_contra = TypeVar("Source_contra", contravariant=True)
Value_co = TypeVar("Value_co", covariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class Operator(Generic[Source_contra, Value_co, Answer_co]):
    """A function from Observable to Observable that remembers the call that created it.

    Its repr, equality and pickle are those of that call, such as ``stop_at("END")``.
    """

    __slots__ = ("_apply", "_arguments", "_factory", "_fold", "_keywords")

    def __init__(
        self,
        apply: Callable[[Source_contra], Observable[Value_co]],
        fold: Fold,
        factory: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self._apply = apply
        self._fold = fold
        self._factory = factory
        self._arguments = arguments
        self._keywords = keywords

    def __call__(self, source: Source_contra, /) -> Observable[Value_co]:
        """Apply the operator."""
        return self._apply(source)

    def answer(self, source: Source_contra, /) -> Observable[Answer_co]:
        """Emit the fold of the resulting stream, as one value."""
        return folded(self._apply(source), self._fold.finish)

    def __eq__(self, other: object) -> bool:
        return type(other) is Operator and self.__reduce__() == cast("object", other).__reduce__()

    def __hash__(self) -> int:
        return hash(self._factory)

    def __repr__(self) -> str:
        named = (f"{name}={shown_code(value)}" for name, value in self._keywords.items())
        return called(self._factory.__name__, [*map(shown_code, self._arguments), *named])

    def __reduce__(self) -> tuple[Any, ...]:
        return _create, (self._factory, self._arguments, self._keywords)


def _create(factory: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return factory(*arguments, **keywords)


Makes = Callable[P, Callable[[S], Observable[B]]]


@overload
def makes_operator(adds_up: Literal["text"]) -> Callable[[Makes[P, S, str]], Callable[P, Operator[S, str, str]]]: ...
@overload
def makes_operator(
    adds_up: Literal["message"],
) -> Callable[[Makes[P, S, Chunk]], Callable[P, Operator[S, Chunk, Message]]]: ...
@overload
def makes_operator(adds_up: Literal["list"]) -> Callable[[Makes[P, S, B]], Callable[P, Operator[S, B, list[B]]]]: ...
@overload
def makes_operator(adds_up: Literal["last"]) -> Callable[[Makes[P, S, B]], Callable[P, Operator[S, B, B]]]: ...
@overload
def makes_operator(adds_up: Fold) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def makes_operator(adds_up: str | Fold) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Mark a function that creates operators, and declare what the values of these operators add up to.

    ::

        @makes_operator(adds_up="text")
        def text() -> Callable[[Observable[Chunk]], Observable[str]]: …
    """
    fold = adds_up if isinstance(adds_up, Fold) else FOLDS[adds_up]

    def mark(make: Callable[P, Any]) -> Callable[P, Any]:
        @functools.wraps(make)
        def create(*arguments: P.args, **keywords: P.kwargs) -> Any:
            operator: Operator[Any, Any, Any] = Operator(
                make(*arguments, **keywords), fold, create, arguments, keywords
            )
            return operator

        cast("Any", create).makes_operator = True
        return create

    return mark


def is_operator(value: object) -> bool:
    """Whether the value is an operator of rxllm or reactivex."""
    if isinstance(value, Operator):
        factory, arguments, _ = value.__reduce__()[1]
        return factory is not stage or is_operator(arguments[0])
    return _is_of_reactivex(value)


def is_factory(value: object) -> bool:
    """Whether the value is a function that creates an operator, such as `text` without its parentheses."""
    if _is_of_reactivex(value):
        return "<locals>" not in getattr(value, "__qualname__", "")
    return getattr(value, "makes_operator", False) is True


def _is_of_reactivex(value: object) -> bool:
    return str(getattr(value, "__module__", "")).startswith(("reactivex.operators", "reactivex.internal.curry"))


@overload
def stage(operator: Callable[[S], Observable[B]], *, adds_up: Literal["text"]) -> Operator[S, B, str]: ...
@overload
def stage(operator: Callable[[S], Observable[B]], *, adds_up: Literal["message"]) -> Operator[S, B, Message]: ...
@overload
def stage(operator: Callable[[S], Observable[B]], *, adds_up: Literal["list"]) -> Operator[S, B, list[B]]: ...
@overload
def stage(operator: Callable[[S], Observable[B]], *, adds_up: Literal["last"]) -> Operator[S, B, B]: ...
@overload
def stage(
    operator: Callable[[S], Observable[B]], *, adds_up: Callable[[list[B]], Answer]
) -> Operator[S, B, Answer]: ...


def stage(operator: Callable[[Any], Observable[Any]], *, adds_up: Any) -> Operator[Any, Any, Any]:
    """Declare what the values of a stage add up to: the answer of a pipeline that ends with this stage.

    ::

        -1-2-3-|
        stage(op, adds_up="list")
        -1-2-3-|                        invoke returns [1, 2, 3]

    For example ``pipe(llm, lines(), stage(ops.map(int), adds_up=sum)).invoke(prompt)``.

    Shape: the stream itself does not change.

    Args:
        operator: an operator, or any other stage.
        adds_up: ``"text"`` joins texts, ``"message"`` joins chunks to a Message, ``"list"`` keeps all values,
            ``"last"`` keeps the last one. A function gets the list of all values, and returns the answer.

    Errors: those of the stage, and those that the function `adds_up` raises.

    Raises:
        MisuseError: `operator` is not callable, or `adds_up` is something else.
    """
    if not callable(cast("object", operator)):
        raise MisuseError(f"stage takes an operator, such as ops.map(f), not {type(operator).__name__}.")
    if is_factory(operator):
        name = getattr(operator, "__name__", "")
        raise MisuseError(
            f"stage takes an operator, but {name} is a function that makes one. Call it first: {name}(…)."
        )
    fold = FOLDS.get(adds_up) if isinstance(adds_up, str) else None
    if fold is None and not callable(adds_up):
        raise MisuseError(
            f'adds_up must be "text", "message", "list", "last" or a function of all values, not {shown(adds_up)}.'
        )
    return Operator(operator, fold or Fold(cast("Any", adds_up)), stage, (operator,), {"adds_up": adds_up})
