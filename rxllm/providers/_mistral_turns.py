"""Mistral's form of chat messages. Its API answers 422 to every field that it does not know.

Source: https://docs.mistral.ai/api/endpoint/chat, and the request types of the package mistralai.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..misuse import MisuseError
from ..values.parts import ReasoningPart

__all__ = ["MAKER", "mistral_turn", "thinking"]

MAKER = "mistral_ai"


def thinking(part: ReasoningPart) -> dict[str, Any]:
    """Return the content item for reasoning, which stands among the texts."""
    signed = {"signature": part.signature} if part.signature else {}
    return {"type": "thinking", "thinking": [{"type": "text", "text": part.text}], **signed}


def mistral_turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat message in Mistral's form.

    Raises:
        MisuseError: the answer has an image, for which the protocol has no place.
    """
    fit = {name: value for name, value in turn.items() if name != "name" or turn["role"] == "tool"}
    if "images" in fit:
        raise MisuseError("Mistral takes no image in an assistant message. Send the image in a user message instead.")
    if isinstance(fit.get("content"), list):
        fit["content"] = [_item(item) for item in fit["content"]]
    return fit


def _item(item: Mapping[str, Any]) -> Mapping[str, Any]:
    match item:
        case {"type": "refusal", "refusal": text}:
            return {"type": "text", "text": text}
        case {"type": "input_audio", "input_audio": {"data": data}}:
            return {"type": "input_audio", "input_audio": data}
        case {"type": "file", "file": {"file_id": identity}}:
            return {"type": "file", "file_id": identity}
        case {"type": "file", "file": {"filename": name, "file_data": place}}:
            return {"type": "document_url", "document_url": place, "document_name": name}
        case _:
            return item
