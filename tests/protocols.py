"""Bodies of the protocols, written by hand from their descriptions, and ways to cut and frame them.

Each protocol has the same methods, so that one battery can ask all providers the same: ``protocol.stream(["Hel",
"lo"])`` has one event for each piece, and ``protocol.whole(["Hel", "lo"])`` is the same answer as one document.
"""

from __future__ import annotations

import itertools
import json
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from attrs import frozen

__all__ = [
    "EVERY",
    "PROTOCOLS",
    "Chat",
    "Cohere",
    "Completions",
    "Converse",
    "Generate",
    "Messages",
    "MistralChat",
    "OllamaChat",
    "Protocol",
    "Responses",
    "ToolCall",
    "aws_event",
    "aws_frame",
    "split_events",
    "split_every",
    "with_line_ends",
    "with_pings",
]

SIGNATURE = "EqQBCgIYAhIM"
CREATED = 1_760_000_000


@frozen
class ToolCall:
    """A tool call as the model streams it: its arguments are JSON text in pieces."""

    id: str = "call_1"
    name: str = "get_weather"
    pieces: Sequence[str] = ('{"city":', ' "Paris"}')

    @property
    def arguments(self) -> str:
        """The joined JSON text."""
        return "".join(self.pieces)


@frozen
class _Answer:
    text: list[str]
    reasoning: list[str]
    tool_calls: list[ToolCall]
    usage: tuple[int, int] | None
    finish: str


def _chat_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def sse(data: Any, event: str | None = None) -> bytes:
    """Return one SSE event; `data` becomes JSON unless it is a string."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


def aws_event(name: str, data: Any, kind: str = "event") -> bytes:
    """Return one frame of an AWS event stream; `kind` is its message type, ``event`` or ``exception``."""
    payload = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    headers = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    return aws_frame(headers, payload)


def aws_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one frame with these headers, all of them texts."""
    head = b"".join(
        struct.pack(">B", len(key)) + key + struct.pack(">BH", 7, len(value)) + value
        for key, value in ((key.encode(), value.encode()) for key, value in headers.items())
    )
    sizes = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    frame = sizes + struct.pack(">I", zlib.crc32(sizes)) + head + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


@frozen
class Protocol(ABC):
    """The facts of a protocol that the battery needs.

    Attributes:
        name: The id of a parametrised test.
        path: Where requests are posted.
        speaks: What it can carry besides text: ``reasoning``, ``tool_call``.
        finishes: Our finish reasons and the protocol's own words for them.
        uses_sse: Whether its streams are server-sent events.
    """

    name: ClassVar[str]
    path: ClassVar[str]
    terminal: ClassVar[bytes]
    speaks: ClassVar[frozenset[str]]
    finishes: ClassVar[Mapping[str, str]]
    uses_sse: ClassVar[bool] = True

    id: str = "answer_1"
    model: str = "model-1"

    def stream(
        self,
        text: Iterable[str] = (),
        *,
        reasoning: Iterable[str] = (),
        tool_call: ToolCall | Sequence[ToolCall] = (),
        usage: tuple[int, int] | None = (3, 5),
        finish: str | None = None,
    ) -> list[bytes]:
        """The SSE events of an answer, the terminal ones included.

        Args:
            text: The pieces of text, an event each.
            reasoning: The pieces of reasoning that come before.
            tool_call: A call that comes after, or several.
            usage: Input and output tokens; without it the server says nothing of usage.
            finish: One of our finish reasons, or a raw one; by default ``tool_call`` after a call and else ``stop``.
        """
        return self._stream(self._answer(text, reasoning, tool_call, usage, finish))

    def whole(
        self,
        text: Iterable[str] = (),
        *,
        reasoning: Iterable[str] = (),
        tool_call: ToolCall | Sequence[ToolCall] = (),
        usage: tuple[int, int] | None = (3, 5),
        finish: str | None = None,
    ) -> bytes:
        """The JSON body of the answer that means the same as `stream` of the same arguments."""
        return json.dumps(self._whole(self._answer(text, reasoning, tool_call, usage, finish))).encode()

    def frame(self, data: bytes) -> bytes:
        """One frame of a stream with this data."""
        return b"data: %s\n\n" % data

    def ping(self) -> bytes:
        """A frame without content, which keeps a connection open."""
        return b": ping\n\n"

    def before(self, text: str, events: Iterable[bytes]) -> list[bytes]:
        """The events before the first one with this text."""
        return list(itertools.takewhile(lambda event: text.encode() not in event, events))

    @abstractmethod
    def error_frame(self, message: str = "The server had an error") -> bytes:
        """The SSE event that ends a stream that failed midway."""

    @abstractmethod
    def error_body(self, status: int, message: str = "It went wrong") -> bytes:
        """The JSON body that goes with this HTTP status."""

    @abstractmethod
    def _stream(self, answer: _Answer) -> list[bytes]: ...

    @abstractmethod
    def _whole(self, answer: _Answer) -> dict[str, Any]: ...

    def _answer(
        self,
        text: Iterable[str],
        reasoning: Iterable[str],
        tool_call: ToolCall | Sequence[ToolCall],
        usage: tuple[int, int] | None,
        finish: str | None,
    ) -> _Answer:
        finish = finish or ("tool_call" if tool_call else "stop")
        calls = [tool_call] if isinstance(tool_call, ToolCall) else list(tool_call)
        answer = _Answer(list(text), list(reasoning), calls, usage, self.finishes.get(finish, finish))
        asked = {kind for kind, told in (("reasoning", answer.reasoning), ("tool_call", calls)) if told}
        if asked - self.speaks:
            raise ValueError(f"{self.name} does not speak {asked - self.speaks}")
        return answer


