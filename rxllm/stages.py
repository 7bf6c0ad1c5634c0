"""Facts about a stage of a pipeline: its name, the model that it is, and its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, cast

from .graph import Graph, Kind
from .operators.stage import Operator
from .showing import made_by, shown_call, shown_code
from .surface import Surface
from .values.parameters import Settings

__all__ = ["graph_of", "graph_of_parts", "has_model", "name_of", "with_parameters"]


Stage = Callable[[Any], Any]


def has_model(stage: object) -> bool:
    """Return whether parameters apply to a model in the stage."""
    surface = _surface_of(stage)
    return surface is not None and surface._has_model  # pyright: ignore[reportPrivateUsage]


def with_parameters(stage: Stage, parameters: Settings) -> Stage:
    """Return a copy of the stage with these parameters; the stage itself if it has no model."""
    surface = _surface_of(stage)
    if surface is None or not has_model(surface):
        return stage
    bound = surface.bind(**parameters)
    return bound if surface is stage else getattr(bound, cast("MethodType", stage).__name__)


def name_of(stage: object) -> str:
    """Return the name of a function, or the name of the stage's class."""
    return shown_code(stage) if hasattr(stage, "__qualname__") else type(stage).__name__


def graph_of(stage: object) -> Graph:
    """Return what a stage consists of. The parts of an operator are the models in its arguments."""
    surface = _surface_of(stage)
    if surface is not None:
        return surface.graph()
    name, arguments = _call_of(stage) or made_by(stage) or ("", [])
    graphs = [(graph_of(each), _surface_of(each) is not None) for each in arguments]
    with_models = tuple(("", graph) for graph, is_model in graphs if is_model or graph.parts)
    if not with_models:
        return Graph(shown_code(stage))
    if name == "compose":
        return Graph(name, "sequence", tuple(("", graph) for graph, _ in graphs))
    return Graph(name, "parallel", with_models)


def graph_of_parts(
    name: str, surface: Surface[Any, Any, Any], kind: Kind, parts: Iterable[tuple[str, object]], *arguments: str
) -> Graph:
    """Return the graph of a model or pipeline that the call `name` made of named parts and other arguments."""
    label = shown_call(name, arguments, surface).removesuffix("()")
    return Graph(label, kind, tuple((key, graph_of(part)) for key, part in parts))


def _call_of(stage: object) -> tuple[str, list[object]] | None:
    """Return the name and the arguments of the call that made an operator of rxllm; None for anything else."""
    if not isinstance(stage, Operator):
        return None
    factory, placed, named = stage.__reduce__()[1]
    return factory.__name__, [*placed, *named.values()]


def _surface_of(stage: object) -> Surface[Any, Any, Any] | None:
    """Return the model or pipeline that a stage is, or whose method a stage is, such as ``llm.answer``."""
    owner: object = stage.__self__ if isinstance(stage, MethodType) else stage
    return owner if isinstance(owner, Surface) else None  # pyright: ignore[reportUnknownVariableType]
