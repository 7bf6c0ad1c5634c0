"""rxllm's parts as LangChain's standard content blocks. `parts` has the other direction.

A block holds the fields of LangChain's own type. The block's ``extras`` hold the rest of a part under rxllm's names,
such as a signature and the name of the vendor that requires it back.

Source: ``langchain_core.messages.content``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from ...values.parts import (
    MAKER,
    FilePart,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ...values.persisted import part_record, plain_fields
from ...values.tools import unquoted

__all__ = ["FILES", "Block", "annotation_of", "arguments_of", "block_of", "facts_of", "result_content"]

Block = dict[str, Any]

FILES = {"image": "image/*", "audio": "audio/*", "video": "video/*", "file": "application/pdf"}
_FACTS = ("signature", "provider", "extra")  # the fields of a part that LangChain has no field for


def facts_of(part: Part) -> Block:
    """Return what a vendor requires back with a text, a thought or a call: its signature, its name, further fields."""
    if not isinstance(part, (TextPart, ReasoningPart, ToolCallPart)):
        return {}
    if part.signature is None and part.provider is None and part.extra is None:
        return {}
    return {name: fact for name, fact in plain_fields(part).items() if name in _FACTS}


def block_of(part: Part) -> Block:
    """Return the block of a whole part. The call of a tool is one that the model's own side has run."""
    match part:
        case TextPart():
            block: Block = {"type": "text", "text": part.text}
            if part.citations:
                block["annotations"] = [annotation_of(citation) for citation in part.citations]
            return _with_extras(block, facts_of(part))
        case ReasoningPart():
            block = {"type": "reasoning", "reasoning": part.text}
            if part.id is not None:
                block["id"] = part.id
            return _with_extras(block, facts_of(part))
        case RefusalPart():
            return {"type": "refusal", "refusal": part.text}
        case FilePart():
            return _file_block(part)
        case ToolCallPart():
            arguments = arguments_of(part.arguments)
            known = {"arguments": part.arguments} if arguments is None else {}  # not a JSON object
            call = {"type": "server_tool_call", "id": part.id, "name": part.name, "args": arguments or {}}
            return _with_extras(call, {**known, **facts_of(part)})
        case ToolResultPart():
            return _result_block(part)
        case RawPart():
            return {"type": "non_standard", "value": dict(part.data), "extras": {"provider": part.provider}}
        case _:
            return {"type": "non_standard", "value": part_record(part), "extras": {"provider": MAKER}}


def annotation_of(citation: Mapping[str, Any]) -> Block:
    """Return a citation, which is in a vendor's own form, as an annotation."""
    return {"type": "non_standard_annotation", "value": dict(citation)}


def arguments_of(text: str) -> dict[str, Any] | None:
    """Return the arguments of a call as a dict; None if they are not a JSON object."""
    try:
        return msgspec.json.decode(unquoted(text) or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return None


def _file_block(part: FilePart) -> Block:
    """Return the block of a file: its bytes as base64, its URL, or its id."""
    part = part.read()
    kind = part.media_type.partition("/")[0]
    block: Block = {"type": kind if kind in FILES else "file"}
    if part.data is not None:
        block["base64"] = base64.b64encode(part.data).decode()
    if part.url is not None:
        block["url"] = part.url
    if part.file_id is not None:
        block["file_id"] = part.file_id
    if "*" not in part.media_type:
        block["mime_type"] = part.media_type
    names = ("provider", "detail", "title", "context", "citable", "signature")
    extras = {name: fact for name, fact in plain_fields(part).items() if name in names}
    return _with_extras(block, {**({"filename": part.name} if part.name else {}), **extras})


def result_content(part: ToolResultPart) -> str | list[str | Block]:
    """Return the content of a tool's result: text, or a list of blocks."""
    if all(type(item) is TextPart for item in part.content):
        return part.text
    return [block_of(item) for item in part.content]


def _result_block(part: ToolResultPart) -> Block:
    status = "error" if part.is_error else "success"
    extras = {"name": part.name} if part.name else {}
    if part.outcome not in ("ok", "error"):
        extras["outcome"] = part.outcome
    block = {"type": "server_tool_result", "tool_call_id": part.id, "status": status, "output": result_content(part)}
    return _with_extras(block, extras)


def _with_extras(block: Block, extras: Mapping[str, Any]) -> Block:
    return {**block, "extras": dict(extras)} if extras else block
