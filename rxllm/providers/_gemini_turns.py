"""The writer of Gemini's requests: conversations, tools and settings in the form of generateContent."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..misuse import MisuseError
from ..values.message import Message
from ..values.parameters import Parameters
from ..values.parts import (
    CachePoint,
    FilePart,
    Part,
    Pending,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ..values.tools import ResponseSchema, ToolSpec
from ..values.vocabulary import Role
from ._attachments import base64_of
from ._documents import arguments_of, object_of, text_of
from ._gemini_parts import MADE_ID
from ._joining import joined
from ._openai_turns import result_text
from ._refusals import (
    check_effort,
    check_fields,
    check_parallel,
    check_readable,
    foreign_tool,
    foreign_value,
    no_messages,
    unsupported_part,
    unsupported_result,
)

__all__ = ["VERTEX", "conversation_of", "generation_config", "system_of", "tool_config", "tools_of"]

# Gemini 3 rejects a turn if its first call has no signature. This text replaces the missing signature:
# https://ai.google.dev/gemini-api/docs/thought-signatures
UNSIGNED = "skip_thought_signature_validator"

VERTEX = "gcp.vertex_ai"

_LEVELS = ("minimal", "low", "medium", "high")
# Gemini 2.5 takes a number of tokens instead. The numbers are those of Google's OpenAI-compatible endpoint.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}


def system_of(messages: tuple[Message, ...]) -> dict[str, Any] | None:
    """Return the system's messages, which the protocol keeps apart from the conversation."""
    texts: list[dict[str, str]] = []
    for message in messages:
        if message.role != "system":
            continue
        for part in message.parts:
            if isinstance(part, TextPart):
                texts += [{"text": part.text}] if part.text else []
            elif not isinstance(part, CachePoint):
                raise unsupported_part("Gemini", part, "system")
    return {"parts": texts} if texts else None


def conversation_of(messages: tuple[Message, ...], maker: str) -> list[dict[str, Any]]:
    """Return the contents of the user and the model. Tool results belong to the user.

    Consecutive messages of one side become one content. `maker` is the provider name of the server. Signatures,
    reasoning and raw parts of another provider are left out.

    Raises:
        MisuseError: the protocol cannot carry a part or a field of the messages.
    """
    calls = {part.id: part for message in messages for part in message.tool_calls}
    contents: list[dict[str, Any]] = []
    for message in messages:
        check_fields("Gemini", message)
        if message.role == "system":
            continue
        if message.role == "assistant":
            role, parts = "model", list(_model_parts(message.parts, maker))
        else:
            role = "user"
            parts = [item for part in message.parts for item in _user_parts(message.role, part, calls, maker)]
        contents.append({"role": role, "parts": parts})
    contents = joined(contents, "parts")
    if not contents:
        raise no_messages("Gemini")
    return contents


def _model_parts(parts: Iterable[Part], maker: str) -> Iterator[dict[str, Any]]:
    """Yield the parts of the model's turn. Each signature goes back in the part in which it arrived."""
    is_first_call = True
    for part in parts:
        signature = _signature(part, maker)
        signed = {"thoughtSignature": signature} if signature else {}
        match part:
            case TextPart() | RefusalPart() if part.text or signed:  # a part without text may have a signature
                yield {"text": part.text, **signed}
            case ReasoningPart(provider=provider) if provider == maker and (part.text or signed):
                yield {"text": part.text, "thought": True, **signed}
            case ToolCallPart():
                if is_first_call and not signed:
                    signed = {"thoughtSignature": UNSIGNED}
                is_first_call = False
                yield {"functionCall": _call(part, maker), **signed}
            case FilePart():
                yield {**_file(part, maker), **signed}
            case RawPart(provider=provider) if provider == maker:
                yield dict(part.data)
            case ToolResultPart() | Pending():
                raise unsupported_part("Gemini", part, "assistant")
            case _:  # parts of another provider, and cache points: Gemini caches prompts automatically
                pass


