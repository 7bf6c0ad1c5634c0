"""Thousands of concurrent streams on one loop, most of which fail: each gets its own answer or its own error.

The number in a prompt decides what happens to its stream, here and at the server, which is another process: a whole
answer, at once or slowly; a connection that is cut or reset; an error before or within the answer; silence; invalid
bytes; a reader that disposes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections import Counter
from multiprocessing.connection import Connection

from soaking import PROTOCOLS, Soak, asking, run

from rxllm import (
    LLM,
    Interrupted,
    Overloaded,
    ProtocolError,
    ProviderError,
    RateLimited,
    RxllmError,
    Timeout,
    Timeouts,
)
from rxllm.testing import End, FakeServer, Reply, nothing_left_behind
from rxllm.testing.servers import Received

FATES: dict[str, tuple[type[RxllmError], ...]] = {
    "whole": (),
    "slow": (),
    "left": (),
    "cut": (Interrupted,),
    "reset": (Interrupted,),
    "broken": (ProviderError, Overloaded),
    "garbage": (ProtocolError,),
    "refused": (RateLimited,),
    "failed": (ProviderError, Overloaded),
    "silent": (Timeout,),
}
WEIGHTS = (40, 20, 10, 4, 4, 4, 4, 5, 5, 4)


def fate(number: int) -> tuple[str, list[str], int]:
    """The kind of a stream, the pieces of its answer, and the number of pieces before it fails."""
    source = random.Random(number)
    kind = source.choices(list(FATES), WEIGHTS)[0]
    pieces = [f"{number}:{index} " for index in range(source.randrange(2, 20))]
    return kind, pieces, source.randrange(1, len(pieces))


def reply(request: Received) -> Reply:
    """The response of the server."""
    protocol = next(each for each in PROTOCOLS if each.path == request.path)
    asked = request.json
    prompt = asked.get("prompt") or asked.get("input")  # the first is of completions, the second of Responses
    number = int(prompt or _text(asked["messages"][-1]["content"]))
    kind, pieces, at = fate(number)
    events = protocol.stream(pieces)
    begun = events[: -(len(pieces) - at + 3)]
    match kind:
        case "slow":
            pauses = random.Random(number)
            return Reply([step for event in events for step in (pauses.random() / 20, event)])
        case "cut":
            return Reply([*begun, End.FIN])
        case "reset":
            return Reply([*begun, 0.05, End.RST])
        case "broken":
            return Reply([*begun, protocol.error_frame()])
        case "garbage":
            return Reply([*begun, b"data: {never}\n\n", *events[len(begun) :]])
        case "refused":
            return Reply.json(protocol.error_body(429), status=429)
        case "failed":
            return Reply.json(protocol.error_body(500), status=500)
        case "silent":
            return Reply([*begun, End.HANG])
        case _:
            return Reply(events)


def _text(content: object) -> str:
    return content if isinstance(content, str) else content[0]["text"]


async def ask(llm: LLM, number: int, outcomes: Counter[str]) -> str | None:
    """Reads one stream. Returns a text that describes a fault, or None."""
    kind, pieces, at = fate(number)
    heard = ""
    error: Exception | None = None
    try:
        async with llm.astream(str(number)) as stream:
            async for chunk in stream:
                heard += chunk.text
                if kind == "left" and heard == "".join(pieces[:at]):
                    break
    except Exception as caught:
        error = caught
    outcomes[kind] += 1
    if not "".join(pieces).startswith(heard):
        return f"{number} ({kind}): {heard!r} is not a prefix of its answer"
    if FATES[kind]:
        return None if isinstance(error, FATES[kind]) else f"{number} ({kind}): ended with {error!r}"
    if error is not None:
        return f"{number} ({kind}): failed with {error!r}"
    whole = pieces[:at] if kind == "left" else pieces
    return None if heard == "".join(whole) else f"{number} ({kind}): ended after {heard!r}"


def serve(parent: Connection) -> None:
    """Runs the server's process until the parent sends a message."""
    with FakeServer(reply) as server:
        parent.send(server.url)
        parent.recv()


def work(soak: Soak) -> None:
    """Starts all streams at once."""
    silence = 5 + soak.count / 100  # seconds; thousands of connections take the server some
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=[there])
    process.start()
    url = here.recv()
    outcomes: Counter[str] = Counter()
    first = soak.random.randrange(10**6)
    numbers = range(first, first + soak.count)

    async def together() -> None:
        models = [asking(each, url, timeout=Timeouts(connect=60, read=silence)) for each in PROTOCOLS]
        results = await asyncio.gather(*(ask(models[number % len(models)], number, outcomes) for number in numbers))
        for sentence in filter(None, results):
            soak.fault(sentence)

    with nothing_left_behind():
        asyncio.run(together())
    here.send("stop")
    process.join()
    soak.numbers.update(streams=soak.count, **dict(sorted(outcomes.items())))


if __name__ == "__main__":
    run(work, count=3000)
