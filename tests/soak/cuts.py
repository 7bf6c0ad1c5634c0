"""An answer that is cut at any byte is whole or `Interrupted`, and never a short answer that looks whole.

Each answer of each protocol is sent three times for each of its bytes: in two pieces with the cut between them, ended
properly at the cut, and with its connection closed at the cut. What has arrived is known: the events that lack nothing
but their blank line. Whole JSON documents are cut as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from attrs import frozen
from soaking import EVERY, Protocol, Soak, ToolCall, asking, run

from rxllm import LLM, Interrupted, Message, RxllmError
from rxllm.testing import End, FakeServer, Reply

TEXTS = ("Hé", "llo 🌍", ' \\ "quoted"\n', "bye")
THOUGHTS = ("Let me ", "think…")
ENDERS = {
    "chat": (b'"finish_reason": "', b"[DONE]"),
    "completions": (b'"finish_reason": "', b"[DONE]"),
    "messages": (b'"message_stop"',),
    "responses": (b'"type": "response.completed"',),
    "generate": (b'"finishReason": "',),
    "ollama": (b'"done": true',),
    "converse": (b"messageStop",),
    "cohere": (b'"message-end"',),
}
# The bytes of the mark that ends an event; by default, a blank line.
MARKS = {"generate": 4, "ollama": 1, "converse": 0}


@frozen
class Case:
    """A reply that is cut.

    Attributes:
        events: the stream's events, or the document alone.
        way: ``pieces``, ``end`` and ``FIN`` of a stream, or ``document``.
    """

    protocol: Protocol
    events: tuple[bytes, ...]
    cut: int
    way: str

    @property
    def body(self) -> bytes:
        """All bytes, uncut."""
        return b"".join(self.events)

    def reply(self) -> Reply:
        """The response of the server."""
        before, after = self.body[: self.cut], self.body[self.cut :]
        match self.way:
            case "pieces":
                return Reply([before, after])
            case "end":
                return Reply(before, chunked=False)
            case "FIN":
                return Reply([before, End.FIN])
            case _:
                return Reply.json(before)

    def expected(self) -> tuple[str, bool]:
        """The expected text, and whether it is the whole answer."""
        if self.way == "document":
            return "", False
        return arrived(self.protocol, self.events, len(self.body) if self.way == "pieces" else self.cut)


def cases() -> Iterator[Case]:
    """Yields all cases."""
    for protocol in EVERY:
        shapes = [{}, {"reasoning": THOUGHTS}, {"tool_call": ToolCall()}] if "reasoning" in protocol.speaks else [{}]
        for shape in shapes:
            stream, document = (*protocol.stream(TEXTS, **shape),), (protocol.whole(TEXTS, **shape),)
            for way, events in [*((way, stream) for way in ("pieces", "end", "FIN")), ("document", document)]:
                yield from (Case(protocol, events, cut, way) for cut in range(1, sum(map(len, events))))


def arrived(protocol: Protocol, events: tuple[bytes, ...], cut: int) -> tuple[str, bool]:
    """The text of the events before the cut, and whether one of them ends the answer."""
    text, ended, end = "", False, 0
    spoken = list(TEXTS)
    for event in events:
        end += len(event)
        if end - MARKS.get(protocol.name, len(b"\n\n")) > cut:
            break
        if spoken and escaped(spoken[0]) in event:
            text += spoken.pop(0)
        ended = ended or any(ender in event for ender in ENDERS[protocol.name])
    return text, ended


def escaped(text: str) -> bytes:
    """The text as it appears in JSON."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()


async def outcome(llm: LLM) -> tuple[str, bool]:
    """Reads one answer. Returns its text, and whether it was whole."""
    text = ""
    try:
        async for chunk in llm.astream("hi"):
            text += chunk.text
    except Interrupted as error:
        partial = error.partial or Message("assistant", ())
        return text if partial.text == text else f"{text!r}, but the partial has {partial.text!r}", False
    except RxllmError as error:
        return f"{text!r} and {error!r}", False
    return text, True


def work(soak: Soak) -> None:
    """Tries each case; a smaller count tries a random sample."""
    everything = soak.sample(cases())

    async def ask() -> None:
        for number in soak.cases(len(everything)):
            case = everything[number]
            server.reply(case.reply())
            expected, actual = case.expected(), await outcome(models[case.protocol.name])
            if expected != actual:
                soak.fault(f"{case}: expected {expected!r}, got {actual!r}")

    with FakeServer() as server:
        models = {protocol.name: asking(protocol, server.url) for protocol in EVERY}
        asyncio.run(ask())


if __name__ == "__main__":
    run(work, count=10**6, seconds=600)
