"""A conversation with tools, by each vendor's SDK in the way that its documentation shows, and by rxllm.

The servers of `vendors` refuse a history that is not as the real ones want it. The SDKs must pass them too, else they
would be stricter than the vendors; and what rxllm sends must be what the SDK sends.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import vendors
from attrs import frozen
from vendors import Vendor, bare

from rxllm import Message, ToolResultPart, ToolSpec
from rxllm.testing import FakeServer

if importlib.util.find_spec("mistralai") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

from anthropic import Anthropic
from botocore.session import Session
from cohere import ClientV2
from google import genai
from google.genai import types
from mistralai.client import Mistral
from openai import OpenAI

KEY = "key"
ASKED, RESULT, THANKS = "How wet is it?", "Very.", "Thanks."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION: dict[str, Any] = {"name": "weather", "description": "The weather", "parameters": SCHEMA}


def openai_chat(url: str) -> str:
    """The answer is appended as it came, with the reasoning_content that DeepSeek wants back."""
    turns: list[Any] = [{"role": "user", "content": ASKED}]
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:

        def ask() -> Any:
            tools: Any = [{"type": "function", "function": FUNCTION}]
            return client.chat.completions.create(model="m", messages=turns, tools=tools).choices[0].message

        turns.append(answer := ask())
        turns += [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in answer.tool_calls]
        turns += [ask(), {"role": "user", "content": THANKS}]
        return ask().content


def openai_responses(url: str) -> str:
    """``input += response.output``."""
    items: list[Any] = [{"role": "user", "content": ASKED}]
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:

        def ask() -> Any:
            tools: Any = [{"type": "function", "strict": False, **FUNCTION}]
            include: Any = ["reasoning.encrypted_content"]
            return client.responses.create(model="m", input=items, tools=tools, store=False, include=include)

        items += (answer := ask()).output
        calls = [item for item in answer.output if item.type == "function_call"]
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": RESULT} for call in calls]
        items += [*ask().output, {"role": "user", "content": THANKS}]
        return ask().output_text


def anthropic(url: str) -> str:
    """The content is appended as the assistant's."""
    turns: list[Any] = [{"role": "user", "content": [{"type": "text", "text": ASKED}]}]
    with Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:

        def ask() -> Any:
            tools: Any = [{"name": "weather", "description": "The weather", "input_schema": SCHEMA}]
            return client.messages.create(model="m", max_tokens=99, messages=turns, tools=tools).content

        turns.append({"role": "assistant", "content": (answer := ask())})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": RESULT}
            for block in answer
            if block.type == "tool_use"
        ]
        turns.append({"role": "user", "content": results})
        turns.append({"role": "assistant", "content": ask()})
        turns.append({"role": "user", "content": [{"type": "text", "text": THANKS}]})
        return "".join(block.text for block in ask())


def google(url: str) -> str:
    """``contents.append(response.candidates[0].content)``."""

    def said(text: str) -> Any:
        return types.Content(role="user", parts=[types.Part(text=text)])

    contents = [said(ASKED)]
    with genai.Client(api_key=KEY, http_options={"base_url": url}) as client:
        declared = types.FunctionDeclaration(name="weather", description="The weather", parameters_json_schema=SCHEMA)
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])

        def ask() -> Any:
            return client.models.generate_content(model="m", contents=contents, config=config).candidates[0].content

        contents.append(answer := ask())
        calls = [part.function_call for part in answer.parts if part.function_call]
        results = [types.FunctionResponse(id=each.id, name=each.name, response={"output": RESULT}) for each in calls]
        contents.append(types.Content(role="user", parts=[types.Part(function_response=each) for each in results]))
        contents += [ask(), said(THANKS)]
        return "".join(part.text for part in ask().parts)


def cohere(url: str) -> str:
    """``messages.append(response.message)``."""
    turns: list[Any] = [{"role": "user", "content": ASKED}]
    with ClientV2(api_key=KEY, base_url=url) as client:

        def ask() -> Any:
            tools: Any = [{"type": "function", "function": FUNCTION}]
            return client.chat(model="m", messages=turns, tools=tools).message

        turns.append(answer := ask())
        turns += [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in answer.tool_calls]
        turns += [ask(), {"role": "user", "content": THANKS}]
        return ask().content[0].text


