"""rxllm's whole answers as LangChain's messages. `generations` has the streams.

The content of an answer of text and tool calls is text, because every program of LangChain can read it. The content of
any other answer is a list of LangChain's standard blocks, and the metadata say so with ``output_version: "v1"``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from ...values.chunk import Chunk
from ...values.message import Message
from ...values.parts import Part, TextPart, ToolCallPart
from ...values.usage import Usage
from .blocks import Block, arguments_of, block_of, facts_of
from .vendors import langchain_name

__all__ = ["V1", "converted", "in_blocks", "is_plain", "message_of", "metadata_of", "usage_metadata"]

V1 = {"output_version": "v1"}


def message_of(answer: Message, *, model: str | None = None, own_tools: Collection[str] | None = None) -> AIMessage:
    """Return a whole answer as LangChain's message.

    Args:
        answer: the answer.
        model: the name of the model, for an answer without it.
        own_tools: for an agent, the names of the tools that the calling program runs. The calls of others, which the
            agent runs, are ``server_tool_call`` blocks. None for a model that runs no tools.
    """
    calls = [part for part in answer.tool_calls if own_tools is None or part.name in own_tools]
    open_calls: list[Block] = []
    invalid_calls: list[Block] = []
    for call in calls:
        arguments = arguments_of(call.arguments)
        named = {"name": call.name, "id": call.id or None}
        if arguments is None:
            sentence = "The arguments are not a JSON object."
            invalid_calls.append({**named, "args": call.arguments, "error": sentence, "type": "invalid_tool_call"})
        else:
            open_calls.append({**named, "args": arguments, "type": "tool_call"})
    metadata = metadata_of(answer, model)
    if all(is_plain(part) or (part in calls and not facts_of(part)) for part in answer.parts):
        content: Any = answer.text
    else:
        metadata.update(in_blocks(answer))
        content = [
            _call_block(part) if isinstance(part, ToolCallPart) and part in calls else block_of(part)
            for part in answer.parts
        ]
    return AIMessage(
        content,
        tool_calls=open_calls,
        invalid_tool_calls=invalid_calls,
        usage_metadata=usage_metadata(answer.usage),
        response_metadata=metadata,
        name=answer.name,
    )


def converted(value: Any, own_tools: Collection[str] | None) -> Any:
    """Return a value with LangChain's message for an answer; `own_tools` is that of `message_of`."""
    is_answer = isinstance(value, Message) and value.role == "assistant"
    return message_of(value, own_tools=own_tools) if is_answer else value


def is_plain(part: Part) -> TypeGuard[TextPart]:
    """Return whether a part is a text without further attributes."""
    return isinstance(part, TextPart) and not (part.citations or facts_of(part))


def _call_block(part: ToolCallPart) -> Block:
    """Return the block of a call that the calling program runs."""
    arguments, facts = arguments_of(part.arguments), facts_of(part)
    kind = "tool_call" if arguments is not None else "invalid_tool_call"
    block: Block = {"type": kind, "id": part.id, "name": part.name, "args": arguments or part.arguments}
    return {**block, "extras": facts} if facts else block


def metadata_of(answer: Message | Chunk, model: str | None = None) -> dict[str, Any]:
    """Return the metadata of an answer: why it ended (in the vendor's word, if it has one), model, id, logprobs."""
    facts = {
        "finish_reason": answer.raw_finish_reason or answer.finish_reason,
        "model_name": answer.model or model,
        "id": answer.id,
        "logprobs": None if answer.logprobs is None else dict(answer.logprobs),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def in_blocks(answer: Message | Chunk) -> dict[str, Any]:
    """Return the metadata of an answer whose content is blocks.

    They name the vendor, so that its own package of LangChain takes its reasoning back. With other content LangChain
    would translate the answer from that vendor's form.
    """
    vendor = langchain_name(answer.provider)
    return {**V1, **({} if vendor is None else {"model_provider": vendor})}


def usage_metadata(usage: Usage | None) -> UsageMetadata | None:
    """Return the counts in LangChain's form. A count that no provider reported is 0."""
    if usage is None or not usage.counts:
        return None
    inputs, outputs = usage.input_tokens or 0, usage.output_tokens or 0
    counts = UsageMetadata(input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs)
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    if details := _known({"cache_read": read, "cache_creation": written}):
        counts["input_token_details"] = details  # type: ignore[typeddict-item]
    if details := _known({"reasoning": usage.reasoning_output_tokens}):
        counts["output_token_details"] = details  # type: ignore[typeddict-item]
    return counts


def _known(counts: Mapping[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}
