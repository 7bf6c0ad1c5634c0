"""`ChatForm`: requests and answers in the form of chat completions, which LiteLLM has for the models of all vendors.

LiteLLM adds one field of its own, ``thinking_blocks``: Anthropic's reasoning with its signatures, which the vendor
requires back.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs
import msgspec
from attrs import field, frozen

from ...misuse import MisuseError
from ...providers import openai as vendor
from ...providers.compatible import Server
from ...values.chunk import Chunk, with_parts
from ...values.message import Message
from ...values.parts import Part, RawPart, ReasoningPart
from ...values.refusing import about
from ...values.request import Request

__all__ = ["ChatForm", "ChatStream"]

_REDACTED = "redacted_thinking"
_NOWHERE = "http://litellm"  # nothing is sent there


@frozen(init=False)
class ChatForm(vendor.OpenAI):
    """Writes the keywords of `litellm.acompletion`, and reads its answers.

    Attributes:
        maker: the provider of the answers, such as ``litellm.anthropic``. A signature goes back only to
            the vendor that made it.
    """

    maker: str = field(default="litellm", kw_only=True)

    def __init__(self, model: str, maker: str) -> None:
        self._settle(model=model, maker=maker, api="chat", base_url=_NOWHERE)

    @property
    def _row(self) -> Server:
        return _row_of(self.maker)

    def keywords(self, request: Request) -> dict[str, Any]:
        """Return the keywords of a call, which LiteLLM may change.

        Raises:
            MisuseError: chat completions cannot carry the request.
        """
        if not isinstance(request.prompt, str):
            request = attrs.evolve(request, prompt=tuple(self._with_blocks(each) for each in request.prompt))
        try:
            return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(self._written(request)[2])))
        except (UnicodeEncodeError, RecursionError) as error:
            raise about(request, MisuseError(f"The request cannot be written as JSON: {error}.")) from None

    def _with_blocks(self, message: Message) -> Message:
        """Return a message with its signed reasoning in LiteLLM's own field."""
        blocks = [block for part in message.parts if (block := self._block(part))]
        if message.role != "assistant" or not blocks:
            return message
        parts = [part for part in message.parts if not isinstance(part, RawPart) or self._block(part) is None]
        return attrs.evolve(message, parts=parts, extra={**(message.extra or {}), "thinking_blocks": blocks})

    def _block(self, part: Part) -> Mapping[str, Any] | None:
        match part:
            case ReasoningPart(signature=str(signature), provider=self.maker):
                return {"type": "thinking", "thinking": part.text, "signature": signature}
            case RawPart(provider=self.maker, data={"type": "redacted_thinking"}):
                return part.data
            case _:
                return None

    def whole(self, answer: Any, request: Request) -> Chunk:
        """Return a whole answer, a `litellm.ModelResponse`."""
        chunk = self._whole(answer.model_dump_json(exclude_none=True).encode(), request)
        return self.with_reasoning(chunk, answer.choices[0].message) or Chunk()

    def with_reasoning(self, chunk: Chunk | None, source: object) -> Chunk | None:
        """Return a chunk with the reasoning of its message or delta as it was signed."""
        blocks = getattr(source, "thinking_blocks", None)
        if not blocks:
            return chunk
        chunk = chunk or Chunk()
        others = [part for part in chunk.parts if not isinstance(part, ReasoningPart)]
        return with_parts(chunk, [*self._reasoning(blocks), *others])

    def _reasoning(self, blocks: Any) -> Iterator[Part]:
        for block in blocks:
            if block.get("type") == _REDACTED:
                yield RawPart(self.maker, {"type": _REDACTED, "data": block.get("data")})
            elif block.get("thinking") or block.get("signature"):
                yield ReasoningPart(block.get("thinking") or "", block.get("signature") or None, provider=self.maker)


@functools.cache
def _row_of(maker: str) -> Server:
    return Server(name="LiteLLM", base_url=_NOWHERE, provider=maker, needs_key=False)


class ChatStream:
    """Reads the chunks of one stream, each a `litellm.ModelResponseStream`."""

    def __init__(self, form: ChatForm, request: Request) -> None:
        self._form = form
        self._decoder = form._decoder(request)  # pyright: ignore[reportPrivateUsage]

    def chunk(self, item: Any) -> Chunk | None:
        """Return the content of a chunk; None if it has no content.

        Raises:
            RxllmError: the chunk describes an error, or violates the protocol.
        """
        chunk = self._decoder.chunk(item.model_dump_json(exclude_none=True).encode())
        if self._decoder.failure is not None:
            raise self._decoder.failure
        return self._form.with_reasoning(chunk, item.choices[0].delta) if item.choices else chunk

    def rest(self) -> Chunk | None:
        """Return the content that is held back until the end; None if there is none."""
        return self._decoder.rest()
