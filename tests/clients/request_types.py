"""The types by which the vendors' SDKs describe a request, one `Vendor` for each protocol that rxllm speaks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, NotRequired

import botocore.session
import protocols
from anthropic.types.message_create_params import MessageCreateParams
from attrs import field, frozen
from cohere.v2.raw_client import RawV2Client
from google.genai import types as genai
from mistralai.client import models as mistral
from ollama import Message as OllamaMessage
from ollama import Tool as OllamaTool
from ollama._types import ChatRequest as OllamaRequest
from openai.types.chat.completion_create_params import CompletionCreateParams as ChatParams
from openai.types.completion_create_params import CompletionCreateParams
from openai.types.responses import ResponseOutputMessageParam
from openai.types.responses.response_create_params import ResponseCreateParams
from typing_extensions import TypedDict
from wire_types import NOTHING, Corrections, misfits

from rxllm import LLM, Anthropic, Bedrock, Cohere, Gemini, Message, Ollama, OpenAI
from rxllm.values.request import Request

__all__ = ["VENDORS", "Vendor"]


@frozen
class Vendor:
    """A protocol, the model that rxllm asks by it, and the judge of its requests.

    Attributes:
        name: the id of a parametrised test.
        llm: the model; nothing is sent to it.
        judge: a function that returns the misfits of a request's JSON.
        protocol: the writer of answers.
        needed: the keys of the body that it must have.
        optional: the paths of the keys further down that an object of the request can do without.
        free: the keys whose value is the program's own JSON, in which the vendor knows no key.
    """

    name: str
    llm: LLM
    judge: Callable[[Any], list[str]]
    protocol: protocols.Protocol
    needed: Collection[str] = field(converter=str.split, kw_only=True)
    optional: Collection[str] = field(converter=str.split, kw_only=True)
    free: Collection[str] = field(converter=str.split, kw_only=True, default="")

    def answers(self) -> list[Message]:
        """Answers of this vendor, which go back into a conversation."""
        call = protocols.ToolCall("call_1", "weather", ['{"city": "Ulm"}'])
        said: list[dict[str, Any]] = [{"text": ["Hello."]}]
        if "reasoning" in self.protocol.speaks:
            said += [{"reasoning": ["Hm."], "text": ["Hello."]}, {"reasoning": ["Hm."], "tool_call": call}]
        if "tool_call" in self.protocol.speaks:
            said += [{"text": ["I look."], "tool_call": call}]
        request = Request(prompt="hi")
        return [self.llm._whole(self.protocol.whole(**each), request).message() for each in said]


def _judge(kind: Any, corrections: Corrections = NOTHING) -> Callable[[Any], list[str]]:
    return lambda body: [str(misfit) for misfit in misfits(body, kind, corrections)]


# https://github.com/openai/codex sends the answers of a conversation without ids, as rxllm does.
RESPONSES = Corrections(optional={ResponseOutputMessageParam: ("id", "status")})

# https://docs.claude.com/en/api/versioning: the version 2023-06-01, which rxllm names, has what the SDK dropped.
ANTHROPIC = Corrections(
    further={kind: {"temperature": float, "top_p": float, "top_k": int} for kind in MessageCreateParams.__args__}
)


# The fields of the constant "function" are texts in the SDK.
MISTRAL = Corrections(
    further={mistral.ToolCall: {"type": Literal["function"]}, mistral.ToolChoice: {"type": Literal["function"]}}
)


class GeminiRequest(TypedDict):
    """The body of generateContent: https://ai.google.dev/api/generate-content; the SDK has types for its fields."""

    contents: list[genai.Content]
    systemInstruction: NotRequired[genai.Content]
    generationConfig: NotRequired[genai.GenerationConfig]
    tools: NotRequired[list[genai.Tool]]
    toolConfig: NotRequired[genai.ToolConfig]


_DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult")


def _one_datum(part: Mapping[str, Any]) -> str | None:
    data = [name for name in _DATA if name in part]
    return None if len(data) == 1 else f"has {data}, not one of {_DATA}"


# The SDK's types call all fields optional.
GEMINI = Corrections(
    required={
        genai.Content: ("parts",),
        genai.FunctionDeclaration: ("name",),
        genai.FunctionCall: ("name",),
        genai.FunctionResponse: ("name", "response"),
        genai.Blob: ("data", "mimeType"),
        genai.FunctionResponseBlob: ("data", "mimeType"),
        genai.FileData: ("fileUri",),
        genai.FunctionCallingConfig: ("mode",),
    },
    further={
        genai.Content: {"role": Literal["user", "model"]},
        genai.ThinkingConfig: {"thinkingLevel": Literal["minimal", "low", "medium", "high"]},  # in either case
    },
    rules={genai.Part: _one_datum},
)

