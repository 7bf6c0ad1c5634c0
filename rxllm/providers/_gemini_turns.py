"""Requests of generateContent: conversations, tools and settings as Gemini writes them."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..misuse import MisuseError, shown
from ..values.message import Message
from ..values.parameters import Parameters
from ..values.parts import (
    CachePoint,
    FilePart,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ..values.tools import ResponseSchema, ToolSpec
from ._documents import arguments_of, object_of, text_of
from ._openai_turns import result_text

__all__ = ["conversation_of", "generation_config", "system_of", "told_choice", "told_tools"]

# Gemini 3 refuses a turn whose first call has no signature. This word stands for that of another model:
# https://ai.google.dev/gemini-api/docs/thought-signatures
UNSIGNED = "skip_thought_signature_validator"

_LEVELS = ("minimal", "low", "medium", "high")
# Gemini 2.5 counts tokens instead. The figures are those of Google's OpenAI-compatible endpoint.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}


def system_of(messages: tuple[Message, ...]) -> dict[str, Any] | None:
    """What the system says, which the protocol keeps apart from the conversation."""
    texts: list[dict[str, str]] = []
    for message in messages:
        if message.role != "system":
            continue
        for part in message.parts:
            if isinstance(part, TextPart):
                texts += [{"text": part.text}] if part.text else []
            elif not isinstance(part, CachePoint):
                raise MisuseError(f"Gemini takes no {type(part).__name__} in a message of the role 'system'.")
    return {"parts": texts} if texts else None


def conversation_of(messages: tuple[Message, ...], maker: str) -> list[dict[str, Any]]:
    """Contents of the user and the model. Results of tools are the user's, and all of one turn are in one content.

    Signatures, thoughts and raw parts go back only if `maker`, the server that is asked, has made them.

    Raises:
        MisuseError: the protocol has no place for something in it.
    """
    names = {part.id: part.name for message in messages for part in message.tool_calls}
    contents: list[dict[str, Any]] = []
    for message in messages:
        if message.extra:
            raise MisuseError(f"Gemini's messages have no field {next(iter(message.extra))!r}.")
        if message.role == "system":
            continue
        if message.role == "assistant":
            role, parts = "model", list(_answered(message.parts, maker))
        else:
            role, parts = "user", [told for part in message.parts for told in _asked(message.role, part, names, maker)]
        if parts and contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:  # the API refuses empty ones
            contents.append({"role": role, "parts": parts})
    if not contents:
        raise MisuseError("Gemini needs at least one message that is not the system's, with something in it.")
    return contents


def _answered(parts: Iterable[Part], maker: str) -> Iterator[dict[str, Any]]:
    """The parts of the model's turn: each signature goes back in the part that it came in."""
    is_first_call = True
    for part in parts:
        signature = _signature(part, maker)
        signed = {"thoughtSignature": signature} if signature else {}
        match part:
            case TextPart() | RefusalPart() if part.text or signed:  # a signature may come in a part without text
                yield {"text": part.text, **signed}
            case ReasoningPart(provider=provider) if provider == maker and (part.text or signed):
                yield {"text": part.text, "thought": True, **signed}
            case ToolCallPart():
                if is_first_call and not signed:
                    signed = {"thoughtSignature": UNSIGNED}
                is_first_call = False
                yield {"functionCall": _call(part), **signed}
            case FilePart():
                yield {**_file(part, maker), **signed}
            case RawPart(provider=provider) if provider == maker:
                yield dict(part.data)
            case ToolResultPart():
                raise MisuseError("Gemini takes no ToolResultPart in a message of the role 'assistant'.")
            case _:  # what another vendor wants back is of no use here, and Gemini finds by itself what it can keep
                pass


def _call(part: ToolCallPart) -> dict[str, Any]:
    identity = {"id": part.id} if part.id else {}
    return {**identity, "name": part.name, "args": arguments_of(part.arguments)}


def _signature(part: Part, maker: str) -> str | None:
    if not isinstance(part, (TextPart, ReasoningPart, ToolCallPart, FilePart)) or part.provider not in (None, maker):
        return None
    if part.signature is None and isinstance(part, ToolCallPart) and part.extra:  # as the compatible endpoint sends it
        google = object_of(object_of(part.extra.get("extra_content")).get("google"))
        return text_of(google.get("thought_signature")) or None
    return part.signature


