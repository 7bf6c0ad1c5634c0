"""Cohere's chat API, version 2, https://docs.cohere.com/reference/chat.

`_cohere_turns.py` writes the requests, `_cohere_chat.py` reads the responses.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from ..misuse import MisuseError
from ..shapes.dialects import ANY, COHERE
from ..shapes.modes import Offer
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.request import Request
from ._arguments import base_from
from ._cohere_chat import CohereDecoder, whole_answer
from ._cohere_turns import response_format, tools_and_choice, turns
from ._documents import refuse_several
from ._http import Decoder, HTTPProvider
from ._limits import limits_of
from ._refusals import missing_key

__all__ = ["Cohere"]


@frozen(init=False)
class Cohere(HTTPProvider):
    """A model of Cohere.

    The key comes from `api_key` or ``CO_API_KEY``, the address from `base_url` or ``CO_API_URL``.
    """

    declaration = Declaration(
        keys=("CO_API_KEY",),
        features=("tools", "json_schema", "images", "reasoning", "usage"),
        pictures=("png", "jpeg", "webp", "gif"),
    )

    @property
    def _base(self) -> str:
        base = self.base_url or base_from("CO_API_URL") or "https://api.cohere.com"
        return base.rstrip("/").removesuffix("/v2").removesuffix("/v1")

    def _models_url(self) -> str | None:
        return f"{self._base}/v1/models?endpoint=chat&page_size=1000"

    def _url(self, request: Request) -> str:
        return f"{self._base}/v2/chat"

    def _headers(self, request: Request) -> dict[str, str]:
        key = self._key_or("CO_API_KEY")
        if key:
            return {"authorization": f"Bearer {key}"}
        host = urlsplit(self._base).hostname or ""
        if host.startswith("api.cohere.") and "authorization" not in self._own_headers:
            raise missing_key(host, "Cohere", "CO_API_KEY")
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
            raise MisuseError("Cohere needs at least one message with content.")
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

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        tool = Offer("tool", ANY)
        return (tool,) if request.tools else (Offer("native", COHERE), tool)

    def _decoder(self, request: Request) -> Decoder:
        return CohereDecoder(limits_of(self.event_limit, request))

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body)
