"""Anthropic's messages protocol, https://docs.claude.com/en/api/messages; what comes back is read in `_claude.py`."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from attrs import frozen

from ..errors import ProviderError
from ..misuse import MisuseError
from ..values.chunk import Chunk
from ..values.message import Message, Role
from ..values.parts import FilePart, Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from ..values.request import Request
from ._anthropic_messages import ClaudeDecoder, whole_answer
from ._arguments import base_from, key_from
from ._documents import UNREADABLE, json_of, provider_error, refuse_several
from ._http import Decoder, HTTPProvider

__all__ = ["Anthropic"]

_DEFAULT_MAX_TOKENS = 4096


@frozen(init=False)
class Anthropic(HTTPProvider):
    """A model of Anthropic's, or of a server that speaks its protocol (then give its `base_url`).

    The key comes from `api_key` or ``ANTHROPIC_API_KEY``, or a bearer token from ``ANTHROPIC_AUTH_TOKEN``; the address
    from `base_url` or ``ANTHROPIC_BASE_URL``. Other servers than Anthropic's need no key.

    The protocol requires `max_tokens`: where it is not given, 4096 is sent. `response_format` is sent as the `format`
    of ``output_config``.
    """

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """It converses."""
        return "chat_model"

    @property
    def _base(self) -> str:
        base = self.base_url or base_from("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        return base.rstrip("/").removesuffix("/v1")

    def _url(self, request: Request) -> str:
        return f"{self._base}/v1/messages"

    def _headers(self, request: Request) -> dict[str, str]:
        version = {"anthropic-version": "2023-06-01"}
        key = self.api_key.strip() if self.api_key else key_from("ANTHROPIC_API_KEY")
        if key:
            return {"x-api-key": key, **version}
        token = key_from("ANTHROPIC_AUTH_TOKEN")
        if token:
            return {"authorization": f"Bearer {token}", **version}
        given = {name.lower() for name in self.headers or {}}
        host = urlsplit(self._base).hostname
        if host == "api.anthropic.com" and not given & {"x-api-key", "authorization"}:
            raise MisuseError(f"There is no key for {host}: set ANTHROPIC_API_KEY, or say Anthropic(…, api_key=…).")
        return version

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        if request.seed is not None:
            raise MisuseError("Anthropic's models take no seed; temperature=0 comes nearest to the same answer.")
        choice = request.tool_choice
        optional = {
            "system": _system(request.messages),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": None if request.stop_sequences is None else list(request.stop_sequences),
            "tools": None if request.tools is None else list(request.tools),
            "tool_choice": {"type": choice} if isinstance(choice, str) else choice,
            "output_config": None if request.response_format is None else {"format": request.response_format},
        }
        return {
            "model": request.model or self.model,
            "max_tokens": request.max_tokens or _DEFAULT_MAX_TOKENS,
            "messages": _conversation(request.messages),
            "stream": request.stream is not False,
            **{name: value for name, value in optional.items() if value is not None},
            **request.extra,
        }

    def _decoder(self, request: Request) -> Decoder:
        return ClaudeDecoder()

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body)

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        return provider_error(json_of(body), body, status=status, headers=headers)


def _system(messages: tuple[Message, ...]) -> str | list[dict[str, Any]] | None:
    """What the system says, which the protocol keeps apart from the conversation."""
    blocks = [block for m in messages if m.role == "system" for part in m.parts for block in _blocks("system", part)]
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks or None


def _conversation(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Turns of the user and the assistant. Results of tools are the user's, and all of one turn go into one message."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        content = [block for part in message.parts for block in _blocks(message.role, part)]
        if content and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += content
        elif content:  # the API refuses empty ones
            turns.append({"role": role, "content": content})
    if not turns:
        raise MisuseError("Anthropic needs at least one message that is not the system's, with something in it.")
    return turns


def _blocks(role: Role, part: Part) -> Iterator[dict[str, Any]]:
    match part:
        case TextPart() | RefusalPart():
            # The API refuses a text of only white space, which its models send before a call.
            if part.text and (role != "assistant" or not part.text.isspace()):
                yield {"type": "text", "text": part.text, **_citations(role, part)}
        case ReasoningPart() if role == "assistant":
            # Unsigned thoughts are another vendor's, and the API refuses them.
            if part.signature:
                yield {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case ToolCallPart() if role == "assistant":
            yield {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part.arguments)}
        case ToolResultPart() if role in ("tool", "user"):
            failed = {"is_error": True} if part.is_error else {}
            yield {"type": "tool_result", "tool_use_id": part.id, "content": part.content, **failed}
        case FilePart() if role in ("tool", "user"):
            yield _file(part)
        case RawPart(provider="anthropic"):
            yield dict(part.data)
        case RawPart() if role == "assistant":
            pass  # what another vendor wants back is of no use here
        case _:
            raise MisuseError(f"Anthropic takes no {type(part).__name__} in a message of the role {role!r}.")


def _citations(role: Role, part: TextPart | RefusalPart) -> dict[str, Any]:
    """The citations of an answer's text that are Anthropic's; those of another vendor are of no use here."""
    if role != "assistant" or isinstance(part, RefusalPart) or not part.citations:
        return {}
    known = [dict(each) for each in part.citations if str(each.get("type")).endswith("_location")]
    return {"citations": known} if known else {}


def _input(arguments: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except UNREADABLE:
        # The protocol wants an object, and Anthropic's documentation of fine-grained tool streaming names this one.
        return {"INVALID_JSON": arguments}


def _file(part: FilePart) -> dict[str, Any]:
    kind = part.media_type.partition("/")[0]
    title = {"title": part.name} if part.name and kind != "image" else {}
    block = "image" if kind == "image" else "document"
    if kind not in ("image", "text") and part.media_type != "application/pdf":
        raise MisuseError(f"Anthropic takes images, PDF documents and plain text, not {part.media_type}.")
    if part.data is None:
        if part.url is None:
            raise MisuseError("A FilePart needs data or a url.")
        return {"type": block, "source": {"type": "url", "url": part.url}, **title}
    if kind == "text":
        text = part.data.decode("utf-8", "replace")
        return {"type": block, "source": {"type": "text", "media_type": "text/plain", "data": text}, **title}
    data = base64.b64encode(part.data).decode()
    return {"type": block, "source": {"type": "base64", "media_type": part.media_type, "data": data}, **title}
