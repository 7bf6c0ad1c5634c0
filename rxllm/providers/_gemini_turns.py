"""The writer of Gemini's conversations in the form of generateContent. `_gemini_settings.py` writes the rest."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..misuse import MisuseError
from ..values.message import Message
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
from ..values.vocabulary import Role
from ._attachments import base64_of
from ._documents import arguments_of, object_of, text_of
from ._gemini_parts import MADE_ID
from ._joining import joined
from ._openai_turns import result_text
from ._refusals import (
    check_fields,
    check_readable,
    no_messages,
    unsupported_part,
    unsupported_result,
)

__all__ = ["VERTEX", "conversation_of", "system_of"]

# Gemini 3 rejects a turn if its first call has no signature. This text replaces the missing signature:
# https://ai.google.dev/gemini-api/docs/thought-signatures
UNSIGNED = "skip_thought_signature_validator"

VERTEX = "gcp.vertex_ai"


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
