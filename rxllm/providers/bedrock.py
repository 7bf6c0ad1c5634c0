"""Amazon Bedrock's Converse API, https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.

`_bedrock_turns.py` and `_bedrock_settings.py` write the requests, `_aws.py` signs them. `_bedrock_converse.py` reads
the responses.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack
from urllib.parse import quote, urlsplit

import attrs
from attrs import field, frozen
from attrs.validators import optional as or_none

from ..bounds import MIB
from ..errors import ProviderError
from ..events import Service
from ..misuse import MisuseError, must_be
from ..shapes.dialects import ANTHROPIC, ANY
from ..shapes.modes import Offer
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.message import Message
from ..values.parameters import is_name
from ..values.parts import RawPart, ReasoningPart
from ..values.request import Request
from ..wire.eventstream import EventStreamDecoder
from ..wire.http import Signing
from ._arguments import base_from
from ._aws import has_botocore, signed
from ._bedrock_converse import ConverseDecoder, converse_error, whole_answer
from ._bedrock_settings import output_config, tool_config
from ._bedrock_turns import MAKER, Conversation
from ._documents import json_of, merged, refuse_several
from ._http import Decoder, Frames, HTTPFields, HTTPProvider
from ._limits import limits_of
from ._parameters import check_claude, check_marks

__all__ = ["Bedrock"]

_STREAM = "application/vnd.amazon.eventstream"
_NAME = or_none(must_be("a name", is_name))


@frozen(init=False)
class Bedrock(HTTPProvider):
    """A model on Amazon Bedrock, by the Converse API.

    The key is a Bedrock API key, from `api_key` or ``AWS_BEARER_TOKEN_BEDROCK``. Without a key, rxllm signs the
    requests with AWS credentials (``AWS_ACCESS_KEY_ID``, profiles, roles). Signing needs the extra ``bedrock``.

    Attributes:
        region: the AWS region. None reads ``AWS_REGION``, ``AWS_DEFAULT_REGION`` or the address.
        profile: the profile of AWS credentials; None selects the environment's profile.
    """

    _UNIQUE_IDS: ClassVar[bool] = True
    declaration = Declaration(
        tool_names=r"[a-zA-Z0-9_-]{1,64}",
        keys=("AWS_BEARER_TOKEN_BEDROCK",),
        features=("tools", "json_schema", "images", "files", "audio", "reasoning", "usage"),
        picture_bytes=5 * MIB * 3 // 4,  # 3.75 MB, by the reference of Message
    )

    region: str | None = field(default=None, kw_only=True, validator=_NAME)
    profile: str | None = field(default=None, kw_only=True, validator=_NAME)

    def __init__(
        self,
        model: str,
        *,
        region: str | None = None,
        profile: str | None = None,
        **settings: Unpack[HTTPFields],
    ) -> None:
        self._settle(model=model, region=region, profile=profile, **settings)

    def service(self, request: Request) -> Service:
        """Return the provider and its address."""
        return attrs.evolve(super().service(request), provider=MAKER)

    def identity(self) -> str:
        """Return a digest of the model, the URL, the key and all other headers.

        Raises:
            MisuseError: AWS credentials sign the requests. They determine the account, but may change at any time.
        """
        if self._signs:
            raise MisuseError(
                "cached() cannot derive a stable key for this Bedrock, because the AWS credentials may change the "
                "account. Pass cached(…, name='…'); models with the same name in the same store share their answers."
            )
        return super().identity()

    @property
    def _configured_base(self) -> str:
        return self.base_url or base_from("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")

    @property
    def _region(self) -> str:
        region = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        region = region or _region_of(self._configured_base)
        if not region:
            raise MisuseError("There is no AWS region. Set AWS_REGION, or pass Bedrock(…, region='us-east-1').")
        if not region.replace("-", "").isalnum() or not region.isascii():
            raise MisuseError(f"An AWS region must be like us-east-1, not {region!r:.50}.")
        return region

    @property
    def _key(self) -> str:
        return self._key_or("AWS_BEARER_TOKEN_BEDROCK")

    @property
    def _signs(self) -> bool:
        return not self._key and "authorization" not in self._own_headers

    @property
    def _base(self) -> str:
        if base := self._configured_base.rstrip("/"):
            return base
        region = self._region
        return f"https://bedrock-runtime.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"

    def _url(self, request: Request) -> str:
        model = quote(request.model or self.model, safe="")
        return f"{self._base}/model/{model}/converse{'' if request.stream is False else '-stream'}"

    def _headers(self, request: Request) -> dict[str, str]:
        accepted = {"accept": "application/json" if request.stream is False else _STREAM}
        if self._key:
            return {"authorization": f"Bearer {self._key}", **accepted}
        if self._signs and not has_botocore():
            raise MisuseError(
                "There is no key for Amazon Bedrock: set AWS_BEARER_TOKEN_BEDROCK, or pass Bedrock(…, api_key=…). To "
                "sign requests with AWS credentials, install the extra: pip install 'rxllm[bedrock]'."
            )
        return accepted

    def _signing(self, request: Request, method: str = "POST") -> Signing | None:
        if not self._signs:
            return None
        headers = {"content-type": "application/json"} if method == "POST" else {}
        return functools.partial(signed, headers=headers, region=self._region, profile=self.profile, method=method)

    def _models_url(self) -> str | None:
        """Return the address of the list, which another service of AWS has: ``bedrock``, not ``bedrock-runtime``."""
        base = base_from("AWS_ENDPOINT_URL_BEDROCK") or self._base.replace("//bedrock-runtime", "//bedrock", 1)
        return f"{base.rstrip('/')}/foundation-models?byOutputModality=TEXT"

    def _body(self, request: Request) -> dict[str, Any]:
        refuse_several(request.extra)
        if request.seed is not None:
            raise MisuseError("The Converse API has no seed. Use temperature=0 for the most repeatable answers.")
        model = request.model or self.model
        conversation = Conversation(self._messages(request))
        tools = tool_config(request, calls=conversation.calls)
        if "anthropic." in model:
            check_claude(request, model)
            check_marks(
                conversation.marks + sum("cachePoint" in tool for tool in (tools or {}).get("tools", ())), model
            )
        inference = {
            "maxTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "stopSequences": None if request.stop_sequences is None else list(request.stop_sequences),
        }
        optional: dict[str, Any] = {
            "system": conversation.system,
            "inferenceConfig": {name: value for name, value in inference.items() if value is not None},
            "toolConfig": tools,
            "outputConfig": output_config(request),
            "additionalModelRequestFields": self._of_family(request),
        }
        body: dict[str, Any] = {"messages": conversation.turns, **{name: v for name, v in optional.items() if v}}
        return merged(body, request.extra)

    def _messages(self, request: Request) -> tuple[Message, ...]:
        """Return the messages without the reasoning that a model rejects.

        DeepSeek R1 rejects all reasoning, which it wrote itself, and new models of Claude an answer of nothing else.
        Source: https://github.com/langchain-ai/langchain-aws/issues/401,
        https://github.com/NousResearch/hermes-agent/issues/105780
        """
        messages = [each for each in request.messages if each.role != "assistant" or not _only_thinks(each)]
        if "deepseek.r1" in (request.model or self.model):
            messages = [
                attrs.evolve(each, parts=[part for part in each.parts if not isinstance(part, ReasoningPart)])
                for each in messages
            ]
        return tuple(messages)

    def _of_family(self, request: Request) -> dict[str, Any]:
        """Return the fields that differ between the families of models."""
        model = request.model or self.model
        fields: dict[str, Any] = {}
        if request.top_k is not None:
            if "amazon.nova" in model:
                fields["inferenceConfig"] = {"topK": request.top_k}
            elif "anthropic." in model or "mistral." in model:
                fields["top_k"] = request.top_k
            elif "cohere." in model:
                fields["k"] = request.top_k
            else:
                raise MisuseError(
                    f"Bedrock's Converse API has no top_k, and rxllm does not know the field of {model}. Pass "
                    "extra={'additionalModelRequestFields': {…}}."
                )
        if request.effort == "none":
            if "anthropic." not in model:
                raise MisuseError(f"Bedrock's Converse API cannot switch off the reasoning of {model}.")
            fields["thinking"] = {"type": "disabled"}
        return fields

    def _frames(self, request: Request) -> Frames:
        return EventStreamDecoder(limit=self.event_limit)

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        model = request.model or self.model
        native = Offer("native", ANTHROPIC, on_request=True)  # few models have it
        forces = re.search(r"anthropic|amazon\.nova|mistral", model)  # the models whose calls can be forced
        return (Offer("tool", ANY), native) if forces else (native,)

    def _decoder(self, request: Request) -> Decoder:
        return ConverseDecoder(limits_of(self.event_limit, request))

    def _whole(self, body: bytes, request: Request) -> Chunk:
        return whole_answer(body)

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        name = headers.get("x-amzn-errortype", "").partition(":")[0]
        return converse_error(json_of(body), body, name=name, status=status, headers=headers)


def _only_thinks(message: Message) -> bool:
    """Return whether a message has nothing but reasoning."""
    return all(
        isinstance(part, ReasoningPart) or (isinstance(part, RawPart) and "reasoningContent" in part.data)
        for part in message.parts
    )


def _region_of(base: str) -> str | None:
    """Return the region in an address of AWS."""
    host = urlsplit(base).hostname or ""
    found = re.search(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.", host)
    return found[1] if found else None