def _call(part: ToolCallPart, maker: str) -> dict[str, Any]:
    return {**_id(part.id, part, maker), "name": part.name, "args": arguments_of(part.arguments)}


def _id(identity: str, call: ToolCallPart | None, maker: str) -> dict[str, str]:
    """Return the id of a call or of its result. Vertex AI gets only the ids that it made.

    Only its newer models have ids; its older servers reject the field. Google AI Studio takes any id.
    Source: https://github.com/vercel/ai/issues/15664, https://github.com/anomalyco/opencode/pull/50504
    """
    is_own = call is not None and call.provider == maker and not identity.startswith(MADE_ID)
    return {"id": identity} if identity and (is_own or maker != VERTEX) else {}


def _signature(part: Part, maker: str) -> str | None:
    if not isinstance(part, (TextPart, ReasoningPart, ToolCallPart, FilePart)) or part.provider not in (None, maker):
        return None
    if part.signature is None and isinstance(part, ToolCallPart) and part.extra:  # the form of the compatible endpoint
        google = object_of(object_of(part.extra.get("extra_content")).get("google"))
        return text_of(google.get("thought_signature")) or None
    return part.signature


def _user_parts(role: Role, part: Part, calls: Mapping[str, ToolCallPart], maker: str) -> Iterator[dict[str, Any]]:
    match part:
        case TextPart() | RefusalPart():
            if part.text:
                yield {"text": part.text}
        case ToolResultPart():
            yield {"functionResponse": _result(part, calls.get(part.id), maker)}
        case FilePart():
            yield _file(part, maker)
        case RawPart() if part.provider == maker:
            yield dict(part.data)
        case CachePoint():
            pass
        case _:
            raise unsupported_part("Gemini", part, role)


def _result(part: ToolResultPart, call: ToolCallPart | None, maker: str) -> dict[str, Any]:
    name = part.name or (call and call.name)
    if not name:
        raise MisuseError(
            f"Gemini needs the name of the tool for the result {part.id!r}, and no call of the conversation has this "
            "id. Pass ToolResultPart(…, name=…)."
        )
    files: list[dict[str, Any]] = []
    for item in part.content:
        if isinstance(item, FilePart):
            files.append(_file(item, maker))
        elif not isinstance(item, (TextPart, CachePoint)):
            raise unsupported_result("Gemini", item)
    text = part.text if part.outcome in ("ok", "error") else result_text(part, part.text)
    return {
        **_id(part.id, call, maker),
        "name": name,
        "response": {"error" if part.is_error else "output": text},
        **({"parts": files} if files else {}),
    }


def _file(part: FilePart, maker: str) -> dict[str, Any]:
    check_readable("Gemini", part, maker)
    if part.data is None or part.file_id is not None:
        return _file_data(part, part.file_id or part.url or "")
    return {"inlineData": {"mimeType": part.media_type, "data": base64_of(part.data)}}


def _file_data(part: FilePart, uri: str) -> dict[str, Any]:
    kind = mimetypes.guess_type(uri.partition("?")[0])[0] if "*" in part.media_type else part.media_type
    return {"fileData": {"fileUri": uri, **({"mimeType": kind} if kind else {})}}


def tools_of(tools: tuple[ToolSpec | Mapping[str, Any], ...] | None) -> list[Mapping[str, Any]] | None:
    """Return the definitions of tools: one entry with all functions, then Gemini's own tools, unchanged."""
    if not tools:
        return None
    functions: list[dict[str, Any]] = []
    others: list[Mapping[str, Any]] = []
    for tool in tools:
        if isinstance(tool, ToolSpec):
            described = {"description": tool.description} if tool.description else {}
            functions.append({"name": tool.name, **described, "parametersJsonSchema": tool.parameters})
        elif tool.keys() & {"type", "function", "input_schema", "parameters"}:
            raise foreign_tool(tool)
        else:
            others.append(tool)
    return [*([{"functionDeclarations": functions}] if functions else []), *others]


