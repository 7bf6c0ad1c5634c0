"""A stream that is cut, at every byte: the whole answer, or `Interrupted` with exactly what had arrived.

Never a short answer presented as whole.
"""

from __future__ import annotations

import asyncio

import pytest
from attrs import frozen
from protocols import split_events

from rxllm import Anthropic, OpenAI
from rxllm.errors import Interrupted
from rxllm.testing import End, FakeServer, Reply, Signal

TEXTS = ("Hé", "llo 🌍")


@frozen
class Short:
    """A short stream, and which of its frames end it."""

    name: str
    api: str
    body: bytes
    enders: tuple[bytes, ...]

    @property
    def frames(self):
        """Its events, each with its blank line."""
        return split_events(self.body)

    def made(self, server):
        """The provider that speaks it."""
        if self.api == "messages":
            return Anthropic("m", base_url=server.url, api_key="sk-test", max_retries=0)
        return OpenAI("m", base_url=server.url + "/v1", api=self.api, api_key="sk-test", max_retries=0)

    def expected(self, frames):
        """What these frames amount to: their text, and whether that is the whole answer."""
        text = "".join(text for text in TEXTS for frame in frames if text.encode() in frame)
        return text, any(ender in frame for frame in frames for ender in self.enders)


STREAMS = [
    Short(
        "chat",
        "chat",
        'data: {"id":"a","choices":[{"delta":{"content":"Hé"}}]}\n\n'
        ": ping\n\n"
        'data: {"choices":[{"delta":{"content":"llo 🌍"}}]}\n\n'
        'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
        "data: [DONE]\n\n".encode(),
        (b"finish_reason", b"[DONE]"),
    ),
    Short(
        "chat without finish_reason",
        "chat",
        'data: {"id":"a","choices":[{"delta":{"content":"Hé"}}]}\n\n'
        'data: {"choices":[{"delta":{"content":"llo 🌍"}}]}\n\n'
        "data: [DONE]\n\n".encode(),
        (b"[DONE]",),
    ),
    Short(
        "completions",
        "completions",
        'data: {"id":"a","choices":[{"text":"Hé"}]}\n\n'
        'data: {"choices":[{"text":"llo 🌍"}]}\n\n'
        'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n'
        "data: [DONE]\n\n".encode(),
        (b"finish_reason", b"[DONE]"),
    ),
    Short(
        "messages",
        "messages",
        'event: message_start\ndata: {"type":"message_start","message":{"id":"a"}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hé"}}\n\n'
        'event: ping\ndata: {"type":"ping"}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta",'
        '"text":"llo 🌍"}}\n\n'
        'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
        'event: message_stop\ndata: {"type":"message_stop"}\n\n'.encode(),
        (b"message_stop",),
    ),
]


def ends(frames):
    """After each frame, how many bytes have gone."""
    return [sum(map(len, frames[: count + 1])) for count in range(len(frames))]


async def outcome(llm, heard_all=None, expected=""):
    """The text that was heard, and whether it was the whole answer."""
    text = ""
    try:
        async for chunk in llm.astream("hi"):
            text += chunk.text
            if heard_all is not None and text == expected:
                heard_all.set()
    except Interrupted as error:
        partial = error.partial.text if error.partial else ""
        return text if text == partial else f"{text!r} was heard, but the partial is {partial!r}", False
    return text, True


@pytest.mark.parametrize("short", STREAMS, ids=lambda short: short.name)
async def test_a_clean_end_at_every_byte(short):
    """Only a frame that ends the protocol ends the answer, though HTTP ends properly.

    A frame that lacks nothing but its blank line counts as arrived: real servers end so.
    """
    cuts = range(len(short.body) + 1)
    arrived = [
        [frame for frame, end in zip(short.frames, ends(short.frames), strict=True) if end - len(b"\n\n") <= cut]
        for cut in cuts
    ]
    with FakeServer(*(Reply(short.body[:cut], chunked=False) for cut in cuts)) as server:
        actual = [await outcome(short.made(server)) for _ in cuts]
    assert [short.expected(frames) for frames in arrived] == actual


@pytest.mark.parametrize("end", [End.FIN, End.RST])
@pytest.mark.parametrize("more", [0, 1, 9])
@pytest.mark.parametrize("short", STREAMS, ids=lambda short: short.name)
async def test_a_broken_connection_after_every_frame(short, more, end):
    """FIN and RST at a frame's end or within the next one: what had arrived, and never the whole answer.

    Unless the protocol had ended before: then a broken connection takes nothing away.
    """
    frames = short.frames
    for count in range(len(frames) + 1):
        head = b"".join(frames[:count])
        heard_all = Signal()
        text, _ = short.expected(frames[:count])
        if not text:
            heard_all.set()
        said_all = count == len(frames)
        with FakeServer(Reply([short.body[: len(head) + more], heard_all, end])) as server:
            async with asyncio.timeout(10):
                assert (text, said_all) == await outcome(short.made(server), heard_all, text)
