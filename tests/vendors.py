"""Vendors that refuse, as the real ones do, a history whose reasoning, signatures, ids or order are wrong.

Each `Vendor` has a script of three answers: thoughts with two calls of tools, thoughts with a text, and a text. It
counts its own answers in the history that it gets, compares each with what it has sent, and gives the next one. Answers
of other vendors must not carry anything that this vendor has not made.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from protocols import aws_event, sse

from rxllm import LLM, Anthropic, Bedrock, Cohere, Gemini, Ollama, OpenAI
from rxllm.testing import Received, Reply

__all__ = ["VENDORS", "Refused", "Vendor"]

CITIES = ("Paris", "Rome")


class Refused(Exception):
    """A fault of the request, which the vendor's server answers with status 400."""


def require(condition: object, sentence: str) -> None:
    """Refuses the request unless the condition holds."""
    if not condition:
        raise Refused(sentence)


def bare(value: Any, *names: str) -> Any:
    """The value without empty fields, and without the fields of these names, at every depth."""
    if isinstance(value, dict):
        return {k: bare(v, *names) for k, v in value.items() if k not in names and v not in (None, "", [])}
    return [bare(item, *names) for item in value] if isinstance(value, list) else value


class Vendor(ABC):
    """One vendor's protocol, with a script of answers."""

    name: ClassVar[str]
    id_pattern: ClassVar[str] = r".+"
    dropped: ClassVar[tuple[str, ...]] = ()  # fields that need not come back
    wants_reasoning: ClassVar[bool] = True  # refuses a call without the thoughts before it
    ids: ClassVar[tuple[str, str]]

    @property
    @abstractmethod
    def script(self) -> list[Any]:
        """The answers, in the form in which they come back."""

    @abstractmethod
    def create_model(self, url: str, **settings: Any) -> LLM:
        """The provider that asks the server at this address."""

    @abstractmethod
    def turns(self, body: Any) -> list[tuple[str, Any]]:
        """The history as ``("user", …)``, ``("answer", …)``, ``("results", ids)``, in its order."""

    @abstractmethod
    def calls(self, answer: Any) -> list[str]:
        """The ids of the calls in an answer of the history."""

    @abstractmethod
    def told(self, answer: Any) -> str:
        """The text of an answer of the history."""

    @abstractmethod
    def foreign(self, answer: Any) -> None:
        """Refuses an answer of another vendor that carries what only this one can have made."""

    @abstractmethod
    def reply(self, answer: Any, *, streams: bool) -> Reply:
        """The answer, as a stream or whole."""

    def streams(self, request: Received) -> bool:
        """Whether a stream was asked for."""
        return bool(request.json.get("stream"))

    def answer(self, request: Received) -> Reply:
        """The next answer of the script, or the refusal."""
        try:
            place = self.check(request.json)
        except Refused as refusal:
            return Reply.json({"error": {"message": str(refusal)}, "message": str(refusal)}, status=400)
        return self.reply(self.script[place], streams=self.streams(request))

    def check(self, body: Any) -> int:
        """Return the number of its own answers in the history.

        Raises:
            Refused: something in it is wrong.
        """
        own = 0
        open_calls: list[str] = []
        for kind, turn in self.turns(body):
            require(kind == "results" or not open_calls, f"{self.name}: calls {open_calls} have no results")
            if kind == "results":
                require(turn == open_calls, f"{self.name}: results {turn} do not follow the calls {open_calls}")
                open_calls = []
            elif kind == "answer":
                open_calls = self.calls(turn)
                for identity in open_calls:
                    require(re.fullmatch(self.id_pattern, identity), f"{self.name}: the id {identity!r} is not allowed")
                if own < len(self.script) and self._is(turn, self.script[own]):
                    expected = self.script[own]
                    require(
                        self.plain(turn) == self.plain(expected),
                        f"{self.name}: answer {own} came back as {turn!r}, not as {expected!r}",
                    )
                    own += 1
                else:
                    self.foreign(turn)
        require(not open_calls, f"{self.name}: calls {open_calls} have no results")
        return own

    def plain(self, answer: Any) -> Any:
        """Return the parts of an answer that must come back."""
        return bare(answer, *self.dropped)

    def _is(self, turn: Any, answer: Any) -> bool:
        return self.calls(turn) == self.calls(answer) and self.told(turn) == self.told(answer)