def tool_config(parameters: Parameters, model: str, maker: str) -> dict[str, Any] | None:
    """Return the settings of the tools.

    Google AI Studio takes functions beside Gemini's own tools only if the request asks for the calls of its own tools,
    and then has no mode AUTO. Vertex AI has no such field, and older models have no such combination.
    Source: https://ai.google.dev/gemini-api/docs/generate-content/tool-combination,
    https://github.com/vercel/ai/issues/14655
    """
    tools = parameters.tools or ()
    own = [tool for tool in tools if not isinstance(tool, ToolSpec) and "functionDeclarations" not in tool]
    is_older = re.match(r"gemini-[12]\b", model.rpartition("/")[2])
    if not own or len(own) == len(tools) or maker != "gcp.gemini" or is_older:
        return _tool_choice(parameters)
    config = _tool_choice(parameters) or {}
    if config.get("functionCallingConfig") == {"mode": "AUTO"}:
        config["functionCallingConfig"] = {"mode": "VALIDATED"}
    return {"includeServerSideToolInvocations": True, **config}


def _tool_choice(parameters: Parameters) -> dict[str, Any] | None:
    """Return the tool choice. With a strict tool, Gemini validates arguments even if the model may call no tool."""
    choice = parameters.tool_choice
    check_parallel("Gemini", parameters)
    if choice is not None and not isinstance(choice, str):
        if "functionCallingConfig" in choice or "retrievalConfig" in choice:
            return dict(choice)
        if "mode" in choice:
            return {"functionCallingConfig": choice}
        raise foreign_value("tool_choice", choice)
    is_strict = any(isinstance(tool, ToolSpec) and tool.strict for tool in parameters.tools or ())
    match choice:
        case None if not is_strict:
            return None
        case None | "auto":
            config: dict[str, Any] = {"mode": "VALIDATED" if is_strict else "AUTO"}
        case "none":
            config = {"mode": "NONE"}
        case "required":
            config = {"mode": "ANY"}
        case name:
            config = {"mode": "ANY", "allowedFunctionNames": [name]}
    return {"functionCallingConfig": config}


def generation_config(parameters: Parameters, model: str) -> dict[str, Any]:
    """Return the sampling parameters, the effort and the response format.

    Raises:
        MisuseError: the model has no such effort, or the response format belongs to another vendor.
    """
    stops = parameters.stop_sequences
    optional = {
        "temperature": parameters.temperature,
        "topP": parameters.top_p,
        "topK": parameters.top_k,
        "maxOutputTokens": parameters.max_tokens,
        "stopSequences": None if stops is None else list(stops),
        "seed": parameters.seed,
        "thinkingConfig": _thinking(parameters.effort, model),
    }
    return {**{name: value for name, value in optional.items() if value is not None}, **_form(parameters)}


def _form(parameters: Parameters) -> Mapping[str, Any]:
    form = parameters.response_format
    if form is None:
        return {}
    if isinstance(form, ResponseSchema):
        return {"responseMimeType": "application/json", "responseJsonSchema": form.schema}
    if isinstance(form, str):
        return {"responseMimeType": "application/json"}
    if not form.keys() <= {"responseMimeType", "responseSchema", "responseJsonSchema"}:
        raise foreign_value("response_format", form)
    return form


def _thinking(effort: str | None, model: str) -> dict[str, Any] | None:
    if effort is None:
        return None
    name = model.rpartition("/")[2]
    check_effort("Gemini", effort, ("none", *_LEVELS))
    if effort == "none":
        if name.startswith(("gemini-3", "gemini-2.5-pro")):
            raise MisuseError(f"{name} always thinks, so it has no effort 'none'. Pass effort='minimal'.")
        return {"thinkingBudget": 0}
    if name.startswith("gemini-2.5"):
        return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}
    return {"thinkingLevel": effort, "includeThoughts": True}
