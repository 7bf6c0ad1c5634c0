"""`from_anthropic`: a model that sends its requests with a client of Anthropic's SDK."""

from __future__ import annotations

import base64
from typing import Any, Unpack

import msgspec
from attrs import field, frozen

from ..errors import ProtocolError
from ..providers import anthropic as vendor
from ..values.request import Request
from ..wire.eventstream import EventStreamDecoder
from ..wire.sse import Frame, SSEDecoder
from ._sdk import SDK, SDKFields, SDKModel, settings_of

__all__ = ["from_anthropic"]

_SDK = SDK("anthropic", "AsyncAnthropic")


@frozen(init=False)
class Anthropic(SDKModel, vendor.Anthropic):
    """The model. It has the name of its base, because it differs only in what sends the requests."""

    sdk = _SDK
    client: Any = field(default=None, kw_only=True, repr=False)

    def __init__(self, model: str, **settings: Any) -> None:
        self._settle(model=model, **settings)

    def _frames(self, request: Request) -> _Frames:
        return _Frames(self.event_limit)


class _Frames:
    """Server-sent events; or the AWS event stream, in which Bedrock sends the data of the same events as base64."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: SSEDecoder | EventStreamDecoder = SSEDecoder(limit=limit)
        self._has_begun = False

    @property
    def may_flush(self) -> bool:
        return self._frames.may_flush

    def feed(self, data: bytes) -> list[Frame]:
        if not self._has_begun and data:
            self._has_begun = True
            if EventStreamDecoder.begins(data):
                self._frames = EventStreamDecoder(limit=self._limit)
        frames = self._frames.feed(data)
        return frames if isinstance(self._frames, SSEDecoder) else [*map(_unpacked, frames)]

    def flush(self) -> list[Frame]:
        return self._frames.flush()

    def begins(self, beginning: bytes) -> bool:
        return SSEDecoder.begins(beginning) or EventStreamDecoder.begins(beginning)


class _Payload(msgspec.Struct):
    """The payload of an event of Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_PayloadPart.html."""

    bytes: str = ""


def _unpacked(frame: Frame) -> Frame:
    """Return a frame of Bedrock with the data of the event in it. An error stays as it is."""
    name, data = frame
    if name != "chunk":
        return frame
    try:
        return name, base64.b64decode(msgspec.json.decode(data, type=_Payload).bytes, validate=True)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ProtocolError(f"Bedrock sent an event that cannot be read: {error}.", frame=data) from None


def from_anthropic(client: Any, model: str, **settings: Unpack[SDKFields]) -> vendor.Anthropic:
    """Return a model that sends its requests with a client of Anthropic's SDK.

    ::

        llm = from_anthropic(anthropic.AsyncAnthropic(), "claude-sonnet-4-6")
        llm = from_anthropic(anthropic.AsyncAnthropicVertex(…), "claude-sonnet-4-6")

    The rest is as for `from_openai`: the client adds its address, its key, its headers, its middleware and its retries,
    and the model has everything that `rxllm.Anthropic` has. The client also names the version of the protocol. The
    version 2026-10-21, which new clients name, refuses `temperature`, `top_p` and `top_k`;
    ``headers={"anthropic-version": "2023-06-01"}`` asks for the older one.

    Args:
        client: a client, also one for Bedrock or Vertex; or a function that returns one, which is called once for each
            event loop. An asynchronous client works on the first event loop that uses it. A blocking client reads in
            threads: it closes its connection at once after its response has begun, but it waits for the response to
            begin.
        model: the name of the model.
        settings: parameters, and the config of the runs; `headers`, `timeout` and `event_limit` as those of
            `rxllm.Anthropic`. The client's own time limits and retries hold, too.

    Raises:
        MisuseError: the object is not a client of Anthropic's SDK, or a setting belongs to the client.
    """
    return Anthropic(model, **settings_of(_SDK, client, settings))
