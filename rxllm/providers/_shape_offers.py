"""Modes in which servers of OpenAI's protocol can answer in a shape."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from ..misuse import MisuseError
from ..shapes.dialects import ANY, GRAMMAR, STRICT
from ..shapes.dialects import OPENAI as OPENAI_STRICT
from ..shapes.modes import Offer
from ..values.request import Request
from ..values.tools import ResponseSchema, ToolSpec
from ._fitting import check_support
from .compatible import OPENAI, Server

__all__ = ["shape_offers"]

# The models of OpenAI that are older than its structured outputs: https://platform.openai.com/docs/models
_WITHOUT_SCHEMAS = r"(ft:)?(gpt-3\.5.*|gpt-4|gpt-4-.*|gpt-4o-2024-05-13|o1-(mini|preview).*)"


def shape_offers(server: Server, request: Request, model: str, *, is_response: bool) -> Iterator[Offer]:
    """Yield the ways in which a server can answer a request in a shape, best first.

    Args:
        server: the server.
        request: the request.
        model: the name of its model.
        is_response: whether it goes by the Responses protocol, which takes a function for strict unless it says no.
    """
    bare = attrs.evolve(request, shape=None, shape_mode=None)
    schema = ResponseSchema({"type": "object"})
    is_able = not re.fullmatch(_WITHOUT_SCHEMAS, model)
    if is_able and _supports(server, attrs.evolve(bare, response_format=schema), model):
        if server.schemas == "grammar":
            yield Offer("native", GRAMMAR)
        else:
            yield Offer("native", OPENAI_STRICT if server is OPENAI else STRICT, strict=True)
            yield Offer("native", ANY, strict=False)
    tools = (*(request.tools or ()), ToolSpec("answer"))
    alone = "parallel_tool_calls" not in server.lacks
    strict = False if is_response else None
    if _supports(server, attrs.evolve(bare, tools=tools, tool_choice="required"), model):
        yield Offer("tool", ANY, strict=strict, alone=alone)
    elif len(tools) == 1 and _supports(server, attrs.evolve(bare, tools=tools, tool_choice="answer"), model):
        yield Offer("tool", ANY, strict=strict, alone=alone, by_name=True)


def _supports(server: Server, request: Request, model: str) -> bool:
    try:
        check_support(server, request, model)
    except MisuseError:
        return False
    return True
