"""Modes of asking for a shape: the provider's own field, a forced tool call, or the prompt.

`plan_of` chooses the mode and writes the request. `rxllm.operators.shaping` undoes the changes that the mode makes in
the answer, so that the stages behind the model need not know the mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import msgspec
from attrs import frozen

from ..misuse import MisuseError
from ..values.message import Message
from ..values.parts import TextPart
from ..values.request import Request
from ..values.tools import ResponseSchema, ToolSpec
from .dialects import Dialect
from .shape import Shape
from .spelling import unused_name
from .writing import Unsuited, written

__all__ = ["Offer", "Plan", "plan_of"]


@frozen
class Offer:
    """One way in which a provider can answer in a shape.

    Attributes:
        mode: ``"native"`` for the field for a JSON schema, or ``"tool"`` for a forced call of a tool.
        dialect: what the mode takes of JSON schema.
        strict: what is sent as the schema's ``strict``; None sends nothing.
        alone: whether the provider can forbid several calls at once.
        by_name: whether the call is forced by the tool's name, because the provider has no word for any call.
        on_request: whether only a program that names the mode gets it.
    """

    mode: Literal["native", "tool"]
    dialect: Dialect
    strict: bool | None = None
    alone: bool = False
    by_name: bool = False
    on_request: bool = False


@frozen
class Plan:
    """The mode and the request for one shape.

    Attributes:
        request: the request without the shape.
        shape: the shape.
        mode: how the shape is asked for.
        tool: the name of the tool whose call is the answer.
    """

    request: Request
    shape: Shape[Any]
    mode: Literal["native", "tool", "prompted"]
    tool: str = ""


def plan_of(request: Request, offers: tuple[Offer, ...], name: str) -> Plan:
    """Return how a request with a shape is sent: by the first of the offers that loses nothing, else in the prompt.

    Args:
        request: the request; its `shape` is set.
        offers: what the provider can do, best first.
        name: of the model, for errors.

    Raises:
        MisuseError: the request has a response format, too; or it asks for a mode that the provider lacks or that
            would lose data.
    """
    shape = request.shape
    if shape is None:
        raise MisuseError("The request has no shape.")
    if request.response_format is not None:
        raise MisuseError("A request has either a shape or a response_format. The shape says what the format would.")
    mode = request.shape_mode or "auto"
    bare = attrs.evolve(request, shape=None, shape_mode=None)
    if mode != "prompted":
        reasons: list[str] = []
        for offer in offers:
            if mode != offer.mode and (mode != "auto" or offer.on_request):
                continue
            try:
                schema = written(shape.schema, offer.dialect)
            except Unsuited as reason:
                reasons.append(str(reason))
                continue
            return _native(bare, shape, schema, offer) if offer.mode == "native" else _tool(bare, shape, schema, offer)
        if mode != "auto":
            why = f"because {reasons[-1]}" if reasons else f"which {name} does not offer for this request"
            raise MisuseError(
                f"{shape!r} can't be asked for with shape_mode={mode!r}, {why}. Leave shape_mode out, or write "
                "shape_mode='prompted'."
            )
    return Plan(_prompted(bare, shape), shape, "prompted")


def _native(request: Request, shape: Shape[Any], schema: Mapping[str, Any], offer: Offer) -> Plan:
    form = ResponseSchema(schema, shape.name, strict=offer.strict)
    return Plan(attrs.evolve(request, response_format=form), shape, "native")


def _tool(request: Request, shape: Shape[Any], schema: Mapping[str, Any], offer: Offer) -> Plan:
    others = request.tools or ()
    taken = {tool.name for tool in others if isinstance(tool, ToolSpec)}
    name = unused_name("answer", taken)
    choice = request.tool_choice
    if choice not in (None, "auto", "required"):
        raise MisuseError(
            f"A shape that is asked for by a tool call can't have the tool_choice {choice!r}. Leave the tool_choice "
            "out, or write shape_mode='prompted'."
        )
    tool = ToolSpec(name, "Gives the answer. Call it once, when the answer is complete.", schema, strict=offer.strict)
    lowered = attrs.evolve(request, tools=(*others, tool), tool_choice=name if offer.by_name else "required")
    if offer.alone and request.parallel_tool_calls is None:
        lowered = attrs.evolve(lowered, parallel_tool_calls=False)
    return Plan(lowered, shape, "tool", name)


def _prompted(request: Request, shape: Shape[Any]) -> Request:
    """Return the request with the schema in its prompt: in the system's message, or behind a text."""
    schema = msgspec.json.encode(shape.schema).decode()
    asked = f"Answer with one JSON object that fits this JSON schema, and with nothing else:\n{schema}"
    if isinstance(request.prompt, str):
        return attrs.evolve(request, prompt=f"{request.prompt}\n\n{asked}")
    first, *others = request.prompt
    if first.role != "system":
        return attrs.evolve(request, prompt=(Message("system", asked), first, *others))
    told = attrs.evolve(first, parts=(*first.parts, TextPart(f"\n\n{asked}")))
    return attrs.evolve(request, prompt=(told, *others))
