"""The base of all combinators: models and pipelines that consist of others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, cast

from attrs import frozen
from reactivex import Observable
from typing_extensions import TypeVar

from ..graph import Graph, Kind
from ..llm import LLM
from ..misuse import MisuseError, shown
from ..operators.adding_up import BY_VALUE, MESSAGE, Fold, fold_of
from ..operators.answering import tracked
from ..operators.attempts import Begin
from ..operators.observing import Identity, observed
from ..operators.prompting import asking
from ..operators.reading import with_files
from ..pipeline import Pipeline
from ..showing import set_fields, shown_call, shown_code
from ..stages import graph_of_parts
from ..surface import Surface, stages_in
from ..values.chunk import Chunk
from ..values.parameters import Parameters
from ..values.request import Prompt, Request

__all__ = []


In = TypeVar("In", contravariant=True)


Out = TypeVar("Out", covariant=True)


Answer = TypeVar("Answer", covariant=True, default=Out)


T = TypeVar("T")


Stage = Callable[[Any], Observable[T]]


class How(Protocol):
    """The behaviour of a combinator.

    Attributes:
        name: the name of its runs.
    """

    name: ClassVar[str]

    def __call__(self, begins: tuple[Begin[Any], ...], prompt: Any, /) -> Observable[Any]:
        """Combine the streams that `begins` create into one stream for the prompt."""
        ...

    def identity(self, of: tuple[str, ...], /) -> str:
        """Compose the identity of the combined model from those of its models; see `LLM.identity`."""
        ...


@frozen
class CombinedLLM(LLM):
    """A model that consists of other models."""

    of: tuple[Stage[Any], ...]
    how: How

    def __repr__(self) -> str:
        return _shown(self, self.of, self.how)

    def _graph(self) -> Graph:
        return _graph(self, self.of, self.how)

    @property
    def streaming(self) -> bool:
        """Whether the first model emits chunks while it generates."""
        first = self.of[0] if self.of else None
        return first.streaming if isinstance(first, LLM) else True

    def identity(self) -> str:
        """The identity that the combinator composes from those of its models."""
        identity = self.how.identity(tuple(stage.identity() for stage in self.of if isinstance(stage, LLM)))
        return identity if self.parameters == Parameters() else self._digest({"of": None, "how": identity})

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """Return the cold Observable of the answer, as every LLM does."""
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        request = Request.ask(prompt, self.parameters)
        # The files are read here, so that all models and attempts get the same bytes.
        stream = with_files(request, functools.partial(_combine, self.how, self.of))
        return observed(stream, request.prompt, functools.partial(_identity, self, self.how), self.handlers, MESSAGE)


@frozen
class CombinedPipeline(Pipeline[In, Out, Answer]):
    """A pipeline that consists of other pipelines."""

    how: How

    def __repr__(self) -> str:
        return _shown(self, self.stages, self.how)

    def _graph(self) -> Graph:
        return _graph(self, self.stages, self.how)

    @property
    def _fold(self) -> Fold:
        """The fold of the stages, if all have the same one."""
        first, *others = {fold_of([stage]) for stage in self.stages}
        return BY_VALUE if others else first

    def _composed(self, prompt: In) -> Observable[Out]:
        return _combine(self.how, self.stages, prompt)

    def _identity(self) -> Identity:
        return _identity(self, self.how)


def _shown(surface: Surface[Any, Any, Any], of: tuple[Stage[Any], ...], how: How) -> str:
    return shown_call(how.name, [*map(shown_code, of), *_arguments(how)], surface)


def _arguments(how: How) -> Iterator[str]:
    return (f"{field.alias}={text}" for field, text in set_fields(how))


def _graph(surface: Surface[Any, Any, Any], of: tuple[Stage[Any], ...], how: How) -> Graph:
    kind: Kind = "alternatives" if of else "model"
    return graph_of_parts(how.name, surface, kind, (("", stage) for stage in of), *_arguments(how))


def _combine(how: How, of: tuple[Stage[T], ...], prompt: Any) -> Observable[T]:
    stream = how(tuple(functools.partial(stage, prompt) for stage in of), prompt)
    return tracked(prompt, stream) if isinstance(prompt, Request) else stream


def _identity(surface: Surface[Any, Any, Any], how: How) -> Identity:
    return Identity(surface.run_name or how.name, "chain", surface.tags, surface.metadata, surface.handlers)


def combined(how: How, *of: Stage[Any]) -> Any:
    """Combine models to a model, and anything else to a pipeline.

    Raises:
        MisuseError: a stage is not callable.
    """
    for stage in of:
        if not callable(cast("object", stage)):
            raise MisuseError(
                f"{how.name} takes models, pipelines and functions that return an Observable, not "
                f"{type(stage).__name__}: {shown(stage)}."
            )
    if all(isinstance(stage, LLM) for stage in of):
        return CombinedLLM(of, how)
    return cast("Any", CombinedPipeline)(of, how)


def model_of(begin: Begin[Any]) -> LLM:
    """The model whose stream `begin` creates."""
    return cast("LLM", cast("functools.partial[Any]", begin).func)


def parts_of(stage: object) -> Iterator[object]:
    """Yields a stage, and all models and stages in its fields."""
    yield stage
    for part in stages_in(stage):
        yield from parts_of(part)


def at_least_one(name: str, llms: tuple[Stage[Any], ...]) -> tuple[Stage[Any], ...]:
    """Check that the combinator `name` got at least one model.

    Raises:
        MisuseError: there is none.
    """
    if not llms:
        raise MisuseError(f"{name} needs at least one model, but got none.")
    return llms
