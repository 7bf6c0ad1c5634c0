"""A stream that is cut at any byte gives the whole answer, or `Interrupted` with exactly what had arrived.

A short answer is never presented as whole.
"""

from __future__ import annotations

import asyncio

import attrs
import pytest
from attrs import frozen
from protocols import split_events

from rxllm import Anthropic, OpenAI
from rxllm.errors import Interrupted, Timeout
from rxllm.testing import End, FakeServer, Reply, Signal
from rxllm.wire.timeouts import Timeouts

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
        """Return its events, each with its blank line."""
        return split_events(self.body)

    def create_model(self, server):
        """Return the provider that speaks it."""
        if self.api == "messages":
            return Anthropic("m", base_url=server.url, api_key="sk-test", max_retries=0)
        return OpenAI("m", base_url=server.url + "/v1", api=self.api, api_key="sk-test", max_retries=0)

    def expected(self, frames):
        """Return what these frames amount to: their text, and whether that is the whole answer."""
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
    """Return, for each frame, the number of bytes up to its end."""
    return [sum(map(len, frames[: count + 1])) for count in range(len(frames))]


async def outcome(llm, heard_all=None, expected=""):
    """Return the text that arrived, and whether it was the whole answer."""
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
async def test_clean_end_at_each_byte_is_whole_or_interrupted(short):
    """Only a frame that ends the protocol ends the answer, also if HTTP ends properly.

    A frame that lacks only its blank line counts as arrived, since real servers end like that.
    """
    cuts = range(len(short.body) + 1)
    arrived = [
        [frame for frame, end in zip(short.frames, ends(short.frames), strict=True) if end - len(b"\n\n") <= cut]
        for cut in cuts
    ]
    with FakeServer(*(Reply(short.body[:cut], chunked=False) for cut in cuts)) as server:
        actual = [await outcome(short.create_model(server)) for _ in cuts]
    assert [short.expected(frames) for frames in arrived] == actual


@pytest.mark.parametrize("end", [End.FIN, End.RST])
@pytest.mark.parametrize("more", [-2, -1, 0, 1, 9])
@pytest.mark.parametrize("short", STREAMS, ids=lambda short: short.name)
async def test_broken_connection_after_each_frame_is_whole_or_interrupted(short, more, end):
    """After FIN and RST the answer is the same as after a clean end.

    The connection breaks at a frame's end, before its blank line or within the next frame. If the protocol has
    ended before, nothing is lost.
    """
    frames = short.frames
    for count in range(more < 0, len(frames) + 1):
        head = b"".join(frames[:count])
        heard_all = Signal()
        expected = short.expected(frames[:count])
        known = short.expected(frames[: count - (more < 0)])[0]  # before the connection breaks
        if not known:
            heard_all.set()
        with FakeServer(Reply([short.body[: len(head) + more], heard_all, end])) as server:
            async with asyncio.timeout(30):
                assert expected == await outcome(short.create_model(server), heard_all, known)


@pytest.mark.parametrize("short", STREAMS, ids=lambda short: short.name)
async def test_silence_after_the_finish_reason_times_out(short):
    """Usage may still arrive; until then the answer is not whole."""
    before = short.frames[:-1]
    with FakeServer(Reply([*before, End.HANG])) as server:
        llm = attrs.evolve(short.create_model(server), timeout=Timeouts(read=0.1))
        with pytest.raises(Timeout) as caught:
            await llm.ainvoke("hi")
    assert short.expected(before)[0] == caught.value.partial.text


WHOLE = {
    "chat": b'{"id":"a","choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}],"n":[true,null,-1.5e3]}',
    "completions": b'{"id":"a","choices":[{"text":"Hello","finish_reason":"stop"}],"n":[true,null,-1.5e3]}',
    "messages": b'{"id":"a","content":[{"type":"text","text":"H\xc3\xa9llo"}],"n":[true,null,-1.5e3]}',
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("short", STREAMS, ids=lambda short: short.name)
async def test_document_cut_at_each_byte_is_interrupted(short, stream):
    """It is retryable, since it is the beginning of this answer and not the answer of another program."""
    body = WHOLE[short.api]
    cuts = range(1, len(body))
    with FakeServer(*(Reply.json(body[:cut]) for cut in cuts)) as server:
        llm = short.create_model(server).bind(stream=stream)
        actual = [await outcome(llm) for _ in cuts]
    assert [("", False)] * len(cuts) == actual
