"""`asked`: the models that take part in an answer, each with the request that it gets."""

from __future__ import annotations

from collections.abc import Iterator

from ..llm import LLM
from ..surface import stages_in
from ..values.parameters import Parameters
from ..values.request import Request

__all__ = ["Asked", "asked"]


def asked(stage: object, request: Request) -> Iterator[tuple[LLM, Request]]:
    """Yield each model in `stage` that consists of no others, and the request with the parameters bound on the way."""
    return Asked(stage).with_request(request)


class Asked:
    """The models in `stage` that consist of no others, for many requests."""

    def __init__(self, stage: object) -> None:
        self._leaves = [*_leaves(stage, ())]

    def with_request(self, request: Request) -> Iterator[tuple[LLM, Request]]:
        """Yield each model, and the request with the parameters bound on the way to it."""
        for leaf, bound in self._leaves:
            of_leaf = request
            for parameters in bound:
                of_leaf = of_leaf.over(parameters)
            yield leaf, of_leaf


def _leaves(stage: object, bound: tuple[Parameters, ...]) -> Iterator[tuple[LLM, tuple[Parameters, ...]]]:
    """Yield each model in `stage` that consists of no others, and the parameters on the way to it."""
    if isinstance(stage, LLM) and stage.parameters != _NONE:
        bound = (*bound, stage.parameters)
    parts = list(stages_in(stage))
    for part in parts:
        yield from _leaves(part, bound)
    if not parts and isinstance(stage, LLM):
        yield stage, bound


_NONE = Parameters()