class Chat(Vendor):
    """A server like DeepSeek's: it wants its reasoning_content back with the calls."""

    name = "chat"
    ids = ("call_a1", "call_a2")

    @property
    def script(self) -> list[Any]:
        calls = [
            {"id": i, "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": c})}}
            for i, c in zip(self.ids, CITIES, strict=True)
        ]
        return [
            {"role": "assistant", "content": "I look.", "reasoning_content": "Chat thinks.", "tool_calls": calls},
            {"role": "assistant", "content": "Chat: wet.", "reasoning_content": "Chat knows."},
            {"role": "assistant", "content": "Chat: bye."},
        ]

    def create_model(self, url: str, **settings: Any) -> LLM:
        return OpenAI("m", base_url=url.replace("127.0.0.1", "localhost") + "/v1", api="chat", **settings)

    def turns(self, body: Any) -> list[tuple[str, Any]]:
        turns: list[tuple[str, Any]] = []
        for message in body["messages"]:
            if message["role"] == "tool":
                if turns[-1][0] != "results":
                    turns.append(("results", []))
                turns[-1][1].append(message["tool_call_id"])
            else:
                turns.append(("answer" if message["role"] == "assistant" else "user", message))
        return turns

    def calls(self, answer: Any) -> list[str]:
        return [call["id"] for call in answer.get("tool_calls") or ()]

    def told(self, answer: Any) -> str:
        content = answer.get("content") or ""
        return content if isinstance(content, str) else "".join(item.get("text", "") for item in content)

    def foreign(self, answer: Any) -> None:
        require("reasoning_content" not in answer, f"{self.name}: reasoning of another vendor: {answer!r}")

    def reply(self, answer: Any, *, streams: bool) -> Reply:
        finish = "tool_calls" if "tool_calls" in answer else "stop"
        if not streams:
            facts = {"id": "a", "object": "chat.completion", "created": 1, "model": "m"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice = {"index": 0, "message": answer, "finish_reason": finish}
            return Reply.json({**facts, "choices": [choice], "usage": usage})
        indexed = [{"index": index, **call} for index, call in enumerate(answer.get("tool_calls") or ())]
        fields = [{name: value} for name, value in {**answer, "tool_calls": indexed}.items() if value]
        frames = [{"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in fields]
        frames.append({"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        return Reply([*map(sse, frames), b"data: [DONE]\n\n"])


class MistralChat(Chat):
    """Mistral, which refuses every field that it does not know, and wants ids of nine letters and digits."""

    name = "mistral"
    id_pattern = r"[A-Za-z0-9]{9}"
    ids = ("Abc123def", "Abc123deg")
    dropped = ("index", "prefix")
    wants_reasoning = False
    fields: ClassVar = {
        "system": {"role", "content"},
        "user": {"role", "content"},
        "assistant": {"role", "content", "tool_calls", "prefix"},
        "tool": {"role", "content", "tool_call_id", "name"},
    }

    @property
    def script(self) -> list[Any]:
        calls = super().script[0]["tool_calls"]
        return [
            {"role": "assistant", "content": self._content("thinks.", "I look."), "tool_calls": calls},
            {"role": "assistant", "content": self._content("knows.", "Mistral: wet.")},
            {"role": "assistant", "content": "Mistral: bye."},
        ]

    @staticmethod
    def _content(thought: str, text: str) -> list[Any]:
        thinking = [{"type": "text", "text": f"Mistral {thought}"}]
        return [{"type": "thinking", "thinking": thinking}, {"type": "text", "text": text}]

    def create_model(self, url: str, **settings: Any) -> LLM:
        return OpenAI("m", base_url=url + "/v1", server="mistral", **settings)

    def check(self, body: Any) -> int:
        require("stream_options" not in body, "mistral: stream_options is not permitted")
        for message in body["messages"]:
            unknown = message.keys() - self.fields[message["role"]]
            require(not unknown, f"mistral: {unknown} of a message is not permitted")
        return super().check(body)

    def foreign(self, answer: Any) -> None:
        content = answer.get("content") or ()
        thinks = isinstance(content, list) and any(item["type"] == "thinking" for item in content)
        require(not thinks, f"mistral: thoughts of another vendor: {answer!r}")


class Blocks(Vendor):
    """Vendors whose messages are lists of blocks, and whose results are blocks of the user."""

    kinds: ClassVar[tuple[str, str]]  # how a call and a result are told

    def turns(self, body: Any) -> list[tuple[str, Any]]:
        turns: list[tuple[str, Any]] = []
        before = None
        for message in body["messages"]:
            require(message["role"] != before, f"{self.name}: roles do not alternate")
            require(message["content"], f"{self.name}: a message is empty")
            before = message["role"]
            if before == "assistant":
                turns.append(("answer", message["content"]))
                continue
            results = [self.result_of(block) for block in message["content"] if self.is_result(block)]
            others = [block for block in message["content"] if not self.is_result(block)]
            first = message["content"][: len(results)]
            require(all(map(self.is_result, first)), f"{self.name}: results do not come first in their message")
            turns += [("results", results)] if results else []
            turns += [("user", others)] if others else []
        return turns

    @abstractmethod
    def is_result(self, block: Any) -> bool:
        """Whether a block is the result of a tool."""

    @abstractmethod
    def result_of(self, block: Any) -> str:
        """The id of the call that a block is the result of."""


class Messages(Blocks):
    """Anthropic."""

    name = "messages"
    id_pattern = r"[A-Za-z0-9_-]+"
    ids = ("toolu_1", "toolu_2")

    @property
    def script(self) -> list[Any]:
        calls = [
            {"type": "tool_use", "id": i, "name": "weather", "input": {"city": c}}
            for i, c in zip(self.ids, CITIES, strict=True)
        ]
        return [
            [
                {"type": "thinking", "thinking": "Claude thinks.", "signature": "claude-sig-0"},
                {"type": "redacted_thinking", "data": "claude-redacted"},
                {"type": "text", "text": "I look."},
                *calls,
            ],
            [
                {"type": "thinking", "thinking": "Claude knows.", "signature": "claude-sig-1"},
                {"type": "text", "text": "Claude: wet."},
            ],
            [{"type": "text", "text": "Claude: bye."}],
        ]

    def create_model(self, url: str, **settings: Any) -> LLM:
        return Anthropic("m", base_url=url, **settings)

    def is_result(self, block: Any) -> bool:
        return block["type"] == "tool_result"

    def result_of(self, block: Any) -> str:
        return block["tool_use_id"]

    def calls(self, answer: Any) -> list[str]:
        return [block["id"] for block in answer if block["type"] == "tool_use"]

    def told(self, answer: Any) -> str:
        return "".join(block["text"] for block in answer if block["type"] == "text")

    def foreign(self, answer: Any) -> None:
        known = {block["type"] for block in answer}
        require(known <= {"text", "tool_use"}, f"messages: blocks of another vendor: {answer!r}")

    def reply(self, answer: Any, *, streams: bool) -> Reply:
        reason = "tool_use" if self.calls(answer) else "end_turn"
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
        if not streams:
            return Reply.json({**message, "content": answer, "stop_reason": reason})
        events: list[Any] = [{"type": "message_start", "message": {**message, "content": []}}]
        for index, block in enumerate(answer):
            empty: dict[str, Any] = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}}
            deltas = {
                "thinking": [
                    {"type": "thinking_delta", "thinking": block.get("thinking")},
                    {"type": "signature_delta", "signature": block.get("signature")},
                ],
                "text": [{"type": "text_delta", "text": block.get("text")}],
                "tool_use": [{"type": "input_json_delta", "partial_json": json.dumps(block.get("input"))}],
            }
            start = {**block, **empty.get(block["type"], {"input": {}} if block["type"] == "tool_use" else {})}
            events.append({"type": "content_block_start", "index": index, "content_block": start})
            events += [
                {"type": "content_block_delta", "index": index, "delta": delta}
                for delta in deltas.get(block["type"], ())
            ]
            events.append({"type": "content_block_stop", "index": index})
        events += [{"type": "message_delta", "delta": {"stop_reason": reason}}, {"type": "message_stop"}]
        return Reply([sse(event, event=event["type"]) for event in events])


class Converse(Blocks):
    """Amazon Bedrock."""

    name = "converse"
    id_pattern = r"[a-zA-Z0-9_.:-]{1,64}"
    ids = ("tooluse_1", "tooluse_2")

    @property
    def script(self) -> list[Any]:
        calls = [
            {"toolUse": {"toolUseId": i, "name": "weather", "input": {"city": c}}}
            for i, c in zip(self.ids, CITIES, strict=True)
        ]
        return [
            [
                {"reasoningContent": {"reasoningText": {"text": "Bedrock thinks.", "signature": "aws-sig-0"}}},
                {"reasoningContent": {"redactedContent": "cmVkYWN0ZWQ="}},
                {"text": "I look."},
                *calls,
            ],
            [
                {"reasoningContent": {"reasoningText": {"text": "Bedrock knows.", "signature": "aws-sig-1"}}},
                {"text": "Bedrock: wet."},
            ],
            [{"text": "Bedrock: bye."}],
        ]

    def create_model(self, url: str, **settings: Any) -> LLM:
        return Bedrock("m", base_url=url, **settings)

    def streams(self, request: Received) -> bool:
        return request.path.endswith("-stream")

    def check(self, body: Any) -> int:
        blocks = [block for message in body["messages"] for block in message["content"]]
        has_calls = any({"toolUse", "toolResult"} & block.keys() for block in blocks)
        require(not has_calls or "toolConfig" in body, "converse: the toolConfig must be defined")
        return super().check(body)

    def is_result(self, block: Any) -> bool:
        return "toolResult" in block

    def result_of(self, block: Any) -> str:
        return block["toolResult"]["toolUseId"]

    def calls(self, answer: Any) -> list[str]:
        return [block["toolUse"]["toolUseId"] for block in answer if "toolUse" in block]

    def told(self, answer: Any) -> str:
        return "".join(block.get("text", "") for block in answer)

    def foreign(self, answer: Any) -> None:
        require(all(block.keys() <= {"text", "toolUse"} for block in answer), f"converse: foreign blocks: {answer!r}")

    def reply(self, answer: Any, *, streams: bool) -> Reply:
        reason = "tool_use" if self.calls(answer) else "end_turn"
        if not streams:
            return Reply.json({"output": {"message": {"role": "assistant", "content": answer}}, "stopReason": reason})
        events = [aws_event("messageStart", {"role": "assistant"})]
        for index, block in enumerate(answer):
            deltas: list[Any] = [block]
            if "toolUse" in block:
                call = dict(block["toolUse"])
                deltas = [{"toolUse": {"input": json.dumps(call.pop("input"))}}]
                events.append(aws_event("contentBlockStart", {"start": {"toolUse": call}, "contentBlockIndex": index}))
            elif thought := block.get("reasoningContent", {}).get("reasoningText"):
                deltas = [{"reasoningContent": {name: value}} for name, value in thought.items()]
            events += [aws_event("contentBlockDelta", {"delta": d, "contentBlockIndex": index}) for d in deltas]
            events.append(aws_event("contentBlockStop", {"contentBlockIndex": index}))
        events += [aws_event("messageStop", {"stopReason": reason}), aws_event("metadata", {"metrics": {}})]
        return Reply(events, content_type="application/vnd.amazon.eventstream")


class Generate(Vendor):
    """Gemini."""

    name = "gemini"
    ids = ("gem1", "gem2")
    skipped = "skip_thought_signature_validator"

    @property
    def script(self) -> list[Any]:
        first, second = (
            {"functionCall": {"id": i, "name": "weather", "args": {"city": c}}}
            for i, c in zip(self.ids, CITIES, strict=True)
        )
        return [
            [
                {"text": "Gemini thinks.", "thought": True},
                {"text": "I look."},
                {**first, "thoughtSignature": "gemini-sig-0"},
                second,
            ],
            [{"text": "Gemini: wet.", "thoughtSignature": "gemini-sig-1"}],
            [{"text": "Gemini: bye."}],
        ]

    def create_model(self, url: str, **settings: Any) -> LLM:
        return Gemini("m", base_url=url, **settings)

    def streams(self, request: Received) -> bool:
        return "stream" in request.path

    def turns(self, body: Any) -> list[tuple[str, Any]]:
        turns: list[tuple[str, Any]] = []
        before = None
        for content in body["contents"]:
            require(content["role"] != before, "gemini: roles do not alternate")
            before = content["role"]
            if before == "model":
                turns.append(("answer", content["parts"]))
                continue
            results = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
            require(all(result["name"] == "weather" for result in results), "gemini: a result without its name")
            turns += [("results", [result["id"] for result in results])] if results else []
            turns += [("user", content["parts"])] if len(results) < len(content["parts"]) else []
        return turns

    def calls(self, answer: Any) -> list[str]:
        return [part["functionCall"]["id"] for part in answer if "functionCall" in part]

    def told(self, answer: Any) -> str:
        return "".join(part.get("text", "") for part in answer if not part.get("thought"))

    def foreign(self, answer: Any) -> None:
        signatures = [part["thoughtSignature"] for part in answer if "thoughtSignature" in part]
        require(not any(part.get("thought") for part in answer), f"gemini: thoughts of another vendor: {answer!r}")
        require(signatures == [self.skipped] * bool(self.calls(answer)), f"gemini: foreign signatures: {answer!r}")

    def reply(self, answer: Any, *, streams: bool) -> Reply:
        content = {"role": "model", "parts": answer}
        document = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "responseId": "r"}
        return Reply(sse(document)) if streams else Reply.json(document)


class OllamaChat(Vendor):
    """Ollama, which takes any history; what matters is that each result names its call and its tool."""

    name = "ollama"
    ids = ("call_o1", "call_o2")
    dropped = ("index",)
    wants_reasoning = False

    @property
    def script(self) -> list[Any]:
        calls = [
            {"id": i, "function": {"name": "weather", "arguments": {"city": c}}}
            for i, c in zip(self.ids, CITIES, strict=True)
        ]
        return [
            {"role": "assistant", "content": "I look.", "thinking": "Ollama thinks.", "tool_calls": calls},
            {"role": "assistant", "content": "Ollama: wet.", "thinking": "Ollama knows."},
            {"role": "assistant", "content": "Ollama: bye."},
        ]

    def create_model(self, url: str, **settings: Any) -> LLM:
        return Ollama("m", base_url=url, **settings)

    def turns(self, body: Any) -> list[tuple[str, Any]]:
        named = [message for message in body["messages"] if message["role"] == "tool"]
        require(all(message.get("tool_name") == "weather" for message in named), "ollama: a result without its name")
        return Chat().turns(body)

    def calls(self, answer: Any) -> list[str]:
        return [call["id"] for call in answer.get("tool_calls") or ()]

    def told(self, answer: Any) -> str:
        return answer["content"]

    def foreign(self, answer: Any) -> None:
        require("thinking" not in answer, f"ollama: thoughts of another vendor: {answer!r}")

    def streams(self, request: Received) -> bool:
        return request.json.get("stream", True)

    def reply(self, answer: Any, *, streams: bool) -> Reply:
        document = {"model": "m", "message": answer, "done": True, "done_reason": "stop"}
        if not streams:
            return Reply.json(document)
        return Reply(json.dumps(document).encode() + b"\n", content_type="application/x-ndjson")


class CohereChat(Vendor):
    """Cohere."""

    name = "cohere"
    ids = ("weather_1", "weather_2")
    wants_reasoning = False

    @property
    def script(self) -> list[Any]:
        calls = [
            {"id": i, "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": c})}}
            for i, c in zip(self.ids, CITIES, strict=True)
        ]
        thought = {"type": "thinking", "thinking": "Cohere knows."}
        return [
            {"role": "assistant", "tool_plan": "Cohere plans.", "tool_calls": calls},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "Cohere: wet."}]},
            {"role": "assistant", "content": "Cohere: bye."},
        ]

    def create_model(self, url: str, **settings: Any) -> LLM:
        return Cohere("m", base_url=url, **settings)

    def turns(self, body: Any) -> list[tuple[str, Any]]:
        return Chat().turns(body)

    def calls(self, answer: Any) -> list[str]:
        return Chat().calls(answer)

    def told(self, answer: Any) -> str:
        return Chat().told(answer)

    def foreign(self, answer: Any) -> None:
        content = answer.get("content", "")
        thinks = isinstance(content, list) and any(item["type"] == "thinking" for item in content)
        require("tool_plan" not in answer and not thinks, f"cohere: thoughts of another vendor: {answer!r}")

    def reply(self, answer: Any, *, streams: bool) -> Reply:
        content = answer.get("content") or []
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        reason = "TOOL_CALL" if "tool_calls" in answer else "COMPLETE"
        if not streams:
            return Reply.json({"id": "a", "message": {**answer, "content": content}, "finish_reason": reason})

        def event(kind: str, name: str, told: Any, **more: Any) -> bytes:
            return sse({"type": kind, "delta": {"message": {name: told}}, **more}, event=kind)

        events = [event("message-start", "role", "assistant", id="a")]
        if plan := answer.get("tool_plan"):
            events.append(event("tool-plan-delta", "tool_plan", plan))
        events += [event("content-delta", "content", block, index=index) for index, block in enumerate(content)]
        for index, call in enumerate(answer.get("tool_calls") or ()):
            events.append(event("tool-call-start", "tool_calls", call, index=index))
            events.append(sse({"type": "tool-call-end", "index": index}))
        return Reply([*events, sse({"type": "message-end", "delta": {"finish_reason": reason}})])