# https://github.com/ollama/ollama/blob/main/api/types.go has more than the Python client knows.
OLLAMA = Corrections(
    required={OllamaMessage: ("content",)},
    further={
        OllamaMessage: {
            "role": Literal["system", "user", "assistant", "tool"],
            "tool_call_id": str,
            "images": list[str],
        },
        OllamaMessage.ToolCall: {"id": str},
        OllamaMessage.ToolCall.Function: {"index": int},
        OllamaTool: {"type": Literal["function"]},
        OllamaRequest: {"think": bool | Literal["low", "medium", "high", "max"]},
        OllamaTool.Function: {"parameters": dict[str, Any]},  # any JSON schema
    },
)


def _signature(function: Callable[..., Any], **further: Any) -> Any:
    """The keywords of a method, which are the fields of the body, as a TypedDict."""
    fields = {}
    for name, each in inspect.signature(function, eval_str=True).parameters.items():
        if name not in ("self", "request_options"):
            fields[name] = each.annotation if each.default is each.empty else NotRequired[each.annotation]
    return TypedDict("Body", {**fields, **further})


def _bedrock(body: Any) -> list[str]:
    """The misfits by the service model of botocore, whose own validator knows no enumerations."""
    return list(_of_shape({**body, "modelId": "m"}, _converse(), "body"))


@functools.cache
def _converse() -> Any:
    model = botocore.session.Session().get_service_model("bedrock-runtime")
    return model.operation_model("ConverseStream").input_shape


def _of_shape(value: Any, shape: Any, place: str) -> Iterator[str]:
    kinds = {"structure": dict, "map": dict, "list": list, "boolean": bool, "float": (int, float), "integer": int}
    if getattr(shape, "is_document_type", False):
        return
    if not isinstance(value, kinds.get(shape.type_name, str)):
        yield f"{place} is {value!r}, no {shape.type_name}"
    elif shape.type_name == "structure":
        yield from (f"{place} has {name!r}, which {shape.name} lacks" for name in value if name not in shape.members)
        yield from (f"{place} lacks {name!r}" for name in shape.required_members if name not in value)
        if shape.is_tagged_union and len(value) != 1:
            yield f"{place} has {list(value)}, not one of {list(shape.members)}"
        for name, item in value.items():
            yield from _of_shape(item, shape.members[name], f"{place}.{name}") if name in shape.members else ()
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _of_shape(item, shape.member, f"{place}[{index}]")
    elif shape.type_name == "map":
        for name, item in value.items():
            yield from _of_shape(item, shape.value, f"{place}.{name}")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{place} is {value!r}, not one of {shape.enum}"


