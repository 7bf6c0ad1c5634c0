"""The record of an answer that another library keeps: `echo_of`, and `restored`.

Vendors require signatures, ids and encrypted reasoning back with the next request. The messages of other libraries have
no place for all of these, but one for data of the provider. An adapter keeps the record of the answer there, and takes
the answer from it when the message comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..misuse import MisuseError, is_mapping
from ..values.message import Message
from ..values.parts import Part, RefusalPart, TextPart, ToolCallPart

__all__ = ["ECHO", "echo_of", "restored"]

ECHO = "rxllm"
"""The name under which the other library keeps the record."""


def echo_of(answer: Message) -> dict[str, Any] | None:
    """Return the record of an answer; None if its texts and its calls are all that it has."""
    return None if all(map(_is_plain, answer.parts)) else Message("assistant", answer.parts).to_json()


def restored(record: object, text: str, calls: Iterable[str]) -> Message | None:
    """Return the answer of a record.

    Args:
        record: the record; anything else gives None.
        text: the text of the message that kept the record. If a program has edited it, the record does not count.
        calls: the ids of the message's calls. An agent's own calls may be missing.
    """
    if not is_mapping(record):
        return None
    try:
        answer = Message.from_json(record)
    except MisuseError:  # a later version of rxllm wrote it, or another program
        return None
    said = "".join(part.text for part in answer.parts if isinstance(part, (TextPart, RefusalPart)))
    is_whole = text == said and {*calls} <= {call.id for call in answer.tool_calls}
    return answer if is_whole else None


def _is_plain(part: Part) -> bool:
    if isinstance(part, TextPart):
        return not (part.signature or part.extra or part.citations)
    return isinstance(part, ToolCallPart) and not (part.signature or part.extra)
