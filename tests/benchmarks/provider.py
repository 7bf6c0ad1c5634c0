"""A local provider with a minimal cost: its answers are built in advance, and the model's name selects their form.

``burst-10000`` is 10,000 tokens back to back; ``paced-2000-1ms`` is 2,000 tokens, each in its own packet, 1 ms apart;
``whole-20`` is one JSON document with a text of 20 tokens. It serves ``POST /v1/chat/completions`` and
``POST /v1/messages``, prints its port, and ends when its stdin does, so that it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
MODEL = re.compile(rb'"model": *"((?:burst|paced|whole)-\d+(?:-(\d+)ms)?)"')


@functools.cache
def tokens(model: str) -> list[str]:
    """The tokens of a model's answer, all different; one text for a whole answer."""
    words = [f"w{number} " for number in range(int(model.split("-")[1]))]
    return ["".join(words)] if model.startswith("whole") else words


def _chat(model: str) -> list[bytes]:
    """The events of a chat completion, with the fields and the size (about 300 bytes) of OpenAI's events."""
    frame = {
        "id": f"chatcmpl-{'x' * 29}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": f"fp_{'0' * 10}",
        "usage": None,
    }

    def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(frame | {"choices": [choice]})

    count = len(tokens(model))
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    return [
        event({"role": "assistant", "content": ""}),
        *(event({"content": token}) for token in tokens(model)),
        event({}, "stop") + _event(frame | {"choices": [], "usage": usage}) + _chunk(b"data: [DONE]\n\n"),
    ]


def _whole(path: bytes, model: str) -> bytes:
    """The response with an answer that is not streamed."""
    facts: dict[str, object]
    if path == b"/v1/messages":
        text = {"type": "text", "text": tokens(model)[0]}
        facts = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [text]}
        facts |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 20}}
    else:
        message = {"role": "assistant", "content": tokens(model)[0], "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 20, "total_tokens": 21}
        facts = {"id": f"chatcmpl-{'x' * 29}", "object": "chat.completion", "created": 1_700_000_000, "model": model}
        facts |= {"choices": [choice], "usage": usage}
    body = json.dumps(facts, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _messages(model: str) -> list[bytes]:
    """The events of a message in Anthropic's format."""
    usage = {"input_tokens": 1, "output_tokens": len(tokens(model))}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}
    start = _named("message_start", message=message | {"stop_reason": None, "stop_sequence": None})
    block = _named("content_block_start", index=0, content_block={"type": "text", "text": ""})
    deltas = [{"type": "text_delta", "text": token} for token in tokens(model)]
    stop = _named("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)
    end = _named("content_block_stop", index=0) + stop + _named("message_stop")
    return [start + block, *(_named("content_block_delta", index=0, delta=delta) for delta in deltas), end]


def _named(kind: str, **facts: object) -> bytes:
    return _event({"type": kind} | facts, f"event: {kind}\n")


def _event(data: object, name: str = "") -> bytes:
    return _chunk(f"{name}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode())


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


PROTOCOLS = {b"/v1/chat/completions": _chat, b"/v1/messages": _messages}


@functools.cache
def packets(path: bytes, model: str) -> list[bytes]:
    """The packets of an answer: one for a burst, else one for each token. The first and last also contain its frame."""
    if model.startswith("whole"):
        return [_whole(path, model)]
    first, *deltas, last = PROTOCOLS[path](model)
    deltas[0] = HEAD + first + deltas[0]
    deltas[-1] += last + b"0\r\n\r\n"
    return deltas if model.startswith("paced") else [b"".join(deltas)]


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # TCP has no other
        self.loop = asyncio.get_running_loop()
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not separator or len(body) < int(length[1] if length else 0):
            return
        self.received = b""
        path, asked = head.split(b" ", 2)[1], MODEL.search(body)
        if path in PROTOCOLS and asked is not None:
            self.play(packets(path, asked[1].decode()), int(asked[2] or 0) / 1000)
        else:
            self.transport.write(NOT_FOUND)

    def play(self, answer: list[bytes], pause: float, position: int = 0) -> None:
        """Writes one packet, and schedules the next after the pause, while the connection is open."""
        if not self.transport.is_closing():
            self.transport.write(answer[position])
            if position + 1 < len(answer):
                self.loop.call_later(pause, self.play, answer, pause, position + 1)


async def main() -> None:
    """Serves until stdin ends."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
