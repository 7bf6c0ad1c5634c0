"""Models of Anthropic, by its messages protocol: https://docs.claude.com/en/api/messages.

`_anthropic_turns` writes the messages of a request; `_anthropic_messages` reads the response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import urlsplit

from attrs import frozen

from ..bounds import MIB
from ..misuse import MisuseError
from ..shapes.dialects import ANTHROPIC, ANY
from ..shapes.modes import Offer
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.request import Request
from ._anthropic_messages import ClaudeDecoder, whole_answer
from ._anthropic_turns import (
    container_of,
    conversation_of,
    marks_of,
    output_config,
    system_of,
    tool_choice_of,
    tool_definition,
)
from ._arguments import base_from, key_from
from ._documents import count, refuse_several
from ._http import Decoder, HTTPProvider
from ._limits import limits_of
from ._parameters import check_claude, check_marks
from ._refusals import missing_key

if TYPE_CHECKING:
    from ._anthropic_batches import AnthropicBatches

__all__ = ["Anthropic"]

_DEFAULT_MAX_TOKENS = 4096
_HOSTS = (".anthropic.com", ".amazonaws.com", ".azure.com", ".googleapis.com")  # the servers of Claude's models


@frozen(init=False)
class Anthropic(HTTPProvider):
    """A model of Anthropic, or of a server that speaks its protocol (then pass its `base_url`).

    The key comes from `api_key` or ``ANTHROPIC_API_KEY``. Without a key, ``ANTHROPIC_AUTH_TOKEN`` provides a bearer
    token. The address comes from `base_url` or ``ANTHROPIC_BASE_URL``. Only Anthropic's own host requires a key.

    The protocol requires `max_tokens`; the default is 4096, plus the budget of tokens for thinking in `extra`. rxllm
    sends `response_format` as the `format` of ``output_config``.
    """

    _UNIQUE_IDS: ClassVar[bool] = True
    declaration = Declaration(
        tool_names=r"[a-zA-Z0-9_-]{1,128}",
        keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        default_model="claude-sonnet-4-6",
        features=("tools", "json_schema", "images", "files", "reasoning", "usage"),
        pictures=("jpeg", "png", "gif", "webp"),
        picture_bytes=10 * MIB * 3 // 4,  # 10 MiB as base64
    )

    @property
    def _base(self) -> str:
        base = self.base_url or base_from("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        return base.rstrip("/").removesuffix("/v1")

    @property
    def _checks_signatures(self) -> bool:
        """Whether the server rejects reasoning without a signature. Other vendors require it back as it came."""
        host = urlsplit(self._base).hostname or ""
        return f".{host}".endswith(_HOSTS)

    def _models_url(self) -> str | None:
        return f"{self._base}/v1/models?limit=1000"

    def batches(self) -> AnthropicBatches:
        """Return the batch API of the workspace, for ``job(…, via="batch-api")``."""
        from ._anthropic_batches import AnthropicBatches  # imported here, because only jobs need it

        return AnthropicBatches(self)

    def _url(self, request: Request) -> str:
        return f"{self._base}/v1/messages"

    def _headers(self, request: Request) -> dict[str, str]:
        version = {"anthropic-version": "2023-06-01"}
        key = self._key_or("ANTHROPIC_API_KEY")
        if key:
            return {"x-api-key": key, **version}
        token = key_from("ANTHROPIC_AUTH_TOKEN")
        if token:
            return {"authorization": f"Bearer {token}", **version}
        host = urlsplit(self._base).hostname
        if host == "api.anthropic.com" and self._own_headers.keys().isdisjoint({"x-api-key", "authorization"}):
            raise missing_key(host, "Anthropic", "ANTHROPIC_API_KEY")
        return version

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        if request.seed is not None:
            raise MisuseError("Anthropic's models take no seed. Use temperature=0 for the most repeatable answers.")
        model = request.model or self.model
        check_claude(request, model)
        system = system_of(request.messages)
        turns = conversation_of(request.messages, unsigned=not self._checks_signatures)
        tools = None if request.tools is None else [tool_definition(tool) for tool in request.tools]
        blocks = [
            *(system if isinstance(system, list) else ()),
            *(block for turn in turns for block in turn["content"]),
        ]
        check_marks(marks_of([request.extra, *(tools or ()), *blocks]), model)
        optional = {
            "system": system,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": None if request.stop_sequences is None else list(request.stop_sequences),
            "tools": tools,
            "tool_choice": tool_choice_of(request),
            "thinking": {"type": "disabled"} if request.effort == "none" else None,
            "output_config": output_config(request),
        }
        container = container_of(request.messages, request.extra.get("container"))
        return {
            "model": model,
            "max_tokens": request.max_tokens or _DEFAULT_MAX_TOKENS + _budget(request),
            "messages": turns,
            "stream": request.stream is not False,
            **{name: value for name, value in optional.items() if value is not None},
            **request.extra,
            **({} if container is None else {"container": container}),
        }

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        native = Offer("native", ANTHROPIC)
        thinking = request.extra.get("thinking")
        thinks = isinstance(thinking, Mapping) and cast("Mapping[str, Any]", thinking).get("type") != "disabled"
        # The API rejects a forced call while the model thinks.
        return (native,) if thinks else (native, Offer("tool", ANY, alone=True))

    def _decoder(self, request: Request) -> Decoder:
        return ClaudeDecoder(limits_of(self.event_limit, request))

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body)


def _budget(request: Request) -> int:
    """Return the budget of tokens for thinking, which `max_tokens` includes: the API requires more than the budget.

    Source: https://docs.claude.com/en/docs/build-with-claude/extended-thinking
    """
    return count(request.extra.get("thinking"), "budget_tokens") or 0
