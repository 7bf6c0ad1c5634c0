"""Cohere's chat API, version 2, https://docs.cohere.com/reference/chat.

Requests are written in `_cohere_turns.py`, what comes back is read in `_cohere_chat.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from attrs import frozen

from ..errors import ProviderError
from ..misuse import MisuseError
from ..values.chunk import Chunk
from ..values.request import Request
from ._arguments import base_from, key_from
from ._cohere_chat import CohereDecoder, whole_answer
from ._cohere_turns import response_format, tools_and_choice, turns
from ._documents import json_of, provider_error, refuse_several
from ._http import Decoder, HTTPProvider

__all__ = ["Cohere"]


@frozen(init=False)
class Cohere(HTTPProvider):
    """A model of Cohere's.

    The key comes from `api_key` or ``CO_API_KEY``, the address from `base_url` or ``CO_API_URL``.
    """

    _KEYS: ClassVar[tuple[str, ...]] = ("CO_API_KEY",)
    _OFFERS: ClassVar[frozenset[str]] = frozenset(("tools", "json_schema", "images", "reasoning", "usage"))

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"chat_model"``: the protocol carries conversations."""
        return "chat_model"

    @property
    def _base(self) -> str:
        base = self.base_url or base_from("CO_API_URL") or "https://api.cohere.com"
        return base.rstrip("/").removesuffix("/v2").removesuffix("/v1")

    def _url(self, request: Request) -> str:
        return f"{self._base}/v2/chat"

    def _headers(self, request: Request) -> dict[str, str]:
        key = self.api_key.strip() if self.api_key else key_from("CO_API_KEY")
        if key:
            return {"authorization": f"Bearer {key}"}
        host = urlsplit(self._base).hostname or ""
        if host.startswith("api.cohere.") and "authorization" not in {name.lower() for name in self.headers or {}}:
            raise MisuseError(f"There is no key for {host}: set CO_API_KEY, or pass Cohere(…, api_key=…).")
        return {}

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        if request.effort not in (None, "none"):
            raise MisuseError(
                f"Cohere's models have no effort {request.effort!r}. Pass a limit for the reasoning tokens instead: "
                "extra={'thinking': {'type': 'enabled', 'token_budget': …}}."
            )
        messages = [turn for message in request.messages for turn in turns(message)]
        if not messages:
            raise MisuseError("Cohere needs at least one message with something in it.")
        optional = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "p": request.top_p,
            "k": request.top_k,
            "stop_sequences": None if request.stop_sequences is None else list(request.stop_sequences),
            "seed": request.seed,
            "response_format": response_format(request),
            "thinking": {"type": "disabled"} if request.effort == "none" else None,
        }
        return {
            "model": request.model or self.model,
            "messages": messages,
            "stream": request.stream is not False,
            **{name: value for name, value in optional.items() if value is not None},
            **tools_and_choice(request),
            **request.extra,
        }

    def _decoder(self, request: Request) -> Decoder:
        return CohereDecoder()

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body)

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        return provider_error(json_of(body), body, status=status, headers=headers)
