"""`ui_messages`: an answer as a UI Message Stream, which ``useChat`` of Vercel's AI SDK reads.

Source: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, "Data stream protocol". By default the response has only the
events that the SDK's majors 6 and 7 both accept, because the client does not send its version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from reactivex import Observable

from ..values.parts import ToolCallPart, ToolResultPart
from ..values.usage import Usage
from .failures import HTTPFailure
from .large_numbers import has_large_number
from .page_events import Event, Kind, PageEvents, line
from .response import HOLD, PING, StreamResponse

__all__ = ["UI_HEADERS", "UIEvents", "ui_messages"]

T = TypeVar("T")

UI_HEADERS: Mapping[str, str] = {"x-vercel-ai-ui-message-stream": "v1"}

_REASONS: Mapping[str | None, str] = {
    "length": "length",
    "content_filter": "content-filter",
    "tool_call": "tool-calls",
    "error": "error",
    "other": "other",
}

_DONE = b"data: [DONE]\n\n"


class UIEvents(PageEvents):
    """Encodes chunks as a UI Message Stream. The whole input of a call is sent when the call is complete."""

    def __init__(
        self, *, sdk: Literal[6, 7] = 6, message_id: str | None = None, secret: str | bytes | None = None
    ) -> None:
        super().__init__(secret)
        self._resets = sdk >= 7
        self._message_id = message_id
        self._blocks = 0
        self.metadata: dict[str, Any] = {}  # of the message, sent with its end

    def begin(self) -> bytes:
        """Return the events that begin the message and its first step."""
        named = {} if self._message_id is None else {"messageId": self._message_id}
        return line({"type": "start", **named}) + line({"type": "start-step"})

    def end(self) -> bytes:
        """Return the events that close the open blocks, the step and the message."""
        finish: Event = {"type": "finish", "finishReason": _REASONS.get(self.reason, "stop")}
        if self.usage is not None:
            self.metadata["usage"] = _counts(self.usage)
        if self.metadata:
            finish["messageMetadata"] = self.metadata
        return b"".join(map(line, [*self.closed(), {"type": "finish-step"}, finish])) + _DONE

    def fail(self, failure: HTTPFailure) -> bytes:
        """Return the event of an error, which sets the page's status to ``error``."""
        return line({"type": "error", "errorText": failure.message}) + _DONE

    def abort(self) -> bytes:
        """Return the event of an answer that was stopped."""
        return line({"type": "abort"}) + _DONE

    def again(self) -> Iterable[Event]:
        """Return the event that takes the text of the step back, which only version 7 knows."""
        return [{"type": "reset-step"}] if self._resets else super().again()

    def new_step(self) -> Iterable[Event]:
        """Return the events between two steps."""
        return {"type": "finish-step"}, {"type": "start-step"}

    def open_block(self, kind: Kind) -> tuple[str, Iterable[Event]]:
        """Return the number of the block, and its start."""
        block, self._blocks = str(self._blocks), self._blocks + 1
        return block, [{"type": f"{kind}-start", "id": block}]

    def add_to_block(self, kind: Kind, block: str, text: str) -> Event:
        """Return a delta."""
        return {"type": f"{kind}-delta", "id": block, "delta": text}

    def close_block(self, kind: Kind, block: str) -> Iterable[Event]:
        """Return the end of the block."""
        return [{"type": f"{kind}-end", "id": block}]

    def open_call(self, call: str, name: str) -> Event:
        """Return the start of the call's input."""
        return {"type": "tool-input-start", "toolCallId": call, "toolName": name}

    def add_to_call(self, call: str, arguments: str) -> Event:
        """Return a delta of the call's input."""
        return {"type": "tool-input-delta", "toolCallId": call, "inputTextDelta": arguments}

    def close_call(self, call: ToolCallPart) -> Event:
        """Return the whole input, or the error that it is not JSON."""
        facts = {"toolCallId": call.id, "toolName": call.name}
        try:
            arguments = msgspec.json.decode(call.arguments or "{}")
            exact = {"arguments": call.arguments} if has_large_number(arguments) else {}
        except (msgspec.DecodeError, RecursionError):
            sentence = "The arguments of the call are not valid JSON."
            return {"type": "tool-input-error", **facts, "input": call.arguments, "errorText": sentence}
        signed = _signed(self.signer.sign("call", call), **exact)
        return {"type": "tool-input-available", **facts, "input": arguments, **signed}

    def result(self, call: ToolCallPart | None, shown_id: str, part: ToolResultPart, text: str) -> Event:
        """Return the output of the call, its error, or its denial."""
        if part.outcome == "denied":
            return {"type": "tool-output-denied", "toolCallId": shown_id}
        if part.outcome == "ok":
            value = _value(text)
            signed = {} if call is None else _signed(self.signer.sign("result", call, value))
            return {"type": "tool-output-available", "toolCallId": shown_id, "output": value, **signed}
        signed = {} if call is None else _signed(self.signer.sign("failed", call, text))
        return {"type": "tool-output-error", "toolCallId": shown_id, "errorText": text, **signed}

    def pending(self, call: ToolCallPart) -> Iterable[Event]:
        """Return the request for an approval."""
        facts = {"approvalId": call.id, "toolCallId": call.id, "signature": self.signer.pending(call)}
        return [{"type": "tool-approval-request", **facts}]

    def source(self, number: int, url: str, title: str | None) -> Event:
        """Return a source."""
        event: Event = {"type": "source-url", "sourceId": f"source-{number}", "url": url}
        return event if title is None else {**event, "title": title}

    def data(self, name: str, value: Any, facts: Mapping[str, Any]) -> Event:
        """Return a data part."""
        return {"type": f"data-{name}", "data": value, **facts}

    def file(self, url: str, media_type: str) -> Event:
        """Return a file."""
        return {"type": "file", "url": url, "mediaType": media_type}


def _value(text: str) -> Any:
    """Return a tool's result as the page gets it: JSON as its value, any other text as text.

    JSON with a number that the page would round stays text, too.
    """
    try:
        value = msgspec.json.decode(text)
        return text if has_large_number(value) else value
    except (msgspec.DecodeError, RecursionError):
        return text


def _signed(signature: str, **facts: str) -> dict[str, Any]:
    """Return the field in which a page keeps the signature of a call or of a result, and sends it back."""
    return {"providerMetadata": {"rxllm": {"signature": signature, **facts}}}


def _counts(usage: Usage) -> dict[str, int]:
    counts = {"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens}
    return {name: count for name, count in counts.items() if count is not None}


def ui_messages(
    source: Observable[T],
    *,
    sdk: Literal[6, 7] = 6,
    message_id: str | None = None,
    secret: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    hold: float = HOLD,
    ping: float = PING,
) -> StreamResponse[T]:
    """Return a response that ``useChat`` of Vercel's AI SDK reads: text, reasoning, tool calls, sources and files.

    Shape: takes the chunks of a model or an agent, or texts. Units: `hold` and `ping` in seconds, as in
    `StreamResponse`. Errors: an early error has its own status; a later one is the event ``error``. An answer that
    begins again (`Chunk.reset`) is an error with ``sdk=6``, because version 6 cannot take text back; ``sdk=7`` sends
    ``reset-step``. `secret` signs the tool calls and results, so that `messages_of` knows them in the next request;
    without it they count in this process only. `message_id` names the message; without it the page continues its last
    answer, or chooses an id.
    """
    headers = {**UI_HEADERS, **(headers or {})}
    return StreamResponse(
        source, UIEvents(sdk=sdk, message_id=message_id, secret=secret), headers=headers, hold=hold, ping=ping
    )
