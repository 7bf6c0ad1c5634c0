"""An answer in the form of OpenAI's chat completions: deltas, messages, usage, finish reasons.

Source: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from .content import location_of
from .message import Message
from .parts import FilePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from .usage import Usage
from .vocabulary import FinishReason

__all__ = ["ChatDeltas", "VisibleCalls", "chat_message", "finish_reason", "is_picture", "new_id", "usage_counts"]


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


def is_picture(part: FilePart) -> bool:
    """Return whether a file of an answer is a picture. The protocol has no place for other files."""
    return part.media_type.startswith("image/") and (part.data is not None or part.url is not None)


def _image(part: FilePart, index: int) -> dict[str, Any]:
    """Return a picture as an item of ``images``, a field that OpenAI's own models do not have. LiteLLM wants the index.

    Source: https://openrouter.ai/docs/features/multimodal/image-generation.
    """
    return {"type": "image_url", "image_url": {"url": part.url or location_of(part)}, "index": index}


class VisibleCalls:
    """Picks the tool calls that a client may see. An agent answers its own calls.

    Servers give fragments of one call the same index, and only the first fragment has the id and the name.

    Attributes:
        count: how many calls the client was shown.
    """

    def __init__(self, is_visible: Callable[[str], bool]) -> None:
        """Create the state of one answer. `is_visible` tells by a tool's name whether its calls are shown."""
        self._is_visible = is_visible
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
        position = self.count if self._is_visible(part.name) else None
        self._open[part.index] = (part.id, position)
        if position is None:
            return None
        self.count += 1
        return position, True


class ChatDeltas:
    """Writes the parts of a stream as deltas.

    Attributes:
        calls: the tool calls that the client sees.
    """

    def __init__(self, is_visible: Callable[[str], bool]) -> None:
        """Create the state of one answer; `is_visible` is that of `VisibleCalls`."""
        self.calls = VisibleCalls(is_visible)
        self._pictures = 0

    def of(self, part: Part) -> dict[str, Any] | None:
        """Return the delta of a part; None for a part that the client does not see."""
        seen = self.calls.see(part)
        if isinstance(part, TextPart) and part.text:
            return {"content": part.text}
        if isinstance(part, ReasoningPart) and part.text:
            return {"reasoning_content": part.text}
        if isinstance(part, RefusalPart):
            return {"refusal": part.text}
        if isinstance(part, FilePart) and is_picture(part):
            self._pictures += 1
            return {"images": [_image(part, self._pictures - 1)]}
        if not isinstance(part, ToolCallPart) or seen is None:
            return None
        position, opens = seen
        call: dict[str, Any] = {"index": position, "function": {"arguments": part.arguments}}
        if opens:
            call.update(id=part.id or new_id("call_"), type="function")
            call["function"] = {"name": part.name, "arguments": part.arguments}
        return {"tool_calls": [call]}


def chat_message(answer: Message, is_visible: Callable[[str], bool]) -> dict[str, Any]:
    """Return a whole answer; `is_visible` is that of `VisibleCalls`."""
    calls = [call for call in answer.tool_calls if is_visible(call.name)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if calls or answer.refusal else ""),
        "refusal": answer.refusal or None,
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if pictures := [part for part in answer.parts if isinstance(part, FilePart) and is_picture(part)]:
        message["images"] = [_image(picture, index) for index, picture in enumerate(pictures)]
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id or new_id("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    return message
