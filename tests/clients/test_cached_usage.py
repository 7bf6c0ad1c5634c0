"""The token counts of prompts that were partly cached: what the vendors' SDKs report, and what rxllm reports.

Each stream is written by hand. A prompt of 1,000 tokens read 600 from a cache and, where the protocol says so, wrote
300 to it; the answer took 20 tokens, 8 of them for reasoning. The page ``docs/providers/usage.md`` shows the table.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from protocols import aws_event, sse

import rxllm
from rxllm import LLM, Usage
from rxllm.showing import set_fields
from rxllm.testing import FakeServer, Reply

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "usage.md"
KEY = "key"


@frozen
class Case:
    """A stream, and how to read it.

    Attributes:
        title: the name of the protocol in the table.
        reply: the response of the server.
        model: returns rxllm's model at a URL.
        package: the package of the vendor's SDK.
        figures: returns the counts that the SDK reports when it is asked at a URL.
        expected: rxllm's counts.
    """

    title: str
    reply: Reply
    model: Callable[[str], LLM]
    package: str
    figures: Callable[[str], Any]
    expected: Usage


def events(*documents: dict[str, Any], named: bool = False) -> bytes:
    """Return server-sent events."""
    return b"".join(sse(each, each["type"] if named else "") for each in documents)


ALL = Usage(
    input_tokens=1000,
    output_tokens=20,
    cache_read_input_tokens=600,
    cache_creation_input_tokens=300,
    reasoning_output_tokens=8,
)
READ = Usage(input_tokens=1000, output_tokens=20, cache_read_input_tokens=600, reasoning_output_tokens=8)
WRITTEN = Usage(input_tokens=1000, output_tokens=20, cache_read_input_tokens=600, cache_creation_input_tokens=300)

CHAT = events(
    {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": "Tea."}, "finish_reason": "stop"}]},
    {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": {
        "prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
        "completion_tokens_details": {"reasoning_tokens": 8}}},
) + b"data: [DONE]\n\n"  # fmt: skip

RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": [],
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": {
        "input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020,
        "input_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
        "output_tokens_details": {"reasoning_tokens": 8}},
}  # fmt: skip
RESPONSES = events(
    {"type": "response.created", "sequence_number": 0,
     "response": {**RESPONSE, "status": "in_progress", "usage": None}},
    {"type": "response.completed", "sequence_number": 1, "response": RESPONSE},
    named=True,
)  # fmt: skip

MESSAGES = events(
    {"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 600,
                                         "cache_creation_input_tokens": 300}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Tea."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {
        "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 8}}},
    {"type": "message_stop"},
    named=True,
)  # fmt: skip

GEMINI = events({
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Tea."}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 12, "thoughtsTokenCount": 8,
                      "cachedContentTokenCount": 600, "totalTokenCount": 1020},
    "modelVersion": "m",
}).replace(b"\n", b"\r\n")  # fmt: skip

CONVERSE = b"".join([
    aws_event("messageStart", {"role": "assistant"}),
    aws_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Tea."}}),
    aws_event("contentBlockStop", {"contentBlockIndex": 0}),
    aws_event("messageStop", {"stopReason": "end_turn"}),
    aws_event("metadata", {"metrics": {"latencyMs": 1}, "usage": {
        "inputTokens": 100, "outputTokens": 20, "totalTokens": 1020, "cacheReadInputTokens": 600,
        "cacheWriteInputTokens": 300}}),
])  # fmt: skip

COHERE = events(
    {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Tea."}}}},
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {
        "billed_units": {"input_tokens": 400, "output_tokens": 20},
        "tokens": {"input_tokens": 1000, "output_tokens": 20}, "cached_tokens": 600}}},
    named=True,
)  # fmt: skip

OLLAMA = b"".join(json.dumps(line).encode() + b"\n" for line in (
    {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": "Tea."},
     "done": False},
    {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": ""}, "done": True,
     "done_reason": "stop", "prompt_eval_count": 1000, "eval_count": 20},
))  # fmt: skip

MISTRAL = CHAT.replace(b', "completion_tokens_details": {"reasoning_tokens": 8}', b"").replace(
    b', "cache_write_tokens": 300', b""
)


def asked_openai(url: str) -> Any:
    """Return the usage that openai reports of a chat completion."""
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        options = {"include_usage": True}
        stream = client.chat.completions.create(model="m", messages=[], stream=True, stream_options=options)
        return [chunk.usage for chunk in stream][-1]


def asked_responses(url: str) -> Any:
    """Return the usage that openai reports of a response."""
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        return [event.response.usage for event in client.responses.create(model="m", input="hi", stream=True)][-1]


def asked_anthropic(url: str) -> Any:
    """Return the usage that anthropic adds up."""
    from anthropic import Anthropic

    with Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        turns = [{"role": "user", "content": "hi"}]
        with client.messages.stream(model="m", max_tokens=99, messages=turns) as stream:
            return stream.get_final_message().usage


def asked_gemini(url: str) -> Any:
    """Return the usage that google-genai reports."""
    from google import genai

    with genai.Client(api_key=KEY, http_options={"base_url": url}) as client:
        return [each.usage_metadata for each in client.models.generate_content_stream(model="m", contents="hi")][-1]


def asked_bedrock(url: str) -> Any:
    """Return the usage that botocore reports."""
    from botocore.session import Session

    session = Session()
    session.set_credentials("id", "secret")
    client = session.create_client("bedrock-runtime", region_name="eu-west-1", endpoint_url=url)
    stream = client.converse_stream(modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}])
    usage = [event["metadata"]["usage"] for event in stream["stream"] if "metadata" in event][-1]
    client.close()
    return usage


def asked_cohere(url: str) -> Any:
    """Return the usage that cohere reports."""
    from cohere import ClientV2

    with ClientV2(api_key=KEY, base_url=url) as client:
        turns = [{"role": "user", "content": "hi"}]
        return [
            each.delta.usage for each in client.chat_stream(model="m", messages=turns) if each.type == "message-end"
        ][-1]


def asked_ollama(url: str) -> Any:
    """Return the counts that ollama reports."""
    from ollama import Client

    client = Client(host=url)
    last = [*client.chat(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)][-1]
    client._client.close()
    return {name: getattr(last, name) for name in ("prompt_eval_count", "eval_count")}


def asked_mistral(url: str) -> Any:
    """Return the usage that mistralai reports."""
    from mistralai.client import Mistral

    with Mistral(api_key=KEY, server_url=url) as client:
        turns = [{"role": "user", "content": "hi"}]
        with client.chat.stream(model="m", messages=turns) as stream:
            return [event.data.usage for event in stream][-1]


CASES = [
    Case(
        "OpenAI, chat",
        Reply(CHAT),
        lambda url: rxllm.OpenAI("m", base_url=f"{url}/v1", api_key=KEY),
        "openai",
        asked_openai,
        ALL,
    ),
    Case(
        "OpenAI, Responses",
        Reply(RESPONSES),
        lambda url: rxllm.OpenAI("m", base_url=f"{url}/v1", api="responses", api_key=KEY),
        "openai",
        asked_responses,
        ALL,
    ),
    Case(
        "Anthropic",
        Reply(MESSAGES),
        lambda url: rxllm.Anthropic("m", base_url=url, api_key=KEY),
        "anthropic",
        asked_anthropic,
        ALL,
    ),
    Case("Gemini", Reply(GEMINI), lambda url: rxllm.Gemini("m", base_url=url), "google.genai", asked_gemini, READ),
    Case(
        "Bedrock",
        Reply(CONVERSE, content_type="application/vnd.amazon.eventstream"),
        lambda url: rxllm.Bedrock("m", base_url=url, region="eu-west-1", api_key=KEY),
        "botocore",
        asked_bedrock,
        WRITTEN,
    ),
    Case(
        "Cohere",
        Reply(COHERE),
        lambda url: rxllm.Cohere("m", base_url=url),
        "cohere",
        asked_cohere,
        Usage(input_tokens=1000, output_tokens=20, cache_read_input_tokens=600),
    ),
    Case(
        "Ollama",
        Reply(OLLAMA, content_type="application/x-ndjson"),
        lambda url: rxllm.Ollama("m", base_url=url),
        "ollama",
        asked_ollama,
        Usage(input_tokens=1000, output_tokens=20),
    ),
    Case(
        "Mistral",
        Reply(MISTRAL),
        lambda url: rxllm.OpenAI("m", server="mistral", base_url=f"{url}/v1", api_key=KEY),
        "mistralai",
        asked_mistral,
        Usage(input_tokens=1000, output_tokens=20, cache_read_input_tokens=600),
    ),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)


def counts_in(value: Any, prefix: str = "") -> dict[str, int]:
    """Return the counts of an SDK's object, by their dotted names, but for the totals."""
    if not isinstance(value, Mapping):
        value = value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value.dict()
    counts: dict[str, int] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            counts |= counts_in(item, f"{prefix}{name}.")
        elif isinstance(item, (int, float)) and item and "total" not in name.lower():
            counts[f"{prefix}{name}"] = int(item)
    return counts


