"""LangChain's content blocks as rxllm's parts: the standard ones, and content dicts in the forms of vendors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import attrs
import msgspec

from ...misuse import MisuseError, is_mapping
from ...values.content import Fields, file_of_url
from ...values.parts import (
    MAKER,
    CachePoint,
    FilePart,
    Outcome,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    parts_of,
)
from ...values.persisted import part_of_record
from .blocks import FILES, Block

__all__ = ["parts_of_block"]

_RECORDS = ("pending", "approval", "cache_point")  # the types of parts that only rxllm knows


def parts_of_block(
    item: object, provider: str | None, calls: list[ToolCallPart] | None = None, *, is_answer: bool = False
) -> Iterator[Part]:
    """Yield the parts of an item of a message's content.

    Args:
        item: text, a standard block of LangChain, or a content dict in the form of OpenAI or Anthropic.
        provider: the name of the vendor that made the content; of a file with an id, the vendor that stores it.
        calls: the tool calls of the message, from which each is taken at its block.
        is_answer: whether a model made the content. Then fields that no part can carry are left out, because they are
            for another vendor.

    Raises:
        MisuseError: the block is of an unknown type, or has a field that no part can carry.
    """
    kind = item.get("type") if is_mapping(item) else None
    if not is_mapping(item) or (kind not in _READERS and kind not in _CALLS) or item.keys() & _OF_VENDORS:
        yield from parts_of(item)
        return
    if kind in _CALLS:
        yield from _taken(calls or [], item)
        return
    fields = Fields(item, f"a content block of the type {kind!r}")
    extras = fields.fields("extras") if fields.rest.get("extras") else Fields({}, "no extras")
    del fields.rest["type"]
    fields.rest.pop("index", None)
    control = fields.rest.pop("cache_control", None) or extras.rest.pop("cache_control", None)
    yield _READERS[kind](fields, extras, provider)
    if control is not None:
        yield CachePoint(control.get("ttl"))
    if not is_answer:
        fields.end()
        extras.end()


# The blocks of calls, in LangChain's, Anthropic's and OpenAI's words. AIMessage has its calls in `tool_calls`.
_CALLS = ("tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "function_call", "input_json_delta")
_OF_VENDORS = {"source", "file", "citations"}  # fields by which a block is in the form of OpenAI or Anthropic


def _taken(calls: list[ToolCallPart], block: Mapping[str, Any]) -> Iterator[Part]:
    """Take the call of a block from the calls. Only its place and its further facts are in the block."""
    found = next((call for call in calls if call.id == (block.get("id") or block.get("call_id") or "")), None)
    if found is not None:
        calls.remove(found)
        facts = _facts(Fields(block.get("extras") or {}, "extras"), None)
        yield attrs.evolve(found, **facts)


def _facts(extras: Fields, provider: str | None) -> Block:
    """Take the fields that the maker of a part requires back."""
    signature = extras.optional("signature")
    signature = extras.optional("encrypted_content") or signature  # as ChatOpenAI names it
    maker = extras.optional("provider") or (provider if signature else None)
    return {"signature": signature, "provider": maker, "extra": extras.rest.pop("extra", None)}


def _text_of(fields: Fields, extras: Fields, provider: str | None) -> Part:
    fields.rest.pop("id", None)
    citations = [_citation_of(annotation) for annotation in fields.items("annotations")]
    return TextPart(fields.text("text", ""), citations, **_facts(extras, provider))


def _citation_of(annotation: Mapping[str, Any]) -> Mapping[str, Any]:
    value = annotation.get("value")
    return value if annotation.get("type") == "non_standard_annotation" and is_mapping(value) else annotation


def _reasoning_of(fields: Fields, extras: Fields, provider: str | None) -> Part:
    facts = _facts(extras, provider)
    facts["provider"] = facts["provider"] or provider
    return ReasoningPart(fields.text("reasoning", ""), id=fields.optional("id"), **facts)


def _refusal_of(fields: Fields, extras: Fields, provider: str | None) -> Part:
    fields.rest.pop("id", None)
    return RefusalPart(fields.text("refusal"))


def _file_of(any_type: str, fields: Fields, extras: Fields, provider: str | None) -> Part:
    media_type = fields.optional("mime_type") or any_type
    names = [extras.optional("filename"), extras.optional("name"), fields.optional("filename"), fields.optional("name")]
    facts: Block = {name: extras.optional(name) for name in ("detail", "context", "signature")}
    facts["title"] = extras.optional("title") or fields.optional("title")
    facts["name"] = next(filter(None, names), None)
    facts["citable"] = extras.flag("citable")
    stored_by = extras.optional("provider") or provider
    data, url = fields.optional("base64"), fields.optional("url")
    identity, block_id = fields.optional("file_id"), fields.optional("id")
    identity = block_id if data is url is identity is None else identity
    if data is url is identity is None:
        raise MisuseError(f"{fields.what.capitalize()} needs a 'base64', a 'url' or a 'file_id'.")
    if identity is not None:
        facts.update(file_id=identity, provider=stored_by)
    if data is not None:
        url = f"data:{media_type};base64,{data}"
    return FilePart(media_type, **facts) if url is None else file_of_url(url, media_type, **facts)


def _plain_text_of(fields: Fields, extras: Fields, provider: str | None) -> Part:
    fields.rest.pop("id", None)
    media_type = fields.text("mime_type", "text/plain")
    title, context = fields.optional("title"), fields.optional("context")
    return FilePart(media_type, fields.text("text").encode(), title=title, context=context)


def _server_call_of(fields: Fields, extras: Fields, provider: str | None) -> Part:
    written, arguments = extras.optional("arguments"), fields.rest.pop("args", None)
    if not isinstance(arguments, str):
        arguments = written or msgspec.json.encode(arguments or {}).decode()
    return ToolCallPart(fields.text("id", ""), fields.text("name", ""), arguments, **_facts(extras, provider))


def _server_result_of(fields: Fields, extras: Fields, provider: str | None) -> Part:
    output, status = fields.rest.pop("output", ""), fields.text("status", "success")
    fields.rest.pop("id", None)
    if isinstance(output, list):
        items = cast("list[object]", output)
        content: object = [part for item in items for part in parts_of_block(item, provider, is_answer=True)]
    else:
        content = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    outcome = cast("Outcome", extras.text("outcome", "error" if status == "error" else "ok"))
    return ToolResultPart(fields.text("tool_call_id"), content, outcome, extras.text("name", ""))


def _non_standard_of(fields: Fields, extras: Fields, provider: str | None) -> Part:
    value, maker = fields.fields("value").rest, extras.optional("provider")
    fields.rest.pop("id", None)
    if maker == MAKER and value.get("type") in _RECORDS:
        return part_of_record(value)
    if (maker or provider) is None:
        [part] = parts_of(value)
        return part
    return RawPart(maker or provider or "", value)


_READERS: Mapping[object, Callable[[Fields, Fields, str | None], Part]] = {
    "text": _text_of,
    "reasoning": _reasoning_of,
    "refusal": _refusal_of,
    **{kind: partial(_file_of, any_type) for kind, any_type in FILES.items()},
    "text-plain": _plain_text_of,
    "server_tool_call": _server_call_of,
    "server_tool_call_chunk": _server_call_of,  # in a message that LangChain has joined without `output_version="v1"`
    "server_tool_result": _server_result_of,
    "non_standard": _non_standard_of,
}