class OpenAIProtocol(Protocol):
    """The common part of OpenAI's protocols: the end, the errors, the counts."""

    terminal = b"data: [DONE]\n\n"
    finishes: ClassVar = {"stop": "stop", "length": "length", "content_filter": "content_filter"}

    def error_frame(self, message: str = "The server had an error") -> bytes:
        """OpenAI's error object as data."""
        return sse({"error": {"message": message, "type": "server_error", "param": None, "code": None}})

    def error_body(self, status: int, message: str = "It went wrong") -> bytes:
        """OpenAI's error object."""
        kind, code = {
            401: ("invalid_request_error", "invalid_api_key"),
            403: ("invalid_request_error", "unsupported_country_region_territory"),
            404: ("invalid_request_error", "model_not_found"),
            429: ("requests", "rate_limit_exceeded"),
        }.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
        return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()

    @staticmethod
    def _usage(usage: tuple[int, int] | None) -> dict[str, Any]:
        if usage is None:
            return {}
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        return {"usage": counts}


class Chat(OpenAIProtocol):
    """OpenAI's chat completions; reasoning as DeepSeek and others add it."""

    name = "chat"
    path = "/v1/chat/completions"
    speaks = frozenset({"reasoning", "tool_call"})
    finishes: ClassVar = {**OpenAIProtocol.finishes, "tool_call": "tool_calls"}

    def _stream(self, answer: _Answer) -> list[bytes]:
        chunks = [self._chunk([self._choice(delta, None)]) for delta in self._deltas(answer)]
        chunks += [self._chunk([self._choice({}, answer.finish)])]
        chunks += [self._chunk([], **self._usage(answer.usage))] if answer.usage else []
        return [*map(sse, chunks), self.terminal]

    @staticmethod
    def _deltas(answer: _Answer) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
        deltas += [{"reasoning_content": piece} for piece in answer.reasoning]
        deltas += [{"content": piece} for piece in answer.text]
        for index, call in enumerate(answer.tool_calls):
            function = {"name": call.name, "arguments": ""}
            deltas += [{"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]}]
            deltas += [{"tool_calls": [{"index": index, "function": {"arguments": a}}]} for a in call.pieces]
        return deltas

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_1",
            "choices": choices,
            "usage": None,
            **more,
        }

    @staticmethod
    def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.text) or None, "refusal": None}
        if "".join(answer.reasoning):
            message["reasoning_content"] = "".join(answer.reasoning)
        if answer.tool_calls:
            message["tool_calls"] = [_chat_call(call) for call in answer.tool_calls]
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}],
            **self._usage(answer.usage),
        }


