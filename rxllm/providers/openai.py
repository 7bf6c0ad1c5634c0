"""OpenAI's protocols (chat, completions, Responses), as OpenAI and the many servers compatible with it speak them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack, get_args
from urllib.parse import quote, urlsplit

import attrs
from attrs import field, frozen

from ..errors import ProviderError
from ..events import Service
from ..misuse import MisuseError, shown
from ..values.chunk import Chunk
from ..values.request import Request
from ..values.tools import ToolSpec
from ..wire.http import Timeouts
from ._arguments import base_from, key_from
from ._documents import json_of, object_of, provider_error, refuse_several, text_of
from ._http import Decoder, HTTPFields, HTTPProvider
from ._openai_chat import ChatDecoder, whole_answer
from ._openai_responses import ResponsesDecoder, whole_response
from ._openai_turns import told_choice, told_format, told_tool, turns
from ._responses_turns import custom_names, fits_responses, response_fields

if TYPE_CHECKING:
    from ..wire.clients import Client

__all__ = ["OpenAI"]

Api = Literal["chat", "completions", "responses"]
_PATHS: dict[Api, str] = {"chat": "chat/completions", "completions": "completions", "responses": "responses"}
_TIMEOUTS = Timeouts()


@functools.cache
def _host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


# Who else speaks this protocol, by the names of OpenTelemetry's conventions; the ends of hosts.
_PROVIDERS = {
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "deepseek.com": "deepseek",
    "googleapis.com": "gcp.gemini",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}


@functools.cache
def _known_provider(host: str) -> str | None:
    return next((name for end, name in _PROVIDERS.items() if f".{host}".endswith(f".{end}")), None)


# What follows a base model's name is a date or an owner.
_COMPLETIONS_MODELS = tuple(
    name + end for name in ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002") for end in ":-"
)


def _known_api(_: object, attribute: object, api: object) -> None:
    if api is not None and api not in get_args(Api):
        raise MisuseError(f"api must be 'chat', 'completions', 'responses' or None, not {shown(api)}.")


@frozen(init=False)
class OpenAI(HTTPProvider):
    """A model of OpenAI, or of any server that speaks its protocol (then give its `base_url`).

    The key comes from `api_key` or ``OPENAI_API_KEY``, the address from `base_url` or ``OPENAI_BASE_URL``. Other
    servers than OpenAI's need no key.

    Attributes:
        api: ``"chat"``, ``"completions"`` or ``"responses"``. None takes the one that the model is served by; on
            OpenAI's own host that is ``"responses"``, unless a request asks for what only chat has (stop sequences, a
            seed, sound, fields of chat in `extra`).
    """

    _UNASKED: ClassVar[tuple[str, ...]] = ("stream_options", "include", "store")

    api: Api | None = field(default=None, kw_only=True, validator=_known_api)

    def __init__(
        self,
        model: str,
        *,
        api: Api | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Client | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = _TIMEOUTS,
        **settings: Unpack[HTTPFields],
    ) -> None:
        self._settle(
            model=model,
            api=api,
            api_key=api_key,
            base_url=base_url,
            client=client,
            headers=headers,
            timeout=timeout,
            **settings,
        )

    @property
    def _base(self) -> str:
        return (self.base_url or base_from("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")

    @property
    def _host(self) -> str:
        return _host_of(self._base)

    @property
    def _is_vendor(self) -> bool:
        return self._host.endswith("api.openai.com")  # eu.api.openai.com is theirs, too

    @property
    def _maker(self) -> str:
        """Whose answers may come back to this server with all that they carry."""
        return "openai" if self._is_vendor else _known_provider(self._host) or self._host

    @property
    def _keeper(self) -> str:
        """Whose own items may come back to this server; an unknown one may be a gateway to OpenAI."""
        return _known_provider(self._host) or "openai"

    def _completes(self, request: Request) -> bool:
        """Whether to ask by the older protocol, which continues a text."""
        if self.api is not None:
            return self.api == "completions"
        return f"{self._model(request).removeprefix('ft:')}:".startswith(_COMPLETIONS_MODELS)

    def _api(self, request: Request) -> Api:
        """The protocol of a request."""
        if self.api is not None:
            return self.api
        if self._completes(request):
            return "completions"
        return "responses" if self._is_vendor and fits_responses(request, self._model(request)) else "chat"

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Completions continue a text, chat converses."""
        return "llm" if self._completes(request) else "chat_model"

    def service(self, request: Request) -> Service:
        """Who answers, and where; whose protocol it is, where the host is not known."""
        service = super().service(request)
        known = _known_provider(service.address or "")
        return attrs.evolve(service, provider=known) if known else service

    def _model(self, request: Request) -> str:
        return request.model or self.model

    def _url(self, request: Request) -> str:
        return f"{self._base}/{_PATHS[self._api(request)]}"

    def _headers(self, request: Request) -> dict[str, str]:
        key = self.api_key.strip() if self.api_key else key_from("OPENAI_API_KEY")
        if key:
            return {"authorization": f"Bearer {key}"}
        if self._is_vendor and "authorization" not in {name.lower() for name in self.headers or {}}:
            raise MisuseError(f"There is no key for {self._host}: set OPENAI_API_KEY, or say OpenAI(…, api_key=…).")
        return {}

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        if request.top_k is not None and self._is_vendor:
            raise MisuseError("OpenAI's models have no top_k; use top_p, or temperature.")
        api = self._api(request)
        if api == "responses":
            return response_fields(request, self._model(request), self._maker, self._keeper)
        completes = api == "completions"
        # max_tokens is deprecated at OpenAI, whose reasoning models refuse it; other servers know nothing else.
        limit = "max_completion_tokens" if self._is_vendor and not completes else "max_tokens"
        streams = request.stream is not False
        optional = {
            limit: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": None if request.stop_sequences is None else list(request.stop_sequences),
            "random_seed" if self._host.endswith("mistral.ai") else "seed": request.seed,
            "tools": None if request.tools is None else [told_tool(tool) for tool in request.tools],
            "tool_choice": told_choice(request.tool_choice),
            "parallel_tool_calls": request.parallel_tool_calls,
            "reasoning_effort": request.effort,
            "response_format": told_format(request.response_format),
            "stream_options": {"include_usage": True} if streams else None,
        }
        return {
            "model": self._model(request),
            **(self._completion_of(request) if completes else {"messages": self._conversation(request)}),
            "stream": streams,
            **{name: value for name, value in optional.items() if value is not None},
            **request.extra,
        }

    def _completion_of(self, request: Request) -> dict[str, str]:
        model = self._model(request)
        if not isinstance(request.prompt, str):
            raise MisuseError(f"{model} is asked by the completions protocol, which takes a text, not messages.")
        unknown = ("tools", "tool_choice", "parallel_tool_calls", "effort", "response_format")
        if any(getattr(request, name) is not None for name in unknown):
            raise MisuseError(f"{model} is asked by the completions protocol, which has no {', '.join(unknown)}.")
        return {"prompt": request.prompt}

    def _conversation(self, request: Request) -> list[dict[str, Any]]:
        if isinstance(request.prompt, str):
            return [{"role": "user", "content": request.prompt}]
        maker = self._maker
        return [turn for message in request.prompt for turn in turns(message, maker)]

    def _decoder(self, request: Request) -> Decoder:
        if self._api(request) == "responses":
            return ResponsesDecoder(self._maker, custom_names(request), self._keeper)
        names = [tool.name for tool in request.tools or () if isinstance(tool, ToolSpec)]
        return ChatDecoder(names, _audio_format(request), self._maker)

    def _resumed(self, decoder: Decoder) -> str | None:
        if not isinstance(decoder, ResponsesDecoder) or not decoder.resume():
            return None
        return f"{self._base}/responses/{quote(decoder.id, safe='')}?stream=true&starting_after={decoder.seen}"

    def _whole(self, body: bytes, request: Request) -> Chunk:
        if self._api(request) == "responses":
            return whole_response(body, self._maker, custom_names(request), self._keeper)
        return whole_answer(body, _audio_format(request), self._maker)

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        return provider_error(json_of(body), body, status=status, headers=headers)


def _audio_format(request: Request) -> str:
    """The format of the sound that a request asks for, which the answer does not repeat."""
    return text_of(object_of(request.extra.get("audio")).get("format")) if request.extra else ""
