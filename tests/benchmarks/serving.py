"""What an event costs on its way out of a server, beside sse-starlette: CPU in microseconds.

    python tests/benchmarks/serving.py [events in a turn]

An answer comes from a source in the process, so nothing but the response is measured. sse-starlette is fed the same
bytes, finished; rxllm gets chunks, and encodes them. Both take short turns, and the figures are the least of the turns,
because other programs only add to them. "burst" has 20 events between two waits, "paced" has one.
"""

import asyncio
import sys
import time

from sse_starlette import EventSourceResponse

import rxllm
from rxllm.serve import StreamResponse
from rxllm.serve.openai_chat import ChatEvents
from rxllm.serve.sse import Events
from rxllm.serve.ui_messages import UIEvents

REPETITIONS = 40
ENCODERS = {"sse": Events, "openai chat": lambda: ChatEvents("m"), "ui_messages": UIEvents}
BURSTS = {"burst": 20, "paced": 1}
SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}


async def waits(items, burst):
    """Yield the items, with a wait after each burst."""
    for number, item in enumerate(items, 1):
        yield item
        if number % burst == 0:
            await asyncio.sleep(0)


async def spent(response):
    """Send a response into the void, and return the CPU that it took, in seconds."""

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(len(message.get("body", b"")))

    sent = []
    begun = time.process_time()
    await response(SCOPE, receive, send)
    return time.process_time() - begun, sum(sent)


def measure(events, repetitions=REPETITIONS):
    """Return {(name, pace): CPU in µs an event}."""
    chunks = [rxllm.Chunk(f"word{number} ") for number in range(events)]

    async def run():
        results = {}
        for pace, burst in BURSTS.items():
            for name, make in ENCODERS.items():
                encoder = make()
                frames = [encoder.begin(), *map(encoder.encode, chunks), encoder.end()]
                pairs = []
                for _ in range(repetitions):
                    ours = StreamResponse(rxllm.from_aiter(lambda: waits(chunks, burst)), make())  # noqa: B023
                    theirs = EventSourceResponse(waits(frames, burst))
                    pairs.append([await spent(ours), await spent(theirs)])
                assert abs(pairs[0][0][1] - pairs[0][1][1]) < 200  # the same bytes, but for ids
                for who, number in (("rxllm", 0), ("sse-starlette", 1)):
                    cost = min(pair[number][0] for pair in pairs)
                    results[f"{name}, {pace}", who] = cost / events * 1e6
        return results

    return asyncio.run(run())


def main():
    """Print a table."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    results = measure(events)
    print(f"{'µs an event':24}{'rxllm':>8}{'sse-starlette':>16}")
    for name in dict.fromkeys(name for name, _ in results):
        print(f"{name:24}{results[name, 'rxllm']:8.2f}{results[name, 'sse-starlette']:16.2f}")


if __name__ == "__main__":
    main()