def mistral(url: str) -> str:
    """``messages.append(response.choices[0].message)``."""
    turns: list[Any] = [{"role": "user", "content": ASKED}]
    with Mistral(api_key=KEY, server_url=url) as client:

        def ask() -> Any:
            tools: Any = [{"type": "function", "function": FUNCTION}]
            return client.chat.complete(model="m", messages=turns, tools=tools).choices[0].message

        turns.append(answer := ask())
        turns += [
            {"role": "tool", "name": call.function.name, "tool_call_id": call.id, "content": RESULT}
            for call in answer.tool_calls
        ]
        turns += [ask(), {"role": "user", "content": THANKS}]
        return ask().content


def converse(url: str) -> str:
    """``messages.append(response["output"]["message"])``."""
    session = Session()
    session.set_credentials("id", "secret")
    client: Any = session.create_client("bedrock-runtime", region_name="eu-west-1", endpoint_url=url)
    spec = {"name": "weather", "description": "The weather", "inputSchema": {"json": SCHEMA}}
    turns: list[Any] = [{"role": "user", "content": [{"text": ASKED}]}]

    def ask() -> Any:
        tools = {"tools": [{"toolSpec": spec}]}
        return client.converse(modelId="m", messages=turns, toolConfig=tools)["output"]["message"]

    turns.append(answer := ask())
    calls = [block["toolUse"] for block in answer["content"] if "toolUse" in block]
    results = [{"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": RESULT}]}} for call in calls]
    turns.append({"role": "user", "content": results})
    turns += [ask(), {"role": "user", "content": [{"text": THANKS}]}]
    said = ask()["content"][0]["text"]
    client.close()
    return said


@frozen
class Talk:
    """A conversation by an SDK, and the server that checks it.

    Attributes:
        sdk: holds the conversation at a URL and returns the last text.
        vendor: the server.
        place: where the body has the conversation.
        dropped: fields that only one of the two sends, and that the vendor does not need.
    """

    sdk: Callable[[str], str]
    vendor: Vendor
    place: str
    dropped: tuple[str, ...] = ()


# Ollama is missing: its SDK's messages have no id of a call.
TALKS = (
    Talk(openai_chat, vendors.Chat(), "messages"),
    Talk(openai_responses, vendors.Responses(), "input", ("status", "annotations", "type", "id")),
    Talk(anthropic, vendors.Messages(), "messages"),
    Talk(google, vendors.Generate(), "contents"),
    Talk(cohere, vendors.CohereChat(), "messages"),
    Talk(mistral, vendors.MistralChat(), "messages", ("index", "prefix")),
    Talk(converse, vendors.Converse(), "messages"),
)
talks = pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.vendor.name)


@talks
def test_the_sdk_passes_the_server(talk):
    """The server refuses nothing that the vendor's own client sends."""
    with FakeServer(talk.vendor.answer) as server:
        assert talk.sdk(server.url).endswith(": bye.")
        assert 3 == len(server.requests)


@talks
def test_rxllm_sends_the_history_that_the_sdk_sends(talk):
    """Turn by turn: the texts, the thoughts with their proofs, the calls and their results."""
    with FakeServer(talk.vendor.answer) as server:
        talk.sdk(server.url)
        tools = [ToolSpec("weather", "The weather", SCHEMA)]
        llm = talk.vendor.create_model(server.url, api_key=KEY, tools=tools, max_retries=0, stream=False)
        history = [Message("user", ASKED)]
        history.append(first := llm.invoke(history))
        history += [Message("tool", [ToolResultPart(call.id, RESULT, name=call.name)]) for call in first.tool_calls]
        history.append(llm.invoke(history))
        llm.invoke([*history, Message("user", THANKS)])
        bodies = [plain(request.json[talk.place], talk.dropped) for request in server.requests]
    assert bodies[:3] == bodies[3:]


def plain(conversation: Any, dropped: tuple[str, ...]) -> Any:
    """The conversation without empty fields; a text alone, and a list of one text, are the same."""
    return [shortened(item) for item in bare(conversation, *dropped)]


def shortened(item: Any) -> Any:
    """An item with the content as a text where it is a list of one text."""
    match item.get("content"):
        case [{"text": text, **rest}] if rest.keys() <= {"type"} and len(item["content"]) == 1:
            return {**item, "content": text}
        case _:
            return item