class MistralChat(Chat):
    """Mistral's chat completions: reasoning stands among the texts, and each call comes whole."""

    name = "mistral"

    @classmethod
    def _deltas(cls, answer: _Answer) -> list[dict[str, Any]]:
        calls = [{"index": index, **_chat_call(call)} for index, call in enumerate(answer.tool_calls)]
        return [
            {"role": "assistant", "content": ""},
            *({"content": [cls._thought(piece)]} for piece in answer.reasoning),
            *({"content": piece} for piece in answer.text),
            *([{"tool_calls": calls}] if calls else []),
        ]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        document = super()._whole(answer)
        message = document["choices"][0]["message"]
        if thought := message.pop("reasoning_content", None):
            text = [{"type": "text", "text": message["content"]}] if message["content"] else []
            message["content"] = [self._thought(thought), *text]
        return document

    @staticmethod
    def _thought(text: str) -> dict[str, Any]:
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


class Completions(OpenAIProtocol):
    """OpenAI's legacy completions: only text; a chunk has the shape of the whole answer."""

    name = "completions"
    path = "/v1/completions"
    speaks: ClassVar = frozenset[str]()

    def _stream(self, answer: _Answer) -> list[bytes]:
        choices = [*([self._choice(piece, None)] for piece in answer.text), [self._choice("", answer.finish)]]
        chunks = [self._completion(choice) for choice in choices]
        chunks += [self._completion([], **self._usage(answer.usage))] if answer.usage else []
        return [*map(sse, chunks), self.terminal]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        return self._completion([self._choice("".join(answer.text), answer.finish)], **self._usage(answer.usage))

    def _completion(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": CREATED,
            "model": self.model,
            "choices": choices,
            **more,
        }

    @staticmethod
    def _choice(text: str, finish: str | None) -> dict[str, Any]:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}


class Messages(Protocol):
    """Anthropic's messages."""

    name = "messages"
    path = "/v1/messages"
    terminal = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    speaks = frozenset({"reasoning", "tool_call"})
    finishes: ClassVar = {
        "stop": "end_turn",
        "length": "max_tokens",
        "content_filter": "refusal",
        "tool_call": "tool_use",
    }

    def error_frame(self, message: str = "The server had an error") -> bytes:
        """An ``error`` event, an overload as the usual one."""
        return self._event("error", error={"type": "overloaded_error", "message": message}, request_id="req_1")

    def error_body(self, status: int, message: str = "It went wrong") -> bytes:
        """Anthropic's error object."""
        kind = {
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            529: "overloaded_error",
        }.get(status, "api_error" if status >= 500 else "invalid_request_error")
        error = {"type": kind, "message": message}
        return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()

    def _stream(self, answer: _Answer) -> list[bytes]:
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if answer.reasoning:
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in answer.reasoning]
            signature = {"type": "signature_delta", "signature": SIGNATURE}
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature]))
        if answer.text:
            blocks.append(
                ({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in answer.text])
            )
        for call in answer.tool_calls:
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *call.pieces)]
            blocks.append((self._tool_use(call, {}), deltas))
        counts = answer.usage and {"input_tokens": answer.usage[0], "output_tokens": 1}
        events = [self._event("message_start", message=self._message([], None, counts)), self._event("ping")]
        for index, (start, deltas) in enumerate(blocks):
            events.append(self._event("content_block_start", index=index, content_block=start))
            events += [self._event("content_block_delta", index=index, delta=delta) for delta in deltas]
            events.append(self._event("content_block_stop", index=index))
        ended = {"stop_reason": answer.finish, "stop_sequence": None}
        total = {"usage": {"output_tokens": answer.usage[1]}} if answer.usage else {}
        return [*events, self._event("message_delta", delta=ended, **total), self.terminal]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if "".join(answer.reasoning):
            content.append({"type": "thinking", "thinking": "".join(answer.reasoning), "signature": SIGNATURE})
        if "".join(answer.text):
            content.append({"type": "text", "text": "".join(answer.text)})
        content += [self._tool_use(call, json.loads(call.arguments or "{}")) for call in answer.tool_calls]
        counts = answer.usage and {"input_tokens": answer.usage[0], "output_tokens": answer.usage[1]}
        return self._message(content, answer.finish, counts)

    def _message(
        self, content: list[dict[str, Any]], finish: str | None, usage: dict[str, int] | None
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": finish,
            "stop_sequence": None,
            **({"usage": usage} if usage else {}),
        }

    @staticmethod
    def _tool_use(tool_call: ToolCall, arguments: Any) -> dict[str, Any]:
        return {"type": "tool_use", "id": tool_call.id, "name": tool_call.name, "input": arguments}

    @staticmethod
    def _event(kind: str, **data: Any) -> bytes:
        return sse({"type": kind, **data}, event=kind)


