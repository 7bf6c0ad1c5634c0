"""OpenAI's protocols (chat, completions, Responses), as OpenAI and the many servers compatible with it speak them."""

from __future__ import annotations

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
from .compatible import (
    HOUSES,
    OPENAI,
    House,
    choice_of,
    fitted,
    house_at,
    house_named,
    limit_of,
    refuse_lacking,
)

if TYPE_CHECKING:
    from ..wire.clients import Client

__all__ = ["OpenAI"]

Api = Literal["chat", "completions", "responses"]
_PATHS: dict[Api, str] = {"chat": "chat/completions", "completions": "completions", "responses": "responses"}
_TIMEOUTS = Timeouts()


# What follows a base model's name is a date or an owner.
_COMPLETIONS_MODELS = tuple(
    name + end for name in ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002") for end in ":-"
)


def _known_api(_: object, attribute: object, api: object) -> None:
    if api is not None and api not in get_args(Api):
        raise MisuseError(f"api must be 'chat', 'completions', 'responses' or None, not {shown(api)}.")


def _known_house(_: object, attribute: object, house: Any) -> None:
    if house is not None:
        house_named(house if isinstance(house, str) else shown(house))


@frozen(init=False)
class OpenAI(HTTPProvider):
    """A model of OpenAI, or of any server that speaks its protocol (then give its `base_url`).

    The key comes from `api_key` or ``OPENAI_API_KEY``, the address from `base_url` or ``OPENAI_BASE_URL``. Servers that
    rxllm does not know need no key. What a known server does differently stands in `rxllm.providers.compatible`.

    Attributes:
        house: the name of such a server, such as ``"groq"``: its address and its key's variable are known. None finds
            it by the host of the address.
        api: ``"chat"``, ``"completions"`` or ``"responses"``. None takes the one that the model is served by; on
            OpenAI's own host that is ``"responses"``, unless a request asks for what only chat has (stop sequences, a
            seed, sound, fields of chat in `extra`).
    """

    _KEYS: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    _OFFERS: ClassVar[frozenset[str]] = frozenset(
        ("tools", "json_schema", "images", "files", "audio", "reasoning", "usage")
    )

    _UNASKED: ClassVar[tuple[str, ...]] = ("stream_options", "include", "store")

    api: Api | None = field(default=None, kw_only=True, validator=_known_api)
    house: str | None = field(default=None, kw_only=True, validator=_known_house)

    def __init__(
        self,
        model: str,
        *,
        api: Api | None = None,
        house: str | None = None,
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
            house=house,
            api_key=api_key,
            base_url=base_url,
            client=client,
            headers=headers,
            timeout=timeout,
            **settings,
        )

    @property
    def _base(self) -> str:
        if self.base_url:
            return self.base_url.rstrip("/")
        if self.house is not None and self.house != OPENAI.name:
            return house_named(self.house).address()
        return (base_from("OPENAI_BASE_URL") or OPENAI.base_url).rstrip("/")

    @property
    def _row(self) -> House:
        """What the server does differently."""
        return house_at(self._base) if self.house is None else house_named(self.house)

    @property
    def _is_vendor(self) -> bool:
        return (urlsplit(self._base).hostname or "").endswith("api.openai.com")  # eu.api.openai.com is theirs, too

    @property
    def _maker(self) -> str:
        """Whose answers may come back to this server with all that they carry."""
        return self._row.maker

    @property
    def _keeper(self) -> str:
        """Whose own items may come back to this server; an unknown one may be a gateway to OpenAI."""
        row = self._row
        return row.maker if row.name in HOUSES else "openai"

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
        try:
            row = self._row
        except MisuseError:  # `chunks` refuses it in a sentence
            return service
        return attrs.evolve(service, provider=row.maker) if row.name in HOUSES else service

    def _model(self, request: Request) -> str:
        return request.model or self.model

    def _models_url(self) -> str | None:
        return None if "models" in self._row.lacks else f"{self._base}/models"

    def _url(self, request: Request) -> str:
        return f"{self._base}/{_PATHS[self._api(request)]}"

    def _headers(self, request: Request) -> dict[str, str]:
        row = self._row
        # Who points OPENAI_BASE_URL at another server has its key in OPENAI_API_KEY.
        variables = (*row.keys, *(() if self.house else OPENAI.keys))
        key = self.api_key.strip() if self.api_key else next((key for v in variables if (key := key_from(v))), "")
        if key:
            return {row.header: f"Bearer {key}" if row.header == "authorization" else key}
        if row.needs_key and {"authorization", row.header}.isdisjoint(name.lower() for name in self.headers or {}):
            wanted = " or ".join(row.keys) or "an api_key"
            host = urlsplit(self._base).hostname
            raise MisuseError(f"There is no key for {host}: set {wanted}, or say OpenAI(…, api_key=…).")
        return {}

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        row = self._row
        refuse_lacking(row, request)
        api = self._api(request)
        if api == "responses":
            return response_fields(request, self._model(request), self._maker, self._keeper)
        completes = api == "completions"
        streams = request.stream is not False
        told = {
            "max_tokens" if completes else limit_of(row, self._model(request)): request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": None if request.stop_sequences is None else list(request.stop_sequences),
            row.seed: request.seed,
            "tools": None if request.tools is None else [told_tool(tool) for tool in request.tools],
            "tool_choice": choice_of(row, told_choice(request.tool_choice)),
            "parallel_tool_calls": request.parallel_tool_calls,
            row.effort: {"effort": request.effort} if row.effort == "reasoning" and request.effort else request.effort,
            "response_format": told_format(request.response_format),
            "stream_options": {"include_usage": True} if streams else None,
        }
        return {
            "model": self._model(request),
            **(self._completion_of(request) if completes else {"messages": self._conversation(request)}),
            "stream": streams,
            **{name: value for name, value in told.items() if value is not None},
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
        row = self._row
        return [*fitted(row, (turn for message in request.prompt for turn in turns(message, row.maker)))]

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
