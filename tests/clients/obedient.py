"""`Obedient`: a local server whose model does what a request asks, in OpenAI's chat protocol and in Anthropic's.

The model calls a tool if the request forces it or the prompt asks for it, and then answers with the result. It fills
arguments and JSON by the schema, with the numbers and the quoted words of the prompt. It ends at a stop sequence, and
counts words as tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from protocols import Chat, Messages, ToolCall

from rxllm.testing import FakeServer, Received, Reply

__all__ = ["Obedient"]

SPEECH = "Hello to you, my friend. What can I do?"


@frozen
class _Asked:
    """A request, in neutral words.

    Attributes:
        prompt: the text of the last message.
        has_result: whether the last message is the result of a tool.
        tools: the schema of each tool, by its name.
        choice: ``auto``, ``any``, ``none`` or the name of a tool.
        schema: the JSON schema of the answer; ``{}`` for any JSON, None for text.
        stops: the texts at which the answer ends.
    """

    prompt: str
    has_result: bool
    tools: Mapping[str, Any]
    choice: str
    schema: Mapping[str, Any] | None
    stops: Sequence[str]


class Obedient(FakeServer):
    """The server."""

    def __init__(self) -> None:
        super().__init__(self.answer)

    def answer(self, request: Received) -> Reply:
        """Return the answer to a request."""
        body = request.json
        is_chat = request.path.endswith("/chat/completions")
        asked = _chat(body) if is_chat else _messages(body)
        protocol = (Chat if is_chat else Messages)(model=body["model"])
        content = _content(asked)
        words = content.get("text", ["call"])
        usage = (max(1, len(json.dumps(body).split())), len(words))
        if body.get("stream"):
            return Reply(protocol.stream(**content, usage=usage))
        return Reply.json(protocol.whole(**content, usage=usage))


def _content(asked: _Asked) -> dict[str, Any]:
    name = _called(asked)
    if name is not None:
        arguments = json.dumps(_value(asked.tools[name], asked.prompt), ensure_ascii=False)
        return {"tool_call": ToolCall("call_1", name, [arguments[:5], arguments[5:]])}
    text = SPEECH
    if asked.schema is not None:
        keys = re.findall(r"'(\w+)'", asked.prompt)
        schema = asked.schema or {"properties": {key: {"type": "string"} for key in keys}, "required": keys}
        text = json.dumps(_value(schema, asked.prompt))
    for stop in asked.stops:
        text = text.partition(stop)[0]
    return {"text": re.findall(r"\s*\S+", text) or [""]}


def _called(asked: _Asked) -> str | None:
    """Return the tool that the model calls."""
    if asked.choice in asked.tools:
        return asked.choice
    is_wanted = not asked.has_result and re.search(r"(?i)use the tool|weather|using the tool", asked.prompt)
    if asked.tools and asked.choice != "none" and (asked.choice == "any" or is_wanted):
        return next(iter(asked.tools))
    return None


def _value(schema: Mapping[str, Any], prompt: str) -> Any:
    """Return a value that fits a schema, with words of the prompt."""
    if "anyOf" in schema:
        return _value(schema["anyOf"][0], prompt)
    numbers, quoted = re.findall(r"\d+", prompt), re.findall(r"'([^']+)'", prompt)
    match schema.get("type", "object"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _value(properties[name], prompt) for name in schema.get("required", properties)}
        case "array":
            return [_value(schema.get("items", {}), prompt)]
        case "integer" | "number":
            return int(numbers[0]) if numbers else 7
        case "boolean":
            return True
        case _:
            return quoted[0] if quoted else "pirate"


def _text(content: Any) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content or ())


def _chat(body: Mapping[str, Any]) -> _Asked:
    last = body["messages"][-1]
    choice = body.get("tool_choice", "auto")
    form = body.get("response_format")
    return _Asked(
        _text(last["content"]),
        last["role"] == "tool",
        {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", ())},
        choice["function"]["name"] if isinstance(choice, dict) else {"required": "any"}.get(choice, choice),
        None if form is None else form.get("json_schema", {}).get("schema", {}),
        body.get("stop") or (),
    )


def _messages(body: Mapping[str, Any]) -> _Asked:
    content = body["messages"][-1]["content"]
    choice = body.get("tool_choice") or {"type": "auto"}
    form = (body.get("output_config") or {}).get("format")
    return _Asked(
        _text(content),
        not isinstance(content, str) and any(block["type"] == "tool_result" for block in content),
        {tool["name"]: tool["input_schema"] for tool in body.get("tools", ())},
        choice.get("name", choice["type"]),
        None if form is None else form["schema"],
        body.get("stop_sequences") or (),
    )
