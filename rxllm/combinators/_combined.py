"""What all combinators share: models and pipelines made of others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

from attrs import frozen
from reactivex import Observable

from ..llm import LLM, asking
from ..misuse import MisuseError
from ..operators.answering import asked_for
from ..operators.attempts import Begin
from ..operators.observing import Identity, observed
from ..pipeline import Pipeline
from ..surface import Surface
from ..values.chunk import Chunk
from ..values.request import Prompt, Request

__all__ = []


In = TypeVar("In", contravariant=True)


Out = TypeVar("Out", covariant=True)


T = TypeVar("T")


Stage = Callable[[Any], Observable[T]]


class How(Protocol):
    """What a combinator does with those it is made of.

    Attributes:
        name: what its runs are called.
    """

    name: ClassVar[str]

    def __call__(self, begins: tuple[Begin[Any], ...], given: Any, /) -> Observable[Any]:
        """The stream for what was given, of those that each of them would make of it."""
        ...


@frozen
class CombinedLLM(LLM):
    """A model made of others."""

    of: tuple[Stage[Any], ...]
    how: How

    @property
    def streaming(self) -> Literal["native", "single emission"]:
        """As the first of them."""
        first = self.of[0] if self.of else None
        return first.streaming if isinstance(first, LLM) else "native"

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """As of every LLM."""
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        return _made(self, self.of, self.how, Request.ask(prompt, self.parameters))


@frozen
class CombinedPipeline(Pipeline[In, Out]):
    """A pipeline made of others."""

    how: How

    def __call__(self, prompt: In, /) -> Observable[Out]:
        """As of every Pipeline."""
        return _made(self, self.stages, self.how, prompt)


def _made(surface: Surface[Any, Any, Any], of: tuple[Stage[T], ...], how: How, given: Any) -> Observable[T]:
    def identity() -> Identity:
        return Identity(surface.run_name or how.name, "chain", surface.tags, surface.metadata, surface.handlers)

    made = how(tuple(functools.partial(stage, given) for stage in of), given)
    if isinstance(given, Request):
        return observed(asked_for(given, made), given.prompt, identity, surface.handlers)
    return observed(made, given, identity, surface.handlers)


def combined(how: How, *of: Stage[Any]) -> Any:
    """The model made of models, or the pipeline made of pipelines."""
    for stage in of:
        if not callable(cast("object", stage)):
            raise MisuseError(
                f"{how.name} takes models, pipelines and functions that return an Observable, not "
                f"{type(stage).__name__}: {stage!r:.60}."
            )
    if all(isinstance(stage, LLM) for stage in of):
        return CombinedLLM(of, how)
    return cast("Any", CombinedPipeline)(of, how)


def at_least_one(name: str, llms: tuple[Stage[Any], ...]) -> tuple[Stage[Any], ...]:
    """The models, which `name` needs one of."""
    if not llms:
        raise MisuseError(f"{name} needs at least one model.")
    return llms
