"""Mistral's form of chat messages. Its API answers 422 to every field that it does not know.

Source: https://docs.mistral.ai/api/endpoint/chat, and the request types of the package mistralai.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..misuse import MisuseError
from ..values.parts import ReasoningPart

__all__ = ["MAKER", "mistral_turns", "thinking"]

MAKER = "mistral_ai"


def thinking(part: ReasoningPart) -> dict[str, Any]:
    """Return the content item for reasoning, which stands among the texts."""
    signed = {"signature": part.signature} if part.signature else {}
    return {"type": "thinking", "thinking": [{"type": "text", "text": part.text}], **signed}


def mistral_turns(turns: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages of a conversation in Mistral's form.

    A conversation may end with an answer that the model continues. Mistral refuses it unless it is marked as a prefix.
    It refuses a message of the user after the results of tools, too, so a short answer is put between them.
    Source: https://github.com/zed-industries/zed/pull/31736

    Raises:
        MisuseError: an answer has an image, for which the protocol has no place.
    """
    fit: list[dict[str, Any]] = []
    for turn in map(_turn, turns):
        if turn["role"] == "user" and fit and fit[-1]["role"] == "tool":
            fit.append({"role": "assistant", "content": "Understood."})
        fit.append(turn)
    if fit and fit[-1]["role"] == "assistant" and "tool_calls" not in fit[-1]:
        fit[-1].setdefault("prefix", True)
    return fit


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    fit = {name: value for name, value in turn.items() if name != "name" or turn["role"] == "tool"}
    if "images" in fit:
        raise MisuseError("Mistral takes no image in an assistant message. Send the image in a user message instead.")
    if isinstance(fit.get("content"), list):
        fit["content"] = [_item(item) for item in fit["content"]]
    return fit


def _item(item: Mapping[str, Any]) -> Mapping[str, Any]:
    match item:
        case {"type": "input_audio", "input_audio": {"data": data}}:
            return {"type": "input_audio", "input_audio": data}
        case {"type": "file", "file": {"file_id": identity}}:
            return {"type": "file", "file_id": identity}
        case {"type": "file", "file": {"filename": name, "file_data": place}}:
            return {"type": "document_url", "document_url": place, "document_name": name}
        case _:
            return item