class Converse(Protocol):
    """Amazon Bedrock's Converse API, whose stream is binary."""

    name = "converse"
    path = "/model/model-1/converse-stream"
    uses_sse = False
    terminal = aws_event("metadata", {"metrics": {"latencyMs": 5}, "p": "abc"})
    speaks = frozenset({"reasoning", "tool_call"})
    finishes: ClassVar = {
        "stop": "end_turn",
        "length": "max_tokens",
        "content_filter": "guardrail_intervened",
        "tool_call": "tool_use",
    }

    def frame(self, data: bytes) -> bytes:
        """A delta."""
        return aws_event("contentBlockDelta", data)

    def ping(self) -> bytes:
        """An event that clients do not know yet."""
        return aws_event("ping", {"p": "abc"})

    def error_frame(self, message: str = "The server had an error") -> bytes:
        """An exception, of a service that has no capacity."""
        return aws_event("serviceUnavailableException", {"message": message}, "exception")

    def error_body(self, status: int, message: str = "It went wrong") -> bytes:
        """The message alone; a header has the exception's name."""
        return json.dumps({"message": message}).encode()

    def _stream(self, answer: _Answer) -> list[bytes]:
        blocks: list[tuple[dict[str, Any] | None, list[dict[str, Any]]]] = []
        if answer.reasoning:
            deltas: list[dict[str, Any]] = [{"reasoningContent": {"text": piece}} for piece in answer.reasoning]
            blocks.append((None, [*deltas, {"reasoningContent": {"signature": SIGNATURE}}]))
        if answer.text:
            blocks.append((None, [{"text": piece} for piece in answer.text]))
        for call in answer.tool_calls:
            start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
            blocks.append((start, [{"toolUse": {"input": piece}} for piece in call.pieces]))
        events = [aws_event("messageStart", {"role": "assistant", "p": "ab"})]
        for index, (start, deltas) in enumerate(blocks):
            place = {"contentBlockIndex": index, "p": "abcd"}
            events += [aws_event("contentBlockStart", {"start": start, **place})] if start else []
            events += [aws_event("contentBlockDelta", {"delta": delta, **place}) for delta in deltas]
            events.append(aws_event("contentBlockStop", place))
        events.append(aws_event("messageStop", {"stopReason": answer.finish}))
        last = aws_event("metadata", self._counts(answer.usage)) if answer.usage else self.terminal
        return [*events, last]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if "".join(answer.reasoning):
            thought = {"text": "".join(answer.reasoning), "signature": SIGNATURE}
            content.append({"reasoningContent": {"reasoningText": thought}})
        if "".join(answer.text):
            content.append({"text": "".join(answer.text)})
        for call in answer.tool_calls:
            told = {"toolUseId": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}
            content.append({"toolUse": told})
        message = {"role": "assistant", "content": content}
        return {"output": {"message": message}, "stopReason": answer.finish, **self._counts(answer.usage)}

    @staticmethod
    def _counts(usage: tuple[int, int] | None) -> dict[str, Any]:
        counts = usage and {"inputTokens": usage[0], "outputTokens": usage[1], "totalTokens": sum(usage)}
        return {"metrics": {"latencyMs": 5}, **({"usage": counts} if counts else {})}


