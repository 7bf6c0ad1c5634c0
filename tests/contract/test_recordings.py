"""Recorded bodies of many servers, through the real path, give what the official clients make of them.

The bodies are not here: ``RXLLM_RECORDINGS`` names a directory of them, whose ``expected.json`` has the expected answer
of each file, or null if it is not known. Protocols that rxllm does not speak are skipped.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import httpx
import pytest
from attrs import field, frozen
from protocols import split_events, split_every, with_line_ends, with_pings

from rxllm import Anthropic, Bedrock, Cohere, Gemini, Message, Ollama, OpenAI
from rxllm.errors import Interrupted, ProviderError
from rxllm.testing import FakeServer, Reply

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SPOKEN = ("chat", "cohere", "completions", "converse", "gemini", "messages", "ollama", "responses")


@frozen
class Recording:
    """A file and its expected answer."""

    name: str
    path: Path
    expected: dict = field(repr=False)

    @property
    def whole(self):
        """Whether the answer was not streamed."""
        return self.path.suffix == ".json"

    def create_model(self, url, **settings):
        """Return the provider that speaks its protocol."""
        if self.expected["protocol"] == "messages":
            return Anthropic("m", base_url=url, api_key="sk-test", max_retries=0, **settings)
        if self.expected["protocol"] == "converse":
            return Bedrock("m", base_url=url, api_key="sk-test", max_retries=0, **settings)
        if self.expected["protocol"] == "ollama":
            return Ollama("m", base_url=url, api_key="sk-test", max_retries=0, **settings)
        if self.expected["protocol"] == "gemini":
            return Gemini("m", base_url=url, api_key="sk-test", max_retries=0, **settings)
        if self.expected["protocol"] == "cohere":
            return Cohere("m", base_url=url, api_key="sk-test", max_retries=0, **settings)
        return OpenAI(
            "m", base_url=url + "/v1", api=self.expected["protocol"], api_key="sk-test", max_retries=0, **settings
        )


def recordings():
    """Return all recordings, in order."""
    directory = os.environ.get("RXLLM_RECORDINGS")
    if not directory:
        return [pytest.param(None, marks=pytest.mark.skip("RXLLM_RECORDINGS names no directory"))]
    root = Path(directory)
    expected = json.loads((root / "expected.json").read_text("utf-8"))
    return [
        pytest.param(
            Recording(name, root / name, said),
            id=name,
            marks=[] if said["protocol"] in SPOKEN else [pytest.mark.skip(f"rxllm speaks no {said['protocol']}")],
        )
        for name, said in sorted(expected.items())
    ]


class Bytewise(httpx.AsyncByteStream):
    """A body that arrives byte by byte."""

    def __init__(self, body):
        self.body = body

    async def __aiter__(self):
        for place in range(len(self.body)):
            yield self.body[place : place + 1]


def aws_frames(body):
    """The body cut after each frame of an AWS event stream."""
    frames = []
    while body:
        size = int.from_bytes(body[:4])
        frames.append(body[:size])
        body = body[size:]
    return frames


def variants(body):
    """Return the same body with each kind of cut and framing."""
    if body.startswith(b"{"):  # lines of JSON
        lines = body.splitlines(keepends=True)
        return {
            "at once": [body],
            "a line each": lines,
            "7 bytes each": split_every(7, body),
            "CRLF": [body.replace(b"\n", b"\r\n")],
            "blank lines": [body.replace(b"\n", b"\n \n\n")],
            "without the last line end": [body.rstrip(b"\n")],
            "byte order mark": [BYTE_ORDER_MARK + body],
        }
    if body.startswith(b"\0"):  # binary frames have one dress
        ways = {
            "at once": [body],
            "a frame each": aws_frames(body),
            "two pieces": split_every(len(body) // 2 + 1, body),
        }
        return {**ways, "7 bytes each": split_every(7, body), "97 bytes each": split_every(97, body)}
    unix = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    frames = split_events(unix)
    return {
        "at once": [body],
        "a frame each": split_events(body),
        "7 bytes each": split_every(7, body) if len(body) < 50_000 else split_every(97, body),
        "LF": [b"".join(frames)],
        "CR": [b"".join(with_line_ends(b"\r", frames))],
        "CRLF": [b"".join(with_line_ends(b"\r\n", frames))],
        "pings": [b"".join(with_pings(frames, b":\n\n"))],
        "named pings": [b"".join(with_pings(frames, b": ping\n\n"))],
        "byte order mark": [BYTE_ORDER_MARK + body],
    }


async def answer_of(llm, **parameters):
    """Return the answer, or the partial answer and the error."""
    try:
        return await llm.ainvoke("hi", **parameters), None
    except (ProviderError, Interrupted) as error:
        return error.partial or Message("assistant"), error


def said(message, error, expected):
    """Return those facts of an answer that the expectation states."""
    usage = {name: getattr(message.usage, name, None) for name in ("input_tokens", "output_tokens")}
    if expected["protocol"] == "gemini" and message.usage:  # whose client counts thoughts apart
        usage["output_tokens"] = (message.usage.output_tokens or 0) - (message.usage.reasoning_output_tokens or 0)
    facts = {
        "text": message.text,
        "reasoning": message.reasoning,
        "refusal": message.refusal,
        "finish_reason": message.raw_finish_reason,
        "tool_calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in message.tool_calls],
        "usage": usage,
        "error": str(error) if error else None,
    }
    return plain({name: fact for name, fact in facts.items() if expected.get(name) is not None}, expected)


def plain(facts, expected):
    """Return facts that can be compared: parsed arguments, the stated usage, the error's message found in it."""
    facts = dict(facts)
    if "tool_calls" in facts:
        facts["tool_calls"] = [
            {
                "id": said["id"] and call["id"],
                "name": call["name"],
                "arguments": said["arguments"] if said["in_pieces"] else parsed(call["arguments"]),
            }
            for call, said in itertools.zip_longest(facts["tool_calls"], calls_of(expected), fillvalue=NO_CALL)
        ]
    if "usage" in facts:
        stated = {name for name, value in expected["usage"].items() if value is not None}
        facts["usage"] = {name: value for name, value in facts["usage"].items() if name in stated}
    # Ollama's client adds a status that the stream has not.
    if facts.get("error") and expected["error"].removesuffix(" (status code: -1)") in facts["error"]:
        facts["error"] = expected["error"]
    return facts