def _asked(role: str, part: Part, names: Mapping[str, str], maker: str) -> Iterator[dict[str, Any]]:
    match part:
        case TextPart() | RefusalPart():
            if part.text:
                yield {"text": part.text}
        case ToolResultPart():
            yield {"functionResponse": _result(part, names, maker)}
        case FilePart():
            yield _file(part, maker)
        case RawPart() if part.provider == maker:
            yield dict(part.data)
        case CachePoint():
            pass
        case _:
            raise MisuseError(f"Gemini takes no {type(part).__name__} in a message of the role {role!r}.")


def _result(part: ToolResultPart, names: Mapping[str, str], maker: str) -> dict[str, Any]:
    name = part.name or names.get(part.id)
    if not name:
        raise MisuseError(
            f"Gemini needs the name of the tool that gave the result {part.id!r}: no call of the conversation has this "
            "id. Pass ToolResultPart(…, name=…)."
        )
    files: list[dict[str, Any]] = []
    for item in part.content:
        if isinstance(item, FilePart):
            files.append(_file(item, maker))
        elif not isinstance(item, (TextPart, CachePoint)):
            raise MisuseError(f"Gemini takes text and files as the result of a tool, not {type(item).__name__}.")
    told = part.text if part.outcome in ("ok", "error") else result_text(part, part.text)
    return {
        **({"id": part.id} if part.id else {}),
        "name": name,
        "response": {"error" if part.is_error else "output": told},
        **({"parts": files} if files else {}),
    }


def _file(part: FilePart, maker: str) -> dict[str, Any]:
    if part.file_id is not None:
        if part.provider not in (None, maker):
            raise MisuseError(f"The file {part.file_id!r} is stored at {part.provider}, so Gemini cannot read it.")
        return _place(part, part.file_id)
    if part.data is None:
        if part.url is None:
            raise MisuseError("This FilePart has no content. Pass data, url or file_id.")
        return _place(part, part.url)
    if "*" in part.media_type:
        raise MisuseError(
            f"Gemini needs the exact media type of a file's data, such as image/png, not {part.media_type}."
        )
    return {"inlineData": {"mimeType": part.media_type, "data": base64.b64encode(part.data).decode()}}


def _place(part: FilePart, uri: str) -> dict[str, Any]:
    kind = mimetypes.guess_type(uri.partition("?")[0])[0] if "*" in part.media_type else part.media_type
    return {"fileData": {"fileUri": uri, **({"mimeType": kind} if kind else {})}}


def told_tools(tools: tuple[ToolSpec | Mapping[str, Any], ...] | None) -> list[Mapping[str, Any]] | None:
    """The definitions of tools: all functions in one entry, then those that only Gemini knows, as they are."""
    if not tools:
        return None
    functions: list[dict[str, Any]] = []
    others: list[Mapping[str, Any]] = []
    for tool in tools:
        if isinstance(tool, ToolSpec):
            described = {"description": tool.description} if tool.description else {}
            functions.append({"name": tool.name, **described, "parametersJsonSchema": tool.parameters})
        elif tool.keys() & {"type", "function", "input_schema", "parameters"}:
            raise MisuseError(f"This tool has fields that only another provider knows: {shown(tool)}.")
        else:
            others.append(tool)
    return [*([{"functionDeclarations": functions}] if functions else []), *others]


def told_choice(parameters: Parameters) -> dict[str, Any] | None:
    """Which tool to call. A strict tool has its arguments validated also where the model is free to call none."""
    choice = parameters.tool_choice
    if parameters.parallel_tool_calls is False:
        raise MisuseError("Gemini can't be told to call one tool at a time: leave out parallel_tool_calls.")
    if choice is not None and not isinstance(choice, str):
        if "functionCallingConfig" in choice or "retrievalConfig" in choice:
            return dict(choice)
        if "mode" in choice:
            return {"functionCallingConfig": choice}
        raise MisuseError(f"This tool_choice has fields that only another provider knows: {shown(choice)}.")
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
    """How to answer.

    Raises:
        MisuseError: the model knows no such effort or form.
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
        raise MisuseError(f"This response_format has fields that only another provider knows: {shown(form)}.")
    return form


def _thinking(effort: str | None, model: str) -> dict[str, Any] | None:
    if effort is None:
        return None
    name = model.rpartition("/")[2]
    if effort not in (*_LEVELS, "none"):
        raise MisuseError(f"Gemini's models know the efforts none, {', '.join(_LEVELS)}, not {effort!r}.")
    if effort == "none":
        if name.startswith(("gemini-3", "gemini-2.5-pro")):
            raise MisuseError(f"{name} always thinks: effort='minimal' comes nearest to none.")
        return {"thinkingBudget": 0}
    if name.startswith("gemini-2.5"):
        return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}
    return {"thinkingLevel": effort, "includeThoughts": True}
