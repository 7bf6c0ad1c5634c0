"""`asked`: the models that take part in an answer, each with the request that it gets."""

from __future__ import annotations

from collections.abc import Iterator

from ..llm import LLM
from ..surface import stages_in
from ..values.request import Request

__all__ = ["asked"]


def asked(stage: object, request: Request) -> Iterator[tuple[LLM, Request]]:
    """Yield each model in `stage` that consists of no others, and the request with the parameters bound on the way."""
    if isinstance(stage, LLM):
        request = request.over(stage.parameters)
    parts = list(stages_in(stage))
    for part in parts:
        yield from asked(part, request)
    if not parts and isinstance(stage, LLM):
        yield stage, request
