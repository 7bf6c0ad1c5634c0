"""An answer in the words of OpenAI's chat completions: usage, finish reasons, and the tool calls a client may see."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any

import msgspec

from ..errors import Interrupted
from ..misuse import MisuseError, shown
from ..values.chunk import Chunk, text_chunk
from ..values.message import Message
from ..values.parts import Part, ToolCallPart, ToolResultPart
from ..values.usage import Usage
from ..values.vocabulary import FinishReason

__all__ = ["VisibleCalls", "chunk_of", "finish_reason", "message_of", "new_id", "refuse_reset", "usage_counts"]

_json = msgspec.json.Encoder().encode


def new_id(prefix: str) -> str:
    """Return a random id, such as ``chatcmpl-…``."""
    return prefix + secrets.token_hex(12)


def usage_counts(usage: Usage) -> dict[str, Any]:
    """Return the counts under the names of chat completions. A count that no provider reported is 0."""
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_input_tokens or 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens or 0},
    }


def finish_reason(reason: FinishReason | None, *, calls: bool) -> str:
    """Return the finish reason in OpenAI's word. `calls` states whether the client got tool calls.

    An agent that stopped for a call of its own tools has no word there. `error` and `other` stay: a client must not
    take them for a normal end.
    """
    if calls:
        return "tool_calls"
    return "stop" if reason in (None, "tool_call") else reason


def chunk_of(item: object) -> Chunk:
    """Return an item of a model or a Pipeline as a chunk. Text is text; any other value is the text of its JSON."""
    if isinstance(item, (Chunk, str, Message)):
        return Chunk.of(item)
    try:
        return text_chunk(_json(item).decode())
    except TypeError:
        raise MisuseError(
            f"A served pipeline must emit text, chunks or values with a JSON form, not {shown(item)}."
        ) from None


def message_of(answer: object) -> Message:
    """Return the answer of a model or a Pipeline as a Message."""
    return answer if isinstance(answer, Message) else chunk_of(answer).message()


def refuse_reset() -> Interrupted:
    """Return the error for an answer that begins again, in a protocol that cannot take text back."""
    return Interrupted(
        "The model began its answer again after a part of it was sent, and this protocol cannot take text back."
    )


class VisibleCalls:
    """Picks the tool calls that a client may see: those of the tools that it sent.

    An agent answers its own calls. Servers give fragments of one call the same
    index, and only the first fragment has the id and the name.

    Attributes:
        count: how many calls the client was shown.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._open: dict[int, tuple[str, int | None]] = {}  # by index: the id, and the position that the client sees
        self.count = 0

    def see(self, part: Part) -> tuple[int, bool] | None:
        """Return the position of the call of a part, and whether the part opens the call; None if it stays hidden."""
        if isinstance(part, ToolResultPart):
            self._open.clear()
        if not isinstance(part, ToolCallPart):
            return None
        known = self._open.get(part.index)
        if known is not None and part.id in ("", known[0]):
            return None if known[1] is None else (known[1], False)
        position = self.count if part.name in self._names else None
        self._open[part.index] = (part.id, position)
        if position is None:
            return None
        self.count += 1
        return position, True
