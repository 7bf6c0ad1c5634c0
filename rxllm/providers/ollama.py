"""Ollama's own protocol, https://docs.ollama.com/api/chat; `_ollama_chat.py` reads its responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from ..misuse import MisuseError, shown
from ..shapes.dialects import GRAMMAR
from ..shapes.modes import Offer
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.parameters import Parameters
from ..values.request import Request
from ..values.tools import ResponseSchema, ToolSpec
from ..wire.ndjson import NDJSONDecoder
from ._arguments import base_from
from ._documents import merged, refuse_several
from ._http import Decoder, Frames, HTTPFields, HTTPProvider
from ._limits import limits_of
from ._ollama_chat import OllamaDecoder, whole_answer
from ._ollama_turns import conversation_of
from ._openai_turns import chat_tool
from ._refusals import check_effort, check_parallel, foreign_value, missing_key

__all__ = ["Ollama"]

_THINK: Mapping[str, bool | str] = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}
_CLIENT_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (a server's addresses, as a client reaches them)


def _check_keep_alive(_: object, attribute: object, time: Any) -> None:
    if time is not None and (isinstance(time, bool) or not isinstance(time, (str, int, float))):
        raise MisuseError(f"keep_alive must be text such as '10m', or seconds, not {shown(time)}.")


@frozen(init=False)
class Ollama(HTTPProvider):
    """A model on an Ollama server, by Ollama's own protocol.

    The address comes from `base_url` or ``OLLAMA_HOST``, in all of its usual forms; the default is
    ``http://127.0.0.1:11434``. The key comes from `api_key` or ``OLLAMA_API_KEY``; only ollama.com requires a key.

    Settings of the runtime, such as the length of the context, go into `extra`:
    ``Ollama("qwen3", extra={"options": {"num_ctx": 16384}})``.

    Attributes:
        keep_alive: how long the server keeps the model in memory after the answer: ``"10m"``, or seconds. 0 unloads
            the model at once, and a negative number never. None selects the server's default.
    """

    declaration = Declaration(
        keys=("OLLAMA_API_KEY",),
        features=("tools", "json_schema", "images", "reasoning", "usage"),
    )

    keep_alive: str | float | None = field(default=None, kw_only=True, validator=_check_keep_alive)

    def __init__(
        self,
        model: str,
        *,
        keep_alive: str | float | None = None,
        **settings: Unpack[HTTPFields],
    ) -> None:
        self._settle(model=model, keep_alive=keep_alive, **settings)

    @property
    def _base(self) -> str:
        base = self.base_url or base_from("OLLAMA_HOST", _address) or "http://127.0.0.1:11434"
        return base.rstrip("/").removesuffix("/v1").removesuffix("/api")

    def _models_url(self) -> str | None:
        return f"{self._base}/api/tags"

    def _url(self, request: Request) -> str:
        return f"{self._base}/api/chat"

    def _headers(self, request: Request) -> dict[str, str]:
        accepted = {} if request.stream is False else {"accept": "application/x-ndjson"}
        key = self._key_or("OLLAMA_API_KEY")
        if key:
            return {"authorization": f"Bearer {key}", **accepted}
        if urlsplit(self._base).hostname == "ollama.com" and "authorization" not in self._own_headers:
            raise missing_key("ollama.com", "Ollama", "OLLAMA_API_KEY")
        return accepted

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        stops = request.stop_sequences
        options = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "num_predict": request.max_tokens,
            "stop": None if stops is None else list(stops),
            "seed": request.seed,
        }
        options = {name: value for name, value in options.items() if value is not None}
        optional = {
            "tools": [_tool(tool) for tool in request.tools or ()] if _offers_tools(request) else None,
            "format": _form(request.response_format),
            "think": _think(request.effort),
            "options": options or None,
            "keep_alive": self.keep_alive,
        }
        body = {
            "model": request.model or self.model,
            "messages": conversation_of(request.messages),
            "stream": request.stream is not False,
            **{name: value for name, value in optional.items() if value is not None},
        }
        return merged(body, request.extra)

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        return (Offer("native", GRAMMAR),)  # the API can't force a call

    def _frames(self, request: Request) -> Frames:
        return NDJSONDecoder(limit=self.event_limit)

    def _decoder(self, request: Request) -> Decoder:
        return OllamaDecoder(limits_of(self.event_limit, request))

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body)


def _offers_tools(parameters: Parameters) -> bool:
    """Return whether the request contains the tools. The protocol has no tool choice, so ``"none"`` omits the tools.

    Raises:
        MisuseError: the request has another tool choice.
    """
    if parameters.tool_choice not in (None, "auto", "none"):
        raise MisuseError(f"Ollama's tool_choice must be 'auto' or 'none', not {shown(parameters.tool_choice)}.")
    check_parallel("Ollama", parameters)
    return bool(parameters.tools) and parameters.tool_choice != "none"


def _tool(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition of a tool. Ollama ignores ``strict``.

    Raises:
        MisuseError: the tool must be strict.
    """
    if not isinstance(tool, ToolSpec):
        return chat_tool(tool)
    if tool.strict:
        raise MisuseError(f"Ollama can't promise strict arguments. Leave strict=True out of the tool {tool.name!r}.")
    return chat_tool(attrs.evolve(tool, strict=None))


def _form(form: str | ResponseSchema | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    if isinstance(form, ResponseSchema):
        return form.schema
    if form is None or isinstance(form, str):
        return form
    raise foreign_value("response_format", form)


def _think(effort: str | None) -> bool | str | None:
    if effort is None:
        return None
    check_effort("Ollama", effort, _THINK)
    return _THINK[effort]


def _address(text: str) -> str:
    """Return the URL for a value of ``OLLAMA_HOST``: ``host``, ``host:port`` or a URL.

    The rules are those of Ollama's own programs. An address at which a server listens on all networks becomes the
    address of this machine.

    Raises:
        MisuseError: the port is not a number.
    """
    text = text.strip().strip("\"'").strip()
    scheme, has_scheme, rest = text.rpartition("://")
    if not text:
        return ""
    place, _, path = rest.partition("/")
    login, at, place = place.rpartition("@")
    if place == "ollama.com" and not has_scheme:
        scheme = "https"
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif place.count(":") == 1:
        host, _, port = place.partition(":")
    else:  # a name, or an IPv6 address without brackets
        host, port = place, ""
    if port and not (port.isascii() and port.isdigit()):
        raise MisuseError(f"OLLAMA_HOST must be like 127.0.0.1:11434; the port {port!r} is not a number.")
    port = port or ("" if scheme else "11434")
    host = _CLIENT_ADDRESSES.get(host, host)
    host = f"[{host}]" if ":" in host else host
    return f"{scheme or 'http'}://{login}{at}{host}{':' if port else ''}{port}/{path}".rstrip("/")
