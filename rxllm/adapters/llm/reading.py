"""`Reader`: the events of a response of `llm` as chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, cast

from ...errors import Interrupted
from ...misuse import MisuseError, is_mapping
from ...values.chunk import Chunk, text_chunk
from ...values.parts import RawPart, ReasoningPart, ToolCallPart
from ...values.refusing import about
from ...values.request import Request
from ...values.usage import Usage
from ...values.vocabulary import finish_of
from .arguments import text_of_arguments

__all__ = ["MAKER", "Reader", "said_in"]

MAKER = "llm"
"""The provider of the raw part that keeps an answer of llm as it came."""

_OWN = "llm.default_plugins.openai_models"  # of llm itself


class Reader:
    """Reads the events of one response.

    Attributes:
        has_begun: whether a part of the answer has come.
    """

    def __init__(self, response: Any, request: Request) -> None:
        self.has_begun = False
        self._has_history = any(message.role == "assistant" for message in request.messages)
        self._request = request
        self._response = response
        self._provider: str = response.model.needs_key or MAKER
        self._ids: set[str] = set()  # of the calls that came as events

    def read(self, event: Any) -> Iterator[Chunk]:
        """Yield the chunk of an event; none for what only `end` knows.

        Raises:
            MisuseError: the plugin has not read the conversation.
        """
        self._begin()
        match event.type:
            case "text" if event.chunk:
                yield text_chunk(event.chunk)
            case "reasoning" if event.chunk:
                yield Chunk(parts=[ReasoningPart(event.chunk, index=event.part_index, provider=MAKER)])
            case "tool_call_name" | "tool_call_args" if event.tool_call_id and not event.server_executed:
                self._ids.add(event.tool_call_id)
                fragment = {"name" if event.type == "tool_call_name" else "arguments": event.chunk}
                yield Chunk(parts=[ToolCallPart(event.tool_call_id, index=event.part_index, **fragment)])
            case _:
                pass

    def _begin(self) -> None:
        """Refuse an answer without the conversation: a plugin from before llm had messages sees only the last turn."""
        self.has_begun = True
        if self._has_history and not self._response.prompt.is_read:
            refused = MisuseError(
                f"The plugin of the model {self._response.model.model_id} of llm reads only the last message, so it "
                "would answer without the conversation. Use a newer version of it, or ask with one message."
            )
            raise about(self._request, refused)

    def end(self, messages: Sequence[Any], calls: Iterable[Any]) -> Chunk:
        """Return the last chunk: the calls that came without an event, the usage and the other facts.

        Raises:
            Interrupted: the stream broke off.
            MisuseError: the plugin has not read the conversation.
        """
        self._begin()
        response, model = self._response, self._response.model
        facts: Mapping[str, Any] = response.response_json if is_mapping(response.response_json) else {}
        raw = _reason(facts)
        if raw is None and (_always_ends(model) or "stop_reason" in facts):
            raise Interrupted("The stream ended before the answer did: its finish reason is missing.")
        parts: list[Any] = [*self._late(messages, calls)]
        has_calls = bool(parts or self._ids)
        reason = finish_of(raw) if raw is not None else "other"
        if has_calls and (raw is None or reason == "stop"):  # Ollama and Gemini say "stop" for a call, too
            reason = "tool_call"
        if (kept := _raw_part(messages)) is not None:
            parts.append(kept)
        return Chunk(
            parts=parts,
            usage=_usage(response),
            finish_reason=reason,
            raw_finish_reason=raw,
            model=response.resolved_model or _text(facts, "model") or model.model_id,
            id=_text(facts, "id"),
            provider=self._provider,
        )

    def _late(self, messages: Sequence[Any], calls: Iterable[Any]) -> Iterator[ToolCallPart]:
        """Yield the calls that came without an event, or without an id."""
        late = [call for call in calls if call.tool_call_id not in self._ids]
        if not late:
            late = [part for part in _calls_in(messages) if part.tool_call_id is None]
        for index, call in enumerate(late, len(self._ids)):
            identity = call.tool_call_id or f"call_{self._response.id}_{index}"
            yield ToolCallPart(identity, call.name, text_of_arguments(call.arguments), index)


def _always_ends(model: Any) -> bool:
    """Return whether answers of the model always tell why they ended.

    It is true of OpenAI's chat and Responses, which llm itself asks; it does not keep the reason of completions. llm
    takes a stream that broke off for a whole answer.
    """
    execute = cast("Any", type(model)).execute
    return execute.__module__ == _OWN and not execute.__qualname__.startswith("Completion.")


def said_in(messages: Iterable[Any]) -> tuple[str, list[str]]:
    """Return the text of messages, and the names of their calls."""
    parts = import_module("llm.parts")
    texts = [p.text for message in messages for p in message.parts if isinstance(p, parts.TextPart)]
    return "".join(texts), [call.name for call in _calls_in(messages)]


def _calls_in(messages: Iterable[Any]) -> list[Any]:
    parts = import_module("llm.parts")
    found = [part for message in messages for part in message.parts if isinstance(part, parts.ToolCallPart)]
    return [call for call in found if not call.server_executed]


def _raw_part(messages: Sequence[Any]) -> RawPart | None:
    """Return the messages of an answer as they came; None if their texts and calls are all that they have."""
    if len(messages) == 1 and all(map(_is_plain, messages[0].parts)):
        return None
    return RawPart(MAKER, {"messages": [message.to_dict() for message in messages]}) if messages else None


def _is_plain(part: Any) -> bool:
    parts = import_module("llm.parts")
    if part.provider_metadata or getattr(part, "server_executed", False):
        return False
    return isinstance(part, (parts.TextPart, parts.ToolCallPart)) or (
        isinstance(part, parts.ReasoningPart) and part.redacted  # says only that the model has thought
    )


def _reason(facts: Mapping[str, Any]) -> str | None:
    """Return why the answer ended, in the vendor's word. The plugins keep the last response of their vendor."""
    for items in "choices", "candidates":  # OpenAI's chat, if it was not streamed; Gemini
        if isinstance(found := facts.get(items), list) and found:
            first: object = cast("list[object]", found)[0]
            return _text(first, "finish_reason", "finishReason")
    if details := facts.get("incomplete_details"):  # OpenAI's Responses
        return _text(details, "reason")
    # rxllm; OpenAI's chat, as llm joins its stream; Anthropic; Ollama; OpenAI's Responses
    return _text(facts, "raw_finish_reason", "finish_reason", "stop_reason", "done_reason", "status")


