"""Models of OpenAI and of compatible servers, by the chat, completions and Responses protocols."""

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


# The name of a dated model continues with "-" and the date, that of a fine-tuned one with ":" and its owner.
_COMPLETIONS_MODELS = tuple(
    name + end for name in ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002") for end in ":-"
)


def _known_api(_: object, attribute: object, api: object) -> None:
    if api is not None and api not in get_args(Api):
        raise MisuseError(f"api must be 'chat', 'completions', 'responses' or None, got {shown(api)}.")


def _known_house(_: object, attribute: object, house: Any) -> None:
    if house is not None:
        house_named(house if isinstance(house, str) else shown(house))


@frozen(init=False)
class OpenAI(HTTPProvider):
    """A model of OpenAI, or of any server that speaks its protocols (then pass its `base_url`).

    The key comes from `api_key` or ``OPENAI_API_KEY``, the address from `base_url` or ``OPENAI_BASE_URL``. A server
    that rxllm does not know needs no key. `rxllm.providers.compatible` lists the known servers and their differences.

    Attributes:
        house: the name of a known server, such as ``"groq"``. The name selects the server's address and the
            environment variable of its key. If it is None, rxllm looks the server up by the host of the address.
        api: the protocol: ``"chat"``, ``"completions"`` or ``"responses"``. If it is None, rxllm chooses for each
            request: ``"completions"`` for a model that only continues text; ``"responses"`` on OpenAI's own host,
            unless the request uses a feature that only chat has (stop sequences, a seed, audio, chat's fields in
            `extra`); otherwise ``"chat"``.
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
        """The server's entry in the table of known servers: its address, its keys and its differences."""
        return house_at(self._base) if self.house is None else house_named(self.house)

    @property
    def _is_vendor(self) -> bool:
        return (urlsplit(self._base).hostname or "").endswith("api.openai.com")  # eu.api.openai.com is OpenAI's, too

    @property
    def _maker(self) -> str:
        """The provider name whose parts this server accepts back with their provider-specific fields."""
        return self._row.maker

    @property
    def _keeper(self) -> str:
        """The provider name whose raw items this server accepts back.

        An unknown server may be a gateway to OpenAI, so it gets OpenAI's items back.
        """
        row = self._row
        return row.maker if row.name in HOUSES else "openai"

    def _completes(self, request: Request) -> bool:
        """Whether the request uses the older completions protocol, which continues a text."""
        if self.api is not None:
            return self.api == "completions"
        return f"{self._model(request).removeprefix('ft:')}:".startswith(_COMPLETIONS_MODELS)

    def _api(self, request: Request) -> Api:
        """The protocol that the request uses."""
        if self.api is not None:
            return self.api
        if self._completes(request):
            return "completions"
        return "responses" if self._is_vendor and fits_responses(request, self._model(request)) else "chat"

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"llm"`` for the completions protocol, which continues a text, and ``"chat_model"`` otherwise."""
        return "llm" if self._completes(request) else "chat_model"

    def service(self, request: Request) -> Service:
        """Return the provider and the address; for an unknown host, the provider that defined the protocol."""
        service = super().service(request)
        try:
            row = self._row
        except MisuseError:  # `chunks` raises it again, so that the program sees it as the request's error
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
        # A program that points OPENAI_BASE_URL at another server keeps that server's key in OPENAI_API_KEY.
        variables = (*row.keys, *(() if self.house else OPENAI.keys))
        key = self.api_key.strip() if self.api_key else next((key for v in variables if (key := key_from(v))), "")
        if key:
            return {row.header: f"Bearer {key}" if row.header == "authorization" else key}
        if row.needs_key and {"authorization", row.header}.isdisjoint(name.lower() for name in self.headers or {}):
            wanted = " or ".join(row.keys) or "an api_key"
            host = urlsplit(self._base).hostname
            raise MisuseError(f"There is no key for {host}: set {wanted}, or pass OpenAI(…, api_key=…).")
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
            raise MisuseError(
                f"The completions protocol, which {model} uses, takes a text, not messages. "
                "Pass a text, or use a chat model."
            )
        unknown = ("tools", "tool_choice", "parallel_tool_calls", "effort", "response_format")
        if refused := [name for name in unknown if getattr(request, name) is not None]:
            raise MisuseError(
                f"The completions protocol, which {model} uses, has no {', '.join(refused)}. "
                "Leave it out, or use a chat model."
            )
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
    """The audio format that the request asks for. The response does not repeat it."""
    return text_of(object_of(request.extra.get("audio")).get("format")) if request.extra else ""
