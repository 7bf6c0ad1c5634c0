"""Google's Gemini models by generateContent, https://ai.google.dev/api/generate-content.

`_gemini_turns.py` and `_gemini_settings.py` write the requests, `_gemini_content.py` reads the responses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
from attrs import frozen

from ..events import Service
from ..misuse import MisuseError
from ..shapes.dialects import GEMINI, GEMINI_TOOL
from ..shapes.modes import Offer
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.request import Request
from ..wire.sse import Frame, SSEDecoder, is_json
from ._arguments import base_from, key_from
from ._documents import merged, object_of, refuse_several
from ._gemini_content import GeminiDecoder, whole_answer
from ._gemini_settings import generation_config, is_older, tool_config, tools_of
from ._gemini_turns import VERTEX, conversation_of, system_of
from ._http import Decoder, Frames, HTTPProvider
from ._limits import limits_of
from ._refusals import missing_key

if TYPE_CHECKING:
    from ._gemini_batches import GeminiBatches

__all__ = ["Gemini"]

_HOST = "generativelanguage.googleapis.com"


class _Frames(SSEDecoder):
    """Server-sent events, and the JSON documents between them with which Google reports an error in a stream."""

    def _interpret(self, events: bytes) -> list[Frame]:
        frames = super()._interpret(events)
        if begin := re.search(rb"^[{\[]", events, re.MULTILINE):
            document = events[begin.start() :].strip()
            frames += [("message", document)] if is_json(document) else []
        return frames


@frozen(init=False)
class Gemini(HTTPProvider):
    """A Gemini model, on Google AI Studio or on Vertex AI.

    The key comes from `api_key`, ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY``, in this order; the address from `base_url`
    or ``GOOGLE_GEMINI_BASE_URL``. Only Google's own servers require a key.

    For Vertex AI, pass a `base_url` that names a project, such as
    ``https://us-central1-aiplatform.googleapis.com/v1/projects/mine/locations/us-central1/publishers/google``. The
    `api_key` is then an access token, which ``gcloud auth print-access-token`` prints.
    """

    declaration = Declaration(
        tool_names=r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        default_model="gemini-flash-latest",
        features=("tools", "json_schema", "images", "files", "audio", "reasoning", "usage"),
        pictures=("png", "jpeg", "webp", "heic", "heif"),
    )

    def service(self, request: Request) -> Service:
        """Return the provider and its address."""
        return attrs.evolve(super().service(request), provider=self._maker)

    @property
    def _base(self) -> str:
        base = (self.base_url or base_from("GOOGLE_GEMINI_BASE_URL") or f"https://{_HOST}").rstrip("/")
        return base if urlsplit(base).path else f"{base}/v1beta"

    @property
    def _is_project(self) -> bool:
        return "/projects/" in self._base

    @property
    def _maker(self) -> str:
        """The provider name under which the server accepts signatures and files."""
        host = urlsplit(self._base).hostname or ""
        return VERTEX if self._is_project or host.endswith("aiplatform.googleapis.com") else "gcp.gemini"

    def _model(self, request: Request) -> str:
        return request.model or self.model

    def _models_url(self) -> str | None:
        if not self._is_project:
            return f"{self._base}/models?pageSize=1000"
        place = urlsplit(self._base)  # the list of Vertex AI belongs to no project
        return f"{place.scheme}://{place.netloc}/v1beta1/publishers/google/models?pageSize=200"

    def batches(self) -> GeminiBatches:
        """Return the batch API of the project, for ``job(…, via="batch-api")``.

        Raises:
            MisuseError: the model is on Vertex AI, whose batches read from Cloud Storage.
        """
        if self._maker == VERTEX:
            raise MisuseError(
                "The batches of Vertex AI read from Cloud Storage or BigQuery, which rxllm does not fill. Write "
                "via='stream', or use a key of Google AI Studio."
            )
        from ._gemini_batches import GeminiBatches  # imported here, because only jobs need it

        return GeminiBatches(self)

    def _url(self, request: Request) -> str:
        model = self._model(request)
        path = model if "/" in model else f"models/{model}"
        verb = "generateContent" if request.stream is False else "streamGenerateContent?alt=sse"
        return f"{self._base}/{path}:{verb}"

    def _headers(self, request: Request) -> dict[str, str]:
        key = self._key_or()
        if key and self._is_project:
            return {"authorization": f"Bearer {key}"}
        key = key or ("" if self._is_project else key_from("GOOGLE_API_KEY") or key_from("GEMINI_API_KEY"))
        if key:
            return {"x-goog-api-key": key}
        host = urlsplit(self._base).hostname or ""
        if host.endswith("googleapis.com") and self._own_headers.keys().isdisjoint({"x-goog-api-key", "authorization"}):
            if not self._is_project:
                raise missing_key(host, "Gemini", "GEMINI_API_KEY")
            raise MisuseError(
                f"There is no key for {host}: pass Gemini(…, api_key=…) with an access token, which `gcloud auth "
                "print-access-token` prints."
            )
        return {}

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        maker = self._maker
        optional = {
            "systemInstruction": system_of(request.messages),
            "tools": tools_of(request.tools),
            "toolConfig": tool_config(request, self._model(request), maker),
            "generationConfig": generation_config(request, self._model(request)) or None,
        }
        body = {
            "contents": conversation_of(request.messages, maker),
            **{name: value for name, value in optional.items() if value is not None},
        }
        body = merged(body, request.extra)
        if object_of(body.get("generationConfig")).get("candidateCount") not in (None, 1):
            raise MisuseError("candidateCount requests several answers, but a stream has one. Call llm.batch.")
        return body

    def _frames(self, request: Request) -> Frames:
        return _Frames(limit=self.event_limit)

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        tool = Offer("tool", GEMINI_TOOL)
        return (tool,) if request.tools and is_older(self._model(request)) else (Offer("native", GEMINI), tool)

    def _decoder(self, request: Request) -> Decoder:
        return GeminiDecoder(self._maker, limits_of(self.event_limit, request))

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body, self._maker)
