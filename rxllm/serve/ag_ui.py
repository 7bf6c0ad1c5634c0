"""`ag_ui`: an answer as the events of AG-UI, which `@ag-ui/client` reads, as in CopilotKit.

Source: https://docs.ag-ui.com/concepts/events, protocol 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from reactivex import Observable

from ..misuse import is_mapping, shown
from ..values.chat_answer import new_id
from ..values.parts import ToolCallPart, ToolResultPart
from ..values.usage import Usage
from .failures import HTTPFailure
from .json_fields import WrongBody
from .page_events import Event, Kind, PageEvents, line
from .response import HOLD, PING, StreamResponse

__all__ = ["AGUIEvents", "ag_ui"]

T = TypeVar("T")

_DECISION = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}


class AGUIEvents(PageEvents):
    """Encodes chunks as the events of one run.

    Each round of an agent is a message of its own, with the calls of the round. Metadata named ``rxllm`` carries the
    signatures, which the client sends back.
    """

    def __init__(self, thread: str, run: str, *, secret: str | bytes | None = None) -> None:
        super().__init__(secret)
        self._run = {"threadId": thread, "runId": run}
        self._message = new_id("msg_")  # the id of the round's message
        self._has_text = False  # whether the round's message has a text
        self._interrupts: list[Event] = []

    def begin(self) -> bytes:
        """Return the event that begins the run."""
        return line({"type": "RUN_STARTED", **self._run})

    def end(self) -> bytes:
        """Return the events that close the open blocks and the run."""
        outcome: Event = {"type": "success"}
        if self._interrupts:
            outcome = {"type": "interrupt", "interrupts": self._interrupts}
        finished: Event = {"type": "RUN_FINISHED", **self._run, "outcome": outcome}
        if self.usage is not None:
            finished["usage"] = [_counts(self.usage)]
        if self.reason is not None:
            finished["metadata"] = {"rxllm": {"finish_reason": self.reason}}
        return b"".join(map(line, [*self.closed(), finished]))

    def fail(self, failure: HTTPFailure) -> bytes:
        """Return the event of an error, which ends the run."""
        return line({"type": "RUN_ERROR", "message": failure.message, "code": failure.code})

    def new_step(self) -> Iterable[Event]:
        """Return no events: the next round begins with a new message."""
        self._message, self._has_text = new_id("msg_"), False
        return ()

    def open_block(self, kind: Kind) -> tuple[str, Iterable[Event]]:
        """Return the id of a message, and its start."""
        if kind == "reasoning":
            block = new_id("rs_")
            start = {"type": "REASONING_MESSAGE_START", "messageId": block, "role": "reasoning"}
            return block, [{"type": "REASONING_START", "messageId": block}, start]
        if self._has_text:
            self._message = new_id("msg_")
        self._has_text = True
        return self._message, [{"type": "TEXT_MESSAGE_START", "messageId": self._message, "role": "assistant"}]

    def add_to_block(self, kind: Kind, block: str, text: str) -> Event:
        """Return a piece of the message."""
        name = "TEXT_MESSAGE_CONTENT" if kind == "text" else "REASONING_MESSAGE_CONTENT"
        return {"type": name, "messageId": block, "delta": text}

    def close_block(self, kind: Kind, block: str) -> Iterable[Event]:
        """Return the end of the message."""
        names = ["TEXT_MESSAGE_END"] if kind == "text" else ["REASONING_MESSAGE_END", "REASONING_END"]
        return [{"type": name, "messageId": block} for name in names]

    def open_call(self, call: str, name: str) -> Event:
        """Return the start of the call, in the message of the round."""
        return {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": name, "parentMessageId": self._message}

    def add_to_call(self, call: str, arguments: str) -> Event:
        """Return a piece of the arguments."""
        return {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": arguments}

    def close_call(self, call: ToolCallPart) -> Event:
        """Return the end of the call, with its signature."""
        return {"type": "TOOL_CALL_END", "toolCallId": call.id, **_signed(self.signer.sign("call", call))}

    def result(self, call: ToolCallPart | None, shown_id: str, part: ToolResultPart, text: str) -> Event:
        """Return the result of the call, with its signature."""
        failed = part.outcome != "ok"
        facts = {"messageId": new_id("msg_"), "toolCallId": shown_id, "content": text, "role": "tool"}
        signature = "" if call is None else self.signer.sign("failed" if failed else "result", call, text)
        return {"type": "TOOL_CALL_RESULT", **facts, **_signed(signature, failed=failed)}

    def pending(self, call: ToolCallPart) -> Iterable[Event]:
        """Return no events: the end of the run names what it waits for."""
        facts = {"reason": "tool_call", "message": f"May {call.name} run?", "responseSchema": _DECISION}
        self._interrupts.append({"id": self.signer.pending(call), "toolCallId": call.id, **facts})
        return ()

    def source(self, number: int, url: str, title: str | None) -> Event:
        """Return the custom event ``source``."""
        return {"type": "CUSTOM", "name": "source", "value": {"number": number, "url": url, "title": title}}

    def data(self, name: str, value: Any, facts: Mapping[str, Any]) -> Event:
        """Return a custom event."""
        return {"type": "CUSTOM", "name": name, "value": value}

    def file(self, url: str, media_type: str) -> Event:
        """Return the custom event ``file``."""
        return {"type": "CUSTOM", "name": "file", "value": {"url": url, "mediaType": media_type}}


def _signed(signature: str, **facts: bool) -> dict[str, Any]:
    """Return the field in which a client keeps a signature, and sends it back."""
    return {"metadata": {"rxllm": {"signature": signature, **facts}}}


def _counts(usage: Usage) -> dict[str, int]:
    counts = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "reasoningTokens": usage.reasoning_output_tokens,
        "cachedInputTokens": usage.cache_read_input_tokens,
        "cacheWriteInputTokens": usage.cache_creation_input_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


def ag_ui(
    source: Observable[T],
    body: object,
    *,
    secret: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    hold: float = HOLD,
    ping: float = PING,
) -> StreamResponse[T]:
    """Return a response that `@ag-ui/client` reads: text, reasoning, tool calls with approvals, usage.

    ::

        @app.post("/agent")
        async def run(body: dict[str, Any]) -> Response:
            return ag_ui(agent(messages_of(body)), body)

    Shape: takes the chunks of a model or an agent, or texts, and the body of the request, which names the thread and
    the run. A call that waits for an approval is an interrupt; the next run resumes it with the payload
    ``{"approved": true}``. Sources and files are the custom events ``source`` and ``file``. Units: `hold` and `ping` in
    seconds, as in `StreamResponse`. Errors: an early error has its own status; a later one, and an answer that begins
    again (`Chunk.reset`), is the event ``RUN_ERROR``. `secret` signs the calls and results, as in `ui_messages`.

    Raises:
        MisuseError: the body names no thread and no run.
    """
    thread, run = (body.get("threadId"), body.get("runId")) if is_mapping(body) else (None, None)
    if not isinstance(thread, str) or not isinstance(run, str):
        got = f"{shown(thread)} and {shown(run)}"
        raise WrongBody(f"The request needs a 'threadId' and a 'runId' as text, not {got}.")
    return StreamResponse(source, AGUIEvents(thread, run, secret=secret), headers=headers, hold=hold, ping=ping)
