"""rxllm's messages as LangChain's: the prompt for a model of LangChain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, ToolMessage

from ...misuse import MisuseError, shown
from ...values.message import Message
from ...values.parts import (
    Approval,
    CachePoint,
    Part,
    Pending,
    RawPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    text_of,
)
from .answers import V1, message_of
from .blocks import Block, block_of, result_content
from .vendors import langchain_name

__all__ = ["langchain_messages"]


def langchain_messages(messages: Iterable[Message], provider: str | None) -> list[BaseMessage]:
    """Return a conversation as LangChain's messages.

    Args:
        messages: the conversation.
        provider: rxllm's name of the vendor that gets it. Data of another vendor that only that vendor
            understands is left out: reasoning, signatures, raw parts.

    Raises:
        MisuseError: LangChain has no counterpart of a part.
    """
    return [each for message in messages for each in _converted(message, provider)]


def _converted(message: Message, provider: str | None) -> Iterator[BaseMessage]:
    if message.role == "assistant":
        yield _answer(message, provider)
        return
    rest: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            status: Any = "error" if part.is_error else "success"
            content: Any = result_content(part)
            yield ToolMessage(content, tool_call_id=part.id, name=part.name or None, status=status)
        else:
            rest.append(part)
    kind = SystemMessage if message.role == "system" else HumanMessage
    if rest or not message.parts:
        yield kind(_content(rest, provider), name=message.name)


def _answer(message: Message, provider: str | None) -> BaseMessage:
    kept = [_without_foreign(part, provider) for part in message.parts if _is_known(part, provider)]
    answer = message_of(attrs.evolve(message, parts=kept, usage=None))
    if isinstance(answer.content, list):  # the vendors' packages read their own reasoning only
        answer.response_metadata = {**V1, "model_provider": langchain_name(provider)}
    return answer


def _is_known(part: Part, provider: str | None) -> bool:
    """Return whether the vendor understands a part."""
    if isinstance(part, (Pending, Approval)):
        raise MisuseError(f"LangChain has no counterpart of {shown(part)}. Settle approvals with an agent of rxllm.")
    if isinstance(part, (ReasoningPart, RawPart)):
        return part.provider == provider
    return not isinstance(part, CachePoint)


def _without_foreign(part: Part, provider: str | None) -> Part:
    """Return a part without what only another vendor understands."""
    if isinstance(part, (TextPart, ToolCallPart)) and part.provider not in (None, provider):
        return attrs.evolve(part, signature=None, provider=None, extra=None)
    return part


def _content(parts: Sequence[Part], provider: str | None) -> Any:
    """Return the content of a message that no model wrote: text, or blocks."""
    if all(type(part) is TextPart for part in parts):
        return text_of(parts, TextPart)
    blocks: list[Block] = []
    for part in parts:
        if not isinstance(part, CachePoint):
            if isinstance(part, ToolCallPart) or not _is_known(part, provider):
                raise MisuseError(f"A message of the user cannot have {shown(part)}.")
            blocks.append(block_of(part))
        elif blocks and provider == "anthropic":  # the other packages of vendors have no such mark
            blocks[-1]["cache_control"] = {"type": "ephemeral", **({"ttl": part.ttl} if part.ttl else {})}
    return blocks