def _text(facts: object, *names: str) -> str | None:
    """Return the first of these fields that is a text."""
    values = [facts.get(name) for name in names] if is_mapping(facts) else []
    return next((value for value in values if value and isinstance(value, str)), None)


_DETAILS: Mapping[str, tuple[str, ...]] = {  # the counts, and what the vendors call them
    "cache_read_input_tokens": ("cache_read_input_tokens", "cached_tokens", "cachedContentTokenCount"),
    "cache_creation_input_tokens": ("cache_creation_input_tokens", "cache_write_tokens"),
    "reasoning_output_tokens": (
        "reasoning_output_tokens",
        "reasoning_tokens",
        "thinking_tokens",
        "thoughtsTokenCount",
    ),
}
_APART = "anthropic"  # the vendor whose input tokens exclude those of its cache


def _usage(response: Any) -> Usage | None:
    """Return the usage. The plugins keep the details in the words of their vendor."""
    counts = dict(_counts(response.token_details))
    found: dict[str, Any] = {
        ours: counts[name] for ours, theirs in _DETAILS.items() for name in theirs if name in counts
    }
    inputs: int | None = response.input_tokens
    model = response.model
    if inputs is not None and model.needs_key == _APART and not type(model).__module__.startswith("rxllm."):
        inputs += found.get("cache_read_input_tokens", 0) + found.get("cache_creation_input_tokens", 0)
    usage = Usage(input_tokens=inputs, output_tokens=response.output_tokens, **found)
    return usage if usage.counts else None


def _counts(details: object) -> Iterator[tuple[str, int]]:
    for name, value in details.items() if is_mapping(details) else ():
        if isinstance(value, int):
            yield name, value
        else:
            yield from _counts(value)
