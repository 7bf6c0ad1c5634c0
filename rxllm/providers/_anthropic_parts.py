"""Readers for the blocks, the end and the token counts of Anthropic's responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from ..bounds import CALLS, CITATIONS, PARTS
from ..values.parts import Part, RawPart, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..wire.weights import check_weight
from ._content import bounded
from ._documents import arguments_of, count, identity_of, list_of, object_of, text_of
from ._ids import call_name_of
from ._limits import Limits

__all__ = [
    "ENDINGS",
    "Block",
    "call_of",
    "end_of",
    "parts_of",
    "parts_of_block",
    "totals_of",
    "whole_usage",
]

_WHOLE_TEXTS = ("signature", "encrypted_content")  # of these texts, a later one replaces the one before
_CALL_FIELDS = ("type", "id", "name", "input")
ENDINGS = {"stop_details": "refusal", "container": "container"}
"""The fields with which an answer ends, and the types of their raw parts. The protocol has no blocks of these types."""


class Block:
    """An incomplete block: a call, whose arguments are emitted as they arrive, or a raw block, which is collected.

    Growing texts are kept as lists of pieces and joined once, so that reading a block takes time linear in its size.
    """

    __slots__ = ("citations", "data", "has_arguments", "limits", "size", "texts", "values")

    def __init__(self, data: dict[str, Any], limits: Limits, values: int = 0) -> None:
        self.data = data
        self.limits = limits
        self.has_arguments = False
        self.citations: list[object] = []
        self.texts: dict[str, list[str]] = {}
        self.size = 0
        self.values = values  # as the decoder's tally counts them

    def add(self, delta: dict[str, Any], size: int) -> None:
        """Add a delta to a raw block; `size` is the size of the delta's event in bytes."""
        self.size += size
        self.limits.check_size(self.size, "A block")
        for name, value in delta.items():
            if name == "citation":  # a citations_delta brings one citation of the list
                self.citations.append(value)
            elif name == "partial_json" and isinstance(value, str):
                self.texts.setdefault(name, []).append(value)
            elif name != "type":
                before = self.data.get(name)
                if isinstance(before, str) and isinstance(value, str) and name not in _WHOLE_TEXTS:
                    self.texts.setdefault(name, [before]).append(value)
                else:
                    self.data[name] = value
                    self.texts.pop(name, None)

    def close(self, index: int) -> Part | None:
        """Return the part of a raw block, or the arguments of a call without pieces; else None."""
        if self.data.get("type") == "tool_use":
            arguments = None if self.has_arguments else arguments_text(self.data.get("input"))
            return None if arguments is None else ToolCallPart(arguments=arguments, index=index)
        text = "".join(self.texts.pop("partial_json", ()))
        if text:
            check_weight(text.encode(), self.limits.values)
            self.data["input"] = arguments_of(text)
        self.data.update({name: "".join(pieces) for name, pieces in self.texts.items()})
        if self.citations:
            self.data["citations"] = [*list_of(self.data.get("citations")), *self.citations]
        return RawPart("anthropic", self.data)


def parts_of(content: object) -> list[Part]:
    """Return the parts of the content of a message: a list of complete blocks, or a text, which some gateways send."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list_of(content)
    parts: list[Part] = []
    for index, block in enumerate(bounded(blocks, PARTS, "parts")):
        parts += parts_of_block(index, object_of(block), apart=bool(parts) and isinstance(parts[-1], TextPart))
    bounded([part for part in parts if isinstance(part, ToolCallPart)], CALLS, "tool calls")
    return parts


def parts_of_block(index: int, block: dict[str, Any], *, apart: bool) -> list[Part]:
    """Return the part for a complete block; nothing for an empty text or thinking block.

    `apart` says that the block follows a text block, so its text must not be joined to that text.
    """
    match block.get("type"):
        case "text":
            text, items = text_of(block.get("text")), list_of(block.get("citations"))
            citations = filter(None, map(object_of, bounded(items, CITATIONS, "citations")))
            return [TextPart(text, citations, index if apart else None)] if text or items else []
        case "thinking":
            text, signature = text_of(block.get("thinking")), text_of(block.get("signature")) or None
            return [ReasoningPart(text, signature, index, provider="anthropic")] if text or signature else []
        case "tool_use":
            return [call_of(block, arguments_text(block.get("input")), index)]
        case _:
            return [RawPart("anthropic", block)] if block else []


def call_of(block: dict[str, Any], arguments: str, index: int) -> ToolCallPart:
    """Return the part for a call. The API requires its further fields back, such as the caller of a call by code."""
    extra = {name: value for name, value in block.items() if name not in _CALL_FIELDS and value is not None} or None
    provider = "anthropic" if extra else None
    identity, name = identity_of(block.get("id")), call_name_of(block.get("name"))
    return ToolCallPart(identity, name, arguments, index, provider=provider, extra=extra)


def arguments_text(value: object) -> str:
    """Return the arguments of a call as JSON text. The API sends an object or pieces of text, gateways send either."""
    return value if isinstance(value, str) else msgspec.json.encode(value or {}).decode()


def end_of(fields: Mapping[str, Any]) -> list[Part]:
    """Return the parts for the fields with which an answer ends: the details of a refusal, and the container.

    The container is the place where Claude's code runs. The API requires its id in the next request if the code waits
    for a tool of the program, see `container_of`.
    """
    parts: list[Part] = []
    for name, kind in ENDINGS.items():
        if details := object_of(fields.get(name)):
            parts.append(RawPart("anthropic", {**details, "type": kind}))
    return parts


def whole_usage(counts: Usage | None) -> Usage | None:
    """Return the usage with cached tokens included in `input_tokens`, as in `Usage`; the protocol counts them apart."""
    if counts is None or counts.input_tokens is None:
        return counts
    cached = _cached_in(counts)
    return attrs.evolve(counts, input_tokens=counts.input_tokens + cached) if cached else counts


def totals_of(document: object, before: Usage | None = None) -> Usage | None:
    """Return the totals after a usage document; None if it has no counts. `before` are the totals before it.

    ``message_delta`` has totals, too, and leaves out those that have not changed. Some servers count the prompt only at
    the start, and write zeros at the end. DashScope counts the whole prompt at the start, and says only at the end how
    much of it was cached.
    Source: https://github.com/jeremychone/rust-genai/issues/258
    """
    if not object_of(document):
        return None
    counts = Usage(
        input_tokens=count(document, "input_tokens"),
        output_tokens=count(document, "output_tokens"),
        cache_read_input_tokens=count(document, "cache_read_input_tokens"),
        cache_creation_input_tokens=count(document, "cache_creation_input_tokens"),
        reasoning_output_tokens=count(document, "output_tokens_details", "thinking_tokens"),
    )
    if before is None:
        return counts
    cached = _cached_in(counts)
    if cached and not _cached_in(before):
        if counts.input_tokens is None and before.input_tokens:
            counts = counts.updated(Usage(input_tokens=max(0, before.input_tokens - cached)))
    elif counts.input_tokens == 0 and before.input_tokens:
        counts = Usage(output_tokens=counts.output_tokens, reasoning_output_tokens=counts.reasoning_output_tokens)
    return before.updated(counts)


def _cached_in(counts: Usage) -> int:
    """Return the number of tokens that the server read from its cache or wrote to it."""
    return (counts.cache_read_input_tokens or 0) + (counts.cache_creation_input_tokens or 0)