class Generate(Protocol):
    """Gemini's generateContent: responses of a few parts each, with CRLF, no names and no end marker."""

    name = "generate"
    path = "/v1beta/models/model-1:streamGenerateContent"
    terminal = b""
    speaks = frozenset({"reasoning", "tool_call"})
    finishes: ClassVar = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "tool_call": "STOP"}

    def error_frame(self, message: str = "The server had an error") -> bytes:
        """An error as data."""
        return sse(self._error(503, message)).replace(b"\n", b"\r\n")

    def error_body(self, status: int, message: str = "It went wrong") -> bytes:
        """Google's error object, on several lines."""
        return json.dumps(self._error(status, message), indent=2).encode()

    @staticmethod
    def _error(status: int, message: str) -> dict[str, Any]:
        words = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
        words |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}
        return {"error": {"code": status, "message": message, "status": words.get(status, "UNKNOWN")}}

    def _stream(self, answer: _Answer) -> list[bytes]:
        parts = [*({"text": piece, "thought": True} for piece in answer.reasoning)]
        parts += [{"text": piece} for piece in answer.text]
        parts += map(self._call, answer.tool_calls)
        responses = [self._response([part], None, answer.usage and (answer.usage[0], None)) for part in parts]
        responses.append(self._response([{"text": ""}], answer.finish, answer.usage))
        return [sse(response).replace(b"\n", b"\r\n") for response in responses]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        thought, text = "".join(answer.reasoning), "".join(answer.text)
        parts: list[dict[str, Any]] = [{"text": thought, "thought": True}] if thought else []
        parts += [{"text": text}] if text else []
        parts += map(self._call, answer.tool_calls)
        return self._response(parts, answer.finish, answer.usage)

    @staticmethod
    def _call(call: ToolCall) -> dict[str, Any]:
        function = {"id": call.id, "name": call.name, "args": json.loads(call.arguments or "{}")}
        return {"functionCall": function, "thoughtSignature": SIGNATURE}

    def _response(
        self, parts: list[dict[str, Any]], finish: str | None, usage: tuple[int, int | None] | None
    ) -> dict[str, Any]:
        counts = usage and {"promptTokenCount": usage[0], "totalTokenCount": usage[0] + (usage[1] or 0)}
        if usage and usage[1] is not None:
            counts = {**(counts or {}), "candidatesTokenCount": usage[1]}
        ended = {"finishReason": finish} if finish else {}
        return {
            "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0, **ended}],
            **({"usageMetadata": counts} if counts else {}),
            "modelVersion": self.model,
            "responseId": self.id,
        }


