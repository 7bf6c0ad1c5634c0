"""Models of OpenAI and of compatible servers, by the chat, completions and Responses protocols."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack, get_args
from urllib.parse import quote, urlsplit

import attrs
from attrs import field, frozen

from ..events import Service
from ..misuse import MisuseError, shown
from ..shapes.modes import Offer
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.request import Request
from ..values.tools import ToolSpec
from ._arguments import base_from
from ._documents import object_of, refuse_several, text_of
from ._fitting import check_support, effort_fields, fit_messages, limit_field, offers_tools, tool_choice_for
from ._http import Decoder, HTTPFields, HTTPProvider
from ._limits import limits_of
from ._openai_chat import ChatDecoder, whole_answer
from ._openai_responses import ResponsesDecoder, whole_response
from ._openai_turns import chat_choice, chat_format, chat_tool, turns
from ._parameters import check_openai, check_tools
from ._refusals import missing_key, no_messages
from ._responses_turns import custom_names, fits_responses, response_fields
from ._shape_offers import shape_offers
from .compatible import OPENAI, SERVERS, Server, server_at, server_named, with_path

if TYPE_CHECKING:
    from ._openai_batches import OpenAIBatches

__all__ = ["OpenAI"]

Api = Literal["chat", "completions", "responses"]
_PATHS: dict[Api, str] = {"chat": "chat/completions", "completions": "completions", "responses": "responses"}


# The name of a dated model continues with "-" and the date, that of a fine-tuned one with ":" and its owner.
_COMPLETIONS_MODELS = tuple(
    name + end for name in ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002") for end in ":-"
)


def _known_api(_: object, attribute: object, api: object) -> None:
    if api is not None and api not in get_args(Api):
        raise MisuseError(f"api must be 'chat', 'completions', 'responses' or None, got {shown(api)}.")


def _known_server(_: object, attribute: object, server: Any) -> None:
    if server is not None:
        server_named(server if isinstance(server, str) else shown(server))


@frozen(init=False)
class OpenAI(HTTPProvider):
    """A model of OpenAI, or of any server that speaks its protocols (then pass its `base_url`).

    The key comes from `api_key` or ``OPENAI_API_KEY``, the address from `base_url` or ``OPENAI_BASE_URL``. A server
    that rxllm does not know needs no key. `rxllm.providers.compatible` lists the known servers and their differences.

    Attributes:
        server: the name of a known server, such as ``"groq"``. The name selects the server's address and the
            environment variable of its key. If it is None, rxllm looks the server up by the host of the address.
        api: the protocol: ``"chat"``, ``"completions"`` or ``"responses"``. If it is None, rxllm chooses for each
            request: ``"completions"`` for a model that only continues text; ``"responses"`` on OpenAI's own host,
            unless the request uses a feature that only chat has (stop sequences, a seed, audio, chat's fields in
            `extra`); otherwise ``"chat"``.
    """

    declaration = Declaration(
        keys=("OPENAI_API_KEY",),
        default_model="gpt-5-mini",
        features=("tools", "json_schema", "images", "files", "audio", "reasoning", "usage"),
    )

    _UNASKED: ClassVar[tuple[str, ...]] = ("stream_options", "include", "store")

    api: Api | None = field(default=None, kw_only=True, validator=_known_api)
    server: str | None = field(default=None, kw_only=True, validator=_known_server)

    def __init__(
        self,
        model: str,
        *,
        api: Api | None = None,
        server: str | None = None,
        **settings: Unpack[HTTPFields],
    ) -> None:
        self._settle(model=model, api=api, server=server, **settings)

    @property
    def _base(self) -> str:
        if self.base_url:
            return with_path(self.base_url)
        if self.server is not None and self.server != OPENAI.name:
            return server_named(self.server).address()
        return with_path(base_from("OPENAI_BASE_URL") or OPENAI.base_url)

    @property
    def _row(self) -> Server:
        """The server's entry in the table of known servers: its address, its keys and its differences."""
        return server_at(self._base) if self.server is None else server_named(self.server)

    @property
    def _is_vendor(self) -> bool:
        return _is_openai(self._base)

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
        return row.maker if row.name in SERVERS else "openai"

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
        return attrs.evolve(service, provider=row.maker) if row.name in SERVERS else service

    def _model(self, request: Request) -> str:
        return request.model or self.model

    def _models_url(self) -> str | None:
        return None if "models" in self._row.lacks else f"{self._base}/models"

    def batches(self) -> OpenAIBatches:
        """Return the batch API of the account, for ``job(…, via="batch-api")``.

        Raises:
            MisuseError: the server has none that rxllm knows.
        """
        if "batches" in self._row.lacks:
            raise MisuseError(f"{self._row.name} has no batch API that rxllm knows. Write via='stream'.")
        from ._openai_batches import OpenAIBatches  # imported here, because only jobs need it

        return OpenAIBatches(self)

    def _url(self, request: Request) -> str:
        return f"{self._base}/{_PATHS[self._api(request)]}"

    def _headers(self, request: Request) -> dict[str, str]:
        row = self._row
        # A program that points OPENAI_BASE_URL at another server keeps that server's key in OPENAI_API_KEY.
        variables = (*row.keys, *(() if self.server else OPENAI.keys))
        key = self._key_or(*variables)
        if key:
            return {row.header: f"Bearer {key}" if row.header == "authorization" else key}
        if row.needs_key and {"authorization", row.header}.isdisjoint(self._own_headers):
            wanted = " or ".join(row.keys) or "an api_key"
            raise missing_key(urlsplit(self._base).hostname, "OpenAI", wanted)
        return {}

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        row = self._row
        check_support(row, request, self._model(request))
        if self._is_vendor:
            check_openai(request, self._model(request))
            check_tools(request, "OpenAI", r"[a-zA-Z0-9_-]{1,64}")
        api = self._api(request)
        if api == "responses":
            return response_fields(request, self._model(request), self._maker, self._keeper)
        completes = api == "completions"
        streams = request.stream is not False
        optional = {
            "max_tokens" if completes else limit_field(row, self._model(request)): request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": None if request.stop_sequences is None else list(request.stop_sequences),
            row.seed: request.seed,
            "tools": [chat_tool(tool) for tool in request.tools or ()] if offers_tools(row, request) else None,
            "tool_choice": tool_choice_for(row, chat_choice(request.tool_choice)),
            "parallel_tool_calls": request.parallel_tool_calls,
            "response_format": chat_format(request.response_format),
            "stream_options": {"include_usage": True} if streams and row.stream_options else None,
        }
        return {
            "model": self._model(request),
            **(self._completion_of(request) if completes else {"messages": self._conversation(request)}),
            "stream": streams,
            **{name: value for name, value in optional.items() if value is not None},
            **effort_fields(row, request.effort),
            **request.extra,
        }

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        api = self._api(request)
        if api == "completions":
            return ()
        return tuple(shape_offers(self._row, request, self._model(request), is_response=api == "responses"))

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
        messages = [*fit_messages(row, (turn for message in request.prompt for turn in turns(message, row.maker)))]
        if not messages:
            raise no_messages("A chat")
        return messages

    def _decoder(self, request: Request) -> Decoder:
        limits = limits_of(self.event_limit, request)
        if self._api(request) == "responses":
            return ResponsesDecoder(self._maker, custom_names(request), self._keeper, limits)
        names = [tool.name for tool in request.tools or () if isinstance(tool, ToolSpec)]
        row = self._row
        return ChatDecoder(names, _audio_format(request), row.maker, limits, thinks_apart=row.thinks_apart)

    def _pictures(self) -> tuple[str, tuple[str, ...]]:
        row = self._row
        return "OpenAI" if row is OPENAI else row.name, row.pictures

    def _resumed(self, decoder: Decoder) -> str | None:
        if not isinstance(decoder, ResponsesDecoder) or not decoder.resume():
            return None
        return f"{self._base}/responses/{quote(decoder.id, safe='')}?stream=true&starting_after={decoder.seen}"

    def _whole(self, body: bytes, request: Request) -> Chunk:
        if self._api(request) == "responses":
            return whole_response(body, self._maker, custom_names(request), self._keeper)
        row = self._row
        return whole_answer(body, _audio_format(request), row.maker, thinks_apart=row.thinks_apart)


@functools.lru_cache(256)
def _is_openai(base_url: str) -> bool:
    return (urlsplit(base_url).hostname or "").endswith("api.openai.com")  # eu.api.openai.com is OpenAI's, too


def _audio_format(request: Request) -> str:
    """The audio format that the request asks for. The response does not repeat it."""
    return text_of(object_of(request.extra.get("audio")).get("format")) if request.extra else ""