VENDORS = (
    Vendor(
        "chat",
        OpenAI("gpt-5", api="chat", api_key="k"),
        _judge(ChatParams),
        protocols.Chat(),
        needed="model messages",
        optional="""
            messages.content messages.content.file.file_data messages.content.file.file_id
            messages.content.file.filename messages.content.image_url.detail messages.name messages.tool_calls
            response_format.json_schema.description response_format.json_schema.schema
            response_format.json_schema.strict stream_options.include_usage tools.function.description
            tools.function.parameters tools.function.strict
        """,
        free="parameters schema",
    ),
    Vendor(
        "completions",
        OpenAI("gpt-3.5-turbo-instruct", api="completions", api_key="k"),
        _judge(CompletionCreateParams),
        protocols.Completions(),
        needed="model prompt",
        optional="stream_options.include_usage",
    ),
    Vendor(
        "responses",
        OpenAI("gpt-5", api="responses", api_key="k"),
        _judge(ResponseCreateParams, RESPONSES),
        protocols.Responses(),
        needed="",  # a stored prompt has all
        optional="""
            input.call_id input.content.file_data input.content.file_id input.content.file_url input.content.filename
            input.content.image_url input.encrypted_content input.id input.output.detail input.output.file_data
            input.output.filename input.output.image_url input.status reasoning.effort
            stream_options.include_obfuscation text.format text.format.description text.format.strict tools.description
        """,
        free="parameters schema",
    ),
    Vendor(
        "messages",
        Anthropic("claude", api_key="k"),
        _judge(MessageCreateParams, ANTHROPIC),
        protocols.Messages(),
        needed="model max_tokens messages",
        optional="""
            messages.content.cache_control messages.content.cache_control.ttl messages.content.citations
            messages.content.citations.enabled messages.content.context messages.content.title
            messages.content.is_error messages.content.content messages.content.content.title
            output_config.effort output_config.format system.cache_control tool_choice.disable_parallel_tool_use
            tools.description tools.strict
        """,
        free="input_schema schema input",
    ),
    *(
        Vendor(
            name,
            Gemini(name, api_key="k"),
            _judge(GeminiRequest, GEMINI),
            protocols.Generate(),
            needed="contents",
            optional=f"""
                contents.role contents.parts.fileData.mimeType contents.parts.functionCall.args
                contents.parts.functionCall.id contents.parts.functionResponse.id
                contents.parts.functionResponse.parts contents.parts.functionResponse.parts.inlineData
                contents.parts.thought contents.parts.thoughtSignature generationConfig.maxOutputTokens
                generationConfig.responseJsonSchema generationConfig.responseMimeType generationConfig.seed
                generationConfig.stopSequences generationConfig.temperature generationConfig.thinkingConfig
                generationConfig.thinkingConfig.includeThoughts generationConfig.thinkingConfig.{thinking}
                generationConfig.topK generationConfig.topP toolConfig.functionCallingConfig
                toolConfig.functionCallingConfig.allowedFunctionNames tools.functionDeclarations
                tools.functionDeclarations.description tools.functionDeclarations.parametersJsonSchema
            """,
            free="parametersJsonSchema responseJsonSchema args response",
        )
        for name, thinking in (("gemini-3", "thinkingLevel"), ("gemini-2.5-flash", "thinkingBudget"))
    ),
    Vendor(
        "ollama",
        Ollama("qwen3"),
        _judge(OllamaRequest, OLLAMA),
        protocols.OllamaChat(),
        needed="model",
        optional="""
            messages.images messages.thinking messages.tool_call_id messages.tool_calls
            messages.tool_calls.function.index messages.tool_calls.id messages.tool_name options.num_predict
            options.seed options.stop options.temperature options.top_k options.top_p tools.function
            tools.function.description tools.function.name tools.function.parameters tools.type
        """,
        free="parameters format arguments",
    ),
    Vendor(
        "cohere",
        Cohere("command", api_key="k"),
        _judge(_signature(RawV2Client.chat_stream, stream=bool)),
        protocols.Cohere(),
        needed="model messages stream",
        optional="""
            messages.content messages.content.document.id messages.content.image_url.detail messages.tool_calls
            messages.tool_calls.function messages.tool_calls.function.arguments messages.tool_calls.function.name
            response_format.json_schema tools.function tools.function.description
        """,
        free="parameters json_schema data",
    ),
    Vendor(
        "mistral",
        OpenAI("mistral", server="mistral", api_key="k"),
        _judge(mistral.ChatCompletionStreamRequest, MISTRAL),
        protocols.Chat(),
        needed="model messages",
        optional="""
            messages.content messages.content.document_name messages.content.image_url.detail messages.name
            messages.tool_call_id messages.tool_calls messages.tool_calls.id messages.tool_calls.type
            response_format.json_schema response_format.json_schema.description response_format.json_schema.strict
            response_format.type tool_choice.type tools.function.description tools.function.strict tools.type
        """,
        free="parameters schema",
    ),
    Vendor(
        "converse",
        Bedrock("claude", api_key="k", region="us-east-1"),
        _bedrock,
        protocols.Converse(),
        needed="",  # the model is in the address
        optional="""
            inferenceConfig.maxTokens inferenceConfig.stopSequences inferenceConfig.temperature inferenceConfig.topP
            messages.content.cachePoint.ttl messages.content.document.citations messages.content.document.context
            messages.content.document.format messages.content.reasoningContent.reasoningText.signature
            messages.content.toolResult.content.document.format messages.content.toolResult.status outputConfig.effort
            outputConfig.textFormat outputConfig.textFormat.structure.jsonSchema.description
            outputConfig.textFormat.structure.jsonSchema.name toolConfig.toolChoice
            toolConfig.tools.toolSpec.description toolConfig.tools.toolSpec.strict
        """,
        free="json input",
    ),
)
