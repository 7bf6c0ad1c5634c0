"""Ollama's own protocol, https://docs.ollama.com/api/chat; `_ollama_chat.py` reads its responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack
from urllib.parse import urlsplit

from attrs import field, frozen

from ..errors import ProviderError
from ..misuse import MisuseError, shown
from ..values.chunk import Chunk
from ..values.parameters import Parameters
from ..values.request import Request
from ..values.tools import ResponseSchema
from ..wire.http import Timeouts
from ..wire.ndjson import NDJSONDecoder
from ._arguments import base_from, key_from
from ._documents import json_of, merged, provider_error, refuse_several
from ._http import Decoder, Frames, HTTPFields, HTTPProvider
from ._ollama_chat import OllamaDecoder, whole_answer
from ._ollama_turns import conversation_of
from ._openai_turns import told_tool

if TYPE_CHECKING:
    from ..wire.clients import Client

__all__ = ["Ollama"]

_TIMEOUTS = Timeouts()
_THINK: Mapping[str, bool | str] = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}
_HOME = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (a server's addresses, as a client reaches them)


def _check_keep_alive(_: object, attribute: object, time: Any) -> None:
    if time is not None and (isinstance(time, bool) or not isinstance(time, (str, int, float))):
        raise MisuseError(f"keep_alive must be text such as '10m', or seconds, not {shown(time)}.")


@frozen(init=False)
class Ollama(HTTPProvider):
    """A model that an Ollama server runs, asked by Ollama's own protocol.

    The address comes from `base_url` or ``OLLAMA_HOST``, in all of its usual spellings; else it is
    ``http://127.0.0.1:11434``. The key comes from `api_key` or ``OLLAMA_API_KEY``; only ollama.com needs one.

    Settings of the runtime, such as the length of the context, go into `extra`:
    ``Ollama("qwen3", extra={"options": {"num_ctx": 16384}})``.

    Attributes:
        keep_alive: how long the server keeps the model in memory afterwards: ``"10m"``, or seconds; 0 unloads it at
            once, a negative number never. None leaves that to the server.
    """

    _KEYS: ClassVar[tuple[str, ...]] = ("OLLAMA_API_KEY",)
    _OFFERS: ClassVar[frozenset[str]] = frozenset(("tools", "json_schema", "images", "reasoning", "usage"))

    keep_alive: str | float | None = field(default=None, kw_only=True, validator=_check_keep_alive)

    def __init__(
        self,
        model: str,
        *,
        keep_alive: str | float | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Client | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = _TIMEOUTS,
        **settings: Unpack[HTTPFields],
    ) -> None:
        self._settle(
            model=model,
            keep_alive=keep_alive,
            api_key=api_key,
            base_url=base_url,
            client=client,
            headers=headers,
            timeout=timeout,
            **settings,
        )

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"chat_model"``: the protocol carries conversations."""
        return "chat_model"

    @property
    def _base(self) -> str:
        base = self.base_url or base_from("OLLAMA_HOST", _address) or "http://127.0.0.1:11434"
        return base.rstrip("/").removesuffix("/v1").removesuffix("/api")

    def _url(self, request: Request) -> str:
        return f"{self._base}/api/chat"

    def _headers(self, request: Request) -> dict[str, str]:
        accepted = {} if request.stream is False else {"accept": "application/x-ndjson"}
        key = self.api_key.strip() if self.api_key else key_from("OLLAMA_API_KEY")
        if key:
            return {"authorization": f"Bearer {key}", **accepted}
        given = {name.lower() for name in self.headers or {}}
        if urlsplit(self._base).hostname == "ollama.com" and "authorization" not in given:
            raise MisuseError("There is no key for ollama.com: set OLLAMA_API_KEY, or pass Ollama(…, api_key=…).")
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
            "tools": [told_tool(tool) for tool in request.tools or ()] if _offers_tools(request) else None,
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

    def _frames(self, request: Request) -> Frames:
        return NDJSONDecoder(limit=self.event_limit)

    def _decoder(self, request: Request) -> Decoder:
        return OllamaDecoder()

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body)

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        return provider_error(json_of(body), body, status=status, headers=headers)


def _offers_tools(parameters: Parameters) -> bool:
    """Whether the model is told of the tools. The protocol has no choice of tools but to offer none.

    Raises:
        MisuseError: the request asks for any other choice.
    """
    if parameters.tool_choice not in (None, "auto", "none"):
        raise MisuseError(
            f"Ollama can't be told which tool to call: tool_choice is 'auto' or 'none' there, not "
            f"{shown(parameters.tool_choice)}."
        )
    if parameters.parallel_tool_calls is False:
        raise MisuseError("Ollama can't be told to call one tool at a time: leave out parallel_tool_calls.")
    return bool(parameters.tools) and parameters.tool_choice != "none"


def _form(form: str | ResponseSchema | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    if isinstance(form, ResponseSchema):
        return form.schema
    if form is None or isinstance(form, str):
        return form
    raise MisuseError(f"This response_format has fields that only another provider knows: {shown(form)}.")


def _think(effort: str | None) -> bool | str | None:
    if effort is None:
        return None
    if effort not in _THINK:
        raise MisuseError(f"Ollama's models know the efforts {', '.join(_THINK)}, not {effort!r}.")
    return _THINK[effort]


def _address(spelled: str) -> str:
    """The URL that ``OLLAMA_HOST`` means, as Ollama's own programs read it: ``host``, ``host:port`` or a URL.

    The addresses at which a server listens on all networks stand for this machine.

    Raises:
        MisuseError: its port is no number.
    """
    spelled = spelled.strip().strip("\"'").strip()
    scheme, has_scheme, rest = spelled.rpartition("://")
    if not spelled:
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
    else:  # a name, or an address of IPv6 without brackets
        host, port = place, ""
    if port and not (port.isascii() and port.isdigit()):
        raise MisuseError(f"OLLAMA_HOST must be like 127.0.0.1:11434; {port!r} is no port.")
    port = port or ("" if scheme else "11434")
    host = _HOME.get(host, host)
    host = f"[{host}]" if ":" in host else host
    return f"{scheme or 'http'}://{login}{at}{host}{':' if port else ''}{port}/{path}".rstrip("/")