class Responses(Vendor):
    """OpenAI's Responses, which are lists of items: reasoning stands before what was made after it."""

    name = "responses"
    id_pattern = r".{1,64}"
    ids = ("call_r1", "call_r2")
    dropped = ("status", "annotations", "logprobs", "phase")
    wants_reasoning = False  # what was made after it comes back without its id then

    @property
    def script(self) -> list[Any]:
        calls = [
            {
                "type": "function_call",
                "id": f"fc_{i}",
                "call_id": i,
                "name": "weather",
                "arguments": json.dumps({"city": c}),
            }
            for i, c in zip(self.ids, CITIES, strict=True)
        ]
        return [
            [self._thought(0), self._text(0, "I look."), *calls],
            [self._thought(1), self._text(1, "Responses: wet.")],
            [self._text(2, "Responses: bye.")],
        ]

    @staticmethod
    def _thought(place: int) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": f"Thought {place}."}]
        return {"type": "reasoning", "id": f"rs_{place}", "summary": summary, "encrypted_content": f"enc-{place}"}

    @staticmethod
    def _text(place: int, text: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {"type": "message", "id": f"msg_{place}", "role": "assistant", "content": content}

    def create_model(self, url: str, **settings: Any) -> LLM:
        return OpenAI("m", base_url=url + "/v1", api="responses", **settings)

    def turns(self, body: Any) -> list[tuple[str, Any]]:
        turns: list[tuple[str, Any]] = []
        for item in body["input"]:
            if item.get("type") == "function_call_output":
                kind, told = "results", item["call_id"]
            elif item.get("role") == "user":
                kind, told = "user", item
            else:
                kind, told = "answer", item
            if not turns or turns[-1][0] != kind or kind == "user":
                turns.append((kind, []))
            turns[-1][1].append(told)
        return turns

    def calls(self, answer: Any) -> list[str]:
        return [item["call_id"] for item in answer if item.get("type") == "function_call"]

    def told(self, answer: Any) -> str:
        contents = [item["content"] for item in answer if item.get("role") == "assistant"]
        return "".join(c if isinstance(c, str) else "".join(each["text"] for each in c) for c in contents)

    def plain(self, answer: Any) -> Any:
        # A call's id may be left out, unless the call directly follows reasoning.
        items = super().plain(answer)
        return [bare(item, "id") if item.get("type") == "function_call" else item for item in items]

    def foreign(self, answer: Any) -> None:
        require(not any("id" in item for item in answer), f"responses: ids of another vendor: {answer!r}")
        require(not any(item.get("type") == "reasoning" for item in answer), f"responses: foreign thoughts: {answer!r}")

    def reply(self, answer: Any, *, streams: bool) -> Reply:
        whole = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": answer}
        if not streams:
            return Reply.json(whole)
        events: list[Any] = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}]
        for index, item in enumerate(answer):
            deltas: dict[str, tuple[str, str]] = {
                "reasoning": ("reasoning_summary_text", item.get("summary", [{}])[0].get("text", "")),
                "message": ("output_text", (item.get("content") or [{}])[0].get("text", "")),
                "function_call": ("function_call_arguments", item.get("arguments", "")),
            }
            kind, delta = deltas[item["type"]]
            empty = {"summary": [], "content": [], "arguments": ""}
            begun = {name: empty.get(name, value) for name, value in item.items() if name != "encrypted_content"}
            place = {"output_index": index, "item_id": item["id"]}
            more = {"summary_index": 0, "content_index": 0}
            events += [
                {"type": "response.output_item.added", "output_index": index, "item": begun},
                {"type": f"response.{kind}.delta", **place, **more, "delta": delta},
                {"type": "response.output_item.done", "output_index": index, "item": item},
            ]
        events.append({"type": "response.completed", "response": whole})
        return Reply([sse(event, event=event["type"]) for event in events])


VENDORS: tuple[Vendor, ...] = (
    Chat(),
    Responses(),
    Messages(),
    Generate(),
    OllamaChat(),
    Converse(),
    CohereChat(),
    MistralChat(),
)
