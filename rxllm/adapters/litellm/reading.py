"""The calls of LiteLLM, which have the form of chat completions, as requests of rxllm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...misuse import is_mapping, is_text
from ...values.chat_body import CHAT_PARAMETERS, message_in, parameters_in
from ...values.message import Message
from ...values.request import Request
from .._echo import ECHO, restored

__all__ = ["request_of"]

_NAMES = {**CHAT_PARAMETERS, "top_k": "top_k"}
_OF_LITELLM = ("extra_body", "stream", "stream_options")  # LiteLLM itself acts on them


def request_of(messages: Iterable[Any], parameters: Mapping[str, Any], *, stream: bool) -> Request:
    """Return the request of a call. A parameter that rxllm does not have is a field of the body.

    Args:
        messages: the conversation.
        parameters: the parameters under the names of OpenAI.
        stream: whether the answer streams.

    Raises:
        MisuseError: rxllm cannot carry a message or a parameter.
    """
    known = parameters_in(parameters, _NAMES)
    extra = {name: value for name, value in parameters.items() if name not in _NAMES and name not in _OF_LITELLM}
    if extra.get("n") == 1:
        del extra["n"]
    if is_mapping(body := parameters.get("extra_body")):
        extra |= body
    if extra:
        known["extra"] = extra
    if not stream:
        known["stream"] = False
    return Request(prompt=tuple(map(_message, messages)), **known)


def _message(item: Any) -> Message | Mapping[str, Any]:
    fields = message_in(item)
    if fields.get("role") != "assistant":
        return fields
    return _kept(fields) or _answer(fields)


def _kept(fields: Mapping[str, Any]) -> Message | None:
    """Return the answer of rxllm that a message of LiteLLM was; None for any other message."""
    kept, text = fields.get("provider_specific_fields"), fields.get("content") or fields.get("refusal") or ""
    if not is_mapping(kept) or not is_text(text):
        return None
    return restored(kept.get(ECHO), text, [call["id"] for call in fields.get("tool_calls") or ()])


def _answer(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an answer without LiteLLM's own fields. The thoughts that a vendor has signed become content."""
    signed = [*_signed(fields.get("thinking_blocks") or ())]
    own = {"provider_specific_fields", "thinking_blocks", *(["reasoning_content"] if signed else ())}
    answer = {name: value for name, value in fields.items() if name not in own}
    if signed:
        content = answer.get("content") or ()
        answer["content"] = [*signed, *([{"type": "text", "text": content}] if is_text(content) else content)]
    return answer


def _signed(blocks: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the thoughts that another model of LiteLLM has signed, without the fields that LiteLLM adds."""
    for block in blocks:
        if block.get("signature") or block.get("type") == "redacted_thinking":
            yield {name: block[name] for name in ("type", "thinking", "signature", "data") if block.get(name)}