NO_CALL = {"id": "none", "name": "none", "arguments": None, "in_pieces": False}


def calls_of(expected):
    """The calls as a client tells them. Gemini's tells each piece of a call apart, and no arguments of it."""
    calls = []
    for call in expected["tool_calls"]:
        if call["name"] is None and calls:
            calls[-1]["in_pieces"] = True
        else:
            calls.append({**call, "in_pieces": False})
    return calls


def parsed(arguments):
    """Return the parsed arguments; text that is not JSON stays as it is."""
    try:
        return json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def stated(expected):
    """Return the facts that an expectation states."""
    names = ("text", "reasoning", "refusal", "finish_reason", "tool_calls", "usage", "error")
    facts = {name: expected[name] for name in names if expected.get(name) is not None}
    return plain(facts | ({"tool_calls": calls_of(expected)} if "tool_calls" in facts else {}), expected)


@pytest.mark.parametrize("recording", recordings())
async def test_recording_gives_the_expected_answer(recording):
    """Text, reasoning, refusal, calls, finish reason, usage and errors are as expected with each framing."""
    body = recording.path.read_bytes()
    ways = {"at once": [body]} if recording.whole else variants(body)
    with FakeServer(*(Reply(pieces) for pieces in ways.values())) as server:
        llm = recording.create_model(server.url, stream=not recording.whole)
        answers = {way: await answer_of(llm) for way in ways}
    if not recording.whole:
        reply = httpx.MockTransport(lambda _: httpx.Response(200, stream=Bytewise(body)))
        async with httpx.AsyncClient(transport=reply) as client:
            answers["a byte each"] = await answer_of(recording.create_model(server.url, client=client))
    expected = stated(recording.expected)
    assert dict.fromkeys(answers, expected) == {
        way: said(message, error, recording.expected) for way, (message, error) in answers.items()
    }
    if recording.expected["error"] is None:
        # A recording that was cut off has neither an error nor an end, which the official clients do not notice.
        cut_off = recording.expected["finish_reason"] is None
        errors = {type(error) for _, error in answers.values()}
        assert errors == {type(None)} or (cut_off and errors == {Interrupted})
    assert 1 == len({(message, str(error)) for message, error in answers.values()}), "the ways differ"
