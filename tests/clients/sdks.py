"""The vendors' own SDKs, asked at a URL: each function returns what its SDK makes of the answer.

A test that asks one needs the extra ``clients``; it imports this module only if that is installed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from anthropic import Anthropic
from attrs import define, field
from botocore.session import Session
from cohere import ClientV2
from google import genai
from mistralai.client import Mistral
from ollama import Client
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

__all__ = [
    "KEY",
    "Heard",
    "anthropic",
    "cohere",
    "converse",
    "google",
    "mistral",
    "ollama",
    "openai_chat",
    "openai_completion",
    "openai_response",
]

KEY = "key"
TURNS = [{"role": "user", "content": "hi"}]


@define
class Heard:
    """An answer as an SDK tells it.

    Attributes:
        text: the text.
        reasoning: the reasoning.
        calls: the name and the arguments of each tool call.
        finish: why the answer ended, in the vendor's word.
        input_tokens: the tokens of the prompt, with the cached ones.
        output_tokens: the tokens of the answer.
    """

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(factory=list)
    finish: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


def openai_chat(url: str, stream: bool) -> Heard:
    """openai, by chat completions: its chunks, and what its accumulator makes of them."""
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        asked: Any = {"model": "m", "messages": TURNS}
        if not stream:
            return _chat([client.chat.completions.create(**asked)], "message")
        chunks = [*client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})]
        heard = _chat(chunks, "delta")
        if heard.finish in ("stop", "tool_calls"):  # for others the SDK's accumulator raises
            state = ChatCompletionStreamState()
            for chunk in chunks:
                state.handle_chunk(chunk)
            joined = _chat([state.get_final_completion()], "message")
            assert heard == joined
        return heard


def _chat(chunks: Iterable[Any], field_name: str) -> Heard:
    heard = Heard()
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            message = getattr(choice, field_name)
            heard.text += message.content or ""
            heard.reasoning += getattr(message, "reasoning_content", None) or ""
            for place, call in enumerate(message.tool_calls or ()):
                known = calls.setdefault(place if field_name == "message" else call.index, ["", ""])
                known[0] += call.function.name or ""
                known[1] += call.function.arguments or ""
            heard.finish = choice.finish_reason or heard.finish
        if chunk.usage:
            heard.input_tokens, heard.output_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
    heard.calls = [(name, _parsed(arguments)) for name, arguments in calls.values()]
    return heard


def openai_completion(url: str, stream: bool) -> Heard:
    """openai, by completions, for which it has no accumulator."""
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        answer: Any = client.completions.create(model="m", prompt="hi", stream=stream)
        heard = Heard()
        for each in answer if stream else [answer]:
            for choice in each.choices:
                heard.text += choice.text
                heard.finish = choice.finish_reason or heard.finish
            if each.usage:
                heard.input_tokens, heard.output_tokens = each.usage.prompt_tokens, each.usage.completion_tokens
    return heard


def openai_response(url: str, stream: bool) -> Heard:
    """openai, by Responses; its accumulator joins the stream."""
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        if stream:
            with client.responses.stream(model="m", input="hi") as stream_of_events:
                events: list[Any] = [*stream_of_events]
                answer: Any = events[-1].response
                if answer.status == "completed":  # the accumulator wants no other end
                    assert answer.output == stream_of_events.get_final_response().output
            assert answer.output_text == "".join(e.delta for e in events if e.type == "response.output_text.delta")
        else:
            answer = client.responses.create(model="m", input="hi")
    return Heard(
        answer.output_text,
        "".join(part.text for item in answer.output if item.type == "reasoning" for part in item.summary),
        [(item.name, _parsed(item.arguments)) for item in answer.output if item.type == "function_call"],
        answer.incomplete_details.reason if answer.incomplete_details else answer.status,
        answer.usage.input_tokens,
        answer.usage.output_tokens,
    )


def anthropic(url: str, stream: bool) -> Heard:
    """anthropic; its accumulator joins the stream."""
    with Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        asked: Any = {"model": "m", "max_tokens": 99, "messages": TURNS}
        if stream:
            with client.messages.stream(**asked) as events:
                answer: Any = events.get_final_message()
        else:
            answer = client.messages.create(**asked)
    usage = answer.usage
    return Heard(
        "".join(block.text for block in answer.content if block.type == "text"),
        "".join(block.thinking for block in answer.content if block.type == "thinking"),
        [(block.name, block.input) for block in answer.content if block.type == "tool_use"],
        answer.stop_reason,
        usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0),
        usage.output_tokens,
    )


def google(url: str, stream: bool) -> Heard:
    """google-genai, which has no accumulator."""
    with genai.Client(api_key=KEY, http_options={"base_url": url}) as client:
        ask = client.models.generate_content_stream if stream else client.models.generate_content
        answer: Any = ask(model="model-1", contents="hi")
        heard = Heard()
        for each in answer if stream else [answer]:
            [candidate] = each.candidates
            for part in candidate.content.parts:
                if part.function_call:
                    heard.calls.append((part.function_call.name, part.function_call.args))
                elif part.thought:
                    heard.reasoning += part.text
                else:
                    heard.text += part.text or ""
            heard.finish = candidate.finish_reason.value if candidate.finish_reason else heard.finish
            counts = each.usage_metadata
            if counts:
                heard.input_tokens = counts.prompt_token_count
                heard.output_tokens = (counts.candidates_token_count or 0) + (counts.thoughts_token_count or 0)
    return heard


def ollama(url: str, stream: bool) -> Heard:
    """ollama, which has no accumulator."""
    client = Client(host=url)
    with contextlib.closing(client._client):
        answer: Any = client.chat(model="m", messages=TURNS, stream=stream)
        heard = Heard()
        for each in answer if stream else [answer]:
            heard.text += each.message.content or ""
            heard.reasoning += each.message.thinking or ""
            heard.calls += [(call.function.name, call.function.arguments) for call in each.message.tool_calls or ()]
            heard.finish = each.done_reason or heard.finish
            heard.input_tokens, heard.output_tokens = each.prompt_eval_count, each.eval_count
    return heard


def cohere(url: str, stream: bool) -> Heard:
    """cohere, which has no accumulator."""
    with ClientV2(api_key=KEY, base_url=url) as client:
        if not stream:
            answer: Any = client.chat(model="m", messages=TURNS)
            content = answer.message.content or ()
            return Heard(
                "".join(item.text for item in content if item.type == "text"),
                "".join(item.thinking for item in content if item.type == "thinking"),
                [(c.function.name, _parsed(c.function.arguments)) for c in answer.message.tool_calls or ()],
                answer.finish_reason,
                *_cohere_counts(answer.usage),
            )
        heard = Heard()
        calls: list[list[str]] = []
        for event in client.chat_stream(model="m", messages=TURNS):
            message = getattr(getattr(event, "delta", None), "message", None)
            if event.type in ("content-start", "content-delta"):
                heard.text += message.content.text or ""
                heard.reasoning += message.content.thinking or ""
            elif event.type == "tool-call-start":
                calls.append([message.tool_calls.function.name, message.tool_calls.function.arguments])
            elif event.type == "tool-call-delta":
                calls[-1][1] += message.tool_calls.function.arguments
            elif event.type == "message-end":
                heard.finish = event.delta.finish_reason
                heard.input_tokens, heard.output_tokens = _cohere_counts(event.delta.usage)
        heard.calls = [(name, _parsed(arguments)) for name, arguments in calls]
        return heard


def _cohere_counts(usage: Any) -> tuple[int, int]:
    return int(usage.tokens.input_tokens), int(usage.tokens.output_tokens)


def mistral(url: str, stream: bool) -> Heard:
    """mistralai, which has no accumulator."""
    with Mistral(api_key=KEY, server_url=url) as client:
        if not stream:
            answer: Any = client.chat.complete(model="m", messages=TURNS)
            return _mistral([answer], "message")
        with client.chat.stream(model="m", messages=TURNS) as events:
            return _mistral([event.data for event in events], "delta")


def _mistral(chunks: Iterable[Any], field_name: str) -> Heard:
    heard = Heard()
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            message = getattr(choice, field_name)
            content = message.content or ()
            for item in [content] if isinstance(content, str) else content:
                if isinstance(item, str):
                    heard.text += item
                elif item.type == "thinking":
                    heard.reasoning += "".join(each.text for each in item.thinking)
                else:
                    heard.text += item.text
            for place, call in enumerate(message.tool_calls or ()):
                known = calls.setdefault(place if field_name == "message" else call.index, ["", ""])
                known[0] = known[0] or call.function.name
                known[1] += call.function.arguments
            heard.finish = choice.finish_reason or heard.finish
        if chunk.usage:
            heard.input_tokens, heard.output_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
    heard.calls = [(name, _parsed(arguments)) for name, arguments in calls.values()]
    return heard


def converse(url: str, stream: bool) -> Heard:
    """botocore, which has no accumulator."""
    session = Session()
    session.set_credentials("id", "secret")
    client: Any = session.create_client("bedrock-runtime", region_name="eu-west-1", endpoint_url=url)
    turns = [{"role": "user", "content": [{"text": "hi"}]}]
    try:
        if stream:
            with contextlib.closing(client.converse_stream(modelId="m", messages=turns)["stream"]) as events:
                return _events([*events])
        answer = client.converse(modelId="m", messages=turns)
    finally:
        client.close()
    content = answer["output"]["message"]["content"]
    thoughts = [block["reasoningContent"]["reasoningText"]["text"] for block in content if "reasoningContent" in block]
    return Heard(
        "".join(block.get("text", "") for block in content),
        "".join(thoughts),
        [(block["toolUse"]["name"], block["toolUse"]["input"]) for block in content if "toolUse" in block],
        answer["stopReason"],
        answer["usage"]["inputTokens"],
        answer["usage"]["outputTokens"],
    )


def _events(events: Sequence[Any]) -> Heard:
    heard = Heard()
    calls: list[list[str]] = []
    for event in events:
        if start := event.get("contentBlockStart"):
            calls.append([start["start"]["toolUse"]["name"], ""])
        delta = event.get("contentBlockDelta", {}).get("delta", {})
        heard.text += delta.get("text", "")
        heard.reasoning += delta.get("reasoningContent", {}).get("text", "")
        if "toolUse" in delta:
            calls[-1][1] += delta["toolUse"]["input"]
        heard.finish = event.get("messageStop", {}).get("stopReason", heard.finish)
        if usage := event.get("metadata", {}).get("usage"):
            heard.input_tokens, heard.output_tokens = usage["inputTokens"], usage["outputTokens"]
    heard.calls = [(name, _parsed(arguments)) for name, arguments in calls]
    return heard


def _parsed(arguments: str) -> Any:
    return json.loads(arguments or "{}")
