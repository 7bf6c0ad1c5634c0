"""A changed frame gives an answer or an `RxllmError` at once, and no other exception and no hang.

Each answer of each protocol, streamed and whole, is changed at each of its bytes (replaced, dropped, doubled, another
put in) and at each value of its JSON (replaced by every other kind of value, dropped, doubled).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

from soaking import EVERY, Protocol, Soak, ToolCall, asking, run

from rxllm import LLM, RxllmError
from rxllm.testing import FakeServer, Reply

PATIENCE = 5.0  # seconds; an answer of a few frames takes milliseconds
VALUES = (None, True, 0, -1, 1.5, 10**30, "", "x", "\ud83d", [], [None], [[]], ["x"], {}, {"x": None}, {"type": "x"})
SHAPES: tuple[dict[str, Any], ...] = ({}, {"reasoning": ("Hm", "m")}, {"tool_call": ToolCall()})


def bodies() -> Iterator[tuple[Protocol, bytes, bool]]:
    """The answers: their protocol, their bytes, and whether they are streams."""
    for protocol in EVERY:
        for shape in SHAPES:
            if protocol.speaks.issuperset(shape):
                yield protocol, b"".join(protocol.stream(["Hé", "llo"], **shape)), True
                yield protocol, protocol.whole(["Hé", "llo"], **shape), False
        yield protocol, b"".join([*protocol.stream(["Hé"])[:-2], protocol.error_frame()]), True


def changed(soak: Soak, body: bytes, prefix: bytes) -> Iterator[bytes]:
    """The answer with one random change."""
    for at in range(len(body)):
        before, byte, after = body[:at], body[at : at + 1], body[at + 1 :]
        others = soak.random.randbytes(1), soak.random.choice((b'"', b"{", b"}", b",", b"\\", b"\n", b"\r", b"0", b"e"))
        yield from (before + other + after for other in others)
        yield before + after
        yield before + byte + byte + after
        yield before + others[1] + byte + after
    lines = body.split(b"\n")
    for number, line in enumerate(lines):
        if line.startswith(prefix + b"{"):
            for other in values(json.loads(line.removeprefix(prefix))):
                changed_line = prefix + json.dumps(other).encode()
                yield b"\n".join([*lines[:number], changed_line, *lines[number + 1 :]])


def values(value: Any) -> Iterator[Any]:
    """A document with one of its values replaced, removed or doubled."""
    yield from VALUES
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: other} for other in values(inner))
            yield {key: other for key, other in value.items() if key != name}
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in values(inner))
            yield [*value[:index], *value[index + 1 :]]
            yield [*value, inner]


async def outcome(llm: LLM) -> str:
    """Reads the answer. Returns ``answer``, the name of an RxllmError, or the text of a fault."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await llm.ainvoke("hi")
            repr(answer)
            result = "answer"
    except RxllmError as error:
        str(error)
        result = type(error).__name__
    except TimeoutError:
        return f"no end within {PATIENCE} s"
    except Exception as error:
        return f"not an RxllmError: {error!r}"
    return result if time.monotonic() - began < PATIENCE else f"{time.monotonic() - began:.1f} s"


def work(soak: Soak) -> None:
    """Tries each changed frame; a smaller count tries a random sample."""
    everything = soak.sample(
        (protocol, stream, other)
        for protocol, body, stream in bodies()
        for other in changed(soak, body, b"data: " if stream and protocol.uses_sse else b"")
    )
    outcomes: dict[str, int] = {}

    async def ask() -> None:
        for number in soak.cases(len(everything)):
            protocol, stream, body = everything[number]
            server.reply(Reply(body, chunked=False) if stream else Reply.json(body))
            result = await outcome(models[protocol.name])
            if " " in result:  # the machine itself may have paused, so only a second time is a fault
                result = await outcome(models[protocol.name])
            if " " in result:
                soak.fault(f"{protocol.name}, {body!r}: {result}")
            else:
                outcomes[result] = outcomes.get(result, 0) + 1

    with FakeServer() as server:
        models = {protocol.name: asking(protocol, server.url) for protocol in EVERY}
        asyncio.run(ask())
    soak.numbers.update(sorted(outcomes.items()))


if __name__ == "__main__":
    run(work, count=10**6, seconds=600)