class Responses(OpenAIProtocol):
    """OpenAI's Responses."""

    name = "responses"
    path = "/v1/responses"
    terminal = b""
    speaks = frozenset({"reasoning", "tool_call"})
    finishes: ClassVar = {
        "stop": "completed",
        "length": "max_output_tokens",
        "content_filter": "content_filter",
        "tool_call": "completed",
    }

    def error_frame(self, message: str = "The server had an error") -> bytes:
        """An ``error`` event."""
        return sse({"type": "error", "code": "server_error", "message": message, "param": None}, event="error")

    def _stream(self, answer: _Answer) -> list[bytes]:
        started = {**self._response(None, None), "status": "in_progress"}
        events: list[tuple[str, dict[str, Any]]] = [
            ("response.created", {"response": started}),
            ("response.in_progress", {"response": started}),
        ]
        pieces_of = {call.id: call.pieces for call in answer.tool_calls}
        for index, item in enumerate(self._output(answer)):
            place = {"output_index": index}
            empty = {"reasoning": {"summary": []}, "message": {"content": []}, "function_call": {"arguments": ""}}
            begun = {**item, **empty[item["type"]], "status": "in_progress"}
            events.append(("response.output_item.added", {**place, "item": begun}))
            place["item_id"] = item["id"]
            match item["type"]:
                case "reasoning":
                    [part] = item["summary"]
                    events += self._grown("reasoning_summary", place | {"summary_index": 0}, part, answer.reasoning)
                case "message":
                    [part] = item["content"]
                    more = place | {"content_index": 0}
                    events += self._grown("output", more, part, answer.text, logprobs=[])
                case _:
                    kind = "response.function_call_arguments"
                    pieces = pieces_of[item["call_id"]]
                    events += [(f"{kind}.delta", {**place, "delta": piece}) for piece in pieces]
                    named = {"arguments": item["arguments"], "name": item["name"]}
                    events.append((f"{kind}.done", place | named))
            events.append(("response.output_item.done", {"output_index": index, "item": item}))
        whole = self._whole(answer)
        events.append((f"response.{whole['status']}", {"response": whole}))
        return [
            sse({"type": kind, "sequence_number": number, **data}, event=kind)
            for number, (kind, data) in enumerate(events)
        ]

    @staticmethod
    def _grown(
        kind: str, place: dict[str, Any], part: dict[str, Any], pieces: list[str], **more: Any
    ) -> list[tuple[str, dict[str, Any]]]:
        """The events of a part: its beginning, its pieces, its text, its end."""
        part_kind = "content_part" if kind == "output" else f"{kind}_part"
        return [
            (f"response.{part_kind}.added", {**place, "part": {**part, "text": ""}}),
            *((f"response.{kind}_text.delta", {**place, "delta": piece, **more}) for piece in pieces),
            (f"response.{kind}_text.done", {**place, "text": part["text"], **more}),
            (f"response.{part_kind}.done", {**place, "part": part}),
        ]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        return {**self._response(answer.finish, answer.usage), "output": self._output(answer)}

    def _output(self, answer: _Answer) -> list[dict[str, Any]]:
        output: list[dict[str, Any]] = []
        if "".join(answer.reasoning):
            summary = [{"type": "summary_text", "text": "".join(answer.reasoning)}]
            output.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": SIGNATURE})
        if "".join(answer.text) or not answer.tool_calls:
            content = [{"type": "output_text", "text": "".join(answer.text), "annotations": [], "logprobs": []}]
            output.append(
                {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
            )
        for number, call in enumerate(answer.tool_calls, 1):
            named = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
            output.append({"type": "function_call", "id": f"fc_{number}", **named, "status": "completed"})
        return output

    def _response(self, finish: str | None, usage: tuple[int, int] | None) -> dict[str, Any]:
        counts = usage and {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
        broken_off = finish not in (None, "completed")
        return {
            "id": self.id,
            "object": "response",
            "created_at": CREATED,
            "model": self.model,
            "status": "incomplete" if broken_off else "completed",
            "background": False,
            "error": None,
            "incomplete_details": {"reason": finish} if broken_off else None,
            "output": [],
            "usage": counts,
        }


class OllamaChat(Protocol):
    """Ollama's own protocol: a JSON object a line; each call comes whole."""

    name = "ollama"
    path = "/api/chat"
    uses_sse = False
    terminal = b""
    speaks = frozenset({"reasoning", "tool_call"})
    finishes: ClassVar = {"stop": "stop", "length": "length", "tool_call": "stop"}

    def frame(self, data: bytes) -> bytes:
        """A line."""
        return data + b"\n"

    def ping(self) -> bytes:
        """An empty line."""
        return b"\n"

    def error_frame(self, message: str = "The server had an error") -> bytes:
        """A line with an error alone."""
        return self._line({"error": message})

    def error_body(self, status: int, message: str = "It went wrong") -> bytes:
        """The message alone."""
        return json.dumps({"error": message}).encode()

    def _stream(self, answer: _Answer) -> list[bytes]:
        said: list[dict[str, Any]] = [{"thinking": piece} for piece in answer.reasoning]
        said += [{"content": piece} for piece in answer.text]
        said += [{"tool_calls": [self._call(index, call)]} for index, call in enumerate(answer.tool_calls)]
        lines = [{**self._begun({"content": "", **each}), "done": False} for each in said]
        return [*map(self._line, lines), self._line(self._whole(_Answer([], [], [], answer.usage, answer.finish)))]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        said: dict[str, Any] = {"content": "".join(answer.text)}
        said |= {"thinking": "".join(answer.reasoning)} if answer.reasoning else {}
        calls = [self._call(index, call) for index, call in enumerate(answer.tool_calls)]
        said |= {"tool_calls": calls} if calls else {}
        counts = answer.usage and {"prompt_eval_count": answer.usage[0], "eval_count": answer.usage[1]}
        ended = {"done": True, "done_reason": answer.finish, "total_duration": 4_883_583, "load_duration": 1_334}
        return {**self._begun(said), **ended, **(counts or {})}

    def _begun(self, said: dict[str, Any]) -> dict[str, Any]:
        return {"model": self.model, "created_at": "2026-08-21T18:48:22.5Z", "message": {"role": "assistant", **said}}

    @staticmethod
    def _call(index: int, call: ToolCall) -> dict[str, Any]:
        return {
            "id": call.id,
            "function": {"index": index, "name": call.name, "arguments": json.loads(call.arguments or "{}")},
        }

    @staticmethod
    def _line(document: dict[str, Any]) -> bytes:
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"


class Cohere(Protocol):
    """Cohere's chat, version 2."""

    name = "cohere"
    path = "/v2/chat"
    terminal = b""
    speaks = frozenset({"reasoning", "tool_call"})
    finishes: ClassVar = {
        "stop": "COMPLETE",
        "length": "MAX_TOKENS",
        "content_filter": "ERROR_TOXIC",
        "tool_call": "TOOL_CALL",
    }

    def error_frame(self, message: str = "The server had an error") -> bytes:
        """The end of a message that failed."""
        return self._event("message-end", delta={"error": message, "finish_reason": "ERROR"})

    def error_body(self, status: int, message: str = "It went wrong") -> bytes:
        """A message and an id."""
        return json.dumps({"id": "err_1", "message": message}).encode()

    def _stream(self, answer: _Answer) -> list[bytes]:
        empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        events = [self._event("message-start", id=self.id, delta={"message": empty})]
        for index, (kind, pieces) in enumerate((("thinking", answer.reasoning), ("text", answer.text))):
            if pieces:
                start = {"type": kind, kind: ""}
                events.append(self._event("content-start", index=index, **self._delta("content", start)))
                events += [
                    self._event("content-delta", index=index, **self._delta("content", {kind: p})) for p in pieces
                ]
                events.append(self._event("content-end", index=index))
        for index, call in enumerate(answer.tool_calls):
            start = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            events.append(self._event("tool-call-start", index=index, **self._delta("tool_calls", start)))
            for piece in call.pieces:
                more = {"function": {"arguments": piece}}
                events.append(self._event("tool-call-delta", index=index, **self._delta("tool_calls", more)))
            events.append(self._event("tool-call-end", index=index))
        ended = {"finish_reason": answer.finish, **self._counts(answer.usage)}
        return [*events, self._event("message-end", delta=ended)]

    def _whole(self, answer: _Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": []}
        for kind, text in (("thinking", "".join(answer.reasoning)), ("text", "".join(answer.text))):
            message["content"] += [{"type": kind, kind: text}] if text else []
        if answer.tool_calls:
            message["tool_calls"] = [_chat_call(call) for call in answer.tool_calls]
        return {"id": self.id, "message": message, "finish_reason": answer.finish, **self._counts(answer.usage)}

    @staticmethod
    def _counts(usage: tuple[int, int] | None) -> dict[str, Any]:
        if usage is None:
            return {}
        billed = {"input_tokens": 1, "output_tokens": 2}
        return {"usage": {"billed_units": billed, "tokens": {"input_tokens": usage[0], "output_tokens": usage[1]}}}

    @staticmethod
    def _delta(name: str, told: Any) -> dict[str, Any]:
        return {"delta": {"message": {name: told}}}

    @staticmethod
    def _event(kind: str, **data: Any) -> bytes:
        return sse({"type": kind, **data}, event=kind)


EVERY: tuple[Protocol, ...] = (
    *(Chat(), Completions(), Messages(), Responses()),
    *(Generate(), OllamaChat(), Converse(), Cohere()),
)
PROTOCOLS = EVERY[:4]


def split_events(body: bytes) -> list[bytes]:
    """Split the body after each blank line; no byte is lost."""
    return re.findall(rb"(?s).+?(?:\r\n\r\n|\n\n|\r\r(?!\n)|\Z)", body)


def split_every(size: int, body: bytes | Iterable[bytes]) -> list[bytes]:
    """Split the body after every `size` bytes."""
    joined = body if isinstance(body, bytes) else b"".join(body)
    return [joined[start : start + size] for start in range(0, len(joined), size)]


def with_line_ends(end: bytes, events: Iterable[bytes]) -> list[bytes]:
    r"""The events with their ``\n`` replaced by another line end."""
    return [event.replace(b"\n", end) for event in events]


def with_pings(events: Iterable[bytes], ping: bytes = b": ping\n\n") -> list[bytes]:
    """Insert a keep-alive comment, or `ping`, before each event."""
    return [piece for event in events for piece in (ping, event)]