def cell(counts: Mapping[str, object]) -> str:
    """Return counts as a cell of the table."""
    return ", ".join(f"`{name}` {count}" for name, count in counts.items())


def shown() -> dict[str, list[str]]:
    """Return the rows of the table on the page, by their first cell."""
    [table] = re.findall(r"<!-- usage -->\n(.*)\n<!-- end of usage -->", PAGE.read_text("utf-8"), re.DOTALL)
    rows = [[text.strip() for text in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


@each
def test_rxllm_counts_a_cached_prompt_as_the_page_says(case):
    """The input includes what was read from a cache and what was written to one, whatever the vendor's words."""
    with FakeServer(case.reply) as server:
        usage = case.model(server.url).invoke("hi", max_tokens=99).usage
    assert case.expected == usage
    assert cell({field.name: count for field, count in set_fields(usage)}) == shown()[case.title][1]


@each
def test_the_sdk_reports_the_figures_on_the_page(case):
    """The vendor's own client reads the same bytes."""
    if importlib.util.find_spec(case.package.partition(".")[0]) is None:
        pytest.skip("the extra 'clients' is not installed")
    with FakeServer(case.reply) as server:
        figures = case.figures(server.url)
    assert cell(counts_in(figures)) == shown()[case.title][0]


def test_the_page_has_no_other_row():
    """Each row is of a case above."""
    assert [case.title for case in CASES] == [*shown()]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_cache_hit_tokens": 600, "prompt_cache_miss_tokens": 400},
        {"cached_tokens": 600},
        {"cached_tokens": 600, "prompt_tokens_details": {"audio_tokens": 0}},
    ],
    ids=["DeepSeek", "Moonshot", "both"],
)
def test_other_spellings_of_the_tokens_from_a_cache_are_known(usage):
    """Some servers of OpenAI's protocol have a field of their own for them."""
    last = {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 20, **usage}}
    first = {"choices": [{"delta": {"content": "Tea."}, "finish_reason": "stop"}]}
    with FakeServer(Reply(events(first, last) + b"data: [DONE]\n\n")) as server:
        answer = rxllm.OpenAI("m", base_url=server.url).invoke("hi")
    assert Usage(input_tokens=1000, output_tokens=20, cache_read_input_tokens=600) == answer.usage
