"""LangChain's messages as rxllm's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.block_translators import get_translator

from ...misuse import MisuseError, shown
from ...values.message import Message
from ...values.parts import Outcome, Part, ReasoningPart, RefusalPart, ToolCallPart, ToolResultPart
from ...values.usage import Usage
from ...values.vocabulary import FinishReason, finish_of
from .parts import parts_of_block
from .vendors import rxllm_name

__all__ = ["answer_of", "content_of", "id_of", "messages_of", "named", "outcome_of", "prompt_of", "usage_of"]

_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}


def prompt_of(messages: Sequence[BaseMessage], provider: str | None = None) -> str | list[Message]:
    """Return the prompt for LangChain's messages. One text of the user is a text, as completion models need it.

    Args:
        messages: the messages.
        provider: the name of the vendor that gets them; it stores the files that have only an id.

    Raises:
        MisuseError: a message or a block of content has no counterpart.
    """
    if len(messages) == 1 and type(messages[0]) is HumanMessage and messages[0].name is None:
        content = messages[0].content
        if isinstance(content, str):
            return content
    return messages_of(messages, provider)


def messages_of(messages: Iterable[BaseMessage], provider: str | None = None) -> list[Message]:
    """Return LangChain's messages as rxllm's; see `prompt_of`."""
    return [_message_of(message, provider) for message in messages]


def _message_of(message: BaseMessage, provider: str | None) -> Message:
    if isinstance(message, AIMessage):
        return answer_of(message)
    parts = _parts(message.content, provider)
    if isinstance(message, ToolMessage):
        outcome: Outcome = "error" if message.status == "error" else "ok"
        return Message("tool", [ToolResultPart(message.tool_call_id, parts, outcome, message.name or "")])
    if isinstance(message, SystemMessage):
        return Message("system", parts, name=message.name)
    if isinstance(message, HumanMessage):
        return Message("user", parts, name=message.name)
    role = _ROLES.get(message.role) if isinstance(message, ChatMessage) else None
    if role is None:
        raise MisuseError(f"rxllm has no counterpart of this message: {shown(message)}.")
    return Message(cast("Any", role), parts, name=message.name)


def _parts(content: str | list[str | dict[Any, Any]], provider: str | None) -> list[Part]:
    items = [content] if isinstance(content, str) else content
    return [part for item in items for part in parts_of_block(item, provider)]


def answer_of(message: AIMessage) -> Message:
    """Return an answer of a model of LangChain, or one of rxllm that LangChain has kept."""
    metadata = message.response_metadata
    provider = rxllm_name(named(metadata, "model_provider"))
    calls = [_call_of(call.get("id"), call.get("name"), call.get("args")) for call in message.tool_calls]
    calls += [_call_of(call.get("id"), call.get("name"), call.get("args")) for call in message.invalid_tool_calls]
    parts: list[Part] = []
    if thought := named(message.additional_kwargs, "reasoning_content"):
        parts.append(ReasoningPart(thought, provider=provider))
    for item in content_of(message):
        parts += parts_of_block(item, provider, calls, is_answer=True)
    if refusal := named(message.additional_kwargs, "refusal"):
        parts.append(RefusalPart(refusal))
    parts += calls  # those without a block
    reason, raw = outcome_of(metadata, has_calls=any(isinstance(part, ToolCallPart) for part in parts))
    return Message(
        "assistant",
        parts,
        usage=usage_of(message.usage_metadata),
        finish_reason=reason,
        raw_finish_reason=raw,
        model=named(metadata, "model_name", "model"),
        id=id_of(message),
        provider=provider,
        name=message.name,
    )


def id_of(message: AIMessage) -> str | None:
    """Return the vendor's id of an answer. LangChain gives an id of its own to an answer without one."""
    identity = named(message.response_metadata, "id") or message.id
    return None if identity is None or identity.startswith(("lc_", "run-")) else identity


def content_of(message: AIMessage) -> Sequence[Any]:
    """Return the items of the content. LangChain translates the forms of the vendors that it knows."""
    if isinstance(message.content, str):
        return [message.content]
    vendor = named(message.response_metadata, "model_provider")
    if vendor is not None and get_translator(vendor) is not None:
        return message.content_blocks
    return message.content


def _call_of(identity: str | None, name: str | None, arguments: object) -> ToolCallPart:
    """Return a tool call; its arguments are JSON text, or a value that becomes JSON text."""
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return ToolCallPart(identity or "", name or "", text)


def outcome_of(metadata: dict[str, Any], *, has_calls: bool) -> tuple[FinishReason | None, str | None]:
    """Return why an answer ended, in rxllm's word and in the vendor's."""
    raw = named(metadata, "finish_reason", "stop_reason", "stopReason", "done_reason")
    reason = None if raw is None else finish_of(raw)
    # Ollama and Gemini say "stop" for a call, too.
    return "tool_call" if has_calls and reason in (None, "stop") else reason, raw


def named(fields: Mapping[str, Any], *names: str) -> str | None:
    """Return the first of these fields that is a text."""
    return next((value for name in names if (value := fields.get(name)) and isinstance(value, str)), None)


def usage_of(counts: UsageMetadata | None) -> Usage | None:
    """Return LangChain's counts. Its input tokens include those of a cache, as rxllm's do."""
    if counts is None:
        return None
    inputs, outputs = counts.get("input_token_details") or {}, counts.get("output_token_details") or {}
    return Usage(
        input_tokens=counts["input_tokens"],
        output_tokens=counts["output_tokens"],
        cache_read_input_tokens=inputs.get("cache_read"),
        cache_creation_input_tokens=inputs.get("cache_creation"),
        reasoning_output_tokens=outputs.get("reasoning"),
    )
